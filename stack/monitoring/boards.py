"""Dashboards as plain data: rows of panels, choices, marks. `stack/parts/grafana/grafana_json.py` renders them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

from stack.monitoring import log_links
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
        """All panels of the row, in order."""
        return [panel for line in self.lines for panel in line]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A variable whose values a query returns; a person selects one, several or all. Use it as `=~"$name"`.

    Links pass the selected values to other dashboards, so a name must mean the same on every dashboard.
    """

    name: str
    label: str
    description: str
    question: str


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Events that every graph of a dashboard marks (in Grafana: an annotation)."""

    name: str
    expression: str
    colour: str
    title: str
    text: str
    tags: str
    shown: bool
    """Whether it is switched on when the dashboard is opened."""
    value_is_time: bool = False


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard: the first row is a summary that fits on a screen, all other rows are collapsed."""

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
    """Whether this dashboard's links pass the selected time range on to other dashboards."""
    logs_url: str
    """Where the lines of its parts are, up to the end of the selected time; empty: nowhere."""


def replicas(environment: Environment) -> int:
    """Return the number of the environment's containers: one for each part, and one for each replica of the API."""
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
    parts: Sequence[str] = (),
) -> Board:
    """Return a dashboard.

    figures: the numbers of the summary. beside: the most important panel, shown next to the table of firing alerts;
    None for no such panel. everything: the table and the marks show all alerts, not only those that the panels name.
    parts: those whose logs it links to; none: all.
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
        logs_url=log_links.of_parts(environment, parts, end="${__to:date:iso}", length=since.removeprefix("now-")),
    )


def _broken(line: Sequence[Panel]) -> list[Sequence[Panel]]:
    """Split a line that has too many panels into lines of about the same length."""
    if not line:
        return []
    count = ceil(len(line) / min(panel.in_a_line for panel in line))
    borders = [len(line) * index // count for index in range(count + 1)]
    return [line[begin:end] for begin, end in pairwise(borders)]


def _with_notes(row: Row, choices: Sequence[Choice]) -> Row:
    """Note in a panel's description that a choice does not affect it, if the choice affects other panels of its row."""
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
    """Return the marks: alerts that fired, and deployments, which are starts of the application's containers.

    The value of `container_start_time_seconds` is the time of the mark, so a mark is exact and present in every time
    range. `changes()` would miss a new container, because that is a new series. `samokoder_build_info` has the version
    but not its start, and does not change if a deployment changes only the configuration.
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
            # Off at first: each mark colours the whole time of its alert, and several hide the graphs in an incident.
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
