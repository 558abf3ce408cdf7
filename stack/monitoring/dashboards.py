"""Grafana dashboards as code: a pure function from the settings to uid -> JSON.

The first dashboard: whether every part is up and what it uses. `grafana-foundation-sdk` is pinned exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

from stack.settings import Environment

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
OVERVIEW = "samokoder-overview"


def dashboards(environment: Environment) -> Mapping[str, str]:
    """Return every dashboard by its uid, as JSON text that is the same for the same settings."""
    return {OVERVIEW: _text(_overview(environment))}


def _text(builder: dashboard.Dashboard) -> str:
    return (
        json.dumps(
            json.loads(JSONEncoder(sort_keys=True, indent=2).encode(builder.build())),
            indent=2,
            sort_keys=True,
        )
        + "\n"
    )


def _overview(environment: Environment) -> dashboard.Dashboard:
    names = f'name=~"{environment.prefix}-.+"'
    return (
        dashboard.Dashboard(f"Samokoder {environment.name}")
        .uid(OVERVIEW)
        .description("Whether every part is up, and what it uses.")
        .tags(["samokoder", environment.name])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_row(dashboard.Row("State"))
        .with_panel(_targets())
        .with_panel(
            _count(
                "Firing alerts",
                "Alerts that fire now, without the watchdog.",
                'count(ALERTS{alertstate="firing",severity!="none"}) or vector(0)',
            )
        )
        .with_row(dashboard.Row("Requests"))
        .with_panel(
            _series(
                "Requests",
                "Requests to the API by status.",
                "reqps",
                "sum by (status) (rate(http_requests_total[$__rate_interval]))",
                "{{status}}",
            )
        )
        .with_panel(
            _series(
                "Latency, 95th percentile",
                "Duration that 95 of 100 requests stay under.",
                "s",
                "histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[$__rate_interval])))",
                "p95",
            )
        )
        .with_row(dashboard.Row("Containers"))
        .with_panel(
            _series(
                "Memory",
                "Working set of each container; at its limit the kernel kills it.",
                "bytes",
                f"container_memory_working_set_bytes{{{names}}}",
                "{{name}}",
            )
        )
        .with_panel(
            _series(
                "CPU",
                "Cores that each container uses.",
                "none",
                f"sum by (name) (rate(container_cpu_usage_seconds_total{{{names}}}[$__rate_interval]))",
                "{{name}}",
            )
        )
    )


def _query(expression: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend)


def _targets() -> stat.Panel:
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    thresholds = thresholds.steps([Threshold(value=None, color="red"), Threshold(value=1.0, color="green")])
    return (
        stat.Panel()
        .title("Targets")
        .description("1: Prometheus gets metrics from the part.")
        .datasource(SOURCE)
        .unit("none")
        .thresholds(thresholds)
        .with_target(_query("up", "{{job}}"))
    )


def _count(title: str, description: str, expression: str) -> stat.Panel:
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit("none")
        .with_target(_query(expression, title))
    )


def _series(title: str, description: str, unit: str, expression: str, legend: str) -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .with_target(_query(expression, legend))
    )
