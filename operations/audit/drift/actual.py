"""What the engine has: containers, networks, volumes and files of an environment."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from operations.audit.drift.declared import Declared, File, Files, digest_of
from operations.audit.facts import ContainerFacts, found
from operations.data.volume_names import made_by_restores
from operations.engine.old_images import is_note
from operations.engine.volumes import volume_names
from operations.workspace.lock import is_one as is_lock
from stack.common.names import ENVIRONMENT_LABEL, PROJECT
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What the engine has."""

    containers: Mapping[str, ContainerFacts]
    """Name -> facts: containers of this environment, and others on its networks, in its parts or with its volumes."""
    running: frozenset[str]
    image_of: Mapping[str, Mapping[str, Any]]
    """Container -> its image's configuration."""
    networks: Mapping[str, Mapping[str, Any]]
    volumes: frozenset[str]
    files: Mapping[str, Files] = field(default_factory=dict)
    """Volume of files -> what is in it."""
    inside: Mapping[str, str] = field(default_factory=dict)
    """Container that nobody declared -> the declared container whose network, processes or memory it shares."""
    holds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Container that nobody declared -> the environment's volumes that it mounts, by name or by their folder."""


def read_engine(
    client: docker.DockerClient, wanted: Declared, environment: Environment, say: Callable[[str], None]
) -> Actual:
    """Ask the engine for all that is declared or belongs to this environment. say: gets the name of each container."""
    names, prefix = wanted.containers, f"{environment.prefix}-"
    everything = client.containers.list(all=True, ignore_removed=True)
    # Names of another environment, `staging-2`, begin like those of `staging`, but are not its own.
    environments = {each.labels.get(ENVIRONMENT_LABEL, "") for each in everything} - {environment.name}
    others = tuple(f"{PROJECT}-{each}-" for each in environments if each.startswith(f"{environment.name}-"))

    def ours(name: str) -> bool:
        return name.startswith(prefix) and not name.startswith(others)

    by_id = {str(each.attrs["Id"]): str(each.name) for each in everything}
    volumes = wanted.volumes | wanted.files.keys()
    inside: dict[str, str] = {}
    holds: dict[str, Sequence[str]] = {}
    images: dict[str, Mapping[str, Any]] = {}
    containers: dict[str, ContainerFacts] = {}
    image_of: dict[str, Mapping[str, Any]] = {}
    running: set[str] = set()
    files: dict[str, Files] = {}
    for container in everything:
        name, attributes = str(container.name), container.attrs
        of_networks = (attributes["NetworkSettings"].get("Networks") or {}).keys()
        label = container.labels.get(ENVIRONMENT_LABEL)
        belongs = name in names or label == environment.name or (not label and ours(name))
        host = next((each for each in _hosts(attributes, by_id) if each in names), "")
        mounted = sorted(_mounted(attributes) & volumes)
        if not (belongs or of_networks & wanted.networks.keys() or host or mounted):
            continue
        if name not in names:
            holds[name] = mounted
            if host:
                inside[name] = host
        say(name)
        if (image := str(attributes["Image"])) not in images:
            images[image] = client.images.get(image).attrs.get("Config") or {}
        containers[name], image_of[name] = found(attributes, images[image]), images[image]
        if attributes["State"]["Running"]:
            running.add(name)
        for path, mount in containers[name].mounts.items():
            # A volume's files are those that its service sees; those of its carrier count where there is no service.
            service = mount.source != name
            if name in names and mount.source in wanted.files and (service or mount.source not in files):
                files[mount.source] = _contents(container.get_archive(path)[0])
    aside = made_by_restores(client, environment)
    return Actual(
        containers=containers,
        running=frozenset(running),
        image_of=image_of,
        networks={
            str(each.name): each.attrs
            for each in client.networks.list()
            if each.name in wanted.networks or ours(str(each.name))
        },
        volumes=frozenset(
            each
            for each in volume_names(client)
            if each in wanted.volumes
            or (
                ours(each)
                and each not in aside
                and not any(is_(each, environment.prefix) for is_ in (is_lock, is_note))
            )
        ),
        files=files,
        inside=inside,
        holds=holds,
    )


def _mounted(attributes: Mapping[str, Any]) -> set[str]:
    """Return the names of the volumes that a container mounts, also by their folder on the host."""
    mounts = [(str(mount.get("Name") or ""), str(mount.get("Source") or "")) for mount in attributes["Mounts"]]
    folders = (re.search(r"/volumes/([^/]+)(/|$)", source) for _, source in mounts)
    return {name for name, _ in mounts if name} | {folder[1] for folder in folders if folder}


def _hosts(attributes: Mapping[str, Any], by_id: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of the containers whose network, processes or memory this one shares.

    This one names the others by id, by the beginning of an id, or by name. by_id: id -> name of all containers.
    """
    for mode in ("NetworkMode", "PidMode", "IpcMode"):
        kind, _, host = str(attributes["HostConfig"].get(mode) or "").partition(":")
        if kind == "container" and host:
            yield from (name for each, name in by_id.items() if each.startswith(host) or name == host)


def _contents(chunks: Iterator[bytes]) -> Files:
    """Read the files of a folder from the engine's archive of it."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        for member in archive.getmembers():
            if member.isfile() and (content := archive.extractfile(member)):
                path = member.name.partition("/")[2]
                files[path] = File(digest=digest_of(content.read()), mode=f"{member.mode & 0o7777:o}")
    return files
