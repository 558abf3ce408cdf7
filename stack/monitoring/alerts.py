"""Alerts and recording rules as plain values, and their form in Prometheus' rule file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal

from stack.monitoring import log_links
from stack.settings.environment import Environment
from stack.settings.tree import Settings
from stack.settings.types import seconds

STORED_SECONDS = 60
"""Seconds without a stored sample, but at least three scrapes, after which PrometheusNotIngesting starts its `for`."""
GATE_SECONDS = 600
"""Seconds of silence that no alert needs to forget its `for`: more samples would be read at each evaluation."""
STORES = frozenset({"postgres", "redis"})
"""Parts whose outage is seen in what others do."""


class Outlasts(IntEnum):
    """What an alert keeps back, where it keeps anything back. For each step it stays three scrapes longer.

    What it keeps back may be seen to end so much later. Were the cause over first, AlertManager would send the symptom.
    """

    NOTHING = 0
    PROBES = 1
    """ProbeFailed, and others that keep nothing back."""
    DEPENDENTS = 2
    """IngressNoReplica, and ContainerUnhealthy of the parts that need this one."""
    UNHEALTHY = 3
    """Every ContainerUnhealthy."""
    MISSING = 4
    """ContainerMissing."""
    EVERYTHING = 5


def keeps_firing(environment: Environment, outlasts: Outlasts = Outlasts.NOTHING) -> str:
    """Return how long an alert stays after what it asks for is over or gone: 4 minutes and a minute a step, by default.

    A Prometheus that stores nothing says so after its window and a minute, which keeps back what it makes false: until
    then, and for twice that minute, nobody is told "resolved" of what cannot be seen any more.
    """
    factor, unseen = environment.settings.alerts.wait_factor, unseen_seconds(environment)
    amount = unseen + 60 * factor + max(30, 120 * factor) + outlasts * unseen
    return f"{amount // 60:.0f}m" if amount % 60 == 0 else f"{round(amount * 1000)}ms"


def unseen_seconds(environment: Environment) -> float:
    """Return the seconds without a stored sample after which PrometheusNotIngesting starts its `for`."""
    return max(STORED_SECONDS, 3 * seconds(environment.settings.prometheus.scrape_interval))


def nothing_stored(environment: Environment, least: float = 0) -> str:
    """Return the expression that has a value while no target's sample is stored, as where the disk is full.

    least: seconds that it looks back at least; never less than `unseen_seconds`.
    """
    return f"absent_over_time(up[{number(max(unseen_seconds(environment), least))}s])"


Severity = Literal["critical", "warning", "info", "none"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """One sentence in both languages of the messages; Prometheus' templates such as `{{ $value }}` are allowed."""

    en: str
    ru: str


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert. Its runbook is docs/runbooks/<name>.md."""

    name: str
    expression: str
    wait: str
    """Prometheus' `for`; empty: at once."""
    severity: Severity
    service: str
    """The part to investigate; may be a template that uses labels."""
    summary: Text
    description: Text
    dashboard: str
    """Uid of the dashboard that shows it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels, which tell several rules with the same name apart."""
    symptom_of: frozenset[str] = frozenset()
    """Parts whose failure causes this alert: AlertManager inhibits it while one of them is down."""

    outlasts: Outlasts | None = Outlasts.NOTHING
    """What it keeps back, and so how long it stays after what it asks for is over. None: it ends at once."""
    absence: bool = False
    """Missing samples alone can make it true, so it does not begin while nothing at all is stored."""

    def rule(self, environment: Environment) -> dict[str, Any]:
        """Return the rule as Prometheus reads it, in the language and with the waiting time of the environment."""
        settings = environment.settings
        language, factor = settings.alertmanager.language, settings.alerts.wait_factor
        kept = "" if self.outlasts is None else keeps_firing(environment, self.outlasts)
        lines = log_links.of_service(environment, self.service)
        return {
            "alert": self.name,
            "expr": self._seen(environment),
            **({"for": _scaled(self.wait, factor)} if self.wait else {}),
            **({"keep_firing_for": kept} if kept else {}),
            "labels": {"severity": self.severity, "service": self.service, **self.labels},
            "annotations": {
                "summary": getattr(self.summary, language),
                "description": getattr(self.description, language),
                "runbook_url": f"{settings.alerts.runbooks_url}/{self.name}.md",
                # Without Grafana the link would lead nowhere.
                **({} if "grafana" in environment.absent else {"dashboard_url": self._dashboard_url(settings)}),
                **({"logs_url": lines} if lines else {}),
            },
        }

    def _seen(self, environment: Environment) -> str:
        if not self.absence:
            return self.expression
        # What began to fire by the silence alone would go on for minutes after it (keep_firing_for), and `for` does not
        # begin again meanwhile: the first scrape that is missed would be told. Half of `for` is too short to fire in,
        # and a shorter gap does not make `for` begin anew.
        half = seconds(self.wait) * environment.settings.alerts.wait_factor / 2
        return f"({self.expression}) unless on () {nothing_stored(environment, min(GATE_SECONDS, half))}"

    def _dashboard_url(self, settings: Settings) -> str:
        return f"{settings.grafana.address}/d/{self.dashboard}"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A series that is computed once for several rules and panels."""

    name: str
    expression: str

    def rule(self, environment: Environment) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The rules of one part; Prometheus evaluates the rules of a group one after the other."""

    name: str
    rules: Sequence[Alert | Recording]


def down_alert(part: str) -> str:
    """Return the name of the alert that a part is down: PostgresExporterDown for `postgres-exporter`."""
    return "".join(word.capitalize() for word in part.split("-")) + "Down"


def store_down(environment: Environment, metric: str, exporter: str, *, answered: str, managed: bool) -> str:
    """Return the expression for a store that does not answer its exporter. metric: the exporter's own verdict, 0 or 1.

    An exporter that answers without this metric must not look like a healthy server. One that a silent server holds up
    for longer than a scrape may take gives no metric at all (redis_exporter waits 10 s for TLS, whatever it is told);
    its own page still answers, so it is not the exporter that is down.
    answered: as for `unless_refused`. managed: such a server has no check of its own.
    """
    job, limit = f'job="{exporter}"', number(seconds(environment.settings.prometheus.scrape_timeout))
    down = f"{metric} == 0 or absent({metric}{{{job}}}) and on (job) up{{{job}}} == 1"
    if managed:
        down += (
            f" or up{{{job}}} == 0 and scrape_duration_seconds{{{job}}} >= {limit} "
            f'unless on () probe_success{{service="{exporter}"}} == 0'
        )
    return f"({down}){unless_refused(metric, answered)}"


ALONE_FOR, ANSWERED_WITHIN = "5m", "4m"
"""Windows of `unless_refused`. The second is the shorter one: what was answered before an outage proves nothing."""


def unless_refused(metric: str, answered: str) -> str:
    """Return the rest of an expression: a store that answers the application is not down, but refuses its exporter.

    It keeps the application's own alerts back, so it must not last. That the store's own check passes proves nothing:
    it does so in a server that is cut off, or has no connection left. metric: as for `store_down`. answered: an
    expression that has a value where the store has answered the application within ANSWERED_WITHIN.
    """
    return f" unless on () ({answered} and on () max(max_over_time({metric}[{ALONE_FOR}])) == 0)"


def unless_down(stores: Collection[str], window: str) -> str:
    """Return the rest of an expression: the errors of an outage stay in a window for longer than the outage's alert."""
    down = f'ALERTS{{alertname=~"{"|".join(down_alert(part) for part in sorted(stores))}",alertstate="firing"}}'
    return f" unless on () max_over_time({down}[{window}])"


NEW_FOR = "15m"
"""So long a first `make up` may take after Prometheus has started, with slow pulls and builds."""
# Two jobs, so that one that is lost from the configuration does not make every environment a new one.
NEW = f'absent_over_time(up{{job=~"cadvisor|prometheus"}}[6h] offset {NEW_FOR})'
"""Has a value while the environment is new: NEW_FOR after Prometheus' first sample, or its first after six hours."""


def unless_new(seen: str) -> str:
    """Return the rest of an expression: it waits for a part that has never been there, while the environment is new.

    seen: an expression that has a value where the part was there within NEW_FOR.
    """
    return f" unless on () ({NEW} unless on () {seen})"


def unless_new_job(job: str) -> str:
    """Return the same for the targets of a job."""
    return unless_new(f'max_over_time(up{{job="{job}"}}[{NEW_FOR}]) == 1')


def number(value: float | Decimal) -> str:
    """Return a number for rules and texts, without an exponent and without rounding errors: 0.1 stays 0.1."""
    return f"{Decimal(str(value)).normalize():f}"


def share(percent: float | Decimal) -> str:
    """Return a percentage as a ratio for an expression: 5.0 is `0.05`."""
    return number(Decimal(str(percent)) / 100)


def _scaled(wait: str, factor: float) -> str:
    """Return a waiting time times `factor`, unchanged for 1, else in whole milliseconds."""
    return wait if factor == 1 else f"{max(1, round(seconds(wait) * factor * 1000))}ms"
