from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from operations.clone import ROOT
from stack.catalogue import rule_document, rule_groups
from stack.monitoring import access
from stack.monitoring.alerts import Alert, number, share
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.grafana import spec as grafana
from stack.parts.prometheus.spec import prometheus_yml
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import yaml_document, yaml_text
from stack.spec.secrets import ALERTMANAGER_WEB
from stack.spec.service import Scrape, ServiceSpec
from tests.described import dashboard_texts, specs
from tests.recording import CASES, case_environment, environment_of
from tests.render.conftest import Laboratory, contents, output, wait_until
from tests.render.known_alerts import every_alert
from tests.render.rule_cases import asked_elsewhere, cases, rules_tests

RULES = "rules/samokoder.yml"
# They fire always: there is no state of the world in which they should not.
ALWAYS = {"Watchdog"}
STORES_NOTHING = "PrometheusNotIngesting"
AHEAD = {"series": "ahead"}
"""Labels of the rule that reads samples of the future: a server sees it fire, promtool's tests of rules cannot."""
CYRILLIC = re.compile("[\u0400-\u04ff]")
# With and without a local database, a password, a production's name.
WORLDS = ("staging", "managed")


def rules_yml(environment: Environment, parts: Sequence[ServiceSpec]) -> str:
    return yaml_text(rule_document(environment, parts))


def prometheus_files(case: str) -> dict[str, str]:
    """Return Prometheus' own files of a case, by the path where it has them."""
    (spec,) = [spec for spec in specs(case_environment(case)) if spec.part == "prometheus"]
    return {f"{spec.files_at}/{path}": text for path, text in contents(spec).items()}


def rules(case: str) -> list[dict[str, Any]]:
    return [rule for group in yaml_document(rules_text(case))["groups"] for rule in group["rules"]]


def rules_text(case: str) -> str:
    return prometheus_files(case)[f"/etc/samokoder/{RULES}"]


def known(environment: Environment) -> list[Alert]:
    return list(every_alert(environment, specs(environment)))


def templates(text: str) -> list[str]:
    return sorted(re.findall(r"{{.*?}}", text))


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    names = {rule["alert"] for rule in rules("staging") if "alert" in rule}
    assert len(names) >= 60
    described = list(cases(case_environment("staging")))
    firing = {case.alert for case in described if case.fires}
    silent = {case.alert for case in described if not case.fires}
    assert names - firing == set(), "an alert that never fired in a test may never fire at all"
    assert names - silent - ALWAYS == set(), "an alert that fires always is soon looked at by nobody"
    assert firing | silent <= names, "a case of an alert that there is not tests nothing"


@pytest.mark.parametrize("case", WORLDS)
def test_every_rule_of_a_name_fires_in_a_case(case: str) -> None:
    environment = case_environment(case)
    fired = [(case.alert, fires.labels) for case in cases(environment) for fires in case.fires]
    for rule in rules(case):
        if "alert" in rule and not AHEAD.items() <= rule["labels"].items():
            own = {label: value for label, value in rule["labels"].items() if "{{" not in value}
            assert any(name == rule["alert"] and own.items() <= labels.items() for name, labels in fired), (
                f"{rule['alert']} with {own} never fired in a test"
            )


def test_every_alert_has_a_page_for_the_person_on_call_and_every_page_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {alert.name for alert in known(case_environment("staging"))}


def test_every_alert_says_how_bad_it_is_what_to_look_at_and_where() -> None:
    environment = case_environment("staging")
    settings = environment.settings
    shown = {
        path.removeprefix("dashboards/").removesuffix(".json")
        for path in grafana.files(environment, dashboard_texts(environment))
    }
    parts = {spec.job or spec.part for spec in specs(environment)}
    for alert in known(environment):
        annotations = alert.rule(environment)["annotations"]
        assert alert.severity in {"critical", "warning", "info", "none"}, alert.name
        assert alert.service, f"{alert.name} names no part"
        assert alert.dashboard in shown, f"{alert.name}: a link that leads nowhere"
        assert alert.symptom_of <= parts, f"{alert.name} is explained by a part that there is not"
        assert annotations["runbook_url"] == f"{settings.alerts.runbooks_url}/{alert.name}.md"
        assert annotations["dashboard_url"] == f"{settings.grafana.address}/d/{alert.dashboard}"
        assert ("logs_url" in annotations) == (alert.service != "logs"), f"{alert.name}: the page that is down"
        assert (alert.severity == "none") == (alert.name in ALWAYS)


def test_without_grafana_no_alert_links_to_its_address() -> None:
    without = environment_of("staging", {"unavailable": ["grafana"]})
    for alert in known(without):
        annotations = alert.rule(without)["annotations"]
        assert "dashboard_url" not in annotations, "nothing listens there, and at night somebody waits for a page"
        assert annotations["runbook_url"], alert.name


def test_where_no_logs_are_collected_no_alert_and_no_dashboard_links_to_them() -> None:
    without = environment_of("staging", {"logs": {"enabled": False}})
    for alert in known(without):
        assert "logs_url" not in alert.rule(without)["annotations"], alert.name
    assert not [uid for uid, text in dashboard_texts(without).items() if "vmui" in text]


def test_both_languages_say_the_same_with_the_same_values() -> None:
    for alert in known(case_environment("staging")):
        for text in (alert.summary, alert.description):
            assert CYRILLIC.search(text.ru), f"{alert.name} is not in Russian: {text.ru}"
            assert not CYRILLIC.search(text.en), f"{alert.name} is not in English: {text.en}"
            assert templates(text.en) == templates(text.ru), f"{alert.name} says another value in the other language"
            assert re.findall(r"\d+(?:\.\d+)?%", text.en) == re.findall(r"\d+(?:\.\d+)?%", text.ru), alert.name


def test_the_language_is_the_one_that_is_chosen() -> None:
    russian = environment_of("staging", {"alertmanager": {"language": "ru"}})
    for alert in known(russian):
        assert alert.rule(russian)["annotations"]["summary"] == alert.summary.ru


def test_waiting_times_are_scaled_by_their_factor() -> None:
    usual, quick = case_environment("staging"), environment_of("staging", {"alerts": {"waitFactor": 0.05}})
    for alert, hasty in zip(known(usual), known(quick), strict=True):
        wait, short = (each.rule(e).get("for", "") for each, e in ((alert, usual), (hasty, quick)))
        assert wait == alert.wait
        assert bool(short) == bool(wait)
        if wait:
            assert seconds(short) == pytest.approx(seconds(wait) / 20), alert.name
        kept = [each.rule(e).get("keep_firing_for") for each, e in ((alert, usual), (hasty, quick))]
        steps = alert.outlasts
        assert (steps is None) == (alert.name == "Watchdog"), "a heart must not go on beating after it should stop"
        assert kept == ([None, None] if steps is None else [f"{4 + steps}m", f"{93 + 60 * steps}000ms"]), alert.name


def test_an_alert_stays_until_a_prometheus_that_stores_nothing_has_said_so() -> None:
    for interval, factor in (("15s", 1), ("60s", 1), ("2m", 1), ("15s", 0.1), ("5s", 2)):
        given = {"prometheus": {"scrapeInterval": interval, "scrapeTimeout": "5s"}, "alerts": {"waitFactor": factor}}
        environment = environment_of("staging", given)
        blind = 60 * factor + max(60, 3 * seconds(interval))
        kept = {each.name: each.rule(environment).get("keep_firing_for", "0s") for each in known(environment)}
        stays = {name: seconds(value) for name, value in kept.items() if name not in ALWAYS}
        soonest = min(stays, key=stays.__getitem__)
        assert stays[soonest] >= blind + 30, f"{soonest} would be told as over, and nobody looked"
        longest = max(value for name, value in stays.items() if name != STORES_NOTHING)
        # One scrape until the last target was asked again, one evaluation, and one more.
        assert stays[STORES_NOTHING] >= longest + max(60, 3 * seconds(interval)), "what was false is sent"


def test_only_what_is_true_without_samples_waits_for_them_and_forgets_no_wait_by_a_short_gap() -> None:
    environment = environment_of("staging", {"prometheus": {"scrapeInterval": "30s"}})
    looks_back = {}
    for alert in known(environment):
        gate = re.search(r"\) unless on \(\) absent_over_time\(up\[(\d+)s\]\)$", alert.rule(environment)["expr"])
        assert bool(gate) == alert.absence, alert.name
        if gate:
            looks_back[alert.wait] = int(gate[1])
    assert looks_back.items() >= {"1m": 90, "2m": 90, "5m": 150, "2h": 600, "1d": 600}.items()


def test_numbers_are_written_as_people_write_them() -> None:
    assert [number(value) for value in (0.1, 5.0, 30000.0, 1e16, 14.4)] == ["0.1", "5", "30000", "1" + "0" * 16, "14.4"]
    assert [share(value) for value in (10.0, 0.3, 99.95)] == ["0.1", "0.003", "0.9995"]
    odd = environment_of(
        "staging", {"alerts": {"apiAvailabilityPercent": 99.7, "apiErrorPercent": 0.7, "redisMemoryPercent": 81.1}}
    )
    text = rules_yml(odd, specs(odd))
    assert "> 14.4 * 0.003 and" in text
    assert "> 0.007" in text
    assert "> 0.811" in text
    assert not re.findall(r"\d\.\d{7,}", text), "a number that is rounded in binary"


def test_thresholds_are_the_settings() -> None:
    usual = case_environment("staging")
    defaults = usual.settings.alerts
    parts = specs(usual)  # none of them is described by a threshold
    before = rules_yml(usual, parts)
    for name, field in type(defaults).model_fields.items():
        value = getattr(defaults, name)
        if not isinstance(value, float) or name == "wait_factor":
            continue
        other = 1.0 if name == "api_fast_seconds" else value * 0.99
        changed = environment_of("staging", {"alerts": {str(field.alias): other}})
        assert rules_yml(changed, parts) != before, f"{name} is in no rule"


def test_every_scraped_part_and_every_container_has_its_alert() -> None:
    for case in CASES:
        described = specs(case_environment(case))
        services: dict[str, set[str]] = {}
        for rule in rules(case):
            if "alert" in rule:
                services.setdefault(rule["alert"], set()).add(rule["labels"]["service"])
        assert services["ContainerMissing"] == {spec.part for spec in described}
        own = {"ApiDown": "api", "WorkerDown": "worker"}
        scraped = {spec.job for spec in described if spec.job}
        assert services["TargetDown"] == scraped - set(own.values())
        assert {part for alert, part in own.items() if alert in services} == scraped & set(own.values())


def test_rules_on_containers_are_on_those_of_this_environment() -> None:
    environment = case_environment("staging")
    parts = specs(environment)
    names = {f"{environment.prefix}-{part.part}" for part in parts}
    others = {f"{environment.prefix}-2-{part.part}" for part in parts} | {"samokoder-prod-api-1", "something"}
    unhealthy: list[str] = []
    for rule in rules("staging"):
        metrics = re.findall(r"\bcontainer_\w+", re.sub(r"\{.*?\}", "", rule["expr"]))
        selectors = re.findall(r"\bcontainer_\w+\{(.*?)\}", rule["expr"])
        assert len(metrics) == len(selectors), f"{rule['alert']} asks for the containers of every environment"
        for selector in selectors:
            (operator, pattern) = re.fullmatch(r'name(=~?)"(.*)"', selector).groups()  # type: ignore[union-attr]
            matches = {name for name in names | others if re.fullmatch(pattern, name)}
            expected = names if operator == "=~" else {pattern} & names
            if rule["alert"] == "ContainerUnhealthy":  # the replicas, the stores, all others
                expected = matches & names
                unhealthy += [*matches]
            assert matches == expected, f"{rule['alert']}: {matches}"
    assert sorted(unhealthy) == sorted(names), "of each one rule tells that it is unhealthy"


def test_what_is_somebody_else_s_is_watched_by_its_exporter() -> None:
    environment = case_environment("managed")
    names = {alert.name for alert in known(environment)}
    assert {"PostgresDown", "PostgresConnectionsHigh", "RedisDown", "RedisMemoryHigh"} <= names
    assert "RedisSnapshotOld" not in names, "whether a managed Redis writes snapshots is not for us to say"
    assert not {"postgres", "redis"} & {a.service for a in known(environment) if a.name == "ContainerMissing"}


def test_a_part_that_is_not_there_has_no_rule() -> None:
    assert "grafana" not in re.sub("_url: .*", "", rules_text("without-grafana")).replace("dashboard", "")
    silent = environment_of("staging", {"worker": {"metricsPort": None, "healthCommand": ["true"]}})
    assert "worker" not in {group.name for group in rule_groups(silent, specs(silent))}
    assert not [alert for alert in known(silent) if alert.service == "worker" and alert.name != "ContainerMissing"]


def scraped(described: list[ServiceSpec]) -> dict[str, list[tuple[ServiceSpec, Scrape]]]:
    jobs: dict[str, list[tuple[ServiceSpec, Scrape]]] = {}
    for spec in described:
        if isinstance(spec.scrape, Scrape):
            jobs.setdefault(spec.job, []).append((spec, spec.scrape))
    return jobs


@pytest.mark.parametrize("case", CASES)
def test_prometheus_scrapes_every_part_that_says_where_and_itself(case: str) -> None:
    files = prometheus_files(case)
    document = yaml_document(files["/etc/samokoder/prometheus.yml"])
    jobs = {job["job_name"]: job for job in document["scrape_configs"]}
    expected = scraped(specs(case_environment(case)))
    assert jobs.keys() == expected.keys() | {blackbox_exporter.JOB}
    for name, replicas in expected.items():
        job = jobs[name]
        (targets,) = job["static_configs"]
        assert targets == {"targets": [f"{spec.part}:{scrape.port}" for spec, scrape in replicas]}
        for spec, scrape in replicas:
            assert (job["metrics_path"], job["sample_limit"]) == (scrape.path, scrape.sample_limit)
            assert job.get("basic_auth") == access.basic_auth(spec.web_password).get("basic_auth")
    for asked in (*document["scrape_configs"], *document["alerting"]["alertmanagers"]):
        assert asked.get("basic_auth", {}).get("password_file", "/etc/samokoder/prometheus.yml") in files, (
            "a password that is not mounted"
        )


def test_with_a_password_on_those_who_ask_for_one_are_asked_with_it() -> None:
    for case, guarded in (("prod", {"prometheus", "alertmanager", "logs"}), ("staging", set())):
        document = yaml_document(prometheus_files(case)["/etc/samokoder/prometheus.yml"])
        assert {job["job_name"] for job in document["scrape_configs"] if "basic_auth" in job} == guarded
        (alertmanager,) = document["alerting"]["alertmanagers"]
        secret = ALERTMANAGER_WEB if guarded else ""
        assert alertmanager == access.basic_auth(secret) | {"static_configs": [{"targets": ["alertmanager:9093"]}]}


@pytest.mark.parametrize("case", CASES)
def test_a_probe_is_asked_of_the_exporter_and_named_by_what_it_asks(case: str) -> None:
    document = yaml_document(prometheus_files(case)["/etc/samokoder/prometheus.yml"])
    (job,) = [job for job in document["scrape_configs"] if job["job_name"] == blackbox_exporter.JOB]
    assert job["metrics_path"] == "/probe"
    assert job["sample_limit"] > 0
    target, instance, address = job["relabel_configs"]
    assert (target["source_labels"], target["target_label"]) == (["__address__"], "__param_target")
    assert (instance["source_labels"], instance["target_label"]) == (["__address__"], "instance")
    assert address == {
        "target_label": "__address__",
        "replacement": f"{blackbox_exporter.PART}:{blackbox_exporter.PORT}",
    }


@pytest.mark.parametrize("case", CASES)
def test_no_two_rules_of_one_alert_have_the_same_labels(case: str) -> None:
    found = [(rule["alert"], tuple(sorted(rule["labels"].items()))) for rule in rules(case) if "alert" in rule]
    assert sorted(found) == sorted(set(found)), "promtool refuses the file, and the alerts of both are one"


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
def test_promtool_accepts_the_rules_in_russian(laboratory: Laboratory, environment: Environment) -> None:
    russian = environment_of("staging", {"alertmanager": {"language": "ru"}})
    shell = laboratory.shell(environment.image("prometheus"), {"/test/ru.yml": rules_yml(russian, specs(russian))})
    code, said = output(shell, "promtool", "check", "rules", "--lint=all", "--lint-fatal", "/test/ru.yml")
    assert code == 0, said
    assert f"{len(rules('staging'))} rules found" in said


@cache
def world(case: str) -> tuple[Environment, dict[str, str]]:
    """Return an environment and promtool's files for it."""
    return case_environment(case), rules_tests(case_environment(case), rules_text(case))


def asked_in(case: str) -> tuple[dict[str, str], list[str]]:
    """Return promtool's files of a world and the tests to run: what an earlier world has asked is not asked again."""
    *earlier, own = [world(each) for each in WORLDS[: WORLDS.index(case) + 1]]
    before = {name for each in earlier for name in asked_elsewhere(own, each)}
    return own[1], sorted(name for name in own[1] if name.startswith("test-") and name not in before)


def test_a_world_is_asked_all_that_differs_in_it_from_those_before() -> None:
    environment, files = world("staging")
    every = {name for name in files if name.startswith("test-")}
    for changed, old, new in (
        ("ApiDown.yml", "for: ", "for: 9"),
        ("test-ApiDown-1m.yml", "eval_time: ", "eval_time: 9"),
    ):
        assert old in files[changed]
        other = {**files, changed: files[changed].replace(old, new)}
        assert asked_elsewhere((environment, files), (environment, other)) == every - {"test-ApiDown-1m.yml"}
    again = set(asked_in("managed")[1])
    assert {"test-rules-1m.yml", "test-RedisDown-1m.yml", "test-ContainerMissing-1m.yml"} <= again, "other rules"
    assert "test-ApiLatencyHigh-1m.yml" not in again, "it is of no server that may be managed"


@pytest.mark.live
@pytest.mark.parametrize("case", WORLDS)
def test_promtool_sees_every_alert_fire_and_be_silent(
    laboratory: Laboratory, environment: Environment, case: str
) -> None:
    files, tests = asked_in(case)
    shell = laboratory.shell(environment.image("prometheus"), {f"/test/{name}": text for name, text in files.items()})
    code, said = output(shell, "promtool", "test", "rules", *(f"/test/{name}" for name in tests))
    assert code == 0, said
    assert said.count("SUCCESS") == len(tests), said


@pytest.mark.live
@pytest.mark.parametrize(
    ("name", "said_by_the_case", "instead"),
    [
        ("test-HostDiskAlmostFull-1m.yml", "4% is left", "40% is left"),
        ("test-ApiErrorBudgetBurn-2m.yml", "burn: 14.4x", "burn: 6x"),
        ("test-rules-1m.yml", "value: 1\n", "value: 2\n"),
    ],
)
def test_promtool_refuses_a_case_that_expects_what_does_not_happen(
    laboratory: Laboratory, environment: Environment, name: str, said_by_the_case: str, instead: str
) -> None:
    files = rules_tests(case_environment("staging"), rules_text("staging"))
    assert said_by_the_case in files[name]
    files[name] = files[name].replace(said_by_the_case, instead)
    shell = laboratory.shell(environment.image("prometheus"), {f"/test/{path}": text for path, text in files.items()})
    code, said = output(shell, "promtool", "test", "rules", f"/test/{name}")
    assert code != 0, "a test that cannot fail"
    assert "FAILED" in said


@pytest.mark.live
def test_a_clock_that_was_set_back_is_told_and_an_ordinary_day_or_a_boot_is_not(
    laboratory: Laboratory, environment: Environment
) -> None:
    """A server is asked, because promtool's tests of rules see no sample newer than the moment of the question."""
    now = int(time.time())
    # Name -> first and last sample, in seconds from now.
    stored = {"hour": (-3600, 3600), "minutes": (-3600, 300), "ordinary": (-86400, 60), "boot": (-86400, -7200)}
    files = {
        f"/test/{name}.txt": "\n".join(
            ["# TYPE up gauge", *(f'up{{job="api"}} 1 {now + at}' for at in range(first, last + 1, 60)), "# EOF\n"]
        )
        for name, (first, last) in stored.items()
    }
    shell = laboratory.shell(environment.image("prometheus"), {**files, "/test/prometheus.yml": "{}\n"})
    (rule,) = [each for each in rules("staging") if AHEAD.items() <= each.get("labels", {}).items()]
    assert rule["alert"] == STORES_NOTHING
    told = {}
    for port, name in enumerate(stored, 19090):
        data, at = f"/prometheus/{name}", f"127.0.0.1:{port}"
        made = output(shell, "promtool", "tsdb", "create-blocks-from", "openmetrics", f"/test/{name}.txt", data)
        assert made[0] == 0, made
        serve = f"--config.file=/test/prometheus.yml --storage.tsdb.path={data} --web.listen-address={at}"
        output(shell, "sh", "-c", f"prometheus {serve} >{data}.log 2>&1 &")
        ask = ("promtool", "query", "instant", f"--time={now}", f"http://{at}", rule["expr"])
        wait_until(shell, lambda ask=ask: output(shell, *ask)[0] == 0)  # type: ignore[misc]
        told[name] = "=> 1 @" in output(shell, *ask)[1]
    assert told == {"hour": True, "minutes": True, "ordinary": False, "boot": False}


def test_replicas_that_share_a_job_are_targets_of_their_own_in_it() -> None:
    environment = case_environment("staging")
    document = yaml_document(prometheus_yml(environment, specs(environment)))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in document["scrape_configs"]}
    assert jobs["api"] == ["api-1:8000", "api-2:8000"], "one that is down must not hide behind the other"
    assert not {"api-1", "api-2"} & jobs.keys()
