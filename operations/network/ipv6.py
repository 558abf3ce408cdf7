"""IPv6: what the engine and its host need for it, and the messages where the stack does not serve it.

Tested with two engines (docs/adr/0037-ipv6.md): 20.10 gives every client the network's own address, and lets a machine
with a route reach every port of a container. 28 keeps the client's address, and drops packets that come by a route.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping

from operations.clone import typed
from operations.errors import FailedError
from operations.network.engine_writes import SAFE_ENGINE
from operations.workspace import pasted
from stack.settings.environment import Environment
from stack.settings.keys import key_of

KEY = key_of("network", "ipv6")
KEPT = "IPV6_WAY"
"""Name of the variable by which a person says that the host keeps its way out by IPv6."""
ANSWER = "asked"
"""Name of the line of `SCRIPT` that each host prints that could be asked."""
# Its line comes last, and only from a host that can look: a host that does not answer is not one that loses nothing.
# The script prints a public address, a device with a route to the Internet (a VPN may have two half routes, others have
# 2000::/3), and each device whose default route comes from a router advertisement (RTF_ADDRCONF) with accept_ra = 1.
# When the host forwards packets, which the engine enables for a network with IPv6, the kernel drops that route and
# ignores router advertisements, unless accept_ra is 2.
SCRIPT = """\
awk '$4 == "00" && $1 ~ /^[23]/ { print "ipv6-address", $1; exit }' /proc/net/if_inet6 2>/dev/null
awk '$2 ~ /^0[0-3]$/ && $1 ~ /^[0-9a-f]0+$/ && $10 != "lo" { print "ipv6-way", $10; exit }' \\
    /proc/net/ipv6_route 2>/dev/null
for device in $(awk '$1 ~ /^0+$/ && $2 == "00" && substr($9, 4, 1) ~ /[4-7c-f]/ { print $10 }' \\
    /proc/net/ipv6_route 2>/dev/null); do
    test "$(cat "/proc/sys/net/ipv6/conf/$device/accept_ra" 2>/dev/null)" = 1 && echo "ipv6-learnt $device"
done
command -v awk >/dev/null && echo "asked yes"
true
"""


def refusal(environment: Environment, version: str) -> str:
    """Return why an engine cannot serve IPv6 as the settings say; empty: it can. version: of the engine."""
    if not environment.settings.network.ipv6 or _major(version) >= SAFE_ENGINE:
        return ""
    return (
        f"{KEY} needs Docker Engine {SAFE_ENGINE} or newer, and this is {version}: it would give every client by IPv6 "
        "the network's own address, and let a neighbour's machine reach each port of the containers. Upgrade the "
        f"engine, or take the setting away: {pasted.command(environment.name, f'pulumi config rm --path {KEY}')}"
    )


def judge(
    environment: Environment, version: str, there: bool | None, said: Mapping[str, str], *, hides: str = ""
) -> str:
    """Return how the stack and the host serve IPv6. Raises FailedError where they do not fit together.

    version: of the engine. there: whether the network has IPv6; None: there is no network yet. said: what `SCRIPT`
    prints, name -> value. hides: what to do where each IPv6 client has the gateway's address, because no rule of the
    engine for IPv6 is there; empty: they are.
    """
    ingress = environment.settings.ingress
    address = str(ipaddress.IPv6Address(bytes.fromhex(given))) if (given := said.get("ipv6-address")) else ""
    inside = ingress.kind == "caddy" and ipaddress.ip_address(ingress.bind_address).is_loopback
    if not environment.settings.network.ipv6:
        return _without(environment, version, address, forgets(said), inside=inside)
    if why := refusal(environment, version) or forgets(said):
        raise FailedError(why)
    if not (address or inside):
        raise FailedError(f"{KEY} is true, and the host has no public IPv6 address: nobody comes by it")
    if address and "ipv6-way" not in said:
        raise FailedError(
            f"{KEY} is true, and the host has {address} and no default route by IPv6: no answer reaches a client. Ask "
            "your provider for the gateway, and see `ip -6 route`"
        )
    has = f"the host has {address or 'no public address'}"
    if there is None:
        return f"{has}; `{typed(environment.name, 'up')}` makes the network with IPv6"
    if not there:
        raise FailedError(f"the network has none yet: `{typed(environment.name, 'up')}` makes it anew ({KEY})")
    if hides:
        raise FailedError(
            "no rule of the engine for IPv6 is there, so each client by it has the network's own address, and limits "
            f"count all as one: {hides}"
        )
    return f"{has}, and the stack serves IPv4 and IPv6" + (" on loopback" if inside else "")


def forgets(said: Mapping[str, str]) -> str:
    """Return that the host loses its IPv6 default route when it forwards packets, and the remedy; empty: it keeps it.

    said: what `SCRIPT` prints, name -> value.
    """
    if not (device := said.get("ipv6-learnt")):
        return ""
    # sysctl separates the parts of a key with dots, so a dot in a device's name is written as a slash.
    setting = shlex.quote(f"net.ipv6.conf.{device.replace('.', '/')}.accept_ra=2")
    file = "/etc/sysctl.d/90-samokoder-ipv6.conf"
    return (
        f"the host has learnt its own way out by IPv6 from a router ({device}), and forgets it at once when it "
        "forwards packets for a network with IPv6: whoever is logged in by IPv6 is locked out. As root on the engine's "
        f"host: `echo {setting} >> {file} && sysctl -p {file}`"
    )


def unasked(said: Mapping[str, str], docker_host: str, up: str) -> str:
    """Return why nobody knows whether the host keeps its way out by IPv6, and how to go on; empty: it was asked.

    said: what `SCRIPT` prints, name -> value. up: the command as a person types it.
    """
    if ANSWER in said:
        return ""
    return (
        f"the host of {docker_host} does not say how it knows its own way out by IPv6 (no answer to a script). A way "
        "that its kernel has learnt from a router is gone as soon as a network has IPv6, and whoever is logged in by "
        "IPv6 is locked out. Look on that host: `ip -6 route show default`. Where a line has `proto ra` and `dev "
        "DEVICE`, `sysctl net.ipv6.conf.DEVICE.accept_ra` must not say 1; with 1 set it to 2 (docs/faq.md). Then: "
        f"`{KEPT}=stays {up}`"
    )


def _without(environment: Environment, version: str, address: str, forgets: str, *, inside: bool) -> str:
    """Do what `judge` does, for a stack that serves only IPv4. Raises FailedError.

    address: the host's; forgets: what has to be done first; inside: whether the ingress is on loopback.
    """
    ingress = environment.settings.ingress
    if ingress.kind == "caddy" and ":" in ingress.bind_address and not inside:
        key = key_of("ingress", "bind_address")
        raise FailedError(
            f"{key} is {ingress.bind_address}, and the networks have IPv4 alone: every client has the network's own "
            f"address, and limits count all as one. {_advice(environment, version, forgets)}, with {key}: 0.0.0.0"
        )
    if not address:
        return "the host has no public IPv6 address, and the stack serves IPv4"
    if ingress.kind == "traefik":
        return f"the host has {address}, and your Traefik sees to it"
    if inside:
        return f"the host has {address}, and the ingress is on loopback alone"
    return (
        f"the host has {address}, and the stack serves IPv4 alone. For both: {_advice(environment, version, forgets)}"
    )


def _advice(environment: Environment, version: str, forgets: str) -> str:
    """Return what to type for a stack that serves both. forgets: what has to be done before anything else."""
    old = _major(version) < SAFE_ENGINE
    engine = f"Docker Engine {SAFE_ENGINE} or newer (this is {version}), then " if old else ""
    setting, up = pasted.command(environment.name, f"{KEY}: true"), typed(environment.name, "up")
    first = f"first, for {forgets}. Then " if forgets else ""
    return (
        f"{first}{engine}{setting}, then {up}, which makes the network and its containers anew (for about a minute "
        "nobody is served), then an AAAA record"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])
