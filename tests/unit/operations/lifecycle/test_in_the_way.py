"""What of others keeps an `up` from its end, and is said before it begins; with an SDK of plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from operations.errors import ProjectError
from operations.lifecycle import in_the_way
from operations.workspace.pulumi_state import CONTAINER, NETWORK
from stack.spec.service import Publish
from tests.recording import environment_of

OWN_PORT = 9090


def refuse(run: Any) -> None:
    in_the_way.refuse(run.workspace, run)


def why(run: Any) -> str:
    return in_the_way.why(run.workspace, run)


@dataclass
class Given:
    """An engine with these containers and networks, and a state that knows some of them by their ids."""

    containers: list[dict[str, Any]] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)
    no_addresses: str = ""
    made: list[str] = field(default_factory=list)
    on_edge: dict[str, dict[str, str]] = field(default_factory=dict)
    ipv6: bool = False
    """Whether `edge` has it already."""
    no_ipv6: str = ""
    tried: list[dict[str, object]] = field(default_factory=list)
    killed: bool = False
    """Before the network by which it is tried is removed."""
    left: dict[str, dict[str, str]] = field(default_factory=dict)
    """Such networks that are there, and their labels."""

    @property
    def run(self) -> Any:
        def listed(**asked: Any) -> list[dict[str, Any]]:
            label = asked.get("filters", {}).get("label")
            return [each for each in self.containers if label is None or each.get("Label") == label]

        api = SimpleNamespace(
            containers=listed,
            networks=lambda **_: [
                {"Id": f"id of {name}", "Name": name, "EnableIPv6": self.ipv6} for name in self.networks
            ],
        )
        edge = SimpleNamespace(attrs={"Containers": self.on_edge})
        networks = SimpleNamespace(
            create=self._create, get={"samokoder-staging-edge": edge}.__getitem__, list=self._labelled
        )
        client = SimpleNamespace(api=api, networks=networks, close=lambda: None)
        resources = [
            {"type": NETWORK if name in self.networks else CONTAINER, "id": f"id of {name}", "inputs": {"name": name}}
            for name in self.known
        ]
        workspace = SimpleNamespace(
            settings=lambda: environment_of("staging", self.config),
            client=lambda: client,
            typed="make {}".format,
        )
        return SimpleNamespace(workspace=workspace, deployment=lambda: {"resources": resources})

    def _create(self, name: str, *, labels: dict[str, str] | None = None, **asked: object) -> Any:
        self.tried.append(asked)
        if asked.get("enable_ipv6") and self.no_ipv6:
            raise docker.errors.APIError("500 Server Error", explanation=self.no_ipv6)
        if self.no_addresses:
            raise docker.errors.APIError(self.no_addresses)
        self.made.append(name)
        self.left[name] = labels or {}
        if self.killed:
            raise SystemExit
        return self._network(name)

    def _labelled(self, *, filters: dict[str, str]) -> list[Any]:
        name, _, value = filters["label"].partition("=")
        return [self._network(each) for each, labels in self.left.items() if labels.get(name) == value]

    def _network(self, name: str) -> Any:
        def remove() -> None:
            self.made.remove(name)
            del self.left[name]

        return SimpleNamespace(remove=remove)

    def refusal(self) -> str:
        with pytest.raises(ProjectError) as refused:
            refuse(self.run)
        return str(refused.value)


def container(name: str, port: int = 0, ip: str = "127.0.0.1") -> dict[str, Any]:
    ports = [{"IP": ip, "PublicPort": port}] if port else []
    return {"Id": f"id of {name}", "Names": [f"/{name}"], "Ports": ports}


def test_what_is_ones_own_and_what_has_nothing_to_do_with_it_is_in_nobodys_way() -> None:
    own = container("samokoder-staging-prometheus", OWN_PORT)
    others = [container("samokoder-staging-2-api-1"), container("web", 80), container("samokoder-staging-guest")]
    given = Given([own, *others], ["samokoder-staging-edge", "bridge"])
    given.known = ["samokoder-staging-prometheus", "samokoder-staging-edge"]
    refuse(given.run)


def test_a_container_that_somebody_made_by_hand_under_a_name_of_ours_is_named_before_anything_is_replaced() -> None:
    said = Given([container("samokoder-staging-redis")]).refusal()
    assert "samokoder-staging-redis" in said, "Docker says it when half of the parts have been replaced"
    assert "docker inspect" in said, "it may be another clone's, and serve"
    assert "docker rm -f samokoder-staging-redis" in said, "what to type"
    assert "make up" in said


def test_a_network_under_a_name_of_ours_is_named() -> None:
    assert "docker network rm samokoder-staging-data" in Given(networks=["samokoder-staging-data"]).refusal(), (
        "containers are put on a network by its name, and of two nobody knows on which"
    )


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - what the engine says
def test_a_container_that_holds_a_port_is_named_with_the_part_that_wants_it(ip: str) -> None:
    said = Given([container("grafana-of-somebody", OWN_PORT, ip)]).refusal()
    assert "127.0.0.1:9090 (prometheus) is held by the container grafana-of-somebody" in said


@pytest.mark.parametrize(
    ("mine", "theirs", "container_holds", "program_holds"),
    [
        ("127.0.0.1", "::", False, True),
        ("0.0.0.0", "::", False, True),  # noqa: S104 - what the engine says
        ("0.0.0.0", "::1", False, False),  # noqa: S104 - what the engine says
        ("127.0.0.1", "::ffff:127.0.0.1", True, True),
        ("::", "0.0.0.0", False, False),  # noqa: S104 - what the engine says
        ("::1", "127.0.0.1", False, False),
        ("::1", "::", True, True),
        ("::", "::1", True, True),
    ],
)
def test_a_port_of_the_other_family_is_free_unless_a_program_may_have_taken_both(
    mine: str, theirs: str, container_holds: bool, program_holds: bool
) -> None:
    publish = Publish(container_port=8000, host_port=8000, address=mine)
    assert in_the_way.clashes(publish, theirs, 8000) is container_holds, "the engine binds a port for one family alone"
    assert in_the_way.clashes(publish, theirs, 8000, dual=True) is program_holds
    assert not in_the_way.clashes(publish, theirs, 8001, dual=True)


def test_a_container_on_ipv6_alone_is_in_nobodys_way() -> None:
    refuse(Given([container("ipv6-only", OWN_PORT, "::"), container("loopback-of-ipv6", OWN_PORT, "::1")]).run)


def test_what_was_made_anew_by_hand_under_a_name_of_the_state_makes_way_by_a_repair_of_drift() -> None:
    given = Given([container("samokoder-staging-prometheus", OWN_PORT)], known=["samokoder-staging-prometheus"])
    given.containers[0]["Id"] = "another"
    refuse(given.run)


def test_one_that_waits_for_its_removal_is_ones_own() -> None:
    given = Given([container("samokoder-staging-redis")], known=["samokoder-staging-redis"])
    run = given.run
    resources = run.deployment()["resources"]
    run.deployment = lambda: {"resources": [{**each, "delete": True} for each in resources]}
    refuse(run)


def test_the_same_number_of_another_protocol_is_another_port() -> None:
    wireguard = container("wireguard", OWN_PORT, "0.0.0.0")  # noqa: S104 - what the engine says
    wireguard["Ports"][0]["Type"] = "udp"
    refuse(Given([wireguard]).run)


def test_what_is_to_be_typed_reaches_the_engine_that_was_looked_at() -> None:
    host = "ssh://deploy@host.example.org"
    said = Given([container("samokoder-staging-redis")], config={"dockerHost": host}).refusal()
    assert f"docker --host {host} rm -f samokoder-staging-redis" in said, "here it would remove what serves here"


def test_a_container_with_the_name_of_traefiks_network_is_no_network() -> None:
    traefik = {"network": "traefik", "address": "10.9.0.2"}
    config: dict[str, Any] = {"ingress": {"kind": "traefik", "domain": "x.example.org", "traefik": traefik}}
    assert "docker network create traefik" in Given([container("traefik")], config=config).refusal()


def test_a_port_on_another_address_is_no_hindrance() -> None:
    refuse(Given([container("elsewhere", OWN_PORT, "192.0.2.7")]).run)


def test_a_missing_network_of_traefik_is_named_before_the_api_is_replaced() -> None:
    traefik = {"network": "traefik", "address": "10.9.0.2"}
    given = Given(config={"ingress": {"kind": "traefik", "domain": "x.example.org", "traefik": traefik}})
    assert "docker network create traefik" in given.refusal()
    with pytest.raises(ProjectError, match="traefik"):
        in_the_way.refuse_missing_networks(given.run.workspace)
    given.networks = ["traefik"]
    refuse(given.run)


@pytest.mark.parametrize(
    "said",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_an_engine_without_addresses_is_told_with_the_ways_out(said: str) -> None:
    given = Given(networks=["bridge"], no_addresses=said)
    told = why(given.run)
    assert "docker network prune" in told
    assert "default-address-pools" in told


@pytest.mark.parametrize("kind", ["addresses", "ipv6"])
def test_the_network_of_a_try_that_was_killed_is_removed_by_the_next_run_and_another_environments_stays(
    kind: str,
) -> None:
    given = Given(killed=True, config={"network": {"ipv6": True}} if kind == "ipv6" else {})
    with pytest.raises(SystemExit):
        refuse(given.run) if kind == "ipv6" else why(given.run)
    assert len(given.made) == 1, "nothing was tried"
    (labels,) = given.left.values()
    given.made.append("samokoder-tried-theirs")
    given.left["samokoder-tried-theirs"] = dict.fromkeys(labels, "prod")
    given.killed = False
    refuse(given.run)
    assert given.made == ["samokoder-tried-theirs"], "each one takes a range of addresses from the engine for ever"


def test_nothing_is_said_of_addresses_where_they_are_not_the_reason() -> None:
    given = Given(networks=["bridge"])
    assert why(given.run) == ""
    assert given.made == [], "the network by which it was tried stays behind"
    assert why(Given(no_addresses="permission denied").run) == ""
    every = [f"samokoder-staging-{each}" for each in ("edge", "published", "app", "data", "monitoring")]
    assert why(Given(networks=every, known=every, no_addresses="address pool").run) == ""


def test_after_a_failure_a_container_is_somebody_elses_by_its_id_whatever_its_name() -> None:
    given = Given([container("samokoder-staging-redis")], known=["samokoder-staging-redis"])
    given.containers[0]["Id"] = "another"
    assert "samokoder-staging-redis" in why(given.run)


def test_a_container_of_somebody_else_on_a_network_that_is_made_anew_is_named_before_anything_is_replaced() -> None:
    own = container("samokoder-staging-api-1") | {"Label": "samokoder.environment=staging"}
    edge = "samokoder-staging-edge"
    given = Given([own, container("debug")], [edge], [edge, "samokoder-staging-api-1"])
    given.on_edge = {f"id of {name}": {"Name": name} for name in ("samokoder-staging-api-1", "debug")}
    refuse(given.run)
    given.config = {"network": {"mtu": 1400}}
    said = given.refusal()
    assert f"docker network disconnect {edge} debug" in said, (
        "the engine removes no network that somebody is on, and all parts on it would be gone by then"
    )
    assert f"{edge} samokoder" not in said, "one's own make way by themselves"
    del given.on_edge["id of debug"]
    refuse(given.run)


EDGE = "samokoder-staging-edge"
NO_KERNEL = "Cannot read IPv6 setup for bridge: open /proc/sys/net/ipv6: no such file or directory"


@pytest.mark.parametrize("there", [[EDGE], []], ids=["made anew", "new"])
def test_a_host_that_cannot_have_a_network_with_ipv6_is_refused_before_the_one_that_serves_is_removed(
    there: list[str],
) -> None:
    asked_for: dict[str, object] = {"network": {"ipv6": True}}
    given = Given(networks=there, known=there, config=asked_for, no_ipv6=NO_KERNEL)
    said = given.refusal()
    assert "Nothing was replaced" in said
    assert NO_KERNEL in said, "the engine's words say what is missing"
    assert "config rm --path samokoder:network.ipv6" in said, "nobody knows how to go on"
    able = Given(networks=there, known=there, config=asked_for)
    refuse(able.run)
    assert able.tried == [{"internal": False, "enable_ipv6": True}]
    assert able.made == [], "the network by which it was tried stays behind"


def test_a_network_with_ipv6_is_tried_only_where_one_is_made() -> None:
    asked_for: dict[str, object] = {"network": {"ipv6": True}}
    for given in (
        Given(networks=[EDGE], known=[EDGE], no_ipv6=NO_KERNEL),
        Given(networks=[EDGE], known=[EDGE], no_ipv6=NO_KERNEL, config=asked_for, ipv6=True),
    ):
        refuse(given.run)
        assert given.tried == [], "each `up` would make a network and remove it"
    full = Given(networks=[EDGE], known=[EDGE], config=asked_for, no_addresses="could not find an IPv4 address pool")
    refuse(full.run)
    full.no_addresses, full.no_ipv6 = "", "could not find an available, non-overlapping IPv6 address pool"
    assert "IPv6 address pool" in full.refusal(), "no network that goes gives a range of IPv6 back"
