"""Networks that an `up` replaces because of a setting, with every container on them: reported before it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stack.common.names import ENVIRONMENT_LABEL, MTU_OPTION, NetworkName
from stack.settings import ipv6
from stack.settings.environment import Environment
from stack.settings.keys import key_of

if TYPE_CHECKING:
    import docker

NAMES = (NetworkName.EDGE, NetworkName.PUBLISHED)
"""The networks that are not internal."""
MTU, IPV6 = key_of("network", "mtu"), key_of("network", "ipv6")


def networks(environment: Environment, client: docker.DockerClient) -> dict[str, Mapping[str, Any]]:
    """Return name -> network for those of `NAMES` that are on the engine."""
    wanted = {f"{environment.prefix}-{name}" for name in NAMES}
    return {each["Name"]: each for each in client.api.networks(names=sorted(wanted)) if each["Name"] in wanted}


def replaced(environment: Environment, client: docker.DockerClient) -> dict[str, list[str]]:
    """Return name of each network that an `up` replaces -> the settings that are the reason."""
    settings = environment.settings.network
    six = {f"{environment.prefix}-{name}" for name in ipv6.networks(settings)}
    found: dict[str, list[str]] = {}
    for name, network in sorted(networks(environment, client).items()):
        mtu = (network.get("Options") or {}).get(MTU_OPTION)
        differs = {
            MTU: settings.mtu is not None and mtu != str(settings.mtu),
            IPV6: bool(network.get("EnableIPv6")) != (name in six),
        }
        if keys := [key for key, other in differs.items() if other]:
            found[name] = keys
    return found


def gets_ipv6(environment: Environment, client: docker.DockerClient) -> bool:
    """Tell whether an `up` makes a network with IPv6: one that is missing, or that has no IPv6 yet."""
    names = [f"{environment.prefix}-{name}" for name in ipv6.networks(environment.settings.network)]
    there = networks(environment, client) if names else {}
    return any(not there.get(name, {}).get("EnableIPv6") for name in names)


def replacement_notice(environment: Environment, client: docker.DockerClient) -> str:
    """Return which networks an `up` replaces because of a setting, and what that interrupts; empty: none."""
    if not (there := replaced(environment, client)):
        return ""
    settings = environment.settings.network
    values = {MTU: settings.mtu, IPV6: str(settings.ipv6).lower()}
    why = " and ".join(
        f"{key} is {values[key]}" for key in dict.fromkeys(key for keys in there.values() for key in keys)
    )
    return (
        f"{why}, and these networks were made otherwise: {', '.join(there)}. They are made anew, and with them every "
        "container on them: for about a minute nobody is served"
    )


def strangers(environment: Environment, client: docker.DockerClient) -> list[tuple[Sequence[str], str, str]]:
    """Return settings, network and name for each foreign running container on a network that is replaced.

    The engine removes no network that has a container; the environment's own containers are removed before it.
    """
    if not (there := replaced(environment, client)):
        return []
    label = {"label": f"{ENVIRONMENT_LABEL}={environment.name}"}
    own = {str(each["Id"]) for each in client.api.containers(all=True, filters=label)}
    return [
        (keys, name, str(each["Name"]))
        for name, keys in there.items()
        for id_, each in sorted((client.networks.get(name).attrs.get("Containers") or {}).items())
        if id_ not in own
    ]
