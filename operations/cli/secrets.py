"""`password` and `rotate`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from operations.cli import asking, common
from operations.cli.options import DryRun, EnvironmentName, Yes
from operations.clone import typed
from operations.errors import ProjectError


def password(
    name: Annotated[str, typer.Argument(help="Name of the secret; without one, the names are listed.")] = "",
    env: EnvironmentName = "staging",
) -> None:
    """Print one generated secret, and nothing else."""
    from operations.workspace import known  # noqa: PLC0415
    from stack.common.secret_rules import fernet_key  # noqa: PLC0415
    from stack.settings.keys import key_of  # noqa: PLC0415
    from stack.spec.secrets import GENERATED  # noqa: PLC0415

    there = known.of(common.workspace_of(env))
    secrets = there.opened().secrets()
    configured = there.configured()
    unread = configured is None
    configured = configured or {}
    if "app-secret-key" in secrets and configured.get(key_of("app_secret_key_form")) == "fernet":
        secrets["app-secret-key"] = fernet_key(secrets["app-secret-key"])
    wanted = name.replace("_", "-")
    if not secrets:
        raise ProjectError(f"{env} has no secrets yet: {typed(env, 'up')}")
    if not name:
        typer.echo("\n".join(sorted(secrets)))
    elif wanted in secrets:
        key = GENERATED[wanted.replace("-", "_")].configured
        if unread and key:
            file = there.workspace.committed_file.name
            typer.echo(
                f"{file} cannot be read: where it has samokoder:{key}, that one is used, and not this.", err=True
            )
            if wanted == "app-secret-key":
                form = f"{key_of('app_secret_key_form')}: fernet"
                typer.echo(f"Where it has {form}, this one is used in another form.", err=True)
        if f"samokoder:{key}" in configured:
            typer.echo(f"samokoder:{key} is used in place of this one, which opens what was made before it.", err=True)
        typer.echo(secrets[wanted])
    else:
        raise ProjectError(f"{env} has no generated secret {name!r}. There are: {', '.join(sorted(secrets))}.")


def rotate(
    secret: Annotated[str, typer.Argument(help="Name of the secret; without one, they are listed.")] = "",
    env: EnvironmentName = "staging",
    retire_now: Annotated[
        bool, typer.Option("--retire-now", help="Of secret-key: do not wait for the tokens that the old one signed.")
    ] = False,
    grafana_url: Annotated[str, typer.Option(help="Grafana, where its port is not reached from here: a tunnel.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Give a secret a new value while everything runs, and invalidate the old one.

    Writes each phase that is done into Pulumi.<env>.yaml. Cut off at any point, the same command goes on. Production
    shows at a terminal what the first step would change, and asks.
    """
    from operations.cli import tables  # noqa: PLC0415
    from operations.rotation import plan  # noqa: PLC0415
    from operations.rotation import rotate as rotation  # noqa: PLC0415
    from operations.workspace import known  # noqa: PLC0415

    workspace = common.workspace_of(env)
    if not secret:
        rows = plan.listed(known.of(workspace))
        if as_json:
            common.show_json({"environment": env, "secrets": [asdict(row) for row in rows]})
        else:
            tables.show_rotations(common.terminal(), env, rows)
        return
    if dry_run:
        from operations.cli import dry_run as planning  # noqa: PLC0415

        typer.echo("\n".join(planning.of_rotation(workspace, secret, retire_now=retire_now)))
        return
    options = ["--yes", *(["--retire-now"] if retire_now else [])]
    options += ["--grafana-url", grafana_url] if grafana_url else []
    arguments = shlex.quote(shlex.join(options))
    agree = asking.agreement(workspace, f"rotate SECRET={secret} ARGS={arguments}", yes=yes)
    interactive = sys.stdout.isatty() and not as_json
    rotated = rotation.rotate(
        workspace, secret, interactive=interactive, retire_now=retire_now, grafana_url=grafana_url, agree=agree
    )
    common.say_outcome(env, rotated, as_json=as_json)
