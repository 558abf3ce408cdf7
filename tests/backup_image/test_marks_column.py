"""The column of the mark: added to a table from before, and never a reason to receive no log."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import database
from samokoder_backup.process import BackupError
from samokoder_backup.settings import Postgres


@dataclass
class Server:
    """A connection to PostgreSQL, as far as it is asked here."""

    has_column: bool
    may_alter: bool = True
    asked: list[str] = field(default_factory=list)
    description: object = None

    def cursor(self) -> Any:
        return nullcontext(self)

    def execute(self, query: str, _: object) -> None:
        self.asked.append(query)
        self.description = None
        if "ALTER TABLE" in query:
            if not self.may_alter:
                raise psycopg2.errors.InsufficientPrivilege("must be owner of table heartbeat")
            self.has_column = True
        elif "pg_attribute" in query or "pg_database" in query:
            self.description = "there"
        elif " mark" in query and "CREATE TABLE" not in query and not self.has_column:
            raise psycopg2.errors.UndefinedColumn('column "mark" does not exist')

    def fetchone(self) -> tuple[int] | None:
        return (1,) if self.has_column or "pg_database" in self.asked[-1] else None

    @property
    def altered(self) -> list[str]:
        return [query for query in self.asked if "ALTER TABLE" in query]


def prepared(server: Server, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setattr(database, "connected", lambda *_: nullcontext(server))
    database.prepare(cast("Postgres", type("Asked", (), {"database": "samokoder"})))
    return cast("Connection", server)


def test_a_table_that_has_the_column_is_never_altered(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(has_column=True)
    database.set_mark(prepared(server, monkeypatch), "new")
    assert server.altered == [], "it wants the owner, and waits for whoever reads the table"


def test_a_table_from_before_gets_the_column_and_the_wait_for_it_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(has_column=False)
    database.set_mark(prepared(server, monkeypatch), "new")
    (added,) = server.altered
    assert "'lock_timeout', '5s'" in added, "who holds the table would hold the log up"
    assert "INSERT" in server.asked[-1]


def test_without_the_right_to_alter_it_log_is_received_without_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(has_column=False, may_alter=False)
    connection = prepared(server, monkeypatch)
    assert database.mark(connection) == "", "the mark is asked for before log is received"
    with pytest.raises(BackupError, match="must be owner"):
        database.set_mark(connection, "new")
