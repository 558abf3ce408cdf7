"""Whether the engine's own rules are in the packet filter: what iptables lists, whole, emptied and of other engines.

In a network namespace with an engine of its own: tests/live/test_packet_filter.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host.engine import DEFAULT_DOCKER_HOST
from operations.errors import ProjectError
from operations.network import engine_rules, engine_writes, packet_filter
from operations.network.filter_rules import FOUR, SIX
from operations.network.packet_filter import PacketFilter
from operations.workspace import lock

EDGE = "br-0123456789ab"
FILTER = f"""\
-P FORWARD DROP
-N DOCKER
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -o {EDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-USER -o {EDGE} -m comment --comment "samokoder:staging:0" -j DROP
-A DOCKER-USER -j RETURN
"""
NAT = f"""\
-N DOCKER
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.18.0.0/16 ! -o {EDGE} -j MASQUERADE
"""
EMPTIED = "-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n"
OURS_ALONE = f'-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -o {EDGE} -m comment --comment "samokoder:staging:0" -j DROP\n'


NEW = {"ServerVersion": "28.5.2"}
"""What an engine that has IPv6 says of itself."""


@dataclass(frozen=True)
class Listed(PacketFilter):
    """A packet filter that says what it is told to say."""

    filtered: str = FILTER
    translated: str = NAT
    status: int = 0
    filtered_six: str = FILTER
    status_six: int = 0

    def iptables(self, *words: str) -> subprocess.CompletedProcess[str]:
        four = self.program == FOUR
        said = self.translated if "nat" in words else self.filtered if four else self.filtered_six
        return subprocess.CompletedProcess(words, self.status if four else self.status_six, stdout=said, stderr="")


@pytest.mark.parametrize(
    ("host", "there"),
    [
        (Listed(), True),
        (Listed(filtered=EMPTIED, translated="-N DOCKER\n"), False),
        (Listed(filtered="-P FORWARD ACCEPT\n", translated=""), False),
        (Listed(translated="-P PREROUTING ACCEPT\n"), False),
        # `up` has put ours again into a chain that nobody else has filled.
        (Listed(filtered=OURS_ALONE), False),
        (Listed(status=3), None),
    ],
)
def test_rules_are_there_only_where_all_of_them_are(host: Listed, *, there: bool | None) -> None:
    assert engine_rules.are_there(host, EDGE) is there


@pytest.mark.parametrize(
    ("info", "settings", "command", "writes"),
    [
        ({}, "", ["dockerd"], {FOUR}),
        (NEW, "", ["dockerd"], {FOUR, SIX}),
        ({"ServerVersion": "20.10.24+dfsg1"}, "", ["dockerd"], {FOUR}),
        (NEW, '{"iptables": false}', ["dockerd"], {SIX}),
        (NEW, '{"ip6tables": false}', ["dockerd"], {FOUR}),
        (NEW, "no JSON", ["dockerd", "--iptables=false"], {SIX}),
        (NEW, "", ["dockerd", "--ip6tables=false"], {FOUR}),
        ({**NEW, "FirewallBackend": {"Driver": "nftables"}}, "", ["dockerd"], set()),
        ({**NEW, "FirewallBackend": {"Driver": "iptables+firewalld"}}, "", ["dockerd"], {FOUR, SIX}),
    ],
)
def test_an_engine_that_writes_no_rules_has_lost_none(
    info: dict[str, Any], settings: str, command: list[str], writes: set[str]
) -> None:
    found = {each for each in (FOUR, SIX) if engine_writes.writes_rules(info, settings, command, each)}
    assert found == writes


class Client:
    """An engine with the network that has a way out."""

    six = False
    """Whether that network has IPv6."""

    @property
    def api(self) -> Any:
        network = {"Id": EDGE.removeprefix("br-") + "0" * 52, "EnableIPv6": Client.six}
        return SimpleNamespace(networks=lambda names: [{"Name": names[0], **network}])

    def info(self) -> dict[str, Any]:
        return {**NEW, "FirewallBackend": {"Driver": "iptables"}}

    def close(self) -> None:
        """Nothing is open."""


class Workspace:
    """What a repair needs of one."""

    name = "staging"
    cache = None

    def __init__(self) -> None:
        settings = SimpleNamespace(docker_host=DEFAULT_DOCKER_HOST)
        self.environment = SimpleNamespace(name="staging", prefix="samokoder-staging", settings=settings)
        self.reporter = SimpleNamespace(task=self._task, say=lambda _: None)

    @contextmanager
    def _task(self, _title: str) -> Iterator[None]:
        yield

    def settings(self) -> Any:
        return self.environment

    def client(self) -> Client:
        return Client()

    def typed(self, target: str) -> str:
        return f"make {target}"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Listed]:
    """The packet filter of now: the last one."""
    now = [Listed()]
    monkeypatch.setattr(engine_writes, "SETTINGS", tmp_path / "daemon.json")
    monkeypatch.setattr(engine_writes, "_command", lambda: ["dockerd"])

    @contextmanager
    def held(workspace: Any, _doing: str) -> Iterator[Any]:
        yield workspace

    monkeypatch.setattr(packet_filter, "of_engine", lambda _: now[-1])
    monkeypatch.setattr(packet_filter, "guard", lambda _: None)
    monkeypatch.setattr(engine_rules, "connect", lambda _: Client())
    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(engine_rules, "_unhealthy", lambda _: [])
    return now


def test_rules_that_are_gone_are_told_with_what_to_type_and_a_restart_brings_them_back(
    host: list[Listed], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = cast("Any", Workspace())
    host.append(Listed(filtered=EMPTIED))
    said = engine_rules.lost_rules_remark(workspace.settings(), workspace, DEFAULT_DOCKER_HOST)
    assert "are gone" in said
    assert "make repair PART=network" in said
    monkeypatch.setattr(engine_rules, "_restart", lambda _: host.append(Listed()))
    with engine_rules.opened(workspace) as found:
        assert len(host) == 2, "nothing is restarted before it is agreed to"
        assert "every part is healthy" in found.run()
    assert engine_rules.lost_rules_remark(workspace.settings(), workspace, DEFAULT_DOCKER_HOST) == ""


def test_rules_of_ipv6_that_are_gone_are_told_where_the_network_has_it_and_the_engine_writes_them(
    host: list[Listed], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = cast("Any", Workspace())

    def told() -> str:
        return engine_rules.lost_rules_remark(workspace.settings(), workspace, DEFAULT_DOCKER_HOST)

    host.append(Listed(filtered_six=EMPTIED))
    assert told() == "", "a network without IPv6 needs none"
    monkeypatch.setattr(Client, "six", True)
    assert "for IPv6 are gone" in told(), "iptables alone says that all is well"
    assert "make repair PART=network" in told()
    with engine_rules.opened(workspace) as found:
        assert any("for IPv6" in line for line in found.lines())
    host.append(Listed(status_six=3))
    with pytest.raises(ProjectError, match="ip6tables does not say"), engine_rules.opened(workspace):
        pass
    host.append(Listed())
    assert told() == ""
    engine_writes.SETTINGS.write_text('{"ip6tables": false}')
    host.append(Listed(filtered_six=EMPTIED))
    assert told() == "", "a restart of this engine brings none, and the packet filter's check says why"


def test_a_restart_that_brings_nothing_back_is_no_success(host: list[Listed], monkeypatch: pytest.MonkeyPatch) -> None:
    host.append(Listed(filtered=EMPTIED))
    monkeypatch.setattr(engine_rules, "_restart", lambda _: None)
    with (
        engine_rules.opened(cast("Any", Workspace())) as found,
        pytest.raises(ProjectError, match="its rules are not there"),
    ):
        found.run()


def test_nothing_is_restarted_where_the_rules_are_there_or_nobody_can_say(
    host: list[Listed], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProjectError, match="nothing to repair"), engine_rules.opened(cast("Any", Workspace())):
        pass
    monkeypatch.setattr(packet_filter, "of_engine", lambda _: None)
    with (
        pytest.raises(ProjectError, match="not known: they can be seen by root"),
        engine_rules.opened(cast("Any", Workspace())),
    ):
        pass


STRANGERS = [
    b'-A INPUT -m comment --comment "na\xefve" -j ACCEPT',
    b'-A INPUT -m comment --comment "two\nlines" -j ACCEPT',
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=["of another encoding", "of two lines"])
def test_a_comment_in_somebody_elses_rule_hides_nothing_and_ends_no_up(tmp_path: Path, stranger: bytes) -> None:
    for table, rules in (("filter", FILTER), ("nat", NAT)):
        (tmp_path / table).write_bytes(stranger + b"\n" + rules.encode())
    (tmp_path / "chain").write_bytes(stranger.replace(b"INPUT", b"DOCKER-USER") + b"\n-A DOCKER-USER -j RETURN\n")
    program = tmp_path / "iptables"
    program.write_text(f'case "$*" in\n*" -t "*) cat "{tmp_path}/$4" ;;\n*" -S "*) cat "{tmp_path}/chain" ;;\nesac\n')
    host = PacketFilter(enter=("sh",), program=str(program))
    assert engine_rules.are_there(host, EDGE) is True
    listed = host.listed()
    assert listed is not None
    assert listed[-1] == ["-A", "DOCKER-USER", "-j", "RETURN"]
