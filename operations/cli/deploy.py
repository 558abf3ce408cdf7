"""`samokoder deploy` and `samokoder rollback`, as they are typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from operations.cli import asking, common
from operations.cli.environment import show_upped
from operations.cli.options import DryRun, EnvironmentName, Yes
from operations.clone import typed

if TYPE_CHECKING:
    from operations.delivery.image_deploy import ImageDeploy
    from operations.lifecycle.up import Agree
    from operations.workspace.workspace import Workspace


WriteOnly = Annotated[bool, typer.Option("--write-only", help="Write the stack file, for a pull request, and end.")]


def deploy(  # noqa: PLR0917 - each is an option
    env: EnvironmentName = "staging",
    api: Annotated[str, typer.Option(help="Image of the API, with a tag or a digest.")] = "",
    worker: Annotated[str, typer.Option(help="Image of the worker.")] = "",
    frontend: Annotated[str, typer.Option(help="Image of the frontend.")] = "",
    migrations: Annotated[str, typer.Option(help="Command of the API's image that migrates the database.")] = "",
    write_only: WriteOnly = False,
    check: Annotated[bool, typer.Option(help="Check images that do not run yet against the contract.")] = True,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Deploy images of your own: digests, contract, stack file, preview, question, `up`.

    What is not named stays. Asks at a terminal; without one staging goes on and production wants --yes.
    """
    from operations.delivery import image_deploy  # noqa: PLC0415

    given = {name: image for name, image in (("api", api), ("worker", worker), ("frontend", frontend)) if image}
    if not given:
        raise typer.BadParameter("name an image: --api, --worker or --frontend")
    workspace = common.workspace_of(env)
    planned = image_deploy.plan(workspace, given, migrations=shlex.split(migrations), ask_engine=not write_only)
    words = " ".join(f"{name.upper()}={shlex.quote(image)}" for name, image in given.items())
    options = [*(["--migrations", migrations] if migrations else []), *([] if check else ["--no-check"])]
    agree = _agreement(planned, f"deploy {words}", options, looking=write_only or dry_run, yes=yes)
    _show_deploy(workspace, planned)
    if write_only and not dry_run:
        if planned.wanted != planned.before:
            planned.write()
            typer.echo(f"{workspace.committed_file.name} has them. Commit it; nothing was brought up.")
        return
    if check and not dry_run:
        for report in planned.check():
            common.tell_report(report, verbose=False, as_json=False)
    _run_deploy(planned, agree, dry_run=dry_run, yes=yes)


def rollback(
    env: EnvironmentName = "staging",
    to: Annotated[str, typer.Option(help="Commit to go back to; default the version before this one.")] = "",
    write_only: WriteOnly = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Go back to the images before, as Git's history of the stack file has them. All else stays as it is.

    Migrations are not undone. Asks as `deploy` does.
    """
    from operations.delivery import image_deploy  # noqa: PLC0415

    workspace = common.workspace_of(env)
    planned, earlier = image_deploy.back(workspace, to, ask_engine=not write_only)
    words = f"rollback TO={shlex.quote(to)}" if to else "rollback"
    agree = _agreement(planned, words, [], looking=write_only or dry_run, yes=yes)
    typer.echo(f"Back to the images of {earlier.told}")
    _show_deploy(workspace, planned)
    if write_only and not dry_run:
        planned.write()
        typer.echo(f"{workspace.committed_file.name} has them. Commit it; nothing was brought up.")
        return
    _run_deploy(planned, agree, dry_run=dry_run, yes=yes)


def _agreement(planned: ImageDeploy, words: str, options: Sequence[str], *, looking: bool, yes: bool) -> Agree | None:
    """Return what asks. words, options: what was typed for `make`, and for ARGS."""
    arguments = shlex.quote(shlex.join(["--yes", *options]))
    return None if looking else asking.agreement(planned.candidate, f"{words} ARGS={arguments}", yes=yes, always=True)


def _show_deploy(workspace: Workspace, planned: ImageDeploy) -> None:
    lines = planned.before.differs(planned.wanted) or ["No image differs from those of the stack file."]
    for line in (f"{workspace.environment}:", *(f"  {line}" for line in lines)):
        typer.echo(line)


def _run_deploy(planned: ImageDeploy, agree: Agree | None, *, dry_run: bool, yes: bool) -> None:
    from operations.lifecycle.preview import show_preview  # noqa: PLC0415

    env, interactive = planned.workspace.environment, sys.stdout.isatty()
    asking.where_state(planned.workspace, yes=yes)
    if dry_run:
        show_preview(planned.candidate, interactive=interactive)
        typer.echo(f"Nothing was changed, {planned.workspace.committed_file.name} neither.")
        return
    upped = planned.run(agree, interactive=interactive)
    typer.echo(f"{env} runs them. Commit {planned.workspace.committed_file.name}. Back: {typed(env, 'rollback')}")
    show_upped(env, planned.workspace, upped)
