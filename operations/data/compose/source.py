"""A volume of the compose stack that is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OldServer = Literal["postgres", "workspace", "redis"]
SERVERS: tuple[OldServer, ...] = ("postgres", "workspace", "redis")
"""In the order in which they are imported: a queue that is there before its database would lose its jobs."""

NAMES: Mapping[OldServer, str] = {"postgres": "PostgreSQL", "workspace": "The workspace", "redis": "Redis"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One volume of the compose stack."""

    server: OldServer
    volume: str
    folder: str
    """Of the data in the volume; `.` is the volume itself."""
    bytes: int
    free: int
    """Of the disk that it is on."""
    changed: str = ""
    """What `old_volumes.look` says of all of it: another text once it was written to."""
    appendonly: bool = False
    """Of Redis: whether its append-only file is read; else its snapshot."""

    def __str__(self) -> str:
        """Say what is read, for people."""
        if self.server == "postgres":
            return f"PostgreSQL's data, {self.bytes / 2**20:.0f} MiB"
        if self.server == "workspace":
            return f"The workspace, {self.bytes / 2**20:.0f} MiB"
        return (
            f"Redis' {'append-only file' if self.appendonly else 'snapshot (dump.rdb)'}, {self.bytes / 2**20:.0f} MiB"
        )
