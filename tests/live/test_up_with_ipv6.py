"""An environment gets IPv6 on a newer engine that writes its own packet filter: in network namespaces of the test's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.own_ports import own_ports
from host.engine import connect
from operations.network import engine_rules, packet_filter
from operations.network.filter_rules import FOUR, SIX
from operations.network.packet_filter import PacketFilter
from tests.live import clones
from tests.namespaces import HOST, HOST_SIX, NEIGHBOUR_SIX, Pair, pair
from tests.newer_engine import in_its_own, unpacked
from tests.private_engine import ROOT, private_engine

ENVIRONMENT = "six"
ASK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
connection.request("GET", sys.argv[3])
print(connection.getresponse().status)
"""


@dataclass
class World:
    """A host with IPv6 and its neighbour, and a clone whose environment has the host's engine."""

    pair: Pair
    folder: Path
    docker_host: str
    port: int
    """Of the ingress."""

    @property
    def variables(self) -> dict[str, Any]:
        """Return what is set in the shell: no container of this engine reaches a registry, so none is asked."""
        return {"ENV": ENVIRONMENT, "DOCKER_HOST": self.docker_host, "OFFLINE": "1"}

    def typed(self, line: str) -> str:
        """Type a line in the clone, where the package registries are reached; return what it prints."""
        return clones.typed(self.folder, line, **self.variables)

    def typed_there(self, line: str) -> str:
        """Type a line in the clone on the engine's host, where the published ports are; return what it prints."""
        return self.typed(f"{' '.join(self.pair.host.enter)} {line}")

    def answer(self, host: str, path: str = "/health") -> str:
        """Return the status that the neighbour is answered with; empty where nobody answers."""
        return self.pair.neighbour.run(
            sys.executable, "-c", ASK, host, str(self.port), path, check=False
        ).stdout.strip()

    def changes(self) -> list[str]:
        """Return the names of what an `up` would change."""
        return clones.changes(self.folder, **self.variables)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    newer = tmp_path_factory.mktemp("newer")
    usr = unpacked(newer)
    ports = own_ports()
    public: dict[str, Any] = {"bindAddress": "0.0.0.0", "bindReason": "a test"}  # noqa: S104 - in a namespace
    entry: dict[str, Any] = {**public, **ports["samokoder:ingress"]}
    config: dict[str, Any] = {**ports, "samokoder:ingress": entry, "samokoder:api": {"stableSeconds": 2}}
    with pair() as made:
        made.get_ipv6()
        words = (*made.host.enter, *in_its_own(usr, ROOT), "--storage-driver=overlay2")
        with private_engine("10.219", data=newer / "data", dockerd=words, apart=True) as (private, info):
            assert int(info.version.partition(".")[0]) >= 28, info
            folder = tmp_path_factory.mktemp("clone") / "samokoder"
            clones.make(folder, ENVIRONMENT, config)
            yield World(made, folder, private.docker_host, ports["samokoder:ingress"]["port"])


def test_users_are_served_by_both_once_the_setting_asks_for_it_and_known_by_their_own_address(world: World) -> None:
    world.typed("make up")
    assert world.answer(HOST) == "200"
    assert world.answer(HOST_SIX) == "", "by default the stack serves IPv4 alone"
    assert world.changes() == []

    world.typed("make pulumi ARGS='config set --path samokoder:network.ipv6 true'")
    assert "nobody is served" in world.typed_there("make preview"), "a preview does not say what that takes"
    # It asks the engine's host how it knows its way out by IPv6.
    world.typed_there("make up")
    assert world.answer(HOST_SIX) == "200", "users by IPv6 find nobody"
    assert world.answer(HOST) == "200", "users by IPv4 are lost for it"
    # Of /health nothing is in the log.
    assert world.answer(HOST_SIX, "/auth/me") == "401"
    assert NEIGHBOUR_SIX in world.typed("make logs PART=ingress TAIL=200"), "all users by IPv6 are one"


def test_with_ipv6_nothing_differs_from_what_is_declared_and_all_checks_pass(world: World) -> None:
    assert world.changes() == [], "the provider reads back what it wrote, or each `up` replaces all"
    world.typed("make drift")
    world.typed("make hardening")
    world.typed_there("make smoke ARGS='--wait 120'")
    doctor = clones.run(world.folder, *world.pair.host.enter, "make", "doctor", **world.variables)
    assert "the stack serves IPv4 and IPv6" in doctor.stdout, doctor.stdout[-4000:]


def test_lost_rules_of_a_newer_engine_are_found_and_those_that_are_there_are_not_called_lost(world: World) -> None:
    edge = f"samokoder-{ENVIRONMENT}-edge"
    with contextlib.closing(connect(world.docker_host)) as client:
        (network,) = [each for each in client.api.networks(names=[edge]) if each["Name"] == edge]
    bridge = packet_filter.bridge_name(network)
    for program in (FOUR, SIX):
        host = PacketFilter(world.pair.host.enter, program=program)
        assert engine_rules.are_there(host, bridge) is True, f"each `status` and `up` would cry: {program}"
        for table in ("filter", "nat"):
            saved = world.pair.host.run(f"{program}-save", "-t", table).stdout
            world.pair.host.run(program, "-t", table, "-F")
            assert engine_rules.are_there(host, bridge) is False, f"nobody learns why nothing is reached: {program}"
            world.pair.host.given(saved, f"{program}-restore", "-T", table)
        assert engine_rules.are_there(host, bridge) is True
