"""Questions to a person at a terminal: before production is changed, and before the first state is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from operations.errors import ProjectError

if TYPE_CHECKING:
    from operations.lifecycle.up import Agree
    from operations.workspace.workspace import Workspace


def on_terminal(*, err: bool = False) -> bool:
    """Tell whether a person sees the output and can answer. err: the output on standard error."""
    return sys.stdin.isatty() and (sys.stderr if err else sys.stdout).isatty()


def agreement(
    workspace: Workspace, words: str, *, yes: bool, always: bool = False, removes: bool = False
) -> Agree | None:
    """Return the function that asks before an environment is changed; None: nothing is asked.

    words: what to type after `make` so that nothing is asked (`up ARGS=--yes`). always: ask for every environment at a
    terminal, not only for production, which is what the file or the state calls so. removes: it ends without an `up`,
    so that a production stays one. Raises ProjectError for production without a terminal, and where `up` would make a
    production none; InvalidSettingsError.
    """
    from operations.workspace import known  # noqa: PLC0415 - it takes its time

    if yes and removes:
        return None
    production = workspace.settings(on_this_machine=False).settings.production
    # A file that has lost one line must not be taken for staging, which asks nobody.
    was = not production and known.was_production(workspace)
    if not removes:
        # `up` refuses it too, which a restore would reach when its servers are stopped.
        known.refuse_production_lost(workspace, was=was, words=words)
    if yes:
        return None
    changed = known.production_lost(workspace, was=was)
    production = production or was
    if not (production or always):
        return None
    if not on_terminal():
        if not production:
            return None
        again = known.no_production(workspace, words) if changed and not removes else workspace.typed(words)
        no_terminal = f"{workspace.name} is production, and there is no terminal to ask at, so nothing was changed."
        raise ProjectError(
            f"{f'{changed} {no_terminal}'.lstrip()} Look at it: {workspace.typed('preview')}. Then do it: {again}"
        )

    def ask() -> None:
        if changed:
            typer.echo(changed)
        typer.confirm(f"Do this to {workspace.name}{', which is production' if production else ''}?", abort=True)

    return ask


def refuse_production_lost(workspace: Workspace, words: str) -> None:
    """Raise ProjectError where an `up` would make a production none, for a command that may end in one and asks itself.

    Called before such a command stops anything: its `up` would refuse when the servers are down. words: what to type
    after `make` to mean it. Raises InvalidSettingsError.
    """
    from operations.workspace import known  # noqa: PLC0415 - it takes its time

    if not workspace.settings(on_this_machine=False).settings.production:
        known.refuse_production_lost(workspace, was=known.was_production(workspace), words=words)


def where_state(workspace: Workspace, *, yes: bool = False, answer: str = "") -> None:
    """Ask, before the first state of a clone is made, whether one person works with it or a team, and note the place.

    Nothing is asked where a place is chosen, where there is a state, with `yes`, or without a terminal; where no place
    is chosen, the state is then made in this clone. answer: the place, given as an option. Raises ProjectError for a
    place that is not valid or cannot be reached, and where the state is already in another place.
    """
    from operations.workspace import backend as places  # noqa: PLC0415 - it takes its time
    from operations.workspace import pulumi_state  # noqa: PLC0415

    backend = workspace.backend()
    made = backend.origin != places.OWN or bool(pulumi_state.stacks(Path(str(backend.folder))))
    if answer:
        if places.checked(answer) == backend.url:
            return
        if made:
            raise ProjectError(f"The state is already in {backend}. To move it: {places.move_again(answer)}")
        _choose(workspace, answer)
    elif not (made or yes or workspace.isolated) and on_terminal(err=True):
        # On standard error: a person whose output goes to a program, or into a pager, is asked too.
        typer.echo(
            "Alone or a team? Pulumi notes in its state what it has made, with the generated secrets, encrypted. "
            "Alone: that is a folder of this clone. A team, or deploys by GitHub: a bucket that all of you reach.",
            err=True,
        )
        if not typer.confirm("Does a team work with it?", default=False, err=True):
            typer.echo("It is made in this clone. Later: make move-state STATE='s3://…'", err=True)
            return
        where = "Where? s3://BUCKET?endpoint=s3.example.org&s3ForcePathStyle=true"
        _choose(workspace, typer.prompt(where, err=True))


def _choose(workspace: Workspace, url: str) -> None:
    """Note a team's place for the state in Pulumi.yaml, once Pulumi has reached it."""
    from operations.workspace import backend as places  # noqa: PLC0415 - as above

    url = places.checked(url)
    run = workspace.connected(places.Backend(url=url, origin=places.ANSWER))
    run.refuse_moved()
    places.write(workspace.root, url)
    typer.echo(
        f"{places.PROJECT_FILE} says so now: commit it. What a colleague needs beside it: docs/colleagues.md", err=True
    )
