from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import pytest

from stack.monitoring.alerts import Alert, Severity, Text, down_alert
from stack.parts.alertmanager import routing
from stack.parts.alertmanager import spec as parts
from stack.parts.alertmanager.inhibitions import inhibitions
from stack.parts.cadvisor.rules import UNSEEN_SECONDS
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import yaml_document
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.recording import CASES, HEARTBEAT_URL, TELEGRAM_TOKEN, WEBHOOK_URL, case_environment, environment_of
from tests.render.conftest import Laboratory, contents, output
from tests.render.known_alerts import every_alert

if TYPE_CHECKING:
    from docker.models.containers import Container

FOLDER = "/etc/samokoder"
CONFIGURATION = f"{FOLDER}/alertmanager.yml"
MESSAGES = f"{FOLDER}/messages.tmpl"
START = f"{FOLDER}/start-alertmanager.sh"
ACCESS = {f"{FOLDER}/{name}" for name in ("web.yml", "client.yml", "alertmanager_web_password")}

# Name in AlertManager's metrics -> what configures it; the heartbeat reaches no person.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "telegram": {"alertmanager": {"telegram": {"chatId": -100}}, "telegramBotToken": TELEGRAM_TOKEN},
    "email": {
        "alertmanager": {
            "email": {"smarthost": "mail.example.org:25", "sender": "a@example.org", "recipient": "b@example.org"}
        }
    },
    "webhook": {"alertWebhookUrl": WEBHOOK_URL},
    "heartbeat": {"heartbeatUrl": HEARTBEAT_URL},
}
SUBSETS = [*chain.from_iterable(combinations(WAYS, size) for size in range(len(WAYS) + 1))]


def subset_environment(ways: tuple[str, ...]) -> Environment:
    values: dict[str, Any] = {"alertmanager": {}}
    for way in ways:
        values["alertmanager"] |= WAYS[way].get("alertmanager", {})
        values |= {key: value for key, value in WAYS[way].items() if key != "alertmanager"}
    return environment_of("staging", values)


def spec(environment: Environment) -> ServiceSpec:
    """AlertManager as the stack runs it."""
    return next(each for each in specs(environment) if each.part == parts.PART)


def alertmanager_yml(environment: Environment) -> str:
    return parts.alertmanager_yml(environment, every_alert(environment, specs(environment)))


def alertmanager_files(case: str) -> dict[str, str]:
    described = spec(case_environment(case))
    return {f"{described.files_at}/{path}": text for path, text in contents(described).items()}


def routes(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [document["route"], *document["route"]["routes"]]


def integrations(receiver: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [each for kind, several in receiver.items() if kind.endswith("_configs") for each in several]


def ways_of(receiver: Mapping[str, Any]) -> set[str]:
    return {kind.removesuffix("_configs") for kind in receiver if kind.endswith("_configs")}


@pytest.mark.parametrize("case", CASES)
def test_every_secret_file_that_is_named_is_there_and_no_secret_is_in_the_text(case: str) -> None:
    files = alertmanager_files(case)
    document = yaml_document(files[CONFIGURATION])
    everything = [each for receiver in document["receivers"] for each in integrations(receiver)]
    named = {value for each in everything for key, value in each.items() if key.endswith("_file")}
    assert document["templates"] == [MESSAGES], "without them AlertManager sends its own text"
    assert named == files.keys() - {CONFIGURATION, MESSAGES, START} - ACCESS, (
        "it would look for a file that nobody mounts"
    )
    plain = {key for each in everything for key in each if key in {"bot_token", "auth_password", "url"}}
    assert not plain, "a secret in the configuration is shown by AlertManager's own status page"


def test_who_asks_for_a_password_has_the_files_for_it_and_nobody_else() -> None:
    assert alertmanager_files("prod").keys() >= ACCESS
    assert not alertmanager_files("staging").keys() & ACCESS, "a password that nobody asks for"


def test_alerts_of_production_reach_telegram_with_their_end() -> None:
    document = yaml_document(alertmanager_files("prod")[CONFIGURATION])
    (telegram,) = document["receivers"][0]["telegram_configs"]
    assert telegram["chat_id"] == -1001234567890
    assert telegram["send_resolved"] is True, "somebody must know that it is over"


def test_alerts_go_to_the_topic_of_a_forum_that_is_chosen() -> None:
    telegram = {"chatId": -100, "messageThreadId": 42}
    chosen = {"alertmanager": {"telegram": telegram}, "telegramBotToken": TELEGRAM_TOKEN}
    for config, topic in ((chosen, 42), (WAYS["telegram"], None)):
        document = yaml_document(alertmanager_yml(environment_of("staging", config)))
        (way,) = next(each for each in document["receivers"] if "telegram_configs" in each)["telegram_configs"]
        assert way.get("message_thread_id") == topic, "in a forum nobody reads General"


@pytest.mark.parametrize("ways", SUBSETS, ids="+".join)
def test_every_receiver_is_used_and_every_route_leads_to_one(ways: tuple[str, ...]) -> None:
    document = yaml_document(alertmanager_yml(subset_environment(ways)))
    names = [receiver["name"] for receiver in document["receivers"]]
    assert len(names) == len(set(names)), "AlertManager refuses a name that is there twice"
    assert {route["receiver"] for route in routes(document)} == set(names), "a receiver without use, or a route to none"


@pytest.mark.parametrize("ways", SUBSETS, ids="+".join)
def test_people_are_told_by_all_ways_and_of_a_broken_one_by_the_others(ways: tuple[str, ...]) -> None:
    document = yaml_document(alertmanager_yml(subset_environment(ways)))
    receivers = {receiver["name"]: receiver for receiver in document["receivers"]}
    people = set(ways) - {"heartbeat"}
    assert ways_of(receivers["on-call"]) == people
    assert not ways_of(receivers["nobody"])
    assert ("heartbeat" in receivers) == ("heartbeat" in ways)
    if people:
        assert receivers["test-alert"] == receivers["on-call"] | {"name": "test-alert"}, (
            "a test by another way than the alerts' own would test nothing"
        )
    others = {name: ways_of(receiver) for name, receiver in receivers.items() if name.startswith("without-")}
    assert others == ({f"without-{way}": people - {way} for way in people} if len(people) > 1 else {})


def test_each_severity_has_the_times_of_the_settings() -> None:
    times = {"groupWait": "7s", "groupInterval": "3m", "repeatInterval": "9h"}
    environment = environment_of("staging", {"alertmanager": {"timing": {"warning": times}}})
    found = {
        route["matchers"][0]: (route["group_wait"], route["group_interval"], route["repeat_interval"])
        for route in routes(yaml_document(alertmanager_yml(environment)))
        if route.get("matchers", [""])[0].startswith("severity=") and route["receiver"] == "on-call"
    }
    assert found == {
        'severity="critical"': ("10s", "1m", "1h"),
        'severity="warning"': ("7s", "3m", "9h"),
        'severity="info"': ("5m", "15m", "3d"),
    }


def test_the_heart_beats_as_often_as_the_settings_say() -> None:
    environment = environment_of(
        "staging", {"heartbeatUrl": HEARTBEAT_URL, "alertmanager": {"heartbeatInterval": "2m"}}
    )
    (route,) = [r for r in routes(yaml_document(alertmanager_yml(environment))) if r["receiver"] == "heartbeat"]
    assert route["matchers"] == ['alertname="Watchdog"'], "any other alert would keep the heart beating"
    assert route["group_interval"] == "2m"
    assert route["repeat_interval"] == "1ms", "as long as the interval, it would leave out every other beat"


def alert(name: str, service: str, *symptom_of: str, severity: Severity = "critical") -> Alert:
    text = Text(en="it is so", ru="это так")
    return Alert(
        name=name,
        expression="vector(1)",
        wait="",
        severity=severity,
        service=service,
        summary=text,
        description=text,
        dashboard="none",
        symptom_of=frozenset(symptom_of),
    )


ALERTS = [
    alert("Watchdog", "prometheus", "postgres", severity="none"),
    alert("PostgresDown", "postgres"),
    alert("PostgresExporterErrors", "postgres", "postgres"),
    alert("ApiDown", "api"),
    alert("ApiReplicaDown", "{{ $labels.instance }}", severity="warning"),
    alert("ApiErrorRateHigh", "api", "postgres", "redis"),
    alert("WorkerQueueStalled", "worker", "postgres"),
    alert("ErrorsSendingAlerts", "prometheus", "alertmanager"),
]


def by_source(alerts: list[Alert]) -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in inhibitions(alerts, case_environment("staging").settings.ingress):
        yield " ".join(rule["source_matchers"]), rule


def test_symptoms_are_kept_back_by_what_explains_them() -> None:
    found = [(source, rule["target_matchers"]) for source, rule in by_source(ALERTS) if 'service="' in source]
    postgres, redis, alertmanager = (
        f'alertname=~"ContainerMissing|ContainerUnhealthy{down}" service="{part}" severity="critical"'
        for part, down in (("postgres", "|PostgresDown"), ("redis", ""), ("alertmanager", ""))
    )
    assert found == [
        (alertmanager, ['alertname="ErrorsSendingAlerts"']),
        (postgres, ['alertname=~"ApiErrorRateHigh|PostgresExporterErrors|WorkerQueueStalled"']),
        # Not by what keeps back symptoms alone: a part that needs it is not ready without it.
        (postgres, ['alertname=~"ContainerUnhealthy|ProbeFailed"', 'service=~"api|api-[0-9]+|worker"']),
        (redis, ['alertname="ApiErrorRateHigh"']),
    ]


def test_a_part_that_is_down_is_told_once() -> None:
    found = dict(by_source(ALERTS))
    down = found['alertname=~"ApiDown|PostgresDown"']
    assert down["target_matchers"] == [
        'alertname=~"ApiReplicaDown|ContainerMissing|ContainerUnhealthy|ProbeFailed|TargetDown"'
    ], "one replica of several is not the part, and must not keep anything back"
    every = found['alertname="ApiDown"']
    assert every["target_matchers"] == [*down["target_matchers"], 'service=~"api-[0-9]+"'], (
        "that no replica is left says more than each of them"
    )
    assert "equal" not in every, "a replica is a part of its own"
    gone = found['alertname="ContainerMissing"']
    assert gone["target_matchers"] == ['alertname=~"ApiReplicaDown|ContainerUnhealthy|ProbeFailed|TargetDown"']
    assert down["equal"] == gone["equal"] == ["service"], "another part's alerts are no concern of it"


@pytest.mark.parametrize("interval", [15, 30])
@pytest.mark.parametrize("case", CASES)
def test_that_a_part_is_down_is_told_before_its_missing_container(case: str, interval: int) -> None:
    environment = case_environment(case)
    known = list(every_alert(environment, specs(environment)))
    down = {each.service: seconds(each.wait) for each in known if each.name == down_alert(each.service)}
    missing = {each.service: seconds(each.wait) for each in known if each.name == "ContainerMissing"}
    assert down.keys() >= {"api", "worker"}
    for part, waits in down.items():
        for container in (each for each in missing if re.fullmatch(rf"{part}(-[0-9]+)?", each)):
            assert waits + 2 * interval < UNSEEN_SECONDS + missing[container] - interval, (
                f"{container}: both are sent, and the end of ContainerMissing never: it is kept back then"
            )
            assert waits < missing[container], f"{container}: of one that was never there the same"


def test_without_an_alert_there_is_no_rule_about_it() -> None:
    rules_ = list(inhibitions([], case_environment("staging").settings.ingress))
    assert not [rule for rule in rules_ if not rule.get("equal")], "no labels to be equal is a rule for all alerts"


@pytest.mark.parametrize("case", CASES)
def test_what_is_named_in_an_inhibition_is_an_alert_that_there_is(case: str) -> None:
    environment = case_environment(case)
    known = {alert.name for alert in every_alert(environment, specs(environment))} | {"TestAlert"}
    missing = set()
    for rule in yaml_document(alertmanager_yml(environment))["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, _, values = matcher.replace("!=", "=").replace("=~", "=").partition("=")
            if label == "alertname":
                missing |= set(values.strip('"').split("|")) - known
    assert not missing, "a name that no alert has keeps nothing back, and nobody notices"


@pytest.mark.parametrize("case", CASES)
def test_each_symptom_is_kept_back_in_what_is_rendered_also_those_of_and_about_the_ingress(case: str) -> None:
    environment = case_environment(case)
    described = yaml_document(alertmanager_files(case)[CONFIGURATION])["inhibit_rules"]

    def names(matchers: list[str], label: str) -> set[str]:
        said = [each.replace("=~", "=").partition("=") for each in matchers]
        return {name for key, _, value in said if key == label for name in value.strip('"').split("|")}

    kept_back = {
        (part, symptom)
        for rule in described
        for part in names(rule["source_matchers"], "service")
        for symptom in names(rule["target_matchers"], "alertname")
    }
    known = list(every_alert(environment, specs(environment)))
    wanted = {(part, each.name) for each in known for part in each.symptom_of if each.name != "Watchdog"}
    causes = {"ContainerMissing", "ContainerUnhealthy"}
    assert {pair for pair in wanted if pair[1] not in causes} <= kept_back, "one fault, and several people are woken"
    down = {each.name for each in known if each.name == each.service.capitalize() + "Down"}
    told = [
        names(rule["source_matchers"], "alertname")
        for rule in described
        if rule.get("equal") == ["service"] and "ContainerMissing" in names(rule["target_matchers"], "alertname")
    ]
    assert told, "a part that is down is told by its container, its probe and its target as well"
    assert {"IngressDown"} & down <= told[0]


def test_what_stores_nothing_keeps_back_all_that_its_silence_makes_false_and_nothing_that_wakes_for_it() -> None:
    rule = next(
        rule
        for rule in yaml_document(alertmanager_files("staging")[CONFIGURATION])["inhibit_rules"]
        if rule["source_matchers"] == ['alertname="PrometheusNotIngesting"']
    )
    assert rule["target_matchers"] == ['alertname!~"PrometheusNotIngesting|TestAlert|Watchdog"']
    assert "equal" not in rule, "ApiDown would wake somebody seven minutes later, and a full disk be told as resolved"


def test_nothing_that_explains_is_itself_a_symptom_of_what_it_explains() -> None:
    environment = case_environment("staging")
    explained: dict[str, frozenset[str]] = {}
    for each in every_alert(environment, specs(environment)):
        if each.name in {"ContainerMissing", "ContainerUnhealthy"} or each.name.lower() == f"{each.service}down":
            explained[each.service] = explained.get(each.service, frozenset()) | each.symptom_of
    reached: dict[str, set[str]] = {}
    for part in explained:
        todo, reached[part] = [part], set()
        while todo:
            for other in explained.get(todo.pop(), ()):
                if other not in reached[part]:
                    reached[part].add(other)
                    todo.append(other)
    assert not [part for part, others in reached.items() if part in others], "two that silence each other tell nobody"


# --- The real programs ------------------------------------------------------------------------------------------------


def with_images(environment: Environment, values: Mapping[str, Any]) -> Environment:
    """Staging with `values` and the images of this engine."""
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    return environment_of("staging", {"images": images, **values})


def shell(laboratory: Laboratory, environment: Environment, files: Mapping[str, str]) -> Container:
    return laboratory.shell(environment.image("alertmanager"), files)


@pytest.mark.live
def test_amtool_accepts_every_combination(laboratory: Laboratory, environment: Environment) -> None:
    texts = {"+".join(ways) or "nothing": alertmanager_yml(subset_environment(ways)) for ways in SUBSETS}
    files = {f"/{name}.yml": text for name, text in texts.items()}
    messages = alertmanager_files("every-receiver")[MESSAGES]
    code, said = output(shell(laboratory, environment, {**files, MESSAGES: messages}), "amtool", "check-config", *files)
    assert code == 0, said
    assert [said.count(f"Checking '{file}'  SUCCESS") for file in files] == [1] * len(SUBSETS), said
    assert said.count("1 templates") == len(SUBSETS), "the messages are looked at as well"


@pytest.mark.live
@pytest.mark.parametrize(
    ("values", "sender", "name"),
    [
        ({}, "alerts@example.org", "example.org"),
        ({}, "<alerts@example.org>", "example.org"),
        ({}, "alerts@пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ({"ingress": {"domain": "samokoder.example.org"}}, "alerts@example.org", "samokoder.example.org"),
    ],
)
def test_the_mail_server_is_greeted_by_a_name_that_the_world_knows(
    values: Mapping[str, Any], sender: str, name: str
) -> None:
    email = {"smarthost": "mail.example.org:25", "sender": sender, "recipient": "b@example.org"}
    environment = environment_of("staging", {**values, "alertmanager": {"email": email}})
    assert routing.integrations(environment)["email"]["hello"] == name, "localhost is refused by many servers"


@pytest.mark.parametrize("case", ["staging", "prod", "email-and-keys", "every-receiver"])
def test_amtool_accepts_the_configuration(laboratory: Laboratory, environment: Environment, case: str) -> None:
    code, said = output(
        shell(laboratory, environment, alertmanager_files(case)), "amtool", "check-config", CONFIGURATION
    )
    assert code == 0, said
    assert "SUCCESS" in said


FAILING = "alertname=AlertmanagerNotificationsFailing severity=critical service=alertmanager integration="
SEVERITIES = {f"alertname=A severity={each} service=api": "on-call" for each in ("critical", "warning", "info")}
ROUTES: dict[str, dict[str, str]] = {
    "staging": SEVERITIES
    | {
        "alertname=Watchdog severity=none": "nobody",
        "alertname=TestAlert severity=critical": "on-call",
        "alertname=A": "on-call",
        f"{FAILING}telegram": "on-call",
    },
    "prod": SEVERITIES
    | {
        "alertname=Watchdog severity=none": "heartbeat",
        "alertname=A severity=none": "nobody",
        "alertname=TestAlert severity=info": "test-alert",
        # The only way there is; a failing heartbeat is told by it too.
        f"{FAILING}telegram": "on-call",
        f"{FAILING}webhook": "on-call",
    },
    "every-receiver": SEVERITIES
    | {
        "alertname=Watchdog severity=none": "heartbeat",
        "alertname=TestAlert severity=critical test_id=1": "test-alert",
        "alertname=A integration=telegram severity=critical": "on-call",
        **{f"{FAILING}{way}": f"without-{way}" for way in ("telegram", "email", "webhook")},
    },
}


@pytest.mark.live
@pytest.mark.parametrize("case", ROUTES)
def test_an_alert_goes_to_who_is_to_know_it(laboratory: Laboratory, environment: Environment, case: str) -> None:
    container = shell(laboratory, environment, alertmanager_files(case))
    test = ("amtool", "config", "routes", "test", f"--config.file={CONFIGURATION}")
    found = {labels: output(container, *test, *labels.split())[1].strip() for labels in ROUTES[case]}
    assert found == ROUTES[case]


@pytest.mark.live
def test_alertmanager_itself_starts_with_it(laboratory: Laboratory, environment: Environment) -> None:
    container = laboratory.healthy_part(spec(environment))
    code, said = output(container, "amtool", "config", "show", "--alertmanager.url=http://127.0.0.1:9093")
    assert code == 0, said
    assert "receiver: on-call" in said


@pytest.mark.live
def test_with_a_password_on_its_own_health_check_gets_in_and_nobody_without(
    laboratory: Laboratory, environment: Environment
) -> None:
    guarded = with_images(environment, {"basicAuth": "always", **WAYS["telegram"]})
    container = laboratory.healthy_part(spec(guarded))
    code, said = output(container, "amtool", "--alertmanager.url=http://127.0.0.1:9093", "config", "show")
    assert code != 0, "it let somebody in without a password"
    assert "401" in said, said
    code, said = output(container, *spec(guarded).health_command)
    assert "receiver: on-call" in said, "the health check reads an answer and not an error"


# Firing together -> which of them are kept back.
FIRING: dict[str, tuple[dict[str, str], set[str]]] = {
    "a database that is down explains its symptoms": (
        {
            "PostgresDown": "service=postgres severity=critical",
            "ContainerMissing": "service=postgres severity=critical",
            "DatabaseErrors": "service=api severity=warning",
            "ProbeFailed": "service=api severity=critical instance=http://api:8000/ready",
            "HostCpuHigh": "service=host severity=warning",
        },
        {"ContainerMissing", "DatabaseErrors", "ProbeFailed"},
    ),
    "a part that is missing is told once, another part's target as well": (
        {
            "ContainerMissing": "service=grafana severity=critical",
            "ProbeFailed": "service=grafana severity=critical",
            "TargetDown": "service=cadvisor severity=warning",
        },
        {"ProbeFailed"},
    ),
    "a silent store fails its exporter's scrapes, and is told once": (
        {
            "RedisDown": "service=redis severity=critical job=redis-exporter instance=redis-exporter:9121",
            "TargetDown": "service=redis-exporter severity=warning job=redis-exporter instance=redis-exporter:9121",
        },
        {"TargetDown"},
    ),
    "a full disk explains only itself": (
        {
            "HostDiskAlmostFull": "service=host severity=critical instance=node:9100 mountpoint=/",
            "HostDiskLow": "service=host severity=warning instance=node:9100 mountpoint=/",
            "HostDiskFillsSoon": "service=host severity=warning instance=node:9100 mountpoint=/data",
        },
        {"HostDiskLow"},
    ),
    "an API that is down keeps users out, and is told once": (
        {
            "ApiDown": "service=api severity=critical",
            "IngressNoReplica": "service=ingress severity=critical",
            "ProbeFailed": "service=public severity=critical instance=https://example.org/health",
            "WorkerDown": "service=worker severity=critical",
        },
        {"IngressNoReplica", "ProbeFailed"},
    ),
    "an ingress that is gone is told once": (
        {
            "IngressDown": "service=ingress severity=critical",
            "ContainerMissing": "service=ingress severity=critical",
            "ProbeFailed": "service=public severity=critical instance=https://example.org/health",
        },
        {"ContainerMissing", "ProbeFailed"},
    ),
    "an API that is down explains no page of the monitoring": (
        {
            "ApiDown": "service=api severity=critical",
            "ProbeFailed": "service=grafana severity=critical instance=http://grafana:3000/api/health",
        },
        set(),
    ),
    "one replica that is down keeps nothing back": (
        {
            "ApiReplicaDown": "service=api severity=warning instance=api:8000",
            "ProbeFailed": "service=api severity=critical",
        },
        set(),
    ),
    "nothing keeps the Watchdog or a test back": (
        {
            "TestAlert": "service=postgres severity=info",
            "Watchdog": "service=postgres severity=none",
            "PostgresDown": "service=postgres severity=critical",
        },
        set(),
    ),
}


@pytest.mark.live
@pytest.mark.parametrize("story", FIRING)
def test_a_running_alertmanager_keeps_back_what_another_alert_explains(
    laboratory: Laboratory, environment: Environment, story: str
) -> None:
    alerts, kept_back = FIRING[story]
    container = laboratory.healthy_part(spec(environment))
    at = "--alertmanager.url=http://127.0.0.1:9093"
    for name, labels in alerts.items():
        code, said = output(container, "amtool", at, "alert", "add", name, *labels.split())
        assert code == 0, said
    code, said = output(container, "amtool", at, "alert", "query", "--inhibited", "-o", "json")
    assert code == 0, said
    assert {alert["labels"]["alertname"] for alert in json.loads(said)} == kept_back


@pytest.mark.live
def test_of_one_name_the_critical_keeps_the_warning_back_but_never_a_test(
    laboratory: Laboratory, environment: Environment
) -> None:
    container = laboratory.healthy_part(spec(environment))
    at = "--alertmanager.url=http://127.0.0.1:9093"
    for name, labels in (
        ("ApiErrorBudgetBurn", "service=api severity=critical burn=14.4x"),
        ("ApiErrorBudgetBurn", "service=api severity=warning burn=3x"),
        ("PostgresExporterErrors", "service=postgres severity=warning instance=a"),
        ("PostgresExporterErrors", "service=postgres severity=critical instance=b"),
        ("TestAlert", "service=test severity=critical"),
        ("TestAlert", "service=test severity=warning"),
    ):
        assert output(container, "amtool", at, "alert", "add", name, *labels.split())[0] == 0
    code, said = output(container, "amtool", at, "alert", "query", "--inhibited", "-o", "json")
    assert code == 0, said
    assert [alert["labels"].get("burn") for alert in json.loads(said)] == ["3x"]
