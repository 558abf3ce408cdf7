"""The `samokoder` command: everything that `make` offers, and what `make` has no good form for."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operations import asking, ci, cli_app, cli_deploy, cli_drift, cli_open, cli_state, logs, parts, psql
from operations.asking import DryRun, Yes
from operations.basics import CHANGE_PROVIDER, CHANGES, ROOT, EngineError, ProjectError, PulumiFailedError, typed
from operations.ci import EnvironmentName
from stack.app.metrics_contract import Kind
from stack.mistakes import InvalidSettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from operations.audit.gate import GateResult
    from operations.checks import Report
    from operations.containers import PartStatus
    from operations.lifecycle import Upped
    from operations.project import Workspace
    from operations.restore import Restored
    from operations.rotation import Rotated

app = typer.Typer(
    name="samokoder",
    cls=cli_app.Commands,
    help="Run Samokoder and its monitoring on a Docker engine. Exit status: 0 done, 1 failed, 2 wrong usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain: what draws boxes around the help takes half a second to import.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(ci.app, name="ci")
app.callback()(cli_app.options)
app.command()(psql.psql)
app.command("restart")(parts.restart_command)
app.command("exec")(parts.exec_command)
app.command()(logs.logs)
app.command("move-state")(cli_state.move_state)

# A log has no width of its own, and 80 columns would fold every table.
_WIDTH_IN_A_LOG = 140
_INTERRUPTED = 130


class BackupKind(StrEnum):
    """What is backed up: the database with its log, a dump of it, Redis, the workspace."""

    ALL = "all"
    BASE = "base"
    DUMP = "dump"
    REDIS = "redis"
    WORKSPACE = "workspace"


class Severity(StrEnum):
    """Severity of a test alert."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415 - it takes its time

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_IN_A_LOG, highlight=False)


def _workspace(environment: str) -> Workspace:
    from offline.progress import Reporter  # noqa: PLC0415 - it takes its time
    from operations.project import Workspace  # noqa: PLC0415 - the settings take their time

    return Workspace(environment=environment, root=ROOT, reporter=Reporter(_console(stderr=True)))


@app.command()
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
    from operations import lifecycle  # noqa: PLC0415 - each command imports what it needs: `status` stays fast

    workspace = _workspace(env)
    agree = asking.agreement(workspace, "up ARGS=--yes", yes=yes)
    asking.where_state(workspace, yes=yes, answer=state)
    upped = lifecycle.up(workspace, interactive=sys.stdout.isatty(), empty=empty or (), agree=agree)
    _show_upped(env, workspace, upped)


def _show_upped(env: str, workspace: Workspace, upped: Upped) -> None:
    from operations import tables  # noqa: PLC0415

    tables.show_status(_console(), env, upped.parts)
    _show_elsewhere(workspace)
    console = _console()
    console.print("Passwords:")
    for name in upped.secrets:
        console.print(f"  {typed(env, f'password NAME={name}')}")
    _exit_if_failed(env, upped.parts)
    if first := cli_open.told(env, {part.part: part.url for part in upped.parts}):
        console.print(first, markup=False, highlight=False, soft_wrap=True)


@app.command()
def preview(
    env: EnvironmentName = "staging",
    diff: Annotated[bool, typer.Option("--diff", help="Show each field that would change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs; with no value of a field.")] = False,
) -> None:
    """Show what `up` would change, and change nothing. Exit status 1 where the preview fails."""
    from operations import lifecycle  # noqa: PLC0415

    if diff and as_json:
        raise typer.BadParameter("either --diff or --json")
    workspace = _workspace(env)
    if not as_json:
        asking.where_state(workspace)
        lifecycle.preview(workspace, interactive=sys.stdout.isatty(), diff=diff)
        return
    from operations import planned  # noqa: PLC0415

    answer = planned.planned(workspace)
    typer.echo(json.dumps(answer, indent=2))
    if not answer["ok"]:
        raise ProjectError(f"The preview of {env} failed.")


@app.command()
def down(env: EnvironmentName = "staging", yes: Yes = False) -> None:
    """Remove the containers and networks; keep the data volumes and the secrets that open them.

    Production shows at a terminal what it would remove, and asks.
    """
    from operations import lifecycle  # noqa: PLC0415

    workspace = _workspace(env)
    agree = asking.agreement(workspace, "down ARGS=--yes", yes=yes)
    kept = lifecycle.down(workspace, interactive=sys.stdout.isatty(), agree=agree)
    console = _console()
    console.print(f"[bold]{env}[/] is down. Kept, with the secrets that open them: {', '.join(kept) or 'no volume'}.")
    console.print(f"Back with their data: {typed(env, 'up')}    Remove them too: {typed(env, 'destroy-data')}")


@app.command("destroy-data")
def destroy_data(
    env: EnvironmentName = "staging",
    confirm: Annotated[str, typer.Option(help="The environment's name, in place of being asked for it.")] = "",
) -> None:
    """Remove the environment with all its data. There is no way back."""
    from operations import lifecycle, tables  # noqa: PLC0415

    workspace = _workspace(env)
    volumes = lifecycle.data_volumes(workspace)
    tables.show_data(_console(), env, volumes)
    _console().print(
        "It removes the secrets that open what is elsewhere too, and nobody can read off-site copies, or dumps that "
        "were taken away, without these. Keep them first:"
    )
    for name in ("backup-encryption-key", "app-secret-key"):
        _console().print(f"  {typed(env, f'password NAME={name}')}")
    _confirm(env, confirm, "nothing was removed")
    removed = lifecycle.destroy_data(workspace, interactive=sys.stdout.isatty())
    _console().print(f"Removed: {env} and {', '.join(removed) or 'no volume'}.")


@app.command()
def status(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show how each part is, as the engine says it. Exit status 1 when one is not healthy."""
    from operations import known, tables  # noqa: PLC0415
    from operations.network import engine_rules  # noqa: PLC0415

    there = known.of(_workspace(env))
    rows = known.status(there)
    if as_json:
        typer.echo(json.dumps({"environment": env, "parts": [row.as_json() for row in rows]}, indent=2))
    elif rows:
        tables.show_status(_console(), env, rows)
        _show_elsewhere(there.workspace, there.docker_host)
        if gone := engine_rules.told(there, there.workspace, there.docker_host):
            _console().print(gone, style="red", markup=False, soft_wrap=True)
    _exit_if_failed(env, rows)


@app.command()
def tunnel(env: EnvironmentName = "staging") -> None:
    """Forward the published ports of an engine's host (ssh://…) to the same ports of this machine, until Ctrl-C."""
    from operations import known, reach  # noqa: PLC0415

    there = known.of(_workspace(env))
    command = reach.tunnel(env, there.docker_host, known.addresses(there))
    typer.echo(f"The addresses of {env} are reached from here while this runs. Ctrl-C ends it.")
    if first := cli_open.told(env, cli_open.known_pages(there)):
        typer.echo(first)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise ProjectError(
            f"ssh ended with status {status}. A port that is in use here is another program's: see above"
        )


@app.command("test-alert")
def send_test_alert(
    env: EnvironmentName = "staging",
    severity: Annotated[Severity, typer.Option(help="Severity that it says it has.")] = Severity.CRITICAL,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a delivery.", min=1)] = 60,
    url: Annotated[str, typer.Option(help="AlertManager, where its port is not reached from here: a tunnel.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Send a test alert the way of a real one. Exit status 0 when every configured integration delivered it."""
    from operations import alerting  # noqa: PLC0415

    report = alerting.send_test_alert(_workspace(env), severity=severity.value, timeout=timeout, url=url)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        for line in report.lines():
            typer.echo(line)
    if not report.ok:
        raise ProjectError(f"{report.failure} See: {typed(env, 'logs PART=alertmanager')}")


@app.command("check-image")
def check_image(
    image: Annotated[str, typer.Argument(help="Image on the engine, or one that the engine can pull.")],
    kind: Annotated[Kind, typer.Option(help="Part that it is for.")],
    env: EnvironmentName = "staging",
    timeout: Annotated[float, typer.Option(help="Seconds to become ready, or to refuse a secret; 0: 30.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Check an image against the contract of README's "Your own images". Exit status 1 when it breaks it.

    It runs as in the environment, beside a PostgreSQL and a Redis of its own, all of which are removed at the end.
    """
    from operations import image_check  # noqa: PLC0415

    _tell(image_check.check_image(_workspace(env), image, kind, timeout=timeout), verbose=True, as_json=as_json)


@app.command()
def smoke(
    env: EnvironmentName = "staging",
    timeout: Annotated[float, typer.Option(help="Seconds that each check may take.", min=0.1)] = 10,
    wait: Annotated[float, typer.Option(help="Seconds to go on asking while a check fails: after an `up`.", min=0)] = 0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With what passed, and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    junit: Annotated[Path | None, typer.Option(help="File to write JUnit's XML to, for a CI system.")] = None,
) -> None:
    """Check that a stack which is up does all that it is for. Exit status 1 when a check fails.

    What it writes through the public entry it removes again.
    """
    from operations import smoke as smoking  # noqa: PLC0415

    report = smoking.smoke(_workspace(env), seconds=timeout, wait=wait)
    _tell(report, verbose=verbose, as_json=as_json, junit=junit)


@app.command()
def doctor(
    env: EnvironmentName = "staging",
    after: Annotated[
        bool, typer.Option("--after", help="What follows an `up`: the smoke test, a test alert, what to watch.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that each check may take.", min=0.1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    junit: Annotated[Path | None, typer.Option(help="File to write JUnit's XML to, for a CI system.")] = None,
) -> None:
    """Check whether the environment can be brought up: before `up`. Exit status 1 when a check fails.

    Starts nothing and changes nothing, but for one small object in the bucket of the backups.
    """
    from operations import doctor as examination  # noqa: PLC0415

    workspace = _workspace(env)
    if not after:
        _tell(examination.doctor(workspace, seconds=timeout), verbose=True, as_json=as_json, junit=junit)
        return
    report = examination.after(workspace, seconds=timeout)
    if not as_json:
        console = _console()
        console.print("In the first 24 hours:")
        for line in examination.first_day(workspace.settings()):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        _show_elsewhere(workspace)
    _tell(report, verbose=False, as_json=as_json, junit=junit)


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder to write to: new, empty, or of an earlier call.")],
    env: EnvironmentName = "staging",
) -> None:
    """Write every configuration file as it would be mounted, secrets replaced by their names. Needs no engine."""
    from operations import render as rendering  # noqa: PLC0415

    written = rendering.write(_workspace(env).settings(on_this_machine=False), out)
    typer.echo(f"{len(written)} files in {out}")


@app.command()
def password(
    name: Annotated[str, typer.Argument(help="Name of the secret; without one, the names are listed.")] = "",
    env: EnvironmentName = "staging",
) -> None:
    """Print one generated secret, and nothing else."""
    from operations import known  # noqa: PLC0415
    from stack.secret_rules import fernet_key  # noqa: PLC0415
    from stack.secrets import GENERATED  # noqa: PLC0415
    from stack.settings import key_of  # noqa: PLC0415

    there = known.of(_workspace(env))
    if not known.was_made(there):
        raise ProjectError(f"{env} is not up, and has no secrets yet: {typed(env, 'up')}")
    secrets = there.workspace.open().secrets()
    configured = there.configured()
    if "app-secret-key" in secrets and configured.get(key_of("app_secret_key_form")) == "fernet":
        secrets["app-secret-key"] = fernet_key(secrets["app-secret-key"])
    wanted = name.replace("_", "-")
    if not secrets:
        raise ProjectError(f"{env} has no secrets yet: {typed(env, 'up')}")
    if not name:
        typer.echo("\n".join(sorted(secrets)))
    elif wanted in secrets:
        key = GENERATED[wanted.replace("-", "_")].configured
        if f"samokoder:{key}" in configured:
            typer.echo(f"samokoder:{key} is used in place of this one, which opens what was made before it.", err=True)
        typer.echo(secrets[wanted])
    else:
        raise ProjectError(f"{env} has no generated secret {name!r}. There are: {', '.join(sorted(secrets))}.")


@app.command()
def rotate(
    secret: Annotated[str, typer.Argument(help="Name of the secret; without one, they are listed.")] = "",
    env: EnvironmentName = "staging",
    retire_now: Annotated[
        bool, typer.Option("--retire-now", help="Of secret-key: do not wait for the tokens that the old one signed.")
    ] = False,
    grafana_url: Annotated[str, typer.Option(help="Grafana, where its port is not reached from here: a tunnel.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Give a secret a new value while everything runs, and invalidate the old one.

    Writes each phase that is done into Pulumi.<env>.yaml. Cut off at any point, the same command goes on.
    """
    from operations import known, rotation, tables  # noqa: PLC0415

    workspace = _workspace(env)
    if not secret:
        rows = rotation.listed(known.of(workspace))
        if as_json:
            typer.echo(json.dumps({"environment": env, "secrets": [asdict(row) for row in rows]}, indent=2))
        else:
            tables.show_rotations(_console(), env, rows)
        return
    if dry_run:
        from operations import dry_run as planning  # noqa: PLC0415

        typer.echo("\n".join(planning.of_rotation(workspace, secret, retire_now=retire_now)))
        return
    interactive = sys.stdout.isatty() and not as_json
    _say(
        env,
        rotation.rotate(workspace, secret, interactive=interactive, retire_now=retire_now, grafana_url=grafana_url),
        as_json=as_json,
    )


@app.command()
def backup(
    env: EnvironmentName = "staging",
    kind: Annotated[BackupKind, typer.Option(help="Kind of backup.")] = BackupKind.ALL,
) -> None:
    """Make a backup now, beside those of the schedule. Exit status 0 when it is whole."""
    from operations import backups as backing_up  # noqa: PLC0415

    backing_up.now(_workspace(env), kind.value)
    _console().print(f"What there is: {typed(env, 'backups')}")


@app.command()
def backups(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """List the backups, newest first: age, size, state, and the moments that one can go back to."""
    from operations import backups as backing_up  # noqa: PLC0415
    from operations import tables  # noqa: PLC0415

    found, set_aside = backing_up.backups(_workspace(env))
    if as_json:
        typer.echo(json.dumps({"backups": [each.as_json() for each in found], "set_aside": set_aside}, indent=2))
        return
    tables.show_backups(_console(), env, found)
    for volume in set_aside:
        typer.echo(f"Set aside by a restore: {volume}")


@app.command()
def restore(
    env: EnvironmentName = "staging",
    to: Annotated[str, typer.Option(help="Moment, with its zone: '2026-11-23 10:05:00+03'.")] = "",
    backup: Annotated[str, typer.Option(help="Id, as `backups` lists it, or `latest`.")] = "",
    source: Annotated[str, typer.Option("--from", help="`offsite`, or a volume that a restore has set aside.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Restore into the running environment; what is there is set aside. No options: resume an interrupted restore.

    Refuses what it cannot do before anything is stopped. Cut off at any point, the same command goes on.
    """
    if dry_run:
        from operations import dry_run as planning  # noqa: PLC0415

        typer.echo("\n".join(planning.of_restore(_workspace(env), to=to, backup=backup, source=source)))
        return
    from operations import restore as restoring  # noqa: PLC0415

    _say(env, restoring.restore(_workspace(env), to=to, backup=backup, source=source), as_json=as_json)


@app.command()
def repair(
    part: Annotated[str, typer.Argument(help="What is to be repaired: redis, collations or network.")],
    env: EnvironmentName = "staging",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without being asked.")] = False,
) -> None:
    """Repair Redis' unreadable data, indexes in another C library's order, or Docker's lost firewall rules; asks first.

    Refuses where nothing is damaged. Cut off at any point, of Redis `samokoder restore` goes on, of the others the same
    command.
    """
    from operations import repair as repairing  # noqa: PLC0415

    with repairing.opened(_workspace(env), part) as found:
        for line in found.lines():
            _console().print(line, markup=False, soft_wrap=True)
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("no terminal to ask at: pass --yes", param_hint="--yes")
            typer.confirm(found.question, abort=True)
        _console().print(found.run(), markup=False, soft_wrap=True)


@app.command("import-compose")
def import_compose(
    project: Annotated[str, typer.Argument(help="Project of Docker Compose: the first part of its volumes' names.")],
    env: EnvironmentName = "staging",
    postgres_volume: Annotated[str, typer.Option(help="Volume with PostgreSQL's data, not the one found.")] = "",
    redis_volume: Annotated[str, typer.Option(help="Volume with Redis' data, not the one found.")] = "",
    workspace_volume: Annotated[
        str, typer.Option(help="Volume, or folder of the engine's host, with the workspace, not the one found.")
    ] = "",
    keys: Annotated[
        bool, typer.Option("--keys", help="Only write the keys of its containers into the stack file, encrypted.")
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Say what would be done, and do nothing.")] = False,
    confirm: Annotated[str, typer.Option(help="The environment's name, in place of being asked for it.")] = "",
) -> None:
    """Copy the data of a stopped compose stack into the running environment; its volumes are never written to.

    Refuses what it cannot import before anything is stopped. Cut off at any point, the same command goes on.
    """
    from operations import compose, compose_containers  # noqa: PLC0415

    workspace = _workspace(env)
    if keys:
        _console().print(compose_containers.bring_keys(workspace, project), markup=False, soft_wrap=True)
        return
    named: dict[compose.Server, str] = {
        "postgres": postgres_volume,
        "workspace": workspace_volume,
        "redis": redis_volume,
    }
    given = {server: volume for server, volume in named.items() if volume}
    with compose.opened(workspace, project, given) as importing:
        for source in importing.plan.sources:
            typer.echo(f"From {source.volume}: {source}. What is in {env} now is set aside; {source.volume} stays.")
        if warning := compose_containers.lost_keys(workspace, project):
            _console().print(warning, style="yellow", markup=False, soft_wrap=True)
        if preview:
            return
        _confirm(env, confirm, "nothing was imported")
        _console().print(compose.run(importing), markup=False, soft_wrap=True)


@app.command()
def drill(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Restore the newest backup beside everything, look at it and measure. Exit status 0 when it is good."""
    from operations import backups as backing_up  # noqa: PLC0415

    report = backing_up.drill(_workspace(env))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(f"Restored {report['backup']}, looked at it and threw it away.")
        typer.echo(f"  would have been lost (RPO): {report['rpo']:.1f} s")
        typer.echo(f"  time until it answered (RTO): {report['rto']:.1f} s")
        for table, rows in report["rows"].items():
            typer.echo(f"  {table}: {rows} rows")


@app.command()
def sbom(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    env: EnvironmentName = "staging",
    docker_host: Annotated[
        str, typer.Option(envvar="DOCKER_HOST", help="Engine to read the images from; default the environment's.")
    ] = "",
) -> None:
    """Write what is in our own images as CycloneDX JSON, one file for each. Builds an image that is not there."""
    from operations.audit import sbom as listing  # noqa: PLC0415
    from operations.engine import connect  # noqa: PLC0415

    workspace = _workspace(env)
    client = connect(docker_host) if docker_host else workspace.client()
    try:
        for path in listing.write(workspace.settings(), client, out, workspace.reporter):
            typer.echo(str(path))
    finally:
        client.close()


@app.command("hardening")
def show_hardening(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Check what runs against the CIS Docker Benchmark, sections 4 and 5. Exit status 1 for any finding.

    What may break a rule stands in hardening.yaml, with a reason and an expiry date.
    """
    from operations import known  # noqa: PLC0415
    from operations.audit.exceptions import LIST  # noqa: PLC0415
    from operations.audit.gate import gate  # noqa: PLC0415
    from operations.network import packet_filter  # noqa: PLC0415

    there = known.of(_workspace(env))
    verdict = gate(there)
    if as_json:
        typer.echo(json.dumps({"environment": env, **verdict.as_json()}, indent=2))
    else:
        _show_broken(env, verdict)
        if not there.environment:
            typer.echo("Packet filter: not looked at, since the stack file says which rules there must be")
        elif beside := packet_filter.told(there.workspace):
            typer.echo(beside)
    if verdict.findings:
        raise ProjectError(
            f"{len(verdict.findings)} not listed in {LIST.name}: change the part, or list it with a reason."
        )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def pulumi(context: typer.Context, env: EnvironmentName = "staging") -> None:
    """Run Pulumi itself on the environment: samokoder pulumi -e prod -- config set --secret samokoder:smtpPassword.

    `config` works on the committed Pulumi.<env>.yaml, `stack change-secrets-provider` on it and the state,
    every other command on the state.
    """
    from operations import lifecycle, lock, restore  # noqa: PLC0415
    from operations.backend import OPENS_COPY  # noqa: PLC0415

    workspace = _workspace(env)
    asking.where_state(workspace)
    run = workspace.open_copy() if tuple(context.args) == OPENS_COPY else workspace.open()
    # Wherever it stands: options may come before it. `config set` has values of any kind, and changes nothing there.
    changes = [word for word in context.args if word in CHANGES and context.args[0] != "config"]
    if context.args[:1] == ["config"] or context.args[:2] == ["stack", CHANGE_PROVIDER]:
        run = run.in_clone()
    with lock.held(workspace, f"pulumi {changes[0]}") if changes else contextlib.nullcontext():
        if changes:
            restore.refuse_half_replaced(workspace)
        if {"up", "update"} & set(changes):
            lifecycle.refuse_undoing(run)
        status = run.pulumi(*context.args, check=False).returncode
    raise typer.Exit(status)


@app.command()
def engine(
    stop: Annotated[bool, typer.Option("--stop", help="Stop it, if this product started it.")] = False,
) -> None:
    """Tell which Docker Engine there is, or stop the one that `up` has started. Exit status 1 when there is none."""
    from operations.engine import DEFAULT_DOCKER_HOST, connect, stop_engine  # noqa: PLC0415

    if stop:
        stopped = stop_engine(report=_console(stderr=True).print)
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


def _confirm(env: str, confirm: str, otherwise: str) -> None:
    """Ask for the environment's name where it was not given. Raises BadParameter for another one."""
    if not confirm:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"no terminal to ask at: pass --confirm {env}", param_hint="--confirm")
        confirm = typer.prompt(f"Type the environment's name to do it ({env})")
    if confirm != env:
        raise typer.BadParameter(f"{confirm!r} is not {env!r}; {otherwise}", param_hint="--confirm")


def _show_elsewhere(workspace: Workspace, docker_host: str = "") -> None:
    from operations import reach  # noqa: PLC0415

    if said := reach.elsewhere(docker_host or workspace.settings().settings.docker_host, workspace.typed("tunnel")):
        typer.echo(said)


def _show_broken(env: str, verdict: GateResult) -> None:
    from operations import tables  # noqa: PLC0415
    from operations.audit.rules import RULES  # noqa: PLC0415

    console = _console()
    if verdict.findings:
        tables.show_broken(console, env, verdict.findings, {name: rule.title for name, rule in RULES.items()})
    told = f"{verdict.parts} parts, {len(RULES)} rules: {len(verdict.findings)} findings, {len(verdict.listed)} listed"
    console.print(f"{told} as exceptions in hardening.yaml", soft_wrap=True)


def _say(env: str, outcome: Restored | Rotated, *, as_json: bool) -> None:
    """Say what has been done."""
    if as_json:
        typer.echo(json.dumps({"environment": env, **outcome.as_json()}, indent=2))
    else:
        _console().print(str(outcome), markup=False, soft_wrap=True)


def _tell(report: Report, *, verbose: bool, as_json: bool, junit: Path | None = None) -> None:
    """Show a report, and end in an error when a check has failed."""
    from operations import checks  # noqa: PLC0415

    if junit:
        junit.write_text(report.junit(), encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        checks.show(_console(), report, verbose=verbose)
    if report.failed:
        raise ProjectError(f"{report.title}: {', '.join(report.failed)} failed.")


def _exit_if_failed(env: str, rows: Sequence[PartStatus]) -> None:
    failed = [row.part for row in rows if row.counts_as_failed]
    if not rows or (failed and not any(row.ok for row in rows)):
        raise ProjectError(f"{env} is not up: {typed(env, 'up')}")
    if failed:
        raise ProjectError(f"Not healthy: {', '.join(failed)}. See: {typed(env, f'logs PART={failed[0]}')}")


cli_open.register(app)
cli_drift.register(app, console=_console, exit_if_failed=_exit_if_failed)
cli_deploy.register(app, show=_show_upped, tell=lambda report: _tell(report, verbose=False, as_json=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Foreseeable errors end in one message and status 1, never in a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "/" in (file := os.environ.get("ENV", "")):
        # POSIX shells have a file in ENV that they read at their start.
        del os.environ["ENV"]
        said = f"ENV is {file}, a file of your shell and no environment. One that is not staging: --env prod"
        _console(stderr=True).print(said, markup=False, soft_wrap=True)
    try:
        app(words)
    except InvalidSettingsError as error:
        from operations import pasted  # noqa: PLC0415 - as in `up`

        _fail(pasted.told(error))
    except PulumiFailedError as error:
        _fail(str(error), words)
    except (ProjectError, EngineError) as error:
        _fail(str(error), words)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # by typer, which keeps the interruption to itself
            _say_how_to_go_on(_console(stderr=True), words)
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"offline", "docker", "requests"}:
            raise
        from offline.errors import OfflineError  # noqa: PLC0415 - as in `up`

        _fail(str(error) if isinstance(error, OfflineError) else f"{type(error).__name__}: {error}", words)


def _fail(message: str, words: Sequence[str] = ()) -> None:
    """End with status 1. A person reads the last lines first: there stand the cause, and how to go on with `up`."""
    from rich.markup import escape  # noqa: PLC0415 - it takes its time

    console = _console(stderr=True)
    console.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    first, *more = message.strip().splitlines()
    if len(more) > 1:
        console.print(f"[bold red]error:[/] {escape(first)}", soft_wrap=True)
    _say_how_to_go_on(console, words)
    sys.exit(1)


def _say_how_to_go_on(console: Console, words: Sequence[str]) -> None:
    again = {"up": "up", "drift": "drift ARGS=--repair" if "--repair" in words else ""}.get(" ".join(words[:1]))
    if again:
        named = words[words.index("--env") + 1] if "--env" in words[:-1] else os.environ.get("ENV", "staging")
        console.print(f"What is finished is kept. Go on with: {typed(named, again)}", soft_wrap=True)


if __name__ == "__main__":
    main()
