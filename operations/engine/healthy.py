"""The health of a container as the engine reports it, and how to wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from host.progress import Reporter
from operations.clone import typed
from operations.errors import ProjectError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from operations.engine.part_status import PartStatus
    from stack.settings.environment import Environment

_TURN_SECONDS = 0.5


def health(container: Container) -> str:
    """Return the health of a container as the engine reports it now; `stopped` where the container does not run."""
    container.reload()
    state = container.attrs["State"]
    return str((state.get("Health") or {}).get("Status") or "without a health check") if state["Running"] else "stopped"


def wait(container: Container, part: str, environment: str, *, seconds: float, reporter: Reporter) -> None:
    """Wait until a container that was started is healthy. Raises ProjectError where it is not within these seconds."""
    with reporter.task(f"Start {part}"):
        end = time.monotonic() + seconds
        while (state := health(container)) != "healthy":
            if time.monotonic() > end:
                logs = typed(environment, f"logs PART={part}")
                raise ProjectError(f"{part} is not healthy but {state}. See: {logs}")
            time.sleep(_TURN_SECONDS)


def settled(
    ask: Callable[[], list[PartStatus]], environment: Callable[[], Environment], reporter: Reporter
) -> list[PartStatus]:
    """Wait until no part is starting any more, and return the status of each part.

    After a power cut the engine starts all parts at once, and a part that needs another part becomes healthy only after
    it: until then it has not failed. Each part has as much time as `up` gives a new one (`waitTimeoutSeconds`).
    ask: returns the present status of each part. environment: returns the settings that have this time.
    """
    began = time.monotonic()
    rows = ask()
    if not _starting(rows):
        return rows
    settings = environment()
    seconds = {
        part: settings_of.health.wait_timeout_seconds
        for field, settings_of in settings.running().items()
        for part in settings.parts_of(field)
    }
    with reporter.task("Wait for what is still starting") as task:
        while waiting := [part for part in _starting(rows) if time.monotonic() - began < seconds.get(part, 0)]:
            task.detail = ", ".join(waiting)
            time.sleep(_TURN_SECONDS)
            rows = ask()
    return rows


def _starting(rows: Sequence[PartStatus]) -> list[str]:
    """Return the parts that restart, and those whose health check has no result yet."""
    return [row.part for row in rows if row.state == "restarting" or (row.state, row.health) == ("running", "starting")]
