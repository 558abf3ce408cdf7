"""Panels and their alert thresholds as plain data; `stack/parts/grafana/grafana_json.py` renders them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from stack.monitoring.alerts import Severity

Kind = Literal["graph", "figure", "states", "table"]

COLOURS: Mapping[Severity, str] = {"critical": "red", "warning": "orange", "info": "blue"}
FINE = "green"
UNKNOWN = "#8e8e8e"
"""Grey, for unknown values, which must look neither good nor bad."""
PER_SECOND = "suffix:/s"
"""Unit of events per second that are neither requests nor operations."""
UP: Mapping[int, tuple[str, str]] = {1: ("up", "green"), 0: ("down", "red")}
MEANINGS: Mapping[str, str] = {
    "2xx": "green",
    "3xx": "blue",
    "4xx": "orange",
    "5xx": "red",
    "success": "green",
    "complete": "green",
    "committed": "green",
    "found": "green",
    "sent": "green",
    "submitted": "blue",
    "retried": "orange",
    "rolled back": "orange",
    "judged without Redis": "orange",
    "left out": "orange",
    "not found": "orange",
    "failure": "red",
    "failed": "red",
    "not queued": "red",
    "not taken": "red",
    "refused": "red",
    "dropped": "red",
    "evicted": "red",
    "invalid": "red",
    "critical": "red",
    "warning": "orange",
    "info": "blue",
    # Upper limits of other series.
    "limit": UNKNOWN,
    "limit of blocks": UNKNOWN,
    "maxmemory": UNKNOWN,
}
"""Name of a series -> its colour, so that good is green and bad is red on every dashboard."""

_FIGURE_HEIGHT = 3
_FIGURES_IN_A_LINE = 4
_GRAPH_HEIGHT = 8
_LEGEND_HEIGHT = 10
_FEW_QUERIES = 3
_TABLE_HEIGHT = 10
_BAND = 0.5
"""Height of one band of states, in units of the grid: 19 pixels."""
_AROUND_BANDS = 3
_ROOM_ABOVE = 1.2
_COUNT_UNITS = ("short",)
_SHARE = "percentunit"
_RANKS: Sequence[tuple[int, Severity]] = ((3, "critical"), (2, "warning"), (1, "info"))


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Threshold of an alert, in the unit of the panel that draws it."""

    value: float
    alert: str = ""
    """Name of the alert; empty if the threshold only changes the colour."""
    severity: Severity = "warning"
    below: bool = False
    """Whether the alert fires below the value, not above it."""


@dataclass(frozen=True)
class Query:
    """A PromQL query, and the legend for each series that it returns."""

    expression: str
    legend: str

    @property
    def colour(self) -> str:
        """The colour for the legend's name in `MEANINGS`; empty if it has none."""
        fitting = [name for name in MEANINGS if self.legend == name or self.legend.endswith(f" {name}")]
        return MEANINGS[max(fitting, key=len)] if fitting else ""

    @property
    def many(self) -> bool:
        """Whether it may return more than one series."""
        return "{{" in self.legend


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel, and the alerts that watch what it shows."""

    kind: Kind
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    limits: tuple[Limit, ...] = ()
    watched_by: tuple[str, ...] = ()
    """Further alerts, for which the panel draws no threshold."""
    texts: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Value -> its text and colour."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns of a table: label -> heading; the label `Value` stands for the query's value."""
    absent: str = "no data"
    """Grey text that is shown if the query returns nothing."""
    top: float | None = None
    """Upper end of a graph's axis, as long as no value is above it."""
    stacked: bool = False
    bands: int = 0
    """Expected number of bands in a panel of states."""

    @property
    def alerts(self) -> tuple[str, ...]:
        """The names of its alerts, each once."""
        return tuple(dict.fromkeys([*(limit.alert for limit in self.limits if limit.alert), *self.watched_by]))

    @property
    def crowded(self) -> bool:
        """Whether a graph may have more series than fit into a legend below it."""
        return len(self.queries) > _FEW_QUERIES or any(query.many for query in self.queries)

    @property
    def in_a_line(self) -> int:
        """How many such panels fit into a line, so that titles and legends are readable on a small screen."""
        if self.kind == "figure":
            return _FIGURES_IN_A_LINE
        return 2 if self.kind != "graph" or self.crowded else 3

    @property
    def height(self) -> int:
        """Height in units of Grafana's grid."""
        if self.kind == "figure":
            return _FIGURE_HEIGHT
        if self.kind == "table":
            return _TABLE_HEIGHT
        if self.kind == "states":
            return max(5, _AROUND_BANDS + ceil(self.bands * _BAND))
        return _LEGEND_HEIGHT if self.crowded else _GRAPH_HEIGHT

    @property
    def highest(self) -> float | None:
        """Upper end of the axis while all values are lower, so that zeros are drawn at the bottom; None: automatic."""
        if self.top is not None:
            return self.top
        if self.limits:
            top = max(limit.value for limit in self.limits) * _ROOM_ABOVE
            return min(1.0, top) if self.unit == _SHARE else top
        return 1.0 if self.unit in (_SHARE, *_COUNT_UNITS) else None


def series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Sequence[Limit] = (),
    watched_by: Sequence[str] = (),
    top: float | None = None,
    stacked: bool = False,
    absent: str = "no data",
) -> Panel:
    """Return a graph over time. watched_by: further alerts, without a threshold line. top: upper end of the axis."""
    return Panel(
        kind="graph",
        title=title,
        description=description,
        unit=unit,
        queries=queries,
        limits=tuple(limits),
        watched_by=tuple(watched_by),
        top=top,
        stacked=stacked,
        absent=absent,
    )


def figure(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *,
    limits: Sequence[Limit] = (),
    watched_by: Sequence[str] = (),
    texts: Mapping[int, tuple[str, str]] | None = None,
    absent: str = "no data",
) -> Panel:
    """Return one number, the current value. texts: value -> text and colour. absent: text if there is no value."""
    return Panel(
        kind="figure",
        title=title,
        description=description,
        unit=unit,
        queries=(Query(expression, title),),
        limits=tuple(limits),
        watched_by=tuple(watched_by),
        texts=texts or {},
        absent=absent,
    )


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    texts: Mapping[int, tuple[str, str]],
    *,
    watched_by: Sequence[str] = (),
    bands: int = 0,
    absent: str = "no data",
) -> Panel:
    """Return bands over time, coloured by state, one for each series. bands: their number; 0: one for each query."""
    return Panel(
        kind="states",
        title=title,
        description=description,
        unit="none",
        queries=tuple(queries),
        watched_by=tuple(watched_by),
        texts=texts,
        bands=bands or len(queries),
        absent=absent,
    )


def lines(
    title: str,
    description: str,
    expression: str,
    columns: Mapping[str, str],
    *,
    texts: Mapping[int, tuple[str, str]] | None = None,
    watched_by: Sequence[str] = (),
) -> Panel:
    """Return a table with a line for each series. texts: value -> text that replaces it, and its colour."""
    return Panel(
        kind="table",
        title=title,
        description=description,
        unit="none",
        queries=(Query(expression, ""),),
        watched_by=tuple(watched_by),
        columns=columns,
        texts=texts or {},
    )


def firing(alerts: Sequence[str], watched_by: Sequence[str] = ()) -> Panel:
    """Return the table of the alerts that fire now, the most severe first. alerts: their names; empty for all.

    It has a line even if no alert fires, because an empty table could also mean that Prometheus is down.
    """
    found = (
        f"{rank} * (count by (alertname, service) ({firing_alerts(alerts, severity)}) > bool 0)"
        for rank, severity in _RANKS
    )
    nothing = 'label_replace(vector(0), "alertname", "nothing fires", "", "")'
    return lines(
        "Firing alerts",
        f"What fires now{' of what this dashboard shows' if alerts else ''}, the worst first.",
        f"sort_desc({' or '.join(found)} or on () {nothing})",
        {"Value": "severity", "alertname": "alert", "service": "part"},
        texts={rank: (severity, COLOURS[severity]) for rank, severity in _RANKS} | {0: ("none", FINE)},
        watched_by=watched_by,
    )


def firing_alerts(alerts: Sequence[str], severities: str) -> str:
    """Return the selector of firing alerts. alerts: their names, empty for all. severities: a regular expression."""
    chosen = f',alertname=~"{"|".join(alerts)}"' if alerts else ""
    return f'ALERTS{{alertstate="firing",severity=~"{severities}"{chosen}}}'
