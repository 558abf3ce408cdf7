"""What users do: a few requests a second of every kind, answered or not."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable

import httpx

PAUSE_SECONDS = 0.3


class Traffic:
    """One thread that asks the API in turn for all that it offers."""

    def __init__(self, api: str, *, stopped: Callable[[], None]) -> None:
        self.api = api
        self.when_stopped = stopped
        self.answers: Counter[int] = Counter()
        """Status -> how many; 0 is no answer."""
        self.since = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self.since

    def start(self) -> None:
        """Begin."""
        self.since = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End, after the request that is under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.when_stopped()

    def _run(self) -> None:
        user = {"email": f"{secrets.token_hex(6)}@example.org", "password": secrets.token_urlsafe(24)}
        project = ""
        with httpx.Client(base_url=self.api, timeout=30) as client:
            for turn in itertools.count():
                if self._stopped.wait(PAUSE_SECONDS):
                    return
                step = turn % 40
                if step == 0:
                    project = self._ask(client, "POST", "/projects", {"name": f"traffic {turn}"}) or project
                elif step == 1 and project:
                    self._ask(client, "POST", f"/projects/{project}/jobs", {"name": "generate_code"})
                elif step == 2:
                    self._ask(client, "POST", "/auth/register" if turn < 40 else "/auth/login", user)
                elif step == 22:
                    self._ask(client, "POST", "/auth/login", {**user, "password": "not the right one at all"})
                else:
                    self._ask(client, "GET", f"/projects/{project}" if step % 2 and project else "/projects")

    def _ask(self, client: httpx.Client, method: str, path: str, body: object = None) -> str:
        """Send one request and return the id in its answer, if there is one."""
        with contextlib.suppress(httpx.TransportError, ValueError):
            answer = client.request(method, path, json=body)
            self.answers[answer.status_code] += 1
            found = answer.json()
            return str(found.get("id", "")) if isinstance(found, dict) else ""
        self.answers[0] += 1
        return ""
