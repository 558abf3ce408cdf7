"""Worlds with short gaps, in which nothing at all is stored: no alert may begin its wait anew after each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stack.parts.backup import spec as backup
from stack.settings.environment import Environment

INTERVAL = "15s"
OFTEN = ("1x15 _x6", 330)
"""One sample each 15 s and then none for 90 s, again and again; and how many seconds that is."""
HOURLY = ("1x234 _x5", 3600)
"""The same with 75 s of nothing in each hour."""


def tests(environment: Environment) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an alert and promtool's test: it fires although nothing is stored now and then."""
    # The last sample, a rate, and what is missing.
    unhealthy = f'container_health_state{{name="{environment.prefix}-grafana"}}'
    yield "ContainerUnhealthy", _test("ContainerUnhealthy", OFTEN, 30, {unhealthy: "0"})
    failing = 'prometheus_rule_evaluation_failures_total{job="prometheus",rule_group="x"}'
    yield "PrometheusRuleFailures", _test("PrometheusRuleFailures", OFTEN, 60, {failing: "counter"})
    yield "TargetDown", _test("TargetDown", OFTEN, 60, {'up{job="node-exporter"}': "0"}, of=',service="node-exporter"')
    kind = next(iter(backup.kinds(environment)))
    yield "BackupAbsent", _test("BackupAbsent", HOURLY, 150, {}, of=f',kind="{kind}"')


def _test(alert: str, gaps: tuple[str, int], minute: int, series: dict[str, str], of: str = "") -> dict[str, Any]:
    """Return promtool's test. minute: at which it fires. series: their value, and a target is there beside them."""
    pattern, seconds = gaps
    times = minute * 60 // seconds + 1
    firing = f'group by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"{of}}})'
    return {
        "name": f"{alert}: with gaps of a minute and more, each {seconds} s",
        "interval": INTERVAL,
        "input_series": [
            {"series": name, "values": _values(pattern, value, times)}
            for name, value in {'up{job="prometheus"}': "1", **series}.items()
        ],
        "promql_expr_test": [
            {
                "expr": f"count_over_time(({firing})[{minute // 2}m:{INTERVAL}]) > bool 0",
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1}],
            }
        ],
    }


def _values(pattern: str, value: str, times: int) -> str:
    present, missing = pattern.split()
    samples = int(present.removeprefix("1x")) + 1
    return " ".join(
        f"{number * samples}+1x{samples - 1} {missing}" if value == "counter" else f"{value}x{samples - 1} {missing}"
        for number in range(times)
    )
