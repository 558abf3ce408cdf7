"""A backup that cannot be read: it is bad, it is told, and it stays where it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from samokoder_backup import clock
from samokoder_backup.settings import Kind

SLACK = timedelta(minutes=1)
"""So far may the moment in a description be from the one in its name: earlier versions named a copy a bit later."""


@dataclass(frozen=True)
class Broken:
    """A backup of which something is missing, or cannot be read."""

    id: str
    kind: Kind
    finished: datetime
    """By its name, else by the time of its file."""
    bytes: int
    why: str
    files: tuple[Path, ...]
    """Files and folders that are left of it."""

    @property
    def ahead(self) -> bool:
        """Whether it is of a time to come, so that nobody knows when it was made."""
        return clock.ahead(self.finished.timestamp())


def broken(identifier: str, kind: Kind, stamp: str, why: str, files: Iterable[Path]) -> Broken:
    """Describe one. stamp: the form of the moment in its name."""
    left = tuple(files)
    finished = named(identifier, stamp) or datetime.fromtimestamp(max(map(_written, left), default=0.0), UTC)
    return Broken(identifier, kind, finished, sum(map(size, left)), why, left)


def named(identifier: str, stamp: str) -> datetime | None:
    """Return the moment in a backup's name; None where it has none. stamp: its form."""
    try:
        return datetime.strptime(identifier.rpartition("-")[2], stamp).replace(tzinfo=UTC)
    except ValueError:
        return None


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; what cannot be looked at counts as nothing."""
    total = 0
    inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for each in (path, *inside):
        try:
            total += each.stat().st_size if each.is_file() else 0
        except OSError:
            continue
    return total


def there(path: Path, *, unknown: bool = True) -> bool:
    """Tell whether something is there. unknown: the answer for what cannot be looked at."""
    try:
        return path.exists()
    except OSError:
        return unknown


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
