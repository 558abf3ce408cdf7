"""Settings of the host: its memory and cores, its packet filter, and the stack's networks."""

from __future__ import annotations

from pydantic import Field

from stack.common.names import LEAST_MTU, USUAL_MTU
from stack.settings.types import Model, Network


class Host(Model):
    """Memory and cores of the host; the limits of the parts must fit into them."""

    memory_mib: int = Field(5888, ge=512, description="Memory of the host in MiB.", examples=[8192])
    cpus: int = Field(2, ge=1, description="Cores of the host.", examples=[4])


# Metadata services, which give a machine its credentials: most clouds; Alibaba; Oracle; Azure.
METADATA = ("169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32")
# Metadata services over IPv6: Amazon; Google; Oracle; Scaleway; Akamai.
METADATA_IPV6 = (
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:42::42/128",
    "fd00:a9fe:a9fe::1/128",
)


class PacketFilterSettings(Model):
    """Rules of the host's packet filter around the stack's networks (docs/security.md)."""

    manage: bool = Field(
        True,
        description="Let `make up` put the rules, as root of the engine's host. `false`: another hand does it.",
        examples=[False],
    )
    closed: list[Network] = Field(
        [*METADATA, *METADATA_IPV6],
        description="Where no container comes to, but for DNS: by default the addresses at which clouds give a machine "
        "its credentials. Add your provider's private network if the application needs nothing there; `[]` opens all. "
        "A list of IPv4 alone leaves those of IPv6 as they are by default.",
        examples=[["169.254.0.0/16", "10.0.0.0/8"]],
    )

    def closed_by_family(self) -> tuple[list[str], list[str]]:
        """Return the closed networks of IPv4 and those of IPv6."""
        four, six = ([each for each in self.closed if (":" in each) == by_six] for by_six in (False, True))
        # A list without IPv6 may be older than the IPv6 setting, so it must not open the IPv6 metadata services.
        return four, six or (list(METADATA_IPV6) if four else [])


class NetworkSettings(Model):
    """The stack's networks."""

    mtu: int | None = Field(
        None,
        ge=LEAST_MTU,
        le=USUAL_MTU,
        description="Largest packet of the networks with a way out, in bytes. Empty: new networks take that of the "
        "host's uplink, at most 1500, and those that exist stay as they were made. A change makes these networks and "
        "all containers on them anew, in which nobody is served.",
        examples=[1400],
    )
    uplink_mtu: int | None = Field(
        None,
        ge=LEAST_MTU,
        lt=USUAL_MTU,
        description="Largest packet of the host's uplink where that is below 1500; `make up` notes it before "
        "it makes the first network, and later what the existing ones take. It changes no network that exists.",
        examples=[1400],
    )
    ipv6: bool = Field(
        False,
        description="Whether the network `edge` has IPv6 too, and the ingress listens on it; from Docker Engine 28 on. "
        "A change makes that network and all containers on it anew, in which nobody is served (docs/faq.md).",
        examples=[True],
    )
