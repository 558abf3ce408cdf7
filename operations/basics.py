"""What the commands of `samokoder` need before anything is imported that takes its time.

So `samokoder --help` and the shell's completion load neither the Docker SDK nor the settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.project import Workspace

CHANGE_PROVIDER = "change-secrets-provider"
CHANGES = frozenset({"up", "update", "destroy", "down", "dn", "refresh", "import", "watch", CHANGE_PROVIDER})
"""Commands of Pulumi that change what is on the engine, or what is known of it, with their other names."""


def workspace(environment: str) -> Workspace:
    """Return an environment of this clone, by its name."""
    from operations.project import Workspace  # noqa: PLC0415 - Pulumi and the settings take their time

    return Workspace(environment=environment)
