"""Rules of the packet filter: whose they are, when they are changed, what is said where nobody may change them.

What they do to packets is in tests/live/test_packet_filter.py.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import DockerException
from requests.exceptions import RequestException

from host.errors import EngineError
from operations.checks.doctor import network
from operations.checks.doctor.asked import EnvironmentAsked
from operations.errors import FailedError, UnavailableError
from operations.network import engine_writes, filter_rules, packet_filter
from operations.network.filter_rules import Bridges
from operations.network.packet_filter import PacketFilter
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.settings.environment import Environment
from tests.recording import environment_of

STAGING = environment_of("staging", {})
BRIDGE = Bridges(edge="br-0123456789ab", published="br-1123456789ab")
ANEW = Bridges(edge="br-ffffffffffff", published="br-eeeeeeeeeeee")
NONE = Bridges(edge="", published="")
BOTH = replace(BRIDGE, six=True)
"""`edge` has IPv6, too."""


@dataclass(frozen=True)
class Kept(PacketFilter):
    """A chain in memory for IPv4 and one for IPv6, with another's rules in them."""

    rules: list[list[str]] = field(default_factory=lambda: [["-s", "203.0.113.9", "-j", "DROP"], ["-j", "RETURN"]])
    rules_six: list[list[str]] = field(default_factory=lambda: [["-s", "2001:db8::9/128", "-j", "DROP"]])
    fails: list[bool] = field(default_factory=list)
    passed: bool = True
    """Whether the engine sends packets through it."""
    passed_six: bool = True

    def iptables(self, *words: str) -> subprocess.CompletedProcess[str]:
        four = self.program == filter_rules.FOUR
        rules, passed = (self.rules, self.passed) if four else (self.rules_six, self.passed_six)
        if words == ("-C", "FORWARD", "-j", filter_rules.CHAIN):
            return subprocess.CompletedProcess([], 0 if passed else 1, "", "")
        do, _, rule = words[0], words[1], list(words[2:])
        said, code = "", 0
        if do == "-S":
            said = "".join(f"-A {filter_rules.CHAIN} {' '.join(each)}\n" for each in rules)
        elif do == "-I":
            if self.fails:
                return subprocess.CompletedProcess([], 4, "", "no memory")
            rules.insert(0, rule)
        elif rule in rules:
            rules.remove(rule)
        else:
            code = 1
        return subprocess.CompletedProcess([], code, said, "")

    def ours(self) -> list[list[str]]:
        return [rule for rule in (*self.rules, *self.rules_six) if "--comment" in rule]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(packet_filter, "_systemctl", lambda *_: None)
    return Kept(units=tmp_path)


def test_two_environments_have_their_own_rules_and_others_keep_theirs(kept: Kept) -> None:
    before = [*kept.rules]
    other = environment_of("staging-2", {})
    assert packet_filter.put(STAGING, BRIDGE, kept)
    assert packet_filter.put(other, ANEW, kept)
    assert not packet_filter.put(STAGING, BRIDGE, kept), "each `up` would change the packet filter"
    packet_filter.remove(STAGING, kept)
    assert packet_filter.is_there(other, ANEW, kept), "one environment's `down` opens another one"
    packet_filter.remove(other, kept)
    assert kept.rules == before


def test_a_network_that_was_made_anew_gets_the_rules_and_the_old_ones_go(kept: Kept) -> None:
    packet_filter.put(STAGING, BRIDGE, kept)
    assert packet_filter.is_there(STAGING, ANEW, kept) is False
    assert packet_filter.put(STAGING, ANEW, kept)
    assert {rule[rule.index("-o" if "-o" in rule else "-i") + 1] for rule in kept.ours()} == {ANEW.edge, ANEW.published}


def test_a_failure_leaves_the_rules_of_before(kept: Kept) -> None:
    packet_filter.put(STAGING, BRIDGE, kept)
    before = kept.ours()
    kept.fails.append(True)
    with pytest.raises(OSError, match="no memory"):
        packet_filter.put(environment_of("staging", {"packetFilter": {"closed": []}}), ANEW, kept)
    assert all(rule in kept.rules for rule in before), "for a moment, or for good, everything would be open"


def test_systemd_puts_the_same_rules_before_the_engine_starts(kept: Kept, tmp_path: Path) -> None:
    packet_filter.keep(STAGING, BRIDGE, kept)
    (unit,) = tmp_path.iterdir()
    text = unit.read_text()
    assert "Before=docker.service" in text, "a container runs before the rules are there"
    steps = [shlex.split(line)[-1] for line in text.splitlines() if line.startswith("ExecStart=/bin/sh -c ")]
    assert "-N DOCKER-USER" in steps[0], "before the first start of the engine there is no chain to put them into"
    assert steps[1:] == filter_rules.commands(STAGING, BRIDGE)
    assert "%" not in text
    if shutil.which("systemd-analyze"):
        said = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        assert unit.name not in said.stderr, said.stderr
    packet_filter.remove(STAGING, kept)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("version", "bridge", "host", "holds", "says"),
    [
        ("20.10.24", NONE, True, None, "`make up` puts them"),
        ("20.10.24", BRIDGE, True, False, "they are not there"),
        ("20.10.24", BRIDGE, False, None, "lets a machine that may route to it reach ports that are on loopback alone"),
        ("28.1.0", BRIDGE, False, None, "169.254.0.0/16, "),
    ],
)
def test_what_is_said_where_the_rules_are_not_there(
    kept: Kept, version: str, bridge: Bridges, host: bool, holds: bool | None, says: str
) -> None:
    found, why = packet_filter.judge(STAGING, version, bridge, kept if host else None)
    assert found is holds
    assert says in why
    if bridge.edge:
        assert all(command in why for command in filter_rules.commands(STAGING, bridge)), "nobody knows what to type"
    if version == "28.1.0":
        assert "loopback" not in why, "that engine keeps them on loopback by itself"


def test_rules_that_are_there_are_told_so_and_a_firewall_of_anothers_is_left_alone(kept: Kept) -> None:
    packet_filter.put(STAGING, BRIDGE, kept)
    holds, why = packet_filter.judge(STAGING, "20.10.24", BRIDGE, kept)
    assert holds
    assert "169.254.0.0/16" in why
    not_ours = environment_of("staging", {"packetFilter": {"manage": False}})
    assert packet_filter.judge(not_ours, "20.10.24", BRIDGE, kept)[0] is None


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "fd00::1/8", "metadata", "10.0.0.0/8; rm -rf /"])
def test_a_closed_network_is_a_network(wrong: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"packetFilter": {"closed": [wrong]}})
    assert caught.value.mistakes[0].key.startswith("samokoder:packetFilter.closed")


@pytest.mark.parametrize("bridge", [BRIDGE, Bridges(edge=BRIDGE.edge, published="")])
def test_what_was_sent_to_a_loopback_address_from_outside_is_dropped_before_published_ports_pass(
    bridge: Bridges,
) -> None:
    rules = [" ".join(rule) for rule in filter_rules.wanted(STAGING, bridge)]
    for name in filter(None, (bridge.edge, bridge.published)):
        loopback = f"-o {name} ! -i {name} -m conntrack --ctorigdst 127.0.0.0/8 -j DROP"
        assert loopback in rules, "the engine's own translation of a port on loopback lets a neighbour in"
        published = next(rule for rule in rules if rule.startswith(f"-o {name}") and "DNAT" in rule)
        assert rules.index(loopback) < rules.index(published)


def test_rules_that_no_packet_passes_are_not_put_and_nobody_is_told_to_type_them(kept: Kept) -> None:
    unused = replace(kept, passed=False)
    before = [*unused.rules]
    assert unused.listed() is None
    assert packet_filter.is_there(STAGING, BRIDGE, unused) is None
    with pytest.raises(OSError, match="no packet passes DOCKER-USER"):
        packet_filter.put(STAGING, BRIDGE, unused)
    assert unused.rules == before
    holds, why = packet_filter.judge(STAGING, "29.0.0", BRIDGE, unused)
    assert holds is None, "rules in a chain of nobody's look like protection"
    assert "sends no packet through DOCKER-USER" in why
    assert "iptables -w" not in why


def test_what_is_told_to_type_never_makes_the_chain_by_itself() -> None:
    told = packet_filter.advice(STAGING, BRIDGE)
    assert " -N " not in told, "a chain that no packet passes looks like protection"
    assert "only where `iptables -C FORWARD -j DOCKER-USER` fails not" in told


def test_behind_a_traefik_nobody_says_that_every_way_out_is_closed(kept: Kept) -> None:
    traefik = {"kind": "traefik", "domain": "samokoder.example.org"}
    where = {"network": "proxy", "address": "172.30.0.2"}
    behind = environment_of("staging", {"ingress": {**traefik, "traefik": where}})
    packet_filter.put(behind, BRIDGE, kept)
    holds, why = packet_filter.judge(behind, "20.10.24", BRIDGE, kept)
    assert holds is None, "the API may have its default route by a network where no rule of ours is"
    assert "what the API sends may leave by the network proxy" in why
    packet_filter.remove(behind, kept)
    assert packet_filter.judge(behind, "20.10.24", BRIDGE, kept)[0] is False, "what is missing is worse, and is told"


@dataclass
class Told:
    """A workspace whose engine gives this answer, and what it was told to say."""

    answer: Exception | None = None
    settings_: Environment = STAGING
    lines: list[str] = field(default_factory=list)

    def workspace(self) -> Workspace:
        def client() -> Any:
            if self.answer:
                raise self.answer
            networks = [{"Name": "samokoder-staging-edge", "Id": "0123456789ab", "Options": {}}]
            api = SimpleNamespace(networks=lambda names: [each for each in networks if each["Name"] in names])
            info = {"ServerVersion": "28.5.2"}
            return SimpleNamespace(api=api, close=lambda: None, info=lambda: info)

        reporter = SimpleNamespace(say=self.lines.append)
        made = SimpleNamespace(
            settings=lambda: self.settings_, reporter=reporter, typed=lambda word: f"make {word}", client=client
        )
        return cast("Workspace", made)


@pytest.fixture
def units_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_filter, "systemd_runs", lambda: True)


NOT_FROM_HERE = "Packet filter: not put from here; see `make doctor`"


@pytest.mark.usefixtures("units_only")
def test_an_up_that_may_not_put_the_rules_says_so_and_one_that_shall_not_says_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in (None, replace(kept, passed=False)):
        monkeypatch.setattr(packet_filter, "of_engine", lambda _, host=host: host)
        told = Told()
        packet_filter.guard(told.workspace())
        assert told.lines == [NOT_FROM_HERE], "by ssh or from CI everybody takes the host for closed"
        told = Told(settings_=environment_of("staging", {"packetFilter": {"manage": False}}))
        packet_filter.guard(told.workspace())
        assert told.lines == []
    assert not list(kept.units.iterdir()), "a unit would make a chain that no packet passes"
    monkeypatch.setattr(packet_filter, "of_engine", lambda _: kept)
    told = Told()
    packet_filter.guard(told.workspace())
    assert told.lines == ["Packet filter: no way in beside published ports (docs/security.md)"]
    assert list(kept.units.iterdir())


@pytest.mark.parametrize(
    "answer",
    [EngineError("it is gone"), DockerException("it is gone"), RequestException("it is gone"), OSError("it is gone")],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_is_gone_does_not_hide_what_pulumi_says(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    monkeypatch.setattr(packet_filter, "of_engine", lambda _: kept)
    told = Told(answer)
    packet_filter.guard(told.workspace())
    assert told.lines == ["The packet filter is not as it should be: it is gone. See: make doctor"]


@pytest.mark.parametrize("holds", [True, False, None])
def test_doctor_and_hardening_say_where_the_rules_are_not_there(
    holds: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_filter, "look", lambda *_: (holds, "how it is"))
    told = packet_filter.filter_remark(Told().workspace())
    assert told == ("" if holds else "Packet filter: how it is"), "`make hardening` says nothing of an open host"
    engine = SimpleNamespace(client=None)
    asked = cast("EnvironmentAsked", SimpleNamespace(environment=STAGING, engine=lambda: engine))
    if holds:
        assert network.judge_packet_filter(asked) == "how it is"
    else:
        with pytest.raises(FailedError if holds is False else UnavailableError, match="how it is"):
            network.judge_packet_filter(asked)


def test_by_ipv6_nothing_passes_beside_published_ports_and_to_the_metadata_either(kept: Kept) -> None:
    before = [*kept.rules_six]
    assert packet_filter.put(STAGING, BOTH, kept)
    assert not packet_filter.put(STAGING, BOTH, kept), "each `up` would change the packet filter"
    rules = [" ".join(rule) for rule in kept.rules_six]
    beside = f"-o {BOTH.edge} ! -i {BOTH.edge} -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
    assert any(rule.startswith(beside) for rule in rules), "a neighbour reaches every port of every container"
    for metadata in (
        *("fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128", "fd00:a9fe:a9fe::1/128"),
    ):
        for protocol in ("tcp", "udp"):
            refused = (
                f"-i {BOTH.edge} -d {metadata} -p {protocol} ! --dport 53 -j REJECT --reject-with icmp6-adm-prohib"
            )
            assert any(rule.startswith(refused) for rule in rules), "a forged request reads the machine's credentials"
    assert not any("169.254" in rule for rule in rules), "ip6tables refuses an IPv4 address, and all rules with it"
    assert not any(":" in word for rule in kept.rules for word in rule if not word.startswith("samokoder:"))
    packet_filter.remove(STAGING, kept)
    assert kept.rules_six == before, "what others have put there is theirs"


def test_the_rules_of_ipv4_are_the_same_with_ipv6_and_go_by_themselves(kept: Kept) -> None:
    assert filter_rules.wanted(STAGING, BOTH) == filter_rules.wanted(STAGING, BRIDGE)
    assert filter_rules.comment_of(STAGING, BOTH) == filter_rules.comment_of(STAGING, BRIDGE), (
        "each host would get its rules anew for nothing"
    )
    packet_filter.put(STAGING, BOTH, kept)
    assert packet_filter.is_there(STAGING, BRIDGE, kept) is False, "rules for a network that has no IPv6 any more"
    assert packet_filter.put(STAGING, BRIDGE, kept)
    assert all("--comment" not in rule for rule in kept.rules_six)


def test_an_engine_that_sends_no_ipv6_through_the_chain_is_told_where_the_network_has_it(kept: Kept) -> None:
    without = replace(kept, passed_six=False)
    assert packet_filter.put(STAGING, BRIDGE, without), "an engine without IPv6 is the usual one"
    assert packet_filter.is_there(STAGING, BRIDGE, without)
    with pytest.raises(OSError, match="no packet passes DOCKER-USER of ip6tables"):
        packet_filter.put(STAGING, BOTH, without)
    assert packet_filter.is_there(STAGING, BOTH, without) is None
    for bridges, host in ((BRIDGE, without), (BOTH, kept), (BOTH, None)):
        assert packet_filter.no_ipv6(STAGING, bridges, host, writes=False) == ""
    holds, why = packet_filter.judge(STAGING, "28.5.2", BOTH, without, writes_six=False)
    assert holds is False, "every client by IPv6 is the gateway, and the metadata are open"
    assert "DOCKER-USER of ip6tables" in why
    assert '"ip6tables": false' in why, "nobody knows what to do"
    holds, why = packet_filter.judge(STAGING, "28.5.2", BOTH, without, writes_six=True)
    assert holds is False
    assert '"ip6tables": false' not in why, "that line is not in daemon.json: the rules were emptied"
    assert "make repair PART=network" in why
    packet_filter.remove(STAGING, without)


def test_what_is_typed_and_what_systemd_does_has_both(kept: Kept) -> None:
    commands = filter_rules.commands(STAGING, BOTH)
    assert {each.split()[0] for each in commands} == {"iptables", "ip6tables"}
    assert "`ip6tables`" in packet_filter.advice(STAGING, BOTH)
    assert "ip6tables" not in packet_filter.advice(STAGING, BRIDGE)
    packet_filter.keep(STAGING, BOTH, kept)
    (unit,) = kept.units.iterdir()
    steps = [
        shlex.split(line)[-1] for line in unit.read_text().splitlines() if line.startswith("ExecStart=/bin/sh -c ")
    ]
    assert steps[1].startswith("ip6tables -w -N DOCKER-USER"), "before the engine's first start there is no chain"
    assert steps[2:] == commands


def test_whether_a_network_has_ipv6_is_asked_of_the_engine_and_not_of_the_settings() -> None:
    networks = [{"Name": "samokoder-staging-edge", "Id": "0123456789ab", "Options": {}, "EnableIPv6": True}]
    client = cast("Any", SimpleNamespace(api=SimpleNamespace(networks=lambda names: networks)))
    found = packet_filter.bridges_of(client, STAGING)
    assert found == Bridges(edge="br-0123456789ab", published="", six=True), "an older network would stay open"


def test_what_fails_by_ipv6_takes_nothing_from_ipv4(kept: Kept) -> None:
    without = replace(kept, passed_six=False)
    assert packet_filter.is_there(STAGING, BOTH, without) is False, "missing is told as nobody knows"
    with pytest.raises(OSError, match="ip6tables"):
        packet_filter.put(STAGING, BOTH, without)
    assert without.ours(), "IPv4 is left open because of IPv6"
    assert packet_filter.is_there(STAGING, BOTH, without) is None


@pytest.mark.parametrize("settings", ["", '{"ip6tables": false}'], ids=["emptied", "written by no engine"])
@pytest.mark.usefixtures("units_only")
def test_systemd_keeps_the_rules_of_ipv4_where_those_of_ipv6_fail_and_those_of_ipv6_where_the_engine_has_them(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: str
) -> None:
    monkeypatch.setattr(engine_writes, "SETTINGS", tmp_path / "engine" / "daemon.json")
    monkeypatch.setattr(engine_writes, "_command", lambda: ["dockerd"])
    engine_writes.SETTINGS.parent.mkdir()
    engine_writes.SETTINGS.write_text(settings)
    without = replace(kept, passed_six=False)
    monkeypatch.setattr(packet_filter, "of_engine", lambda _: without)
    monkeypatch.setattr(packet_filter, "bridges_of", lambda *_: BOTH)
    told = Told()
    packet_filter.guard(told.workspace())
    assert "DOCKER-USER of ip6tables" in told.lines[0]
    (unit,) = kept.units.glob("*.service")
    text = unit.read_text()
    steps = [shlex.split(line)[-1] for line in text.splitlines() if line.startswith("ExecStart=/bin/sh -c ")]
    if settings:
        assert steps[1:] == filter_rules.commands(STAGING, BRIDGE), "open after the next start"
        assert "ip6tables" not in text, "a chain that no packet passes looks like protection"
    else:
        assert steps[2:] == filter_rules.commands(STAGING, BOTH), "emptied once, IPv6 is open after each next start"


@pytest.mark.parametrize(
    ("closed", "closes"),
    [
        (["169.254.0.0/16", "10.0.0.0/8"], True),
        ([], False),
        (["169.254.0.0/16", "2001:db8::/32"], False),
    ],
    ids=["IPv4 alone", "everything open", "both"],
)
def test_a_list_of_ipv4_alone_opens_no_metadata_by_ipv6(closed: list[str], closes: bool) -> None:
    environment = environment_of("staging", {"packetFilter": {"closed": closed}})
    rules = [" ".join(rule) for rule in filter_rules.wanted(environment, BOTH, filter_rules.SIX)]
    assert any("fd00:ec2::/32" in rule for rule in rules) is closes, "a list from before there was IPv6"
    assert any("2001:db8::/32" in rule for rule in rules) is ("2001:db8::/32" in closed)
    assert not any(":" in rule for rule in map(" ".join, filter_rules.wanted(environment, BOTH)))
