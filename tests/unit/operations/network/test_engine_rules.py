"""Whether the engine's own rules are in the packet filter: what iptables lists, whole, emptied and of other engines.

In a network namespace with an engine of its own: tests/live/test_packet_filter.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host.engine import DEFAULT_DOCKER_HOST
from operations.errors import ProjectError
from operations.network import engine_rules, packet_filter
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


@dataclass(frozen=True)
class Listed(PacketFilter):
    """A packet filter that says what it is told to say."""

    filtered: str = FILTER
    translated: str = NAT
    status: int = 0

    def iptables(self, *words: str) -> subprocess.CompletedProcess[str]:
        said = self.translated if "nat" in words else self.filtered
        return subprocess.CompletedProcess(words, self.status, stdout=said, stderr="")


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
        ({}, "", ["dockerd"], True),
        ({}, '{"iptables": false}', ["dockerd"], False),
        ({}, "no JSON", ["dockerd", "--iptables=false"], False),
        ({"FirewallBackend": {"Driver": "nftables"}}, "", ["dockerd"], False),
        ({"FirewallBackend": {"Driver": "iptables+firewalld"}}, "", ["dockerd"], True),
    ],
)
def test_an_engine_that_writes_no_rules_has_lost_none(
    info: dict[str, Any], settings: str, command: list[str], *, writes: bool
) -> None:
    assert engine_rules.writes_rules(info, settings, command) is writes


class Client:
    """An engine with the network that has a way out."""

    api = SimpleNamespace(networks=lambda names: [{"Name": names[0], "Id": EDGE.removeprefix("br-") + "0" * 52}])

    def info(self) -> dict[str, Any]:
        return {"FirewallBackend": {"Driver": "iptables"}}

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
def host(monkeypatch: pytest.MonkeyPatch) -> list[Listed]:
    """The packet filter of now: the last one."""
    now = [Listed()]

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
    said = engine_rules.told(workspace.settings(), workspace, DEFAULT_DOCKER_HOST)
    assert "are gone" in said
    assert "make repair PART=network" in said
    monkeypatch.setattr(engine_rules, "_restart", lambda _: host.append(Listed()))
    with engine_rules.opened(workspace) as found:
        assert len(host) == 2, "nothing is restarted before it is agreed to"
        assert "every part is healthy" in found.run()
    assert engine_rules.told(workspace.settings(), workspace, DEFAULT_DOCKER_HOST) == ""


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
