"""The tables of docs/metrics.md: the contract, with the alerts and dashboards that use each metric.

The expressions of alerts and dashboards say which metrics they use, directly or through recording rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stack.catalogue import dashboard_texts, rule_groups, specs
from stack.monitoring.alerts import Alert, Recording
from stack.monitoring.metrics import Job, Metric
from stack.parts.api.metrics import METRICS
from stack.parts.backup.metrics import BACKUP_METRICS
from stack.settings.environment import Environment
from stack.settings.reading import read_environment

_HEADINGS = {
    (Job.API,): "The API: every replica",
    (Job.API, Job.WORKER): "The API and the worker, each of its own",
    (Job.WORKER,): "The worker",
    (Job.LLM,): "Whoever calls the LLM",
}


@dataclass(frozen=True)
class Uses:
    """Names of alerts and uids of dashboards, in their order."""

    alerts: list[str] = field(default_factory=list)
    dashboards: list[str] = field(default_factory=list)


def uses(environment: Environment, metrics: Sequence[Metric]) -> dict[str, Uses]:
    """Return what uses each metric, by the metric's name."""
    every = [rule for group in rule_groups(environment, specs(environment)) for rule in group.rules]
    recordings = [rule for rule in every if isinstance(rule, Recording)]
    shown = {uid: [*_questions(json.loads(text))] for uid, text in dashboard_texts(environment).items()}
    found = {}
    for metric in metrics:
        series = _with_recordings(metric, recordings)
        named = [rule.name for rule in every if isinstance(rule, Alert) and _asks(rule.expression, metric, series)]
        panels = [uid for uid, asked in shown.items() if any(_asks(each, metric, series) for each in asked)]
        found[metric.name] = Uses(list(dict.fromkeys(named)), panels)
    return found


def _with_recordings(metric: Metric, recordings: Sequence[Recording]) -> set[str]:
    """Return the recorded series that are made from a metric, directly or through other recorded series."""
    made: set[str] = set()
    while new := {r.name for r in recordings if r.name not in made and _asks(r.expression, metric, made)}:
        made |= new
    return made


def _asks(expression: str, metric: Metric, recorded: set[str]) -> bool:
    return metric.is_in(expression) or any(name in expression for name in recorded)


def _questions(node: Any) -> Iterator[str]:
    """Yield every PromQL expression of a dashboard, those of its variables and annotations too."""
    if isinstance(node, Mapping):
        yield from (text for key, text in node.items() if key in ("expr", "query", "definition") and type(text) is str)
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _questions(each)


def contract_tables() -> str:
    """Render the contract: a table for each set of jobs that expose a part of it."""
    used = uses(read_environment("staging", {}), METRICS)
    tables = [
        f"### {heading}\n\n{_table([metric for metric in METRICS if metric.jobs == jobs], used)}"
        for jobs, heading in _HEADINGS.items()
    ]
    return "\n".join(tables)


def backup_table() -> str:
    """Render the fixed names of the backups."""
    return _table(BACKUP_METRICS, uses(read_environment("staging", {}), BACKUP_METRICS))


def _table(metrics: Sequence[Metric], used: Mapping[str, Uses]) -> str:
    lines = ["| Metric | Type | Unit | Labels | Meaning | Required | Alerts | Dashboards |", f"{'|---' * 8}|"]
    for metric in metrics:
        buckets = f" Buckets: {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
        alerts = ", ".join(f"[{name}](runbooks/{name}.md)" for name in used[metric.name].alerts)
        cells = [
            f"`{metric.name}`",
            metric.type,
            metric.unit,
            ", ".join(f"`{label}`" for label in metric.labels) or "none",
            metric.meaning + buckets,
            "yes" if metric.required else "no",
            alerts or "none",
            ", ".join(f"`{uid}`" for uid in used[metric.name].dashboards) or "none",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
