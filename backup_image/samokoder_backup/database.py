"""What is asked of the PostgreSQL that is backed up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import settings as at
from samokoder_backup.process import BackupError
from samokoder_backup.settings import Postgres

BARMAN_BACKUP = "barman_streaming_backup"
"""Barman's name for the connection of a base backup."""
_BEAT = """
INSERT INTO public.heartbeat VALUES (true, clock_timestamp(), pg_current_wal_insert_lsn())
    ON CONFLICT (one) DO UPDATE SET written_at = excluded.written_at, lsn = excluded.lsn
"""
_TABLE = """
CREATE TABLE IF NOT EXISTS public.heartbeat (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), written_at timestamptz NOT NULL, lsn pg_lsn NOT NULL, mark text
)
"""
_HAS_COLUMN = """
SELECT 1 FROM pg_attribute
    WHERE attrelid = to_regclass('public.heartbeat') AND attname = 'mark' AND NOT attisdropped
"""
_COLUMN = """
SELECT set_config('lock_timeout', '5s', true); ALTER TABLE public.heartbeat ADD COLUMN IF NOT EXISTS mark text
"""
"""Of a table from before there were marks. One transaction, and the bound is of it alone."""
_MARK = """
INSERT INTO public.heartbeat (written_at, lsn, mark) VALUES (clock_timestamp(), pg_current_wal_insert_lsn(), %s)
    ON CONFLICT (one) DO UPDATE SET mark = excluded.mark
"""


@dataclass(frozen=True)
class Identity:
    """Which history of which cluster this is, and where it is."""

    system: str
    timeline: int
    segment: str


@dataclass(frozen=True)
class Slot:
    """The replication slot."""

    lost: bool
    active_pid: int | None
    retained: int


@contextlib.contextmanager
def connected(postgres: Postgres, database: str = at.DATABASE) -> Iterator[Connection]:
    """Connect; every statement is its own transaction. Raises BackupError where that fails."""
    try:
        connection = psycopg2.connect(at.conninfo(postgres, database), application_name="samokoder_backup")
        connection.autocommit = True
        # The application chooses a search_path for its database, and what it finds there runs with this role's rights.
        # Said here, and not at the connection: a pooler before a managed database takes no options.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)")
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL: {str(error).strip()}") from None
    try:
        yield connection
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL: {str(error).strip()}") from None
    finally:
        connection.close()


def row(connection: Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    """Return the first row of a query."""
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return cursor.fetchone() if cursor.description else None


def prepare(postgres: Postgres) -> None:
    """Make the service's own database, where it is not there, and its table."""
    with connected(postgres, postgres.database) as connection:
        if not row(connection, "SELECT 1 FROM pg_database WHERE datname = %s", at.DATABASE):
            row(connection, f"CREATE DATABASE {at.DATABASE}")
    with connected(postgres) as connection:
        row(connection, _TABLE)


def beat(connection: Connection) -> None:
    """Write the marker whose age in a restored copy is the loss."""
    row(connection, _BEAT)


def mark(connection: Connection) -> str:
    """Return the mark that this copy of the cluster was given last; empty for none."""
    # As a document, for the column may be missing.
    found = row(connection, "SELECT to_jsonb(heartbeat) ->> 'mark' FROM public.heartbeat")
    return str(found[0] or "") if found else ""


def set_mark(connection: Connection, new: str) -> None:
    """Give this copy of the cluster another mark; raises BackupError where nothing can be written.

    The column is added only where it is missing: that wants the table for itself, and its owner.
    """
    try:
        if not row(connection, _HAS_COLUMN):
            row(connection, _COLUMN)
        row(connection, _MARK, new)
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL: {str(error).strip()}") from None


def identity(connection: Connection) -> Identity:
    """Say which cluster this is, and its timeline, which a restore changes."""
    found = row(connection, "SELECT system_identifier, pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()")
    assert found is not None  # noqa: S101 - a query without FROM
    return Identity(str(found[0]), int(found[1][:8], 16), found[1])


def slot(connection: Connection, name: str) -> Slot | None:
    """Return the slot's state; None where there is none."""
    found = row(
        connection,
        "SELECT coalesce(wal_status, '') = 'lost', active_pid, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)"
        " FROM pg_replication_slots WHERE slot_name = %s",
        name,
    )
    return Slot(bool(found[0]), found[1], max(0, int(found[2] or 0))) if found else None


def drop_slot(connection: Connection, name: str) -> None:
    """Drop a slot that PostgreSQL has given up: nothing can be read from it again."""
    row(connection, "SELECT pg_drop_replication_slot(%s)", name)


def end_session(connection: Connection, pid: int) -> None:
    """End a session of the same role, which a killed run has left: PostgreSQL notices that only after a minute."""
    row(connection, "SELECT pg_terminate_backend(%s, 10000)", pid)


def end_backups(connection: Connection) -> None:
    """End the base backups that killed runs have left."""
    row(
        connection,
        "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity"
        " WHERE application_name = %s AND usename = current_user",
        BARMAN_BACKUP,
    )


def finish_segment(connection: Connection) -> None:
    """Let the segment that is being written end, with something in it."""
    beat(connection)
    row(connection, "SELECT pg_switch_wal()")


def size(connection: Connection) -> int:
    """Return the size of all databases."""
    found = row(connection, "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE datallowconn")
    return int(found[0]) if found else 0


def roles(connection: Connection) -> list[str]:
    """Return the roles that what is dumped may belong to."""
    found = row(connection, "SELECT array_agg(rolname::text ORDER BY 1) FROM pg_roles WHERE rolname !~ '^pg_'")
    return list(found[0]) if found else []
