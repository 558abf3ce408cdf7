"""The containers and networks of an environment on its engine: find, stop, and remove those of an interrupted run.

Containers are found by the labels that `stack.resources.part` gives them, so all of this works without Pulumi.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import docker
import docker.errors
from docker.models.containers import Container

from host.progress import Reporter
from operations.clone import typed
from operations.errors import ProjectError
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.settings.environment import Environment

_DEFAULT_STOP_SECONDS = 30
_ENDED = frozenset({"created", "exited", "dead"})


class Named(Protocol):
    """An environment's name, and the first part of all its names on the engine."""

    @property
    def name(self) -> str:
        """As in its stack file's name."""

    @property
    def prefix(self) -> str:
        """Such as `samokoder-staging`."""


def by_part(client: docker.DockerClient, name: str) -> dict[str, Container]:
    """Return all service containers of an environment by their parts."""
    return {container.labels.get(PART_LABEL, ""): container for container in of_environment(client, name)}


def of_environment(client: docker.DockerClient, name: str) -> list[Container]:
    """Return all service containers of an environment, running or not."""
    containers = client.containers.list(all=True, filters={"label": f"{ENVIRONMENT_LABEL}={name}"}, ignore_removed=True)
    return list(containers)


def names(client: docker.DockerClient) -> set[str]:
    """Return the names of all containers and networks on the engine."""
    listed = client.api.containers(all=True)  # one request, and not one for each container
    found = {str(name).lstrip("/") for container in listed for name in container.get("Names") or ()}
    return found | {str(network["Name"]) for network in client.api.networks()}


def ids(client: docker.DockerClient, name: str) -> dict[str, str]:
    """Return part -> id of its container in an environment: another id shows that a change replaced the container."""
    return {container.labels[PART_LABEL]: str(container.id) for container in of_environment(client, name)}


def find(client: docker.DockerClient, environment: Named, part: str) -> Container:
    """Return the container of a part. Raises ProjectError that lists the existing parts, or says that none is up."""
    found = by_part(client, environment.name)
    if part in found:
        return found[part]
    if not found:
        raise ProjectError(f"{environment.name} is not up: {typed(environment.name, 'up')}")
    there = ", ".join(sorted(found))
    raise ProjectError(f"{environment.name} has no container of the part {part!r}. There are: {there}.")


def replicas(client: docker.DockerClient, environment: Named, part: str) -> dict[str, Container]:
    """Return the container of a part, or those of all its replicas, by name. Raises ProjectError as `find` does."""
    found = {
        name: container
        for container in of_environment(client, environment.name)
        if re.fullmatch(rf"{re.escape(part)}-[0-9]+", name := container.labels.get(PART_LABEL, ""))
    }
    in_order = sorted(found, key=lambda name: (len(name), name))  # api-2 before api-10
    return {name: found[name] for name in in_order} or {part: find(client, environment, part)}


def of_fields(client: docker.DockerClient, environment: Environment, fields: Collection[str]) -> list[Container]:
    """Return the existing containers of the parts that these fields of the settings describe."""
    parts = {part for name in fields for part in environment.parts_of(name)}
    return [each for each in of_environment(client, environment.name) if each.labels[PART_LABEL] in parts]


def runs(container: Container) -> bool:
    """Tell whether a container ran when it was listed; one in a restart loop counts, because it uses its data."""
    return container.status not in _ENDED


def stop(
    client: docker.DockerClient, environment: Environment, fields: Collection[str], reporter: Reporter
) -> list[Container]:
    """Stop all containers of these parts in parallel, each with its own stop timeout, and wait for their end.

    Return all of these parts' containers as they were listed before.
    """
    listed = of_fields(client, environment, fields)
    if found := [each for each in listed if runs(each)]:
        names = ", ".join(each.labels[PART_LABEL] for each in found)
        with reporter.task(f"Stop {names}"), ThreadPoolExecutor() as pool:
            seconds = [each.attrs["Config"].get("StopTimeout") or _DEFAULT_STOP_SECONDS for each in found]
            list(pool.map(lambda each, limit: each.stop(timeout=limit), found, seconds))
    return listed


def remove_begun(
    client: docker.DockerClient, begun: Mapping[str, Collection[str]], known: Collection[str], reporter: Reporter
) -> list[str]:
    """Remove the containers and networks that an interrupted run had begun to make, and return their names.

    A run that is killed after it made one and before Pulumi noted it leaves it, and the next run would fail with "name
    already in use". Nothing else is removed: a container that this state does not know may belong to another state and
    serve. Volumes stay, because they hold the data, and to create an existing volume is no error.
    begun: as `pulumi_state.begun` returns it. known: ids of the containers and networks in Pulumi's state.
    """
    removed = []
    named = [f"^/?{re.escape(name)}$" for name in begun]
    for container in client.containers.list(all=True, filters={"name": named}, ignore_removed=True):
        name = str(container.name)
        if name not in begun or container.id in known:
            continue
        if not _is_of_run(container, begun[name], known):
            reporter.say(f"{name} is not the one that the run had begun to make, so it stays")
            continue
        _stop_gently(container, reporter)
        container.remove(force=True)
        removed.append(name)
    for network in client.networks.list():
        if network.name not in begun or network.id in known:
            continue
        network.reload()
        if network.attrs.get("Containers"):
            reporter.say(f"the network {network.name} ({network.short_id}) has containers on it, so it stays")
            continue
        network.remove()
        removed.append(str(network.name))
    return removed


def _is_of_run(container: Container, volumes: Collection[str], known: Collection[str]) -> bool:
    """Tell whether the interrupted run of this state made a container, and not the run of another state.

    volumes: those that the run's container mounts; the random names of volumes with files identify it. known: ids of
    the state's networks.
    """
    if volumes:
        return set(volumes) <= {mount.get("Name") for mount in container.attrs["Mounts"]}
    networks = {each["NetworkID"] for each in container.attrs["NetworkSettings"]["Networks"].values()} - {""}
    # A container that was never started may be on no network yet, and answers no request.
    return networks <= set(known) if networks else container.status == "created"


def stopped(client: docker.DockerClient, environment: str, known: Collection[str]) -> list[Container]:
    """Return the stopped containers of parts. known: ids in Pulumi's state.

    A container in a restart loop is not returned: it is unhealthy, and `up` must report that.
    """
    return [each for each in of_environment(client, environment) if each.status in _ENDED and each.id in known]


def _stop_gently(container: Container, reporter: Reporter) -> None:
    """Wait until a first start is finished (a database may be initialising), then stop it with its stop timeout."""
    said = time.monotonic()
    while _is_starting(container):
        if time.monotonic() - said > 2:  # noqa: PLR2004 - seconds between two messages
            said = time.monotonic()
            reporter.say(f"{container.name} is still starting, waiting for it")
        time.sleep(0.2)
        container.reload()
    if container.attrs["State"]["Running"]:
        seconds = container.attrs["Config"].get("StopTimeout") or _DEFAULT_STOP_SECONDS
        container.stop(timeout=seconds)


def _is_starting(container: Container) -> bool:
    state = container.attrs["State"]
    health = (state.get("Health") or {}).get("Status")
    # A container in a restart loop stays `starting` for ever.
    return bool(state["Running"]) and health == "starting" and not container.attrs.get("RestartCount")


def remove_labelled(client: docker.DockerClient, label: str) -> list[str]:
    """Remove every container with a label (`name=value`), running ones too, and their anonymous volumes.

    Returns their names.
    """
    removed = list[str]()
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        with contextlib.suppress(docker.errors.NotFound):  # its own run removes it at its end
            container.remove(force=True, v=True)
            removed.append(str(container.name))
    return removed
