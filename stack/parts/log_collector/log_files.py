"""The engine's log files of one container: open, from the oldest to the newest, and how far each one is read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

READ_BYTES = 256 * 1024
_FIRST_BYTES = 512


@dataclass(eq=False)
class LogFile:
    """One file. It stays open while it exists, so that nothing is lost where the engine removes it.

    While it is open no other file gets its inode number, by which it is known after the engine has renamed it.
    """

    descriptor: int
    inode: int
    offset: int = 0
    done: bool = False
    """Whether it is read, and a newer file has taken its place."""
    first: str = ""
    """Hash of its first line, by which a position of an earlier run is told from that of another file."""
    emptied: bool = False
    """Whether somebody has emptied it by hand. What was written since the last look may be lost."""

    def fingerprint(self) -> str:
        """Return the hash of the first line; empty until the line is complete."""
        self.first = self.first or self._first_now()
        return self.first

    def _first_now(self) -> str:
        line, end, _ = os.pread(self.descriptor, _FIRST_BYTES, 0).partition(b"\n")
        return hashlib.sha256(line).hexdigest()[:16] if end or len(line) == _FIRST_BYTES else ""

    def read(self) -> bytes:
        """Return what comes next, up to `READ_BYTES`."""
        size = os.fstat(self.descriptor).st_size
        # An emptied file may be longer again than what was read of it; its first line has another moment then.
        if size < self.offset or (size > self.offset > 0 and self.first and self._first_now() != self.first):
            self.offset, self.first, self.emptied = 0, "", True
        return os.pread(self.descriptor, READ_BYTES, self.offset)

    def unread(self) -> int:
        """Return how many bytes are not read yet."""
        return 0 if self.done else max(0, os.fstat(self.descriptor).st_size - self.offset)

    def unread_lines(self) -> int:
        """Return how many lines are not read yet."""
        count, at = 0, self.offset
        while data := os.pread(self.descriptor, READ_BYTES, at):
            count, at = count + data.count(b"\n"), at + len(data)
        return count

    def removed(self) -> bool:
        """Tell whether the engine has removed it."""
        return os.fstat(self.descriptor).st_nlink == 0


@dataclass(frozen=True)
class Place:
    """A place in a file, which stays one when the file is closed."""

    inode: int
    first: str
    offset: int


@dataclass(eq=False)
class LogSource:
    """A container of the environment."""

    container: str
    folder: Path
    part: str
    replica: str
    files: list[LogFile] = field(default_factory=list)
    pieces: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Unfinished lines: stdout or stderr -> moment of the first piece, text so far, length of the whole."""
    safe: Place | None = None
    """From where on a later run reads: before the first piece of an unfinished line."""
    quiet_since: float = 0.0
    history: bool = False
    """Whether it has lines from before this program's start, of which nobody knows whether they were read."""
    compressed: tuple[int, int] | None = None
    """Inode and time (ns) of the newest file that the engine has compressed (`compress` in daemon.json), or None.

    The inode alone is not enough: nobody holds that file open, so a later file may get its number.
    """

    @property
    def unread(self) -> list[LogFile]:
        """The files that are not read to their end, the oldest first."""
        return [file for file in self.files if not file.done]

    def note(self, file: LogFile) -> None:
        """Let a later run begin here, unless a line is unfinished."""
        if not self.pieces and file.fingerprint():
            self.safe = Place(file.inode, file.first, file.offset)

    def open(self) -> bool:
        """Open the files that are not open yet, and close those that are read and removed.

        Return whether others may have come and gone since the last time: then the newest one of that time is gone too.
        """
        newest = self.files[-1] if self.files else None
        there, found = {file.inode for file in self.files}, list[LogFile]()
        log = self.folder / f"{self.container}-json.log"
        # The engine gives a file that it has rotated a number, and the oldest one the highest. A rotation meanwhile
        # moves files towards those that are not looked at yet, so from this end it hides none.
        for path in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, 10))):
            try:
                if path.stat().st_ino in there:
                    continue
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            inode = os.fstat(descriptor).st_ino
            if inode in there:  # it was rotated between the two questions
                os.close(descriptor)
                continue
            there.add(inode)
            found.insert(0, LogFile(descriptor, inode))
        self.files += found
        missed = bool(found) and newest is not None and newest.removed() and not self._compressed_one(log)
        self.compressed = _identity(log.with_name(f"{log.name}.1.gz"))
        for file in [file for file in self.files if file.done and file.removed()]:
            self.files.remove(file)
            os.close(file.descriptor)
        return missed

    def _compressed_one(self, log: Path) -> bool:
        """Tell whether the engine has rotated once since the last look, and compressed and removed what was open."""
        newest, before = (_identity(log.with_name(f"{log.name}.{number}.gz")) for number in (1, 2))
        return newest not in {None, self.compressed} and before == self.compressed

    def resume(self, place: Place) -> bool:
        """Go on where an earlier run ended. Return False where that is unknown: then all files are read.

        The file is gone and all that are left are newer, or a power cut took its end: what is there now may be new.
        """
        for number, file in enumerate(self.files):
            if file.inode == place.inode and file.fingerprint() == place.first:
                # The engine does not sync its files, so a power cut can take an end that the store has.
                size = os.fstat(file.descriptor).st_size
                if size < place.offset or (place.offset and os.pread(file.descriptor, 1, place.offset - 1) != b"\n"):
                    return False
                file.offset = place.offset
                for earlier in self.files[:number]:
                    earlier.done = True
                return True
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        there = path.stat()
    except FileNotFoundError:
        return None
    return there.st_ino, there.st_mtime_ns
