"""Users who come by IPv6: on the newest engine that Debian has, in network namespaces of the test's own."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import docker
import pytest
from docker.models.containers import Container

from operations.engine.laboratory import Laboratory
from operations.network import packet_filter, replacement
from operations.network.packet_filter import PacketFilter
from stack.common.names import NetworkName
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.ingress import spec as ingress
from stack.settings import ipv6
from stack.settings.environment import Environment
from stack.spec.networks import INTERNAL, options
from stack.spec.service import ServiceSpec
from tests.namespaces import HOST, HOST_SIX, NEIGHBOUR, NEIGHBOUR_SIX, Pair, pair
from tests.newer_engine import unpacked
from tests.recording import environment_of
from tests.render.conftest import contents, output, wait_until

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]

METADATA_SIX = "fd00:ec2::254"
PORT, PLAIN = 18000, 18001
OUTSIDE = ((METADATA_SIX, 80), (METADATA_SIX, 53), (NEIGHBOUR_SIX, 80))
NAME = "samokoder.example.org"
# A replica: it says for whom it was asked, and from where.
SERVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = {"for": self.headers["X-Forwarded-For"], "peer": self.client_address[0]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


@dataclass
class World:
    """A host with IPv6 and its neighbour; the ingress and two replicas as the program makes them."""

    pair: Pair
    client: docker.DockerClient
    environment: Environment
    ingress: Container
    replica: Container
    probes: Container

    @property
    def filter(self) -> PacketFilter:
        return PacketFilter(self.pair.host.enter)

    def asked_by_neighbour(self, host: str, port: int = PORT) -> dict[str, str]:
        """What a replica says of a request of the neighbour's; empty where there is no answer."""
        done = self.pair.neighbour.run(sys.executable, "-c", ASK, f"http://{host}:{port}/", check=False)
        return dict(json.loads(done.stdout)) if done.returncode == 0 else {}

    def goes_out(self, address: str, port: int) -> bool:
        return output(self.replica, "python", "-c", REACH, address, str(port))[0] == 0

    def probe(self, module: str) -> dict[str, str]:
        """Metrics of a probe of the public name."""
        address = f"http://127.0.0.1:{blackbox_exporter.PORT}/probe?module={module}"
        _, said = output(self.probes, "wget", "-q", "-O", "-", f"{address}&target=http://{NAME}:{PORT}/health")
        return dict(line.rsplit(" ", 1) for line in said.splitlines() if line and not line.startswith("#"))


def published(spec: ServiceSpec) -> dict[str, list[tuple[str, int]]]:
    """The ports of a part, as the Docker SDK takes them."""
    ports: dict[str, list[tuple[str, int]]] = {}
    for each in (spec.publish, *spec.also_publish):
        if each:
            ports.setdefault(f"{each.container_port}/tcp", []).append((each.address, each.host_port))
    return ports


@pytest.fixture(scope="module")
def world(local_images: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    images = {name: local_images.image(name) for name in ("caddy", "blackbox_exporter")}
    asks = local_images.image("python")
    entry = {"port": PORT, "bindAddress": "0.0.0.0", "bindReason": "a test"}  # noqa: S104 - in a namespace
    values = {"network": {"ipv6": True}, "ingress": entry, "images": images}
    environment = environment_of("six", values)
    public = environment_of("six", {**values, "ingress": {**entry, "domain": NAME}})
    with contextlib.ExitStack() as open_:
        made = open_.enter_context(pair(unpacked(tmp_path_factory.mktemp("newer"))))
        made.get_ipv6()
        made.neighbour.run("ip", "-6", "address", "add", f"{METADATA_SIX}/128", "dev", "lo", "nodad")
        made.host.run("ip", "-6", "route", "add", f"{METADATA_SIX}/128", "via", NEIGHBOUR_SIX)
        for address, port in OUTSIDE:
            words = [*made.neighbour.enter, sys.executable, "-m", "http.server", str(port), "--bind", address]
            open_.enter_context(made.serving(words))
        client = open_.enter_context(contextlib.closing(made.start()))
        with contextlib.closing(docker.from_env()) as system:
            for name in (asks, *images.values()):
                client.images.load(b"".join(system.images.get(name).save()))
        settings = environment.settings.network
        networks = {
            each: client.networks.create(
                f"{environment.prefix}-{each}",
                driver="bridge",
                internal=INTERNAL[each],
                options=options(each, settings),
                enable_ipv6=each in ipv6.networks(settings),
            )
            for each in (NetworkName.EDGE, NetworkName.APP)
        }
        laboratory = Laboratory(client, "six", networks[NetworkName.EDGE])
        aliases = [*environment.parts_of("api")]
        replica = client.containers.create(
            asks, ["python", "-c", SERVER], network=networks[NetworkName.EDGE].name, ports={"8000/tcp": ("::1", 18002)}
        )
        networks[NetworkName.APP].connect(replica, aliases=aliases)
        replica.start()
        spec = ingress.spec(environment)
        entrance = laboratory.prepare(spec, contents(spec), ports=published(spec))
        networks[NetworkName.APP].connect(entrance)
        entrance.start()
        asked = blackbox_exporter.spec(public)
        probes = laboratory.run(asked, contents(asked), extra_hosts=[f"{NAME}:{HOST}", f"{NAME}:{HOST_SIX}"])
        world = World(made, client, environment, entrance, replica, probes)
        wait_until(entrance, lambda: bool(world.asked_by_neighbour(HOST)))
        for address, port in OUTSIDE:
            wait_until(replica, partial(world.goes_out, address, port))
        wait_until(probes, lambda: output(probes, *asked.health_command)[0] == 0)
        yield world


def test_the_network_of_the_program_is_what_the_settings_ask_for(world: World) -> None:
    assert replacement.replaced(world.environment, world.client) == {}, "each preview would speak of an outage"
    assert packet_filter.bridges_of(world.client, world.environment).six


def test_a_user_is_answered_by_both_and_known_by_his_own_address(world: World) -> None:
    assert world.asked_by_neighbour(HOST)["for"] == NEIGHBOUR
    assert world.asked_by_neighbour(f"[{HOST_SIX}]")["for"] == NEIGHBOUR_SIX, "all users by IPv6 have one limit"
    logged = [json.loads(line) for line in world.ingress.logs().decode().splitlines() if '"handled request"' in line]
    assert {NEIGHBOUR, NEIGHBOUR_SIX} <= {each["request"]["client_ip"] for each in logged}, "the log names nobody"


def test_without_ipv6_in_the_network_a_published_port_hides_the_user(world: World) -> None:
    plain = world.client.networks.create("plain", driver="bridge")
    image = str(world.replica.attrs["Config"]["Image"])
    made: Container = world.client.containers.create(
        image, ["python", "-c", SERVER], network=plain.name, ports={"8000/tcp": ("::", PLAIN)}
    )
    made.start()
    wait_until(made, lambda: bool(world.asked_by_neighbour(f"[{HOST_SIX}]", PLAIN)))
    peer = world.asked_by_neighbour(f"[{HOST_SIX}]", PLAIN)["peer"]
    assert NEIGHBOUR_SIX not in peer, "the network need not have IPv6, and no outage is due for it"
    made.remove(force=True)
    plain.remove()


def test_by_ipv6_a_neighbour_reaches_published_ports_alone_and_a_container_no_metadata(world: World) -> None:
    replica, edge = world.replica, f"{world.environment.prefix}-{NetworkName.EDGE}"
    replica.reload()
    inside = str(replica.attrs["NetworkSettings"]["Networks"][edge]["GlobalIPv6Address"])
    bridges = packet_filter.bridges_of(world.client, world.environment)
    assert world.goes_out(METADATA_SIX, 80), "the test proves nothing: nobody answers there"
    assert packet_filter.put(world.environment, bridges, world.filter)
    try:
        assert packet_filter.is_there(world.environment, bridges, world.filter)
        assert not packet_filter.put(world.environment, bridges, world.filter), "each `up` would add its own"
        assert not world.pair.neighbour.reaches(inside, 8000), "a port on loopback is open to the neighbours"
        assert not world.goes_out(METADATA_SIX, 80), "a forged request reads the machine's credentials"
        assert world.goes_out(METADATA_SIX, 53), "where the cloud's name server has that address, no name is found"
        assert world.goes_out(NEIGHBOUR_SIX, 80), "the application has no way out by IPv6"
        assert world.asked_by_neighbour(f"[{HOST_SIX}]")["for"] == NEIGHBOUR_SIX, "the public entry is closed"
    finally:
        packet_filter.remove(world.environment, world.filter)
    assert world.goes_out(METADATA_SIX, 80), "`down` leaves rules"


def test_a_public_name_that_is_dead_by_ipv6_alone_is_found(world: World) -> None:
    (four, _), (six, _) = blackbox_exporter.BY_FAMILY.values()
    for module, protocol in ((four, "4"), (six, "6")):
        said = world.probe(module)
        assert (said["probe_success"], said["probe_ip_protocol"]) == ("1", protocol), module
    closed = ("INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "REJECT", "--reject-with", "tcp-reset")
    world.pair.host.run("ip6tables", "-I", *closed)
    try:
        assert world.probe(six)["probe_success"] == "0", "users by IPv6 find nobody, and no alert says so"
        assert world.probe(four)["probe_success"] == "1"
    finally:
        world.pair.host.run("ip6tables", "-D", *closed)
    end = time.monotonic() + 60
    while world.probe(six)["probe_success"] != "1":
        assert time.monotonic() < end, "what is mended is called dead"
