"""What an import does on the engine: `import_compose.py` calls it, `import_on_engine.py` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from operations.data.compose.source import Source


class ImportActions(Protocol):
    """What an import does on the engine. Every call can be interrupted and then repeated."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the environment's lock."""

    def replacing(self, target: str) -> bool:
        """Tell whether an unfinished restore has begun to replace the data with this copy."""

    def volumes(self, project: str) -> list[str]:
        """Return the volumes that Compose has made for a project."""

    def projects(self) -> list[str]:
        """Return the projects that Compose has made volumes for."""

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what is in each volume, as `old_volumes.look` returns it."""

    def there(self, volume: str) -> bool:
        """Tell whether there is such a volume."""

    def users(self, volume: str) -> list[str]:
        """Return the running containers that mount a volume."""

    def shared(self, project: str) -> str:
        """Return the volume or the folder of the host that a project mounts at this environment's workspace path.

        Empty where it mounts none. Raises ProjectError where its containers mount different ones.
        """

    def major(self) -> str:
        """Return the major version of this environment's PostgreSQL."""

    def copy(self, source: Source, target: str) -> None:
        """Copy a source into the volume `target`; its files then belong to the user that reads them in this stack."""

    def open(self, source: Source, target: str) -> str:
        """Start the server on the copy, adapt the copy to this stack, and return what was found.

        Raises ProjectError where the server cannot open the copy.
        """

    def put(self, target: str, noted: Callable[[], None]) -> str:
        """Set the present data aside and put the copy in its place; return what the person must know.

        noted: called when that is done, and before what says so elsewhere is removed.
        """

    def remove(self, volume: str) -> None:
        """Remove a volume, if it exists."""
