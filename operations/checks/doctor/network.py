"""The network of the host: its largest packet, IPv6, the engine's rules, the packet filter and the public name."""

from __future__ import annotations

import contextlib

from operations.checks.doctor import public_name
from operations.checks.doctor.asked import EnvironmentAsked, own_containers
from operations.errors import FailedError, UnavailableError
from operations.network import engine_rules, engine_writes, ipv6, mtu, packet_filter
from operations.network.filter_rules import SIX


def judge_mtu(asked: EnvironmentAsked) -> str:
    """Compare the largest packet of the networks with the uplink's."""
    networks = mtu.found(asked.environment, asked.engine().client)
    uplink = mtu.Uplink.parse(asked.facts().values)
    return mtu.judge(asked.environment, networks, uplink, engine_decides=mtu.engine_gives(asked.host))


def judge_ipv6(asked: EnvironmentAsked) -> str:
    """Judge whether IPv6 is as the settings want it."""
    environment, engine = asked.environment, asked.engine()
    bridges = packet_filter.bridges_of(engine.client, environment)
    there = bridges.six if bridges.edge else None
    host, writes = packet_filter.of_engine(asked.host), engine_writes.writes_here(engine.client, SIX)
    hides = packet_filter.no_ipv6(environment, bridges, host, writes=writes)
    return ipv6.judge(environment, engine.info.version, there, asked.facts().values, hides=hides)


def judge_engine_rules(asked: EnvironmentAsked) -> str:
    """Judge whether the engine's rules of the firewall are there."""
    there, why = engine_rules.look(asked.environment, asked.host, asked.engine().client)
    if there is None:
        raise UnavailableError(why)
    if not there:
        raise FailedError(engine_rules.advised(why, asked.workspace))
    return why


def judge_packet_filter(asked: EnvironmentAsked) -> str:
    """Judge whether the packet filter holds."""
    holds, why = packet_filter.look(asked.environment, asked.engine().client)
    if holds is None:
        raise UnavailableError(why)
    if not holds:
        raise FailedError(why)
    return why


def judge_public_name(asked: EnvironmentAsked) -> str:
    """Judge where the public name leads to."""
    runs = False
    with contextlib.suppress(UnavailableError):
        runs = bool(own_containers(asked))
    return public_name.check(asked.environment, runs=runs)
