"""Whether running containers find by name whom the host finds.

The engine reads the host's resolver when a container starts. Where the host's changes later (DHCP, a VPN, another
network), they still ask the old one.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from docker.errors import APIError

from operations.checks.doctor.asked import EnvironmentAsked, own_containers
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from operations.network import mtu
from stack.common.names import PART_LABEL, NetworkName
from stack.settings.environment import Environment

_UNKNOWN = 2
"""What getent ends with for a name that nobody knows."""
_PATIENCE = "RES_OPTIONS=timeout:2 attempts:2"
"""Of the host's resolver: its usual 20 s would leave the containers no time within the check's."""
_FOUND, _LOST = "found", "lost"
# Images have one of the two programs or none. BusyBox' nslookup may end with 0 for a name that it has not found.
_ASK = f"""\
if command -v getent >/dev/null; then
    getent hosts "$1" >/dev/null && echo {_FOUND} || echo {_LOST}
elif command -v nslookup >/dev/null; then
    case "$(nslookup "$1" 2>/dev/null)" in *Name:*) echo {_FOUND} ;; *) echo {_LOST} ;; esac
fi
"""


def judge_resolver(asked: EnvironmentAsked) -> str:
    """Ask for a name that the settings have, on the host and in each container that reaches outside."""
    name = next(_names(asked.environment), "")
    if not name:
        raise NotConfiguredError("the settings have no name of somebody outside")
    edge = f"{asked.environment.prefix}-{NetworkName.EDGE}"
    parts = {
        str(each["Labels"].get(PART_LABEL)): each
        for each in own_containers(asked)
        if each.get("State") == "running" and edge in ((each.get("NetworkSettings") or {}).get("Networks") or {})
    }
    if not parts:
        raise UnavailableError("no container runs yet that reaches outside")
    if not _on_host(asked, name):
        raise UnavailableError(f"the host itself does not find {name}: see its /etc/resolv.conf, or the name is wrong")
    with ThreadPoolExecutor(len(parts)) as pool:
        answers = dict(zip(parts, pool.map(partial(_in_container, asked, name), parts.values()), strict=True))
    lost, found = ([part for part, answer in answers.items() if answer == which] for which in (_LOST, _FOUND))
    if lost:
        again = ", ".join(f"`{asked.workspace.typed(f'restart PART={part}')}`" for part in lost)
        raise FailedError(
            f"the host finds {name}, and these containers do not: {', '.join(lost)}. A container keeps the resolver "
            f"that the host had when it started, and the host may have another one since: {again}. Where that does not "
            "help, a firewall stops their questions (docs/operations.md#the-hosts-firewall)"
        )
    if not found:
        raise UnavailableError("no container has a program that asks for a name")
    silent = [part for part, answer in answers.items() if not answer]
    return f"{', '.join(found)} find {name}" + (f"; without a program to ask by: {', '.join(silent)}" if silent else "")


def _names(environment: Environment) -> Iterator[str]:
    """Yield the names of those outside that the settings have; an address needs no resolver."""
    ingress = environment.settings.ingress
    for host in (*mtu.outside(environment), *([ingress.domain] if ingress.domain else [])):
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            continue
        if "." in host:
            yield host


def _on_host(asked: EnvironmentAsked, name: str) -> bool:
    # Not by the host's /etc/hosts, which containers do not have.
    done = asked.run("env", _PATIENCE, "getent", "-s", "dns", "hosts", name, given="")
    if done.returncode not in (0, _UNKNOWN):
        raise UnavailableError("the host has no getent that asks its resolver")
    return done.returncode == 0


def _in_container(asked: EnvironmentAsked, name: str, listed: Mapping[str, Any]) -> str:
    """Return what a container finds; empty where it has no program to ask by."""
    container = asked.engine().client.containers.get(str(listed["Id"]))
    try:
        _, said = execute(container, ["sh", "-c", _ASK, "sh", name], bound=Bound(asked.seconds / 2, MIB))
    except BoundError:
        return _LOST
    except APIError:  # some engines say so where an image has no shell
        return ""
    return next((each for each in (_FOUND, _LOST) if each == said.decode(errors="replace").strip()), "")
