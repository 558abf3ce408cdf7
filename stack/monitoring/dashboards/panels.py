"""What the dashboards are made of: panels, the lines at which alerts fire, and their places on the grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    FieldColorModeId,
    GridPos,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from stack.monitoring.dashboards.promql import names_of
from stack.monitoring.rules.model import Severity
from stack.settings import Environment

TAG = "samokoder"
# `$datasource` is a variable of every dashboard; what is provisioned under this uid is its default.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
PROVISIONED = VariableOption(text="Prometheus", value="prometheus")
ALL = VariableOption(text=["All"], value=["$__all"])
COLUMNS = 24
FIGURE_HEIGHT = 4
HEIGHT = 8
COLOURS: Mapping[Severity, str] = {"critical": "red", "warning": "orange", "info": "blue"}
# Grafana takes what is below a transparent step for a "less than" and draws the line in the colour beneath it.
FINE_IN_A_GRAPH = "transparent"
FINE = "green"
UP: Mapping[int, tuple[str, str]] = {1: ("up", "green"), 0: ("down", "red")}

AnyPanel = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel


@dataclass(frozen=True, kw_only=True)
class Limit:
    """From where on an alert fires, in the unit of the panel that draws it."""

    value: float
    alert: str = ""
    """Empty: a colour that no alert stands for."""
    severity: Severity = "warning"
    below: bool = False
    """The alert fires below, not above."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel, and the alerts that watch what it shows."""

    builder: AnyPanel
    height: int
    alerts: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """One question, and how each of its answers is called."""

    expression: str
    legend: str


class Row:
    """A heading and lines of panels below it; the panels of one line share its width."""

    def __init__(self, title: str, *lines: Sequence[Panel]) -> None:
        self.title = title
        self.lines = lines


def series(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    limits: Sequence[Limit] = (),
    watched_by: Sequence[str] = (),
    top: float | None = None,
    stacked: bool = False,
) -> Panel:
    """Return a graph over time. watched_by: further alerts, without a line. top: upper end of the axis."""
    builder = (
        timeseries.Panel()
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .axis_soft_min(0)
        .line_width(1)
        .fill_opacity(30 if stacked else 5)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .targets(_over_time(queries))
    )
    if top is not None:
        builder.axis_soft_max(top)
    if stacked:
        builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if limits:
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED_AND_AREA))
    return _panel(builder, title, description, unit, limits, watched_by, FINE_IN_A_GRAPH, HEIGHT)


def figure(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *,
    limits: Sequence[Limit] = (),
    watched_by: Sequence[str] = (),
    texts: Mapping[int, tuple[str, str]] | None = None,
    absent: str = "",
) -> Panel:
    """Return one figure: how it is now. texts: value -> text and colour. absent: said where there is none."""
    builder = (
        stat.Panel()
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .with_target(_target("A", Query(expression, title)).instant())
    )
    if texts:
        builder.mappings(_mappings(texts))
    if absent:
        builder.no_value(absent)
    return _panel(builder, title, description, unit, limits, watched_by, FINE, FIGURE_HEIGHT)


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    texts: Mapping[int, tuple[str, str]],
    *,
    watched_by: Sequence[str] = (),
) -> Panel:
    """Return a band over time for each answer, in the colour of its state. texts: value -> text and colour."""
    builder = (
        statetimeline.Panel()
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .mappings(_mappings(texts))
        .show_value(VisibilityMode.NEVER)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .targets(_over_time(queries))
    )
    return _panel(builder, title, description, "none", (), watched_by, FINE, HEIGHT)


def lines(
    title: str, description: str, expression: str, columns: Mapping[str, str], *, watched_by: Sequence[str] = ()
) -> Panel:
    """Return a table with a line for each answer. columns: label -> heading; `Value` is the answer itself."""
    order = DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {name: True for name in ("Time", "Value") if name not in columns},
            "indexByName": {name: index for index, name in enumerate(columns)},
            "renameByName": dict(columns),
        },
    )
    target = _target("A", Query(expression, "")).instant().format(PromQueryFormat.TABLE)
    builder = table.Panel().with_target(target).with_transformation(order)
    return _panel(builder, title, description, "none", (), watched_by, FINE, HEIGHT)


def choice(name: str, label: str, description: str, question: str) -> dashboard.QueryVariable:
    """Return a variable with the answers to `question`, several at once or all of them: use it as `=~"$name"`.

    Links to other dashboards take the chosen values along: one name means the same everywhere.
    """
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": question, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(question)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Not the list of all answers: what appears after the page was loaded belongs to all of them too.
        .all_value(".+")
        .current(ALL)
    )


def board(
    environment: Environment,
    *,
    uid: str,
    title: str,
    description: str,
    rows: Sequence[Row],
    choices: Sequence[dashboard.QueryVariable] = (),
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """Return a dashboard with what all of them have: the datasource, links to the others, annotations."""
    source = (
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that is asked.")
        .type("prometheus")
        .regex("")
        .current(PROVISIONED)
    )
    others = (
        dashboard.DashboardLink("Samokoder")
        .type(DashboardLinkType.DASHBOARDS)
        .tooltip("The other dashboards")
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    made = (
        dashboard.Dashboard(f"{title} ({environment.name})")
        .uid(uid)
        .description(description)
        .tags([TAG, environment.name])
        .readonly()
        .refresh("30s")
        .time(since, "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([source, *choices])
        .annotations(_annotations(environment))
        .link(others)
    )
    _lay_out(made, rows, environment.settings.alerts.runbooks_url)
    return made


def to_text(builder: dashboard.Dashboard) -> str:
    """Return a dashboard as JSON text that is the same for the same dashboard."""
    document = json.loads(JSONEncoder().encode(builder.build()))
    # The SDK can put links and annotations nowhere but into a menu, in which Grafana does not show a dropdown at all.
    links = [link for panel in document["panels"] for link in panel.get("links", ())]
    for shown in (*document["links"], *document["annotations"]["list"], *links):
        del shown["placement"]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _annotations(environment: Environment) -> list[Builder[models.AnnotationQuery]]:
    """What happened: alerts that fired, and new containers of the application.

    A deployment is seen by the start of a container: the series' value is that moment, which Grafana takes for the
    time of the mark, so that it is exact and there in every range. `changes()` would miss those that come with a new
    container, and so a new series; `samokoder_build_info` says which version runs and not since when, and is the same
    before and after a deployment of another configuration.
    """
    application = names_of(environment, "api", "worker", "frontend")
    return [
        _annotation("Firing alerts", 'ALERTS{alertstate="firing",severity=~"critical|warning"}', "red")
        .title_format("{{alertname}}")
        .text_format("{{severity}}, {{service}}")
        .tag_keys("alertname,severity,service"),
        _annotation(
            "Deployments", f"1000 * max by (name, image) (container_start_time_seconds{{{application}}})", "blue"
        )
        .title_format("{{name}} started")
        .text_format("{{image}}")
        .tag_keys("name")
        .use_value_for_time(True),
    ]


def _annotation(name: str, expression: str, colour: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .target(prometheus.Dataquery().expr(expression).ref_id("Anno").datasource(SOURCE))
    )


def _panel(
    builder: AnyPanel,
    title: str,
    description: str,
    unit: str,
    limits: Sequence[Limit],
    watched_by: Sequence[str],
    fine: str,
    height: int,
) -> Panel:
    builder.title(title).description(description).datasource(SOURCE).unit(unit).thresholds(_thresholds(limits, fine))
    alerts = dict.fromkeys([*(limit.alert for limit in limits if limit.alert), *watched_by])
    return Panel(builder=builder, height=height, alerts=tuple(alerts))


def _thresholds(limits: Sequence[Limit], fine: str) -> dashboard.ThresholdsConfig:
    """Return steps of colour from the lowest value up."""
    ordered = sorted(limits, key=lambda limit: limit.value)
    colours = [COLOURS[limit.severity] for limit in ordered]
    # A step has the colour of what is above it.
    colours = [*colours, fine] if ordered and ordered[0].below else [fine, *colours]
    steps = [
        Threshold(value=value, color=colour)
        for value, colour in zip([None, *(each.value for each in ordered)], colours, strict=True)
    ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(texts: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    results = {
        str(value): ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(texts.items())
    }
    return [ValueMap(options=results)]


def _over_time(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [
        _target(letter, query).range() for letter, query in zip(ascii_uppercase[: len(queries)], queries, strict=True)
    ]


def _target(letter: str, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expression).legend_format(query.legend)


def _lay_out(made: dashboard.Dashboard, rows: Sequence[Row], runbooks_url: str) -> None:
    """Put every panel where it belongs and give it its number. Links to panels are by these numbers."""
    identity, y = 0, 0
    for row in rows:
        identity += 1
        made.with_row(dashboard.Row(row.title).id(identity).grid_pos(GridPos(x=0, y=y, w=COLUMNS, h=1)))
        y += 1
        for line in row.lines:
            height = max(panel.height for panel in line)
            borders = [COLUMNS * index // len(line) for index in range(len(line) + 1)]
            for panel, (left, right) in zip(line, pairwise(borders), strict=True):
                identity += 1
                panel.builder.id(identity).grid_pos(GridPos(x=left, y=y, w=right - left, h=height))
                panel.builder.links([_runbook(alert, runbooks_url) for alert in panel.alerts])
                made.with_panel(panel.builder)
            y += height


def _runbook(alert: str, runbooks_url: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {alert}")
        .type(DashboardLinkType.LINK)
        .url(f"{runbooks_url}/{alert}.md")
        .target_blank(True)
    )
