"""A PostgreSQL over a restored folder: on a socket alone, for this program alone.

What is in it may be the work of an application that was taken over. So the superuser's sessions take no setting from
it (`session_options`), and whoever looks at what the application made is a role without rights.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, CannotError, run
from samokoder_backup.settings import Settings

_TOO_SHORT = "recovery ended before configured recovery target was reached"
_LAST_CHANGE = re.compile(r"last completed transaction was at log time (\S+ \S+)")
_STOPPED = re.compile(r"recovery stopping before (?:commit|abort) of transaction \d+, time (\S+ \S+)")
_REDONE = re.compile(r"redo done at ([0-9A-F]+)/([0-9A-F]+)")
QUIET = timedelta(seconds=30)
"""There is a change at every heartbeat, so where none is for so long, what was written then is missing."""


@dataclass(frozen=True)
class Stop:
    """Where a recovery to a moment has stopped."""

    position: int
    """Of the change that it has left out, the first one that is later than the moment."""
    change: datetime
    """That one's stamp."""
    last: datetime | None
    """Stamp of the last change that it has made; None: of none."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL that runs."""

    sockets: Path
    superuser: str
    options: str
    """Of each session, as libpq takes them: they beat what the owner of a database sets for it."""

    def ask(self, query: str | sql.Composed, database: str = "postgres", *, user: str = "") -> list[tuple[Any, ...]]:
        """Return the rows of a query. user: who asks; empty: the superuser."""
        connection = psycopg2.connect(
            host=str(self.sockets), user=user or self.superuser, dbname=database, options=self.options
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def stop(self) -> Stop | None:
        """Say where a recovery to a moment has stopped; None where it came to the end of the WAL.

        Raises BackupError where PostgreSQL does not say it.
        """
        said = (self.sockets / "log").read_text(encoding="utf-8", errors="replace")
        if _TOO_SHORT in said:
            return None
        stopped, redone = [*_STOPPED.finditer(said)][-1:], [*_REDONE.finditer(said)][-1:]
        if not stopped or not redone:
            raise BackupError("PostgreSQL does not say where it has stopped, so nobody can tell which moment that is")
        last = _LAST_CHANGE.findall(said)
        return Stop(_position(redone[0]), _utc(stopped[0][1]), _utc(last[-1]) if last else None)

    def refuse_quiet(self, moment: datetime) -> None:
        """Raise CannotError where the last change is from long before a moment at which all WAL ends."""
        _was_quiet((self.sockets / "log").read_text(encoding="utf-8", errors="replace"), moment)

    def run(self, *command: str | Path, user: str = "") -> str:
        """Run one of PostgreSQL's programs; raises BackupError. user: who asks; empty: the superuser."""
        where = (f"--host={self.sockets}", f"--username={user or self.superuser}")
        words = (command[0], *where, *command[1:])
        return run(words, what=str(command[0]), environment={"PGOPTIONS": self.options})


@contextlib.contextmanager
def running(settings: Settings, folder: Path, recovery: Mapping[str, str]) -> Iterator[Server]:
    """Run PostgreSQL over a folder until it answers; at the end it is shut down, and must have ended well."""
    sockets = at.RUN / f"postgres-{os.getpid()}"
    shutil.rmtree(sockets, ignore_errors=True)
    sockets.mkdir(mode=0o700, parents=True)
    server = Server(sockets, settings.superuser, settings.session_options)
    log = sockets / "log"
    process = _start(folder, sockets, recovery)
    try:
        while not _answers(server):
            if process.poll() is not None:
                said = log.read_text(encoding="utf-8", errors="replace")
                if _TOO_SHORT in said and "recovery_target_time" in recovery:
                    # All that was ever received is earlier: nobody wrote between that and the moment.
                    _was_quiet(said, datetime.fromisoformat(recovery["recovery_target_time"]))
                    # What is received meanwhile may be later than the moment.
                    end = _REDONE.findall(said)[-1]
                    recovery = {key: value for key, value in recovery.items() if key != "recovery_target_time"}
                    recovery |= {"recovery_target_lsn": "/".join(end)}
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
    if not changes or moment - changes[-1] > QUIET:
        last = f"of {changes[-1].isoformat(sep=' ')}" if changes else "in the base backup"
        raise CannotError(f"{moment.isoformat(sep=' ')} cannot be reached: the last change that was received is {last}")


def _utc(said: str) -> datetime:
    return datetime.fromisoformat(said).astimezone(UTC)


def _position(said: re.Match[str]) -> int:
    return (int(said[1], 16) << 32) + int(said[2], 16)


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
        "session_preload_libraries": "",
        "archive_mode": "off",
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "recovery_target_inclusive": "on",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        # What it says of the recovery is read here.
        "log_min_messages": "warning",
        "log_error_verbosity": "default",
        "lc_messages": "C",
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
