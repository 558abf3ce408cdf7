"""For every alert a state of the world in which it fires, and one in which it does not.

Made for an environment, so that a new part needs no line here. A series has a sample a minute, from minute 0 on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from stack.platform import specs
from stack.service import Scrape
from stack.settings import Environment

Series = Mapping[str, str]
"""Series -> its values in promtool's notation: `1+0x10` is eleven times 1, `_x5` five times nothing."""


@dataclass(frozen=True, kw_only=True)
class Fires:
    """One alert that is expected: its labels beside `alertname`, and its annotations."""

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

    def document(self) -> dict[str, Any]:
        """Return the case as a test of promtool."""
        expected = [
            {
                "exp_labels": dict(fires.labels),
                "exp_annotations": {"summary": fires.summary, "description": fires.description},
            }
            for fires in self.fires
        ]
        return {
            "name": f"{self.alert}: {self.title}",
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in self.series.items()],
            "alert_rule_test": [{"eval_time": f"{self.minute}m", "alertname": self.alert, "exp_alerts": expected}],
        }


def rules_test(environment: Environment, rule_file: str) -> str:
    """Render all cases as promtool's test file."""
    tests = [case.document() for case in cases(environment)]
    return yaml.safe_dump({"rule_files": [rule_file], "evaluation_interval": "1m", "tests": tests}, sort_keys=False)


def cases(environment: Environment) -> Iterator[Case]:
    """Yield every case."""
    yield from _targets(environment)
    yield from _containers(environment)
    yield from _services()
    yield from _host()
    yield from _monitoring()


def _targets(environment: Environment) -> Iterator[Case]:
    jobs = [spec.part for spec in specs(environment) if isinstance(spec.scrape, Scrape)]
    up = {f'up{{job="{job}",instance="{job}:1"}}': "1+0x10" for job in jobs}

    def down(job: str, labels: dict[str, str]) -> Fires:
        return Fires(
            labels={"job": job, "service": job, "severity": "critical" if job in ("api", "worker") else "warning"}
            | labels,
            summary=f"{job} cannot be scraped",
            description=f"Prometheus has not got metrics from {job} for two minutes: it is down, or out of reach.",
        )

    yield Case(alert="TargetDown", title="every target is up", series=up, minute=10)
    for job in jobs:
        series = f'up{{job="{job}",instance="{job}:1"}}'
        yield Case(
            alert="TargetDown",
            title=f"{job} is down",
            series=up | {series: "1 0+0x9"},
            minute=4,
            fires=(down(job, {"instance": f"{job}:1"}),),
        )
        yield Case(
            alert="TargetDown",
            title=f"{job} is no target any more",
            series={name: values for name, values in up.items() if name != series},
            minute=4,
            fires=(down(job, {}),),
        )
    yield Case(
        alert="TargetDown",
        title="one scrape was missed",
        series=up | {'up{job="api",instance="api:1"}': "1 0 1+0x8"},
        minute=4,
    )


def _containers(environment: Environment) -> Iterator[Case]:
    prefix = environment.prefix
    parts = [spec.part for spec in specs(environment)]
    # Its value is the time of the sample, in seconds.
    seen = {f'container_last_seen{{name="{prefix}-{part}",id="/{part}"}}': "0+60x20" for part in parts}

    def missing(part: str, labels: dict[str, str]) -> Fires:
        return Fires(
            labels={"name": f"{prefix}-{part}", "service": part, "severity": "critical"} | labels,
            summary=f"container of {part} is missing",
            description=f"cAdvisor does not see {prefix}-{part} on the engine.",
        )

    yield Case(alert="ContainerMissing", title="every container is there", series=seen, minute=20)
    for part in parts:
        series = f'container_last_seen{{name="{prefix}-{part}",id="/{part}"}}'
        yield Case(
            alert="ContainerMissing",
            title=f"{part} was never there",
            series={name: values for name, values in seen.items() if name != series},
            minute=5,
            fires=(missing(part, {}),),
        )
        yield Case(
            alert="ContainerMissing",
            title=f"{part} was last seen at minute 5",
            series=seen | {series: "0+60x5 300+0x15"},
            minute=10,
            fires=(missing(part, {"id": f"/{part}"}),),
        )
    yield Case(
        alert="ContainerMissing",
        title="api was replaced within a minute",
        series=seen | {f'container_last_seen{{name="{prefix}-api",id="/api"}}': "0+60x5 300 420+60x13"},
        minute=9,
    )
    yield Case(
        alert="ContainerMissing",
        title="another environment's api is not there",
        series=seen | {'container_last_seen{name="samokoder-elsewhere-api",id="/other"}': "0+0x20"},
        minute=20,
    )

    unhealthy = f'container_health_state{{name="{prefix}-api"}}'
    yield Case(
        alert="ContainerUnhealthy",
        title="for six minutes",
        series={unhealthy: "1 0+0x19"},
        minute=7,
        fires=(
            Fires(
                labels={"name": f"{prefix}-api", "service": f"{prefix}-api", "severity": "critical"},
                summary=f"{prefix}-api is unhealthy",
                description="Its health check has failed for five minutes.",
            ),
        ),
    )
    yield Case(alert="ContainerUnhealthy", title="for three minutes", series={unhealthy: "1 0 0 0 1+0x15"}, minute=9)
    yield Case(
        alert="ContainerUnhealthy",
        title="in another environment",
        series={'container_health_state{name="samokoder-elsewhere-api"}': "0+0x20"},
        minute=20,
    )

    used, limit = (
        f'{metric}{{name="{prefix}-redis"}}'
        for metric in ("container_memory_working_set_bytes", "container_spec_memory_limit_bytes")
    )
    yield Case(
        alert="ContainerMemoryNearLimit",
        title="95 of 100",
        series={used: "95+0x10", limit: "100+0x10"},
        minute=8,
        fires=(
            Fires(
                labels={"name": f"{prefix}-redis", "service": f"{prefix}-redis", "severity": "warning"},
                summary=f"{prefix}-redis is near its memory limit",
                description="It uses 95% of its limit; at 100 % the kernel kills it.",
            ),
        ),
    )
    yield Case(
        alert="ContainerMemoryNearLimit", title="90 of 100", series={used: "90+0x10", limit: "100+0x10"}, minute=8
    )
    yield Case(alert="ContainerMemoryNearLimit", title="no limit", series={used: "95+0x10", limit: "0+0x10"}, minute=8)


def _services() -> Iterator[Case]:
    for alert, metric, service in (("PostgresDown", "pg_up", "postgres"), ("RedisDown", "redis_up", "redis")):
        series = f'{metric}{{job="{service}-exporter"}}'
        yield Case(
            alert=alert,
            title="for two minutes",
            series={series: "1 0+0x9"},
            minute=4,
            fires=(
                Fires(
                    labels={"job": f"{service}-exporter", "service": service, "severity": "critical"},
                    summary=f"{service} does not answer its exporter",
                    description=f"{metric} has been 0 for a minute: {service} is down or refuses the exporter's login.",
                ),
            ),
        )
        yield Case(alert=alert, title="it answers", series={series: "1+0x10"}, minute=4)


def _host() -> Iterator[Case]:
    def disk(available: int, kind: str = "ext4", readonly: int = 0) -> dict[str, str]:
        labels = f'{{mountpoint="/data",fstype="{kind}",device="/dev/vda1"}}'
        return {
            f"node_filesystem_avail_bytes{labels}": f"{available}+0x30",
            f"node_filesystem_size_bytes{labels}": "100+0x30",
            f"node_filesystem_readonly{labels}": f"{readonly}+0x30",
        }

    yield Case(
        alert="HostDiskAlmostFull",
        title="4 of 100 left",
        series=disk(4),
        minute=20,
        fires=(
            Fires(
                labels={
                    "mountpoint": "/data",
                    "fstype": "ext4",
                    "device": "/dev/vda1",
                    "service": "host",
                    "severity": "critical",
                },
                summary="/data is almost full",
                description="4% is left; a database that cannot write stops.",
            ),
        ),
    )
    yield Case(alert="HostDiskAlmostFull", title="5 of 100 left", series=disk(5), minute=20)
    yield Case(
        alert="HostDiskAlmostFull", title="a read-only disk is always full", series=disk(0, readonly=1), minute=20
    )
    yield Case(alert="HostDiskAlmostFull", title="a tmpfs is no disk", series=disk(0, kind="tmpfs"), minute=20)

    def memory(available: int) -> dict[str, str]:
        return {"node_memory_MemAvailable_bytes": f"{available}+0x30", "node_memory_MemTotal_bytes": "100+0x30"}

    yield Case(
        alert="HostMemoryLow",
        title="9 of 100 left",
        series=memory(9),
        minute=15,
        fires=(
            Fires(
                labels={"service": "host", "severity": "warning"},
                summary="the host is short of memory",
                description="9% of the host's memory is available.",
            ),
        ),
    )
    yield Case(alert="HostMemoryLow", title="10 of 100 left", series=memory(10), minute=15)


def _monitoring() -> Iterator[Case]:
    yield Case(
        alert="Watchdog",
        title="always",
        series={},
        minute=1,
        fires=(
            Fires(
                labels={"service": "prometheus", "severity": "none"},
                summary="the chain of alerts works",
                description="Always firing: when it stops arriving, nothing else would arrive either.",
            ),
        ),
    )
    failures = 'prometheus_rule_evaluation_failures_total{rule_group="x"}'
    yield Case(
        alert="PrometheusRuleFailures",
        title="one a minute",
        series={failures: "0+1x30"},
        minute=25,
        fires=(
            Fires(
                labels={"rule_group": "x", "service": "prometheus", "severity": "critical"},
                summary="rules cannot be evaluated",
                description="5 evaluations failed in five minutes: alerts may be missing.",
            ),
        ),
    )
    yield Case(alert="PrometheusRuleFailures", title="none any more", series={failures: "7+0x30"}, minute=25)
    failed = 'alertmanager_notifications_failed_total{integration="telegram"}'
    yield Case(
        alert="AlertmanagerNotificationsFailing",
        title="one a minute",
        series={failed: "0+1x30"},
        minute=25,
        fires=(
            Fires(
                labels={"integration": "telegram", "service": "alertmanager", "severity": "critical"},
                summary="notifications by telegram fail",
                description="15 notifications were not delivered in fifteen minutes.",
            ),
        ),
    )
    yield Case(alert="AlertmanagerNotificationsFailing", title="all delivered", series={failed: "0+0x30"}, minute=25)
