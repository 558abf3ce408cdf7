"""What on the engine would make an `up` fail: reported before anything is changed, with what to type."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import docker.errors

from host.engine import docker_command
from operations.engine import containers
from operations.engine.part_status import expected_parts
from operations.errors import ProjectError
from operations.network import replacement
from operations.workspace import pasted, pulumi_state
from stack.common.names import NetworkName
from stack.parts.ingress.traefik import external_networks
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.spec.service import Publish, ServiceSpec

if TYPE_CHECKING:
    from operations.workspace.pulumi import PulumiRun
    from operations.workspace.workspace import Workspace

_TRIED = "samokoder.tried"
"""Label, with the environment's name, of a temporary network. Only who holds the environment's lock makes one."""


def refuse(workspace: Workspace, run: PulumiRun) -> None:
    """Raise ProjectError where a needed name or port is already taken, or the network of a team's Traefik is missing.

    Also where a network must be replaced and cannot be removed, because a foreign container is on it, or cannot be made
    with IPv6. The caller has removed what an interrupted run has left (`settle`).
    """
    from stack.catalogue import specs  # noqa: PLC0415 - the whole program, which no other command here needs

    environment, deployment = workspace.settings(), run.deployment()
    refuse_missing_networks(workspace)
    typed = docker_command(environment.settings.docker_host)
    names, ids = pulumi_state.known_names(deployment), pulumi_state.known_ids(deployment)
    with contextlib.closing(workspace.client()) as client:
        # A run that was killed has left it, and it holds a range of addresses.
        for left in client.networks.list(filters={"label": f"{_TRIED}={environment.name}"}):
            left.remove()
        lines = [_taken(client, workspace, lambda id_, name: name in names or id_ in ids)]
        lines += [
            f"{where} is held by the container {holder}. Stop that one, or give the part another port: docs/settings.md"
            for where, holder in _foreign_ports(client, environment, specs(environment), ids)
        ]
        lines += [
            f"{' and '.join(keys)} makes the network {network} anew, and the container {guest} of somebody else "
            f"keeps it from being removed: `{typed} network disconnect {network} {guest}`, and connect it again "
            f"after `{workspace.typed('up')}`"
            for keys, network, guest in replacement.strangers(environment, client)
        ]
        lines.append(_no_ipv6(client, environment))
    if told := list(filter(None, lines)):
        raise ProjectError("\n".join(["Nothing was replaced:", *told]))


def refuse_missing_networks(workspace: Workspace) -> None:
    """Raise ProjectError where the network of a team's Traefik is missing: the API would end and not start again."""
    wanted = set(external_networks(workspace.settings()))
    if not wanted:
        return
    with contextlib.closing(workspace.client()) as client:
        missing = wanted - {str(each["Name"]) for each in client.api.networks()}
    if missing:
        name = ", ".join(sorted(missing))
        raise ProjectError(
            f"Nothing was replaced: {key_of('ingress', 'traefik')}.network is {name}, and the engine has no such "
            f"network. `docker network ls` shows those that there are; `docker network create {name}` makes it."
        )


def why(workspace: Workspace, run: PulumiRun) -> str:
    """Return what on the engine may have made an `up` fail, independent of Pulumi's messages; empty: nothing."""
    ids = pulumi_state.known_ids(run.deployment())
    with contextlib.closing(workspace.client()) as client:
        taken = _taken(client, workspace, lambda id_, _: id_ in ids)
        return taken or _no_addresses(client, workspace.settings())


def _taken(client: docker.DockerClient, workspace: Workspace, known: Callable[[str, str], bool]) -> str:
    """Return a message about foreign containers and networks with a name of this environment; empty: none.

    known: tells from id and name whether the state knows one.
    """
    environment = workspace.settings()
    parts = {f"{environment.prefix}-{part}" for part in expected_parts(environment)}
    segments = {f"{environment.prefix}-{network}" for network in NetworkName}
    listed = client.api.containers(all=True)
    there = [(str(each["Id"]), str(name).lstrip("/")) for each in listed for name in each.get("Names") or ()]
    networks = [(str(each["Id"]), str(each["Name"])) for each in client.api.networks()]
    found = sorted(name for id_, name in there if name in parts and not known(id_, name))
    nets = sorted({name for id_, name in networks if name in segments and not known(id_, name)})
    if not found and not nets:
        return ""
    typed = docker_command(environment.settings.docker_host)
    remove = [f"{typed} rm -f {' '.join(found)}"] * bool(found) + [f"{typed} network rm {' '.join(nets)}"] * bool(nets)
    return (
        f"On the engine and not in this state: {', '.join([*found, *nets])}. Look at them (`{typed} inspect`, `{typed} "
        "logs`): another clone's state may know them, and they may serve. If they are only what a run that was cut off "
        f"has left: `{' && '.join(remove)}`, then `{workspace.typed('up')}`. Volumes stay."
    )


def published(spec: ServiceSpec) -> list[Publish]:
    """Return the ports of the host that a part takes."""
    return [each for each in (spec.publish, *spec.also_publish) if each]


def clashes(publish: Publish, address: str, port: int, *, dual: bool = False) -> bool:
    """Tell whether a socket keeps the engine from binding a port.

    dual: whether a socket on `::` may have taken the port of IPv4 too, as a program's may. The engine (20.10 and newer)
    binds and lists a container's port for each family apart.
    """
    mine, other = ipaddress.ip_address(publish.address), ipaddress.ip_address(address)
    other = (isinstance(other, ipaddress.IPv6Address) and other.ipv4_mapped) or other
    if port != publish.host_port:
        return False
    if mine.version != other.version:
        return dual and isinstance(other, ipaddress.IPv6Address) and other.is_unspecified
    return mine == other or mine.is_unspecified or other.is_unspecified


def held_ports(client: docker.DockerClient) -> list[tuple[str, int, Mapping[str, Any]]]:
    """Return each port of the host that a container has: address, port, and the container as the engine lists it."""
    return [
        (str(port.get("IP") or "0.0.0.0"), int(port["PublicPort"]), each)  # noqa: S104 - how the engine says it
        for each in client.api.containers()
        for port in each.get("Ports") or ()
        # The stack publishes only TCP, and a UDP port of the same number is no obstacle.
        if port.get("PublicPort") and port.get("Type", "tcp") == "tcp"
    ]


def _foreign_ports(
    client: docker.DockerClient, environment: Environment, specs: Sequence[ServiceSpec], ids: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield each port that a foreign container holds, and that container's name. ids: of the state's containers."""
    # A container with a name of ours is replaced by Pulumi, or `_taken` reports it.
    own = {f"{environment.prefix}-{part}" for part in expected_parts(environment)}
    held = [
        (address, port, name)
        for address, port, each in held_ports(client)
        if str(each["Id"]) not in ids and (name := str(each["Names"][0]).lstrip("/")) not in own
    ]
    for spec in specs:
        for publish in published(spec):
            holder = next((name for address, port, name in held if clashes(publish, address, port)), "")
            if holder:
                yield f"{publish.address}:{publish.host_port} ({spec.part})", holder


def _no_addresses(client: docker.DockerClient, environment: Environment) -> str:
    """Return a message where a network is missing and the engine has no range of addresses left for it; else empty."""
    there = containers.names(client)
    if not {f"{environment.prefix}-{network}" for network in NetworkName} - there:
        return ""
    try:
        _try_network(client, environment)
    except docker.errors.APIError as error:
        if not _ranges_are_taken(error):
            return ""
        return (
            f"The engine has no range of addresses left for another network: it has {len(client.api.networks())}. "
            "`docker network ls` shows them, `docker network prune` removes those that no container uses. Or give it "
            f"more ranges: {other_ranges()}."
        )
    return ""


def other_ranges(base: str = "10.201.0.0/16") -> str:
    """Say how an engine is given other ranges of addresses for the networks that it makes."""
    pools = f'"default-address-pools": [{{"base": "{base}", "size": 24}}]'
    return f"in /etc/docker/daemon.json {pools}, then `systemctl restart docker`"


def _no_ipv6(client: docker.DockerClient, environment: Environment) -> str:
    """Return a message where an `up` would make a network with IPv6 and the engine refuses it; else empty.

    A kernel may have no IPv6 at all. Pulumi would first remove the present network, and then fail to make the new one.
    """
    if not replacement.gets_ipv6(environment, client):
        return ""
    try:
        _try_network(client, environment, ipv6=True)
    except docker.errors.APIError as error:
        # The removal of the present network frees its IPv4 range; `why` reports other networks without a range.
        if _ranges_are_taken(error) and "ipv6" not in str(error).lower():
            return ""
        key = key_of("network", "ipv6")
        return (
            f"{key} is true, and the engine makes no network with IPv6: {error.explanation or error}. Mend that on its "
            f"host, or take the setting away: {pasted.command(environment.name, f'pulumi config rm --path {key}')}"
        )
    return ""


def _try_network(client: docker.DockerClient, environment: Environment, *, ipv6: bool = False) -> None:
    """Make a temporary network and remove it. Raises docker.errors.APIError where the engine refuses."""
    name, labels = f"samokoder-tried-{secrets.token_hex(4)}", {_TRIED: environment.name}
    client.networks.create(name, internal=not ipv6, enable_ipv6=ipv6, labels=labels).remove()


def _ranges_are_taken(error: docker.errors.APIError) -> bool:
    return "address pool" in str(error).lower()
