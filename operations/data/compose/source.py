"""A volume of the compose stack that is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OldServer = Literal["postgres", "workspace", "redis"]
SERVERS: tuple[OldServer, ...] = ("postgres", "workspace", "redis")
"""In the order of the import: Redis is last, because a queue that comes before its database would lose its jobs."""

NAMES: Mapping[OldServer, str] = {"postgres": "PostgreSQL", "workspace": "The workspace", "redis": "Redis"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One volume of the compose stack."""

    server: OldServer
    volume: str
    folder: str
    """The folder within the volume that has the data; `.` is the volume itself."""
    bytes: int
    free: int
    """Bytes that are free on the volume's disk."""
    changed: str = ""
    """The digest that `old_volumes.look` returns: it differs once the volume was written to."""
    appendonly: bool = False
    """Of Redis: whether its append-only file is read, and not its snapshot."""

    def __str__(self) -> str:
        """Return what is read, as text for people."""
        if self.server == "postgres":
            return f"PostgreSQL's data, {self.bytes / 2**20:.0f} MiB"
        if self.server == "workspace":
            return f"The workspace, {self.bytes / 2**20:.0f} MiB"
        return (
            f"Redis' {'append-only file' if self.appendonly else 'snapshot (dump.rdb)'}, {self.bytes / 2**20:.0f} MiB"
        )
