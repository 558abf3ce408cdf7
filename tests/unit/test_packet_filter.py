"""Rules of the packet filter: whose they are, when they are changed, what is said where nobody may change them.

What they do to packets is in tests/live/test_packet_filter.py.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from operations import packet_filter
from operations.packet_filter import Bridges, PacketFilter
from stack.mistakes import InvalidSettingsError
from tests.recording import environment_of

STAGING = environment_of("staging", {})
BRIDGE = Bridges(edge="br-0123456789ab", published="br-1123456789ab")
ANEW = Bridges(edge="br-ffffffffffff", published="br-eeeeeeeeeeee")
NONE = Bridges(edge="", published="")


@dataclass(frozen=True)
class Kept(PacketFilter):
    """A chain in memory, with another's rules in it."""

    rules: list[list[str]] = field(default_factory=lambda: [["-s", "203.0.113.9", "-j", "DROP"], ["-j", "RETURN"]])
    fails: list[bool] = field(default_factory=list)

    def iptables(self, *words: str) -> subprocess.CompletedProcess[str]:
        do, _, rule = words[0], words[1], list(words[2:])
        said, code = "", 0
        if do == "-S":
            said = "".join(f"-A {packet_filter.CHAIN} {' '.join(each)}\n" for each in self.rules)
        elif do == "-I":
            if self.fails:
                return subprocess.CompletedProcess([], 4, "", "no memory")
            self.rules.insert(0, rule)
        elif rule in self.rules:
            self.rules.remove(rule)
        else:
            code = 1
        return subprocess.CompletedProcess([], code, said, "")

    def ours(self) -> list[list[str]]:
        return [rule for rule in self.rules if "--comment" in rule]


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
    assert text.count("ExecStart=/bin/sh -c ") == len(packet_filter.commands(STAGING, BRIDGE))
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
        assert all(command in why for command in packet_filter.commands(STAGING, bridge)), "nobody knows what to type"
    if version == "28.1.0":
        assert "loopback" not in why, "that engine keeps them on loopback by itself"


def test_rules_that_are_there_are_told_so_and_a_firewall_of_anothers_is_left_alone(kept: Kept) -> None:
    packet_filter.put(STAGING, BRIDGE, kept)
    holds, why = packet_filter.judge(STAGING, "20.10.24", BRIDGE, kept)
    assert holds
    assert "169.254.0.0/16" in why
    not_ours = environment_of("staging", {"packetFilter": {"manage": False}})
    assert packet_filter.judge(not_ours, "20.10.24", BRIDGE, kept)[0] is None


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "fd00::/8", "metadata", "10.0.0.0/8; rm -rf /"])
def test_a_closed_network_is_a_network(wrong: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        environment_of("staging", {"packetFilter": {"closed": [wrong]}})
    assert caught.value.mistakes[0].key.startswith("samokoder:packetFilter.closed")
