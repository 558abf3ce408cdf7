"""What an import does on the engine: `import_compose.py` asks for it, `import_on_engine.py` does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from operations.data.compose.source import Source


class ImportActions(Protocol):
    """What an import does on the engine. Every call can be cut off and made again."""

    def alone(self) -> AbstractContextManager[None]:
        """Hold the environment's lock."""

    def replacing(self, target: str) -> bool:
        """Tell whether a restore of the copy has begun to replace the data, and has not come to its end."""

    def volumes(self, project: str) -> list[str]:
        """Return the volumes that Compose has made for a project."""

    def projects(self) -> list[str]:
        """Return the projects that Compose has made volumes for."""

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what is in each volume, as `old_volumes.look` says it."""

    def there(self, volume: str) -> bool:
        """Tell whether there is such a volume."""

    def users(self, volume: str) -> list[str]:
        """Return the running containers that mount a volume."""

    def shared(self, project: str) -> str:
        """Return the volume, or the folder of the host, that a project has where this environment has its workspace."""

    def major(self) -> str:
        """Return the major version of this environment's PostgreSQL."""

    def copy(self, source: Source, target: str) -> None:
        """Make `target` a copy of a source, owned by this stack's server."""

    def open(self, source: Source, target: str) -> str:
        """Let a server open the copy and bring it to what this stack expects; return what it found.

        Raises ProjectError for what it cannot open.
        """

    def put(self, target: str) -> str:
        """Put the copy in the place of what is there, which is set aside; return what the person must know."""

    def remove(self, volume: str) -> None:
        """Remove a volume, where it is there."""
