"""The ranges of addresses of the stack's networks, against the routes of the host.

The engine avoids those of the host's own interfaces when it makes a network. It does not know what is behind a router,
nor a VPN or a private network that comes later.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from operations.checks.doctor.asked import EnvironmentAsked
from operations.errors import FailedError, UnavailableError
from operations.lifecycle import in_the_way
from operations.network import packet_filter
from stack.common.names import NetworkName

_WIDEST_PRIVATE = 8
"""Prefix of 10.0.0.0/8. A VPN that takes everything has wider routes, which a network may lie in."""


def judge_ranges(asked: EnvironmentAsked) -> str:
    """Judge whether no network of the environment hides addresses that the host has a route for."""
    environment, listed = asked.environment, asked.engine().client.api.networks()
    ours = {f"{environment.prefix}-{name}" for name in NetworkName}
    ranges = [(str(each["Name"]), network) for each in listed if each["Name"] in ours for network in _subnets([each])]
    up, down = asked.workspace.typed("up"), asked.workspace.typed("down")
    if not ranges:
        return f"`{up}` makes the networks, and the engine avoids the ranges of the host's interfaces: ask again then"
    of_engine = {packet_filter.bridge_name(each) for each in listed}
    there = asked.facts().routes
    if not there:
        raise UnavailableError("the host does not say which routes it has")
    routes = [each for each in there if each.device not in of_engine and each.network.prefixlen >= _WIDEST_PRIVATE]
    met = [
        f"{name} has {range_}, and the host a route to {route.network} ({route.device})"
        for name, range_ in ranges
        for route in routes
        if route.network.overlaps(range_)
    ]
    if not met:
        return f"{len(ranges)} networks, and the host has no route into them"
    # Bridges of the engine keep their addresses when it is restarted with other ranges, docker0 among them.
    free = _free([*(each.network for each in there if each.network.prefixlen >= _WIDEST_PRIVATE), *_subnets(listed)])
    how = (
        f"Give the engine other ranges: {in_the_way.other_ranges(free)}. Then `{down}` and `{up}`, which make the "
        "networks anew; data stay, and nobody is served meanwhile"
        if free
        else "No private range is free for the engine: narrow the routes (a VPN that takes all private ranges) first"
    )
    raise FailedError(
        f"{'; '.join(met)}. What is there (a VPN, a private network) is reached neither from the containers nor, where "
        f"the ranges overlap, from the host. {how}"
    )


def _subnets(listed: Iterable[Mapping[str, Any]]) -> Iterator[ipaddress.IPv4Network]:
    """Yield the IPv4 ranges of networks, as the engine lists them."""
    for each in listed:
        for config in (each.get("IPAM") or {}).get("Config") or ():
            # The engine chooses the ranges of IPv6 at random, in a space where no two meet.
            if isinstance(network := ipaddress.ip_network(config["Subnet"]), ipaddress.IPv4Network):
                yield network


def _free(taken: Sequence[ipaddress.IPv4Network]) -> str:
    """Return a range that meets none of these; empty: there is none."""
    candidates = [ipaddress.IPv4Network(f"10.{number}.0.0/16") for number in range(201, 256)]
    candidates += [ipaddress.IPv4Network(f"172.{number}.0.0/16") for number in range(17, 32)]
    fitting = (each for each in candidates if not any(each.overlaps(other) for other in taken))
    return str(next(fitting, ""))
