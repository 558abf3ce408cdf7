"""The rows of the bench: what was measured, beside what, and whether that is what it should be."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from host.table import Cell, show_table


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What several runs of one measurement gave: their median, and the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Sum up at least one value."""
        return cls(median=statistics.median(values), least=min(values), most=max(values))

    def __str__(self) -> str:
        """As the table shows it: `44.50 (44.02 to 47.80)`; a single run without its spread."""
        spread = f" ({self.least:.2f} to {self.most:.2f})" if self.least != self.most else ""
        return f"{self.median:.2f}{spread}"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement beside another of the same run, or beside a limit. Goals are for the ratio of the two medians."""

    what: str
    measured: float | Sample
    beside: str
    beside_measured: float | Sample
    unit: str = "s"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def samples(self) -> tuple[Sample, Sample]:
        """Both, each with its spread."""
        both = (self.measured, self.beside_measured)
        first, second = (each if isinstance(each, Sample) else Sample.of([each]) for each in both)
        return first, second

    @property
    def ratio(self) -> float:
        """Median measured over the median of what it stands beside."""
        measured, beside = self.samples
        return measured.median / beside.median

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
        measured, beside = self.samples
        return {
            "what": self.what,
            "measured": measured.median,
            "measured_least": measured.least,
            "measured_most": measured.most,
            "unit": self.unit,
            "baseline": self.beside,
            "baseline_measured": beside.median,
            "baseline_least": beside.least,
            "baseline_most": beside.most,
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
        }


@dataclass(kw_only=True)
class Results:
    """The rows so far, and what could not be measured; written to a file after each step, so that no run is lost."""

    file: Path
    say: Callable[[str], object]
    seconds: float
    """After so long nothing more is begun."""
    mend: Callable[[], object] = lambda: None
    """Makes the environment again as the next measurement expects it, after one that failed halfway."""
    begun: float = field(default_factory=time.monotonic)
    rows: list[Measurement] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until nothing more is begun."""
        return self.begun + self.seconds - time.monotonic()

    def step(self, what: str, measure: Callable[[], Sequence[Measurement]]) -> None:
        """Add the rows of one measurement, or why there are none: it took too long before, or failed."""
        if self.left <= 0:
            self.failed[what] = f"not begun: {self.seconds / 60:.0f} minutes were over"
        else:
            self.say(f"measuring {what}")
            try:
                self.rows += measure()
            except Exception as error:
                self.failed[what] = f"{type(error).__name__}: {error}"
                self.say(f"{what} could not be measured: {self.failed[what]}")
                self._mend()
        self.write()

    def _mend(self) -> None:
        try:
            self.mend()
        except Exception as error:
            self.say(f"The environment could not be brought up again: {type(error).__name__}: {error}")

    def write(self) -> None:
        """Write everything so far."""
        document = {"rows": [row.as_json() for row in self.rows], "failed": self.failed}
        self.file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


_VERDICTS = {True: ("met", "green"), False: ("not met", "red")}


def show(console: Console, results: Results) -> None:
    """Print the table, what could not be measured, and last one line with the goals that are met and not met."""
    cells: list[list[Cell]] = []
    for row in results.rows:
        measured, beside = map(str, row.samples)
        goal = Text("none") if row.met is None else Text.assemble(f"{row.goal}: ", _VERDICTS[row.met])
        cells.append([row.what, measured, row.beside, beside, row.unit, f"{row.ratio:.2f}", goal])
    show_table(console, "", ["What", "Measured", "Beside", "Measured", "Unit", "Ratio", "Goal"], cells)
    for what, why in results.failed.items():
        console.print(f"Not measured: {what}: {why}", soft_wrap=True, highlight=False, markup=False)
    console.print(verdict(results), soft_wrap=True, highlight=False, markup=False)


def verdict(results: Results) -> str:
    """Say in one line which goals are met and which are not, and how much was not measured."""
    goals = [row for row in results.rows if row.met is not None]
    missed = ", ".join(f"{row.what} ({row.ratio:.2f}, {row.goal})" for row in goals if not row.met)
    said = f"{sum(row.met is True for row in goals)} of {len(goals)} goals met"
    said += f"; not met: {missed}" if missed else ""
    return said + (f"; not measured: {', '.join(results.failed)}" if results.failed else "")
