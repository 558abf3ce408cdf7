"""Prometheus itself and what it scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stack.monitoring.rules.model import Alert, Group, Text
from stack.service import ServiceSpec
from stack.settings import Environment

DASHBOARD = "samokoder-monitoring"
# They have an alert of their own, which counts replicas.
OWN_ALERT = {"api", "worker"}


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    return Group(name="prometheus", rules=[_watchdog(), *_targets(parts)])


def _watchdog() -> Alert:
    return Alert(
        name="Watchdog",
        expression="vector(1)",
        wait="",
        severity="none",
        service="prometheus",
        summary=Text(en="the chain of alerts works", ru="цепочка оповещений работает"),
        description=Text(
            en="Always firing: when it stops arriving, nothing else would arrive either.",
            ru="Срабатывает всегда: если перестанет приходить, не придёт и ничего другого.",
        ),
        dashboard=DASHBOARD,
    )


def _targets(parts: Sequence[ServiceSpec]) -> Iterator[Alert]:
    for job in sorted({part.job for part in parts if part.job} - OWN_ALERT):
        yield Alert(
            name="TargetDown",
            # absent: a job that vanished from the configuration has no `up` that could be 0.
            expression=f'up{{job="{job}"}} == 0 or absent(up{{job="{job}"}})',
            wait="5m",
            severity="warning",
            service=job,
            summary=Text(en=f"{job} cannot be scraped", ru=f"{job}: метрики не собираются"),
            description=Text(
                en=f"Prometheus has not got metrics from {job} for five minutes: it is down, or out of reach.",
                ru=f"Prometheus пять минут не получает метрик от {job}: он не работает или недоступен.",
            ),
            dashboard=DASHBOARD,
        )
