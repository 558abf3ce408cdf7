"""What the commands share: the workspace, the terminal, and how an outcome is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from operations.clone import ROOT, typed
from operations.errors import ProjectError

if TYPE_CHECKING:
    from rich.console import Console

    from operations.checks.report import Report
    from operations.data.restore.steps import Restored
    from operations.engine.containers import Named
    from operations.engine.part_status import PartStatus
    from operations.rotation.rotate import Rotated
    from operations.workspace.workspace import Workspace

# A log has no width of its own, and 80 columns would fold every table.
_WIDTH_IN_A_LOG = 140


def terminal(*, stderr: bool = False) -> Console:
    """Return the console for a command's results. stderr: the console for messages beside them."""
    from rich.console import Console  # noqa: PLC0415 - it takes its time

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_IN_A_LOG, highlight=False)


def workspace_of(environment: str) -> Workspace:
    """Return an environment of this clone, by its name."""
    from host.progress import Reporter  # noqa: PLC0415 - it takes its time
    from operations.workspace.workspace import Workspace  # noqa: PLC0415 - the settings take their time

    return Workspace(environment=environment, root=ROOT, reporter=Reporter(terminal(stderr=True)))


def confirm_name(env: str, confirm: str, otherwise: str) -> None:
    """Ask for the environment's name where it was not given. Raises BadParameter for another name.

    otherwise: what the error says was not done.
    """
    if not confirm:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"no terminal to ask at: pass --confirm {env}", param_hint="--confirm")
        confirm = typer.prompt(f"Type the environment's name to do it ({env})")
    if confirm != env:
        raise typer.BadParameter(f"{confirm!r} is not {env!r}; {otherwise}", param_hint="--confirm")


def show_elsewhere(workspace: Workspace, docker_host: str = "") -> None:
    """Where the engine is on another host, say how its pages are reached."""
    from operations.engine import reach  # noqa: PLC0415

    if said := reach.elsewhere(docker_host or workspace.settings().settings.docker_host, workspace.typed("tunnel")):
        typer.echo(said)


def show_json(answer: object) -> None:
    """Print the answer of a command for programs."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def say_outcome(env: str, outcome: Restored | Rotated, *, as_json: bool) -> None:
    """Say what has been done."""
    if as_json:
        show_json({"environment": env, **outcome.as_json()})
    else:
        terminal().print(str(outcome), markup=False, soft_wrap=True)


def write_junit(report: Report, file: Path | None) -> None:
    """Write a report for a CI system, where somebody has named a file for it."""
    if file:
        file.write_text(report.junit(), encoding="utf-8")


def tell_report(report: Report, *, verbose: bool, as_json: bool, junit: Path | None = None) -> None:
    """Show a report, and end in an error when a check has failed."""
    from operations.checks import report_table  # noqa: PLC0415

    write_junit(report, junit)
    if as_json:
        show_json(report.as_json())
    else:
        report_table.show(terminal(), report, verbose=verbose)
    if report.failed:
        raise ProjectError(f"{report.title}: {', '.join(report.failed)} failed.")


def tell_lost_rules(environment: Named, workspace: Workspace, docker_host: str) -> None:
    """Say where the engine's rules of the packet filter are gone, which is why parts fail, and what to type."""
    from operations.network import engine_rules  # noqa: PLC0415

    if gone := engine_rules.lost_rules_remark(environment, workspace, docker_host):
        terminal().print(gone, style="red", markup=False, soft_wrap=True)


def exit_if_failed(env: str, rows: Sequence[PartStatus]) -> None:
    """Raise ProjectError where a part is not healthy, or none is there."""
    failed = [row.part for row in rows if row.counts_as_failed]
    if not rows or (failed and not any(row.ok for row in rows)):
        raise ProjectError(f"{env} is not up: {typed(env, 'up')}")
    if failed:
        raise ProjectError(f"Not healthy: {', '.join(failed)}. See: {typed(env, f'logs PART={failed[0]}')}")
