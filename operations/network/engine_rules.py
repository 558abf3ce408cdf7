"""The engine's own rules in the host's packet filter: whether they are there, and how they come back.

A reload of the host's firewall (firewalld, ufw, `iptables -F` in a script) may remove them. The containers of a
network then reach neither each other nor anything outside, and no alert leaves. The engine makes its rules when it
starts, and at no other time.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from docker.errors import DockerException
from requests.exceptions import RequestException

from host.daemon import ensure_engine, stop_engine, systemd_runs
from host.engine import connect
from host.errors import EngineError
from operations.engine import containers
from operations.engine.part_status import part_statuses
from operations.errors import ProjectError
from operations.network import engine_writes, packet_filter
from operations.network.filter_rules import CHAIN, SIX
from operations.network.packet_filter import PacketFilter
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.common.names import PROJECT, NetworkName

if TYPE_CHECKING:
    import docker

WHAT = "network"
_KEPT = "docs/operations.md#the-hosts-firewall"
_PATIENCE_SECONDS = 300.0
_PAUSE_SECONDS = 1.0


def are_there(host: PacketFilter, bridge: str) -> bool | None:
    """Tell whether the engine's rules for a network are there. None where iptables does not answer.

    host: of IPv4 or of IPv6. bridge: of a network that reaches the Internet.
    """
    with contextlib.suppress(OSError):
        listed = [host.iptables("-t", table, "-S") for table in ("filter", "nat")]
        if any(said.returncode for said in listed):
            return None
        filtered, translated = ([packet_filter.split(line) for line in said.stdout.split("\n")] for said in listed)
        passes = any(rule[:2] == ["-A", "FORWARD"] and rule[-2:] == ["-j", CHAIN] for rule in filtered)
        # The platform's own rules name the bridge too, and do not count.
        knows = any(bridge in rule and not any(word.startswith(f"{PROJECT}:") for word in rule) for rule in filtered)
        publishes = any(rule[:2] == ["-A", "PREROUTING"] and rule[-1] == "DOCKER" for rule in translated)
        return passes and knows and publishes
    return None


def look(environment: containers.Named, docker_host: str, client: docker.DockerClient) -> tuple[bool | None, str]:
    """Return whether the rules of an environment's engine are there (None: unknown), and the reason."""
    host = packet_filter.of_engine(docker_host)
    if host is None:
        seen = f"`iptables -C FORWARD -j {CHAIN}` fails there where they are gone"
        return None, f"they can be seen by root on the engine's host alone: {seen}"
    name = f"{environment.prefix}-{NetworkName.EDGE}"
    network = next((each for each in client.api.networks(names=[name]) if each["Name"] == name), None)
    if network is None:
        return None, "the network is not there yet"
    if not engine_writes.writes_here(client):
        return None, "this engine writes none for iptables"
    bridge = packet_filter.bridge_name(network)
    if not (there := are_there(host, bridge)):
        return there, "iptables does not say" if there is None else _GONE
    if network.get("EnableIPv6") and engine_writes.writes_here(client, SIX):
        there = are_there(replace(host, program=SIX), bridge)
        if not there:
            return there, f"{SIX} does not say" if there is None else _GONE_SIX
    return True, "there, for every network"


_GONE = (
    "Docker's own rules are gone from the host's packet filter: its firewall was reloaded or emptied. Containers reach "
    "neither each other nor anything outside, and no alert leaves"
)
_GONE_SIX = (
    f"Docker's own rules for IPv6 are gone from the host's packet filter ({SIX}): its firewall was reloaded or emptied."
    " By IPv6 no container reaches anything outside, each client has the network's own address, and what our rules "
    "close may be open"
)


def lost_rules_remark(environment: containers.Named, workspace: Workspace, docker_host: str) -> str:
    """Return that the engine's rules are gone, and what to type; empty where they are there or that is unknown."""
    if packet_filter.of_engine(docker_host) is None:
        return ""
    with contextlib.suppress(EngineError, DockerException, RequestException, OSError):
        with contextlib.closing(connect(docker_host)) as client:
            there, why = look(environment, docker_host, client)
        return advised(why, workspace) if there is False else ""
    return ""


def advised(why: str, workspace: Workspace) -> str:
    """Return the reason with what to type."""
    return f"{why}. {workspace.typed(f'repair PART={WHAT}')}, or restart Docker. How they stay: {_KEPT}"


@dataclass(frozen=True, kw_only=True)
class MissingRules:
    """Rules that are gone, and the restart that makes them again."""

    workspace: Workspace
    why: str
    """What is wrong."""
    restart: Callable[[], None]
    question: str = "Restart Docker? Every container on it ends and starts again, those of others too"

    def lines(self) -> Iterator[str]:
        """Yield what is wrong and what `run` would do, for the person who decides."""
        yield f"{self.why}."
        yield "This is done: Docker is restarted, which makes its rules when it starts; then ours are put again"

    def run(self) -> str:
        """Restart Docker, wait until the parts are healthy, and return the result. Raises ProjectError."""
        with self.workspace.reporter.task("Restart Docker"):
            self.restart()
        environment = self.workspace.settings()
        if said := lost_rules_remark(environment, self.workspace, environment.settings.docker_host):
            raise ProjectError(f"Docker was restarted, and its rules are not there. {said}")
        packet_filter.guard(self.workspace)
        with self.workspace.reporter.task("Wait for the parts"):
            end = time.monotonic() + _PATIENCE_SECONDS
            while unhealthy := _unhealthy(self.workspace):
                if time.monotonic() > end:
                    raise ProjectError(f"The rules are there again. Not healthy yet: {', '.join(unhealthy)}")
                time.sleep(_PAUSE_SECONDS)
        return f"Docker's rules are there again, and every part is healthy. How they stay: {_KEPT}"


def _unhealthy(workspace: Workspace) -> list[str]:
    """Return the parts that are not healthy; those without an image here do not count."""
    with contextlib.closing(workspace.client()) as client:
        return [row.part for row in part_statuses(client, workspace.settings()) if row.counts_as_failed]


@contextmanager
def opened(workspace: Workspace) -> Iterator[MissingRules]:
    """Hold the environment's lock, and yield what is wrong. Nothing is changed until `Found.run`.

    Raises ProjectError where nothing is wrong, and where that is unknown, such as without root on the engine's host.
    """
    environment = workspace.settings()
    docker_host = environment.settings.docker_host
    with lock.held(workspace, "repair") as locked:
        with contextlib.closing(locked.client()) as client:
            there, why = look(environment, docker_host, client)
        if there is None:
            raise ProjectError(
                f"Whether Docker's rules are in the packet filter is not known: {why}. As root on that host: "
                "`systemctl restart docker` makes them again"
            )
        if there:
            raise ProjectError("Docker's rules are in the packet filter: there is nothing to repair.")
        yield MissingRules(workspace=locked, why=why, restart=lambda: _restart(locked))


def _restart(workspace: Workspace) -> None:
    """Restart the engine of this machine, because it makes its rules only when it starts. Raises ProjectError."""
    if systemd_runs():
        done = subprocess.run(["systemctl", "restart", "docker"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProjectError(f"systemctl restart docker: {done.stderr.strip()[-300:]}")
    elif not stop_engine(report=workspace.reporter.say, cache=workspace.cache):
        raise ProjectError("Somebody else has started this engine: restart it as it was started")
    ensure_engine(report=workspace.reporter.say, cache=workspace.cache)
