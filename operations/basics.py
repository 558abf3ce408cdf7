"""What the commands of `samokoder` need before anything is imported that takes its time.

So `samokoder --help` and the shell's completion load neither the Docker SDK nor the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.workspace.workspace import Workspace


def workspace(environment: str) -> Workspace:
    """Return an environment of this clone, by its name."""
    from operations.workspace.workspace import Workspace  # noqa: PLC0415 - Pulumi and the settings take their time

    return Workspace(environment=environment)
