"""Restart one part of an environment, replica by replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.errors import ProjectError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from operations.workspace.workspace import Workspace
    from stack.settings.environment import Environment

_ANSWER_SECONDS = 120
_DEFAULT_STOP_SECONDS = 30


def restart(workspace: Workspace, name: str) -> list[str]:
    """Restart a part, each replica when the replica before it is healthy; return the parts that were restarted.

    name: as in `status`; `api` is all its replicas. Unhealthy replicas come first, so that a replica that serves is
    stopped only when another one serves. Each container gets its stop signal and its own stop timeout; container,
    volumes and secrets stay.
    Raises ProjectError for an unknown part, before anything is stopped, and for one that does not become healthy.
    """
    from operations.data.restore import unfinished  # noqa: PLC0415 - the SDK takes its time
    from operations.engine import containers, healthy  # noqa: PLC0415 - the SDK takes its time
    from operations.workspace import lock  # noqa: PLC0415 - the SDK takes its time

    environment = workspace.settings()
    with lock.held(workspace, "restart") as locked:
        unfinished.refuse_half_replaced(locked)
        client = locked.client(timeout=_ANSWER_SECONDS)
        try:
            found = containers.replicas(client, environment, name)
            seconds = {part: _wait_seconds(environment, part) for part in found}
            order = sorted(found, key=lambda part: healthy.health(found[part]) == "healthy")  # stable: unhealthy first
            done = list[str]()
            for part in order:
                _again(found[part], part, locked)
                try:
                    healthy.wait(found[part], part, locked.environment, seconds=seconds[part], reporter=locked.reporter)
                except ProjectError as error:
                    left = ", ".join(order[len(done) + 1 :])
                    raise ProjectError(f"{error}{f'. Not restarted: {left}' if left else ''}") from None
                done.append(part)
            return done
        finally:
            client.close()


def _again(container: Container, part: str, workspace: Workspace) -> None:
    """Let the engine stop and start the container, so that it is started even if this process dies in between."""
    stop = container.attrs["Config"].get("StopTimeout") or _DEFAULT_STOP_SECONDS
    with workspace.reporter.task(f"Stop {part}, for which it has {stop} s"):
        container.restart(timeout=stop)


def _wait_seconds(environment: Environment, part: str) -> int:
    """Return the seconds that a part may take to become healthy. Raises ProjectError for one that is not declared."""
    for field, settings in environment.running().items():
        if part in environment.parts_of(field):
            return settings.health.wait_timeout_seconds
    raise ProjectError(f"{part} runs and is not declared: {environment.name} does not restart it.")
