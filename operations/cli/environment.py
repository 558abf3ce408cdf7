"""Bring an environment up, look at it, take it down; and the engine that it runs on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from host.errors import EngineError
from operations.cli import asking, common, pages
from operations.cli.options import EnvironmentName, Yes
from operations.clone import typed
from operations.errors import ProjectError

if TYPE_CHECKING:
    from operations.lifecycle.up import Upped
    from operations.workspace.workspace import Workspace


def up(
    env: EnvironmentName = "staging",
    empty: Annotated[
        list[str] | None, typer.Option(help="What may begin with nothing in it, where its data volume was lost.")
    ] = None,
    yes: Yes = False,
    state: Annotated[
        str, typer.Option(help="Where a team's state is to be made (s3://…): the answer to `Alone or a team?`.")
    ] = "",
) -> None:
    """Bring the environment up: engine, Pulumi, images, containers. Gets what is missing, and says so.

    Production shows at a terminal what it would change, and asks.
    """
    from operations.lifecycle.up import bring_up  # noqa: PLC0415 - each command imports what it needs: `status` stays fast

    workspace = common.workspace_of(env)
    agree = asking.agreement(workspace, "up ARGS=--yes", yes=yes)
    asking.where_state(workspace, yes=yes, answer=state)
    upped = bring_up(workspace, interactive=sys.stdout.isatty(), empty=empty or (), agree=agree)
    show_upped(env, workspace, upped)


def show_upped(env: str, workspace: Workspace, upped: Upped) -> None:
    """Show an environment after `up`: its parts, its passwords and what to open first."""
    from operations.cli import tables  # noqa: PLC0415

    tables.show_status(common.terminal(), env, upped.parts)
    common.show_elsewhere(workspace)
    console = common.terminal()
    console.print("Passwords:")
    for name in upped.secrets:
        console.print(f"  {typed(env, f'password NAME={name}')}")
    common.exit_if_failed(env, upped.parts)
    if first := pages.list_of_pages(env, {part.part: part.url for part in upped.parts}):
        console.print(first, markup=False, highlight=False, soft_wrap=True)


def preview(
    env: EnvironmentName = "staging",
    diff: Annotated[bool, typer.Option("--diff", help="Show each field that would change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs; with no value of a field.")] = False,
) -> None:
    """Show what `up` would change, and change nothing. Exit status 1 where the preview fails."""
    from operations.lifecycle.preview import planned_changes, show_preview  # noqa: PLC0415

    if diff and as_json:
        raise typer.BadParameter("either --diff or --json")
    workspace = common.workspace_of(env)
    asking.where_state(workspace)
    if not as_json:
        show_preview(workspace, interactive=sys.stdout.isatty(), diff=diff)
        return
    answer = planned_changes(workspace)
    common.show_json(answer)
    if not answer["ok"]:
        raise ProjectError(f"The preview of {env} failed.")


def down(env: EnvironmentName = "staging", yes: Yes = False) -> None:
    """Remove the containers and networks; keep the data volumes and the secrets that open them.

    Production shows at a terminal what it would remove, and asks.
    """
    from operations.lifecycle.down import take_down  # noqa: PLC0415

    workspace = common.workspace_of(env)
    agree = asking.agreement(workspace, "down ARGS=--yes", yes=yes, removes=True)
    asking.where_state(workspace, yes=yes)
    kept = take_down(workspace, interactive=sys.stdout.isatty(), agree=agree)
    console = common.terminal()
    console.print(f"[bold]{env}[/] is down. Kept, with the secrets that open them: {', '.join(kept) or 'no volume'}.")
    console.print(f"Back with their data: {typed(env, 'up')}    Remove them too: {typed(env, 'destroy-data')}")


def destroy_data(
    env: EnvironmentName = "staging",
    confirm: Annotated[str, typer.Option(help="The environment's name, in place of being asked for it.")] = "",
) -> None:
    """Remove the environment with all its data. There is no way back."""
    from operations.cli import tables  # noqa: PLC0415
    from operations.lifecycle import down as ending  # noqa: PLC0415

    workspace = common.workspace_of(env)
    asking.where_state(workspace)
    volumes = ending.data_volumes(workspace)
    tables.show_data(common.terminal(), env, volumes)
    common.terminal().print(
        "It removes the secrets that open what is elsewhere too, and nobody can read off-site copies, or dumps that "
        "were taken away, without these. Keep them first:"
    )
    for name in ("backup-encryption-key", "app-secret-key"):
        common.terminal().print(f"  {typed(env, f'password NAME={name}')}")
    common.confirm_name(env, confirm, "nothing was removed")
    removed = ending.destroy_data(workspace, interactive=sys.stdout.isatty())
    common.terminal().print(f"Removed: {env} and {', '.join(removed) or 'no volume'}.")


def status(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show how each part is, as the engine says it. Exit status 1 when one is not healthy."""
    from operations.cli import tables  # noqa: PLC0415
    from operations.workspace import known  # noqa: PLC0415

    there = known.of(common.workspace_of(env))
    rows = known.status(there)
    if as_json:
        common.show_json({"environment": env, "parts": [row.as_json() for row in rows]})
    elif rows:
        tables.show_status(common.terminal(), env, rows)
        common.show_elsewhere(there.workspace, there.docker_host)
        common.tell_lost_rules(there, there.workspace, there.docker_host)
    common.exit_if_failed(env, rows)
    if not there.parts_known:
        raise ProjectError(
            "Which parts should be there is not known: the stack file has mistakes, and no `up` of this clone has "
            f"noted it. `{typed(env, 'doctor')}` names the mistakes."
        )


def tunnel(env: EnvironmentName = "staging") -> None:
    """Forward the published ports of an engine's host (ssh://…) to the same ports of this machine, until Ctrl-C."""
    from operations.engine import reach  # noqa: PLC0415
    from operations.workspace import known  # noqa: PLC0415

    there = known.of(common.workspace_of(env))
    command = reach.tunnel(env, there.docker_host, known.addresses(there))
    typer.echo(f"The addresses of {env} are reached from here while this runs. Ctrl-C ends it.")
    if first := pages.list_of_pages(env, pages.known_pages(there)):
        typer.echo(first)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise ProjectError(
            f"ssh ended with status {status}. A port that is in use here is another program's: see above"
        )


def engine(
    stop: Annotated[bool, typer.Option("--stop", help="Stop it, if this product started it.")] = False,
) -> None:
    """Tell which Docker Engine there is, or stop the one that `up` has started. Exit status 1 when there is none."""
    from host.daemon import stop_engine  # noqa: PLC0415
    from host.engine import DEFAULT_DOCKER_HOST, connect  # noqa: PLC0415

    if stop:
        stopped = stop_engine(report=common.terminal(stderr=True).print)
        typer.echo("Stopped." if stopped else "No engine here was started by this product.")
        return
    try:
        client = connect(DEFAULT_DOCKER_HOST)
    except EngineError as error:
        raise EngineError(
            f"No Docker Engine answers at {DEFAULT_DOCKER_HOST}: {error}. `make up ENV=…` brings one up."
        ) from error
    typer.echo(f"Docker Engine {client.version()['Version']} at {DEFAULT_DOCKER_HOST}")
    client.close()
