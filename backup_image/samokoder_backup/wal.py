"""The WAL that Barman has: finding a file, what is there without a gap, checksums.

`python -m samokoder_backup.wal SERVER FILE DESTINATION` is PostgreSQL's restore_command. It is not `barman get-wal`
for two reasons: a damaged file must stop the recovery, where PostgreSQL takes any status up to 125 for "this is the
end" and would promote what it has; and the files of timelines that are in another folder (see `barman.py`) must be
seen, so that a promotion never takes a number that was used. It starts four times as fast, too.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from samokoder_backup import clock, notes

SEGMENT = re.compile(r"[0-9A-F]{24}")
_ARCHIVED = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
_LOG = re.compile(r"[0-9A-F]{16}")
"""Folder of an archive."""
_OF_WAL = re.compile(r"[0-9A-F]{8}")
"""How the name of each file begins that PostgreSQL gives."""
_GZIP = b"\x1f\x8b"
_PARTIAL, _PAGE_HEADER = ".partial", 24
_LEDGER = "samokoder-wal.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  ([0-9A-Za-z._]+)")
_NO_CHECKSUM = "0" * 64
"""In the place of the right checksum where that is lost and the file is bad: no file has this one."""
UNLISTED = "it cannot be listed"
CHANGED = "its checksum is another one than when it was archived"
_MISSING, _DAMAGED = 1, 200
DAMAGE = (OSError, EOFError, zlib.error)


def system(server: Path) -> str:
    """Return the system identifier of the cluster whose history is in this folder (`barman.py` names it)."""
    return server.name.split("-")[1]


def locate(server: Path, name: str) -> Path | None:
    """Find a WAL file: archived, received whole, or the one that is being received."""
    archived = server / "wals" / (name[:16] if SEGMENT.fullmatch(name) else "") / name
    received = server / "streaming" / name
    # The archiver moves a file from the second place to the first: so the first is looked at again.
    for path in (archived, received, received.with_name(f"{name}{_PARTIAL}"), received, archived):
        if path.exists() and path.stat().st_size > 0 and _has_begun(path):
            return path
    return None


def _has_begun(path: Path) -> bool:
    """Tell whether there is WAL in a file, unless another process has moved it meanwhile; raises OSError.

    A receiver fills its file with zeros before WAL, on a full disk with as many as there is room for. PostgreSQL would
    end a recovery at a file that is too short. Another file that begins with zeros is damaged.
    """
    if path.suffix != _PARTIAL:
        return True
    try:
        with path.open("rb") as file:
            return any(file.read(_PAGE_HEADER))
    except FileNotFoundError:
        return False


def content(path: Path) -> bytes:
    """Return a WAL file's bytes; raises one of DAMAGE."""
    data = path.read_bytes()
    return gzip.decompress(data) if data.startswith(_GZIP) else data


def fetch(server: Path, name: str, destination: Path, last: str = "") -> int:
    """Put a WAL file where PostgreSQL wants it; the status tells it what that means. last: what comes after is bad."""
    path = None if last and SEGMENT.fullmatch(name) and name > last else locate(server, name)
    if path is None and _HISTORY.fullmatch(name):
        # Any cluster's timeline that is known here: another folder of the same system identifier. Listed so that a
        # folder that cannot be is an error: a number that was used would be taken for a free one.
        folders = (each for each in sorted(server.parent.iterdir()) if each.name.startswith(f"main-{system(server)}-"))
        path = next((found for other in folders if (found := locate(other, name))), None)
    if path is None:
        return _MISSING
    try:
        data = content(path)
        known = _known(server).get(name) if path.is_relative_to(server / "wals") else None
        if known and hashlib.sha256(path.read_bytes()).hexdigest() != known:
            raise OSError(CHANGED)
        destination.write_bytes(data)
    except DAMAGE as error:
        print(f"WAL file {name} is damaged: {error}", file=sys.stderr)
        return _DAMAGED
    if fetched := os.environ.get("SAMOKODER_FETCHED"):
        Path(fetched).touch()
    return 0


@dataclass(frozen=True)
class Chain:
    """What is there from a segment on without a gap."""

    last: str
    end: datetime
    """When something was last written to it."""
    missing: str
    """The segment after the last, where later ones are there: a gap. Else empty."""
    ahead: bool = False
    """Whether the last has a stamp of a time to come, so that the end is that of one before it."""


@dataclass(frozen=True)
class Look:
    """What one look at the folders of a history has found."""

    written: Mapping[str, float]
    """Segment -> when something was last written to it."""
    highest: Mapping[str, str]
    """Timeline -> the last segment of which there is anything."""


def look(server: Path) -> Look:
    """List the folders of a history, each once: a week of a busy server is tens of thousands of segments."""
    written: dict[str, float] = {}
    highest: dict[str, str] = {}
    # The archiver moves a file from the first to one of the others: so it is not missed on its way.
    # What cannot be listed is missing, and told so.
    folders = [server / "streaming"]
    with contextlib.suppress(OSError):
        folders += _folders(server / "wals")
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name[:24]
                if not SEGMENT.fullmatch(name):
                    continue
                highest[name[:8]] = max(name, highest.get(name[:8], ""))
                with contextlib.suppress(OSError):
                    # As in `locate`: one that is empty is none yet.
                    if entry.name not in {name, f"{name}{_PARTIAL}"} or not (stat := entry.stat()).st_size:
                        continue
                    if _has_begun(Path(entry.path)):
                        written[name] = stat.st_mtime
    return Look(written, highest)


def number(name: str, segment_size: int) -> int:
    """Return which segment of all of its timeline's WAL a name is."""
    return int(name[8:16], 16) * (2**32 // segment_size) + int(name[16:], 16)


def segment(timeline: str, number: int, segment_size: int) -> str:
    """Return the name of a segment."""
    high, low = divmod(number, 2**32 // segment_size)
    return f"{timeline}{high:08X}{low:08X}"


def chain(server: Path, first: str, segment_size: int, bad: frozenset[str], looked: Look | None = None) -> Chain | None:
    """Follow the segments from `first`; None where not even that one is there.

    looked: at this history a moment ago, by who follows it from several segments.
    """
    looked = looked or look(server)
    timeline, last, end, ahead = first[:8], "", 0.0, False
    at = number(first, segment_size)
    while True:
        name = segment(timeline, at, segment_size)
        # The end is looked for in its place: it may have come, or got another name, since the look.
        when = None if name in bad else looked.written.get(name) or _written(server, name)
        if when is None:
            break
        # Where the clock was ahead as it was written nobody knows when that was: not before the one before it.
        ahead = bool(last) and clock.ahead(when)
        last, end, at = name, end if ahead else when, at + 1
    later = looked.highest.get(timeline, "") > name
    return Chain(last, datetime.fromtimestamp(end, UTC), name if later else "", ahead) if last else None


def _written(server: Path, name: str) -> float | None:
    try:
        while path := locate(server, name):
            with contextlib.suppress(FileNotFoundError):  # it was archived at this moment, under its own time
                return path.stat().st_mtime
    except OSError:
        pass  # as in `look`
    return None


def _folders(wals: Path) -> list[Path]:
    """Return the folders of an archive, none where it is not there yet; raises OSError where they cannot be listed."""
    try:
        return [wals, *(wals / name for name in sorted(os.listdir(wals)) if _LOG.fullmatch(name))]  # noqa: PTH208 - names
    except FileNotFoundError:
        return []


def _is_archived(path: Path) -> bool:
    # By its whole name: Barman compresses into another one beside it, and leaves that where it is killed.
    return bool(_ARCHIVED.fullmatch(path.name))


def archived(server: Path) -> list[Path]:
    """Return the archive's files; those that were being received when the timeline ended are among them.

    Raises OSError where a folder cannot be listed.
    """
    return [path for folder in _folders(server / "wals") for path in sorted(folder.iterdir()) if _is_archived(path)]


def newest(server: Path) -> float:
    """Say when WAL was last received, as a time stamp; 0 for never. A stamp of a time to come is none.

    Raises OSError where that cannot be seen: taken for never, an older history would pass for the newest one.
    """
    stamps = []
    for folder in (server / "streaming", *_folders(server / "wals")[-1:]):
        with contextlib.suppress(FileNotFoundError):
            for path in (each for each in folder.iterdir() if _OF_WAL.match(each.name)):
                with contextlib.suppress(FileNotFoundError):  # it was archived at this moment
                    if _has_begun(path):
                        stamps.append(path.stat().st_mtime)
    return max((stamp for stamp in stamps if not clock.ahead(stamp)), default=0.0)


def received(server: Path) -> float:
    """Say when the youngest WAL file of a history was written, as a time stamp; 0 for none.

    Unlike `newest` it looks at every one, and raises OSError where a folder cannot be listed: for who removes by it.
    A stamp of a time to come counts, unless the youngest of the right ones is of a later file.
    """

    def unlisted(error: OSError) -> None:
        raise error

    files = (Path(folder, name) for folder, _, names in os.walk(server, onerror=unlisted) for name in names)
    found = [(path.stat().st_mtime, path.name[:24]) for path in files if SEGMENT.match(path.name)]
    youngest, name = max((each for each in found if not clock.ahead(each[0])), default=(0.0, ""))
    return max((when for when, of in found if of > name), default=youngest)


def waiting(server: Path) -> bool:
    """Tell whether a whole segment waits for the archiver."""
    return any(SEGMENT.fullmatch(path.name) for path in (server / "streaming").glob("[0-9A-F]*"))


def _known(server: Path) -> dict[str, str]:
    """Return the checksums that can be read: without one gzip's own still holds."""
    try:
        return _ledger(server, wait=False)  # PostgreSQL waits for each file
    except OSError as error:
        print(f"{_LEDGER} of {server.name} cannot be read, so it is not asked: {error}", file=sys.stderr)
        return {}


def _ledger(server: Path, *, wait: bool = True) -> dict[str, str]:
    try:
        lines = notes.text(server / _LEDGER, errors="replace", wait=wait).splitlines()
    except FileNotFoundError:
        return {}
    # A line that a crash has truncated, or a damaged one, is none; its file is noted again.
    return {found[2]: found[1] for found in map(_LINE.fullmatch, lines) if found}


def note(server: Path, changed: Iterable[str] = ()) -> None:
    """Note the checksums of what was archived since the last time, and forget what retention removed.

    changed: files that had another checksum at the last verification. Raises OSError.
    """
    from samokoder_backup.process import lacking, write, write_instead  # noqa: PLC0415 - PostgreSQL waits for each start of this module

    files = {path.name: path for path in archived(server)}
    try:
        known, unread = _ledger(server), None
    except OSError as error:
        if lacking(error):
            raise  # the checksums are there, and are read the next time
        known, unread = {}, error  # each file that gzip finds whole is noted again
    found = {name: _digest(files[name]) for name in files.keys() - known.keys()}
    # Where a checksum is lost, what verification found is the only thing that is known of its file.
    found |= dict.fromkeys(found.keys() & set(changed), _NO_CHECKSUM)
    new = {name: digest for name, digest in found.items() if digest}
    if new or unread or known.keys() - files.keys():
        there = {name: digest for name, digest in known.items() if name in files}
        text = "".join(f"{digest}  {name}\n" for name, digest in (there | new).items())
        write_instead(server / _LEDGER, text, server.parents[1], unread) if unread else write(server / _LEDGER, text)


def _digest(path: Path) -> str:
    """Return an archived file's checksum; empty where there is none to note."""
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            gzip.decompress(data)
        elif SEGMENT.fullmatch(path.name):
            return _NO_CHECKSUM  # Barman compresses every segment
    except FileNotFoundError:
        return ""
    except DAMAGE as error:
        print(f"WAL file {path.name} cannot be read, so no checksum of it is noted: {error}", file=sys.stderr)
        return ""
    return hashlib.sha256(data).hexdigest()


def damaged(server: Path) -> dict[str, str]:
    """Check every archived file against its checksum; return name -> what is wrong, also of what cannot be read."""
    found: dict[str, str] = {}
    try:
        known = _ledger(server)
    except OSError as error:
        known, found[_LEDGER] = {}, f"it cannot be read: {error}"
    folders = []
    try:
        folders = _folders(server / "wals")
    except OSError as error:
        found["wals"] = f"{UNLISTED}: {error}"
    for folder in folders:
        try:
            files = sorted(folder.iterdir())
        except NotADirectoryError:
            continue
        except FileNotFoundError:
            continue  # retention
        except OSError as error:
            found[folder.name] = f"{UNLISTED}: {error}"
            continue
        for path in filter(_is_archived, files):
            if why := _damage(path, known.get(path.name)):
                found[path.name] = why
    return found


def _damage(path: Path, known: str | None) -> str:
    """Say what is wrong with an archived file; empty for nothing. known: its checksum."""
    try:
        data = _read_twice(path)
        if known:
            same = hashlib.sha256(data).hexdigest() == known
            return "" if same else CHANGED
        # Noted within seconds: if it is not, it could not be read then either.
        gzip.decompress(data) if data.startswith(_GZIP) else None
    except FileNotFoundError:
        pass  # retention
    except DAMAGE as error:
        return f"it cannot be read: {error}"
    return ""


def _read_twice(path: Path) -> bytes:
    """Return a file's bytes, of a second try where the first one fails: a moment's error is no damage."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError:
        return path.read_bytes()


def main(words: list[str]) -> int:
    """Answer PostgreSQL; whatever goes wrong stops the recovery, since 1 would tell it that the WAL ends here."""
    try:
        return fetch(Path(words[0]), words[1], Path(words[2]), *words[3:])
    except Exception as error:  # any at all, see above
        print(f"WAL file {words[1]} cannot be read: {error!r}", file=sys.stderr)
        return _DAMAGED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
