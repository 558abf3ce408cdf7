"""Alerts on `samokoder drift`, which runs on a schedule outside the stack and writes two metrics for node-exporter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Text
from stack.parts.node_exporter.spec import DRIFT_CHECKED, DRIFT_FINDINGS
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="stack", dashboard="samokoder-containers")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    return Group(
        name="drift",
        rules=[
            alert(
                name="StackDrifted",
                expression=f"max({DRIFT_FINDINGS}) > 0",
                wait="",
                severity="warning",
                summary=Text(en="what runs is not what is declared", ru="работает не то, что объявлено"),
                description=Text(
                    en='Differences that the last comparison found: {{ printf "%.0f" $value }}.',
                    ru='Отличий при последнем сравнении: {{ printf "%.0f" $value }}.',
                ),
            ),
            alert(
                name="DriftNotCompared",
                # Also if it never ran, or not since node-exporter was replaced, whose tmpfs holds the metrics.
                expression=f"time() - max({DRIFT_CHECKED}) > 86400 or absent({DRIFT_CHECKED})",
                wait="1d",
                severity="info",
                absence=True,
                summary=Text(
                    en="nobody compares what runs with what is declared",
                    ru="никто не сравнивает работающее с объявленным",
                ),
                description=Text(
                    en="For two days no comparison has come to its end; it is meant to be made every day.",
                    ru="Двое суток ни одно сравнение не дошло до конца; оно рассчитано на каждый день.",
                ),
            ),
        ],
    )
