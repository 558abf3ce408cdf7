"""`samokoder psql`, as it is typed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from operations import basics
from operations.ci import EnvironmentName
from operations.workspace.psql import psql_command, psql_command_of_state

if TYPE_CHECKING:
    from docker.models.containers import Container


def psql(
    sql: Annotated[str, typer.Argument(envvar="SQL", help="Statement; without one a session opens.")] = "",
    env: EnvironmentName = "staging",
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="As the role that sees all statistics and no data.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Changes are allowed: those that the role may make.")] = False,
) -> None:
    """Ask the database as the application's role, read-only unless --write is given."""
    from operations.engine import containers, session  # noqa: PLC0415 - the SDK takes its time
    from operations.workspace import known  # noqa: PLC0415 - the SDK takes its time
    from stack.app import postgres  # noqa: PLC0415

    there = known.of(basics.workspace(env))
    # A managed database has no container here: that is said before one is looked for.
    words = psql_command(there.environment, sql, monitoring=monitoring, write=write) if there.environment else []
    client = there.client()
    try:
        container = containers.find(client, there, postgres.PART)
        words = words or psql_command_of_state(there.deployment(), container, sql, monitoring=monitoring, write=write)
        status = _ask(container, words) if sql else session.attached(there.docker_host, container, words)
    finally:
        client.close()
    if status:
        raise typer.Exit(status)


def _ask(container: Container, words: list[str]) -> int:
    from operations.engine.commands import execute  # noqa: PLC0415

    status, said = execute(container, words)
    sys.stdout.buffer.write(said)
    sys.stdout.buffer.flush()
    return status
