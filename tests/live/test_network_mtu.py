"""An uplink that takes less than 1500 bytes: in network namespaces of the test's own, and in a whole stack."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import docker
import pytest
from docker.models.containers import Container

from operations.audit.drift.detect import find_drift
from operations.data import backups
from operations.engine import containers
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import FailedError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.preview import show_preview
from operations.lifecycle.up import bring_up
from operations.network import mtu
from operations.network.mtu import Uplink
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL, NetworkName
from stack.settings.environment import Environment
from stack.settings.host import NetworkSettings
from stack.spec.networks import options
from tests.live.conftest import with_config
from tests.namespaces import NEIGHBOUR, Pair, pair
from tests.recording import environment_of

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]

NARROW, WIDE = 1400, 1500
LARGE = 200_000
# Asked by the whole answer alone: where it hangs, it is given up.
_DOWNLOAD = f"""
import sys, urllib.request
answer = urllib.request.urlopen('http://{NEIGHBOUR}:8090/' + sys.argv[1], timeout=6).read()
print(len(answer))
"""


@dataclass
class World:
    """A host whose uplink drops what is larger than 1400 bytes without a word, and a neighbour who does not know."""

    pair: Pair
    client: docker.DockerClient
    environment: Environment
    asks: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Run in the host's namespace with its own /sys, where the devices are."""
        words = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh")
        return (*self.pair.host.enter, *words)

    @contextlib.contextmanager
    def edge(self, mtu: int) -> Iterator[None]:
        """A network `edge` as the program makes it for an uplink that takes so much."""
        name = f"{self.environment.prefix}-{NetworkName.EDGE}"
        network = self.client.networks.create(
            name, driver="bridge", options=options(NetworkName.EDGE, NetworkSettings(mtu=mtu))
        )
        try:
            yield
        finally:
            network.remove()

    def downloads(self, path: str) -> bool:
        """Tell whether a container on `edge` gets an answer of the neighbour whole."""
        name = f"{self.environment.prefix}-{NetworkName.EDGE}"
        made: Container = self.client.containers.create(self.asks, ["python", "-c", _DOWNLOAD, path], network=name)
        try:
            made.start()
            return bool(made.wait()["StatusCode"] == 0)
        finally:
            made.remove(force=True)


@pytest.fixture(scope="module")
def world(local_images: Environment) -> Iterator[World]:
    environment = environment_of("narrow", {})
    asks = local_images.image("python")
    with pair() as made:
        link = made.host.name[-6:]
        # The cable carries no packet larger than the host's end takes, and the neighbour cuts by its own end.
        made.host.run("ip", "link", "set", f"h{link}", "mtu", str(NARROW))
        made.neighbour.run("ip", "link", "set", f"n{link}", "mtu", str(WIDE), "gso_max_segs", "1")
        made.host.run("ip", "route", "add", "default", "via", NEIGHBOUR)
        (made.folder / "large").write_bytes(b"x" * LARGE)
        (made.folder / "small").write_bytes(b"x")
        client = made.start()
        with contextlib.closing(docker.from_env()) as system:
            client.images.load(b"".join(system.images.get(asks).save()))
        labels = {ENVIRONMENT_LABEL: environment.name, PART_LABEL: backups.PART}
        # `samokoder doctor` asks from a container like this one, which has Python.
        client.containers.create(asks, ["sleep", "infinity"], network_mode="none", user="999:999", labels=labels)
        words = [*made.neighbour.enter, sys.executable, "-m", "http.server", "8090", "--directory", str(made.folder)]
        with made.serving(words):
            yield World(made, client, environment, asks)
        client.close()


def test_a_large_answer_hangs_on_a_network_of_1500_bytes_and_arrives_on_one_as_the_uplink_takes(world: World) -> None:
    way = mtu.uplink(world.pair.socket, enter=world.enter)
    assert way == Uplink(mtu=NARROW, gateway=NEIGHBOUR), "the host knows what its uplink takes"
    with world.edge(WIDE):
        assert world.downloads("small"), "the test proves nothing: nobody is reached"
        assert not world.downloads("large"), "the test proves nothing: such packets pass"
        said = mtu.judge(world.environment, mtu.found(world.environment, world.client), way)
        assert "network.mtu 1400" in said, "doctor does not say what to type"
        with pytest.raises(FailedError, match=r"1500 bytes .* one of 1400 does"):
            mtu.tried(world.environment, world.client, [NEIGHBOUR], way)
    with world.edge(way.mtu):
        assert world.downloads("large"), "a network as the uplink takes it is of no use"
        assert "1400" in mtu.judge(world.environment, mtu.found(world.environment, world.client), way), (
            "doctor calls it wrong all the same"
        )
        said = mtu.tried(world.environment, world.client, ["192.0.2.255", NEIGHBOUR], way)
        assert "1400 bytes comes back whole" in said, "one that nobody answers hides one that does"


def test_a_way_that_drops_large_packets_farther_on_is_found_and_its_size_told(world: World) -> None:
    rule = ("INPUT", "-p", "icmp", "-m", "length", "--length", "1301:65535", "-j", "DROP")
    world.pair.neighbour.run("iptables", "-A", *rule)
    try:
        with world.edge(NARROW), pytest.raises(FailedError, match=r"network\.mtu 1280"):
            mtu.tried(world.environment, world.client, [NEIGHBOUR], None)
    finally:
        world.pair.neighbour.run("iptables", "-D", *rule)


def networks(engine: docker.DockerClient, workspace: Workspace) -> dict[str, str]:
    """Name -> id of the networks of a stack."""
    prefix = f"{workspace.settings().prefix}-"
    return {each["Name"].removeprefix(prefix): each["Id"] for each in engine.api.networks(names=[prefix])}


def packets(engine: docker.DockerClient, workspace: Workspace, part: str) -> list[int]:
    """The largest packets of a part's devices."""
    container = containers.find(engine, workspace.settings(), part)
    _, said = execute(container, ["sh", "-c", "cat /sys/class/net/eth*/mtu"])
    return sorted(map(int, said.split()))


def test_a_stack_takes_the_uplinks_packet_keeps_it_and_changes_it_in_an_order_that_serves_again(
    new_workspace: Callable[[], Workspace],
    engine: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace = new_workspace()
    monkeypatch.setattr(mtu, "uplink", lambda _host: Uplink(mtu=NARROW, gateway=""))
    bring_up(workspace, interactive=False)
    assert packets(engine, workspace, "ingress") == [NARROW, WIDE, WIDE], "edge, and the two that never leave the host"
    before, parts = networks(engine, workspace), containers.ids(engine, workspace.name)

    # Another machine brings it up, or a VPN is on: nobody asked for another network.
    monkeypatch.setattr(mtu, "uplink", lambda _host: Uplink(mtu=NARROW - 100, gateway=""))
    bring_up(workspace, interactive=False)
    assert networks(engine, workspace) == before, "an uplink that changed has replaced what serves"
    assert containers.ids(engine, workspace.name) == parts
    assert find_drift(workspace) == []

    asked_for = with_config(workspace, {"samokoder:network": {"mtu": WIDE}})
    capsys.readouterr()
    show_preview(asked_for, interactive=False)
    said = capsys.readouterr()
    assert "nobody is served" in said.out + said.err, "a preview does not say what that takes"
    rows = bring_up(asked_for, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    after = networks(engine, workspace)
    assert {name for name in before if before[name] != after[name]} == {"edge", "published"}, "and no other network"
    assert packets(engine, workspace, "ingress") == [WIDE, WIDE, WIDE], "the setting did not arrive"
    assert find_drift(asked_for) == []
    # The setting is taken away again: what is there stays.
    bring_up(replace(workspace), interactive=False)
    assert networks(engine, workspace) == after
    destroy_data(workspace, interactive=False)
