"""What a restore does on the engine: `steps.py` asks for it, `on_engine.py` does it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from operations.data.restore.request import DATA, Mend, Server
from operations.workspace.workspace import Workspace

INTO = DATA["postgres"]
"""Where what is restored is made. It is the image's folder and uid 999's: so is a new volume mounted over it."""

PRESENT = "/present"
"""Where the backup program looks for what PostgreSQL has now, so that `latest` is not an older moment unsaid."""


class Up(Protocol):
    """Brings an environment up: `lifecycle.up`, which the command hands in."""

    def __call__(self, workspace: Workspace, *, interactive: bool, empty: Collection[str]) -> object:
        """Bring it up. empty: the data volumes that were lost, and may be empty."""


def never(workspace: Workspace, *, interactive: bool, empty: Collection[str]) -> object:
    """Stand in for `Up` where nothing is brought up."""
    raise NotImplementedError(f"{workspace.name} is brought up by a restore alone ({interactive}, {empty})")


class RestoreActions(Protocol):
    """What a restore does on the engine. Every call can be cut off and made again."""

    def data_of(self, server: Server) -> str:
        """Return the name of a server's data volume."""

    def bring_up(self, server: Server) -> None:
        """Make the server, its data volume empty, where it is not there: its volume was lost."""

    def make(self, volume: str) -> None:
        """Make a volume where it is not there."""

    def program(self, *words: str, store: str, into: str = "", present: str = "", online: bool = False) -> None:
        """Run the backup program once, beside everything. Raises ProjectError when it refuses or fails.

        store: the volume with the backups. into: the volume that it finds at `INTO`. present: the one at `PRESENT`,
        where it is there. online: whether it has a way out.
        """

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        """Copy Redis' data, into a volume or for a look at it, and mend the copy; ProjectError where that cannot be."""

    def sizes(self, volume: str) -> tuple[int, int]:
        """Return the bytes in a volume, 0 for one that is not there, and those that are free on its disk."""

    def stamp(self) -> str:
        """Return a stamp that no volume of a restore has: what was set aside is never written to again."""

    def whole(self, volume: str, server: Server) -> bool:
        """Tell whether a volume is there and has all that a whole copy of the server's data has."""

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        """Make a volume's content the same as another's.

        whole: whose data the source must be a whole copy of. Raises ProjectError where it is not, the target untouched.
        No server starts on such a target, and it is not whole, before it is released.
        """

    def release(self, volume: str) -> None:
        """Let a server start on a volume that a replacement was copied into; nothing where that was done before."""

    def stop(self, fields: Sequence[str]) -> None:
        """Stop all containers of these parts, and wait until they have ended."""

    def start(self, fields: Sequence[str]) -> None:
        """Start all containers of these parts, and wait until they are healthy."""

    def own_password(self) -> None:
        """Give PostgreSQL's superuser the password that this stack has for it."""

    def new_backup(self) -> None:
        """Make a backup of what was restored: those before it belong to another history."""

    def remove(self, volume: str) -> None:
        """Remove a volume, where it is there."""
