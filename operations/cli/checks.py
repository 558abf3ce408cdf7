"""`smoke`, `doctor`, `check-image`, `test-alert`, `hardening`."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from operations.cli import asking, common
from operations.cli.options import EnvironmentName
from operations.clone import typed
from operations.errors import ProjectError
from stack.common.mistakes import InvalidSettingsError
from stack.monitoring.metrics import Kind

if TYPE_CHECKING:
    from operations.audit.gate import GateResult


class Severity(StrEnum):
    """Severity of a test alert."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


def send_test_alert(
    env: EnvironmentName = "staging",
    severity: Annotated[Severity, typer.Option(help="Severity that it says it has.")] = Severity.CRITICAL,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds to wait for a delivery; 60, for the heartbeat two of its intervals.", min=1),
    ] = None,
    url: Annotated[str, typer.Option(help="AlertManager, where its port is not reached from here: a tunnel.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Send a test alert the way of a real one. Exit status 0 when every configured integration delivered it."""
    from operations.checks.alert import send  # noqa: PLC0415

    report = send.send_test_alert(common.workspace_of(env), severity=severity.value, timeout=timeout, url=url)
    if as_json:
        common.show_json(report.as_json())
    else:
        for line in report.lines():
            typer.echo(line)
    if not report.ok:
        raise ProjectError(f"{report.failure} See: {typed(env, 'logs PART=alertmanager')}")


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
    from operations.checks.image import check_image as checking  # noqa: PLC0415

    common.tell_report(
        checking.check_image(replace(common.workspace_of(env), incomplete=True), image, kind, timeout=timeout),
        verbose=True,
        as_json=as_json,
    )


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
    from operations.checks.smoke import smoke as smoking  # noqa: PLC0415

    workspace = common.workspace_of(env)
    report = smoking.smoke(workspace, seconds=timeout, wait=wait)
    common.write_junit(report, junit)
    if report.failed and not as_json:
        environment = workspace.settings()
        common.tell_lost_rules(environment, workspace, environment.settings.docker_host)
    common.tell_report(report, verbose=verbose, as_json=as_json)


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
    from operations.checks.doctor import after as aftermath  # noqa: PLC0415
    from operations.checks.doctor import doctor as examination  # noqa: PLC0415

    workspace = common.workspace_of(env)
    with contextlib.suppress(InvalidSettingsError):  # the report names the mistakes
        if workspace.settings().configured_secrets:  # Pulumi decrypts them with the state
            asking.where_state(workspace)
    if not after:
        common.tell_report(examination.doctor(workspace, seconds=timeout), verbose=True, as_json=as_json, junit=junit)
        return
    report = aftermath.after(workspace, seconds=timeout)
    if not as_json:
        console = common.terminal()
        console.print("In the first 24 hours:")
        for line in aftermath.first_day(workspace.settings()):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        common.show_elsewhere(workspace)
    common.tell_report(report, verbose=False, as_json=as_json, junit=junit)


def show_hardening(
    env: EnvironmentName = "staging",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Check what runs against the CIS Docker Benchmark, sections 4 and 5. Exit status 1 for any finding.

    What may break a rule stands in hardening.yaml, with a reason and an expiry date.
    """
    from operations.audit.exceptions import LIST  # noqa: PLC0415
    from operations.audit.gate import gate  # noqa: PLC0415
    from operations.network import packet_filter  # noqa: PLC0415
    from operations.workspace import known  # noqa: PLC0415

    there = known.of(common.workspace_of(env))
    verdict = gate(there)
    if as_json:
        common.show_json({"environment": env, **verdict.as_json()})
    else:
        _show_broken(env, verdict)
        if not there.environment:
            typer.echo("Packet filter: not looked at, since the stack file says which rules there must be")
        elif beside := packet_filter.filter_remark(there.workspace):
            typer.echo(beside)
    if verdict.findings:
        raise ProjectError(
            f"{len(verdict.findings)} not listed in {LIST.name}: change the part, or list it with a reason."
        )


def _show_broken(env: str, verdict: GateResult) -> None:
    from operations.audit.rules import RULES  # noqa: PLC0415
    from operations.cli import tables  # noqa: PLC0415

    console = common.terminal()
    if verdict.findings:
        tables.show_broken(console, env, verdict.findings, {name: rule.title for name, rule in RULES.items()})
    told = f"{verdict.parts} parts, {len(RULES)} rules: {len(verdict.findings)} findings, {len(verdict.listed)} listed"
    console.print(f"{told} as exceptions in hardening.yaml", soft_wrap=True)
