"""The segmented networks of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack.common.names import NetworkName
from stack.settings import ipv6
from stack.settings.environment import Environment
from stack.spec.networks import INTERNAL, options

TYPE = "samokoder:platform:Networks"


@dataclass(frozen=True, kw_only=True)
class NetworksArgs:
    """The environment, which gives the networks their names and options."""

    environment: Environment


class Networks(pulumi.ComponentResource):
    """One bridge for each segment; `by_name` has them."""

    by_name: Mapping[NetworkName, docker.Network]

    def __init__(self, name: str, args: NetworksArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        settings = args.environment.settings.network
        # Without a configured MTU a network keeps the options that it was made with: else a stack file that lacks the
        # MTU, or another uplink, would replace the network and with it every container that serves.
        kept = ["options"] if settings.mtu is None else []
        self.by_name = {
            network: docker.Network(
                f"{name}-{network}",
                name=f"{args.environment.prefix}-{network}",
                driver="bridge",
                internal=INTERNAL[network],
                options=options(network, settings),
                # The engine chooses a private range for IPv6.
                ipv6=True if network in ipv6.networks(settings) else None,
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=kept),
            )
            for network in NetworkName
        }
        self.register_outputs({network.value: resource.name for network, resource in self.by_name.items()})
