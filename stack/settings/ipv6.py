"""IPv6: which network has it, and on which address of the host the ingress is reached by it.

What of the engine and its host it needs: operations/network/ipv6.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from stack.common.mistakes import Mistake
from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.settings.host import Networks
from stack.settings.ingress import Ingress

EVERY, LOOPBACK = "::", "::1"


def networks(settings: Networks) -> tuple[NetworkName, ...]:
    """Return the networks that have IPv6 too: the one that publishes the ingress and has a way out."""
    return (NetworkName.EDGE,) if settings.ipv6 else ()


def bound_beside(ingress: Ingress, settings: Networks) -> str:
    """Return the IPv6 address of the host that the ingress has beside its IPv4 one; empty: none."""
    if not settings.ipv6:
        return ""
    return LOOPBACK if ipaddress.ip_address(ingress.bind_address).is_loopback else EVERY


def rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake where nobody can say which IPv6 address goes with the ingress' IPv4 address."""
    settings = environment.settings
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
