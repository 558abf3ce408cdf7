"""Alert and recording rules as code: pure functions from the settings and the parts to a rule file.

Each module has the rules of one part. Expressions are tested by promtool (`tests/render/rule_cases/`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stack.monitoring.rules import (
    alertmanager,
    api,
    backups,
    containers,
    drift,
    host,
    ingress,
    llm,
    postgres,
    probes,
    prometheus,
    redis,
    worker,
)
from stack.monitoring.rules.model import Alert, Group
from stack.settings.environment import Environment
from stack.spec.files import yaml_text
from stack.spec.service import ServiceSpec


def groups(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Group]:
    """Return all rules. parts: every part that runs."""
    application = [module.group(environment, parts) for module in (api, ingress, llm, worker, postgres, redis, backups)]
    waits = {rule.name: rule.wait for group in application for rule in group.rules if isinstance(rule, Alert)}
    others = (module.group(environment, parts) for module in (drift, host, prometheus, alertmanager, probes))
    described = (*application, containers.group(environment, parts, waits), *others)
    return [group for group in described if group.rules]


def alerts(environment: Environment, parts: Sequence[ServiceSpec]) -> Iterator[Alert]:
    """Yield every alert of all groups."""
    for group in groups(environment, parts):
        yield from (rule for rule in group.rules if isinstance(rule, Alert))


def document(environment: Environment, parts: Sequence[ServiceSpec]) -> dict[str, Any]:
    """Return what the rule file says."""
    return {
        "groups": [
            {"name": group.name, "rules": [rule.rule(environment) for rule in group.rules]}
            for group in groups(environment, parts)
        ]
    }


def rules_yml(environment: Environment, parts: Sequence[ServiceSpec]) -> str:
    """Render the rule file."""
    return yaml_text(document(environment, parts))
