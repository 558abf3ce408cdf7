"""Barman: its configuration, its catalogue, base backups, what is kept.

One Barman server for each history of a cluster, named `main-<system identifier>-<timeline>`: a new cluster counts its
WAL from 1 again, and after a restore the same names hold other things. So what was backed up before a restore, or
before somebody began with an empty volume, stays restorable beside what is backed up since.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import catalogue, database, notes, state, wal
from samokoder_backup import settings as at
from samokoder_backup.catalogue import Base, bases, remove_leftovers, servers
from samokoder_backup.database import Identity
from samokoder_backup.process import BackupError, UnsureError, exclusive, keep, lacking, run, say, sha256, sync, write
from samokoder_backup.settings import Settings

_ARCHIVE_SECONDS = 300
_SEGMENT_SECONDS = 30.0
"""Within them a segment that has ended is received and archived, while the receiver runs."""
_MARGIN = 256 * 2**20
_STARTS = timedelta(seconds=60)
"""Within it Barman has started and has named the base backup that it makes."""
_ATTACHED = "attached"
"""Beside the state: the name of the history whose log is received, or was last."""
_MARK = "samokoder-mark.json"
"""In the folder of a history: the mark of the copy of the cluster whose log it has; two, while it gets another one."""


def barman(settings: Settings, *words: str, what: str) -> str:
    """Run Barman."""
    return run(command(settings, "--quiet", *words), what=what, environment={"LC_ALL": "C.UTF-8"})


def command(settings: Settings, *words: str) -> list[str]:
    """Return the command line of a Barman that knows every server."""
    postgres = settings.streamed
    if postgres is None:
        raise BackupError("there is no PostgreSQL here whose WAL is streamed")
    (at.RUN / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = f"""\
[barman]
barman_home = {at.BARMAN_HOME}
barman_user = {pwd.getpwuid(os.getuid()).pw_name}
barman_lock_directory = {at.RUN / "locks"}
log_level = WARNING
backup_method = postgres
backup_compression = gzip
backup_compression_level = 1
immediate_checkpoint = true
compression = gzip
compression_level = low
streaming_archiver = on
slot_name = {settings.slot}
create_slot = auto
check_timeout = 60
"""
    conninfo = at.conninfo(postgres, at.DATABASE)
    for server in servers():
        lines += f"\n[{server.name}]\ndescription = {server.name}\nconninfo = {conninfo}\n"
    config = at.RUN / "barman.conf"
    keep(config, lines)
    return ["barman", "--config", str(config), *words]


class Attached(NamedTuple):
    """A history whose WAL can be received now."""

    server: Path
    unmarked: str
    """Why PostgreSQL has no new mark; empty: it has."""
    pauses: tuple[catalogue.Pause, ...]
    """Of the history; what could not be noted, and is to be noted later."""


def attach(settings: Settings) -> Attached:
    """Return the server of the history that PostgreSQL is in now, made where it is new, ready to receive its WAL.

    Only for the one process that receives: a session that still holds the slot is ended.
    """
    assert settings.streamed is not None  # noqa: S101 - asked before
    with database.connected(settings.streamed) as connection:
        identity, slot = database.identity(connection), database.slot(connection, settings.slot)
        server = _server_of(identity)
        if slot and slot.active_pid:
            database.end_session(connection, slot.active_pid)
        if slot and slot.lost:
            say(f"PostgreSQL has given up the slot {settings.slot}: more WAL was waiting than it may keep")
            database.drop_slot(connection, settings.slot)
            set_aside(server)
        elif any(path.name[:24] > identity.segment for path in (server / "streaming").glob("[0-9A-F]" * 24 + "*")):
            say(f"PostgreSQL is behind what was received from it: another copy of the cluster {identity.system}")
            set_aside(server)
        elif not _is_known(server, database.mark(connection)):
            say(f"PostgreSQL is not what it was when its log was last received: another copy of {identity.system}")
            set_aside(server)
        elif slot is None and _was_received(server):
            say(f"the slot {settings.slot} is gone and is made anew: WAL that PostgreSQL has no longer will be a gap")
        unnoted = _note_pause(server)
        server.mkdir(parents=True, exist_ok=True)
        _note_attached(server)
        return Attached(server, _give_mark(connection, server), unnoted)


def _was_received(server: Path) -> bool:
    """Tell whether WAL of a history was received; so it may be where that cannot be seen, for it is only told."""
    try:
        return wal.newest(server) > 0
    except OSError:
        return True


def mark_again(connection: Connection, server: Path) -> str:
    """Give another mark while the history's log is received; return why PostgreSQL has none, empty where it has.

    So a copy of the data from some minutes ago is known as one, too. Never to a copy that is not known: only who
    attaches it may say what it is.
    """
    try:
        same = _server_of(database.identity(connection)) == server and server.is_dir()
        known = same and _is_known(server, database.mark(connection))
    except OSError as error:  # the heartbeat continues: with it, what the slot keeps is measured
        return f"{_MARK} cannot be read: {error}"
    if not known:
        return "it is not the copy whose log was received last"
    return _give_mark(connection, server)


def _is_known(server: Path, mark: str) -> bool:
    """Tell whether the log that comes continues what is in a history's folder, by the mark that PostgreSQL has."""
    try:
        return mark in json.loads(notes.text(server / _MARK))
    except FileNotFoundError:
        return True
    except (OSError, TypeError, ValueError) as error:
        if lacking(error):
            raise
        say(f"{_MARK} cannot be read: {error}")
        return False


def _attached_last() -> str:
    """Return the name of the history that was attached last; empty where that is not known."""
    try:
        return notes.text(at.ROOT / _ATTACHED).strip()
    except (OSError, ValueError) as error:
        if lacking(error):
            raise
        return ""


def _note_attached(server: Path) -> None:
    try:
        if _attached_last() != server.name:
            write(at.ROOT / _ATTACHED, f"{server.name}\n")
    except OSError as error:  # until it is noted, a pause that was none may be
        say(f"{_ATTACHED} cannot be written: {error}")
        with contextlib.suppress(OSError):  # the name of another history would say that no pause was
            (at.ROOT / _ATTACHED).unlink(missing_ok=True)


def _note_pause(server: Path) -> tuple[catalogue.Pause, ...]:
    """Note since when nothing of a history was received, where that of another one was: a restore was undone.

    Its log continues as if nothing had been between. What PostgreSQL had then is in the other history, if anywhere.
    Returns what could not be noted. Raises OSError where this could not be seen for want of something: a pause that is
    noted stays.
    """
    until, last = 0.0, 0.0
    # Whatever else cannot be seen or written: to receive what waits is what makes room.
    try:
        for other in catalogue.histories():
            try:
                until = max(until, wal.newest(other) if other != server else 0.0)
            except OSError as error:
                if lacking(error):
                    raise
                if _attached_last() == server.name:
                    continue  # nothing of any other one was received since
                until = time.time()  # one that is too long is refused, one that is missing restores another state
                say(f"nobody can see whether {server.name} was received before {other.name}: {error}")
        last = wal.newest(server)
    except OSError as error:
        if lacking(error):
            raise
        say(f"the pause of {server.name} cannot be noted: {error}")
    if 0 < last < until:
        try:
            catalogue.note_pause(server, last, until)
        except OSError as error:
            say(f"the pause of {server.name} cannot be noted: {error}")
            return (catalogue.Pause(server, last, until),)
    return ()


def _give_mark(connection: Connection, server: Path) -> str:
    """Give PostgreSQL a new mark, by which a copy of its data from before is known when it is put back.

    It may be in the segment that is being received: by its names the log of both would be one. Returns why it has none;
    empty: it has. Log is received without one too: a disk that is full of log that waits gets room by that.
    """
    try:
        old, new = database.mark(connection), secrets.token_hex(8)
        # First, or a death here would make the new one unknown.
        write(server / _MARK, json.dumps([old, new]))
        database.set_mark(connection, new)
        write(server / _MARK, json.dumps([new]))
    except (BackupError, OSError) as error:
        return str(error)
    return ""


def _server_of(identity: Identity) -> Path:
    return at.BARMAN_HOME / f"main-{identity.system}-{identity.timeline}"


def set_aside(server: Path) -> None:
    """Begin a new server for the same history: what comes does not join on to what is there."""
    if server.exists():
        server.rename(server.with_name(f"{server.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))


def current(settings: Settings) -> Path | None:
    """Return the server that is received now; None before the first time."""
    if settings.streamed is None:
        return None
    with database.connected(settings.streamed) as connection:
        server = _server_of(database.identity(connection))
    return server if server.is_dir() else None


def archive(settings: Settings, server: Path, *, first: bool = False) -> None:
    """Compress what was received whole into the archive, and note its checksums.

    first: note also what an earlier run was killed before it noted; that is a look at the whole archive.
    """
    waiting = wal.waiting(server)
    if waiting:
        barman(settings, "archive-wal", server.name, what="archiving WAL")
    if waiting or first:
        _note(server)


def _note(server: Path) -> None:
    """Note checksums, one process at a time: the service and `now` do it, and the later writer drops the other's."""
    with exclusive(at.ROOT / "note.lock", brief=True):
        changed = (name.partition("/") for name, why in state.bad().items() if why == wal.CHANGED)
        wal.note(server, [name for of, _, name in changed if of == server.name])


def take(settings: Settings, bad: Collection[str]) -> Base:
    """Make a base backup, which nobody has verified yet; raises BackupError, and then nothing that counts is left.

    bad: what is known to be bad.
    """
    server = current(settings)
    if settings.streamed is None or server is None:
        raise BackupError("no WAL is received yet, and a base backup is worth nothing without it")
    with database.connected(settings.streamed) as connection:
        database.end_backups(connection)
        remove_leftovers()
        before = bases(server)
        needed, databases = _needed(before), database.size(connection)
        if not before or before[-1].id in bad:
            # Each that fails its verification stays: WAL, and PostgreSQL beside it, are to have room all the same.
            needed += databases
        # Without it the disk would fill up, and WAL, which is worth more, would find no place.
        if (free := shutil.disk_usage(at.ROOT).free) < needed:
            raise BackupError(f"{needed // 2**20} MiB are needed for a base backup, {free // 2**20} MiB are free")
        _first_wal(settings, server, connection)
    _pass_taken_names()
    try:
        words = ("backup", "--wait", "--wait-timeout", str(_ARCHIVE_SECONDS), server.name)
        barman(settings, *words, what="base backup")
    finally:
        remove_leftovers()
        # Barman archived what it waited for alone: the service finds nothing that waits, and would note it with
        # the next segment. Until then only gzip checks it, which takes many a wrong bit in a run of zeros for right.
        try:
            _note(server)
        except OSError as error:  # that is no reason to call what was made incomplete
            say(f"the checksums of the WAL cannot be noted: {error}")
    made = [base for base in bases(server) if base.id not in {each.id for each in before}]
    if not made:
        raise BackupError("base backup: Barman says that it is incomplete")
    return made[-1]


def _pass_taken_names() -> None:
    """Wait while a base backup has a name of the next seconds: the clock was set back.

    Barman names a new one by the second, and would write over the description of the other, which is lost by that.
    """
    said = False
    while any(map(_is_near, [*(base.id for base in bases()), *(each.id for each in catalogue.broken())])):
        if not said:
            say("waiting: base backups have names of the next seconds, for the clock was set back")
            said = True
        time.sleep(1)


def _is_near(identifier: str) -> bool:
    """Tell whether Barman, once it has started, may be about to give this name."""
    try:
        named = datetime.strptime(identifier, catalogue.STAMP).replace(tzinfo=UTC)
    except ValueError:
        return False
    return timedelta(seconds=-1) < named - datetime.now(UTC) < _STARTS


def _needed(before: list[Base]) -> int:
    """Estimate a base backup's size: like the last one; of the first, the caller knows the databases alone."""
    return (before[-1].bytes * 5 // 4 if before else 0) + _MARGIN


def _first_wal(settings: Settings, server: Path, connection: Connection) -> None:
    """Wait until something is in the archive: before that, Barman refuses."""
    end, again = time.monotonic() + _ARCHIVE_SECONDS, 0.0
    while not wal.archived(server):
        if time.monotonic() > end:
            raise BackupError("base backup: no WAL comes; see the log of the service")
        # After a restore this may be asked for before the receiver has begun, and it begins with the segment of then.
        slot = database.slot(connection, settings.slot)
        if slot and slot.active_pid and time.monotonic() > again:
            database.finish_segment(connection)
            again = time.monotonic() + _SEGMENT_SECONDS
        time.sleep(0.5)
        archive(settings, server)


def verify(base: Base) -> None:
    """Check a base backup; raises BackupError that says what is wrong, UnsureError where there is no room for it.

    The first time all of it is unpacked and PostgreSQL's own manifest is checked, then the archives' checksums are
    noted; from then on these are compared, which costs a tenth.
    """
    files = {path.relative_to(base.folder).as_posix(): path for path in base.folder.rglob("*") if path.is_file()}
    files["backup.info"] = base.info
    files.pop(base.noted.name, None)
    if base.noted.exists():
        known = catalogue.checksums(base)
        for name in sorted(known.keys() | files.keys()):
            if name not in files:
                raise BackupError(f"{name} is missing")
            if name not in known or sha256(files[name]) != known[name]:
                raise BackupError(f"{name} is not what it was when it was made")
        return
    target = fresh_scratch("verify")
    # PostgreSQL may have its data on the same disk.
    needed = base.restored_bytes + _MARGIN
    if (free := shutil.disk_usage(target).free) < needed:
        raise UnsureError(f"{needed // 2**20} MiB are needed to unpack {base.id}, {free // 2**20} MiB are free")
    try:
        unpack(base, target)
        check: list[str | Path] = [
            "pg_verifybackup",
            "--no-parse-wal",
            "--quiet",
            "-m",
            base.folder / "data/backup_manifest",
            target,
        ]
        run(check, what="pg_verifybackup")
    finally:
        shutil.rmtree(target, ignore_errors=True)
    for path in files.values():
        sync(path)
    write(base.noted, json.dumps({name: sha256(path) for name, path in files.items()}, indent=1))


def unpack(base: Base, into: Path) -> None:
    """Unpack a base backup into a folder that is there."""
    archives = sorted((base.folder / "data").glob("*.tar.gz"))
    if [path.name for path in archives] != ["base.tar.gz"]:
        raise BackupError(f"{base.id} has tablespaces of its own, which this stack has no place for")
    run(["tar", "--extract", "--gzip", f"--file={archives[0]}", f"--directory={into}"], what="unpacking")
    into.chmod(0o700)


def fresh_scratch(name: str) -> Path:
    """Make an empty folder for temporary files; what a killed run has left is removed."""
    path = at.SCRATCH / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    return path
