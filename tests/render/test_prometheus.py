from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from stack.platform import specs
from stack.service import Scrape
from stack.settings import Environment
from tests.recording import CASES, case_environment
from tests.render.conftest import Laboratory, contents, output
from tests.render.rule_cases import cases, rules_test

RULES = "rules/samokoder.yml"
# They fire always: there is no state of the world in which they should not.
ALWAYS = {"Watchdog"}


def prometheus_files(case: str) -> dict[str, str]:
    """Return Prometheus' own files of a case, by the path where it has them."""
    (spec,) = [spec for spec in specs(case_environment(case)) if spec.part == "prometheus"]
    return {f"{spec.files_at}/{path}": text for path, text in contents(spec).items()}


def rules(case: str) -> list[dict[str, str]]:
    groups = yaml.safe_load(prometheus_files(case)[f"/etc/samokoder/{RULES}"])["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    alerts = {rule["alert"] for rule in rules("staging")}
    described = list(cases(case_environment("staging")))
    firing = {case.alert for case in described if case.fires}
    silent = {case.alert for case in described if not case.fires}
    assert alerts - firing == set(), "an alert that never fired in a test may never fire at all"
    assert alerts - silent - ALWAYS == set(), "an alert that fires always is soon looked at by nobody"
    assert firing | silent <= alerts, "a case of an alert that there is not tests nothing"


def test_every_scraped_part_and_every_container_has_its_alert() -> None:
    for case in CASES:
        described = specs(case_environment(case))
        services: dict[str, set[str]] = {}
        for rule in rules(case):
            services.setdefault(rule["alert"], set()).add(rule["labels"]["service"])  # type: ignore[index]
        assert services["ContainerMissing"] == {spec.part for spec in described}
        assert services["TargetDown"] == {spec.part for spec in described if isinstance(spec.scrape, Scrape)}


def test_every_alert_says_how_bad_it_is_and_what_to_look_at() -> None:
    for rule in rules("staging"):
        labels, annotations = rule["labels"], rule["annotations"]
        assert labels["severity"] in {"critical", "warning", "info", "none"}, rule["alert"]  # type: ignore[index]
        assert labels["service"], f"{rule['alert']} names no part"  # type: ignore[index]
        assert annotations.keys() >= {"summary", "description"}, rule["alert"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES)
def test_prometheus_scrapes_every_part_that_says_where_and_itself(case: str) -> None:
    document = yaml.safe_load(prometheus_files(case)["/etc/samokoder/prometheus.yml"])
    jobs = {
        job["job_name"]: (job["static_configs"][0]["targets"], job["metrics_path"])
        for job in document["scrape_configs"]
    }
    assert jobs == {
        spec.part: ([f"{spec.part}:{spec.scrape.port}"], spec.scrape.path)
        for spec in specs(case_environment(case))
        if isinstance(spec.scrape, Scrape)
    }


def expressions(value: object) -> Iterator[str]:
    """All PromQL in a dashboard, with a rate interval in place of Grafana's own variable."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr" and isinstance(inner, str):
                yield inner.replace("$__rate_interval", "5m")
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


@pytest.mark.live
def test_promtool_accepts_the_configuration_and_the_rules_of_every_case(
    laboratory: Laboratory, environment: Environment
) -> None:
    for case in CASES:
        shell = laboratory.shell(environment.image("prometheus"), prometheus_files(case))
        code, said = output(
            shell, "promtool", "check", "config", "--lint=all", "--lint-fatal", "/etc/samokoder/prometheus.yml"
        )
        assert code == 0, f"{case}: {said}"
        assert f"{len(rules(case))} rules found" in said, (
            f"{case}: the rules are not where the configuration looks: {said}"
        )


@pytest.mark.live
def test_promtool_sees_every_alert_fire_and_be_silent(laboratory: Laboratory, environment: Environment) -> None:
    staging = case_environment("staging")
    files = {
        "/test/rules.yml": prometheus_files("staging")[f"/etc/samokoder/{RULES}"],
        "/test/test.yml": rules_test(staging, "rules.yml"),
    }
    code, said = output(
        laboratory.shell(environment.image("prometheus"), files), "promtool", "test", "rules", "/test/test.yml"
    )
    assert code == 0, said
    assert "SUCCESS" in said


@pytest.mark.live
def test_promtool_refuses_a_case_that_expects_what_does_not_happen(
    laboratory: Laboratory, environment: Environment
) -> None:
    test = rules_test(case_environment("staging"), "rules.yml").replace("4% is left", "40% is left")
    files = {"/test/rules.yml": prometheus_files("staging")[f"/etc/samokoder/{RULES}"], "/test/test.yml": test}
    code, said = output(
        laboratory.shell(environment.image("prometheus"), files), "promtool", "test", "rules", "/test/test.yml"
    )
    assert code != 0, "a test that cannot fail"
    assert "HostDiskAlmostFull" in said


@pytest.mark.live
def test_promtool_parses_every_question_of_every_dashboard(laboratory: Laboratory, environment: Environment) -> None:
    (spec,) = [spec for spec in specs(case_environment("staging")) if spec.part == "grafana"]
    asked = sorted(
        {
            expression
            for path, text in contents(spec).items()
            if path.startswith("dashboards/")
            for expression in expressions(json.loads(text))
        }
    )
    assert asked, "no dashboard asks anything"
    assert not [expression for expression in asked if "$" in expression], "a variable that is not filled in here"
    record = [{"record": f"asked:number_{number}", "expr": expression} for number, expression in enumerate(asked)]
    files = {"/test/asked.yml": yaml.safe_dump({"groups": [{"name": "dashboards", "rules": record}]}, width=1000)}
    code, said = output(
        laboratory.shell(environment.image("prometheus"), files), "promtool", "check", "rules", "/test/asked.yml"
    )
    assert code == 0, said
    assert f"{len(asked)} rules found" in said
