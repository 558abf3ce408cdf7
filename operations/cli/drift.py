"""`samokoder drift`, as it is typed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from operations.cli import asking, common
from operations.cli.options import EnvironmentName, Yes
from operations.errors import ProjectError

if TYPE_CHECKING:
    from operations.audit.drift.difference import Difference


def drift(
    env: EnvironmentName = "staging",
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, for programs; `result` tells drift from a failure.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what differs as it is declared. Asks at a terminal.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Compare what runs with what is declared. Exit status 1 for any difference that is left.

    What came of it is a metric, of which Prometheus alerts. --repair leaves what nobody declared: that is looked
    at first.
    """
    from operations.audit.drift.detect import find_drift  # noqa: PLC0415 - each command imports what it needs
    from operations.cli import tables  # noqa: PLC0415 - each command imports what it needs

    if as_json and repair:
        raise typer.BadParameter("either --json or --repair")
    workspace = common.workspace_of(env)
    try:
        findings = find_drift(workspace)
    except Exception as error:
        # Whatever it was, a program that asked for JSON gets its cause as JSON too.
        if as_json:
            _show_json(env, "failed", str(error), [])
        raise
    if as_json:
        _show_json(env, "drift" if findings else "none", "", findings)
    elif findings:
        tables.show_drift(common.terminal(), env, findings, repairing=repair)
    if repair and any(not each.unknown for each in findings):
        findings = _repair(env, findings, yes=yes)
    if findings:
        places = "1 place" if len(findings) == 1 else f"{len(findings)} places"
        raise ProjectError(f"{env} differs from what is declared in {places}.")
    if not as_json:
        typer.echo(f"{env}: what runs is what is declared.")


def _repair(env: str, findings: Sequence[Difference], *, yes: bool) -> list[Difference]:
    """Make what differs as it is declared; show and return what still differs afterwards."""
    from operations.audit.drift import repairs  # noqa: PLC0415
    from operations.audit.drift.detect import find_drift  # noqa: PLC0415
    from operations.cli import tables  # noqa: PLC0415

    workspace = common.workspace_of(env)
    agree = asking.agreement(workspace, "drift ARGS='--repair --yes'", yes=yes, always=True)
    upped = repairs.repair(workspace, findings, interactive=sys.stdout.isatty(), agree=agree)
    common.exit_if_failed(env, upped.parts)
    if left := find_drift(workspace):
        tables.show_drift(common.terminal(), env, left)
    return left


def _show_json(env: str, result: str, error: str, findings: Sequence[Difference]) -> None:
    rows = [each.as_json() for each in findings]
    common.show_json({"environment": env, "result": result, "error": error, "findings": rows})
