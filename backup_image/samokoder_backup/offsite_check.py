"""Looking at the copy in the bucket: each day at its structure and at a share of its data, so all is read in turn.

A run that went well says that something was sent. Only a look at what lies there says that it can be fetched again: a
rule of the bucket that removes old objects, a hand in the wrong folder or a disk of the provider's takes away what each
later copy still needs, and no later copy notices.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from samokoder_backup import offsite, state
from samokoder_backup.process import BackupError, say
from samokoder_backup.settings import CONFIG, ROOT, Offsite

JOB: Final = "offsite-check"
"""Its name in `state.json`."""
EVERY_SECONDS: Final = 24 * 3600.0
AGAIN_SECONDS: Final = 3600.0
"""After one that failed: it may have been the line, and what was mended is to be known."""
DAMAGED: Final = 3
"""Exit code of a check that found the copy damaged; another one could not be made."""
_DAMAGE: Final = re.compile(r"repository contains errors|LoadIndex returned errors|is damaged|There is no repository")


class Checks:
    """When the copy is checked, and what is known of it. Asked after each copy that was whole."""

    def __init__(self, settings: Offsite, *, root: Path = ROOT, secrets: Path = CONFIG) -> None:
        self._settings, self._root, self._secrets = settings, root, secrets
        self._tried: float | None = None

    def due(self) -> bool:
        """Tell whether a day has passed since the last good one; after a restart a failed one is repeated at once."""
        known = state.read().get(JOB, {})
        if known.get("exit", 0) or "success" not in known:
            return self._tried is None or time.monotonic() - self._tried >= AGAIN_SECONDS
        return not 0 <= time.time() - float(known["success"]) < EVERY_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Check it and note what it came to; nothing is noted of a check that `stop` has ended."""
        self._tried = time.monotonic()
        parts = self._settings.read_days
        part = int(state.read().get(JOB, {}).get("part", 0)) % parts + 1 if parts else 0
        error = self._look(part, stop)
        if error and _DAMAGE.search(str(error)) and not stop.is_set():
            error = self._look(part, stop)  # a line that broke in the middle looks the same, once
        if stop.is_set():
            return
        now = time.time()
        damaged = bool(error and _DAMAGE.search(str(error)))
        if error is None:
            values = {"exit": 0, "error": "", "success": now, "part": part, "damaged": 0}
        else:
            # One that could not be made is no verdict: what was known before stays.
            values = {"exit": DAMAGED, "damaged": 1} if damaged else {"exit": error.status}
            values |= {"error": str(error)}
            say(f"off-site: the check found damage: {error}" if damaged else f"off-site: not checked: {error}")
        state.record(JOB, {**values, "finished": now})

    def _look(self, part: int, stop: threading.Event) -> BackupError | None:
        read = f"{part}/{self._settings.read_days}" if part else ""
        try:
            offsite.check(self._settings, root=self._root, secrets=self._secrets, read=read, stop=stop)
        except BackupError as error:
            return error
        return None


def after_each(report: Callable[[int, str], None], checks: Checks, stop: threading.Event) -> Callable[[int, str], None]:
    """Return `report` of `offsite.serve` that checks the copy too, in the same thread: never beside a copy."""

    def told(status: int, said: str) -> None:
        report(status, said)
        if not status and checks.due():
            checks.run(stop)

    return told
