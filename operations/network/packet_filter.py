"""Rules of the host's packet filter for the networks that publish ports, `edge` and `published`.

Inwards: before Docker Engine 28 a machine that may send a packet to the host (a neighbour on the provider's private
network) reaches a container's address by a route, even where its port is published only on loopback. The rules drop
what has not come through a published port, and what was sent to a loopback address, which the engine would forward.
Outwards: from `edge` they refuse the addresses of `samokoder:packetFilter.closed`, except for DNS, because a cloud
gives the machine's credentials to each program that asks there. From `published` they refuse every address. Where
`edge` has IPv6, the same holds for IPv6.

The rules are in the chain DOCKER-USER, which Docker reserves for rules of others. Each rule has our comment, and no
other rule is changed; `filter_rules` has the list. `make up` puts the rules where it runs as root on the engine's host;
there systemd puts them again before an engine starts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docker.errors import DockerException
from requests.exceptions import RequestException

from host.daemon import systemd_runs
from host.engine import DEFAULT_DOCKER_HOST
from host.errors import EngineError
from operations.clone import typed
from operations.network import engine_writes, replacement
from operations.network.engine_writes import SAFE_ENGINE
from operations.network.filter_rules import CHAIN, FOUR, SIX, Bridges, commands, comment_of, ours, wanted
from stack.common.names import NetworkName
from stack.parts.ingress.traefik import external_networks
from stack.settings.environment import Environment
from stack.settings.keys import key_of

if TYPE_CHECKING:
    import docker

    from operations.workspace.workspace import Workspace

_NO_IP6TABLES = (
    'take `"ip6tables": false` out of /etc/docker/daemon.json, have a kernel with ip6tables, and then `systemctl '
    "restart docker`"
)
"""What is to be done where the settings of the engine keep it from writing rules for IPv6."""
UNITS = Path("/etc/systemd/system")
_BRIDGE_NAME = "com.docker.network.bridge.name"


@dataclass(frozen=True)
class PacketFilter:
    """The packet filter of this machine, or of a network namespace."""

    enter: tuple[str, ...] = ()
    """The first words of a command, which run it in that namespace."""
    units: Path = UNITS
    program: str = FOUR
    """The program that changes the rules of IPv4, or of IPv6."""

    def iptables(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run iptables, which waits up to 10 s for other programs that write rules; the caller checks its status."""
        return subprocess.run(
            [*self.enter, self.program, "--wait", "10", *words],
            capture_output=True,
            text=True,
            # Anybody's rule may have a comment in another encoding.
            errors="replace",
            check=False,
        )

    def listed(self) -> list[list[str]] | None:
        """Return the rules of the chain as iptables writes them; None where no packet passes through the chain.

        An engine that writes nftables, or no rules at all, lets no packet into the chain.
        """
        with contextlib.suppress(OSError):
            said = self.iptables("-S", CHAIN)
            if said.returncode == 0 and self.iptables("-C", "FORWARD", "-j", CHAIN).returncode == 0:
                return [split(line) for line in said.stdout.split("\n") if line.startswith("-A ")]
        return None


def split(rule: str) -> list[str]:
    """Return the words of a rule as iptables writes it."""
    try:
        return shlex.split(rule)
    except ValueError:  # a comment with a new line in it is cut in two
        return rule.split()


def bridge_name(network: Mapping[str, Any]) -> str:
    """Return the name of a network's bridge on the host. network: as the engine lists it."""
    return str((network.get("Options") or {}).get(_BRIDGE_NAME) or f"br-{network['Id'][:12]}")


def bridges_of(client: docker.DockerClient, environment: Environment) -> Bridges:
    """Ask the engine for the bridges of an environment's networks."""
    there = replacement.networks(environment, client)
    edge, published = (there.get(f"{environment.prefix}-{name}") for name in (NetworkName.EDGE, NetworkName.PUBLISHED))
    return Bridges(
        edge=bridge_name(edge) if edge else "",
        published=bridge_name(published) if published else "",
        six=bool(edge and edge.get("EnableIPv6")),
    )


def _by_family(host: PacketFilter) -> tuple[PacketFilter, PacketFilter]:
    """Return the host's filter of IPv4 and that of IPv6."""
    return replace(host, program=FOUR), replace(host, program=SIX)


def is_there(environment: Environment, bridges: Bridges, host: PacketFilter) -> bool | None:
    """Tell whether exactly our present rules are there, without earlier ones of ours; None where that is unknown.

    Missing rules of one family give False, even where the other family is unknown.
    """
    found = [_is_there(environment, bridges, each) for each in _by_family(host)]
    return False if False in found else None if None in found else True


def _is_there(environment: Environment, bridges: Bridges, host: PacketFilter) -> bool | None:
    rules = wanted(environment, bridges, host.program)
    if (listed := host.listed()) is None:
        # Where no rule of IPv6 is wanted the chain is not needed, and an older engine has none for IPv6.
        return None if rules or host.program == FOUR else True
    comments = [comment for comment, _ in ours(environment, listed)]
    return comments == [comment_of(environment, bridges, host.program)] * len(rules)


def no_ipv6(environment: Environment, bridges: Bridges, host: PacketFilter | None, *, writes: bool) -> str:
    """Return what to do where IPv4 passes through the chain and IPv6 does not; empty: it does, or that is unknown.

    Then there is no NAT for IPv6 either: the engine's proxy forwards packets, so each client has the gateway's address.
    writes: whether the settings of the engine let it write rules for IPv6.
    """
    if host is None or not bridges.six:
        return ""
    four, six = _by_family(host)
    if four.listed() is None or six.listed() is not None:
        return ""
    if not writes:
        return _NO_IP6TABLES
    return (
        f"the host's firewall was reloaded or emptied: `{typed(environment.name, 'repair PART=network')}`; or its "
        f"kernel has no {SIX}"
    )


def put(environment: Environment, bridges: Bridges, host: PacketFilter) -> bool:
    """Put the rules unless they are there, and remove our earlier ones; return whether anything was changed.

    Raises OSError with iptables' message, or where no packet passes through the chain; the other family's rules are put
    in any case. After an interruption the earlier rules are there, alone or with new ones: never none.
    """
    changed, failed = False, []
    for each in _by_family(host):
        try:
            changed |= _put(environment, bridges, each)
        except OSError as error:
            failed.append(str(error))
    if failed:
        raise OSError("; ".join(failed))
    return changed


def _put(environment: Environment, bridges: Bridges, host: PacketFilter) -> bool:
    if _is_there(environment, bridges, host):
        return False
    if (rules := host.listed()) is None:
        raise OSError(f"no packet passes {CHAIN} of {host.program}")
    before = list(ours(environment, rules))
    comment = comment_of(environment, bridges, host.program)
    for rule in reversed(wanted(environment, bridges, host.program)):
        done = host.iptables("-I", CHAIN, *rule, "-m", "comment", "--comment", comment)
        if done.returncode:
            raise OSError(f"{host.program}: {done.stderr.strip()}")
    _delete(before, host)
    return True


def remove(environment: Environment, host: PacketFilter) -> None:
    """Remove the rules of an environment and their unit; no other rule."""
    for each in _by_family(host):
        _delete(list(ours(environment, each.listed() or [])), each)
    unit = _unit(environment, host)
    if unit.exists():
        _systemctl("disable", unit.name)
        unit.unlink()
        _systemctl("daemon-reload")


def _delete(rules: Sequence[tuple[str, Sequence[str]]], host: PacketFilter) -> None:
    # Rules are deleted from the end; of two equal rules iptables deletes the first, which makes no difference.
    for _, rule in reversed(rules):
        host.iptables("-D", *rule[1:])


def _unit(environment: Environment, host: PacketFilter) -> Path:
    return host.units / f"{environment.prefix}-packet-filter.service"


def keep(environment: Environment, bridges: Bridges, host: PacketFilter) -> None:
    """Let systemd put the rules at each start of the engine, before the engine starts a container.

    The unit makes the chain, which does not exist when the machine starts. The engine takes over the chain it finds.
    """
    lines = "".join(
        # systemd would expand `%` and `$`, but no rule has either of them.
        f"ExecStart=/bin/sh -c {shlex.quote(command)}\n"
        for command in (
            f"{FOUR} -w -N {CHAIN} 2>/dev/null || true",
            *([f"{SIX} -w -N {CHAIN} 2>/dev/null || true"] if bridges.six else []),
            *commands(environment, bridges),
        )
    )
    text = f"""\
# Written by `{typed(environment.name, "up")}`; `{typed(environment.name, "down")}` removes it. See docs/security.md.
[Unit]
Description=Packet filter of {environment.prefix}
After=network-pre.target nftables.service firewalld.service ufw.service netfilter-persistent.service
Before=docker.service

[Service]
Type=oneshot
{lines}
[Install]
WantedBy=docker.service
"""
    unit = _unit(environment, host)
    if unit.exists() and unit.read_text(encoding="utf-8") == text:
        return
    new = unit.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(unit)
    _systemctl("daemon-reload")
    _systemctl("enable", unit.name)


def _systemctl(*words: str) -> None:
    subprocess.run(["systemctl", *words], capture_output=True, check=False)


def of_engine(docker_host: str) -> PacketFilter | None:
    """Return the packet filter of an engine's host where we may change it, which is as root on that host; else None.

    The engine must have the usual socket, because the chain on this machine might not be that of another engine.
    """
    if docker_host != DEFAULT_DOCKER_HOST or os.geteuid() != 0 or shutil.which("iptables") is None:
        return None
    return PacketFilter()


def guard(workspace: Workspace) -> None:
    """Put the rules of an environment that is up, where we may; report where we may not, or where that fails.

    An error of the engine is only reported: this also runs after a failure of Pulumi, which the person must see.
    """
    environment = workspace.settings()
    host = of_engine(environment.settings.docker_host)
    try:
        if not environment.settings.packet_filter.manage:
            if host is not None:
                remove(environment, host)
        elif host is None or host.listed() is None:
            workspace.reporter.say(f"Packet filter: not put from here; see `{workspace.typed('doctor')}`")
        else:
            _guard(workspace, host)
    except (OSError, EngineError, DockerException, RequestException) as error:
        workspace.reporter.say(f"The packet filter is not as it should be: {error}. See: {workspace.typed('doctor')}")


def _guard(workspace: Workspace, host: PacketFilter) -> None:
    environment = workspace.settings()
    with contextlib.closing(workspace.client()) as client:
        bridges = bridges_of(client, environment)
        # Rules that are missing now, after a reload of the firewall, must be there after the machine's next start.
        kept = replace(bridges, six=bridges.six and engine_writes.writes_here(client, SIX))
    if bridges.edge:
        try:
            if put(environment, bridges, host):
                workspace.reporter.say("Packet filter: no way in beside published ports (docs/security.md)")
        finally:
            # Even where one rule fails, the other rules must be there after the machine's next start.
            if systemd_runs():
                keep(environment, kept, host)


def unguard(workspace: Workspace) -> None:
    """Remove the rules of an environment that was removed, where we may."""
    environment = workspace.settings()
    if host := of_engine(environment.settings.docker_host):
        remove(environment, host)


def advice(environment: Environment, bridges: Bridges) -> str:
    """Return what to type, as root, on a host that we may not change.

    No command makes the chain, because a chain that no packet passes through would look like protection.
    """
    typed = "\n".join(f"    {command}" for command in commands(environment, bridges))
    six = f", nor the same of `{SIX}`" if bridges.six else ""
    return (
        f"As root on the engine's host, each time the engine has come up after the machine's start, and only where "
        f"`iptables -C FORWARD -j {CHAIN}` fails not{six}, for elsewhere they would hold nothing:\n{typed}"
    )


def filter_remark(workspace: Workspace) -> str:
    """Return a remark about the packet filter of an environment that is up; empty where all is well."""
    environment = workspace.settings()
    with contextlib.closing(workspace.client()) as client:
        holds, why = look(environment, client)
    return "" if holds else f"Packet filter: {why}"


def look(environment: Environment, client: docker.DockerClient) -> tuple[bool | None, str]:
    """Judge the packet filter of an engine's host."""
    bridges = bridges_of(client, environment)
    version = str(client.version()["Version"])
    host = of_engine(environment.settings.docker_host)
    return judge(environment, version, bridges, host, writes_six=engine_writes.writes_here(client, SIX))


def judge(
    environment: Environment, version: str, bridges: Bridges, host: PacketFilter | None, *, writes_six: bool = True
) -> tuple[bool | None, str]:
    """Return whether the rules are as they should be (None: unknown), and why.

    version: of the engine. writes_six: whether its settings let it write rules for IPv6.
    """
    up = typed(environment.name, "up")
    if not environment.settings.packet_filter.manage:
        return None, f"{key_of('packet_filter', 'manage')} is false: whoever keeps that host's firewall sees to it"
    if not bridges.edge:
        return None, f"the network is not there yet; `{up}` puts them, as root of the engine's host"
    there = None if host is None else is_there(environment, bridges, host)
    if there:
        held = f"nothing but published ports from outside, and no way to {_closed(environment, bridges)}"
        others = ", ".join(external_networks(environment))
        beside = f"; but what the API sends may leave by the network {others}, where no rule of ours is"
        return (None, held + beside) if others else (True, held)
    if there is False:
        return False, f"they are not there: `{up}` puts them. Or:\n{advice(environment, bridges)}"
    if remedy := no_ipv6(environment, bridges, host, writes=writes_six):
        return False, (
            f"the engine sends no packet by IPv6 through {CHAIN} of {SIX}, and {_closed(environment, bridges)} may "
            f"answer a container: {remedy}"
        )
    neighbours = (
        f"Docker Engine {version} lets a machine that may route to it reach ports that are on loopback alone, and "
        if int(version.partition(".")[0]) < SAFE_ENGINE
        else ""
    )
    why = (
        f"from here nobody may look or change it. {advice(environment, bridges)}"
        if host is None
        else f"this engine sends no packet through {CHAIN} (nftables, or `iptables: false`), so no rule of ours would "
        "hold: whoever keeps that host's firewall sees to it"
    )
    return None, f"{neighbours}{_closed(environment, bridges)} may answer a container; {why}"


def _closed(environment: Environment, bridges: Bridges) -> str:
    four, six = environment.settings.packet_filter.closed_by_family()
    return ", ".join([*four, *(six if bridges.six else [])]) or "nothing in particular"
