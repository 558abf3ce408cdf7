"""`samokoder ci …`: the steps of the workflows in `.github/workflows`, where tests can run them.

A step writes its results for later steps to the screen and, where GITHUB_OUTPUT names a file, into that file.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from host.errors import EngineError
from operations.cli import common
from operations.cli.options import EnvironmentName
from operations.clone import ROOT
from operations.errors import ProjectError
from stack.common.mistakes import InvalidSettingsError
from stack.images import IMAGES

if TYPE_CHECKING:
    from operations.workspace.workspace import Workspace

app = typer.Typer(help="Steps of the workflows in .github/workflows.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def environments() -> None:
    """List the environments: all, before production, production. Those that Pulumi.<name>.yaml files are there for."""
    from operations.workspace import stack_file  # noqa: PLC0415 - each command imports what it needs

    names = stack_file.environments(ROOT)
    production = [name for name in names if _is_production(name)]
    _put_out({"all": names, "trial": [name for name in names if name not in production], "production": production})


@app.command()
def images() -> None:
    """List the third-party images that are pinned."""
    _put_out({"images": [image.reference for image in IMAGES.values()]})


@app.command()
def prepare(
    env: EnvironmentName = "staging",
    images: Annotated[bool, typer.Option(help="Ask for each configured image, as a deploy pulls it.")] = False,
) -> None:
    """Check that this machine can work with an environment, and write what it was given to log in with."""
    workspace = _prepare(common.workspace_of(env))
    if images:
        from operations.delivery import commit_deploy  # noqa: PLC0415 - each command imports what it needs

        commit_deploy.check_registry(workspace)


@app.command()
def clean() -> None:
    """Remove what `ci prepare` has written: the last step of a job, whatever became of it."""
    from operations.delivery import runner  # noqa: PLC0415 - each command imports what it needs

    typer.echo(
        "Removed what this job could log in with." if runner.remove(os.environ) else "There was nothing to remove."
    )


@app.command()
def preview(
    out: Annotated[Path, typer.Option(help="File to write the comment to, as Markdown.")],
    env: EnvironmentName = "staging",
    commit: Annotated[str, typer.Option(envvar="COMMIT", help="Commit that is looked at.")] = "",
) -> None:
    """Run `pulumi preview --diff` and write a pull request's comment. Exit status 1 when the preview fails."""
    from offline.errors import OfflineError  # noqa: PLC0415 - each command imports what it needs
    from operations.delivery import preview_comment  # noqa: PLC0415

    workspace, error = common.workspace_of(env), ""
    try:
        workspace = _prepare(workspace)
        text, succeeded = preview_comment.preview(workspace, commit=commit)
    except (ProjectError, EngineError, OfflineError, InvalidSettingsError) as failure:
        # The author of the pull request reads the comment, not the job's log.
        succeeded, error = False, str(failure)
        text = preview_comment.not_previewed(env, why=error)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    if not succeeded:
        raise ProjectError(error or f"The preview of {env} failed; {out} has all of it.")


@app.command()
def comment(
    files: Annotated[list[Path], typer.Argument(help="Comments, as `ci preview` has written them.", exists=True)],
    pull_request: Annotated[int, typer.Option(envvar="PULL_REQUEST", help="Number of the pull request.", min=1)],
) -> None:
    """Write comments to a pull request, each in place of its earlier version. Needs GITHUB_TOKEN."""
    from operations.delivery.preview_comment import PullRequest  # noqa: PLC0415 - as above

    target = PullRequest(
        api=os.environ.get("GITHUB_API_URL") or "https://api.github.com",
        repository=_needed("GITHUB_REPOSITORY", "owner/name"),
        number=pull_request,
        token=_needed("GITHUB_TOKEN", "the job's token, ${{ github.token }}"),
    )
    for file in files:
        typer.echo(f"{file.name}: {target.publish(file.read_text(encoding='utf-8'))}")


@app.command()
def deploy(
    junit: Annotated[Path, typer.Option(help="File to write the smoke test's report to.")],
    env: EnvironmentName = "staging",
) -> None:
    """Deploy the checked-out commit and smoke-test it; go back to the last good one when it is not good.

    Exit status 0 only when the commit is good. A check that was red before it does not make it bad: a warning names it.
    Production gets only images that another environment has too.
    """
    from operations.delivery.commit_deploy import CommitDeploy  # noqa: PLC0415 - as above

    workspace = common.workspace_of(env)
    run = CommitDeploy(workspace=workspace, run=workspace.open(), say=workspace.reporter.say)
    try:
        deployed = run(junit=junit)
    except ProjectError as error:
        _summarise(str(error))
        raise
    _summarise(deployed.said)
    typer.echo(deployed.said)
    if deployed.red and os.environ.get("GITHUB_ACTIONS") == "true":
        typer.echo(f"::warning title={env} is red since before this deploy::{_escaped(deployed.said)}")


def _prepare(workspace: Workspace) -> Workspace:
    """Check the machine, write the job's key and login to files, and return the workspace that uses them."""
    from operations.delivery import commit_deploy, runner  # noqa: PLC0415 - as above

    commit_deploy.check_machine(workspace, home=Path.home())
    placed = runner.place(os.environ)
    if placed:
        workspace.reporter.say("Wrote what this job may log in with; `samokoder ci clean` removes it.")
    # For this command and, on a runner, for the steps after it.
    os.environ.update(placed)
    runner.hand_on(os.environ, placed)
    return replace(workspace, variables={**workspace.variables, **placed})


def _is_production(name: str) -> bool:
    """Read only this one setting: the others may be incomplete, which a deploy reports."""
    from operations.workspace import stack_file  # noqa: PLC0415 - as above
    from stack.settings.keys import key_of  # noqa: PLC0415

    config = stack_file.merged(stack_file.committed(ROOT, name), machine={})["config"]
    return str(config.get(key_of("production"), False)).lower() == "true"


def _put_out(values: dict[str, list[str]]) -> None:
    lines = "".join(f"{name}={json.dumps(value)}\n" for name, value in values.items())
    if file := os.environ.get("GITHUB_OUTPUT"):
        with Path(file).open("a", encoding="utf-8") as output:
            output.write(lines)
    sys.stdout.write(lines)


def _summarise(text: str) -> None:
    """Write it to the page of the job's run, where there is one."""
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(f"{text}\n")


def _escaped(text: str) -> str:
    """Return a text as GitHub's runner reads it behind `::`: a line end would end it there."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _needed(name: str, meaning: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ProjectError(f"{name} is not set: {meaning}.")
    return value
