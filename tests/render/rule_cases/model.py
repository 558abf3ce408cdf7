"""What a case is. A series has a sample an interval, from minute 0 on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stack.monitoring import log_links
from stack.settings.environment import Environment
from stack.settings.types import seconds

Series = dict[str, str]
"""Series -> its values in promtool's notation: `1+0x10` is eleven times 1, `_x5` five times nothing."""


@dataclass(frozen=True, kw_only=True)
class Fires:
    """One alert that is expected: its labels beside `alertname`, and its annotations beside the addresses."""

    labels: Mapping[str, str]
    summary: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured, and which alerts of one name fire at a minute. No `fires`: none of this name."""

    alert: str
    title: str
    series: Series
    minute: int
    fires: tuple[Fires, ...] = field(default=())
    interval: str = "1m"
    """Between two samples, and between two evaluations of the rules: longer where a case needs days."""

    @property
    def stored(self) -> Series:
        """What is measured, and a target that is there: while none is, no alert on what is missing begins."""
        if any(series.startswith("up{") for series in self.series):
            return self.series
        samples = round(self.minute * 60 / seconds(self.interval))
        return self.series | {'up{job="other",instance="other:1"}': f"1+0x{samples}"}

    def document(self, environment: Environment, dashboard: str) -> dict[str, Any]:
        """Return the case as a test of promtool."""
        settings = environment.settings
        addresses = {
            "runbook_url": f"{settings.alerts.runbooks_url}/{self.alert}.md",
            "dashboard_url": f"{settings.grafana.address}/d/{dashboard}",
        }
        expected = []
        for fires in self.fires:
            lines = log_links.of_service(environment, fires.labels["service"])
            said = {"summary": fires.summary, "description": fires.description, **addresses}
            expected.append(
                {"exp_labels": dict(fires.labels), "exp_annotations": said | ({"logs_url": lines} if lines else {})}
            )
        return {
            "name": f"{self.alert}: {self.title}",
            "interval": self.interval,
            "input_series": [{"series": series, "values": values} for series, values in self.stored.items()],
            "alert_rule_test": [{"eval_time": f"{self.minute}m", "alertname": self.alert, "exp_alerts": expected}],
        }


def pair(
    alert: str,
    *,
    fires: Series,
    silent: Series,
    minute: int,
    labels: Mapping[str, str],
    summary: str,
    description: str,
    titles: tuple[str, str] = ("beyond the threshold", "within it"),
) -> Iterator[Case]:
    """Yield the two cases that every alert has at least. labels: beside `alertname`."""
    expected = Fires(labels=labels, summary=summary, description=description)
    yield Case(alert=alert, title=titles[0], series=fires, minute=minute, fires=(expected,))
    yield Case(alert=alert, title=titles[1], series=silent, minute=minute)


HISTORY = {'up{job="prometheus",instance="prometheus:9090"}': "1+0x60"}
"""Prometheus was there from the beginning on: an environment is new for so long after it."""


def container(environment: Environment, part: str, *, health: str = "1+0x60", seen: str = "0+60x60") -> Series:
    """Return what cAdvisor says of a part's container: it is well, and seen each minute."""
    of = f'{{name="{environment.prefix}-{part}",id="/1"}}'
    return {f"container_health_state{of}": health, f"container_last_seen{of}": seen}


def grows(by: float, minutes: int = 60) -> str:
    """Return a counter that grows by so much a minute."""
    return f"0+{by:g}x{minutes}"


def stays(value: float, minutes: int = 60) -> str:
    """Return a value that does not change."""
    return f"{value:g}+0x{minutes}"
