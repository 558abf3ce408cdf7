"""IPv6: which network has it, and on which IPv6 address of the host the ingress listens.

operations/network/ipv6.py checks what the engine and its host must support.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from stack.common.mistakes import Mistake
from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.settings.host import NetworkSettings
from stack.settings.ingress import IngressSettings

EVERY, LOOPBACK = "::", "::1"
_LEAST_MTU = 1280


def networks(settings: NetworkSettings) -> tuple[NetworkName, ...]:
    """Return the networks that have IPv6 in addition to IPv4: only `edge`, which publishes the ingress."""
    return (NetworkName.EDGE,) if settings.ipv6 else ()


def bound_beside(ingress: IngressSettings, settings: NetworkSettings) -> str:
    """Return the host's IPv6 address on which the ingress listens in addition to IPv4; empty if there is none."""
    if not settings.ipv6:
        return ""
    return LOOPBACK if ipaddress.ip_address(ingress.bind_address).is_loopback else EVERY


def rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if `edge` cannot have IPv6, or the ingress' IPv4 address has no IPv6 counterpart."""
    settings = environment.settings
    largest = settings.network.mtu or settings.network.uplink_mtu
    if settings.network.ipv6 and largest and largest < _LEAST_MTU:
        yield Mistake(
            "samokoder:network.mtu",
            str(largest),
            f"at least {_LEAST_MTU} with samokoder:network.ipv6: the kernel gives a smaller network no IPv6",
            f"samokoder:network.mtu: {_LEAST_MTU}",
        )
    if "ingress" not in environment.running() or not settings.network.ipv6:
        return
    address = ipaddress.ip_address(settings.ingress.bind_address)
    if address.version == 4 and (address.is_unspecified or address.is_loopback):  # noqa: PLR2004 - IPv4
        return
    key = "samokoder:ingress.bindAddress"
    yield Mistake(
        key,
        settings.ingress.bind_address,
        "0.0.0.0 or 127.0.0.1 with samokoder:network.ipv6: the ingress is then on the same of IPv6, too",
        f"{key}: 0.0.0.0",
    )
