"""The segmented networks of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack import ipv6
from stack.names import MTU_OPTION, NetworkName
from stack.settings import Environment
from stack.settings import Networks as NetworkSettings

TYPE = "samokoder:platform:Networks"

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


@dataclass(frozen=True, kw_only=True)
class NetworksArgs:
    """What the networks are named after."""

    environment: Environment


class Networks(pulumi.ComponentResource):
    """One bridge for each segment; `by_name` has them."""

    by_name: Mapping[NetworkName, docker.Network]

    def __init__(self, name: str, args: NetworksArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        settings = args.environment.settings.network
        # Set by nobody, it stays what it was when the network was made: a file without it would replace what serves.
        kept = ["options"] if settings.mtu is None else []
        self.by_name = {
            network: docker.Network(
                f"{name}-{network}",
                name=f"{args.environment.prefix}-{network}",
                driver="bridge",
                internal=INTERNAL[network],
                options=options(network, settings),
                # The engine chooses a private range of its own for it.
                ipv6=True if network in ipv6.networks(settings) else None,
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=kept),
            )
            for network in NetworkName
        }
        self.register_outputs({network.value: resource.name for network, resource in self.by_name.items()})


def options(network: NetworkName, settings: NetworkSettings) -> dict[str, str] | None:
    """Return the driver's options of a network. What an internal one sends never leaves the host."""
    # Where it is set, also a usual one is said: the provider sees no difference in options of which none is left.
    said = {MTU_OPTION: str(settings.mtu)} if settings.mtu and not INTERNAL[network] else {}
    return {**OPTIONS.get(network, {}), **said} or None
