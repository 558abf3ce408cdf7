"""The segmented networks of an environment, in plain values."""

from __future__ import annotations

from stack.common.names import MTU_OPTION, NetworkName
from stack.settings.host import Networks

# Only `edge` has a way out, and an internal network can publish no ports. No argument here may change: the provider
# replaces a network for any change, and with it every container on it. The MTU and IPv6 alone do, where somebody sets
# them.
INTERNAL = {
    NetworkName.EDGE: False,
    NetworkName.PUBLISHED: False,
    NetworkName.APP: True,
    NetworkName.DATA: True,
    NetworkName.MONITORING: True,
}
# Whoever is on it sends with an address that nobody answers; the packet filter, where `make up` has it, sends nothing.
OPTIONS = {NetworkName.PUBLISHED: {"com.docker.network.bridge.enable_ip_masquerade": "false"}}


def options(network: NetworkName, settings: Networks) -> dict[str, str] | None:
    """Return the driver's options of a network. What an internal one sends never leaves the host."""
    # Where it is set, also a usual one is said: the provider sees no difference in options of which none is left.
    said = {MTU_OPTION: str(settings.mtu)} if settings.mtu and not INTERNAL[network] else {}
    return {**OPTIONS.get(network, {}), **said} or None
