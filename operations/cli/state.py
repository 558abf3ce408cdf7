"""`pulumi` and `move-state`: Pulumi itself, and where its state is."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from operations.cli import asking, common
from operations.cli.options import EnvironmentName
from operations.clone import ROOT


def pulumi(context: typer.Context, env: EnvironmentName = "staging") -> None:
    """Run Pulumi itself on the environment: samokoder pulumi -e prod -- config set --secret samokoder:smtpPassword.

    `config` works on the committed Pulumi.<env>.yaml, `stack change-secrets-provider` on it and the state,
    every other command on the state.
    """
    from operations.data.restore import unfinished  # noqa: PLC0415
    from operations.lifecycle.up import refused_as_up  # noqa: PLC0415
    from operations.workspace import lock, origins  # noqa: PLC0415
    from operations.workspace.backend import OPENS_COPY  # noqa: PLC0415
    from operations.workspace.pulumi import CHANGE_PROVIDER, CHANGES, UPDATES  # noqa: PLC0415

    workspace = common.workspace_of(env)
    asking.where_state(workspace)
    run = workspace.open_copy() if tuple(context.args) == OPENS_COPY else workspace.open()
    # Every word is compared, because options may come before the subcommand. `config` is left out: its values may be
    # any word, and it changes no resource.
    changes = [word for word in context.args if word in CHANGES and context.args[0] != "config"]
    if context.args[:1] == ["config"] or context.args[:2] == ["stack", CHANGE_PROVIDER]:
        run = run.in_clone()
    with lock.held(workspace, f"pulumi {changes[0]}") if changes else contextlib.nullcontext():
        if changes:
            unfinished.refuse_half_replaced(workspace)
            # What replaces a state that is broken must not need it.
            if set(changes) - {"import", CHANGE_PROVIDER}:
                origins.note(run)
        if UPDATES & set(changes):
            run = refused_as_up(workspace)
        status = run.pulumi(*context.args, check=False).returncode
    raise typer.Exit(status)


def move_state(
    to: Annotated[str, typer.Argument(help="s3://BUCKET?endpoint=…&s3ForcePathStyle=true, or file:///a/folder")],
) -> None:
    """Move the state of all environments to a place that a team reaches; the old one is kept, and refused from then on.

    Pulumi.yaml then names the new place. Cut off at any point, the same command goes on.
    """
    from operations.lifecycle import move_state  # noqa: PLC0415 - each command imports what it needs
    from operations.workspace import stack_file  # noqa: PLC0415 - each command imports what it needs

    workspace = common.workspace_of(stack_file.environments(ROOT)[0])
    for line in move_state.move(workspace, to).lines():
        typer.echo(line)
