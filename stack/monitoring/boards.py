"""Dashboards as plain data: rows of panels, choices, marks. A renderer makes of them what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from stack.monitoring.panels import Panel, Query, firing, firing_alerts
from stack.monitoring.promql import names_of
from stack.settings.environment import Environment


class Row:
    """A heading and lines of panels below it."""

    def __init__(self, title: str, *lines: Sequence[Panel]) -> None:
        self.title = title
        self.lines = [part for line in lines for part in _broken(line)]

    @property
    def panels(self) -> list[Panel]:
        """Its panels in their order."""
        return [panel for line in self.lines for panel in line]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A variable with the answers to a question, several at once or all of them: use it as `=~"$name"`.

    Links to other dashboards take the chosen values along: one name means the same everywhere.
    """

    name: str
    label: str
    description: str
    question: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is marked in every graph of a dashboard."""

    name: str
    expression: str
    colour: str
    title: str
    text: str
    tags: str
    shown: bool
    """Whether it is shown before a person asks for it."""
    value_is_time: bool = False


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard: the first row is a summary that fits on a screen, all others are collapsed."""

    uid: str
    title: str
    description: str
    environment: str
    runbooks_url: str
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...]
    marks: tuple[Mark, ...]
    since: str
    keeps_time: bool
    """Whether the range of time that is looked at goes with a person to the other dashboards, and comes from them."""


def replicas(environment: Environment) -> int:
    """Return how many containers the environment has: one of each part, and each replica of the API."""
    return sum(len(environment.parts_of(name)) for name in environment.running())


def choice(name: str, label: str, description: str, question: str) -> Choice:
    """Return a variable."""
    return Choice(name=name, label=label, description=description, question=question)


def board(
    environment: Environment,
    *,
    uid: str,
    title: str,
    description: str,
    figures: Sequence[Panel],
    beside: Panel | None,
    rows: Sequence[Row] = (),
    choices: Sequence[Choice] = (),
    since: str = "now-3h",
    keeps_time: bool = True,
    everything: bool = False,
) -> Board:
    """Return a dashboard.

    figures, beside: the summary; what fires now is shown next to the one graph or state that says the most, or to
    nothing. everything: of all alerts, not only of those that its panels name.
    """
    shown = [*figures, *([beside] if beside else []), *(panel for row in rows for panel in row.panels)]
    alerts = [] if everything else sorted({alert for panel in shown for alert in panel.alerts})
    fires = firing(alerts, ["Watchdog"] if everything else ()) if everything or alerts else None
    summary = Row("Now", figures, [each for each in (fires, beside) if each])
    return Board(
        uid=uid,
        title=f"{title} ({environment.name})",
        description=description,
        environment=environment.name,
        runbooks_url=environment.settings.alerts.runbooks_url,
        rows=tuple(_with_notes(row, choices) for row in (summary, *rows)),
        choices=tuple(choices),
        marks=_marks(environment, alerts),
        since=since,
        keeps_time=keeps_time,
    )


def _broken(line: Sequence[Panel]) -> list[Sequence[Panel]]:
    """Break a line of panels that have no room beside each other into lines of about the same length."""
    if not line:
        return []
    count = ceil(len(line) / min(panel.in_a_line for panel in line))
    borders = [len(line) * index // count for index in range(count + 1)]
    return [line[begin:end] for begin, end in pairwise(borders)]


def _with_notes(row: Row, choices: Sequence[Choice]) -> Row:
    """Let a panel say that a choice does not reach it, where the choice reaches others of its row."""
    reached = [
        each for each in choices if any(_reaches(each, query) for panel in row.panels for query in panel.queries)
    ]
    noted = Row(row.title)
    noted.lines = [[_noted(panel, reached) for panel in line] for line in row.lines]
    return noted


def _noted(panel: Panel, choices: Sequence[Choice]) -> Panel:
    if panel.kind == "table":
        return panel
    notes = (
        f" The choice of {each.label} does not change {'all of it' if any(found) else 'it'}."
        for each in choices
        if not all(found := [_reaches(each, query) for query in panel.queries])
    )
    return replace(panel, description=panel.description + "".join(notes))


def _reaches(choice: Choice, query: Query) -> bool:
    return f'"${choice.name}"' in query.expression


def _marks(environment: Environment, alerts: Sequence[str]) -> tuple[Mark, ...]:
    """What happened: alerts that fired, and new containers of the application.

    A deployment is seen by the start of a container: the series' value is that moment, which is taken for the time of
    the mark, so that it is exact and there in every range. `changes()` would miss those that come with a new
    container, and so a new series; `samokoder_build_info` says which version runs and not since when, and is the same
    before and after a deployment of another configuration.
    """
    application = names_of(environment, "api", "worker", "frontend")
    return (
        Mark(
            name="Firing alerts",
            expression=firing_alerts(alerts, "critical|warning"),
            colour="red",
            title="{{alertname}}",
            text="{{severity}}, {{service}}",
            tags="alertname,severity,service",
            # Each paints its whole time red, and several hide the lines: in an incident, when they are needed.
            shown=False,
        ),
        Mark(
            name="Deployments",
            expression=f"1000 * max by (name, image) (container_start_time_seconds{{{application}}})",
            colour="blue",
            title="{{name}} started",
            text="{{image}}",
            tags="name",
            shown=True,
            value_is_time=True,
        ),
    )
