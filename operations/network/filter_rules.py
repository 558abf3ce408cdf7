"""The rules that the platform puts into the host's packet filter, and the comment that marks them."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stack.common.names import PROJECT
from stack.settings.environment import Environment

CHAIN = "DOCKER-USER"
FOUR, SIX = "iptables", "ip6tables"
_REFUSED = {
    FOUR: ("REJECT", "--reject-with", "icmp-admin-prohibited"),
    SIX: ("REJECT", "--reject-with", "icmp6-adm-prohibited"),
}
"""A refused program fails at once; after a dropped packet it would wait for its timeout."""


@dataclass(frozen=True, kw_only=True)
class Bridges:
    """Names of the networks' bridges on the host; empty where a network is not there."""

    edge: str
    published: str
    six: bool = False
    """Whether `edge` has IPv6, too."""


def wanted(environment: Environment, bridges: Bridges, program: str = FOUR) -> list[list[str]]:
    """Return the rules of IPv4 or of IPv6, each without its comment, in their order in the chain."""
    return _wanted_six(environment, bridges) if program == SIX else _wanted_four(environment, bridges)


def _wanted_six(environment: Environment, bridges: Bridges) -> list[list[str]]:
    # IPv6 needs fewer rules: the kernel itself drops packets from outside to ::1, and only `edge` has IPv6.
    if not (bridges.six and bridges.edge):
        return []
    return [_no_way_beside(bridges.edge), *_closed_rules(environment, bridges, SIX)]


def _no_way_beside(bridge: str) -> list[str]:
    """Return the rule that drops everything from outside except answers and what comes through a published port."""
    state = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT"]
    return ["-o", bridge, "!", "-i", bridge, *state, "-j", "DROP"]


def _closed_rules(environment: Environment, bridges: Bridges, program: str) -> list[list[str]]:
    """Return the rules for the closed addresses of IPv4 or of IPv6."""
    return [
        ["-i", bridges.edge, "-d", network, "-p", protocol, "!", "--dport", "53", "-j", *_REFUSED[program]]
        for network in environment.settings.packet_filter.closed_by_family()[program == SIX]
        for protocol in ("tcp", "udp")
    ]


def _wanted_four(environment: Environment, bridges: Bridges) -> list[list[str]]:
    rules: list[list[str]] = []
    for bridge in filter(None, (bridges.edge, bridges.published)):
        # A neighbour can send the host a packet for a loopback address: engines before 28 forward it to the container.
        from_outside = ["-o", bridge, "!", "-i", bridge, "-m", "conntrack"]
        rules.append([*from_outside, "--ctorigdst", "127.0.0.0/8", "-j", "DROP"])
        rules.append(_no_way_beside(bridge))
    if inside := bridges.published:
        answers = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED"]
        rules.append(["-i", inside, "!", "-o", inside, *answers, "-j", *_REFUSED[FOUR]])
    return [*rules, *(_closed_rules(environment, bridges, FOUR) if bridges.edge else ())]


def commands(environment: Environment, bridges: Bridges) -> list[str]:
    """Return the shell commands that put the rules; each can be repeated, and succeeds where its rule exists."""
    made: list[str] = []
    for program in (FOUR, SIX):
        tag = ["-m", "comment", "--comment", comment_of(environment, bridges, program)]
        for rule in reversed(wanted(environment, bridges, program)):
            words = shlex.join([*rule, *tag])
            made.append(f"{program} -w -C {CHAIN} {words} 2>/dev/null || {program} -w -I {CHAIN} {words}")
    return made


def comment_of(environment: Environment, bridges: Bridges, program: str = FOUR) -> str:
    """Return the comment that marks our rules: the environment, and a digest of all its rules."""
    text = "\n".join(map(shlex.join, wanted(environment, bridges, program)))
    return f"{PROJECT}:{environment.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def ours(environment: Environment, rules: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the comment and the words of the rules of an environment."""
    for rule in rules:
        comment = rule[rule.index("--comment") + 1] if "--comment" in rule else ""
        if comment.rpartition(":")[0] == f"{PROJECT}:{environment.name}":
            yield comment, rule
