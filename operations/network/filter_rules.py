"""Which rules the platform wants in the host's packet filter, and the comment by which it knows its own."""

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
"""At once, where a packet that is dropped would let a program wait for its time limit."""


@dataclass(frozen=True, kw_only=True)
class Bridges:
    """Names of the networks' bridges on the host; empty where a network is not there."""

    edge: str
    published: str
    six: bool = False
    """Whether `edge` has IPv6, too."""


def wanted(environment: Environment, bridges: Bridges, program: str = FOUR) -> list[list[str]]:
    """Return the rules of IPv4 or of IPv6, each without its comment, the first one first."""
    return _wanted_six(environment, bridges) if program == SIX else _wanted_four(environment, bridges)


def _wanted_six(environment: Environment, bridges: Bridges) -> list[list[str]]:
    # The kernel itself drops what comes from outside for ::1, and only `edge` has IPv6.
    if not (bridges.six and bridges.edge):
        return []
    return [_no_way_beside(bridges.edge), *_closed_rules(environment, bridges, SIX)]


def _no_way_beside(bridge: str) -> list[str]:
    """Return the rule by which nothing comes in but through a published port."""
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
        # Sent to the host's hardware address for a port on loopback: the engine before 28 passes it on like any other.
        from_outside = ["-o", bridge, "!", "-i", bridge, "-m", "conntrack"]
        rules.append([*from_outside, "--ctorigdst", "127.0.0.0/8", "-j", "DROP"])
        rules.append(_no_way_beside(bridge))
    if inside := bridges.published:
        answers = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED"]
        rules.append(["-i", inside, "!", "-o", inside, *answers, "-j", *_REFUSED[FOUR]])
    return [*rules, *(_closed_rules(environment, bridges, FOUR) if bridges.edge else ())]


def commands(environment: Environment, bridges: Bridges) -> list[str]:
    """Return what puts the rules, for a shell; each can be done twice, and none stops at a rule that is there."""
    made: list[str] = []
    for program in (FOUR, SIX):
        tag = ["-m", "comment", "--comment", comment_of(environment, bridges, program)]
        for rule in reversed(wanted(environment, bridges, program)):
            words = shlex.join([*rule, *tag])
            made.append(f"{program} -w -C {CHAIN} {words} 2>/dev/null || {program} -w -I {CHAIN} {words}")
    return made


def comment_of(environment: Environment, bridges: Bridges, program: str = FOUR) -> str:
    """Return the mark of our rules: whose they are, and which."""
    text = "\n".join(map(shlex.join, wanted(environment, bridges, program)))
    return f"{PROJECT}:{environment.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def ours(environment: Environment, rules: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the comment and the words of the rules of an environment."""
    for rule in rules:
        comment = rule[rule.index("--comment") + 1] if "--comment" in rule else ""
        if comment.rpartition(":")[0] == f"{PROJECT}:{environment.name}":
            yield comment, rule
