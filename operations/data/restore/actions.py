"""What a restore does on the engine: `steps.py` calls it, `on_engine.py` implements it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from operations.data.restore.request import DATA, Mend, Server
from operations.workspace.workspace import Workspace

INTO = DATA["postgres"]
"""Where the volume for restored data is mounted: uid 999 owns this folder of the image, so a new volume there too."""

PRESENT = "/present"
"""Where the backup program looks for what PostgreSQL has now, so that `latest` is not an older moment unsaid."""


class Up(Protocol):
    """Brings an environment up. The command passes `lifecycle.up`, which this layer may not import."""

    def __call__(self, workspace: Workspace, *, interactive: bool, empty: Collection[str]) -> object:
        """Bring it up. empty: the data volumes that may be empty where they were lost."""


def never(workspace: Workspace, *, interactive: bool, empty: Collection[str]) -> object:
    """Stand in for `Up` in callers that bring nothing up. Raises NotImplementedError."""
    raise NotImplementedError(f"{workspace.name} is brought up by a restore alone ({interactive}, {empty})")


class RestoreActions(Protocol):
    """What a restore does on the engine. Every call can be interrupted and then repeated."""

    def data_of(self, server: Server) -> str:
        """Return the name of a server's data volume."""

    def bring_up(self, server: Server) -> bool:
        """Create the server if it has no container, with an empty data volume where that was lost.

        The backup server is created only where its volume was lost. Tell whether `up` was called: it starts all parts.
        """

    def complete(self) -> None:
        """Create what the last `up` did not come to, because the server did not start on its data."""

    def make(self, volume: str) -> None:
        """Create a volume, if it does not exist."""

    def program(self, *words: str, store: str, into: str = "", present: str = "", online: bool = False) -> None:
        """Run the backup program once, in a new container. Raises ProjectError when it refuses or fails.

        store: the volume with the backups. into: the volume that is mounted at `INTO`. present: the volume that is
        mounted at `PRESENT`, where it exists. online: whether the program can reach the Internet.
        """

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        """Copy Redis' data and mend the copy; return the report of `repair_redis.sh`.

        into: the volume for the copy; empty: a temporary volume. Raises ProjectError where it cannot be mended.
        """

    def sizes(self, volume: str) -> tuple[int, int]:
        """Return the bytes in a volume (0 where it does not exist) and the bytes that are free on its disk."""

    def stamp(self) -> str:
        """Return a stamp that no restore's volume has, so that no volume that was set aside is written to again."""

    def whole(self, volume: str, server: Server) -> bool:
        """Tell whether a volume exists and has a complete copy of the server's data."""

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        """Replace the content of the volume `target` with that of `source`.

        whole: the server whose data the source must have completely; else ProjectError is raised and the target stays.
        With `whole`, the target counts as incomplete and no server starts on it until `release`.
        """

    def release(self, volume: str) -> None:
        """Let a server start on a volume that a replacement was copied into; a second call does nothing."""

    def stop(self, fields: Sequence[str]) -> tuple[str, ...]:
        """Stop all containers of these parts, and wait until they have ended.

        Return those of them that ran, or that somebody started and stopped since the last call.
        """

    def start(self, fields: Sequence[str]) -> None:
        """Start all containers of these parts, and wait until they are healthy."""

    def own_password(self) -> None:
        """Give PostgreSQL's superuser the password that this stack has for it."""

    def new_backup(self) -> None:
        """Back up the restored data, because earlier backups belong to the history before the restore."""

    def remove(self, volume: str) -> None:
        """Remove a volume, if it exists."""
