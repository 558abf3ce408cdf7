"""Dashboards as code: pure functions from the settings to plain data. A module for each; `grafana_json` renders them.

The import of `grafana-foundation-sdk` takes half a second: nothing but Grafana's own files needs this package, and
nothing else may import it at its top.
"""

from __future__ import annotations

from collections.abc import Mapping

from stack.monitoring.dashboards import (
    backups,
    containers,
    golden_signals,
    monitoring,
    overview,
    postgres,
    redis,
)
from stack.monitoring.dashboards.grafana_json import to_text
from stack.settings.environment import Environment

__all__ = ["dashboards"]

_MODULES = (overview, golden_signals, postgres, redis, containers, monitoring, backups)


def dashboards(environment: Environment) -> Mapping[str, str]:
    """Return every dashboard by its uid, as JSON text that is the same for the same settings."""
    return {module.UID: to_text(module.describe(environment)) for module in _MODULES}
