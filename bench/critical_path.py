"""Which parts an `up` waited for, one after the other, until its last one was healthy."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker

from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL

_NANO = 1e9


@dataclass(frozen=True, kw_only=True)
class PathStep:
    """One part on the path, in seconds: from the health of the one before it to its start, and then to its health."""

    part: str
    until_started: float
    until_healthy: float

    def __str__(self) -> str:
        """One step as the table shows it."""
        return f"{self.part}, started after {self.until_started:.1f} s, healthy {self.until_healthy:.1f} s later"


class HealthEvents:
    """When each part was started, and when it became healthy, in seconds since 1970 by the engine's clock."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.healthy: dict[str, float] = {}

    def note(self, event: Mapping[str, Any]) -> None:
        """Note one event of the engine. Of several starts the last one counts, of a start's health the first answer."""
        part = event.get("Actor", {}).get("Attributes", {}).get(PART_LABEL)
        if not part:
            return
        at, action = event["timeNano"] / _NANO, str(event.get("Action") or "")
        if action == "start":
            self.started[part] = at
            self.healthy.pop(part, None)
        elif action == "health_status: healthy":
            self.healthy.setdefault(part, at)

    def path(self, after: Mapping[str, Sequence[str]], begun: float) -> list[PathStep]:
        """Return the parts that waited for each other until the last healthy one, the first one first.

        after: the parts that each part waits for. begun: seconds since 1970. Empty where nothing became healthy.
        """
        if not self.healthy:
            return []
        chain = [max(self.healthy, key=self.healthy.__getitem__)]
        while before := [part for part in after.get(chain[0], ()) if part in self.healthy and part not in chain]:
            chain.insert(0, max(before, key=self.healthy.__getitem__))
        steps, ready = [], begun
        for part in chain:
            started = self.started.get(part, ready)
            steps.append(
                PathStep(part=part, until_started=started - ready, until_healthy=self.healthy[part] - started),
            )
            ready = self.healthy[part]
        return steps


@contextmanager
def watched(client: docker.DockerClient, environment: str) -> Iterator[HealthEvents]:
    """Note the engine's events of an environment's parts. The engine keeps too few of them to ask for them later."""
    watch = HealthEvents()
    stream = client.events(
        decode=True, filters={"label": f"{ENVIRONMENT_LABEL}={environment}", "event": ["start", "health_status"]}
    )

    def read() -> None:
        for event in stream:
            watch.note(event)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        stream.close()
        thread.join(timeout=5)
