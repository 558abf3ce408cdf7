"""The segmented networks of an environment, in plain values."""

from __future__ import annotations

from stack.common.names import MTU_OPTION, NetworkName
from stack.settings.host import NetworkSettings

# Whether each network is internal. Only `edge` has a way out; ports cannot be published from an internal network. Do
# not change these values: the provider replaces a network for any change, and every container on it. Only the settings
# for MTU and IPv6 may cause that.
INTERNAL = {
    NetworkName.EDGE: False,
    NetworkName.PUBLISHED: False,
    NetworkName.APP: True,
    NetworkName.DATA: True,
    NetworkName.MONITORING: True,
}
# Without masquerading, packets leave with a private source address, so no answer comes back. The packet filter, where
# `make up` manages it, rejects such packets as well.
OPTIONS = {NetworkName.PUBLISHED: {"com.docker.network.bridge.enable_ip_masquerade": "false"}}


def options(network: NetworkName, settings: NetworkSettings) -> dict[str, str] | None:
    """Return the driver options of a network; internal networks get no MTU, because their packets stay on the host."""
    # An MTU that is set to the default is written too: the provider does not notice when the last option is removed.
    mtu = settings.mtu or settings.uplink_mtu
    said = {MTU_OPTION: str(mtu)} if mtu and not INTERNAL[network] else {}
    return {**OPTIONS.get(network, {}), **said} or None
