"""What the engine says of a container's health, and how it is waited for."""

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
    """Return what the engine says of a container's health now, or that it does not run."""
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
    """Wait until no part is starting any more, and return how each one is then.

    After a power cut the engine starts all parts at once, and those that need another one are healthy only after it:
    until then they are not ill. Each part has as long as `up` gives a new one (`waitTimeoutSeconds`).
    ask: how each part is now. environment: whose settings say how long that is.
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
    """Return the parts of which their health checks have not yet said how they are."""
    return [row.part for row in rows if row.state == "restarting" or (row.state, row.health) == ("running", "starting")]
