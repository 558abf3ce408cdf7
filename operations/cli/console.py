"""`psql`, `exec` and `restart`: one part of an environment, found by its label."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from operations.cli import common
from operations.cli.options import EnvironmentName
from operations.errors import ProjectError
from operations.workspace.psql import psql_command, psql_command_of_state

if TYPE_CHECKING:
    from docker.models.containers import Container


from operations.lifecycle.restart import restart


def restart_command(
    part: Annotated[str, typer.Argument(help="Part, as in the table of `status`; `api`: all its replicas.")],
    env: EnvironmentName = "staging",
) -> None:
    """Restart a part: it is asked to end, started again, and waited for. Replicas come one after the other.

    Nothing is made anew: that does `up`. Exit status 1 where it is not healthy afterwards; then the others stay as they
    are.
    """
    done = restart(common.workspace_of(env), part)
    typer.echo(f"Restarted and healthy: {', '.join(done)}")


def exec_command(
    part: Annotated[str, typer.Argument(help="Part, as in the table of `status`; `api`: its first replica.")],
    command: Annotated[list[str], typer.Argument(help="After `--`: the command and its words.")],
    env: EnvironmentName = "staging",
) -> None:
    """Run a command in a part's container, as its own user: samokoder exec api -- python --version.

    It has the same secrets as the part's own process, with `secretsAs: environment` as its environment. Ends with the
    exit status of the command. To ask the database: samokoder psql.
    """
    from operations.engine import containers, session  # noqa: PLC0415 - the SDK takes its time
    from operations.workspace import known  # noqa: PLC0415 - the SDK takes its time
    from stack.parts.api import contract  # noqa: PLC0415 - only this command needs it

    there = known.of(common.workspace_of(env))
    client = there.client()
    try:
        found = containers.replicas(client, there, part)
        running = [container for container in found.values() if container.status == "running"]
        if not running:
            raise ProjectError(f"{part} does not run: {there.workspace.typed('status')}")
        # The container's own start is asked, because the settings may have changed since it was made.
        start = contract.start_of(running[0].attrs["Config"].get("Entrypoint") or ())
        status = session.run(there.docker_host, running[0], [*start, *command])
    finally:
        client.close()
    sys.exit(status)


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
    from stack.parts.postgres import spec as postgres  # noqa: PLC0415

    there = known.of(common.workspace_of(env))
    # `psql_command` refuses a managed database, which has no container here, before a container is searched for.
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
