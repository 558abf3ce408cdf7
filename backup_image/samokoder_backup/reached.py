"""Whether a recovery to a moment has brought back the state of that moment, and no other.

PostgreSQL stops at the first change with a later stamp. That is the state of the moment where no change after it has an
earlier stamp, and none before it was stamped while the clock was behind. Each change has its own stamp, so all WAL of
the base backup is looked through. Where the stamps do not decide, the restore is refused: nobody knows which are right.
A clock that was behind is seen by a step back alone. Where there is none, as where the host was off for longer than its
clock lost, or none forward, as where the clock was set little by little, the stamps look like those of a right clock.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from samokoder_backup import catalogue, clock, server, wal
from samokoder_backup.catalogue import Base
from samokoder_backup.process import BackupError, CannotError, say

_CLOCKS = {False: server.QUIET, True: max(server.QUIET, timedelta(seconds=clock.SLACK_SECONDS))}
"""So far may a change's stamp be from the time of its WAL. True: PostgreSQL is on another machine, by its own clock."""
_FIRST = datetime(2023, 1, 1, tzinfo=UTC).timestamp()
"""No right clock has given an earlier stamp: this program is younger.

Many a clock without a battery begins with one. Systemd lets it begin with the date of its own build, which a clock may
have been right at: where that is later, nothing tells it from a right one (ADR 13).
"""
_CHANGE = re.compile(
    r"lsn: ([0-9A-F]+)/([0-9A-F]+), .*desc: (?:COMMIT|ABORT)\S* (?:\d+: )?(\d{4,}-\S+ \d\d:\d\d:\S+) UTC"
)
"""A line of pg_waldump: position and stamp of the end of a transaction."""
FILES = 5
"""WAL files that are unpacked at a time."""
_TELL_SECONDS = 5.0
_INSTEAD = (
    "Restore the latest moment, a backup by its name, or a moment (TO=) after the first base backup that was made by "
    "the right clock since; where there is none yet, `make backup KIND=base ENV=…` makes one, so that what is written "
    "from now on can be restored to its moments"
)
_END = "; or {}, which is all of a history that has ended"


@dataclass
class _Seen:
    """The stamps of a base backup's changes, on both sides of where recovery stopped."""

    highest_before: float = -inf
    """Of the log before the base backup too."""
    lowest_after: float = inf
    steps: list[float] = field(default_factory=list)
    """Each step back before the stop: a clock was ahead until there, or is behind from there on."""
    forward: float = 0.0
    """So far do they step forward at the stop and after it, while nothing was written: a clock may have been set."""
    stop: bool = False
    """Whether the change itself was seen at which recovery stopped."""
    unread: str = ""
    """The first WAL file that cannot be looked through."""
    told: float = field(default_factory=time.monotonic)
    """When a person was last told how far it is."""

    def tell(self, name: str) -> None:
        """Say every few seconds which WAL file is looked through: a long log takes minutes."""
        if (now := time.monotonic()) - self.told >= _TELL_SECONDS:
            self.told = now
            say(f"looking through {name}")


def refuse_another(
    base: Base,
    moment: datetime,
    stop: server.Stop | None,
    scratch: Path,
    *,
    last: str,
    end: datetime | None,
    managed: bool,
) -> str:
    """Say what was restored; raise CannotError where it may be another state than that of the moment.

    stop: None where recovery came to the end of all WAL. scratch: a folder for WAL, which is gone afterwards. last: the
    last WAL file that is good, empty for all. end: the moment that is all of its history; None where none is.
    """
    if stop is None:
        return f"{moment.isoformat(sep=' ')} is after the last change that was received, so all of them are restored"
    seen = _look(base, stop, scratch, last, _CLOCKS[managed].total_seconds())
    if not seen.stop:
        raise BackupError(
            f"pg_waldump does not find the change of {stop.change.isoformat(sep=' ')} at which recovery stopped, so "
            "nobody can tell whether a clock was wrong"
        )
    instead = _INSTEAD + (_END.format(end.isoformat(sep=" ")) if end else "")
    asked = f"{moment.isoformat(sep=' ')} cannot be reached from {base.id}"
    if stop.change.timestamp() - seen.lowest_after > server.QUIET.total_seconds():
        raise CannotError(
            f"{asked}: after the change of {stop.change.isoformat(sep=' ')} come changes that are stamped "
            f"{_moment(seen.lowest_after)}. So a clock was ahead before them, or behind then; nobody can tell which, "
            f"and what was restored may be an older state. {instead}"
        )
    before = stop.last.timestamp() if stop.last else base.end.timestamp()
    quiet = server.QUIET.total_seconds()
    if moment.timestamp() - before > quiet and seen.highest_before - before > quiet:
        raise CannotError(
            f"{asked}: its last change is stamped {_moment(before)}, and ones before it "
            f"{_moment(seen.highest_before)}. So a clock was behind then, or ahead before, and what was restored may "
            f"be a newer state, or an older one. {instead}"
        )
    smallest = min(seen.steps, default=inf)
    if seen.forward > smallest - quiet:
        raise CannotError(
            f"{asked}: stamps before it step back by {timedelta(seconds=round(smallest))}, and later ones forward by "
            "no less. So a clock was behind between, or ahead before; nobody can tell which, and what was restored "
            f"may be a newer state. {instead}"
        )
    _refuse_received_before(base, asked, stop, instead, managed=managed)
    if seen.unread:
        say(f"WAL from {seen.unread} on cannot be read: of a clock that was set back there only its files' times tell")
    last_change = f"the last change in it is of {stop.last.isoformat(sep=' ')}" if stop.last else "it has no change"
    step = timedelta(seconds=round(max(seen.steps, default=0.0)))
    ahead = f". Stamps before it step back by {step}: a clock was wrong then" if seen.steps else ""
    return (
        f"{moment.isoformat(sep=' ')}: {last_change}; the first one that is left out, of "
        f"{stop.change.isoformat(sep=' ')}{ahead}"
    )


def _moment(stamp: float) -> str:
    return datetime.fromtimestamp(stamp, UTC).isoformat(sep=" ")


def _refuse_received_before(base: Base, asked: str, stop: server.Stop, instead: str, *, managed: bool) -> None:
    """Raise CannotError where WAL from the stop on was received, by this machine's clock, before it was written."""
    name = wal.segment(base.begin_wal[:8], stop.position // base.segment_size, base.segment_size)
    received = wal.look(base.server).written.items()
    after = [when for each, when in received if each[:8] == name[:8] and each >= name and when >= _FIRST]
    if after and stop.change.timestamp() - min(after) > _CLOCKS[managed].total_seconds():
        raise CannotError(
            f"{asked}: a clock was ahead when a change was stamped {stop.change.isoformat(sep=' ')}, or behind when "
            f"WAL after it was received, at {_moment(min(after))}, so what was restored may be an older state. "
            f"{instead}"
        )


def _highest(base: Base, scratch: Path, seen: _Seen) -> float:
    """Return the latest time of what is before a base backup in the log: what is to come is a known wrong one."""
    written = wal.look(base.server).written.items()
    files = [(when, name) for name, when in written if name[:8] == base.begin_wal[:8] and name < base.begin_wal]
    ends = [each.end.timestamp() for each in catalogue.bases(base.server) if each.begin_wal < base.begin_wal]
    highest = max((each for each in ends if not clock.ahead(each)), default=-inf)
    for when, name in sorted(files, reverse=True):
        if when <= highest:
            break
        if not clock.ahead(when):
            seen.tell(name)
            highest = max(highest, min(when, _last_stamp(base, name, scratch)))
    return highest


def _last_stamp(base: Base, name: str, scratch: Path) -> float:
    """Return the latest stamp in a WAL file, which may have been received long after it; inf where it tells none."""
    try:
        content = _content(base.server, name, "")
    except wal.DAMAGE:
        return inf
    path = scratch / name
    path.write_bytes(content or b"")
    found = max((stamp for _, stamp in _dumped(path, path)), default=inf)
    path.unlink()
    return found


def _look(base: Base, stop: server.Stop, scratch: Path, last: str, slack: float) -> _Seen:
    """Look through a base backup's changes. slack: so far may a stamp be from the time of its WAL."""
    seen, quiet = _Seen(), server.QUIET.total_seconds()
    known, previous = -1, base.end.timestamp()
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        top = _highest(base, scratch, seen) - slack  # since the last step back, so that no step hides another one
        seen.highest_before = top
        if previous >= _FIRST and top - previous > quiet:
            seen.steps.append(top - previous)
        for position, stamp in _changes(base, scratch, last, seen):
            if position <= known:
                continue  # of a file that is looked through twice
            known = position
            seen.stop = seen.stop or position == stop.position
            if stamp < _FIRST:
                continue
            if position < stop.position:
                if top - stamp > quiet:
                    seen.steps.append(top - stamp)
                    top = stamp
                top = max(top, stamp)
                seen.highest_before = max(seen.highest_before, stamp)
            else:
                seen.lowest_after = min(seen.lowest_after, stamp)
                seen.forward += stamp - previous if stamp - previous > quiet else 0.0
            previous = stamp
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    # The clock may have been set since the last change.
    rest = time.time() - previous
    seen.forward += rest if rest > quiet else 0.0
    return seen


def _changes(base: Base, scratch: Path, last: str, seen: _Seen) -> Iterator[tuple[int, float]]:
    """Yield position and stamp of each change from a base backup on; those of some files come twice."""
    number: int | None = wal.number(base.begin_wal, base.segment_size)
    while number is not None:
        seen.tell(wal.segment(base.begin_wal[:8], number, base.segment_size))
        names, number = _unpack(base, scratch, last, number, seen)
        status = (yield from _dumped(scratch / names[0], scratch / names[-1])) if names else 0
        if status and number is not None:  # where WAL ends, the program fails
            seen.unread = seen.unread or names[0]
        for name in names:
            (scratch / name).unlink()


def _unpack(base: Base, scratch: Path, last: str, first: int, seen: _Seen) -> tuple[list[str], int | None]:
    """Unpack the next WAL files; return their names and the number with which it goes on; None at the end of WAL."""
    names = list[str]()
    for number in range(first, first + FILES):
        name = wal.segment(base.begin_wal[:8], number, base.segment_size)
        try:
            content = _content(base.server, name, last)
        except wal.DAMAGE:
            seen.unread = seen.unread or name
            return names, number + 1
        if content is None:
            return names, None
        (scratch / name).write_bytes(content)  # a disk without room for it is no damage
        names.append(name)
    following = wal.segment(base.begin_wal[:8], first + FILES, base.segment_size)
    if (last and following > last) or wal.locate(base.server, following) is None:
        return names, None
    return names, first + FILES - 1  # the last one once more: a change may begin in it and end in the next


def _content(history: Path, name: str, last: str) -> bytes | None:
    """Return the bytes of a WAL file, None where it is not there; raises one of wal.DAMAGE."""
    if last and name > last:
        return None
    path = wal.locate(history, name)
    with contextlib.suppress(FileNotFoundError):  # it was archived at this moment, under another name
        return wal.content(path) if path else None
    path = wal.locate(history, name)
    return wal.content(path) if path else None


def _dumped(first: Path, last: Path) -> Generator[tuple[int, float], None, int]:
    """Yield the changes in WAL files that follow each other; return the program's status."""
    command = ["pg_waldump", "--rmgr=Transaction", str(first), str(last)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TZ": "UTC"}
    ) as program:
        for line in program.stdout or ():
            if found := _CHANGE.search(line):
                stamp = datetime.fromisoformat(found[3]).replace(tzinfo=UTC)
                yield (int(found[1], 16) << 32) + int(found[2], 16), stamp.timestamp()
    return program.returncode
