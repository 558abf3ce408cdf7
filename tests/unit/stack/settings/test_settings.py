from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from operations.workspace import pasted
from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.images import IMAGES
from stack.parts.api.contract import secret_settings
from stack.settings import connections
from stack.settings.environment import Environment
from stack.settings.images import Images
from stack.settings.part import Published
from stack.settings.reading import read_environment
from stack.settings.tree import Settings
from stack.settings.types import CERTIFICATE, Model, seconds
from tests.facts import facts
from tests.recording import (
    CASES,
    DIGEST,
    ROOT,
    case_config,
    case_environment,
    encrypted,
    merged,
    secret_value,
    wire_config,
)

TAGGED = "registry.example.org/samokoder/api:1.4.2"


def mistakes(stack: str = "staging", /, **values: Any) -> tuple[Mistake, ...]:
    """Read a configuration that must be wrong, and return what is said of it."""
    config = wire_config(values)
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment(stack, config, encrypted(config))
    return caught.value.mistakes


def the_mistake(stack: str = "staging", /, **values: Any) -> Mistake:
    found = mistakes(stack, **values)
    assert len(found) == 1, f"one thing is wrong, and {len(found)} are told: {[str(m) for m in found]}"
    return found[0]


def read(stack: str = "staging", /, **values: Any) -> Environment:
    config = wire_config(values)
    return read_environment(stack, config, encrypted(config))


# A wrong value of one key.


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"ingress": {"port": 0}}, "ingress.port", "0"),
    ({"ingress": {"port": 65536}}, "ingress.port", "65536"),
    ({"ingress": {"port": "8000"}}, "ingress.port", '"8000"'),
    ({"ingress": {"port": 8000.5}}, "ingress.port", "8000.5"),
    ({"ingress": {"port": True}}, "ingress.port", "true"),
    ({"ingress": {"port": None}}, "ingress.port", "null"),
    ({"ingress": {"bindAddress": "localhost"}}, "ingress.bindAddress", '"localhost"'),
    ({"ingress": {"bindAddress": "127.0.0.1:8000"}}, "ingress.bindAddress", '"127.0.0.1:8000"'),
    ({"ingress": {"kind": "nginx"}}, "ingress.kind", '"nginx"'),
    ({"ingress": {"domain": "Example.org"}}, "ingress.domain", '"Example.org"'),
    ({"ingress": {"domain": "https://example.org"}}, "ingress.domain", '"https://example.org"'),
    ({"ingress": {"domain": "localhost"}}, "ingress.domain", '"localhost"'),
    ({"ingress": {"httpsPort": 0}}, "ingress.httpsPort", "0"),
    ({"ingress": {"maxBodyMib": 0}}, "ingress.maxBodyMib", "0"),
    ({"ingress": {"apiPaths": ["projects"]}}, "ingress.apiPaths.0", '"projects"'),
    ({"ingress": {"trustedProxies": ["10.0.0.1/8"]}}, "ingress.trustedProxies.0", '"10.0.0.1/8"'),
    ({"api": {"replicas": 0}}, "api.replicas", "0"),
    ({"api": {"replicas": 17}}, "api.replicas", "17"),
    ({"api": {"stableSeconds": -1}}, "api.stableSeconds", "-1"),
    ({"api": {"memoryMib": 15}}, "api.memoryMib", "15"),
    ({"api": {"memoryMib": "512m"}}, "api.memoryMib", '"512m"'),
    ({"api": {"cpus": 0}}, "api.cpus", "0"),
    ({"api": {"cpus": -1}}, "api.cpus", "-1"),
    ({"api": {"cpus": 0.009}}, "api.cpus", "0.009"),
    ({"api": {"image": "samokoder"}}, "api.image", '"samokoder"'),
    ({"api": {"image": f"{TAGGED}@sha256:12"}}, "api.image", f'"{TAGGED}@sha256:12"'),
    ({"api": {"healthPath": "health"}}, "api.healthPath", '"health"'),
    ({"api": {"command": "uvicorn samokoder.main:app"}}, "api.command", '"uvicorn samokoder.main:app"'),
    ({"api": {"health": {"intervalSeconds": 0}}}, "api.health.intervalSeconds", "0"),
    ({"api": {"health": {"retries": 101}}}, "api.health.retries", "101"),
    ({"worker": {"metricsPort": 0}}, "worker.metricsPort", "0"),
    ({"frontend": {"user": "0:0"}}, "frontend.user", '"0:0"'),
    ({"frontend": {"user": "nginx"}}, "frontend.user", '"nginx"'),
    ({"postgres": {"database": "samo-koder"}}, "postgres.database", '"samo-koder"'),
    ({"postgres": {"superuser": "postgres'; --"}}, "postgres.superuser", '"postgres\'; --"'),
    ({"postgres": {"memoryMib": 128}}, "postgres.memoryMib", "128"),
    ({"postgres": {"maxConnections": 5}}, "postgres.maxConnections", "5"),
    ({"prometheus": {"retentionTime": "15"}}, "prometheus.retentionTime", '"15"'),
    ({"prometheus": {"retentionTime": "15 days"}}, "prometheus.retentionTime", '"15 days"'),
    ({"prometheus": {"retentionTime": "0d"}}, "prometheus.retentionTime", '"0d"'),
    ({"prometheus": {"retentionTime": "15d\n"}}, "prometheus.retentionTime", '"15d\\n"'),
    ({"prometheus": {"retentionTime": 15}}, "prometheus.retentionTime", "15"),
    ({"prometheus": {"retentionSize": "5"}}, "prometheus.retentionSize", '"5"'),
    ({"prometheus": {"retentionSize": "5G"}}, "prometheus.retentionSize", '"5G"'),
    ({"prometheus": {"retentionSize": "5 GB"}}, "prometheus.retentionSize", '"5 GB"'),
    ({"prometheus": {"scrapeInterval": "often"}}, "prometheus.scrapeInterval", '"often"'),
    ({"alertmanager": {"telegram": {"chatId": "-100"}}}, "alertmanager.telegram.chatId", '"-100"'),
    ({"dockerHost": "localhost:2375"}, "dockerHost", '"localhost:2375"'),
    ({"dockerHost": "http://localhost"}, "dockerHost", '"http://localhost"'),
    ({"dockerHost": "ssh://me:word@host"}, "dockerHost", '"ssh://me:word@host"'),
    ({"unavailable": ["postgres"]}, "unavailable.0", '"postgres"'),
    ({"production": "yes"}, "production", '"yes"'),
    ({"production": 1}, "production", "1"),
    ({"host": {"memoryMib": 100}}, "host.memoryMib", "100"),
    ({"host": {"cpus": 0}}, "host.cpus", "0"),
    ({"images": {"redis": "redis"}}, "images.redis", '"redis"'),
    ({"rotation": {"redisApp": 0}}, "rotation.redisApp", "0"),
    ({"rotation": {"redisApp": "2"}}, "rotation.redisApp", '"2"'),
    (
        {"cadvisor": {"containerdSocket": "/var/containerd.sock"}},
        "cadvisor.containerdSocket",
        '"/var/containerd.sock"',
    ),
    ({"api": 8000}, "api", "8000"),
    ({"api": []}, "api", "[]"),
    ({"api": None}, "api", "null"),
    ({"api": "port: 8000"}, "api", '"port: 8000"'),
]


def test_a_wrong_value_is_told_with_its_key_what_is_allowed_and_an_example() -> None:
    with facts() as fact:
        for values, key, given in WRONG:
            with fact(f"{key} is {given}"):
                check_wrong(values, key, given)


def check_wrong(values: dict[str, Any], key: str, given: str) -> None:
    wrong = [mistake for mistake in mistakes(**values) if mistake.given == given]
    assert [mistake.key for mistake in wrong] == [f"samokoder:{key}"], "a person looks for the key in the YAML"
    assert wrong[0].allowed, "what is allowed must be said"
    if not key.endswith(".0"):
        assert wrong[0].example.startswith(f"samokoder:{key}: "), "an example can be copied"
    text = str(InvalidSettingsError("staging", wrong))
    for line in (f"samokoder:{key}", f"is:    {given}", f"needs: {wrong[0].allowed}"):
        assert line in text


@pytest.mark.parametrize(("required", "section"), [("chatId", "telegram"), ("smarthost", "email"), ("sender", "email")])
def test_a_missing_value_is_told_as_nothing(required: str, section: str) -> None:
    key = f"samokoder:alertmanager.{section}.{required}"
    (wrong,) = [mistake for mistake in mistakes(alertmanager={section: {}}) if mistake.key == key]
    assert wrong.given == "nothing"
    assert wrong.example.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("health", "needed"),
    [
        ({"waitTimeoutSeconds": 40}, 40),
        ({"intervalSeconds": 30, "retries": 10, "startPeriodSeconds": 20}, 320),
        ({"startPeriodSeconds": 3600}, 3630),
    ],
)
def test_a_wait_that_ends_before_the_health_check_may_is_refused(health: dict[str, int], needed: int) -> None:
    wrong = the_mistake(redis={"health": health})
    assert wrong.key == "samokoder:redis.health"
    assert json.loads(wrong.given) == health
    assert f"= {needed} seconds" in wrong.allowed
    proposed = re.search(r"write waitTimeoutSeconds: (\d+)", wrong.allowed)
    assert proposed, "the message must say a number that works"
    read(redis={"health": health | {"waitTimeoutSeconds": int(proposed[1])}})


def test_a_wait_that_outlasts_the_health_check_by_a_second_is_taken() -> None:
    read(redis={"health": {"waitTimeoutSeconds": 41}})


@pytest.mark.parametrize("duration", ["15d", "90m", "1y", "500ms", "2w"])
def test_prometheus_own_durations_are_taken(duration: str) -> None:
    assert read(prometheus={"retentionTime": duration}).settings.prometheus.retention_time == duration


@pytest.mark.parametrize(
    ("text", "length"), [("500ms", 0.5), ("15s", 15), ("2m", 120), ("1h", 3600), ("1d", 86400), ("1w", 604800)]
)
def test_a_duration_has_its_length_in_seconds(text: str, length: float) -> None:
    assert seconds(text) == length


# Unknown keys.


@pytest.mark.parametrize(
    ("values", "key", "meant"),
    [
        ({"prometeus": {}}, "prometeus", "prometheus"),
        ({"productoin": True}, "productoin", "production"),
        ({"telegramToken": "x"}, "telegramToken", "telegramBotToken"),
        ({"ingress": {"prot": 8000}}, "ingress.prot", "port"),
        ({"api": {"port": 8000}}, "api.port", ""),
        ({"api": {"memoryMiB": 8000}}, "api.memoryMiB", "memoryMib"),
        ({"redis": {"health": {"interval": 5}}}, "redis.health.interval", "intervalSeconds"),
        ({"alertmanager": {"telegram": {"chatId": 1, "chat": 1}}}, "alertmanager.telegram.chat", "chatId"),
        ({"images": {"postgress": DIGEST}}, "images.postgress", "postgres"),
    ],
)
def test_an_unknown_key_is_a_mistake_with_a_suggestion(values: dict[str, Any], key: str, meant: str) -> None:
    (wrong,) = [mistake for mistake in mistakes(**values) if mistake.key == f"samokoder:{key}"]
    assert wrong.given == "a key that does not exist", "a misspelled key that is ignored is found in production"
    assert meant in wrong.allowed
    assert wrong.example == (f"did you mean samokoder:…{meant}?" if meant else "")


def test_a_key_that_is_like_no_other_is_told_without_a_guess() -> None:
    wrong = the_mistake(ingress={"zzzz": 1})
    assert wrong.example == ""
    assert "port" in wrong.allowed


def test_an_unknown_key_never_shows_its_value() -> None:
    value = secret_value("misplaced")
    config = wire_config({"telegramToken": value})
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment("staging", config, frozenset(config))
    assert value not in str(caught.value), "a misspelled secret is still a secret"
    assert "telegramBotToken" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "nested", "typed"),
    [
        ("api.replicas", 16, "samokoder:api:\n  replicas: 16", "samokoder:api.replicas 16"),
        (
            "alertmanager.telegram.chatId",
            -100,
            "samokoder:alertmanager:\n  telegram:\n    chatId: -100",
            "samokoder:alertmanager.telegram.chatId -- -100",
        ),
        ("worker.cpus", 0.5, "samokoder:worker:\n  cpus: 0.5", "--type float samokoder:worker.cpus 0.5"),
        (
            "postgres.adoptVolume",
            "2026",
            'samokoder:postgres:\n  adoptVolume: "2026"',
            "--type string samokoder:postgres.adoptVolume 2026",
        ),
        ("migrations.command", ["alembic", "up"], 'samokoder:migrations:\n  command: ["alembic", "up"]', None),
        (
            "api.environment.LEVEL",
            "x",
            'samokoder:api:\n  environment:\n    LEVEL: "…"',
            "samokoder:api.environment.LEVEL …",
        ),
    ],
)
def test_a_setting_under_one_name_with_dots_is_told_in_its_nested_form(
    key: str, value: Any, nested: str, typed: str | None
) -> None:
    wrong = the_mistake(**{key: value})
    assert wrong.key == f"samokoder:{key}", "the tables name it so, and so it was written"
    first, _, commands = wrong.example.partition("\nand no line with dots")
    assert first == nested, "what belongs into the file can be copied"
    document = {name.removeprefix("samokoder:"): inner for name, inner in yaml.safe_load(first).items()}
    assert Settings.model_validate_json(json.dumps(document)) != Settings(), "and is taken as it stands"
    lines = [pasted.command("prod", line) for line in commands.splitlines()[1:]]
    expected = ["config rm samokoder:" + key, f"config set --path {typed}"] if typed else []
    assert lines == [f"make pulumi ENV=prod ARGS='{words}'" for words in expected], "or is done by what is pasted"


def test_a_misspelled_end_of_a_name_with_dots_is_told_with_what_its_section_has() -> None:
    wrong = the_mistake(**{"api.replcas": 16})
    assert (wrong.key, wrong.given) == ("samokoder:api.replcas", "a key that does not exist")
    assert wrong.example == "did you mean samokoder:…replicas?"
    assert "grafana" not in wrong.allowed, "forty keys of the whole file help nobody"
    assert the_mistake(**{"zzz.memoryMib": 1}).example == "", "what has no section is no setting of another one"


def test_an_encrypted_value_under_a_name_with_dots_is_not_shown() -> None:
    value = secret_value("misplaced")
    for key in ("samokoder:api.image", "samokoder:api.environment.TOKEN", "samokoder:api.tokn"):
        with pytest.raises(InvalidSettingsError) as caught:
            read_environment("staging", {key: value}, frozenset({key}))
        assert value not in str(caught.value), key
        assert key in str(caught.value)


def test_keys_of_other_projects_are_nobodys_business() -> None:
    config = {"docker:host": "x", "pulumi:tags": "y"}
    assert read_environment("staging", config).settings == Settings()


# Rules over several keys.


def test_two_parts_on_one_port_are_refused() -> None:
    wrong = the_mistake(grafana={"port": 9090})
    assert (wrong.key, wrong.given) == ("samokoder:grafana.port", "9090")
    assert "samokoder:prometheus.port has it already" in wrong.allowed, "who has it must be said"
    read(grafana={"port": int(wrong.example.removeprefix("samokoder:grafana.port: "))})


def proposed(**values: Any) -> dict[str, int]:
    """The ports that are proposed where parts share one."""
    return {
        wrong.key.split(".")[0].removeprefix("samokoder:"): int(wrong.example.rpartition(": ")[2])
        for wrong in mistakes(**values)
    }


def test_a_port_that_is_proposed_is_one_that_no_other_part_has_and_that_there_is() -> None:
    last = {"prometheus": {"port": 65535}, "alertmanager": {"port": 65534}}
    for port, shared in ((65535, last), (65534, last), (8000, {})):
        ports = proposed(grafana={"port": port}, **shared)
        read(grafana={"port": ports["grafana"]}, **shared)
    shared = {name: {"port": 9090} for name in ("grafana", "alertmanager", "prometheus", "cadvisor")}
    ports = proposed(**shared)
    assert len(ports) == 3
    read(**{name: {"port": ports.get(name, 9090)} for name in shared})  # all of them pasted at once


def test_a_part_that_does_not_run_takes_no_port() -> None:
    read(grafana={"port": 9090}, unavailable=["grafana"])
    read(frontend={"port": 8000})
    mistakes(frontend={"port": 8000, "image": f"{TAGGED}@{DIGEST}"})


def test_an_ingress_with_a_domain_is_public_and_takes_the_ports_of_the_web() -> None:
    ingress = read(ingress={"domain": "samokoder.example.org"}).settings.ingress
    assert (ingress.port, ingress.https_port, ingress.bind_address) == (80, 443, "0.0.0.0")  # noqa: S104
    assert ingress.bind_reason, "why it is public must be said"
    inside = {"domain": "samokoder.example.org", "port": 8081, "bindAddress": "127.0.0.1", "httpsPort": 8443}
    ingress = read(ingress=inside).settings.ingress
    assert (ingress.port, ingress.https_port, ingress.bind_address) == (8081, 8443, "127.0.0.1"), (
        "one's own choice wins"
    )


def test_the_address_of_an_ingress_with_a_domain_is_the_domains() -> None:
    assert read().settings.ingress.url == "http://127.0.0.1:8000"
    assert read(ingress={"domain": "a.example.org"}).settings.ingress.url == "https://a.example.org"
    assert read(ingress={"domain": "a.example.org", "httpsPort": 8443}).settings.ingress.url == (
        "https://a.example.org:8443"
    )


def test_the_port_for_https_is_taken_only_with_a_domain() -> None:
    read(grafana={"port": 443})
    wrong = the_mistake(grafana={"port": 443}, ingress={"domain": "samokoder.example.org"})
    assert (wrong.key, wrong.given) == ("samokoder:grafana.port", "443")
    assert "samokoder:ingress.httpsPort has it already" in wrong.allowed, "who has it must be said"
    (wrong,) = mistakes(ingress={"domain": "samokoder.example.org", "port": 443})
    assert wrong.key == "samokoder:ingress.httpsPort", "its own two ports may clash as well"


def test_an_existing_traefik_needs_its_network_and_a_domain_and_no_port_of_ours() -> None:
    wrong = mistakes(ingress={"kind": "traefik"})
    assert [mistake.key for mistake in wrong] == ["samokoder:ingress.domain", "samokoder:ingress.traefik.network"]
    where = {"network": "web", "address": "172.30.0.2"}
    labels = {"kind": "traefik", "domain": "samokoder.example.org", "traefik": where}
    environment = read(ingress=labels, grafana={"port": 8000})
    assert "ingress" in environment.absent, "there is no Caddy, so its port is free"
    assert environment.settings.ingress.bind_address == "127.0.0.1", "nothing of ours is public then"


def test_a_replica_that_could_never_be_healthy_in_time_is_refused() -> None:
    wrong = the_mistake(api={"stableSeconds": 110})
    assert wrong.key == "samokoder:api"
    assert "stableSeconds + 2 x intervalSeconds = 120 seconds" in wrong.allowed, "each update would fail"
    read(api={"stableSeconds": 110, "health": {"waitTimeoutSeconds": 180}})


def test_the_teams_own_image_has_migrations_only_with_a_command() -> None:
    own = {"image": f"{TAGGED}@{DIGEST}"}
    assert "migrations" in read().running(), "the reference application has its own"
    assert "migrations" not in read(api=own).running(), "nobody knows how the team's image migrates"
    assert "migrations" in read(api=own, migrations={"command": ["alembic", "upgrade", "head"]}).running()


def test_there_is_a_frontend_where_one_is_enabled_or_configured() -> None:
    assert "frontend" not in read().running()
    assert "frontend" in read(frontend={"enabled": True}).running()
    assert "frontend" in read(frontend={"image": f"{TAGGED}@{DIGEST}"}).running()


def test_the_parts_of_a_setting_are_named_and_the_apis_counted() -> None:
    environment = read(api={"replicas": 3}, host={"memoryMib": 8192})
    assert environment.parts_of("api") == ["api-1", "api-2", "api-3"]
    assert environment.parts_of("postgres_exporter") == ["postgres-exporter"]


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "::"])  # noqa: S104
@pytest.mark.parametrize("reason", [None, "", "   "])
def test_a_port_beyond_loopback_needs_a_reason(address: str, reason: str | None) -> None:
    part = {"bindAddress": address} | ({} if reason is None else {"bindReason": reason})
    wrong = the_mistake(ingress=part)
    assert wrong.key == "samokoder:ingress.bindAddress"
    assert wrong.given == address
    assert "loopback" in wrong.allowed
    assert wrong.example.startswith("samokoder:ingress.bindReason")
    read(ingress=part | {"bindReason": "behind the load balancer"})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1"])
def test_every_loopback_address_is_taken_without_a_reason(address: str) -> None:
    assert read(ingress={"bindAddress": address}).settings.ingress.bind_address == address


@pytest.mark.parametrize("part", ["prometheus", "alertmanager"])
def test_who_can_silence_alerts_from_outside_must_know_a_password(part: str) -> None:
    outside = {"bindAddress": "0.0.0.0", "bindReason": "the team's VPN"}  # noqa: S104
    wrong = the_mistake(**{part: outside})
    assert wrong.key == f"samokoder:{part}.bindAddress"
    assert wrong.example == "samokoder:basicAuth: always"
    read(**{part: outside}, basicAuth="always")
    (wrong,) = [each for each in mistakes(**{part: outside}, production=True, basicAuth="never") if "bind" in each.key]
    assert wrong.key == f"samokoder:{part}.bindAddress", "production as well"


@pytest.mark.parametrize(
    ("asked", "staging", "production"),
    [("production", False, True), ("always", True, True), ("never", False, False)],
)
def test_passwords_are_asked_for_where_the_setting_says(asked: str, staging: bool, production: bool) -> None:
    environment = read(basicAuth=asked)
    assert environment.basic_auth is staging
    settings = environment.settings.model_copy(update={"production": True})
    assert environment.model_copy(update={"settings": settings}).basic_auth is production


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("diskLowPercent", "diskAlmostFullPercent"),
        ("tlsExpiresDays", "tlsExpiresVerySoonDays"),
        ("tlsExpiresPercent", "tlsExpiresVerySoonPercent"),
    ],
)
def test_the_critical_threshold_comes_after_the_warning(first: str, second: str) -> None:
    wrong = the_mistake(alerts={first: 4.0, second: 4.0})
    assert wrong.key == f"samokoder:alerts.{second}"
    assert first in wrong.allowed, "which other key it is about"
    read(alerts={first: 4.0, second: float(wrong.example.rpartition(": ")[2])})


def test_what_counts_as_fast_is_a_bucket_of_the_histogram() -> None:
    wrong = the_mistake(alerts={"apiFastSeconds": 0.3})
    assert "0.25, 0.5" in wrong.allowed, "the nearest ones are among those that are told"


def memory(environment: Environment) -> int:
    """The sum of the limits, in MiB."""
    return sum(part.memory_mib * len(environment.parts_of(name)) for name, part in environment.running().items())


def test_more_memory_than_the_host_has_is_refused_with_the_sum() -> None:
    total = memory(read())
    wrong = the_mistake(host={"memoryMib": total - 1})
    assert wrong.key == "samokoder:host.memoryMib"
    assert wrong.given == str(total - 1)
    assert f"at least {total} MiB" in wrong.allowed
    assert wrong.example == f"samokoder:host.memoryMib: {total}"
    read(host={"memoryMib": total})


def test_a_part_that_does_not_run_takes_no_memory() -> None:
    read(host={"memoryMib": memory(read()) - Settings().grafana.memory_mib}, unavailable=["grafana"])


def test_each_replica_takes_its_memory() -> None:
    total, one = memory(read()), Settings().api.memory_mib
    wrong = the_mistake(host={"memoryMib": total}, api={"replicas": 3})
    assert f"at least {total + one} MiB" in wrong.allowed, (
        "a third replica on a full host would be killed by the kernel"
    )
    assert f"api {3 * one}" in wrong.allowed, "what takes the most is named with all its replicas"
    read(host={"memoryMib": total - one}, api={"replicas": 1})


LARGE = {"memoryMib": 65536, "cpus": 16}


def test_more_connections_than_postgres_takes_are_refused_with_the_sum_and_what_to_write() -> None:
    wrong = the_mistake(api={"replicas": 16}, host=LARGE)
    assert (wrong.key, wrong.given) == ("samokoder:postgres.maxConnections", "100")
    needed = int(re.search(r"at least (\d+)", wrong.allowed)[1])  # type: ignore[index]
    summands = wrong.allowed.partition(": ")[2].partition(". ")[0].split(" + ")
    assert "api 16 x 10" in summands, "replicas times their pool is what grows"
    assert {each.rpartition(" ")[0] for each in summands} >= {"postgres-exporter", "backup", "postgres-roles"}
    assert sum(math.prod(map(int, re.findall(r"\d+", each))) for each in summands) == needed, "the sum is the sum"
    large = {"api": {"replicas": 16}, "host": LARGE}
    read(postgres={"maxConnections": needed}, **large)
    mistakes(postgres={"maxConnections": needed - 1}, **large)
    read(postgres={"maxConnections": int(wrong.example.rpartition(": ")[2])}, **large)


def test_the_pool_that_is_supposed_of_the_reference_application_is_its_own() -> None:
    text = (ROOT / "reference_app/samokoder/db.py").read_text(encoding="utf-8")
    sizes = re.findall(r"(?:pool_size|max_overflow)=(\d+)", text)
    assert sum(map(int, sizes)) == connections.REFERENCE_POOL, "or the sum at preview is of another program"


def test_an_images_own_pool_counts_in_place_of_what_is_supposed() -> None:
    own = {"image": f"{TAGGED}@{DIGEST}", "replicas": 6}
    (told,) = connections.warnings(read(api=own, host=LARGE))
    assert "api 6 x 15" in told, "of a team's image SQLAlchemy's own default is supposed"
    assert "worker 10" in told
    assert "migrations" not in told, "what does not run does not connect"
    assert not list(connections.warnings(read(api=own | {"databaseConnections": 5}, host=LARGE)))
    wrong = the_mistake(api=own | {"databaseConnections": 30}, host=LARGE)
    assert "api 6 x 30" in wrong.allowed, "what is known and does not fit is refused"
    the_mistake(worker={"databaseConnections": 80}, host=LARGE)


def test_a_managed_database_has_a_limit_that_is_not_known_here() -> None:
    url = {"managedDatabaseUrl": f"postgresql://a:{secret_value('database')}@db.example.org/samokoder"}
    read(api={"replicas": 16}, host=LARGE, **url)


def test_more_cores_than_the_host_has_are_refused() -> None:
    wrong = the_mistake(prometheus={"cpus": 2.5})
    assert (wrong.key, wrong.given) == ("samokoder:prometheus.cpus", "2.5")
    assert "at most 2" in wrong.allowed
    read(prometheus={"cpus": 2.5}, host={"cpus": 3})


def test_redis_keeps_a_fifth_of_its_memory_for_itself() -> None:
    wrong = the_mistake(redis={"maxmemoryMib": 205})
    assert (wrong.key, wrong.given) == ("samokoder:redis.maxmemoryMib", "205")
    assert wrong.example == "samokoder:redis.maxmemoryMib: 204"
    read(redis={"maxmemoryMib": 204})
    wrong = the_mistake(redis={"maxmemoryMib": 17, "memoryMib": 18})
    assert wrong.example == "samokoder:redis.memoryMib: 22", "redis.maxmemoryMib: 14 would be refused in its turn"
    read(redis={"maxmemoryMib": 17, "memoryMib": 22})


def test_the_part_that_loads_copies_of_redis_has_room_for_a_full_one() -> None:
    larger = {"maxmemoryMib": 512, "memoryMib": 640}
    host = {"memoryMib": 8192}
    wrong = the_mistake(redis=larger, host=host)
    assert (wrong.key, wrong.given) == ("samokoder:drill.memoryMib", "384"), "each copy of a full Redis would fail"
    assert wrong.example == "samokoder:drill.memoryMib: 736"
    assert "samokoder:redis.maxmemoryMib (512)" in wrong.allowed
    read(redis=larger, host=host, drill={"memoryMib": 736})
    read(redis=larger, host=host, backup={"enabled": False})


def test_a_scrape_that_may_take_longer_than_its_interval_is_refused() -> None:
    wrong = the_mistake(prometheus={"scrapeInterval": "5s"})
    assert (wrong.key, wrong.given) == ("samokoder:prometheus.scrapeTimeout", "10s")
    assert wrong.example == 'samokoder:prometheus.scrapeTimeout: "5s"'
    read(prometheus={"scrapeInterval": "10s"})


@pytest.mark.parametrize("short", ["1s", "500ms"])
def test_a_scrape_that_is_given_up_before_an_exporter_can_tell_of_a_silent_server_is_refused(short: str) -> None:
    wrong = the_mistake(prometheus={"scrapeTimeout": short})
    assert (wrong.key, wrong.given) == ("samokoder:prometheus.scrapeTimeout", short)
    assert wrong.example == 'samokoder:prometheus.scrapeTimeout: "2s"'
    settings = read(prometheus={"scrapeTimeout": "2s"}).settings.prometheus
    assert max(settings.connect_seconds, settings.answer_seconds) < 2, "the scrape is given up first"


def test_what_is_to_be_written_in_place_of_a_short_interval_is_accepted() -> None:
    found = mistakes(prometheus={"scrapeInterval": "1s"})
    assert [wrong.example for wrong in found] == [
        'samokoder:prometheus.scrapeInterval: "2s"',
        'samokoder:prometheus.scrapeTimeout: "2s"',
    ]
    read(prometheus={"scrapeInterval": "2s", "scrapeTimeout": "2s"})


@pytest.mark.parametrize(
    ("alertmanager", "secret", "because"),
    [
        ({"telegram": {"chatId": -1}}, "telegramBotToken", "samokoder:alertmanager.telegram"),
        (
            {"email": {"smarthost": "a:25", "sender": "a@b", "recipient": "c@d", "username": "a"}},
            "smtpPassword",
            "samokoder:alertmanager.email.username",
        ),
    ],
)
def test_a_setting_without_the_secret_it_needs_is_refused(
    alertmanager: dict[str, Any], secret: str, because: str
) -> None:
    wrong = the_mistake(alertmanager=alertmanager)
    assert (wrong.key, wrong.given) == (f"samokoder:{secret}", "nothing")
    assert because in wrong.allowed
    assert wrong.example == f"pulumi config set --secret samokoder:{secret}"


def test_e_mail_without_a_login_needs_no_password() -> None:
    read(alertmanager={"email": {"smarthost": "a:25", "sender": "a@b", "recipient": "c@d"}})


@pytest.mark.parametrize("part", ["api", "worker"])
@pytest.mark.parametrize("setting", ["FOO", "OPENAI_API_KEY", "REDIS_HOST"])
def test_only_a_secret_that_there_is_can_be_put_into_the_environment(part: str, setting: str) -> None:
    wrong = the_mistake(**{part: {"secretsInEnvironment": ["SECRET_KEY", setting]}})
    assert (wrong.key, wrong.given) == (f"samokoder:{part}.secretsInEnvironment", setting)
    assert "APP_SECRET_KEY" in wrong.allowed
    assert setting not in wrong.allowed


@pytest.mark.parametrize("setting", ["SECRET_KEY", "SAMOKODER_DATABASE_URL", "REDIS_PASSWORD", "OPENAI_API_KEY"])
def test_a_secret_setting_in_plain_text_is_refused_and_not_shown(setting: str) -> None:
    value = secret_value("plain")
    wrong = the_mistake(worker={"environment": {setting: value}})
    assert wrong.key == f"samokoder:worker.environment.{setting}"
    assert value not in str(wrong)
    assert "secretsInEnvironment" in wrong.allowed


@pytest.mark.parametrize("case", CASES)
def test_the_names_of_the_secret_settings_are_those_that_the_contract_makes(case: str) -> None:
    environment = case_environment(case)
    assert environment.secret_settings == secret_settings(environment).keys(), (
        "a name that passes the settings and is not made ends in a traceback in place of a sentence"
    )


# Production.

PRODUCTION = case_config("prod")[1]


def without(path: str) -> dict[str, Any]:
    """Return the production example without one key."""
    values = json.loads(json.dumps(PRODUCTION))
    *sections, last = path.split(".")
    node = values
    for section in sections:
        node = node[section]
    del node[last]
    return dict(values)


def test_the_production_example_is_whole() -> None:
    assert read("prod", **PRODUCTION).settings.production


@pytest.mark.parametrize(
    ("missing", "key"),
    [
        ("alertmanager.telegram", "alertmanager.telegram.chatId"),
        ("telegramBotToken", "telegramBotToken"),
        ("api.image", "api.image"),
        ("worker.image", "worker.image"),
    ],
)
def test_what_production_needs_is_told_with_how_to_set_it(missing: str, key: str) -> None:
    wrong = the_mistake("prod", **without(missing))
    assert (wrong.key, wrong.given) == (f"samokoder:{key}", "nothing")
    assert key.rpartition(".")[2] in wrong.example


def test_the_committed_production_file_says_all_that_is_missing_at_once() -> None:
    stack, _ = CASES["prod"]
    values = {name: value for name, value in PRODUCTION.items() if name != "telegramBotToken"}
    values = merged(values, {"api": {"image": None}, "worker": {"image": None}, "alertmanager": {"telegram": None}})
    assert [mistake.key.removeprefix("samokoder:") for mistake in mistakes(stack, **values)] == [
        "alertmanager.telegram.chatId",
        "api.image",
        "telegramBotToken",
        "worker.image",
    ]


IMAGE_SETTINGS = [f"images.{to_camel(name)}" for name in Images.model_fields]
IMAGE_SETTINGS += [
    f"{to_camel(name)}.image"
    for name, field in Settings.model_fields.items()
    if "image" in getattr(field.annotation, "model_fields", {})
]


@pytest.mark.parametrize("setting", IMAGE_SETTINGS)
def test_production_takes_no_image_without_its_digest(setting: str) -> None:
    section, _, name = setting.partition(".")
    tag = f"registry.example.org/{name.lower()}:1.2"
    wrong = the_mistake("prod", **merged(PRODUCTION, {section: {name: tag}}))
    assert (wrong.key, wrong.given) == (f"samokoder:{setting}", tag)
    assert "digest" in wrong.allowed
    assert wrong.example == f"samokoder:{setting}: {tag}@sha256:…"
    read("prod", **merged(PRODUCTION, {section: {name: f"{tag}@{DIGEST}"}}))
    read("prod", **merged(PRODUCTION, {section: {name: DIGEST}}))
    read("staging", **{section: {name: tag}})


@pytest.mark.parametrize("tag", ["18", "16.4-bookworm", "14-alpine", "9.6", "17rc1"])
def test_another_major_version_of_postgresql_is_refused_before_the_running_one_is_ended(tag: str) -> None:
    wrong = the_mistake(images={"postgres": f"mirror.example.org/postgres:{tag}@{DIGEST}"})
    assert wrong.key == "samokoder:images.postgres"
    assert "dump and restore" in wrong.allowed
    assert wrong.example.startswith("samokoder:images.postgres: postgres:15.")


@pytest.mark.parametrize("image", ["postgres:15", f"mirror.example.org/pg:15.19-2@{DIGEST}", "team/pg:2026.1", DIGEST])
def test_an_image_of_this_postgresql_or_of_an_unknown_one_is_taken(image: str) -> None:
    read("staging", images={"postgres": image})


def test_every_image_setting_is_asked_for_its_digest() -> None:
    applications = {f"{name}.image" for name in ("api", "worker", "frontend")}
    assert set(IMAGE_SETTINGS) == applications | {f"images.{to_camel(name)}" for name in [*IMAGES, "backup"]}, (
        "an image that nobody pins would run in production as whatever its tag is today"
    )


# All at once.


def test_all_mistakes_are_told_at_once_in_the_order_of_their_keys() -> None:
    found = mistakes(
        "Prod",
        production=True,
        api={"replicas": 0},
        ingress={"port": 0, "bindAddress": "0.0.0.0", "zzz": 1},  # noqa: S104
        worker={"health": {"waitTimeoutSeconds": 1}},
        prometheus={"retentionTime": "long", "retentionSize": "big"},
        redis={"maxmemoryMib": 4000},
        host={"memoryMib": 512},
        telegramBotToken="changeme",
        nonsense={},
    )
    keys = [mistake.key.removeprefix("samokoder:") for mistake in found]
    assert keys == [
        "alertmanager.telegram.chatId",
        "api.image",
        "api.replicas",
        "backup.offsite",
        "drill.memoryMib",
        "host.memoryMib",
        "ingress.bindAddress",
        "ingress.port",
        "ingress.zzz",
        "nonsense",
        "prometheus.retentionSize",
        "prometheus.retentionTime",
        "redis.maxmemoryMib",
        "telegramBotToken",
        "worker.health",
        "worker.image",
        "the stack's name",
    ], "whoever corrects one mistake at a time starts an update for each"
    text = str(InvalidSettingsError("Prod", found))
    assert text.startswith("17 mistakes in the configuration of 'Prod'\n\n")
    assert text.count("\n\n") == len(found), "one block for each"


def test_one_mistake_is_called_one() -> None:
    assert str(InvalidSettingsError("staging", mistakes(ingress={"port": 0}))).startswith(
        "1 mistake in the configuration"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"alertmanager": {"port": 9999, "email": {}}},
        {"alertmanager": {"port": 9999, "email": {"smarthost": 1, "sender": 1, "recipient": 1, "other": 1}}},
        {"ingress": {"apiPaths": ["not", "one", "right"], "port": 9999}},
        {"ingress": {"traefik": {"network": 1, "entrypoint": 2}, "port": 9999}},
        {"unavailable": ["a", "b", "c"], "ingress": {"port": 9999}},
    ],
)
def test_two_mistakes_in_one_place_do_not_hide_the_others(wrong: dict[str, Any]) -> None:
    found = mistakes("prod", **wrong, production=True, prometheus={"port": 9999})
    keys = {mistake.key for mistake in found}
    assert {"samokoder:api.image", "samokoder:worker.image"} <= keys, "that this is production was forgotten"
    assert keys & {"samokoder:prometheus.port", "samokoder:alertmanager.port", "samokoder:ingress.port"}, (
        "the port of the same section was forgotten"
    )


def test_a_mistake_hides_no_rule_of_a_key_that_only_begins_alike() -> None:
    keys = {m.key for m in mistakes(postgres=5, postgresExporter={"bindAddress": "0.0.0.0"})}  # noqa: S104
    assert keys == {"samokoder:postgres", "samokoder:postgresExporter.bindAddress"}
    keys = {m.key for m in mistakes(telegram={}, alertmanager={"telegram": {"chatId": 1}})}
    assert keys == {"samokoder:telegram", "samokoder:telegramBotToken"}


def test_a_rule_says_nothing_of_a_key_that_is_wrong_already() -> None:
    wrong = the_mistake(ingress={"bindAddress": "everywhere"})
    assert wrong.given == '"everywhere"'


def test_an_encrypted_setting_that_is_no_secret_is_refused_and_not_shown() -> None:
    value = secret_value("nested")
    config = wire_config({"api": {"environment": {"MY_KEY": value}, "healthPath": value}})
    with pytest.raises(InvalidSettingsError) as caught:
        read_environment("staging", config, frozenset(config))
    (wrong,) = caught.value.mistakes
    assert wrong.key == "samokoder:api"
    assert value not in str(caught.value), "what somebody encrypted is printed"
    assert wrong.example == "pulumi config rm samokoder:api"


@pytest.mark.parametrize("stack", ["", "s", "Staging", "1st", "a_b", "a.b", "prod-", "x" * 33, "prod\n"])
def test_a_stack_name_that_is_no_name_on_the_engine_is_refused(stack: str) -> None:
    wrong = the_mistake(stack)
    assert wrong.key == "the stack's name"
    assert wrong.given == stack


@pytest.mark.parametrize("stack", ["staging", "prod", "pr-123", "x" * 32])
def test_a_stack_name_that_is_one_is_taken(stack: str) -> None:
    assert read(stack).prefix == f"samokoder-{stack}"


# Whatever is in the file, it is read or refused with a sentence.

JUNK = [
    "",
    " ",
    "null",
    "[]",
    "{}",
    "NaN",
    "1e999",
    "-0",
    '"x"',
    "{",
    "[[[[",
    "true",
    "\\u0000",
    "€",
    '{"a":{"b":[1]}}',
    "-1",
]


def test_junk_is_read_or_refused_with_a_sentence_and_never_a_traceback() -> None:
    with facts() as fact:
        for field in (*map(to_camel, Settings.model_fields), *CONFIGURED_SECRETS, "nonsense"):
            for junk in JUNK:
                with fact(f"{field} is {junk!r}"):
                    check_junk(field, junk)


def check_junk(field: str, junk: str) -> None:
    key = f"samokoder:{field}"
    said: tuple[Mistake, ...] = ()
    try:
        read_environment("staging", {key: junk}, encrypted({key: junk}))
    except InvalidSettingsError as error:
        said = error.mistakes
    else:
        return
    assert all(mistake.key and mistake.given and mistake.allowed for mistake in said)
    if (field, junk) != ("production", "true"):  # which is right, and asks for other keys
        assert any(mistake.key.startswith(key) for mistake in said), "the mistake is told of another key"
    if field in CONFIGURED_SECRETS and len(junk) > len("null"):
        assert not any(junk in str(mistake) for mistake in said), "what was given as a secret is shown"


def _numbers(model: type[Model], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Model):
            found += _numbers(inner, (*path, to_camel(name)))
        elif any(kind in str(inner) for kind in ("int", "float")):
            found.append((*path, to_camel(name)))
    return found


def test_a_number_out_of_range_is_refused_by_its_key() -> None:
    with facts() as fact:
        for path in _numbers(Settings):
            for number in (-(2**63), -1, 2**40):
                with fact(f"{'.'.join(path)} is {number}"):
                    check_number(path, number)


def check_number(path: tuple[str, ...], number: int) -> None:
    values: Any = number
    for step in reversed(path):
        values = {step: values}
    if path[0] == "frontend":
        values["frontend"]["image"] = f"{TAGGED}@{DIGEST}"  # without one it does not run and needs nothing
    if path[0] == "workspace":
        values["workspace"]["path"] = "/app/workspace"  # nor does this one
    if path[0] in ("host", "rotation") and number > 0:
        assert read(**values), "a host may have any size, and a secret any generation"
        return
    keys = {mistake.key for mistake in mistakes(**values)}
    own = f"samokoder:{'.'.join(path)}"
    assert own in keys or "samokoder:host.memoryMib" in keys, f"{own} took {number}"


# The models themselves.


def _models(model: type[Model]) -> list[type[Model]]:
    inner: list[type[Model]] = [
        kind
        for field in model.model_fields.values()
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
        if isinstance(kind, type) and issubclass(kind, Model)
    ]
    return [model, *(found for kind in inner for found in _models(kind))]


ALL_MODELS = {model.__name__: model for model in _models(Settings)}


@pytest.mark.parametrize("model", ALL_MODELS.values(), ids=ALL_MODELS)
def test_every_model_is_frozen_strict_and_knows_its_keys(model: type[Model]) -> None:
    config = model.model_config
    assert config.get("frozen"), "settings that change after the check were never checked"
    assert config.get("strict"), '"8000" for 8000 hides what the file really says'
    assert config.get("extra") == "forbid", "an ignored key is a typing error that nobody finds"
    assert config.get("hide_input_in_errors"), "pydantic's own message would print the value"


@pytest.mark.parametrize("model", ALL_MODELS.values(), ids=ALL_MODELS)
def test_every_setting_says_what_it_is_and_has_an_example_that_it_takes(model: type[Model]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} is a row without words in the README"
        assert field.examples, f"{model.__name__}.{name} has no example for the message of a mistake"
        if model is Settings and name == "images":
            continue
        needed = {n: f.examples[0] for n, f in model.model_fields.items() if f.is_required() and f.examples}
        document = {to_camel(n): value for n, value in {**needed, name: field.examples[0]}.items()}
        try:
            model.model_validate_json(json.dumps(document))
        except ValidationError as error:
            pytest.fail(f"the example of {model.__name__}.{name} is wrong itself: {error}")


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        read().settings.ingress.port = 1  # type: ignore[misc]


def test_the_defaults_run_on_the_smallest_host_of_the_readme() -> None:
    environment = read()
    assert environment.settings == Settings()
    assert not environment.settings.production
    assert environment.running().keys() == {
        "ingress",
        "migrations",
        "api",
        "worker",
        "postgres",
        "postgres_roles",
        "redis",
        "redis_users",
        "prometheus",
        "alertmanager",
        "grafana",
        "postgres_exporter",
        "redis_exporter",
        "node_exporter",
        "cadvisor",
        "blackbox_exporter",
        "backup",
        "drill",
        "logs",
        "log_collector",
    }
    for part in environment.running().values():
        assert not isinstance(part, Published) or part.bind_address == "127.0.0.1"
    assert environment.settings.api.image is environment.settings.worker.image is None


def test_an_image_that_is_not_configured_is_the_pinned_one() -> None:
    assert read().image("redis") == IMAGES["redis"].reference
    assert read(images={"redis": DIGEST}).image("redis") == DIGEST


def test_an_empty_secret_is_one_that_is_not_set() -> None:
    environment = read(**dict.fromkeys(CONFIGURED_SECRETS, ""))
    assert environment.configured_secrets == frozenset(), "Pulumi.yaml's defaults are empty texts"


@pytest.mark.parametrize("name", ["managedDatabaseCa", "managedRedisCa"])
def test_a_private_key_in_the_place_of_a_certificate_is_shown_to_nobody(name: str) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"
    wrong = the_mistake(**{name: CERTIFICATE + key})
    assert (wrong.key, wrong.given) == (f"samokoder:{name}", "a value (not shown) that is no certificate")
    assert "MIIEv" not in str(wrong)
    read(**{name: CERTIFICATE * 3})
