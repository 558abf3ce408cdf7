"""One fault is one critical message, whatever notices it: also where nobody declared that one alert explains another.

Which alerts fire is measured with promtool in a world that is whole but for the fault. Who hears of them follows from
the rendered inhibitions and from which alert is told first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from stack.catalogue import rule_document
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.blackbox_exporter.spec import PUBLIC
from stack.parts.cadvisor.rules import UNSEEN_SECONDS
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import yaml_document, yaml_text
from tests.described import specs
from tests.recording import environment_of
from tests.render.conftest import Laboratory, output
from tests.render.known_alerts import every_alert
from tests.render.rule_cases import healthy

WORLD: Mapping[str, Any] = {"ingress": {"domain": "app.example.org", "email": "a@example.org"}}
BROKEN = 10
"""Minute from which on it is so."""
SEEN = 40
"""Minute at which all that waits has fired."""
MARGIN = 60
"""Seconds between two alerts, so that the first has reached AlertManager: two scrapes of 30 s."""
# Until what the expression compares has passed, where that is more than a scrape.
BEFORE_IT_WAITS = {"ContainerMissing": UNSEEN_SECONDS, "WorkerHeartbeatStale": 120}

Told = tuple[str, str]
"""Name and service of a critical alert."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is broken, what else is seen of it, and what fires. told: the one of them that a person hears of."""

    gone: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()
    """Patterns of series that become 0."""
    stays: tuple[str, ...] = ()
    """Patterns of series that keep their value, as the time of something that does not happen any more."""
    fires: frozenset[Told] = frozenset()
    told: Told | None


def faults(environment: Environment) -> dict[str, Fault]:
    """Every part alone, all replicas together, and an API that no health check reaches."""
    described = specs(environment)
    replicas = tuple(environment.parts_of("api"))
    found: dict[str, Fault] = {}
    for part in described:
        missing = ("ContainerMissing", part.part)
        # Nobody probes the exporter when it is away itself.
        probed = part.publish and part.part != blackbox_exporter.PART
        fires = frozenset({missing, ("ProbeFailed", part.part)} if probed else {missing})
        found[part.part] = Fault(gone=(part.part,), fires=fires, told=missing)
    # Nobody is left who could tell.
    del found[prometheus.PART]
    for replica in replicas:
        found[replica] = Fault(gone=(replica,), told=None)
    # With a domain the ingress answers by itself on its own port.
    pages = frozenset({("ProbeFailed", PUBLIC)})
    probes = (f'service="{PUBLIC}"',)
    starved = frozenset({("IngressNoReplica", "ingress"), *pages})
    found["api"] = _kept_back(
        ("ApiDown", "api"), Fault(gone=replicas, zero=("upstreams_healthy", *probes), fires=starved, told=None)
    )
    found["no replica answers the ingress"] = _kept_back(
        ("IngressNoReplica", "ingress"), Fault(zero=("upstreams_healthy", *probes), fires=starved, told=None)
    )
    found["ingress"] = _kept_back(("IngressDown", "ingress"), found["ingress"], zero=probes, fires=pages)
    found["worker"] = _kept_back(("WorkerDown", "worker"), found["worker"])
    unhealthy = ("ContainerUnhealthy", "worker")
    sick = f'health_state{{name="{environment.prefix}-worker"'
    found["postgres"] = _kept_back(
        ("PostgresDown", "postgres"),
        found["postgres"],
        zero=("pg_up", "wal_receiver_up", sick),
        stays=("samokoder_db_query",),
        fires=frozenset({unhealthy, ("WalReceiverDown", "backup")}),
    )
    found["redis"] = _kept_back(
        ("RedisDown", "redis"),
        found["redis"],
        zero=("redis_up", sick),
        stays=("worker_heartbeat",),
        fires=frozenset({unhealthy, ("WorkerHeartbeatStale", "worker")}),
    )
    # It would keep the application's own critical alerts back, which have another cause then.
    found["both exporters are refused"] = Fault(zero=("pg_up", "redis_up"), told=None)
    return found


def _kept_back(
    told: Told,
    fault: Fault,
    *,
    zero: tuple[str, ...] = (),
    stays: tuple[str, ...] = (),
    fires: frozenset[Told] = frozenset(),
) -> Fault:
    return Fault(gone=fault.gone, zero=fault.zero + zero, stays=stays, fires=fault.fires | fires | {told}, told=told)


def series(environment: Environment) -> Iterator[tuple[str, str, str]]:
    """Yield each series of the whole world, its values, and the part that measures it."""
    of_container = f'container_last_seen{{name="{environment.prefix}-'
    for each in healthy.document(environment)["input_series"]:
        name, values = each["series"], each["values"]
        if name.startswith("up{"):
            yield name, values, ""
        elif name.startswith(of_container):
            yield name, values, "cadvisor"
            yield name.replace("last_seen", "health_state"), "1+0x60", "cadvisor"
        else:
            measured_by = re.search(r'job="(.*?)"', name)
            yield name, values, measured_by[1] if measured_by else "backup" if "backup" in name else "node-exporter"
    pages = {part.part for part in specs(environment) if part.publish}
    for service in sorted(pages | {PUBLIC}):
        yield f'probe_success{{job="probe",instance="{service}",service="{service}"}}', "1+0x60", blackbox_exporter.PART
    for replica in environment.parts_of("api"):
        upstream = f'caddy_reverse_proxy_upstreams_healthy{{job="ingress",upstream="{replica}:8000"}}'
        yield upstream, "1+0x60", "ingress"
    yield 'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:1"}', "0+60x60", "worker"
    yield 'samokoder_db_query_duration_seconds_count{job="worker",instance="worker:1"}', "0+60x60", "worker"
    yield 'backup_wal_receiver_up{job="backup"}', "1+0x60", "backup"


def broken(environment: Environment, fault: Fault) -> Iterator[dict[str, str]]:
    """Yield the series as promtool takes them."""
    for name, values, measured_by in series(environment):
        before = values.replace("x60", f"x{BROKEN}")
        about = any(
            mark in name
            for part in fault.gone
            for mark in (f'instance="{part}:1"', f'name="{environment.prefix}-{part}"', f'service="{part}"')
        )
        if measured_by in fault.gone:
            # cAdvisor's samples have times of their own, so Prometheus does not mark them as ended.
            after = "" if measured_by == "cadvisor" else " stale"
        elif any(pattern in name for pattern in fault.zero) or (about and not name.startswith("container_")):
            after = " 0+0x60"
        elif any(pattern in name for pattern in fault.stays):
            after = f" {60 * BROKEN}+0x60"
        elif about:
            after = ""
        else:
            before, after = values, ""
        yield {"series": name, "values": before + after}


def document(environment: Environment, name: str, fault: Fault) -> dict[str, Any]:
    """Return promtool's test: exactly these critical alerts fire."""
    expected = [
        {"labels": f'{{alertname="{alert}",service="{service}"}}', "value": 1} for alert, service in fault.fires
    ]
    return {
        "name": name,
        "interval": "1m",
        "input_series": [*broken(environment, fault)],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname, service) (ALERTS{alertstate="firing",severity="critical"})',
                "eval_time": f"{SEEN}m",
                "exp_samples": expected,
            }
        ],
    }


@pytest.mark.live
def test_promtool_sees_exactly_these_critical_alerts_fire_for_each_fault(
    laboratory: Laboratory, environment: Environment
) -> None:
    world = environment_of("staging", WORLD)
    files = {"/test/rules.yml": yaml_text(rule_document(world, specs(world)))}
    for number, (name, fault) in enumerate(faults(world).items()):
        tests = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [document(world, name, fault)]}
        files[f"/test/test-{number}.yml"] = yaml.safe_dump(tests, sort_keys=False)
    shell = laboratory.shell(environment.image("prometheus"), files)
    code, said = output(shell, "promtool", "test", "rules", *(name for name in files if "/test-" in name))
    assert code == 0, said


def matches(matchers: list[str], labels: Mapping[str, str]) -> bool:
    """Tell whether AlertManager's matchers match."""
    for each in matchers:
        label, operator, value = re.fullmatch(r'(\w+)(!=|=~|!~|=)"(.*)"', each).groups()  # type: ignore[union-attr]
        is_so = re.fullmatch(value, labels.get(label, "")) if "~" in operator else labels.get(label, "") == value
        if bool(is_so) == operator.startswith("!"):
            return False
    return True


def inhibits(environment: Environment, cause: Told, other: Told) -> bool:
    """Tell whether AlertManager does not send one critical alert while another one fires."""

    def labels(told: Told) -> dict[str, str]:
        return {"alertname": told[0], "service": told[1], "severity": "critical"}

    described = every_alert(environment, specs(environment))
    return any(
        matches(rule["source_matchers"], labels(cause))
        and matches(rule["target_matchers"], labels(other))
        and all(labels(cause).get(label) == labels(other).get(label) for label in rule.get("equal", ()))
        for rule in yaml_document(alertmanager.alertmanager_yml(environment, described))["inhibit_rules"]
    )


def reaching(environment: Environment, fires: frozenset[Told]) -> set[Told]:
    """Return those that AlertManager sends: what explains the others has to be told before them."""
    described = every_alert(environment, specs(environment))
    waits = {
        (alert, service): seconds(rule.wait or "0s") + BEFORE_IT_WAITS.get(alert, 0)
        for alert, service in fires
        for rule in described
        if rule.name == alert and (rule.service == service or "{{" in rule.service)
    }

    def keeps_back(cause: Told, other: Told) -> bool:
        return waits[cause] + MARGIN <= waits[other] and inhibits(environment, cause, other)

    return {each for each in fires if not any(keeps_back(cause, each) for cause in fires)}


@pytest.mark.parametrize("name", faults(environment_of("staging", WORLD)))
def test_one_fault_wakes_somebody_once(name: str) -> None:
    environment = environment_of("staging", WORLD)
    fault = faults(environment)[name]
    assert reaching(environment, fault.fires) == ({fault.told} if fault.told else set()), "a second message at night"


STORES_DOWN = (("PostgresDown", "postgres"), ("RedisDown", "redis"), ("ContainerMissing", "postgres"))
NO_WAY_IN = (("ApiDown", "api"), ("IngressNoReplica", "ingress"), ("IngressDown", "ingress"))


@pytest.mark.parametrize("cause", STORES_DOWN)
def test_an_api_that_fails_its_health_check_without_a_store_is_told_as_the_store(cause: Told) -> None:
    environment = environment_of("staging", WORLD)
    assert inhibits(environment, cause, ("IngressNoReplica", "ingress")), "a second message at night"


@pytest.mark.parametrize("cause", STORES_DOWN)
@pytest.mark.parametrize("world", [{}, WORLD])
def test_a_store_that_is_down_explains_nobody_who_does_without_it(world: Mapping[str, Any], cause: Told) -> None:
    environment = environment_of("staging", world)
    for part in ("ingress", "backup"):
        for alert in ("ContainerUnhealthy", "ProbeFailed"):
            assert not inhibits(environment, cause, (alert, part)), "its cause is elsewhere, and nobody hears of it"


@pytest.mark.parametrize(("world", "by_api"), [({}, True), (WORLD, False)])
def test_the_ingress_own_page_is_the_api_s_where_there_is_no_domain(world: Mapping[str, Any], by_api: bool) -> None:
    environment = environment_of("staging", world)
    page = ("ProbeFailed", "ingress")
    for cause in NO_WAY_IN[:2]:
        assert inhibits(environment, cause, page) is by_api, "with a domain the ingress answers it by itself"
    assert inhibits(environment, NO_WAY_IN[2], page)


@pytest.mark.parametrize("cause", NO_WAY_IN)
def test_only_an_address_that_leads_to_the_own_ingress_is_explained_by_it(cause: Told) -> None:
    urls = {
        "https://app.example.org/health": True,
        "https://APP.example.org/": True,
        "http://app.example.org/health": True,
        "https://app.example.org:8443/": False,
        "https://app.example.org.example.net/": False,
        "https://shop.example.net/": False,
    }
    environment = environment_of("staging", {**WORLD, "blackboxExporter": {"urls": list(urls)}})
    (job,) = blackbox_exporter.probe_jobs(environment, specs(environment))
    asked = {url: page["labels"]["service"] for page in job["static_configs"] for url in page["targets"]}
    found = {url: inhibits(environment, cause, ("ProbeFailed", asked[url])) for url in urls}
    assert found == urls, "the other site is down, and nobody hears of it while the API is"
