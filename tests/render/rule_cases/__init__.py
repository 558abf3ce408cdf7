"""For every alert a state of the world in which it fires, and one in which it does not.

Made for an environment, so that a new part needs no line here. A module for each group of rules, of which
`stack/parts/<part>/rules.py` has one.
"""

from __future__ import annotations

from collections.abc import Iterator

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

__all__ = ["Case", "cases", "rules_tests"]

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
            # What the group records may be what this alert asks for.
            needed = [rule for rule in group["rules"] if rule.get("alert", name) == name]
            files[f"{name}.yml"] = yaml.safe_dump({"groups": [{**group, "rules": needed}]}, sort_keys=False)
    tests: dict[tuple[str, str], list[object]] = {
        ("rules", "1m"): [each(environment) for each in (healthy.document, healthy.gone, healthy.back, healthy.down)]
    }
    tests["rules", "1m"].append(api.while_exporters_are_refused())
    for case in cases(environment):
        tests.setdefault((case.alert, case.interval), []).append(case.document(environment, dashboards[case.alert]))
    for (rules, interval), documents in tests.items():
        document = {"rule_files": [f"{rules}.yml"], "evaluation_interval": interval, "tests": documents}
        files[f"test-{rules}-{interval}.yml"] = yaml.safe_dump(document, sort_keys=False)
    return files


def _alerts(environment: Environment) -> Iterator[tuple[str, Alert]]:
    """Yield every alert with its group's name."""
    for group in rule_groups(environment, specs(environment)):
        yield from ((group.name, rule) for rule in group.rules if isinstance(rule, Alert))
