"""The schema: made step by step, taken over from the time before, and never taken away from those who still use it."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine

from samokoder.db import REVISION, Base

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[..., object]
Value = TypeVar("Value")
#: As the first version made them, which had no users and stored no arguments and no notes.
EARLIER_TABLES = (
    """CREATE TABLE projects (id uuid PRIMARY KEY, name varchar(100) NOT NULL, skeleton text,
    created_at timestamptz NOT NULL DEFAULT now())""",
    "CREATE INDEX ix_projects_created_at ON projects (created_at)",
    """CREATE TABLE jobs (id uuid PRIMARY KEY, project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name varchar(50) NOT NULL, state varchar(10) NOT NULL, result text,
    created_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz)""",
    "CREATE INDEX ix_jobs_project_id ON jobs (project_id)",
)


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "samokoder:migrations")
    config.attributes["connection"] = connection
    return config


REVISIONS = [step.revision for step in ScriptDirectory.from_config(_config(None)).walk_revisions()][::-1]  # type: ignore[arg-type]


class Database:
    """One that nobody else uses, empty at first; `setup` migrates it and starts the parts on it."""

    def __init__(self, setup: Setup, name: str) -> None:
        self.setup = setup
        self.url = setup.postgres.application_url.removesuffix("app") + name
        setup.secrets["samokoder_database_url"] = self.url

    def do(self, work: Callable[[sa.Connection], Value]) -> Value:
        """Do it in one transaction, as the service's role."""

        async def connected() -> Value:
            engine = create_async_engine(self.url)
            try:
                async with engine.begin() as connection:
                    return await connection.run_sync(work)
            finally:
                await engine.dispose()

        return asyncio.run(connected())

    def execute(self, *statements: str) -> Any:
        """Return the rows of the last one, where it has any."""

        def work(connection: sa.Connection) -> Any:
            result = [connection.execute(sa.text(statement)) for statement in statements][-1]
            return result.all() if result.returns_rows else None

        return self.do(work)

    def migrate(self) -> tuple[int, str]:
        """Run the command; return its exit status and what it said."""
        migration = self.setup.migrate()
        return migration.ended(), migration.said()

    def tables(self) -> set[str]:
        return self.do(lambda connection: set(sa.inspect(connection).get_table_names()))


@pytest.fixture
def database(setup: Setup) -> Iterator[Database]:
    name = f"test_{secrets.token_hex(4)}"
    setup.postgres.ask(lambda c: c.execute(f"CREATE DATABASE {name} OWNER app"), superuser=True)
    yield Database(setup, name)
    for part in setup.started:
        part.stop()
    setup.postgres.ask(lambda c: c.execute(f"DROP DATABASE {name}"), superuser=True)


def _default_differs(
    _context: object, _found: object, column: sa.Column[Any], found: str | None, _wanted: object, wanted: str | None
) -> bool | None:
    """Compare those of JSON as texts, since PostgreSQL cannot compare them; None leaves it to Alembic."""
    same = (found or "").partition("::")[0].strip("'") == (wanted or "").strip("'")
    return not same if isinstance(column.type, sa.JSON) else None


def _difference(connection: sa.Connection) -> Any:
    options = {"compare_type": True, "compare_server_default": _default_differs}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


def test_the_migrations_make_the_schema_of_the_models(database: Database) -> None:
    status, said = database.migrate()
    assert status == 0, said
    assert database.do(_difference) == [], "a model has changed without a revision, or the other way around"
    assert database.migrate()[0] == 0, "the keeper may run it again at any time"


def test_the_revision_that_readiness_asks_for_is_the_newest_and_is_sorted_last() -> None:
    assert REVISIONS[-1] == REVISION, "the API would say that it is ready on an older schema, or never"
    assert sorted(REVISIONS) == REVISIONS, "older and newer are told apart by the numbers"


def test_tables_of_the_time_before_migrations_are_taken_over_with_all_that_is_in_them(database: Database) -> None:
    project, job = uuid.uuid4(), uuid.uuid4()
    database.execute(
        *EARLIER_TABLES,
        f"INSERT INTO projects (id, name) VALUES ('{project}', 'kept')",
        f"INSERT INTO jobs (id, project_id, name, state) VALUES ('{job}', '{project}', 'write_skeleton', 'done')",
    )
    status, said = database.migrate()
    assert status == 0, said
    assert database.do(_difference) == [], "from now on it is like one that the migrations made"
    assert database.execute("SELECT arguments FROM jobs") == [({},)], "an old job has the arguments of that time: none"
    api = database.setup.api()
    api.wait_until("/ready")
    assert api.get(f"/projects/{project}").json()["name"] == "kept"
    assert api.get(f"/jobs/{job}").json()["state"] == "done"


def test_migrations_that_start_together_take_turns(database: Database) -> None:
    started = [database.setup.migrate() for _ in range(3)]
    assert [each.ended() for each in started] == [0, 0, 0], "".join(each.said() for each in started)
    befores = [json.loads(line)["before"] for each in started for line in each.said().splitlines() if "before" in line]
    assert befores.count(None) == 1, "one of them did it, the others found it done"


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(REVISIONS)))
def test_a_revision_takes_nothing_from_the_version_before_it(database: Database, older: str, newer: str) -> None:
    def columns(connection: sa.Connection) -> dict[tuple[str, str], tuple[str, bool, bool]]:
        inspector = sa.inspect(connection)
        return {
            (table, column["name"]): (str(column["type"]), column["nullable"], column["default"] is not None)
            for table in inspector.get_table_names()
            for column in inspector.get_columns(table)
        }

    def uniques(connection: sa.Connection) -> set[str | None]:
        inspector = sa.inspect(connection)
        return {each["name"] for t in inspector.get_table_names() for each in inspector.get_unique_constraints(t)}

    def steps(connection: sa.Connection) -> tuple[Any, Any, Any, Any]:
        command.upgrade(_config(connection), older)
        before, unique_before = columns(connection), uniques(connection)
        command.upgrade(_config(connection), newer)
        return before, columns(connection), unique_before, uniques(connection)

    before, after, unique_before, unique_after = database.do(steps)
    lost = {name for name, what in before.items() if after.get(name) != what}
    assert not lost, "replicas of the version before still read and write these as they were"
    tables = {table for table, _ in before}
    for (table, name), (_, nullable, default) in after.items():
        filled_by_itself = nullable or default or (table, name) in before
        assert filled_by_itself or table not in tables, f"the version before inserts rows without {table}.{name}"
    assert {name for name in unique_after - unique_before if name} == set(), "what was allowed to it is refused now"


def test_a_database_of_a_newer_version_is_left_alone_and_is_good_for_this_one(database: Database) -> None:
    assert database.migrate()[0] == 0
    database.execute("UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE jobs ADD COLUMN newer text")
    status, said = database.migrate()
    assert (status, said.count('"database is newer"')) == (0, 1), f"else no image could be rolled back:\n{said}"
    assert len(said.splitlines()) == 1, said
    assert database.execute("SELECT version_num FROM alembic_version") == [("9999",)]
    database.setup.api().wait_until("/ready")


def test_a_step_that_fails_leaves_all_as_it_was_and_one_line_that_says_why(database: Database) -> None:
    database.execute(*EARLIER_TABLES, "ALTER TABLE jobs ADD COLUMN started_at text")
    status, said = database.migrate()
    lines = [json.loads(line) for line in said.splitlines()]
    (error,) = (line for line in lines if line["level"] == "error")
    assert (status, error["event"]) == (1, "migration failed, nothing was changed")
    assert error["message"] == 'column "started_at" of relation "jobs" already exists', "what an operator has to know"
    assert not any(secret in said for secret in database.setup.secrets.values())
    assert database.tables() == {"projects", "jobs"}, "not even the first step, which was good, is left half done"


def test_a_database_that_refuses_us_is_not_waited_for(database: Database) -> None:
    wrong = secrets.token_hex(16)
    database.setup.secrets["samokoder_database_url"] = database.url.replace(
        database.setup.postgres.application_password, wrong
    )
    status, said = database.migrate()
    assert (status, len(said.splitlines())) == (1, 1), said
    assert "password authentication failed" in said
    assert wrong not in said


def test_a_database_that_is_away_is_waited_for(database: Database, waiting: Waiting) -> None:
    database.setup.postgres.stop(signal.SIGINT)
    try:
        migration = database.setup.migrate()
        waiting("the wait", lambda: "migration waits for the database" in migration.said(), migration.said)
    finally:
        database.setup.postgres.start()
    assert migration.ended() == 0, migration.said()


def test_a_table_in_use_is_waited_for_without_holding_up_those_who_come_later(
    database: Database, waiting: Waiting
) -> None:
    database.do(lambda connection: command.upgrade(_config(connection), REVISIONS[0]))

    def read_for_long(connection: sa.Connection) -> Service:
        connection.execute(sa.text("SELECT count(*) FROM jobs"))  # keeps its lock until the transaction ends
        migration = database.setup.migrate()
        waiting("the wait", lambda: "lock timeout" in migration.said(), migration.said)
        with ThreadPoolExecutor(1) as another:  # this thread has a loop already
            read = ("SET statement_timeout = '10s'", "SELECT count(*) FROM jobs")
            assert another.submit(database.execute, *read).result() == [(0,)]
        return migration

    migration = database.do(read_for_long)
    assert migration.ended() == 0, migration.said()
    assert database.do(_difference) == []


def _not_migrated(service: Service) -> bool:
    answer = service.get("/ready")
    return (answer.status_code, answer.json().get("database")) == (503, "not migrated yet")


@pytest.mark.usefixtures("alone")
def test_the_api_and_the_sweep_wait_for_the_schema(database: Database, waiting: Waiting) -> None:
    api, worker = database.setup.api(), database.setup.worker()
    waiting("a refusal", lambda: _not_migrated(api), api.said)
    errors = sum(
        float(line.rsplit(" ", 1)[1])
        for line in api.get("/metrics").text.splitlines()
        if line.startswith("samokoder_db_errors_total")
    )
    assert errors == 0, "waiting is no error of the database"
    waiting("the sweep's refusal", lambda: '"NotMigratedError"' in worker.said(), worker.said)
    assert _not_migrated(worker), "a deploy waits for a worker that can do a job"
    assert database.migrate()[0] == 0
    api.wait_until("/ready")
    worker.wait_until("/ready")


def test_an_older_schema_is_not_enough(database: Database, waiting: Waiting) -> None:
    database.do(lambda connection: command.upgrade(_config(connection), REVISIONS[-2]))
    api = database.setup.api()
    waiting("a refusal", lambda: _not_migrated(api), api.said)
