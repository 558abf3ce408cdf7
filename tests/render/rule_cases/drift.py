"""The alerts of `samokoder drift`."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, pair, stays

FINDINGS = 'stack_drift_findings{job="node-exporter"}'
CHECKED = 'stack_drift_checked_timestamp_seconds{job="node-exporter"}'
INFO = {"service": "stack", "severity": "info"}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from pair(
        "StackDrifted",
        titles=("three differences", "none"),
        fires={FINDINGS: stays(3)},
        silent={FINDINGS: stays(0)},
        minute=10,
        labels={"service": "stack", "severity": "warning"},
        summary="what runs is not what is declared",
        description="Differences that the last comparison found: 3.",
    )
    stale = Fires(
        labels=INFO,
        summary="nobody compares what runs with what is declared",
        description="For two days no comparison has come to its end; it is meant to be made every day.",
    )
    for title, minute, fires in (
        ("the last one is over two days old", 49 * 60, (stale,)),
        ("the last one is not two days old", 47 * 60, ()),
    ):
        series = {CHECKED: stays(0, 50)}
        yield Case(alert="DriftNotCompared", title=title, series=series, minute=minute, fires=fires, interval="1h")
    # Each comparison comes some hours late.
    late = {CHECKED: "0+0x29 108000+0x29"}
    yield Case(
        alert="DriftNotCompared", title="compared each day, but late", series=late, minute=58 * 60, interval="1h"
    )
    never = {"up": stays(1, 60)}
    yield Case(
        alert="DriftNotCompared", title="nobody ever has", series=never, minute=26 * 60, fires=(stale,), interval="1h"
    )
    yield Case(alert="DriftNotCompared", title="a stack of yesterday", series=never, minute=23 * 60, interval="1h")
