from __future__ import annotations

import pytest

from tests.recording import CASES, NETWORK, Recorded, Recording, record, record_case

APPLICATION = {"edge", "app", "data", "monitoring"}
MONITORED = {"edge", "monitoring"}
MEASURING = {"published", "monitoring"}
EXPORTER = {"published", "data", "monitoring"}
JOINS = {
    "postgres": {"data"},
    "postgres-roles": {"data"},
    "redis": {"data"},
    "redis-users": {"data"},
    # `edge`: a managed database is outside.
    "migrations": {"edge", "data"},
    "api-1": APPLICATION,
    "api-2": APPLICATION,
    "worker": APPLICATION,
    "frontend": {"edge", "app"},
    "ingress": {"edge", "app", "monitoring"},
    "prometheus": MONITORED,
    "alertmanager": MONITORED,
    "grafana": MONITORED,
    "postgres-exporter": EXPORTER,
    "redis-exporter": EXPORTER,
    "node-exporter": MEASURING,
    "cadvisor": MEASURING,
    "blackbox-exporter": MONITORED,
    "logs": MEASURING,
    "log-collector": {"monitoring"},
    "backup": {"data", "monitoring"},
    "drill": set(),
}
# A bucket or a managed database is outside.
BACKED_UP_OUTSIDE = {"prod", "managed", "physical"}
INSIDE_ONLY = {
    "postgres",
    "postgres-roles",
    "redis",
    "redis-users",
    "migrations",
    "api-1",
    "api-2",
    "worker",
    "backup",
    "drill",
    "log-collector",
}


def joined(recording: Recording, container: Recorded) -> set[str]:
    names = [str(network["name"]) for network in container.inputs.get("networksAdvanced") or ()]
    return {name.removeprefix(f"{recording.environment.prefix}-") for name in names}


@pytest.mark.parametrize("case", CASES)
def test_each_part_joins_exactly_the_networks_it_needs(case: str) -> None:
    recording = record_case(case)
    found = {part: joined(recording, container) for part, container in recording.containers().items()}
    joins = JOINS | ({"backup": JOINS["backup"] | {"edge"}} if case in BACKED_UP_OUTSIDE else {})
    for part, managed in (
        ("postgres-exporter", recording.environment.managed_database),
        ("redis-exporter", recording.environment.managed_redis),
    ):
        joins |= {part: APPLICATION - {"app"}} if managed else {}
    assert found == {part: joins[part] for part in found}, "each further network is a way for an intruder"


@pytest.mark.parametrize("case", CASES)
def test_only_edge_has_a_way_out(case: str) -> None:
    recording = record_case(case)
    internal = {network.name: network.inputs["internal"] for network in recording.of_type(NETWORK)}
    assert internal == {
        "network-edge": False,
        "network-published": False,
        "network-app": True,
        "network-data": True,
        "network-monitoring": True,
    }, "what has no way out cannot send data away"
    options = {network.name: network.inputs.get("options") for network in recording.of_type(NETWORK)}
    without = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert {name: each for name, each in options.items() if each} == {"network-published": without}, (
        "an internal network publishes no port, and this one is to have no way out all the same"
    )


@pytest.mark.parametrize("case", CASES)
def test_what_has_no_business_outside_publishes_nothing(case: str) -> None:
    for part, container in record_case(case).containers().items():
        published = bool(container.inputs.get("ports"))
        assert published == (part not in INSIDE_ONLY), f"{part} is {'' if published else 'not '}published"


@pytest.mark.parametrize("case", CASES)
def test_a_part_is_found_by_its_name_in_each_of_its_networks(case: str) -> None:
    recording = record_case(case)
    networks = {network.inputs["name"]: network.urn for network in recording.of_type(NETWORK)}
    for part, container in recording.containers().items():
        mode = "none" if part == "drill" else "bridge"
        assert container.inputs["networkMode"] == mode, "unnamed, engines from 26 on show a difference for ever"
        assert container.inputs["hostname"] == part
        for network in container.inputs.get("networksAdvanced") or ():
            names = [part, "api"] if part in {"api-1", "api-2"} else [part]
            assert network["aliases"] == names, f"{part} would be found under its whole name alone"
            assert networks[network["name"]] in container.dependencies


@pytest.mark.parametrize("case", CASES)
def test_a_network_has_nothing_that_may_change(case: str) -> None:
    for network in record_case(case).of_type(NETWORK):
        assert set(network.inputs) - {"options", "ipv6"} == {"name", "driver", "internal"}, (
            "any change of a network replaces it, and with it every container on it"
        )
        assert not network.protect


def test_the_host_ports_are_those_of_the_original_installation() -> None:
    containers = record_case("frontend").containers()
    ports = {part: c.inputs["ports"][0]["external"] for part, c in containers.items() if c.inputs.get("ports")}
    assert ports == {
        "ingress": 8000,
        "frontend": 3001,
        "prometheus": 9090,
        "alertmanager": 9093,
        "grafana": 3000,
        "postgres-exporter": 9187,
        "redis-exporter": 9121,
        "node-exporter": 9100,
        "cadvisor": 8080,
        "blackbox-exporter": 9115,
        "logs": 9428,
    }, "people and their bookmarks know these"


def test_a_port_moves_to_another_number_and_address_where_it_is_configured() -> None:
    values = {"ingress": {"port": 18000, "bindAddress": "0.0.0.0", "bindReason": "behind the load balancer"}}  # noqa: S104
    ingress = record("staging", values).containers()["ingress"]
    assert ingress.inputs["ports"] == [{"internal": 8000, "external": 18000, "ip": "0.0.0.0", "protocol": "tcp"}]  # noqa: S104


def test_a_smaller_packet_changes_the_networks_with_a_way_out_alone() -> None:
    usual = record("staging", {})
    for values in ({}, {"mtu": 1400}, {"mtu": 1500}, {"uplinkMtu": 1400}, {"uplinkMtu": 1400, "mtu": 1450}):
        recording = record("staging", {"network": values})
        said = values.get("mtu") or values.get("uplinkMtu")
        for network, before in zip(recording.of_type(NETWORK), usual.of_type(NETWORK), strict=True):
            mtu = {"com.docker.network.driver.mtu": str(said)} if said and not network.inputs["internal"] else {}
            expected = {**before.inputs, "options": {**(before.inputs.get("options") or {}), **mtu}}
            assert {"options": {}, **network.inputs} == expected, "an option more replaces the networks of all"
            assert network.ignore_changes == (frozenset() if "mtu" in values else {"options"}), (
                "another uplink, or a file without the line, would replace what serves; or a setting would do nothing"
            )
