"""Every alert of an environment."""

from __future__ import annotations

from collections.abc import Sequence

from stack.catalogue import rule_groups
from stack.monitoring.alerts import Alert
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec


def every_alert(environment: Environment, parts: Sequence[ServiceSpec]) -> list[Alert]:
    """Return the alerts of all groups. parts: every part that runs."""
    return [rule for group in rule_groups(environment, parts) for rule in group.rules if isinstance(rule, Alert)]
