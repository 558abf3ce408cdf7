"""What PostgreSQL has now, held against the WAL that was received: `latest` is never an older moment without a word.

Its data folder is asked, which is there also where PostgreSQL does not run: the control file names the last checkpoint.
After a shutdown that is the end of its WAL. Of a PostgreSQL that runs, or was killed, what comes after it is not seen:
some minutes at most.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from samokoder_backup import wal
from samokoder_backup.catalogue import Base
from samokoder_backup.entries import chain, known_bad
from samokoder_backup.process import BackupError, CannotError, run, say

_HEADER, _LONGEST = 24, 1000
"""Bytes of a record's header, and more than a checkpoint takes."""
_PAGE, _PAGE_HEADER = 8192, 24
_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Checkpoint:
    """The last checkpoint that a data folder tells of."""

    system: str
    timeline: int
    position: int
    moment: datetime
    segment_size: int
    record: bytes
    """As it is in the WAL. With its checksum and the moment in it no other copy of the data has the same."""

    @property
    def segment(self) -> str:
        """Name of the WAL file that it is in."""
        high, low = divmod(self.position, 2**32)
        return f"{self.timeline:08X}{high:08X}{low // self.segment_size:08X}"

    def __str__(self) -> str:
        """Say where it is."""
        at = f"{self.position >> 32:X}/{self.position % 2**32:X}"
        return f"{self.moment.isoformat(sep=' ')} at {at} on timeline {self.timeline} of the database {self.system}"


def refuse_older(base: Base, data: Path, *, seconds: float) -> None:
    """Raise CannotError where what can be restored from a base backup lacks what PostgreSQL has.

    data: PostgreSQL's folder; where it is empty, gone or damaged there is nothing to compare. seconds: within them what
    was written just now is received.
    """
    last = last_checkpoint(data)
    if last is None:
        return
    same = (last.system, last.timeline) == (base.database, int(base.begin_wal[:8], 16))
    end = time.monotonic() + (seconds if same else 0.0)
    while not (same and _received(base, last)):
        if time.monotonic() >= end:
            reached = chain(base, known_bad()).end.isoformat(sep=" ")
            raise CannotError(
                f"PostgreSQL has more than `latest` would restore. Its last checkpoint, of {last}, is not in the WAL "
                f"that was received for {base.id}, which ends at {reached}, on timeline {int(base.begin_wal[:8], 16)} "
                f"of the database {base.database}. Start PostgreSQL and the backup server and wait until the list of "
                "backups reaches that checkpoint; where PostgreSQL does not start, or if it is the older moment that "
                f"you want, name it: TO='{reached}'"
            )
        time.sleep(_AGAIN_SECONDS)


def last_checkpoint(data: Path) -> Checkpoint | None:
    """Return a data folder's last checkpoint; None where there is none that can be read."""
    # A copy that was cut off has a mark, or no PG_VERSION: it is not what PostgreSQL has.
    half = [data / mark for mark in (".samokoder-copying", ".samokoder-restore") if (data / mark).exists()]
    if half or not (data / "global").is_dir() or not (data / "PG_VERSION").is_file():
        return None
    try:
        said = run(["pg_controldata", data], what="pg_controldata", environment={"LC_ALL": "C", "TZ": "UTC0"})
        values = {key: value.strip() for key, _, value in (line.partition(":") for line in said.splitlines())}
        high, low = values["Latest checkpoint location"].split("/")
        found = Checkpoint(
            system=values["Database system identifier"],
            timeline=int(values["Latest checkpoint's TimeLineID"]),
            position=int(high, 16) * 2**32 + int(low, 16),
            moment=datetime.strptime(values["Time of latest checkpoint"], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC),
            segment_size=int(values["Bytes per WAL segment"]),
            record=b"",
        )
        return Checkpoint(**{**vars(found), "record": _own_record(data, found)})
    except (ArithmeticError, BackupError, KeyError, OSError, ValueError) as error:
        say(f"what PostgreSQL has cannot be read, so it is not compared with what was received: {error}")
        return None


def _own_record(data: Path, last: Checkpoint) -> bytes:
    """Return a checkpoint as it is in PostgreSQL's own WAL; raises OSError, or ValueError where none is there."""
    path = data / "pg_wal" / last.segment
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    segment, offset = path.read_bytes(), last.position % last.segment_size
    length = int.from_bytes(segment[offset : offset + 4], "little")
    if not _HEADER < length < _LONGEST:
        raise ValueError(f"{path.name} has no checkpoint where the control file says")
    # One that goes on on the next page has that page's header in it.
    length += _PAGE_HEADER if offset % _PAGE + length > _PAGE else 0
    return segment[offset : offset + length]


def _received(base: Base, last: Checkpoint) -> bool:
    """Tell whether a checkpoint is in the WAL that leads on from a base backup, byte for byte."""
    with contextlib.suppress(CannotError, *wal.DAMAGE):
        if last.segment > chain(base, known_bad()).last or (path := wal.locate(base.server, last.segment)) is None:
            return False
        offset = last.position % last.segment_size
        return wal.content(path)[offset : offset + len(last.record)] == last.record
    return False
