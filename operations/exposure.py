"""Which alerts are mute where an image does not expose a metric of the contract."""

from __future__ import annotations

from collections.abc import Iterable

from operations.metrics_document import uses
from stack.app.metrics_contract import METRICS
from stack.settings import Environment


def not_exposed(environment: Environment, missing: Iterable[str]) -> str:
    """Say it in one sentence. missing: names of metrics of the contract."""
    names = sorted(missing)
    used = uses(environment, [metric for metric in METRICS if metric.name in names])
    mute = sorted({alert for each in used.values() for alert in each.alerts})
    return f"not exposed: {', '.join(names)}; mute without them: {', '.join(mute) or 'no alert'}"
