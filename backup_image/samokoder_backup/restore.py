"""Restores: what can be restored, into a folder, and the drill that proves it.

PostgreSQL is started here, on a socket alone, because only then the newest WAL, which is still being received, can be
handed to it; what is given away has been replayed, promoted and shut down cleanly.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from samokoder_backup import barman, catalogue, copies, wal
from samokoder_backup import settings as at
from samokoder_backup.catalogue import Base
from samokoder_backup.copies import Copy
from samokoder_backup.entries import chain, joined, known_bad
from samokoder_backup.process import BackupError, CannotError, run, say, sync, write
from samokoder_backup.settings import Settings

MARKER = ".samokoder-restore"
"""Lies in a folder that a restore has begun and not ended."""
_TOO_SHORT = "recovery ended before configured recovery target was reached"
_LAST_CHANGE = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_QUIET = timedelta(seconds=30)
"""There is a change at every heartbeat, so where none is for so long, what was written then is missing."""
_MARGIN = 256 * 2**20
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
    last: str = ""
    """The last WAL file that is good, where one after it is not: to PostgreSQL the WAL ends there."""

    @property
    def needed(self) -> int:
        """How much space it takes, at most."""
        if isinstance(self.source, Base):
            return self.source.restored_bytes + _MARGIN
        return self.source.bytes * (10 if self.source.kind == "dump" else 3) + _MARGIN


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
        raise CannotError(f"there is no backup {target.backup}" if target.backup else "there is no good base backup")
    if target.moment:
        base, found = _reaching(bases, target.moment, bad)
        recovery = {"recovery_target_time": target.moment.astimezone(UTC).isoformat(sep=" ")}
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
    return Plan(source=base, recovery=recovery, last=found.last if found.missing else "")


def _proven(bases: list[Base]) -> Base:
    """Return the newest base backup; one before it, where that was verified, it was not, and WAL leads on from both."""
    newest = bases[-1]
    if newest.noted.exists():
        return newest
    verified = [base for base in bases if base.server == newest.server and base.noted.exists()]
    return verified[-1] if verified and joined(verified[-1]) else newest


def _of_one_database(bases: list[Base], bad: Mapping[str, str]) -> None:
    """Refuse to guess: a volume that was lost becomes an empty database, and the newest moment is that one's."""
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


def _of_newest_history(base: Base, found: wal.Chain) -> None:
    """Refuse the end of a history that another one has followed, from which no good base backup leads yet.

    So it is after a restore until the first base backup is made: the end would be that of the data that was replaced.
    """
    newest = {server: wal.newest(server) for server in catalogue.servers() if server != base.server}
    server = max(newest, key=lambda each: newest[each], default=base.server)
    if newest.get(server, 0.0) > found.end.timestamp():
        moment = datetime.fromtimestamp(newest[server], UTC).isoformat(sep=" ")
        raise CannotError(
            f"the newest WAL, of {moment}, is of {server.name}, which has no good base backup yet, so it cannot be "
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
            return base, found
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
    """Restore into an empty folder, or one in which a restore was cut off: that begins anew.

    Raises BackupError; then the folder still has the marker.
    """
    into.mkdir(parents=True, exist_ok=True)
    into.chmod(0o700)
    write(into / MARKER, json.dumps({"source": planned.source.id, "recovery": dict(planned.recovery)}))
    for path in into.iterdir():
        if path.name not in _PLACEHOLDERS:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if isinstance(planned.source, Copy) and planned.source.kind == "redis":
        copies.verify(planned.source)
        copies.restore_redis(planned.source, into)
    else:
        with _restored(settings, planned, into) as server:
            say(f"restored: {server.ask('SELECT pg_postmaster_start_time()')[0][0]:%H:%M:%S} started, shutting down")
        run(["initdb", "--sync-only", f"--pgdata={into}"], what="writing to disk")
    for folder in (into, *(path for path in into.iterdir() if path.is_dir())):
        sync(folder)
    (into / MARKER).unlink()
    sync(into)


@dataclass(frozen=True)
class Server:
    """A PostgreSQL on a socket alone, for this program alone."""

    sockets: Path
    superuser: str

    def ask(self, query: str | sql.Composed, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        connection = psycopg2.connect(host=str(self.sockets), user=self.superuser, dbname=database)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


@contextlib.contextmanager
def _restored(settings: Settings, planned: Plan, into: Path) -> Iterator[Server]:
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
        with _running(settings, into, recovery) as server:
            yield server
        return
    copies.verify(source)
    words = [f"--username={settings.superuser}", "--encoding=UTF8", "--data-checksums", "--auth-local=peer"]
    fresh = into / "new"  # initdb wants a folder that is empty, and the marker is in this one
    run(["initdb", f"--pgdata={fresh}", "--auth-host=scram-sha-256", "--no-sync", *words], what="initdb")
    for path in fresh.iterdir():
        path.rename(into / path.name)
    fresh.rmdir()
    with _running(settings, into, {}) as server:
        for role in source.roles:
            if role != settings.superuser:
                server.ask(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        where = [f"--host={server.sockets}", f"--username={settings.superuser}", "--dbname=postgres"]
        run(["pg_restore", "--create", "--exit-on-error", *where, source.path], what="pg_restore")
        yield server


@contextlib.contextmanager
def _running(settings: Settings, folder: Path, recovery: Mapping[str, str]) -> Iterator[Server]:
    """Run PostgreSQL over a folder until it answers; at the end it is shut down, and must have ended well."""
    sockets = at.RUN / f"postgres-{os.getpid()}"
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700, parents=True)
    server = Server(sockets, settings.superuser)
    log = sockets / "log"
    process = _start(folder, sockets, recovery)
    try:
        while not _answers(server):
            if process.poll() is not None:
                said = log.read_text(encoding="utf-8", errors="replace")
                if _TOO_SHORT in said and "recovery_target_time" in recovery:
                    # All that was ever received is earlier: nobody wrote between that and the moment.
                    _was_quiet(said, datetime.fromisoformat(recovery["recovery_target_time"]))
                    recovery = {key: value for key, value in recovery.items() if key != "recovery_target_time"}
                    process = _start(folder, sockets, recovery)
                    continue
                lines = said.strip().splitlines()
                why = [line for line in lines if "FATAL" in line or "PANIC" in line or "is damaged" in line]
                raise BackupError(f"PostgreSQL does not start: {' | '.join(why or lines[-5:])}")
            time.sleep(0.2)
        yield server
        process.send_signal(signal.SIGINT)
        if process.wait() != 0:
            raise BackupError("PostgreSQL did not shut down cleanly")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        shutil.rmtree(sockets, ignore_errors=True)


def _was_quiet(log: str, moment: datetime) -> None:
    """Raise CannotError where WAL ends long before a moment.

    When a file was last written says up to when it reaches, but not while old WAL is received belatedly.
    """
    changes = [datetime.fromisoformat(found) for found in _LAST_CHANGE.findall(log)]
    if not changes or moment - changes[-1] > _QUIET:
        last = f"of {changes[-1].isoformat(sep=' ')}" if changes else "in the base backup"
        raise CannotError(f"{moment.isoformat(sep=' ')} cannot be reached: the last change that was received is {last}")


def _start(folder: Path, sockets: Path, recovery: Mapping[str, str]) -> subprocess.Popen[bytes]:
    (sockets / "hba.conf").write_text("local all all trust\n", encoding="utf-8")
    for name in ("postgresql.conf", "ident.conf"):
        (sockets / name).touch()
    settings = {
        "config_file": str(sockets / "postgresql.conf"),
        "hba_file": str(sockets / "hba.conf"),
        "ident_file": str(sockets / "ident.conf"),
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        # From the command line, so that what was set in the database by ALTER SYSTEM cannot get in the way here.
        "shared_preload_libraries": "",
        "archive_mode": "off",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "synchronous_standby_names": "",
        "default_transaction_read_only": "off",
        "hot_standby": "off",  # on, it would want to be as large as the server that was backed up
        "max_prepared_transactions": "100",
        "max_connections": "20",
        "max_wal_size": "256MB",
        "min_wal_size": "80MB",
        "shared_buffers": "64MB",
        "huge_pages": "off",
        **recovery,
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (sockets / "log").open("ab") as log:
        # Tied to this process: a run that is killed leaves no server behind.
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "QUIT", "--", "postgres", "-D", str(folder), *options],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "SAMOKODER_FETCHED": str(sockets / "fetched")},
        )


def _answers(server: Server) -> bool:
    try:
        return server.ask("SELECT NOT pg_is_in_recovery()") == [(True,)]
    except psycopg2.OperationalError:
        return False


def drill(settings: Settings) -> dict[str, Any]:
    """Restore the newest backup, look at it, throw it away; returns what was measured."""
    began, started = datetime.now(UTC), time.monotonic()
    bad = known_bad()
    good = [copy for copy in copies.copies("dump") if copy.id not in bad]
    dumps = [copy for copy in good if not copy.ahead] or good
    if settings.physical:
        planned = plan(Target(present=True))
    elif dumps:
        planned = plan(Target(backup=dumps[-1].id))
    else:
        raise CannotError("there is no good dump yet")
    shutil.rmtree(at.SCRATCH, ignore_errors=True)
    into = barman.fresh_scratch("drill")
    try:
        check(planned, into)
        with _restored(settings, planned, into) as server:
            rto = time.monotonic() - started
            written = planned.source.finished if isinstance(planned.source, Copy) else _heartbeat(server)
            fetched = server.sockets / "fetched"
            received = datetime.fromtimestamp(fetched.stat().st_mtime, UTC) if fetched.exists() else began
            where = [f"--host={server.sockets}", f"--username={settings.superuser}"]
            # In a throw-away copy the extension may be made wherever it is not.
            run(["pg_amcheck", *where, "--all", "--install-missing"], what="pg_amcheck")
            rows = _rows(server, settings.postgres.database if settings.postgres else "postgres")
    finally:
        shutil.rmtree(at.SCRATCH, ignore_errors=True)
    return {
        "backup": planned.source.id,
        "rpo": max(0.0, (received - written).total_seconds()),
        "rto": rto,
        "rows": rows,
    }


def _heartbeat(server: Server) -> datetime:
    try:
        moment: datetime = server.ask("SELECT written_at FROM heartbeat", at.DATABASE)[0][0]
    except (psycopg2.Error, IndexError) as error:
        raise BackupError(f"the restored copy has no heartbeat: {error}") from error
    return moment


def _rows(server: Server, database: str) -> dict[str, int]:
    tables = server.ask("SELECT schemaname, relname FROM pg_stat_user_tables ORDER BY 1, 2", database)
    count = sql.SQL("SELECT count(*) FROM {}")
    return {
        f"{schema}.{table}": int(server.ask(count.format(sql.Identifier(schema, table)), database)[0][0])
        for schema, table in tables
    }
