"""What `test_adding_a_part.py` asks in a copy of the repository that has the part of docs/adding-a-part.md.

Its name keeps it away from the other tests: here, there is no such part.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import yaml

from offline.images.recipes import RECIPES
from operations.audit import licences
from operations.audit.exceptions import exceptions
from operations.audit.facts import declared
from operations.audit.gate import judge
from operations.audit.rules import Seen
from operations.checks.smoke import needed_series, smoke
from operations.checks.smoke.asked import StackAsked
from stack import series
from stack.catalogue import rule_document, specs
from stack.images import IMAGES
from tests.recording import case_environment, record_case

PART = "pushgateway"
CASES = ("staging", "prod")


def test_its_container_is_hardened_without_an_exception_of_its_own() -> None:
    everybodys = [each for each in exceptions() if each.part == "*"]
    for case in CASES:
        facts = declared(record_case(case).containers()[PART].inputs, {})
        assert not judge([Seen(facts=facts)], everybodys, datetime.now(UTC).date()).findings
        assert (facts.read_only, facts.capabilities_dropped, facts.ports) == (True, ("ALL",), {})
        assert set(facts.networks) == {f"samokoder-{case}-monitoring"}


def test_the_hardening_gate_lists_it() -> None:
    seen = [Seen(facts=declared(each.inputs, {})) for each in record_case("staging").containers().values()]
    judged = judge(seen, exceptions(), datetime.now(UTC).date())
    assert not judged.findings
    assert PART in {each.part for each in judged.listed}


def test_prometheus_gets_its_job_its_rule_and_the_alerts_that_every_part_has() -> None:
    for case in CASES:
        files = {spec.part: spec.files for spec in specs(case_environment(case))}["prometheus"]
        (job,) = [job for job in scrape_configs(files["prometheus.yml"]) if job["job_name"] == PART]
        assert job["static_configs"][0]["targets"] == ["pushgateway:9091"]
        environment = case_environment(case)
        rules = [rule for group in rule_document(environment, specs(environment))["groups"] for rule in group["rules"]]
        own = {rule["alert"] for rule in rules if rule.get("labels", {}).get("service") == PART}
        assert {"PushRefused", "TargetDown", "ContainerMissing"} <= own
        assert any("PushRefused" in str(text) for name, text in files.items() if name.startswith("rules/"))


def scrape_configs(text: object) -> list[dict[str, Any]]:
    assert isinstance(text, str), "it has no secret"
    return list(yaml.safe_load(text)["scrape_configs"])


def test_grafana_gets_its_dashboard() -> None:
    files = {spec.part: spec.files for spec in specs(case_environment("staging"))}["grafana"]
    assert "push_time_seconds" in str(files["dashboards/samokoder-pushgateway.json"])


def test_the_smoke_test_asks_for_it_and_not_for_what_comes_later() -> None:
    environment = case_environment("staging")
    parts = specs(environment)
    asked = StackAsked(environment, parts, {}, httpx.Client(), lambda _: "", dict)
    names = {check.name for check in smoke.every(asked)}
    assert {f"container {PART}", "target pushgateway:9091"} <= names
    read = [name for name, by in series.of_rules(environment, parts).items() if "PushRefused" in by]
    excused = needed_series.may_be_missing(environment, parts)
    assert read
    assert all(any(re.fullmatch(pattern, name) for pattern in excused) for name in read), "smoke would fail after `up`"


def test_its_image_is_pinned_licensed_and_can_be_made_without_a_registry() -> None:
    assert {each.name: each.licence for each in licences.images()}["image prom/pushgateway"] == "Apache-2.0"
    assert case_environment("prod").image(PART) == IMAGES[PART].reference
    container = record_case("staging").containers()[PART].inputs
    assert tuple(container["entrypoints"]) == RECIPES[PART].entrypoint, "one spec must serve both images"
