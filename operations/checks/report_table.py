"""The table of a report of checks, as people read it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from host.table import Cell, show_table
from operations.checks.report import Finding, Report, Verdict

COLOURS = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.NOT_AVAILABLE: "yellow",
    Verdict.NOT_CONFIGURED: "dim",
}
# The backticks are taken with what is between them, so that a closing one does not open the prose up to the next.
_COMMAND = re.compile(r"""`([^`]+)`|(make [a-z-]+ (?:\S+ )?ARGS=(?:'[^']*'|"[^"]*"))""")
_TITLES = ["check", "verdict", "why"]


def show(console: Console, report: Report, *, verbose: bool = True) -> None:
    """Print the findings as a table, and a line with their numbers. verbose: also the checks that passed."""
    rows = [each for each in report.findings if verbose or each.verdict is not Verdict.PASSED]
    if rows:
        _show_table(console, report, rows)
    counts = report.counts
    told = [
        f"{counts['total']} check" + "s" * (counts["total"] != 1),
        *(_counted(each, counts[each]) for each in Verdict if counts[each] or each is not Verdict.NOT_CONFIGURED),
    ]
    console.print(f"{escape(report.title)}: " + ", ".join(told))
    for each in rows:
        if "\n" in each.why:
            console.print(f"\n{each.check}: {each.why}", markup=False, highlight=False, soft_wrap=True)
    if broken := list(_broken(console.width, report, rows)):
        console.print("To paste, as the table has broken it:")
        for command in broken:
            console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    if report.proposal:
        console.print("Settings with which less would fail, to paste into Pulumi.<environment>.yaml below `config:`")
        console.print(report.proposal, markup=False, highlight=False, soft_wrap=True)


def _show_table(console: Console, report: Report, rows: Sequence[Finding]) -> None:
    cells: list[list[Cell]] = [
        [str(each.check), Text(each.verdict.value, COLOURS[each.verdict]), _in_cell(each.why)] for each in rows
    ]
    show_table(console, report.title, _TITLES, cells, whole={"verdict"})


def _in_cell(why: str) -> str:
    """Return the text for the table: a longer one has lines to paste, which a column would break."""
    first, *more = why.splitlines() or [""]
    return f"{first.rstrip(':')}, below" if more else first


def _broken(width: int, report: Report, rows: Sequence[Finding]) -> Iterator[str]:
    """Yield the commands that the table has in more than one line, and that are therefore pasted as two."""
    said = io.StringIO()
    _show_table(Console(file=said, width=width), report, rows)
    for each in rows:
        if "\n" not in each.why:
            commands = (quoted or plain for quoted, plain in _COMMAND.findall(each.why))
            yield from (command for command in commands if command not in said.getvalue())


def _counted(verdict: Verdict, number: int) -> str:
    text = f"{number} {verdict.value}"
    return f"[{COLOURS[verdict]}]{text}[/]" if number else text
