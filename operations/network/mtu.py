"""The largest packet (MTU) of the stack's networks, compared with that of the host's uplink.

A container on a network with an MTU of 1500 bytes asks its peers to send packets of that size. Where the uplink takes
less (a cloud's network, a VPN) and the routers' messages about it are filtered, only small answers arrive.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from operations.clone import typed
from operations.errors import FailedError, UnavailableError
from operations.network import engine_writes, host_script, replacement
from operations.workspace import pasted
from stack.common.names import LEAST_MTU, MTU_OPTION, USUAL_MTU, NetworkName
from stack.settings.environment import Environment
from stack.settings.keys import key_of

if TYPE_CHECKING:
    import docker

    from operations.workspace.workspace import Workspace

# `ip` also follows policy rules, such as those of wg-quick; the address is public, and nothing is sent to it. Without
# `ip` the script reads the default route, or the two half routes that a VPN may add, which take precedence.
SCRIPT = """\
set -- $(PATH="$PATH:/usr/sbin:/sbin" ip -4 route get 198.41.0.4 2>/dev/null | awk 'NR == 1 {
    for (i = 1; i < NF; i++) if ($i == "dev") dev = $(i + 1); else if ($i == "via") via = $(i + 1)
    if (dev) print dev, via
}')
test -n "$1" || set -- $(awk '$2 == "00000000" && ($8 == "00000000" || $8 == "00000080") && $1 != "*" {
    print ($8 == "00000000"), $7, $1, $3
}' /proc/net/route | sort -k1,1n -k2,2n | head -n 1 | cut -d ' ' -f 3-)
test -n "$1" && echo "uplink-mtu $(cat "/sys/class/net/$1/mtu")" && echo "uplink-gateway ${2:-00000000}"
true
"""


@dataclass(frozen=True, kw_only=True)
class Uplink:
    """The way of a host's packets to the Internet."""

    mtu: int
    """Largest packet in bytes."""
    gateway: str
    """The gateway's address; empty: there is none."""

    @classmethod
    def parse(cls, said: Mapping[str, str]) -> Uplink | None:
        """Read what `SCRIPT` prints, name -> value; None where the host has no such way, or gives no answer."""
        mtu, gateway = said.get("uplink-mtu", ""), said.get("uplink-gateway", "")
        if not mtu.isdecimal() or int(mtu) == 0:
            return None
        return cls(mtu=int(mtu), gateway=_gateway(gateway))


def _gateway(said: str) -> str:
    """Return an IPv4 address that `ip` or the kernel's route table wrote; empty: there is none, or not of IPv4."""
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(said if "." in said else bytes.fromhex(said)[::-1])
        return "" if address.is_unspecified else str(address)
    return ""


def uplink(docker_host: str, *, enter: Sequence[str] = ()) -> Uplink | None:
    """Return the uplink of an engine's host; None where that is unknown, as with `tcp://`, which reaches no host.

    enter: the first words of a command, which run it in another network namespace of this machine.
    """
    return Uplink.parse(host_script.words(docker_host, SCRIPT, enter=enter))


def found(environment: Environment, client: docker.DockerClient) -> dict[str, int]:
    """Return name -> largest packet in bytes of the networks on the engine that are not internal."""
    there = replacement.networks(environment, client)
    return {name: int((each.get("Options") or {}).get(MTU_OPTION) or USUAL_MTU) for name, each in there.items()}


def of_new(environment: Environment, client: docker.DockerClient) -> int | None:
    """Return the largest packet that `up` gives a network which it makes; None: the setting or the engine decides.

    Where a network exists, its packet is taken and the host is not asked: `up` may make a network of an earlier run
    again (one that was made and not noted, one that somebody removed), and the others keep theirs.
    """
    settings = environment.settings
    if settings.network.mtu:
        return None
    if there := found(environment, client):
        return min((size for size in there.values() if _is_smaller(size)), default=None)
    return None if engine_gives(settings.docker_host) else of_uplink(uplink(settings.docker_host))


def engine_gives(docker_host: str) -> bool:
    """Tell whether an engine's own settings give new networks their packet.

    Those of another host's engine are not read, so its uplink decides (docs/faq.md).
    """
    return docker_host.startswith("unix://") and engine_writes.gives_mtu_here()


def of_uplink(way: Uplink | None) -> int | None:
    """Return the largest packet that the first networks take because of the host's uplink; None: the usual one."""
    return way.mtu if way and _is_smaller(way.mtu) else None


def _is_smaller(size: int) -> bool:
    return LEAST_MTU <= size < USUAL_MTU


def judge(
    environment: Environment, networks: Mapping[str, int], uplink: Uplink | None, *, engine_decides: bool = False
) -> str:
    """Return whether the uplink takes packets as large as the networks send. Raises UnavailableError.

    engine_decides: whether the engine's own settings give new networks their packet.
    """
    settings, up = environment.settings.network, typed(environment.name, "up")
    if uplink is None:
        raise UnavailableError(f"the host does not say what its uplink takes; {key_of('network', 'mtu')} sets it")
    takes = f"the host's uplink takes packets of {uplink.mtu} bytes"
    if not networks and engine_decides and not settings.mtu:
        return f"{takes}; `{up}` makes the networks for what Docker's own settings say (default-network-opts)"
    if not networks:
        return f"{takes}; `{up}` makes the networks for {settings.mtu or of_uplink(uplink) or USUAL_MTU}"
    sent = ", ".join(f"{name} {mtu}" for name, mtu in sorted(networks.items()))
    if max(networks.values()) <= uplink.mtu:
        return f"{takes}, the networks send at most {max(networks.values())}"
    if settings.mtu and set(networks.values()) == {settings.mtu}:
        return f"{takes}, and {key_of('network', 'mtu')} says {settings.mtu}"
    # This is no failure, because most routers report the size and TCP adapts; `doctor --after` tries what arrives.
    return f"{takes}, and containers send larger ones: {sent}. {_advice(environment, uplink.mtu)}"


def _advice(environment: Environment, mtu: int) -> str:
    line = f"pulumi config set --path {key_of('network', 'mtu')} {mtu}"
    return (
        "Where the word of it is filtered on the way, large answers hang. "
        f"{pasted.command(environment.name, line)}, then {typed(environment.name, 'up')}, which makes the networks anew"
        ", with every container on them: for about a minute nobody is served"
    )


def try_large(workspace: Workspace) -> str:
    """Send echo packets as large as `edge` takes, without fragmentation, to the hosts that the stack speaks to.

    Raises FailedError where only smaller packets come back, UnavailableError where no host answers.
    """
    environment = workspace.settings()
    if "backup" in environment.absent:
        raise UnavailableError("it is tried in the backup server's image, which is not here")
    way = uplink(environment.settings.docker_host)
    hosts = [*outside(environment), *([way.gateway] if way and way.gateway else [])]
    with contextlib.closing(workspace.client()) as client:
        return tried(environment, client, hosts, way)


def outside(environment: Environment) -> list[str]:
    """Return the hosts outside that the settings name."""
    alertmanager = environment.settings.alertmanager
    urls = [alertmanager.telegram.api_url] if alertmanager.telegram else []
    urls += [f"smtp://{alertmanager.email.smarthost}"] if alertmanager.email else []
    urls += [environment.offsite.endpoint] if environment.offsite else []
    return list(dict.fromkeys(filter(None, (urlsplit(url).hostname for url in urls))))


def tried(environment: Environment, client: docker.DockerClient, hosts: Sequence[str], way: Uplink | None) -> str:
    """Send the packets of `try_large` and return the result. Raises as `try_large`.

    hosts: the farthest first, because a near host says nothing of the way beyond it. way: the host's uplink.
    A hop that reports how large a packet may be is no failure, because each sender through it learns the size. But what
    this host knows of its own uplink does not reach its peers, and they send larger packets.
    """
    from operations.network import from_edge  # noqa: PLC0415 - the SDK takes its time

    mtu = found(environment, client).get(f"{environment.prefix}-{NetworkName.EDGE}", USUAL_MTU)
    said = from_edge.run(environment, client, _TRY, [str(mtu), *hosts]) if hosts else ""
    lines = [(host, int(size), int(lost)) for host, size, lost in (line.split() for line in said.splitlines())]
    answers = [(host, size, lost) for host, size, lost in lines if size]
    if not answers:
        raise UnavailableError(f"nobody answers an echo: {', '.join(hosts) or 'there is nobody to ask'}")
    narrow = way is not None and way.mtu < mtu
    host, size, lost = next((each for each in answers if each[2] or (narrow and each[1] < mtu)), answers[0])
    if lost or (narrow and size < mtu):
        raise FailedError(
            f"a packet of {lost or mtu} bytes does not come back from {host}, one of {size} does. "
            f"{_advice(environment, size)}"
        )
    told = "" if size == mtu else "; who sends a larger one is told how large it may be"
    return f"a packet of {size} bytes comes back whole from {host}{told}"


# Prints for each host the largest size that comes back, and the size that was lost silently (0: none, or all of them).
# Such an echo needs no privilege. 10 is IP_MTU_DISCOVER, and 2 forbids fragmentation; 28 bytes are the two headers.
# 14 is IP_MTU: the size that the kernel has learnt from a hop's answer, which it reports as EMSGSIZE.
# A host that ignores large echoes on purpose ignores the smallest size of the list too, so it counts as silent.
_TRY = """
import concurrent.futures, errno, os, socket, struct, sys
mtu, hosts = int(sys.argv[1]), sys.argv[2:]
def connected(host):
    echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    echo.setsockopt(socket.IPPROTO_IP, 10, 2)
    echo.settimeout(2)
    echo.connect((host, 0))
    return echo
def takes(host, size):
    body = os.urandom(size - 28)
    for number in range(3):
        try:
            with connected(host) as echo:
                echo.send(struct.pack('!BBHHH', 8, 0, 0, 0, number) + body)
                if echo.recv(65536)[8:] == body:
                    return size
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                with connected(host) as echo:
                    told = echo.getsockopt(socket.IPPROTO_IP, 14)
                if told < size:
                    return told
    return 0
def largest(host):
    common = (1492, 1480, 1460, 1450, 1440, 1420, 1400, 1380, 1350, 1320, 1280)
    top = mtu
    while (taken := takes(host, top)) and taken < top:
        top = taken
    if taken:
        return top, 0
    sizes = [top, *(size for size in common if size < top)]
    low, high = 0, len(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if takes(host, sizes[middle]) == sizes[middle] else (middle, high)
    return (sizes[high], top) if high < len(sizes) else (0, 0)
with concurrent.futures.ThreadPoolExecutor() as pool:
    for host, found in zip(hosts, pool.map(largest, hosts)):
        print(host, *found)
"""
