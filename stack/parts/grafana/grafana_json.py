"""Render the dashboards as JSON for Grafana. Only this module imports `grafana-foundation-sdk`, pinned exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TableColorTextCellOptions,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DashboardSpecialValueMapOptions,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    GridPos,
    SpecialValueMap,
    SpecialValueMatch,
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

from stack.monitoring.boards import Board, Choice, Mark, Row
from stack.monitoring.panels import COLOURS, FINE, UNKNOWN, Limit, Panel, Query

TAG = "samokoder"
# `$datasource` is a variable of every dashboard; its default is the data source that is provisioned with this uid.
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
PROVISIONED = VariableOption(text="Prometheus", value="prometheus")
ALL = VariableOption(text=["All"], value=["$__all"])
# Grafana treats a threshold with a transparent step as "less than" and draws its line in the colour of the step below.
FINE_IN_A_GRAPH = "transparent"
COLUMNS = 24
LAST = "Last *"
"""Grafana's name for a legend's column of last values, by which the legend is sorted."""

AnyPanel = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel


def to_text(board: Board) -> str:
    """Return a dashboard as JSON text that is the same for the same dashboard."""
    document = json.loads(JSONEncoder().encode(_dashboard(board).build()))
    panels = [each for panel in document["panels"] for each in (panel, *panel.get("panels", ()))]
    # The SDK sets `placement` of links and annotations to a menu, in which Grafana does not show a dropdown.
    links = [link for panel in panels for link in panel.get("links", ())]
    for shown in (*document["links"], *document["annotations"]["list"], *links):
        del shown["placement"]
    for panel in panels:
        if panel["type"] == "state-timeline":
            # 0 means all bands on one page, which the SDK refuses; with any other number Grafana shows a pager.
            panel["options"]["perPage"] = 0
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
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
        .keep_time(board.keeps_time)
        .include_vars(True)
    )
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG, board.environment])
        .readonly()
        .refresh("30s")
        .time(board.since, "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([source, *map(_variable, board.choices)])
        .annotations([_annotation(mark) for mark in board.marks])
        .link(others)
    )
    if board.logs_url:
        made.link(dashboard.DashboardLink("Logs").type(DashboardLinkType.LINK).url(board.logs_url).target_blank(True))
    _lay_out(made, board.rows, board.runbooks_url)
    return made


def _lay_out(made: dashboard.Dashboard, rows: Sequence[Row], runbooks_url: str) -> None:
    """Add all rows and panels with their positions and ids. Links to a panel contain its id.

    All rows but the first are collapsed: Grafana queries and positions their panels only when a person opens the row.
    """
    identity, y = 0, 0
    for number, row in enumerate(rows):
        identity += 1
        heading = dashboard.Row(row.title).id(identity).grid_pos(GridPos(x=0, y=y, w=COLUMNS, h=1))
        y += 1
        inside = y
        made_here: list[AnyPanel] = []
        for line in row.lines:
            height = max(panel.height for panel in line)
            borders = [COLUMNS * index // len(line) for index in range(len(line) + 1)]
            for panel, (left, right) in zip(line, pairwise(borders), strict=True):
                identity += 1
                place = GridPos(x=left, y=inside, w=right - left, h=height)
                builder = _panel(panel)
                builder.id(identity).grid_pos(place).links([_runbook(alert, runbooks_url) for alert in panel.alerts])
                made_here.append(builder)
            inside += height
        if number:
            heading.collapsed(True)
            for builder in made_here:
                heading.with_panel(builder)
        made.with_row(heading)
        if not number:
            for builder in made_here:
                made.with_panel(builder)
            y = inside


def _panel(panel: Panel) -> AnyPanel:
    makers = {"graph": _graph, "figure": _figure, "states": _states, "table": _table}
    builder = makers[panel.kind](panel)
    fine = FINE_IN_A_GRAPH if panel.kind == "graph" else FINE
    builder.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    return builder.thresholds(_thresholds(panel.limits, fine)).no_value(panel.absent)


def _graph(panel: Panel) -> AnyPanel:
    crowded = panel.crowded
    builder = (
        timeseries.Panel()
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
        .axis_soft_min(0)
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 5)
        # A single sample is drawn as a point: without points the first minutes of a series would be invisible.
        .show_points(VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.RIGHT if crowded else LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull"] if crowded else ["lastNotNull", "max"])
            .sort_by(LAST)
            .sort_desc(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .targets(_over_time(panel.queries))
    )
    if panel.highest is not None:
        builder.axis_soft_max(panel.highest)
    if panel.stacked:
        builder.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if panel.limits:
        # Lines and not areas: with areas, a healthy stack's graph would be orange above the threshold.
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        if query.colour:
            colour = DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": query.colour})
            builder.override_by_query(letter, [colour])
    return builder


def _figure(panel: Panel) -> AnyPanel:
    (query,) = panel.queries
    return (
        stat.Panel()
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
        .with_target(_target("A", query).instant())
        .mappings([*_mappings(panel.texts), _nothing(panel.absent)])
    )


def _states(panel: Panel) -> AnyPanel:
    return (
        statetimeline.Panel()
        # Not by thresholds: Grafana would then take colours from the thresholds and ignore the values' texts.
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.FIXED).fixed_color(UNKNOWN))
        .mappings(_mappings(panel.texts))
        .show_value(VisibilityMode.NEVER)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .targets(_over_time(panel.queries))
    )


def _table(panel: Panel) -> AnyPanel:
    (query,) = panel.queries
    order = DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {name: True for name in ("Time", "Value") if name not in panel.columns},
            "indexByName": {name: index for index, name in enumerate(panel.columns)},
            "renameByName": dict(panel.columns),
        },
    )
    target = _target("A", query).instant().format(PromQueryFormat.TABLE)
    builder = table.Panel().with_target(target).with_transformation(order).mappings(_mappings(panel.texts))
    if panel.texts:
        coloured = DynamicConfigValue(id_val="custom.cellOptions", value=TableColorTextCellOptions())
        builder.override_by_field_type("number", [coloured])
    return builder


def _variable(choice: Choice) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(choice.name)
        .label(choice.label)
        .description(choice.description)
        .datasource(SOURCE)
        .query({"query": choice.question, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .definition(choice.question)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # A pattern and not a list of values, so that "All" includes values that appear after the page was loaded.
        .all_value(".+")
        .current(ALL)
    )


def _annotation(mark: Mark) -> dashboard.AnnotationQuery:
    builder = (
        dashboard.AnnotationQuery()
        .name(mark.name)
        .datasource(SOURCE)
        .enable(mark.shown)
        .icon_color(mark.colour)
        .target(prometheus.Dataquery().expr(mark.expression).ref_id("Anno").datasource(SOURCE))
        .title_format(mark.title)
        .text_format(mark.text)
        .tag_keys(mark.tags)
    )
    return builder.use_value_for_time(True) if mark.value_is_time else builder


def _thresholds(limits: Sequence[Limit], fine: str) -> dashboard.ThresholdsConfig:
    """Return steps of colour from the lowest value up."""
    ordered = sorted(limits, key=lambda limit: limit.value)
    colours = [COLOURS[limit.severity] for limit in ordered]
    # The colour of a step applies to the values above it.
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
    return [ValueMap(options=results)] if results else []


def _nothing(text: str) -> SpecialValueMap:
    """Return the grey text for no value: without this mapping Grafana would show it in the colour of a good value."""
    result = ValueMappingResult(text=text, color=UNKNOWN)
    return SpecialValueMap(options=DashboardSpecialValueMapOptions(match=SpecialValueMatch.NULL_AND_NAN, result=result))


def _over_time(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [
        _target(letter, query).range() for letter, query in zip(ascii_uppercase[: len(queries)], queries, strict=True)
    ]


def _target(letter: str, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query.expression).legend_format(query.legend)


def _runbook(alert: str, runbooks_url: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Runbook: {alert}")
        .type(DashboardLinkType.LINK)
        .url(f"{runbooks_url}/{alert}.md")
        .target_blank(True)
    )
