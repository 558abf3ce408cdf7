"""Base backups as Barman lays them down: which there are, which cannot be read, which are known to be unfinished.

Only what its own description calls unfinished, and what a removal has been begun of, is ever removed as a leftover.
What cannot be read may be a good backup with one wrong byte in its description: it is told as bad, and stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from samokoder_backup import clock, damage, notes, wal
from samokoder_backup import settings as at
from samokoder_backup.damage import Broken
from samokoder_backup.process import BackupError, checksum, lacking, say, sha256, sync, write, write_instead

_SERVER = re.compile(r"main-\d+-\d+(-\d{8}T\d{6}Z)?")
STAMP = "%Y%m%dT%H%M%S"
"""Of a base backup's name."""
_DONE = "DONE"
_UNFINISHED = {"EMPTY", "STARTED", "FAILED", "WAITING_FOR_WALS", "SYNCING"}
"""Barman's other words for the state of a backup."""
_INFO, _APART, _NEW, _REMOVING = "-backup.info", "-backup.info.apart", "-backup.info.tmp", ".removing"
PAUSES = "samokoder-pauses.json"
_LEFT = re.compile(r"samokoder-pause-(\d+)-(\d+)")
"""An empty file with a pause in its name, in microseconds: where a full disk takes no more text, it may take this."""
FORGOTTEN = datetime.fromtimestamp(0, UTC)
"""When a pause begins that stands for all that a damaged file knew."""
_EARLY = 10**9
"""A time stamp of 2001, before any backup."""
_UNREADABLE = (OSError, KeyError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True)
class Base:
    """One base backup of the catalogue."""

    id: str
    server: Path
    info: Path
    """Barman's description of it."""
    status: str
    """Barman's word: DONE is the one that counts."""
    begin_wal: str
    end_wal: str
    end: datetime
    segment_size: int
    major: int
    """PostgreSQL's version: no other can read it."""

    @property
    def database(self) -> str:
        """The cluster's system identifier: a restore keeps it, and an empty volume gets another one."""
        return wal.system(self.server)

    @property
    def ahead(self) -> bool:
        """Whether it is of a time to come: then it takes no other's place."""
        return clock.ahead(self.end.timestamp())

    @property
    def folder(self) -> Path:
        """The folder with the archives."""
        return self.server / "base" / self.id

    @property
    def noted(self) -> Path:
        """The checksums; it is there once the whole backup has been verified."""
        return self.folder / "samokoder.json"

    @property
    def bytes(self) -> int:
        """How much it takes."""
        return damage.size(self.folder)

    @property
    def restored_bytes(self) -> int:
        """How much it takes when it is restored; raises BackupError where its manifest does not say so."""
        try:
            manifest = json.loads((self.folder / "data" / "backup_manifest").read_text(encoding="utf-8"))
            return sum(int(file["Size"]) for file in manifest["Files"])
        except _UNREADABLE as error:
            raise BackupError(f"backup_manifest cannot be read: {error}") from error


def histories() -> list[Path]:
    """Return the folder of each history; raises OSError where nobody can say which there are."""
    found = (at.BARMAN_HOME / name for name in sorted(_names(at.BARMAN_HOME)))
    return [path for path in found if _SERVER.fullmatch(path.name) and _is_folder(path)]


def servers() -> list[Path]:
    """Return the folder of each history; none where they cannot be listed, which `broken` tells."""
    try:
        return histories()
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return True  # whoever looks into it says why that cannot be done


def bases(*among: Path) -> list[Base]:
    """Return the base backups that are complete and can be read, the oldest first."""
    found = [each for server in among or servers() for each in _look(server) if isinstance(each, Base)]
    return sorted(found, key=lambda base: base.end)


def broken(*among: Path) -> list[Broken]:
    """Return those that cannot be read; for a folder that cannot be listed one without files, by the folder's name."""
    try:
        looked = among or histories()
    except OSError as error:
        return [damage.broken(at.BARMAN_HOME.name, "base", STAMP, f"it cannot be listed: {error}", ())]
    return [each for server in looked for each in _look(server) if isinstance(each, Broken)]


def pauses(server: Path, *, wait: bool = True) -> list[tuple[datetime, datetime]]:
    """Return the times in which PostgreSQL was on another history, the earliest first: this one has nothing of them.

    Where they cannot be read, one is from FORGOTTEN to when they were written, or to now: it may be any time before.
    """
    known, error = _pauses(server, wait=wait)
    if error:
        say(f"{PAUSES} of {server.name} cannot be read: {error}")
    return known


def pauses_damage(server: Path) -> str:
    """Say what is wrong with what is noted of the pauses; empty for nothing."""
    return str(_pauses(server)[1] or "")


def _pauses(server: Path, *, wait: bool = True) -> tuple[list[tuple[datetime, datetime]], Exception | None]:
    path, left = server / PAUSES, list[tuple[float, float]]()
    try:
        left = [(int(each[1]) / 1e6, int(each[2]) / 1e6) for each in map(_LEFT.fullmatch, _names(server)) if each]
        with contextlib.suppress(FileNotFoundError):
            left += _checked(notes.text(path, wait=wait))
        return _times(left), None
    except _UNREADABLE as error:
        until = datetime.now(UTC)
        with contextlib.suppress(OSError):  # its folder cannot be looked into either
            until = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return [(FORGOTTEN, until), *_times(left)], error


def _times(said: Sequence[tuple[float, float]]) -> list[tuple[datetime, datetime]]:
    return [(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)) for start, end in sorted(said)]


class Pause(NamedTuple):
    """A time in which nothing of a history was received, by time stamps."""

    server: Path
    start: float
    end: float


def note_pause(server: Path, start: float, end: float) -> None:
    """Note a pause, by time stamps, or make one longer; raises OSError. What cannot be read is kept beside it."""
    try:
        left = [name for name in _names(server) if _LEFT.fullmatch(name)]
        before, error = _pauses(server)
        if error and lacking(error):
            raise error
        known = [(begin.timestamp(), until.timestamp()) for begin, until in before]
        begun = datetime.fromtimestamp(start, UTC).timestamp()  # as it is read: to the microsecond
        longest = max(float(end), *(until for begin, until in known if begin == begun), 0.0)
        now = [*(each for each in known if each[0] != begun), (begun, longest)]
        text = json.dumps([*now, _checksum(now)])
        write_instead(server / PAUSES, text, at.ROOT, error) if error else write(server / PAUSES, text)
    except OSError:
        (server / f"samokoder-pause-{start * 1e6:.0f}-{end * 1e6:.0f}").touch()
        raise
    for name in left:
        (server / name).unlink(missing_ok=True)


def _checked(text: str) -> list[tuple[float, float]]:
    """Read time stamps of pauses; raises one of _UNREADABLE.

    The checksum is a pair of integers, which an earlier version reads as a pause in the last century. When it writes
    the file it makes floats of them, and so says that the checksum is not its own.
    """
    said = [(start, end) for start, end in json.loads(text)]
    if said and all(isinstance(each, int) for each in said[-1]):
        *said, checked = said
        if list(checked) != _checksum(said):
            raise ValueError("its checksum is another one than when it was written")
    return [(start, end) for start, end in said if end >= _EARLY]


def _checksum(said: Sequence[tuple[float, float]]) -> list[int]:
    number = int(checksum(said), 16)
    return [number % _EARLY, number // _EARLY % _EARLY]


def holds_any(server: Path) -> bool:
    """Tell whether a history has base backups, or cannot be listed."""
    return any(True for _ in _look(server))


def _look(server: Path) -> Iterator[Base | Broken]:
    meta, folders = server / "meta", server / "base"
    try:
        # In this order, since Barman begins and ends with the description.
        there, described = _names(folders), _names(meta)
    except OSError as error:
        yield damage.broken(server.name, "base", STAMP, f"it cannot be listed: {error}", ())
        return
    ends = (_INFO, _APART)
    identifiers = {name.removesuffix(end) for name in described for end in ends if name.endswith(end)}
    for identifier in sorted(identifiers | there):
        if found := _one(folders / identifier, meta / f"{identifier}{_INFO}"):
            yield found


def _one(folder: Path, info: Path) -> Base | Broken | None:
    """Read one base backup; None where it is unfinished, or is being removed."""
    identifier, apart = folder.name, info.with_name(f"{folder.name}{_APART}")
    if not damage.there(info) and damage.there(apart):
        info = apart
    try:
        base = _read(info)
        why = _problem(base)
        if base.status in _UNFINISHED and not why:
            return None
    except BackupError as error:
        why = str(error)
    except _UNREADABLE as error:
        why = f"it cannot be read: {error}"
    # Asked at last: it may have been begun, or have come to its end, since the names were listed.
    if damage.there(info.parent / f"{identifier}{_REMOVING}", unknown=False):
        return None
    if not (damage.there(info) or damage.there(folder)):
        return None
    return damage.broken(identifier, "base", STAMP, why, (folder, info)) if why else base


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - the names alone are asked for
    except FileNotFoundError:
        return set()


def _read(info: Path) -> Base:
    """Read Barman's file; raises one of _UNREADABLE."""
    lines = (line.partition("=") for line in info.read_text(encoding="utf-8").splitlines())
    said = {key: value for key, _, value in lines}
    status, done = said["status"], said["status"] == _DONE
    if not done and status not in _UNFINISHED:
        raise ValueError(f"{status} is no state that Barman knows")
    end = datetime.fromisoformat(said["end_time"]).astimezone(UTC) if done else datetime.fromtimestamp(0, UTC)
    return Base(
        id=re.sub(f"{_INFO}.*", "", info.name),
        server=info.parent.parent,
        info=info,
        status=status,
        begin_wal=_segment(said["begin_wal"]) if done else "",
        end_wal=_segment(said["end_wal"]) if done else "",
        end=end,
        segment_size=int(said["xlog_segment_size"]) if done else 0,
        major=int(said["version"]) // 10_000 if done else 0,
    )


def _segment(name: str) -> str:
    if not wal.SEGMENT.fullmatch(name):
        raise ValueError(f"{name} is no name of a WAL file")
    return name


def _problem(base: Base) -> str:
    """Say what is wrong with a base backup as far as one glance shows; empty for nothing."""
    if base.status in _UNFINISHED:
        # It was whole once, so its state is what is wrong.
        return f"its state says {base.status}, though it was verified" if base.noted.exists() else ""
    for name in ("base.tar.gz", "backup_manifest"):
        if not (base.folder / "data" / name).exists():
            return f"data/{name} is missing"
    if not base.noted.exists():
        # No checksum of the description is there yet; one that ended before it began would go as the oldest.
        named = damage.named(base.id, STAMP)
        return "end_time is before the moment in its name" if named and base.end < named - damage.SLACK else ""
    # A glance, since the file is small; and Barman itself reads lines of it that are not read here.
    same = checksums(base)["backup.info"] == sha256(base.info)
    return "" if same else "backup.info is not what it was when it was made"


def checksums(base: Base) -> dict[str, str]:
    """Return what was noted when all of it was verified; raises BackupError where that cannot be read."""
    try:
        known = json.loads(base.noted.read_text(encoding="utf-8"))
        return {str(name): str(known[name]) for name in ("backup.info", *known)}
    except _UNREADABLE as error:
        raise BackupError(f"{base.noted.name} cannot be read: {error}") from error


def remove_leftovers() -> None:
    """Remove what base backups and removals that ended in the middle have left; call it under the lock.

    What cannot be read is put out of Barman's sight, which else could do nothing in this history any more; it comes
    back once it can be read again.
    """
    for server in servers():
        try:
            _remove_leftovers(server)
        except OSError as error:  # in the history that is received now Barman itself will say it
            say(f"what is left of base backups in {server.name} is not removed: {error}")


def _remove_leftovers(server: Path) -> None:
    meta = server / "meta"
    for path in meta.glob(f"*{_NEW}"):
        path.unlink()
    for info in meta.glob(f"*{_INFO}"):
        if _is_unfinished(info):
            say(f"removing what is left of the base backup {_of(info)}, which did not come to its end")
            _remove(server, _of(info))
    for mark in meta.glob(f"*{_REMOVING}"):
        say(f"removing what is left of the base backup {mark.name.removesuffix(_REMOVING)}")
        _remove(server, mark.name.removesuffix(_REMOVING))
    for each in _look(server):
        _hide(each) if isinstance(each, Broken) else _show(each)


def _of(info: Path) -> str:
    return info.name.removesuffix(_INFO)


def _is_unfinished(info: Path) -> bool:
    try:
        base = _read(info)
        return base.status in _UNFINISHED and not base.noted.exists()
    except _UNREADABLE:
        return False  # nothing is known of it


def _hide(each: Broken) -> None:
    for info in each.files[1:]:
        if info.name.endswith(_INFO) and info.exists():
            say(f"{each.id} is bad: {each.why}. It stays, out of Barman's sight: {info.name} gets another name")
            info.rename(info.with_name(f"{each.id}{_APART}"))


def is_apart(base: Base) -> bool:
    """Tell whether a base backup is still out of Barman's sight."""
    return base.info.name.endswith(_APART)


def _show(base: Base) -> None:
    if is_apart(base):
        say(f"{base.id} can be read again")
        base.info.rename(base.info.with_name(f"{base.id}{_INFO}"))


def begin_removal(base: Base) -> None:
    """Note that a base backup is going to be removed: what is left of it from now on is a leftover."""
    write(base.server / "meta" / f"{base.id}{_REMOVING}", "")


def end_removal(base: Base) -> None:
    """Remove whatever is left of it."""
    _remove(base.server, base.id)


def remove_broken(each: Broken) -> None:
    """Remove one that cannot be read, whose time is over; a history that cannot be listed has no files to remove."""
    for folder in each.files[:1]:
        server = folder.parents[1]
        (server / "meta").mkdir(exist_ok=True)
        write(server / "meta" / f"{each.id}{_REMOVING}", "")
        _remove(server, each.id)


def _remove(server: Path, identifier: str) -> None:
    """Remove a base backup's files, the ones that say that it is to be removed at last."""
    folder, meta = server / "base" / identifier, server / "meta"
    if folder.exists():
        shutil.rmtree(folder)
        sync(folder.parent)
    for end in (_INFO, _APART, _REMOVING):
        (meta / f"{identifier}{end}").unlink(missing_ok=True)
