"""What begins because nothing at all is stored: promtool finds it without the gate, and it is what has the gate."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from stack.catalogue import rule_groups
from stack.monitoring.alerts import Alert
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import yaml_text
from tests.described import specs
from tests.recording import case_environment
from tests.render.conftest import Laboratory, output
from tests.render.rule_cases import cases, healthy, rules_tests
from tests.render.test_prometheus import ALWAYS, STORES_NOTHING, WORLDS, known, rules_text
from tests.render.test_series_gone import LOOKS_BACK, cut

SILENT = 30
"""Minutes without a sample: longer than the windows that rules look back over."""
BY_TIME = {"ProbeFailed", "TlsCertificateExpiresVerySoon"}
"""In a case these begin as time passes, with samples or without: a page is not new any more, a certificate ends."""
UNTOUCHED = "|".join(sorted({*ALWAYS, STORES_NOTHING}))


def ungated(environment: Environment) -> str:
    """Return the rules without the gate, as YAML."""
    groups = [
        {
            "name": group.name,
            "rules": [
                (replace(rule, absence=False) if isinstance(rule, Alert) else rule).rule(environment)
                for rule in group.rules
            ],
        }
        for group in rule_groups(environment, specs(environment))
    ]
    return yaml_text({"groups": groups})


def begun(laboratory: Laboratory, image: str, described: Environment, rules: str, state: str) -> set[str]:
    """Return the alerts that promtool sees in a state when nothing is stored any more, and not before.

    rules: as YAML. state: a regular expression of `alertstate`.
    """
    well = healthy.document(described)["input_series"]
    everything = {each["series"]: each["values"] for each in [*well, healthy.BEAT]}
    tests: dict[tuple[str, str], list[object]] = {("rules", "1m"): [silence("1m", everything, 30, state)]}
    for case in cases(described):
        if not case.fires and seconds(case.interval) <= LOOKS_BACK * 60:
            asked = silence(case.interval, case.stored, case.minute, state)
            tests.setdefault((case.alert, case.interval), []).append(asked)
    files = {f"/test/{name}": text for name, text in rules_tests(described, rules).items() if "test-" not in name}
    named = {}
    for (alert, interval), documents in tests.items():
        document = {"rule_files": [f"{alert}.yml"], "evaluation_interval": interval, "tests": documents}
        named[f"/test/silent-{alert}-{interval}.yml"] = yaml.safe_dump(document, sort_keys=False)
    shell = laboratory.shell(image, files | named)
    _, said = output(shell, "promtool", "test", "rules", *named)
    assert said.count("SUCCESS") + said.count("FAILED") == len(named), said
    return set(re.findall(r'alertname="(\w+)"', " ".join(re.findall(r"got:(.*)", said)))) - BY_TIME


def silence(interval: str, series: dict[str, str], minute: int, state: str) -> dict[str, Any]:
    """Return promtool's test: no alert is in that state after the last samples that was not so with them."""
    seen = f'ALERTS{{alertname!~"{UNTOUCHED}",alertstate=~"{state}"}}'
    begun = f"group by (alertname) (last_over_time({seen}[{SILENT}m])) unless on (alertname) {seen} offset {SILENT}m"
    return {
        "interval": interval,
        "input_series": [
            {"series": each, "values": cut(values, round(minute * 60 / seconds(interval)) + 1)}
            for each, values in series.items()
        ],
        "promql_expr_test": [{"expr": begun, "eval_time": f"{minute + SILENT}m", "exp_samples": []}],
    }


@pytest.mark.live
@pytest.mark.long
@pytest.mark.parametrize("world", WORLDS)
def test_what_begins_by_silence_alone_is_what_has_the_gate_and_with_it_nothing_fires(
    laboratory: Laboratory, environment: Environment, world: str
) -> None:
    described, image = case_environment(world), environment.image("prometheus")
    without = begun(laboratory, image, described, ungated(described), ".*")
    assert without == {alert.name for alert in known(described) if alert.absence}, "the field `absence` says otherwise"
    # Others may have been pending before, and fire by their last samples.
    assert not without & begun(laboratory, image, described, rules_text(world), "firing")
