"""The table of a report of checks, as people read it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from host.table import Cell, show_table
from operations.checks.report import Report, Verdict

COLOURS = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.NOT_AVAILABLE: "yellow",
    Verdict.NOT_CONFIGURED: "dim",
}


def show(console: Console, report: Report, *, verbose: bool = True) -> None:
    """Print the findings as a table, and a line with their numbers. verbose: also the checks that passed."""
    if rows := [each for each in report.findings if verbose or each.verdict is not Verdict.PASSED]:
        cells: list[list[Cell]] = [
            [str(each.check), Text(each.verdict.value, COLOURS[each.verdict]), each.why] for each in rows
        ]
        show_table(console, report.title, ["check", "verdict", "why"], cells, whole={"verdict"})
    counts = report.counts
    told = [
        f"{counts['total']} check" + "s" * (counts["total"] != 1),
        *(_counted(each, counts[each]) for each in Verdict if counts[each] or each is not Verdict.NOT_CONFIGURED),
    ]
    console.print(f"{escape(report.title)}: " + ", ".join(told))
    if report.proposal:
        console.print("Settings with which less would fail, to paste into Pulumi.<environment>.yaml below `config:`")
        console.print(report.proposal, markup=False, highlight=False, soft_wrap=True)


def _counted(verdict: Verdict, number: int) -> str:
    text = f"{number} {verdict.value}"
    return f"[{COLOURS[verdict]}]{text}[/]" if number else text
