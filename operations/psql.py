"""`samokoder psql`: asks the database as the application's role, or as the one that watches it; never as the superuser.

What the application has in its database (a view, a function) runs with the rights of whoever asks. So whoever asks may
do no more than the application, and changes nothing unless that is said.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from operations.ci import EnvironmentName
from operations.project import Workspace
from operations.stack_file import ProjectError
from stack.app import postgres, postgres_roles
from stack.rotation import slots
from stack.settings import Environment

if TYPE_CHECKING:
    from docker.models.containers import Container

_READ_ONLY = "PGOPTIONS=-c default_transaction_read_only=on"


def command(environment: Environment, sql: str = "", *, monitoring: bool = False, write: bool = False) -> list[str]:
    """Return what is run in PostgreSQL's container. sql: one statement or more; empty: a session for a person.

    Raises ProjectError for a managed database, which has no container here.
    """
    if environment.managed_database:
        raise ProjectError("The database is managed: ask it where it is, with its own URL.")
    role = postgres.EXPORTER_ROLE
    if not monitoring:
        role = postgres_roles.role_of(slots(environment, "postgres_app").in_use)
    words = [*(() if write else ("env", _READ_ONLY)), "psql", "--no-psqlrc", "--pset=pager=off"]
    words += [f"--username={role}", f"--dbname={environment.settings.postgres.database}"]
    return [*words, "--set=ON_ERROR_STOP=1", f"--command={sql}"] if sql else words


def psql(
    sql: Annotated[str, typer.Argument(envvar="SQL", help="Statement; without one a session opens.")] = "",
    env: EnvironmentName = "staging",
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="As the role that sees all statistics and no data.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Changes are allowed: those that the role may make.")] = False,
) -> None:
    """Ask the database as the application's role, read-only unless --write is given."""
    from operations import containers, session  # noqa: PLC0415 - the SDK takes its time

    workspace = Workspace(environment=env)
    environment = workspace.settings()
    words = command(environment, sql, monitoring=monitoring, write=write)
    client = workspace.client()
    try:
        container = containers.find(client, environment, postgres.PART)
        status = _ask(container, words) if sql else session.attached(workspace, container, words)
    finally:
        client.close()
    if status:
        raise typer.Exit(status)


def _ask(container: Container, words: list[str]) -> int:
    from operations import containers  # noqa: PLC0415

    status, said = containers.execute(container, words)
    sys.stdout.buffer.write(said)
    sys.stdout.buffer.flush()
    return status
