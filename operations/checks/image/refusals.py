"""Starts of an image with wrong secrets, and whether it refuses them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from host.progress import Task
from operations.checks.image.contract import ImageCheck
from operations.checks.image.image_answer import log_of
from operations.checks.image.image_start import TURN_SECONDS, Starting
from operations.checks.image.image_ways import Way
from operations.checks.image.life import at_once

_REFUSAL_SECONDS = 10.0
# Ten containers start at once: on a machine with one core, that may take this many times as long as one start.
_STARTS_BESIDE = 4


@dataclass
class Refusing(Starting):
    """Starts the image with wrong secrets, too."""

    def accepted(
        self,
        way: Way,
        cases: Mapping[ImageCheck, Mapping[str, Mapping[str, str | None]]],
        task: Task,
        *,
        comes_up: bool,
    ) -> tuple[Mapping[ImageCheck, Sequence[str]], Mapping[ImageCheck, Sequence[str]]]:
        """Start one container for each case, all at once; return the faults, and the cases that still run at the end.

        Both are by check, as sentences. A container with good secrets is started beside them, and measures how long a
        start takes meanwhile: one that runs for more than twice that time and 10 s has not refused its wrong secret.
        comes_up: whether the image comes up with good secrets.
        """
        changed = {(check, name): changes for check, each in cases.items() for name, changes in each.items()}
        *started, good = at_once(lambda changes: self.start(way, changes), [*changed.values(), {}])
        lives = dict(zip(changed, started, strict=True))
        began, port = time.monotonic(), self.port is not None
        end = began + self.timeout * (_STARTS_BESIDE if comes_up else 1)
        waiting = dict(lives)
        while waiting and time.monotonic() < end:
            task.detail = f"{len(waiting)} of {len(lives)} are still there"
            if good.seconds:
                at_once(self.look, waiting.values())
            else:
                at_once(self.look, [*waiting.values(), good])
                if good.is_up(port=port):
                    good.seconds = time.monotonic() - began
                    end = min(end, began + 2 * good.seconds + _REFUSAL_SECONDS)
            for case, life in list(waiting.items()):
                if life.exit_code is not None or life.listens or life.is_up(port=port):
                    del waiting[case]
            time.sleep(TURN_SECONDS)
        problems: dict[ImageCheck, list[str]] = {check: [] for check in cases}
        late: dict[ImageCheck, list[str]] = {check: [] for check in cases}
        for (check, name), life in lives.items():
            self.is_running(life)
            log = log_of(life.container)
            given = changed[check, name]
            # A wrong secret in the log is a leak too: a mistyped one is nearly the right one, and Loki keeps the log.
            self.leaked |= {f"{key} (a wrong one)" for key, value in given.items() if value and value in log}
            if life.exit_code is None and (check, name) in waiting:
                late[check].append(f"{name}: runs all the same after {time.monotonic() - began:.0f} s")
            elif life.exit_code is None:
                problems[check].append(f"{name}: runs all the same")
            elif life.exit_code == 0:
                problems[check].append(f"{name}: ends, but with exit code 0")
        at_once(self.end, [*lives.values(), good])
        return problems, late
