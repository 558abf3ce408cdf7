"""What the engine says of a container's health, and how it is waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from offline.progress import Reporter
from operations.project import typed
from operations.stack_file import ProjectError

if TYPE_CHECKING:
    from docker.models.containers import Container

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
