"""For every alert a state of the world in which it fires, and one in which it does not.

Made for an environment, so that a new part needs no line here. A module for each group of rules, of which
`stack/parts/<part>/rules.py` has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import yaml

from stack.catalogue import rule_groups
from stack.monitoring.alerts import Alert
from stack.settings.environment import Environment
from tests.described import specs
from tests.render.rule_cases import (
    alertmanager,
    api,
    backups,
    containers,
    drift,
    gaps,
    healthy,
    host,
    ingress,
    llm,
    logs,
    postgres,
    probes,
    prometheus,
    redis,
    worker,
)
from tests.render.rule_cases.model import Case

__all__ = ["Case", "asked_elsewhere", "cases", "rules_tests"]

APPLICATION = (api, ingress, llm, worker, postgres, redis, backups)
MODULES = (*APPLICATION, containers, drift, host, prometheus, alertmanager, probes, logs)


def cases(environment: Environment) -> Iterator[Case]:
    """Yield every case of the alerts that this environment has."""
    names = {alert.name for _, alert in _alerts(environment)}
    for module in MODULES:
        yield from (case for case in module.cases(environment) if case.alert in names)


def rules_tests(environment: Environment, rules_yml: str) -> dict[str, str]:
    """Return promtool's test files, `test-….yml`, and the files of rules that they name.

    One for each alert and interval: promtool evaluates every rule of a file for every minute of a case.
    """
    dashboards = {alert.name: alert.dashboard for _, alert in _alerts(environment)}
    files = {"rules.yml": rules_yml}
    for group in yaml.safe_load(rules_yml)["groups"]:
        for name in {rule["alert"] for rule in group["rules"] if "alert" in rule}:
            alone = {"groups": [{**group, "rules": _needed(group, name)}]}
            files[f"{name}.yml"] = _text(alone)
    tests: dict[tuple[str, str], list[dict[str, Any]]] = {
        ("rules", "1m"): [each(environment) for each in (healthy.document, healthy.gone, healthy.back, healthy.down)]
    }
    tests["rules", "1m"].append(api.while_exporters_are_refused())
    for alert, document in gaps.tests(environment):
        tests.setdefault((alert, gaps.INTERVAL), []).append(document)
    for case in cases(environment):
        tests.setdefault((case.alert, case.interval), []).append(case.document(environment, dashboards[case.alert]))
    for (rules, interval), documents in tests.items():
        asked = _asked_at_once(documents)
        document = {"rule_files": [f"{rules}.yml"], "evaluation_interval": interval, "tests": asked}
        files[f"test-{rules}-{interval}.yml"] = _text(document)
    return files


def _text(document: dict[str, Any]) -> str:
    """Return it as YAML, a text in one line: where it is broken depends on how long a name is."""
    return yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=100_000)


def _needed(group: dict[str, Any], alert: str) -> list[dict[str, Any]]:
    """Return the group's rules of an alert, after what they ask for that the group records itself."""
    rules = [rule for rule in group["rules"] if rule.get("alert") == alert]
    recordings = [rule for rule in group["rules"] if "record" in rule]
    while more := [
        each for each in recordings if each not in rules and any(each["record"] in rule["expr"] for rule in rules)
    ]:
        rules += more
    return [rule for rule in group["rules"] if rule in rules]


def _asked_at_once(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests, those of equal series as one: promtool evaluates their minutes once for all questions."""
    worlds: dict[str, dict[str, Any]] = {}
    for each in documents:
        world = worlds.setdefault(str((each["interval"], each["input_series"])), {})
        name = "; ".join(filter(None, (world.get("name"), each["name"])))
        asked = {
            kind: [*world.get(kind, ()), *each[kind]]
            for kind in ("alert_rule_test", "promql_expr_test")
            if kind in each
        }
        world.update(each | asked | {"name": name})
    return list(worlds.values())


def asked_elsewhere(
    own: tuple[Environment, Mapping[str, str]], other: tuple[Environment, Mapping[str, str]]
) -> set[str]:
    """Return the test files of an environment which another one has too, with rules that are equal too.

    Names and addresses may differ: to promtool they are text, and an alert and its case have the same.
    """
    mine, theirs = _with_their_rules(*own), _with_their_rules(*other)
    return {name for name, text in mine.items() if theirs.get(name) == text}


def _with_their_rules(environment: Environment, files: Mapping[str, str]) -> dict[str, str]:
    """Return each test file with the rules that it names, without what another environment calls otherwise."""
    settings = environment.settings
    called = {
        settings.alerts.runbooks_url: "<runbooks>",
        settings.grafana.address: "<grafana>",
        settings.logs.address: "<logs>",
        f"{environment.prefix}-": "<prefix>",
        quote(f'environment="{environment.name}"'): "<environment>",
    }
    found = {}
    for name in (name for name in files if name.startswith("test-")):
        rules = name.removeprefix("test-").rpartition("-")[0]
        text = files[name] + files[f"{rules}.yml"]
        for word, instead in called.items():
            text = text.replace(word, instead)
        found[name] = text
    return found


def _alerts(environment: Environment) -> Iterator[tuple[str, Alert]]:
    """Yield every alert with its group's name."""
    for group in rule_groups(environment, specs(environment)):
        yield from ((group.name, rule) for rule in group.rules if isinstance(rule, Alert))
