"""Backups, and what is restored from them: `backup`, `backups`, `restore`, `repair`, `import-compose`, `drill`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from operations.cli import asking, common
from operations.cli.options import DryRun, EnvironmentName, Yes
from operations.clone import typed


class BackupKind(StrEnum):
    """What is backed up: the database with its log, a dump of it, Redis, the workspace."""

    ALL = "all"
    BASE = "base"
    DUMP = "dump"
    REDIS = "redis"
    WORKSPACE = "workspace"


def backup(
    env: EnvironmentName = "staging",
    kind: Annotated[BackupKind, typer.Option(help="Kind of backup.")] = BackupKind.ALL,
) -> None:
    """Make a backup now, beside those of the schedule. Exit status 0 when it is whole."""
    from operations.data import backups as backing_up  # noqa: PLC0415

    backing_up.now(common.workspace_of(env), kind.value)
    common.terminal().print(f"What there is: {typed(env, 'backups')}")


def backups(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List the backups, newest first: age, size, state, and the moments that one can go back to."""
    from operations.cli import tables  # noqa: PLC0415
    from operations.data import backups as backing_up  # noqa: PLC0415

    found, set_aside = backing_up.backups(common.workspace_of(env))
    if as_json:
        common.show_json({"backups": [each.as_json() for each in found], "set_aside": set_aside})
        return
    tables.show_backups(common.terminal(), env, found)
    for volume in set_aside:
        typer.echo(f"Set aside by a restore: {volume}")


def restore(
    env: EnvironmentName = "staging",
    to: Annotated[str, typer.Option(help="Moment, with its zone: '2026-11-23 10:05:00+03'.")] = "",
    backup: Annotated[str, typer.Option(help="Id, as `backups` lists it, or `latest`.")] = "",
    source: Annotated[str, typer.Option("--from", help="`offsite`, or a volume that a restore has set aside.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Restore into the running environment; what is there is set aside. No options: resume an interrupted restore.

    Refuses what it cannot do before anything is stopped. Cut off at any point, the same command goes on. Production
    shows at a terminal what it would do, and asks.
    """
    from operations.cli import dry_run as planning  # noqa: PLC0415
    from operations.data.restore import restore as restoring  # noqa: PLC0415
    from operations.lifecycle.up import bring_up  # noqa: PLC0415

    workspace = common.workspace_of(env)
    words = {name: value for name, value in (("TO", to), ("BACKUP", backup), ("FROM", source)) if value}
    again = " ".join(["restore", *(f"{name}={shlex.quote(value)}" for name, value in words.items()), "ARGS=--yes"])
    agree = None if dry_run else asking.agreement(workspace, again, yes=yes)
    if dry_run or agree:
        # The backup server has the list, and may be what is damaged: a restore does not need it.
        planned = planning.of_restore(workspace, to=to, backup=backup, source=source, listed=dry_run)
        typer.echo("\n".join([*planned, planning.NOTHING_RESTORED] if dry_run else planned), err=as_json)
    if dry_run:
        return
    asking.where_state(workspace)
    if agree:
        agree()
    common.say_outcome(
        env, restoring.restore(workspace, up=bring_up, to=to, backup=backup, source=source), as_json=as_json
    )


def repair(
    part: Annotated[str, typer.Argument(help="What is to be repaired: redis, collations or network.")],
    env: EnvironmentName = "staging",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without being asked.")] = False,
) -> None:
    """Repair Redis' unreadable data, indexes in another C library's order, or Docker's lost firewall rules; asks first.

    Refuses where nothing is damaged. Cut off at any point, of Redis `samokoder restore` goes on, of the others the same
    command.
    """
    from operations.data.repair import repair as repairing  # noqa: PLC0415
    from operations.lifecycle.up import bring_up  # noqa: PLC0415

    workspace = common.workspace_of(env)
    if part == "redis":  # the others bring nothing up
        asking.refuse_production_lost(workspace, f"repair PART={part}")
    if part != "network":  # of that one no state is needed
        asking.where_state(workspace, yes=yes)
    with repairing.opened(workspace, part, up=bring_up) as found:
        for line in found.lines():
            common.terminal().print(line, markup=False, soft_wrap=True)
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("no terminal to ask at: pass --yes", param_hint="--yes")
            typer.confirm(found.question, abort=True)
        common.terminal().print(found.run(), markup=False, soft_wrap=True)


def import_compose(
    project: Annotated[str, typer.Argument(help="Project of Docker Compose: the first part of its volumes' names.")],
    env: EnvironmentName = "staging",
    *,
    postgres_volume: Annotated[str, typer.Option(help="Volume with PostgreSQL's data, not the one found.")] = "",
    redis_volume: Annotated[str, typer.Option(help="Volume with Redis' data, not the one found.")] = "",
    workspace_volume: Annotated[
        str, typer.Option(help="Volume, or folder of the engine's host, with the workspace, not the one found.")
    ] = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="Only write the keys of its containers into the stack file, encrypted.")
    ] = False,
    keys_of: Annotated[
        str, typer.Option(help="With --keys: the container whose value is taken where two have different ones.")
    ] = "",
    preview: Annotated[bool, typer.Option("--preview", help="Say what would be done, and do nothing.")] = False,
    confirm: Annotated[str, typer.Option(help="The environment's name, in place of being asked for it.")] = "",
) -> None:
    """Copy the data of a stopped compose stack into the running environment; its volumes are never written to.

    Refuses what it cannot import before anything is stopped. Cut off at any point, the same command goes on.
    """
    from operations.data.compose import import_compose as importing_compose  # noqa: PLC0415
    from operations.data.compose import old_containers  # noqa: PLC0415
    from operations.data.compose.source import OldServer  # noqa: PLC0415
    from operations.lifecycle.up import bring_up  # noqa: PLC0415

    workspace = common.workspace_of(env)
    asking.where_state(workspace)
    if keys_of and not keys:
        raise typer.BadParameter("only with --keys", param_hint="--keys-of")
    if keys:
        said = old_containers.bring_keys(replace(workspace, incomplete=True), project, of=keys_of)
        common.terminal().print(said, markup=False, soft_wrap=True)
        return
    if not preview:
        asking.refuse_production_lost(workspace, f"import-compose PROJECT={shlex.quote(project)}")
    named: dict[OldServer, str] = {
        "postgres": postgres_volume,
        "workspace": workspace_volume,
        "redis": redis_volume,
    }
    given = {server: volume for server, volume in named.items() if volume}
    with importing_compose.opened(workspace, project, given, up=bring_up) as importing:
        for source in importing.plan.sources:
            typer.echo(f"From {source.volume}: {source}. What is in {env} now is set aside; {source.volume} stays.")
        if warning := old_containers.lost_keys(workspace, project):
            common.terminal().print(warning, style="yellow", markup=False, soft_wrap=True)
        if preview:
            return
        common.confirm_name(env, confirm, "nothing was imported")
        common.terminal().print(importing_compose.run_import(importing), markup=False, soft_wrap=True)


def drill(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Restore the newest backup beside everything, look at it and measure. Exit status 0 when it is good."""
    from operations.data import backups as backing_up  # noqa: PLC0415

    report = backing_up.drill(common.workspace_of(env))
    if as_json:
        common.show_json(report)
    else:
        typer.echo(f"Restored {report['backup']}, looked at it and threw it away.")
        typer.echo(f"  would have been lost (RPO): {report['rpo']:.1f} s")
        typer.echo(f"  time until it answered (RTO): {report['rto']:.1f} s")
        for table, rows in report["rows"].items():
            typer.echo(f"  {table}: {rows} rows")
