"""Rules and dashboards against the metrics of a running stack that people use.

Among the last files: by then the users of the fixture `traffic` have been there for some of the five minutes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from operations.checks.smoke import needed_series
from operations.workspace.workspace import Workspace
from stack import series
from stack.catalogue import rule_groups, specs
from stack.monitoring.alerts import Recording
from stack.settings.environment import Environment
from tests.live.conftest import prometheus, url
from tests.live.test_the_stack import until
from tests.live.traffic import Traffic
from tests.render.test_dashboards import questions

FIVE_MINUTES = 300.0
# The machine that runs the tests is busy with them: what is slow, or said of the host, is no fault of the stack.
OF_SPEED = re.compile(r"Host.*|.*Slow.*|.*Latency.*|ContainerCpuThrottled|ApiRequestsPilingUp")

pytestmark = pytest.mark.usefixtures("traffic")


def names_in(node: Any) -> Iterator[str]:
    """Every metric's name in a query, from Prometheus' own tree of it."""
    if isinstance(node, dict):
        if node.get("type") in {"vectorSelector", "matrixSelector"} and node.get("name"):
            yield str(node["name"])
        for inner in node.values():
            yield from names_in(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from names_in(inner)


def exposed(environment: Environment) -> set[str]:
    """Names of all metrics that Prometheus has."""
    return set(prometheus(environment, "label/__name__/values"))


def why_not_here(environment: Environment, name: str) -> str:
    """Why a metric is rightly missing, as the smoke test has it; empty where it is not."""
    excused = needed_series.may_be_missing(environment, specs(environment))
    return next((why for pattern, why in excused.items() if re.fullmatch(pattern, name)), "")


def shows(environment: Environment, expression: str) -> bool:
    """Whether a panel over the last five minutes, which have been used, would draw anything."""
    now = time.time()
    span = {"start": str(now - FIVE_MINUTES), "end": str(now), "step": "15"}
    return bool(prometheus(environment, "query_range", query=expression, **span)["result"])


def asked_for(environment: Environment, expression: str) -> set[str]:
    """Metrics of an expression, those rightly missing left out."""
    names = set(names_in(prometheus(environment, "parse_query", query=expression)))
    assert names == series.named(expression), "the smoke test asks for other series than Prometheus reads"
    return {name for name in names if not why_not_here(environment, name)}


def test_every_metric_that_a_rule_names_is_exposed(environment: Environment, traffic: Traffic) -> None:
    parts = specs(environment)
    every = [rule for group in rule_groups(environment, parts) for rule in group.rules]
    recorded = {rule.name for rule in every if isinstance(rule, Recording)}
    needed = {rule.name: asked_for(environment, rule.expression) - recorded for rule in every}

    def wrong() -> list[str]:
        there = exposed(environment)
        return [f"{rule}: {name}" for rule, names in needed.items() for name in names - there]

    found = until(wrong, lambda names: not names, FIVE_MINUTES - traffic.seconds)
    assert not found, "an alert on a metric that nothing exposes never fires"


def test_five_minutes_of_use_pass_with_every_rule_evaluated(
    stack: Workspace, environment: Environment, traffic: Traffic
) -> None:
    while traffic.seconds < FIVE_MINUTES:
        time.sleep(1)
    failures = prometheus(environment, "query", query="sum(increase(prometheus_rule_evaluation_failures_total[5m]))")
    assert [sample["value"][1] for sample in failures["result"]] == ["0"], "a rule that fails is an alert that is mute"
    groups = prometheus(environment, "rules")["groups"]
    states = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert set(states.values()) == {"ok"}, states
    targets = prometheus(environment, "targets", state="active")["activeTargets"]
    assert {target["health"] for target in targets} == {"up"}, [t["labels"] for t in targets if t["health"] != "up"]
    wrong = {status for status in traffic.answers if status == 0 or status >= httpx.codes.INTERNAL_SERVER_ERROR}
    assert not wrong, f"what users got meanwhile: {traffic.answers}"
    alerts = {
        alert["labels"]["alertname"]
        for alert in prometheus(environment, "alerts")["alerts"]
        if alert["state"] == "firing" and alert["labels"]["severity"] in {"critical", "warning"}
    }
    assert not {name for name in alerts if not OF_SPEED.fullmatch(name)}, "an alert that cries in a healthy stack"


def test_every_question_of_every_dashboard_is_answered(
    environment: Environment, traffic: Traffic, record_property: Callable[[str, object], None]
) -> None:
    left = list(questions(environment))
    unanswered: list[tuple[str, str, str, str]] = []

    def without_a_reason() -> list[tuple[str, str, str, str]]:
        nonlocal left, unanswered
        left = [each for each in left if not shows(environment, each[2])]
        there, unanswered = exposed(environment), []
        for uid, panel, expression in left:
            names = set(names_in(prometheus(environment, "parse_query", query=expression)))
            assert names == series.named(expression), "the smoke test asks for other series than Prometheus reads"
            reasons = sorted({why_not_here(environment, name) for name in names if name not in there})
            unanswered.append((uid, panel, "; ".join(reason for reason in reasons if reason), expression))
        return [each for each in unanswered if not each[2]]

    until(without_a_reason, lambda found: not found, FIVE_MINUTES - traffic.seconds)
    table = "\n".join(f"  {uid:28} {panel:40} {reason or '?'}" for uid, panel, reason, _ in unanswered)
    record_property("panels without data, and why that is right", table)
    wrong = [f"{uid} / {panel}: {expression}" for uid, panel, reason, expression in unanswered if not reason]
    assert not wrong, "a panel that shows nothing and nobody knows why"


def test_the_series_of_an_idle_stack_stay_within_their_budget(environment: Environment) -> None:
    (sample,) = prometheus(environment, "query", query="prometheus_tsdb_head_series")["result"]
    assert float(sample["value"][1]) < environment.settings.alerts.prometheus_series


def test_prometheus_and_alertmanager_link_to_the_addresses_of_their_settings(environment: Environment) -> None:
    flags = prometheus(environment, "status/flags")
    assert flags["web.external-url"] == f"{url(environment, 'prometheus').replace('127.0.0.1', 'localhost')}/"
