"""What is made of the words of a host about its uplink, and of the answers to large packets."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from operations.errors import FailedError, UnavailableError
from operations.lifecycle import prepare
from operations.network import engine_writes, host_script, mtu
from operations.network.mtu import Uplink
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.names import MTU_OPTION
from tests.recording import environment_of

EDGE = "samokoder-staging-edge"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"uplink-mtu": "1400", "uplink-gateway": "010200C0"}, Uplink(mtu=1400, gateway="192.0.2.1")),
        ({"uplink-mtu": "1492", "uplink-gateway": "00000000"}, Uplink(mtu=1492, gateway="")),
        ({"uplink-mtu": "1400"}, Uplink(mtu=1400, gateway="")),
        ({"uplink-mtu": "1420", "uplink-gateway": "192.0.2.9"}, Uplink(mtu=1420, gateway="192.0.2.9")),
        ({"uplink-mtu": "1420", "uplink-gateway": "inet6"}, Uplink(mtu=1420, gateway="")),
        ({"uplink-mtu": "0"}, None),
        ({"uplink-gateway": "010200C0"}, None),
        ({}, None),
    ],
)
def test_the_hosts_words_about_its_uplink_are_understood(said: dict[str, str], expected: Uplink | None) -> None:
    assert mtu.Uplink.parse(said) == expected


def test_of_an_engine_behind_tcp_nothing_is_said_about_this_machine() -> None:
    assert mtu.uplink("tcp://192.0.2.1:2376") is None, "the uplink of this machine is not the engine's"


def test_what_a_hosts_own_shell_prints_in_another_encoding_ends_nothing() -> None:
    script = "printf 'caf\\351 welcome\\n'; echo uplink-mtu 1400"
    assert host_script.words("unix:///nowhere", script)["uplink-mtu"] == "1400"


def test_networks_that_send_more_than_the_uplink_takes_are_told_with_what_to_type() -> None:
    way = Uplink(mtu=1400, gateway="")
    said = mtu.judge(environment_of("staging", {}), {EDGE: 1500}, way)
    assert "network.mtu 1400" in said, "the line that puts it right"
    assert "nobody is served" in said, "what it takes"
    assert "1400" in mtu.judge(environment_of("staging", {}), {EDGE: 1400}, way)
    assert mtu.judge(environment_of("staging", {}), {}, way).endswith("makes the networks for 1400"), "before any `up`"
    for odd in (9000, 500):
        said = mtu.judge(environment_of("staging", {}), {}, Uplink(mtu=odd, gateway=""))
        assert "networks for 1500" in said, f"`up` makes other ones than `doctor` says: {odd}"
    asked_for = environment_of("staging", {"network": {"mtu": 1500}})
    assert "1500" in mtu.judge(asked_for, {EDGE: 1500}, way), "somebody knows another way than the usual one"
    assert "larger ones" in mtu.judge(asked_for, {EDGE: 1450}, way)
    with pytest.raises(UnavailableError):
        mtu.judge(asked_for, {EDGE: 1500}, None)


def an_engine_with(monkeypatch: pytest.MonkeyPatch, there: Mapping[str, str], uplink: int | None) -> Any:
    """Return what `prepare` knows of an engine. there: network -> its option for the MTU. uplink: of the host."""
    rows = [
        {"Name": f"samokoder-staging-{name}", "Options": {MTU_OPTION: size} if size else None}
        for name, size in there.items()
    ]
    listed = SimpleNamespace(networks=lambda names: [row for row in rows if row["Name"] in names])
    client = SimpleNamespace(api=listed, close=lambda: None)
    monkeypatch.setattr("operations.lifecycle.prepare.connect", lambda _: client)
    monkeypatch.setattr(mtu, "uplink", lambda _: Uplink(mtu=uplink, gateway="") if uplink else None)
    return SimpleNamespace(docker_host="unix:///nowhere")


@pytest.mark.parametrize(
    ("settings", "way", "expected"),
    [({}, 1400, 1400), ({"network": {"mtu": 1450}}, 1400, None), ({}, 1500, None), ({}, 9001, None), ({}, None, None)],
    ids=["smaller", "set", "usual", "larger", "silent"],
)
def test_the_first_networks_take_the_uplinks_packet(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], way: int | None, expected: int | None
) -> None:
    engine = an_engine_with(monkeypatch, {}, way)
    monkeypatch.setattr(engine_writes, "gives_mtu_here", lambda: False)
    noted = {"samokoder:network": {"uplinkMtu": expected}} if expected else {}
    assert prepare._of_networks(environment_of("staging", settings), engine) == noted


@pytest.mark.parametrize(
    ("settings", "command", "expected"),
    [
        ('{"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1350"}}}', "", True),
        ('{"default-network-opts": {"bridge": {"com.docker.network.bridge.enable_icc": "false"}}}', "", False),
        ('{"default-network-opts": {"overlay": {"com.docker.network.driver.mtu": "1350"}}}', "", False),
        ('{"default-network-opts": null, "mtu": 1350}', "", False),  # that one is for docker0 alone
        ("[1]", "", False),
        ("{", "", False),
        ("", "dockerd --default-network-opt=bridge=com.docker.network.driver.mtu=1350", True),
        ("", "dockerd --default-network-opt bridge=com.docker.network.driver.mtu=1350", True),
        ("", "dockerd --mtu=1350", False),
    ],
)
def test_an_engine_whose_owner_has_chosen_a_packet_for_new_networks_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: str, command: str, *, expected: bool
) -> None:
    (tmp_path / "daemon.json").write_text(settings, encoding="utf-8")
    monkeypatch.setattr(engine_writes, "SETTINGS", tmp_path / "daemon.json")
    monkeypatch.setattr(engine_writes, "_command", command.split)
    engine = an_engine_with(monkeypatch, {}, 1400)
    environment = environment_of("staging", {})
    assert (prepare._of_networks(environment, engine) == {}) is expected, "1400 of ours wins over the owner's 1350"
    far = environment_of("staging", {"dockerHost": "ssh://deploy@server.example.org"})
    assert prepare._of_networks(far, engine), "the settings of this machine say nothing of another engine"
    said = mtu.judge(environment, {}, Uplink(mtu=1400, gateway=""), engine_decides=expected)
    assert ("default-network-opts" in said) is expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"edge": "1400", "published": "1400"}, 1400),
        ({"edge": "", "published": "1400"}, 1400),
        ({"edge": "1400"}, 1400),
        ({"edge": ""}, None),
        ({"edge": "", "published": ""}, None),
        ({"edge": "9000", "published": "1500"}, None),
        ({"edge": "100"}, None),
    ],
    ids=["killed before Pulumi noted them", "made again by hand", "one is gone", "usual", "all", "larger", "tiny"],
)
def test_a_network_that_is_made_again_takes_what_those_have_that_exist_whatever_the_uplink_is_now(
    monkeypatch: pytest.MonkeyPatch, there: Mapping[str, str], expected: int | None
) -> None:
    noted = {"samokoder:network": {"uplinkMtu": expected}} if expected else {}
    for uplink in (1500, 1420, None):
        engine = an_engine_with(monkeypatch, there, uplink)
        assert prepare._of_networks(environment_of("staging", {}), engine) == noted, (
            "`up` removes one that an interrupted run has left, and makes it for another size without a word"
        )


@pytest.mark.parametrize(("there", "way"), [({}, 1200), ({"edge": "1200", "published": "1200"}, 1500)])
def test_ipv6_on_an_uplink_too_small_for_it_is_refused_before_anything_is_built_or_written(
    monkeypatch: pytest.MonkeyPatch, there: Mapping[str, str], way: int
) -> None:
    engine = an_engine_with(monkeypatch, there, way)
    monkeypatch.setattr(engine_writes, "gives_mtu_here", lambda: False)
    engine.other_users = ""
    for name in ("_note", "_built_here", "_of_images"):
        monkeypatch.setattr(prepare, name, lambda *_, **__: pytest.fail("images are built, then each command refuses"))
    monkeypatch.setattr(prepare, "_state", lambda _: ({}, dict))
    monkeypatch.setattr(prepare, "_of_engine", lambda *_, **__: {})
    workspace = SimpleNamespace(
        name="staging",
        settings=lambda **_: None,
        engine=lambda: engine,
        committed=lambda: {"config": {"samokoder:network": {"ipv6": True}}},
        extra_config={},
    )
    with pytest.raises(InvalidSettingsError) as caught:
        prepare.prepared(cast("Workspace", workspace), images=False)
    assert [each.key for each in caught.value.mistakes] == ["samokoder:network.mtu"]


ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
tun0	00000000	090200C0	0003	0	0	50	00000000	0	0	0
"""


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("exit 127", Uplink(mtu=1380, gateway="192.0.2.9")),
        ("echo '198.41.0.4 dev wg0 table 51820 src 10.0.0.2 uid 0'", Uplink(mtu=1420, gateway="")),
        ("echo '198.41.0.4 via 192.0.2.1 dev eth0 src 192.0.2.7 uid 0'", Uplink(mtu=1500, gateway="192.0.2.1")),
    ],
    ids=["without ip, the lower metric", "a route by a rule, as of wg-quick", "the usual one"],
)
def test_of_several_routes_the_one_is_taken_that_packets_take(tmp_path: Path, asked: str, expected: Uplink) -> None:
    (tmp_path / "route").write_text(ROUTES)
    for device, packet in (("eth0", 1500), ("tun0", 1380), ("wg0", 1420)):
        (tmp_path / device).mkdir()
        (tmp_path / device / "mtu").write_text(f"{packet}\n")
    (tmp_path / "ip").write_text(f"#!/bin/sh\n{asked}\n")
    (tmp_path / "ip").chmod(0o755)
    script = mtu.SCRIPT.replace("/proc/net/route", f"{tmp_path}/route")
    script = f"PATH={tmp_path}:$PATH\n" + script.replace("/sys/class/net", str(tmp_path))
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=30, check=True)
    assert Uplink.parse(dict(line.split() for line in done.stdout.splitlines())) == expected, done.stdout


class Way:
    """An echo through a hop that takes so much, and says so or drops the packet, to who takes so much without a word.

    As the kernel has it: the hop's answer to one packet is the error of the next call, and known from then on.
    """

    hop, says, end, known = 1500, True, 1500, 1500

    def __init__(self, *_: object) -> None:
        self.back = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
    def setsockopt(self, *_: object) -> None: ...
    def settimeout(self, _seconds: float) -> None: ...
    def connect(self, _address: object) -> None: ...

    def getsockopt(self, *_: object) -> int:
        return Way.known

    def send(self, packet: bytes) -> None:
        size = len(packet) + 20
        if size > Way.known:
            raise OSError(errno.EMSGSIZE, "Message too long")
        if size > Way.hop and Way.says:
            Way.known = Way.hop
        elif size <= min(Way.hop, Way.end):
            self.back = struct.pack("!BBHHH", 0, 0, 0, 0, 0) + packet[8:]

    def recv(self, _size: int) -> bytes:
        if not self.back:
            raise TimeoutError("timed out")
        return self.back


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the echoes through such a way, and gives what is made of them. The networks take 1500 bytes."""

    def tried(hop: int, *, says: bool, end: int = 1500, way: Uplink | None = None) -> str:
        for name, value in (("hop", hop), ("says", says), ("end", end), ("known", 1500)):
            monkeypatch.setattr(Way, name, value)

        def from_edge(_environment: object, _client: object, program: str, words: list[str]) -> str:
            with monkeypatch.context() as patched:
                patched.setattr(socket, "socket", Way)
                patched.setattr("sys.argv", ["-c", *words])
                exec(program, {})  # noqa: S102 - our own program
            return capsys.readouterr().out

        monkeypatch.setattr("operations.network.from_edge.run", from_edge)
        client: Any = SimpleNamespace(api=SimpleNamespace(networks=lambda **_: []))
        return mtu.tried(environment_of("staging", {}), client, ["192.0.2.9"], way)

    return tried


def test_a_hop_that_says_how_much_it_takes_is_no_failure_and_one_that_says_nothing_is(
    through: Callable[..., str],
) -> None:
    assert "1500 bytes comes back whole" in through(1500, says=True)
    assert "1400 bytes comes back whole" in through(1400, says=True), "TCP learns it, and an outage would be the cure"
    with pytest.raises(FailedError, match=r"1500 bytes does not come back .*network\.mtu 1400"):
        through(1400, says=False)
    with pytest.raises(FailedError, match=r"1400 bytes does not come back .*network\.mtu 1280"):
        through(1400, says=True, end=1300)
    with pytest.raises(UnavailableError):
        through(1400, says=True, end=0)


def test_what_the_host_says_of_its_own_uplink_does_not_help_those_who_answer(through: Callable[..., str]) -> None:
    with pytest.raises(FailedError, match=r"network\.mtu 1400"):
        through(1400, says=True, way=Uplink(mtu=1400, gateway=""))
    assert "1400" in through(1400, says=True, way=Uplink(mtu=1500, gateway="")), "it is another's farther on"
