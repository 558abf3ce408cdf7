"""What an alert and a recording rule are, and how they look in Prometheus' rule file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from stack.settings.environment import Environment
from stack.settings.tree import Settings
from stack.settings.types import seconds

STORED_SECONDS = 60
"""For so long, and for three scrapes, Prometheus may store nothing before PrometheusNotIngesting waits its minute."""


def keeps_firing(environment: Environment) -> str:
    """Return how long an alert stays after what it asks for is over or gone: 4 minutes, by default.

    A Prometheus that stores nothing says so after its window and a minute, which keeps back what it makes false: until
    then, and for twice that minute, nobody is told "resolved" of what cannot be seen any more.
    """
    return _duration(_kept_seconds(environment))


def keeps_back(environment: Environment) -> str:
    """Return how long PrometheusNotIngesting stays after it is over: 5 minutes, by default.

    What the silence made false stays for `keeps_firing` after its own target was scraped again, which is three scrapes
    later at most. Were this one gone before, AlertManager would send it.
    """
    return _duration(_kept_seconds(environment) + unseen_seconds(environment))


def _kept_seconds(environment: Environment) -> float:
    factor = environment.settings.alerts.wait_factor
    return unseen_seconds(environment) + 60 * factor + max(30, 120 * factor)


def _duration(amount: float) -> str:
    return f"{amount // 60:.0f}m" if amount % 60 == 0 else f"{round(amount * 1000)}ms"


def unseen_seconds(environment: Environment) -> float:
    """Return for how long nothing may be stored before that is told."""
    return max(STORED_SECONDS, 3 * seconds(environment.settings.prometheus.scrape_interval))


Severity = Literal["critical", "warning", "info", "none"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """One sentence in each language of the messages. Prometheus' templates are allowed: `{{ $value }}`."""

    en: str
    ru: str


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert. Its page is docs/runbooks/<name>.md."""

    name: str
    expression: str
    wait: str
    """Prometheus' `for`; empty: at once."""
    severity: Severity
    service: str
    """The part that a person has to look at. May be a template over the labels."""
    summary: Text
    description: Text
    dashboard: str
    """Uid of the dashboard that shows it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels, where one name has several rules."""
    symptom_of: frozenset[str] = frozenset()
    """Parts that explain it when they are down themselves: then AlertManager keeps it back."""

    keeps: str | None = None
    """How long it stays after what it asks for is over. None: as `keeps_firing` says; empty: not at all."""

    def rule(self, environment: Environment) -> dict[str, Any]:
        """Return the rule as Prometheus reads it, in the language and with the waiting time of the environment."""
        settings = environment.settings
        language, factor = settings.alertmanager.language, settings.alerts.wait_factor
        kept = keeps_firing(environment) if self.keeps is None else self.keeps
        return {
            "alert": self.name,
            "expr": self.expression,
            **({"for": _scaled(self.wait, factor)} if self.wait else {}),
            **({"keep_firing_for": kept} if kept else {}),
            "labels": {"severity": self.severity, "service": self.service, **self.labels},
            "annotations": {
                "summary": getattr(self.summary, language),
                "description": getattr(self.description, language),
                "runbook_url": f"{settings.alerts.runbooks_url}/{self.name}.md",
                # Where no Grafana runs, nothing listens there.
                **({} if "grafana" in environment.absent else {"dashboard_url": self._dashboard_url(settings)}),
            },
        }

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
    """Rules that are evaluated one after the other: those of one part."""

    name: str
    rules: Sequence[Alert | Recording]


def down_alert(part: str) -> str:
    """Name of the alert that says that a part is down: `postgres-exporter` is PostgresExporterDown."""
    return "".join(word.capitalize() for word in part.split("-")) + "Down"


def number(value: float | Decimal) -> str:
    """Return a number as people write it: no exponent, and 0.1 stays 0.1, in the rules and in the texts."""
    return f"{Decimal(str(value)).normalize():f}"


def share(percent: float | Decimal) -> str:
    """Return a percentage as the ratio that an expression has: 5.0 is `0.05`."""
    return number(Decimal(str(percent)) / 100)


def _scaled(wait: str, factor: float) -> str:
    """Return a waiting time times `factor`, unchanged for 1, else in whole milliseconds."""
    return wait if factor == 1 else f"{max(1, round(seconds(wait) * factor * 1000))}ms"
