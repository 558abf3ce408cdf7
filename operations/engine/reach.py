"""How this machine reaches the ports that the stack publishes on the engine's host.

Where the engine is this machine's, the addresses of the ports are used. On another host the ports are on its loopback,
so a tunnel is opened: one `ssh -L` for all of them, with the address and the keys that also reach the engine.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from host import ssh
from host.ports import free_ports
from operations.clone import typed
from operations.errors import ProjectError
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.part import Published
from stack.settings.types import http_url

Url = Callable[[Published], str]

_TURN_SECONDS = 0.05


def host_address(settings: Published) -> str:
    """Return the address at which a part's port is reached on the engine's host."""
    bound = ipaddress.ip_address(settings.bind_address)
    if bound.is_unspecified:
        return "127.0.0.1" if bound.version == 4 else "::1"  # noqa: PLR2004 - IPv4
    return str(bound)


def url(settings: Published) -> str:
    """Return the address of a part's page on the engine's host."""
    return http_url(host_address(settings), settings.port)


@contextmanager
def opened(environment: Environment, *, seconds: float = 20) -> Iterator[Url]:
    """Yield a function that returns a part's address on this machine. seconds: the time for a tunnel to come up.

    Raises ProjectError where the ports of the engine's host cannot be reached.
    """
    host = environment.settings.docker_host
    if host.startswith("unix://"):
        yield url
    elif host.startswith("ssh://"):
        with _tunnel(host, _published(environment), seconds) as through:
            yield through
    else:
        raise ProjectError(
            f"The ports of the stack are on loopback of {urlsplit(host).hostname}, and {host} leads to its engine "
            f"alone. Run this there, or reach it by ssh: {key_of('docker_host')}: ssh://you@{urlsplit(host).hostname}"
        )


def elsewhere(host: str, typed: str) -> str:
    """Return how to reach the addresses of the table where they are another host's; empty: they are this machine's.

    host: the engine (`ssh://…`). typed: the command that holds a tunnel.
    """
    if host.startswith("unix://"):
        return ""
    if host.startswith("ssh://"):
        return f"The addresses are those of {ssh.address(host)}. From here: {typed}"
    return f"The addresses are those of {urlsplit(host).hostname}."


def tunnel(name: str, host: str, addresses: Iterable[str]) -> list[str]:
    """Return the ssh command that forwards the ports on loopback of the engine's host to the same ports here.

    name: the environment's. host: its engine. addresses: of the parts' pages on that host. Raises ProjectError where
    there is no port to forward.
    """
    if not host.startswith("ssh://"):
        raise ProjectError(f"{name} is not reached by ssh ({host}): its addresses are in `{typed(name, 'status')}`.")
    targets = [(parts.hostname or "", parts.port or 0) for parts in map(urlsplit, addresses)]
    hidden = {(to, port): port for to, port in targets if port and _is_loopback(to)}
    if not hidden:
        raise ProjectError(f"{name} has no page on loopback of {ssh.address(host)} that is known here.")
    return _command(host, hidden)


@contextmanager
def part(environment: Environment, settings: Published, named: str = "") -> Iterator[str]:
    """Yield the address of a part's page on this machine. named: an address to yield as it is. Raises as `opened`."""
    if named:
        yield named
        return
    with opened(environment) as address:
        yield address(settings)


def _published(environment: Environment) -> list[Published]:
    return [part for part in environment.running().values() if isinstance(part, Published)]


@contextmanager
def _tunnel(host: str, published: Sequence[Published], seconds: float) -> Iterator[Url]:
    targets = list(dict.fromkeys((host_address(part), part.port) for part in published))
    local = dict(zip(targets, free_ports(len(targets)), strict=True))
    command = _command(host, local)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            end = time.monotonic() + seconds
            while not all(listens("127.0.0.1", port) for port in local.values()):
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    text = said.read().decode(errors="replace").strip() or f"no answer within {seconds:g} s"
                    raise ProjectError(f"There is no tunnel to {host}: {text[-500:]}")
                time.sleep(_TURN_SECONDS)
            yield lambda part: http_url("127.0.0.1", local[host_address(part), part.port])
        finally:
            process.terminate()
            process.wait()


def _command(host: str, local: Mapping[tuple[str, int], int]) -> list[str]:
    """Return the ssh command that forwards ports of this machine to addresses of another host while it runs."""
    forwards = [word for (to, port), here in local.items() for word in ("-L", f"127.0.0.1:{here}:{_in_url(to)}:{port}")]
    return ssh.command(host, "-N", "-o", "ExitOnForwardFailure=yes", *forwards)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name: it is public


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def listens(host: str, port: int) -> bool:
    """Tell whether a process listens at an address."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False
