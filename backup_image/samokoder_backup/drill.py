"""The drill: the newest backup is restored, looked at, and removed.

It runs in the part `drill` (`apart.py`): what is restored may be the work of an application that was taken over.
"""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2 import sql

from samokoder_backup import copies, restore
from samokoder_backup import settings as at
from samokoder_backup.copies import Copy
from samokoder_backup.entries import known_bad
from samokoder_backup.process import BackupError, CannotError
from samokoder_backup.restore import Target
from samokoder_backup.server import Server
from samokoder_backup.settings import Settings

_LOOKER = "samokoder_drill"
"""Role that looks: it reads everything, and what the application made runs with its rights."""
_LOOKER_SQL = f"""
CREATE ROLE {_LOOKER} LOGIN BYPASSRLS;
GRANT pg_read_all_data TO {_LOOKER};
"""
# Where somebody has installed it elsewhere, the application may have made functions beside it that fit better.
_AMCHECK_SQL = f"""
DROP EXTENSION IF EXISTS amcheck CASCADE;
CREATE EXTENSION amcheck SCHEMA pg_catalog;
GRANT EXECUTE ON FUNCTION pg_catalog.bt_index_check(regclass, boolean) TO {_LOOKER};
GRANT EXECUTE ON FUNCTION pg_catalog.verify_heapam(regclass, boolean, boolean, text, bigint, bigint) TO {_LOOKER};
"""


def drill(settings: Settings) -> dict[str, Any]:
    """Restore the newest backup, look at it, throw it away; returns what was measured."""
    began, started = datetime.now(UTC), time.monotonic()
    bad = known_bad()
    good = [copy for copy in copies.copies("dump") if copy.id not in bad]
    dumps = [copy for copy in good if not copy.ahead] or good
    if settings.physical:
        planned = restore.plan(Target(present=True))
    elif dumps:
        planned = restore.plan(Target(backup=dumps[-1].id))
    else:
        raise CannotError("there is no good dump yet")
    into = at.DRILL / "data"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(mode=0o700)
    try:
        restore.check(planned, into)
        with restore.restored(settings, planned, into) as server:
            rto = time.monotonic() - started
            written = planned.source.finished if isinstance(planned.source, Copy) else _heartbeat(server)
            fetched = server.sockets / "fetched"
            received = datetime.fromtimestamp(fetched.stat().st_mtime, UTC) if fetched.exists() else began
            _look(server)
            rows = _rows(server, settings.postgres.database if settings.postgres else "postgres")
    finally:
        shutil.rmtree(into, ignore_errors=True)
    return {
        "backup": planned.source.id,
        "rpo": max(0.0, (received - written).total_seconds()),
        "rto": rto,
        "rows": rows,
    }


def _look(server: Server) -> None:
    """Let PostgreSQL's own program check every table and index."""
    server.ask(_LOOKER_SQL)
    names = [name for (name,) in server.ask("SELECT datname FROM pg_catalog.pg_database WHERE datallowconn")]
    for name in names:
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
        server.ask(grant.format(sql.Identifier(name), sql.Identifier(_LOOKER)))
        server.ask(_AMCHECK_SQL, name)
    server.run("pg_amcheck", "--all", user=_LOOKER)


def _heartbeat(server: Server) -> datetime:
    try:
        moment: datetime = server.ask("SELECT written_at FROM public.heartbeat", at.DATABASE)[0][0]
    except (psycopg2.Error, IndexError) as error:
        raise BackupError(f"the restored copy has no heartbeat: {error}") from error
    return moment


def _rows(server: Server, database: str) -> dict[str, int]:
    tables = server.ask("SELECT schemaname, relname FROM pg_catalog.pg_stat_user_tables ORDER BY 1, 2", database)
    count = sql.SQL("SELECT pg_catalog.count(*) FROM {}")
    return {
        f"{schema}.{table}": int(server.ask(count.format(sql.Identifier(schema, table)), database, user=_LOOKER)[0][0])
        for schema, table in tables
    }
