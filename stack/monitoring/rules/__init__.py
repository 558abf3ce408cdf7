"""Alert rules as code: a pure function from the settings and the parts to a rule file.

The first set: what must be known when anything at all is to be trusted. Expressions are tested by promtool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from stack.settings import Environment


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert. `wait` is Prometheus' `for`; `service` is the part that a person has to look at."""

    name: str
    expression: str
    wait: str
    severity: str
    service: str
    summary: str
    description: str

    def rule(self) -> dict[str, object]:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": self.wait} if self.wait else {}),
            "labels": {"severity": self.severity, "service": self.service},
            "annotations": {"summary": self.summary, "description": self.description},
        }


FILESYSTEMS = 'fstype!~"tmpfs|overlay|squashfs|fuse.*"'


def rules_yml(environment: Environment, parts: Sequence[str], jobs: Sequence[str]) -> str:
    """Render the rule file. parts: every part that runs; jobs: those that are scraped."""
    groups = {
        "targets": list(_targets(jobs)),
        "containers": list(_containers(environment, parts)),
        "services": list(_services()),
        "host": list(_host()),
        "monitoring": list(_monitoring()),
    }
    document = {
        "groups": [{"name": name, "rules": [alert.rule() for alert in alerts]} for name, alerts in groups.items()]
    }
    return yaml.safe_dump(document, sort_keys=False, width=120)


def _targets(jobs: Sequence[str]) -> Iterator[Alert]:
    for job in sorted(jobs):
        yield Alert(
            name="TargetDown",
            # absent: a job that vanished from the configuration has no `up` that could be 0.
            expression=f'up{{job="{job}"}} == 0 or absent(up{{job="{job}"}})',
            wait="2m",
            severity="critical" if job in ("api", "worker") else "warning",
            service=job,
            summary=f"{job} cannot be scraped",
            description=f"Prometheus has not got metrics from {job} for two minutes: it is down, or out of reach.",
        )


def _containers(environment: Environment, parts: Sequence[str]) -> Iterator[Alert]:
    for part in sorted(parts):
        selector = f'container_last_seen{{name="{environment.prefix}-{part}"}}'
        yield Alert(
            name="ContainerMissing",
            expression=f"absent({selector}) or (time() - {selector}) > 60",
            wait="2m",
            severity="critical",
            service=part,
            summary=f"container of {part} is missing",
            description=f"cAdvisor does not see {environment.prefix}-{part} on the engine.",
        )
    yield Alert(
        name="ContainerUnhealthy",
        expression=f'container_health_state{{name=~"{environment.prefix}-.+"}} == 0',
        wait="5m",
        severity="critical",
        service="{{ $labels.name }}",
        summary="{{ $labels.name }} is unhealthy",
        description="Its health check has failed for five minutes.",
    )
    yield Alert(
        name="ContainerMemoryNearLimit",
        expression=f'container_memory_working_set_bytes{{name=~"{environment.prefix}-.+"}} '
        f'/ (container_spec_memory_limit_bytes{{name=~"{environment.prefix}-.+"}} > 0) > 0.9',
        wait="5m",
        severity="warning",
        service="{{ $labels.name }}",
        summary="{{ $labels.name }} is near its memory limit",
        description="It uses {{ $value | humanizePercentage }} of its limit; at 100 % the kernel kills it.",
    )


def _services() -> Iterator[Alert]:
    for name, metric, service in (("PostgresDown", "pg_up", "postgres"), ("RedisDown", "redis_up", "redis")):
        yield Alert(
            name=name,
            expression=f"{metric} == 0",
            wait="1m",
            severity="critical",
            service=service,
            summary=f"{service} does not answer its exporter",
            description=f"{metric} has been 0 for a minute: {service} is down or refuses the exporter's login.",
        )


def _host() -> Iterator[Alert]:
    yield Alert(
        name="HostDiskAlmostFull",
        expression=f"node_filesystem_avail_bytes{{{FILESYSTEMS}}} / node_filesystem_size_bytes{{{FILESYSTEMS}}} < 0.05 "
        f"and node_filesystem_readonly{{{FILESYSTEMS}}} == 0",
        wait="15m",
        severity="critical",
        service="host",
        summary="{{ $labels.mountpoint }} is almost full",
        description="{{ $value | humanizePercentage }} is left; a database that cannot write stops.",
    )
    yield Alert(
        name="HostMemoryLow",
        expression="node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes < 0.1",
        wait="10m",
        severity="warning",
        service="host",
        summary="the host is short of memory",
        description="{{ $value | humanizePercentage }} of the host's memory is available.",
    )


def _monitoring() -> Iterator[Alert]:
    yield Alert(
        name="Watchdog",
        expression="vector(1)",
        wait="",
        severity="none",
        service="prometheus",
        summary="the chain of alerts works",
        description="Always firing: when it stops arriving, nothing else would arrive either.",
    )
    yield Alert(
        name="PrometheusRuleFailures",
        expression="increase(prometheus_rule_evaluation_failures_total[5m]) > 0",
        wait="15m",
        severity="critical",
        service="prometheus",
        summary="rules cannot be evaluated",
        description="{{ $value | humanize }} evaluations failed in five minutes: alerts may be missing.",
    )
    yield Alert(
        name="AlertmanagerNotificationsFailing",
        expression="increase(alertmanager_notifications_failed_total[15m]) > 0",
        wait="5m",
        severity="critical",
        service="alertmanager",
        summary="notifications by {{ $labels.integration }} fail",
        description="{{ $value | humanize }} notifications were not delivered in fifteen minutes.",
    )
