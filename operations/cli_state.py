"""`samokoder move-state`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from operations import basics
from operations.clone import ROOT


def move_state(
    to: Annotated[str, typer.Argument(help="s3://BUCKET?endpoint=…&s3ForcePathStyle=true, or file:///a/folder")],
) -> None:
    """Move the state of all environments to a place that a team reaches; the old one is kept, and refused from then on.

    Pulumi.yaml then names the new place. Cut off at any point, the same command goes on.
    """
    from operations.lifecycle import move_state  # noqa: PLC0415 - each command imports what it needs
    from operations.workspace import stack_file  # noqa: PLC0415 - each command imports what it needs

    workspace = basics.workspace(stack_file.environments(ROOT)[0])
    for line in move_state.move(workspace, to).lines():
        typer.echo(line)
