"""`render` and `sbom`, which write files into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from operations.cli import common
from operations.cli.options import EnvironmentName


def render(
    out: Annotated[Path, typer.Option(help="Folder to write to: new, empty, or of an earlier call.")],
    env: EnvironmentName = "staging",
) -> None:
    """Write every configuration file as it would be mounted, secrets replaced by their names. Needs no engine."""
    from operations.lifecycle import render as rendering  # noqa: PLC0415

    written = rendering.write(common.workspace_of(env).settings(on_this_machine=False), out)
    typer.echo(f"{len(written)} files in {out}")


def sbom(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    env: EnvironmentName = "staging",
    docker_host: Annotated[
        str, typer.Option(envvar="DOCKER_HOST", help="Engine to read the images from; default the environment's.")
    ] = "",
) -> None:
    """Write what is in our own images as CycloneDX JSON, one file for each. Builds an image that is not there."""
    from host.engine import connect  # noqa: PLC0415
    from operations.audit import sbom as listing  # noqa: PLC0415

    workspace = common.workspace_of(env)
    client = connect(docker_host) if docker_host else workspace.client()
    try:
        for path in listing.write(workspace.settings(), client, out, workspace.reporter):
            typer.echo(str(path))
    finally:
        client.close()
