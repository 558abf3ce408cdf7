"""Restores: what can be restored, into a folder, and the drill that proves it.

PostgreSQL is started here, on a socket alone, because only then the newest WAL, which is still being received, can be
handed to it; what is given away has been replayed, promoted and shut down cleanly.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from samokoder_backup import barman, catalogue, copies, dumped, reached, server, wal
from samokoder_backup.catalogue import Base
from samokoder_backup.copies import Copy
from samokoder_backup.entries import chain, joined, known_bad
from samokoder_backup.process import CannotError, run, say, sync, write
from samokoder_backup.settings import Settings

MARKER = ".samokoder-restore"
"""Lies in a folder that a restore has begun and not ended."""
_MARGIN = 256 * 2**20
_SCRATCH = ".samokoder-wal"
_PLACEHOLDERS = ("lost+found", MARKER)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked for: one of these."""

    moment: datetime | None = None
    backup: str | None = None
    latest: bool = False
    """The newest moment, where all backups are of one database."""
    present: bool = False
    """The newest moment of the database that is there now, whatever was before it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is going to be restored."""

    source: Base | Copy
    recovery: Mapping[str, str]
    """PostgreSQL's settings that say where to stop."""
    moment: datetime | None = None
    """The moment that is asked for, if it is one."""
    found: wal.Chain | None = None
    """The WAL, for a moment: at its end all of it is replayed, whatever the stamps are."""
    last: str = ""
    """The last WAL file that is good, where one after it is not: to PostgreSQL the WAL ends there."""

    @property
    def needed(self) -> int:
        """How much space it takes, at most."""
        if isinstance(self.source, Base):
            return (
                self.source.restored_bytes + _MARGIN + (reached.FILES * self.source.segment_size if self.moment else 0)
            )
        return self.source.bytes * {"dump": 10, "redis": 3}.get(self.source.kind, 1) + _MARGIN


def plan(target: Target) -> Plan:
    """Decide how to do what is asked for; raises CannotError where it cannot be done."""
    bad = known_bad()
    if target.backup in bad:
        raise CannotError(f"{target.backup} is bad: {bad[target.backup]}")
    if copy := next((each for each in copies.of_every_kind() if each.id == target.backup), None):
        return Plan(source=copy, recovery={})
    good = [base for base in catalogue.bases() if base.id not in bad and target.backup in {None, base.id}]
    bases = [base for base in good if not base.ahead] or good
    if not bases:
        what = f"there is no backup {target.backup}" if target.backup else "there is no good base backup"
        raise CannotError(": ".join([what, *_unlisted()]))
    if target.moment:
        base, found = _reaching(bases, target.moment, bad)
        at = target.moment.astimezone(UTC).isoformat(sep=" ")
        recovery = {"recovery_target_time": at} if target.moment < found.end or found.ahead else {}
    else:
        if target.latest:
            _of_one_database(bases, bad)
        base, recovery = _proven(bases), {"recovery_target": "immediate"} if target.backup else {}
        found = chain(base, bad)
        if found.missing and not target.backup:
            raise CannotError(
                f"WAL file {found.missing} is missing or bad, so the latest moment cannot be reached; "
                f"the last one before it is {found.end.isoformat()}"
            )
        if not target.backup:
            _of_newest_history(base, found)
    if (installed := _installed()) != base.major:
        raise CannotError(f"{base.id} is of PostgreSQL {base.major}, and this image has {installed}")
    last = found.last if found.missing else ""
    return Plan(source=base, recovery=recovery, last=last, moment=target.moment, found=found)


def _proven(bases: list[Base]) -> Base:
    """Return the newest base backup; one before it, where that was verified, it was not, and WAL leads on from both."""
    newest = bases[-1]
    if newest.noted.exists():
        return newest
    verified = [base for base in bases if base.server == newest.server and base.noted.exists()]
    return verified[-1] if verified and joined(verified[-1]) else newest


def _of_one_database(bases: list[Base], bad: Mapping[str, str]) -> None:
    """Refuse to guess: a volume that was lost becomes an empty database, and the newest moment is that one's."""
    if unlisted := _unlisted():
        raise CannotError(
            f"nobody can see whether there are backups that are newer, or of another database: {'; '.join(unlisted)}. "
            "Mend that, or name the moment"
        )
    if bases[0].database == bases[-1].database:
        return  # the only one, or one that a restore has brought back since; and no WAL is looked through
    last: dict[str, str] = {}
    for base in bases:
        with contextlib.suppress(CannotError):
            last[base.database] = chain(base, bad).end.isoformat(sep=" ")
    if len(last) > 1:
        each = ", then ".join(last.values())
        raise CannotError(
            f"there are backups of {len(last)} databases, one after the other, and the newest may be an empty one; "
            f"name the moment. Their last ones are: {each}"
        )


def _unlisted() -> list[str]:
    """Say which folders with base backups cannot be listed, and why."""
    return [f"{each.id}: {each.why}" for each in catalogue.broken() if not each.files]


def _of_newest_history(base: Base, found: wal.Chain) -> None:
    """Refuse the end of a history that another one has followed, from which no good base backup leads yet.

    So it is after a restore until the first base backup is made: the end would be that of the data that was replaced.
    """
    try:
        newest = {each: wal.newest(each) for each in catalogue.histories()}
    except OSError as error:
        raise CannotError(
            f"nobody can see what the newest WAL is, so the latest moment is not known: {error}. Mend that, or name "
            f"the moment; the last one that is seen is {found.end.isoformat(sep=' ')}"
        ) from error
    newest.pop(base.server, None)
    last = max(newest, key=lambda each: newest[each], default=base.server)
    if newest.get(last, 0.0) > found.end.timestamp():
        moment = datetime.fromtimestamp(newest[last], UTC).isoformat(sep=" ")
        raise CannotError(
            f"the newest WAL, of {moment}, is of {last.name}, which has no good base backup yet, so it cannot be "
            f"restored; the newest moment that can be is {found.end.isoformat(sep=' ')}, the end of the history before "
            "it. Wait for the base backup (or make one), or name that moment"
        )


def _reaching(bases: list[Base], moment: datetime, bad: Mapping[str, str]) -> tuple[Base, wal.Chain]:
    """Return the newest base backup from which a moment can be reached, and its WAL."""
    before = [base for base in bases if base.end <= moment]
    if not before:
        raise CannotError(f"the first moment that can be restored is {bases[0].end.isoformat()}")
    why = ""
    # An older one that was verified is better than a newer one that nobody has looked at yet.
    for base in sorted(before, key=lambda base: (base.noted.exists(), base.end), reverse=True):
        try:
            found = chain(base, bad)
        except CannotError as error:
            why = why or str(error)
            continue
        if found.end >= moment:
            pause = next((each for each in catalogue.pauses(base.server) if each[0] < moment < each[1]), None)
            if pause is None:
                return base, found
            ends = " to ".join(each.isoformat() for each in pause)
            known = (
                f"from {ends} PostgreSQL was on another history, or nobody could see whether it was, and of another "
                "one there is no base backup before it"
            )
            if pause[0] == catalogue.FORGOTTEN:
                known = (
                    f"{catalogue.PAUSES} of {base.server.name} was damaged, so when PostgreSQL was on another history "
                    f"before {pause[1].isoformat()} is not known"
                )
            why = why or known
            continue
        gap = f", since WAL file {found.missing} is missing or bad" if found.missing else ""
        why = why or f"the last moment that can be restored before it is {found.end.isoformat()}{gap}"
    raise CannotError(f"{moment.isoformat()} cannot be reached: {why}")


def _installed() -> int:
    return int(run(["postgres", "--version"], what="postgres").split()[2].split(".")[0])


def check(planned: Plan, into: Path) -> None:
    """Look at the folder; raises CannotError where it is not for this, or has too little space."""
    if into.exists():
        found = {path.name for path in into.iterdir()}
        if found - {*_PLACEHOLDERS} and MARKER not in found:
            raise CannotError(f"{into} is not empty")
    nearest = next(folder for folder in (into, *into.parents) if folder.exists())
    if (free := shutil.disk_usage(nearest).free) < planned.needed:
        raise CannotError(f"{into} needs {planned.needed // 2**20} MiB, and {free // 2**20} MiB are free")


def restore(settings: Settings, planned: Plan, into: Path) -> None:
    """Restore into an empty folder, or one in which a restore was interrupted: that begins again.

    Raises BackupError; then the folder still has the marker.
    """
    into.mkdir(parents=True, exist_ok=True)
    into.chmod(0o700)
    write(into / MARKER, json.dumps({"source": planned.source.id, "recovery": dict(planned.recovery)}))
    for path in into.iterdir():
        if path.name not in _PLACEHOLDERS:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if isinstance(planned.source, Copy) and planned.source.kind != "dump":
        copies.verify(planned.source)
        fill = copies.restore_redis if planned.source.kind == "redis" else copies.restore_workspace
        fill(planned.source, into)
    else:
        with restored(settings, planned, into) as running:
            say(f"restored: {running.ask('SELECT pg_postmaster_start_time()')[0][0]:%H:%M:%S} started, shutting down")
        run(["initdb", "--sync-only", f"--pgdata={into}"], what="writing to disk")
    # All that is on its disk, by any program: the marker may not go first.
    run(["sync", "--file-system", into], what="writing to disk")
    (into / MARKER).unlink()
    sync(into)


def _reached(base: Base, planned: Plan, moment: datetime, running: server.Server, into: Path, *, managed: bool) -> str:
    """Say which moment was reached; raise CannotError where it may be another one than what was asked for."""
    if not planned.recovery:
        if chain(base, known_bad()) != planned.found:
            raise CannotError(
                "more WAL was received while this was restored, so the moment is not the last one: once more"
            )
        running.refuse_quiet(moment)
        return f"{moment.isoformat(sep=' ')} is the last moment of {base.server.name}: all that was received is there"
    return reached.refuse_another(
        base,
        moment,
        running.stop(),
        into / _SCRATCH,
        last=planned.last,
        end=planned.found.end if planned.found and not planned.found.ahead else None,
        managed=managed,
    )


@contextlib.contextmanager
def restored(settings: Settings, planned: Plan, into: Path) -> Iterator[server.Server]:
    """Fill an empty folder and run what is in it; at the end it is shut down cleanly."""
    source = planned.source
    if isinstance(source, Base):
        say(f"unpacking the base backup {source.id}")
        barman.unpack(source, into)
        (into / "recovery.signal").touch()
        fetch = shlex.join([sys.executable, "-m", "samokoder_backup.wal", str(source.server)])
        recovery = {
            "restore_command": f"{fetch} %f %p {planned.last}",
            "recovery_target_timeline": "current",
            "recovery_target_action": "promote",
            **planned.recovery,
        }
        with server.running(settings, into, recovery) as running:
            if planned.moment:
                print(_reached(source, planned, planned.moment, running, into, managed=settings.managed))
            yield running
        return
    copies.verify(source)
    words = [f"--username={settings.superuser}", "--encoding=UTF8", "--data-checksums", "--auth-local=peer"]
    fresh = into / "new"  # initdb wants a folder that is empty, and the marker is in this one
    run(["initdb", f"--pgdata={fresh}", "--auth-host=scram-sha-256", "--no-sync", *words], what="initdb")
    for path in fresh.iterdir():
        path.rename(into / path.name)
    fresh.rmdir()
    with server.running(settings, into, {}) as running:
        dumped.restore(running, source)
        yield running
