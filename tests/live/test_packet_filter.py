"""What comes to a container by a route, and what a container comes to: in network namespaces of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import docker
import pytest
from docker.models.containers import Container

from operations.data import backups
from operations.network import engine_rules, engine_writes, filter_rules, from_edge, packet_filter
from operations.network.filter_rules import Bridges
from operations.network.packet_filter import PacketFilter
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL, NetworkName
from stack.settings.environment import Environment
from stack.spec.networks import OPTIONS
from tests.namespaces import HOST, METADATA, NEIGHBOUR, Pair, pair
from tests.recording import environment_of

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]

LOOPBACK, PUBLIC, INSIDE = 18080, 18081, 18082


@dataclass
class World:
    """A host whose engine runs one part with a port on loopback and one on every address."""

    pair: Pair
    client: docker.DockerClient
    environment: Environment
    bridges: Bridges
    part: Container
    measures: Container
    """On the network that publishes and has no way out."""

    @property
    def filter(self) -> PacketFilter:
        return PacketFilter(self.pair.host.enter)

    def neighbour_reaches(self, part: Container) -> bool:
        part.reload()
        (network,) = part.attrs["NetworkSettings"]["Networks"].values()
        return self.pair.neighbour.reaches(str(network["IPAddress"]), 8080)

    def neighbour_reaches_loopback(self, port: int) -> bool:
        """Send a packet for 127.0.0.1 to the host's hardware address."""
        return self.pair.neighbour.reaches("127.0.0.1", port)

    def rules(self) -> str:
        return self.pair.host.run("iptables", "-S", filter_rules.CHAIN).stdout


def reaches(part: Container, address: str, port: int) -> bool:
    """Tell whether a web server answers a part there."""
    url = f"http://{address}:{port}/"
    # Its wget crashes by its own time limit.
    words = ["busybox", "timeout", "3", "busybox", "wget", "-q", "-O", "/dev/null", url]
    return part.exec_run(words).exit_code == 0


@pytest.fixture(scope="module")
def world(local_images: Environment) -> Iterator[World]:
    environment = environment_of("neighbour", {})
    image, asks = local_images.image("node_exporter"), local_images.image("python")
    with pair() as made:
        # To the neighbour, 127.0.0.1 is the host's: its own has to go, or it would answer itself.
        for words in (
            ("ip", "address", "delete", "127.0.0.1/8", "dev", "lo"),
            ("ip", "route", "add", "127.0.0.0/8", "via", HOST),
            ("sysctl", "-w", "net.ipv4.conf.all.route_localnet=1"),
        ):
            made.neighbour.run(*words)
        client = made.start()
        with contextlib.closing(docker.from_env()) as system:
            for name in (image, asks):
                client.images.load(b"".join(system.images.get(name).save()))
        for each in (NetworkName.EDGE, NetworkName.PUBLISHED):
            client.networks.create(f"{environment.prefix}-{each}", driver="bridge", options=OPTIONS.get(each))

        def serve(port: int, address: str, network: NetworkName = NetworkName.EDGE) -> Container:
            made: Container = client.containers.create(
                image,
                ["httpd", "-f", "-p", "8080", "-h", "/etc"],
                entrypoint=["busybox"],
                network=f"{environment.prefix}-{network}",
                ports={"8080/tcp": (address, port)},
            )
            made.start()
            return made

        part, _ = serve(LOOPBACK, "127.0.0.1"), serve(PUBLIC, "0.0.0.0")  # noqa: S104 - in a namespace
        measures = serve(INSIDE, "127.0.0.1", NetworkName.PUBLISHED)
        labels = {ENVIRONMENT_LABEL: environment.name, PART_LABEL: backups.PART}
        # `samokoder doctor` asks from a container like this one, which has Python.
        client.containers.create(asks, ["sleep", "infinity"], network_mode="none", user="999:999", labels=labels)
        world = World(made, client, environment, packet_filter.bridges_of(client, environment), part, measures)
        yield world
        world.client.close()


@pytest.fixture
def open_world(world: World) -> Iterator[World]:
    """Without our rules."""
    packet_filter.remove(world.environment, world.filter)
    yield world
    packet_filter.remove(world.environment, world.filter)


def closed(world: World) -> None:
    for part in (world.part, world.measures):
        assert not world.neighbour_reaches(part), "a port on loopback is open to the provider's private network"
        assert not reaches(part, METADATA, 80), "a forged request reads the machine's credentials"
    for port in (LOOPBACK, INSIDE):
        assert not world.neighbour_reaches_loopback(port), (
            "a neighbour on the same cable comes in by a port on loopback"
        )
    assert not reaches(world.measures, NEIGHBOUR, 80), "what measures the host has a way to carry it away"


def works(world: World) -> None:
    assert world.pair.neighbour.reaches(HOST, PUBLIC), "the public entry is closed"
    for port in (LOOPBACK, INSIDE):
        assert world.pair.host.reaches("127.0.0.1", port), "a tunnel finds nothing"
    assert reaches(world.part, NEIGHBOUR, 80), "the application has no way out"
    assert reaches(world.part, METADATA, 53), "where the cloud's name server has that address, no name is found"


def restart(world: World) -> None:
    """Restart the engine, and start all containers."""
    world.client.close()
    world.pair.stop()
    world.client = world.pair.start()
    world.part, world.measures = (world.client.containers.get(str(each.id)) for each in (world.part, world.measures))
    for each in world.client.containers.list(all=True):
        each.start()


def test_a_neighbour_and_the_metadata_are_reached_without_the_rules_and_not_with_them(open_world: World) -> None:
    world = open_world
    works(world)
    assert reaches(world.part, METADATA, 80), "the test proves nothing: nobody answers there"
    oldest = int(world.client.version()["Version"].partition(".")[0]) < engine_writes.SAFE_ENGINE
    assert world.neighbour_reaches(world.part) == oldest
    for port in (LOOPBACK, INSIDE):
        assert world.neighbour_reaches_loopback(port) == oldest, (
            "the test proves nothing: the engine drops it by itself"
        )
    # The neighbour knows the way back to a container's own address. Nobody on the internet does.
    assert reaches(world.measures, NEIGHBOUR, 80)
    world.pair.neighbour.run("ip", "route", "delete", "172.16.0.0/12")
    try:
        assert not reaches(world.measures, NEIGHBOUR, 80), "without a rule it has a way out"
        assert reaches(world.part, NEIGHBOUR, 80)
    finally:
        world.pair.neighbour.run("ip", "route", "add", "172.16.0.0/12", "via", HOST)
    assert packet_filter.put(world.environment, world.bridges, world.filter)
    closed(world)
    works(world)


def test_doctor_tries_from_a_container_whether_the_metadata_answer(open_world: World) -> None:
    world = open_world
    assert from_edge.reached(world.environment, world.client) == [METADATA], "doctor calls an open host closed"
    assert packet_filter.put(world.environment, world.bridges, world.filter)
    assert from_edge.reached(world.environment, world.client) == [], "doctor finds what is closed open"
    mine: dict[str, str | list[str] | bool] = {"label": f"{from_edge.TRY_LABEL}={world.environment.name}"}
    assert not world.client.containers.list(all=True, filters=mine), "each `doctor` leaves a container"


def test_rules_are_put_once_changed_with_the_settings_and_those_of_others_stay(open_world: World) -> None:
    world = open_world
    foreign = ["-s", "203.0.113.9", "-m", "comment", "--comment", "samokoder:neighbour-2:0", "-j", "DROP"]
    world.pair.host.run("iptables", "-I", filter_rules.CHAIN, *foreign)
    before = world.rules()
    try:
        assert packet_filter.put(world.environment, world.bridges, world.filter)
        there = world.rules()
        assert not packet_filter.put(world.environment, world.bridges, world.filter), "each `up` would add its own"
        assert world.rules() == there
        opened = environment_of("neighbour", {"packetFilter": {"closed": []}})
        assert packet_filter.is_there(opened, world.bridges, world.filter) is False
        assert packet_filter.put(opened, world.bridges, world.filter)
        assert reaches(world.part, METADATA, 80), "the setting opens nothing"
        assert not world.neighbour_reaches(world.part)
        packet_filter.remove(world.environment, world.filter)
        assert world.rules() == before, "what others have put there is theirs"
    finally:
        world.pair.host.run("iptables", "-D", filter_rules.CHAIN, *foreign)


def test_a_run_that_was_cut_off_leaves_the_rules_and_the_next_one_puts_them_right(open_world: World) -> None:
    world = open_world
    packet_filter.put(world.environment, world.bridges, world.filter)
    whole = world.rules()
    mark = filter_rules.comment_of(world.environment, world.bridges)
    for rule in filter_rules.wanted(world.environment, world.bridges)[:2]:
        world.filter.iptables("-I", filter_rules.CHAIN, *rule, "-m", "comment", "--comment", mark)
    assert packet_filter.put(world.environment, world.bridges, world.filter)
    assert world.rules() == whole
    closed(world)


def test_the_commands_that_are_told_do_the_same_and_a_start_of_the_engine_keeps_them(open_world: World) -> None:
    world = open_world
    for _ in range(2):
        for command in filter_rules.commands(world.environment, world.bridges):
            world.pair.host.run("sh", "-ec", command)
    assert packet_filter.is_there(world.environment, world.bridges, world.filter)
    restart(world)
    assert packet_filter.is_there(world.environment, world.bridges, world.filter), "a restart of the engine opens all"
    closed(world)
    works(world)


def test_a_firewall_that_was_emptied_is_told_and_a_restart_of_the_engine_makes_its_rules_again(
    open_world: World,
) -> None:
    world = open_world

    def there() -> bool | None:
        return engine_rules.are_there(world.filter, world.bridges.edge)

    assert there() is True, "each `status` would cry"
    packet_filter.put(world.environment, world.bridges, world.filter)
    for words in (("-F",), ("-t", "nat", "-F"), ("-P", "FORWARD", "DROP")):
        world.pair.host.run("iptables", *words)
    assert not reaches(world.part, NEIGHBOUR, 80), "the test proves nothing: the way out is there"
    assert there() is False
    restart(world)
    assert there() is True, "`repair` would restart the engine for nothing"
    works(world)
    for words in (("-F",), ("-t", "nat", "-F"), ("-X",), ("-t", "nat", "-X")):
        world.pair.host.run("iptables", *words)
    assert there() is False, "as a reload of firewalld leaves it: without the chains"
    restart(world)
    works(world)
