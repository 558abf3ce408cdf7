"""A running stack whose application was taken over: what it planted runs for nobody who has more rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from operations.data import backups
from operations.engine import containers
from operations.engine.commands import execute
from operations.workspace.known import live_status
from operations.workspace.psql import psql_command
from operations.workspace.workspace import Workspace
from stack.parts.backup import spec as backup
from stack.parts.postgres import roles as postgres_roles
from stack.settings.environment import Environment
from tests.live.test_the_stack import until
from tests.planted import CANARY, MARK, SUPERUSER_PSQL

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

VIEWS = ("pg_namespace", "pg_class", "pg_roles", "pg_database", "pg_stat_user_tables", "pg_stat_activity")
TAKEN = "".join(
    f"CREATE VIEW public.{view} AS SELECT * FROM pg_catalog.{view} WHERE public.canary();"
    f"GRANT SELECT ON public.{view} TO PUBLIC;"
    for view in VIEWS
)
GIVEN_BACK = "".join(f"DROP VIEW public.{view};" for view in VIEWS) + "DROP FUNCTION public.canary(); DROP TABLE canary"
SUPERUSERS = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper"


def as_application(server: Container, environment: Environment, sql: str) -> None:
    """Do what the application may, as `samokoder psql` does."""
    status, said = execute(server, psql_command(environment, sql, write=True))
    assert status == 0, said.decode()


def as_superuser(server: Container, sql: str) -> str:
    status, said = execute(server, [*SUPERUSER_PSQL, "-d", "samokoder", "-XAtc", sql])
    assert status == 0, said.decode()
    return said.decode().strip()


@pytest.fixture(scope="module")
def taken(environment: Environment, engine: docker.DockerClient) -> Iterator[Container]:
    """PostgreSQL of the stack, its application taken over; given back at the end."""
    server = containers.find(engine, environment, "postgres")
    as_application(server, environment, CANARY + TAKEN)
    as_application(server, environment, "ALTER DATABASE samokoder SET search_path = public, pg_catalog")
    yield server
    as_application(server, environment, "ALTER DATABASE samokoder RESET search_path")
    as_application(server, environment, GIVEN_BACK)


def assert_nothing_ran(server: Container, environment: Environment, engine: docker.DockerClient) -> None:
    assert MARK not in server.logs().decode(), "its code ran with more rights than the application has"
    assert as_superuser(server, "SELECT count(*) FROM public.canary") == "0"
    assert as_superuser(server, SUPERUSERS) == environment.settings.postgres.superuser
    for part in ("postgres", backup.PART):
        container = containers.find(engine, environment, part)
        status, _ = execute(container, ["sh", "-c", "test -e /tmp/canary || test -e /backups/canary"])
        assert status == 1, f"the application had a shell in the container of {part}"


def test_a_restart_of_the_keeper_gives_the_application_nothing(
    taken: Container, stack: Workspace, environment: Environment, engine: docker.DockerClient
) -> None:
    containers.find(engine, environment, postgres_roles.PART).restart()

    def health() -> str:
        return next(row.health for row in live_status(stack) if row.part == postgres_roles.PART)

    assert until(health, lambda said: said == "healthy") == "healthy"
    assert_nothing_ran(taken, environment, engine)


def test_a_backup_and_a_drill_give_the_application_nothing(
    taken: Container, stack: Workspace, environment: Environment, engine: docker.DockerClient
) -> None:
    backups.now(stack, "base")
    backups.now(stack, "dump")
    assert backups.drill(stack)["rows"], "the drill looked at nothing"
    assert_nothing_ran(taken, environment, engine)
