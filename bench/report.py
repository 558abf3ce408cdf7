"""The rows of the bench: what was measured, beside what, and whether that is what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from host.table import Cell, show_table


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement beside another of the same run, or beside a limit. Goals are for the ratio of the two."""

    what: str
    measured: float
    beside: str
    beside_measured: float
    unit: str = "s"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        """Measured over what it stands beside."""
        return self.measured / self.beside_measured

    @property
    def goal(self) -> str | None:
        """The goal as a person reads it; None: it is only told."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return None if self.at_least is None else f"at least {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return None if self.at_least is None else self.ratio >= self.at_least

    def as_json(self) -> dict[str, object]:
        """Return it with the keys of `bench/results.json`."""
        return {
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "baseline": self.beside,
            "baseline_measured": self.beside_measured,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
        }


_VERDICTS = {True: ("met", "green"), False: ("not met", "red")}


def show(console: Console, rows: Sequence[Measurement]) -> None:
    """Print the table, and the goals that are not met once more: they are what a person looks for."""
    cells: list[list[Cell]] = []
    for row in rows:
        measured, beside, ratio = (f"{number:.2f}" for number in (row.measured, row.beside_measured, row.ratio))
        goal = Text("none") if row.met is None else Text.assemble(f"{row.goal}: ", _VERDICTS[row.met])
        cells.append([row.what, measured, row.beside, beside, row.unit, ratio, goal])
    show_table(console, "", ["What", "Measured", "Beside", "Measured", "Unit", "Ratio", "Goal"], cells)
    goals = [row for row in rows if row.met is not None]
    console.print(f"{sum(row.met is True for row in goals)} of {len(goals)} goals met", highlight=False)
    for row in goals:
        if not row.met:
            console.print(f"Not met: {escape(row.what)}: {row.ratio:.2f}, {row.goal}", soft_wrap=True, highlight=False)
