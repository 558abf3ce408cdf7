"""What the engine has: containers, networks, volumes and files of an environment."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from operations.audit.drift.declared import Declared, File, Files, digest_of
from operations.audit.facts import ContainerFacts, found
from operations.data.volume_names import made_by_restores
from operations.engine.old_images import is_note
from operations.workspace.lock import is_one as is_lock
from stack.common.names import ENVIRONMENT_LABEL, PROJECT
from stack.parts.cadvisor import spec as cadvisor
from stack.parts.node_exporter import spec as node_exporter
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

_MEASURE_HOST = (cadvisor.PART, node_exporter.PART)


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
    above: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Container that nobody declared -> folders of the host that it mounts and that have every volume in them."""


def read_engine(
    client: docker.DockerClient, wanted: Declared, environment: Environment, say: Callable[[str], None]
) -> Actual:
    """Ask the engine for all that is declared or belongs to this environment. say: gets the name of each container."""
    names, prefix = wanted.containers, f"{environment.prefix}-"
    everything = _listed(client, environment)
    # Names of another environment, `staging-2`, begin like those of `staging`, but are not its own.
    environments = {each.labels.get(ENVIRONMENT_LABEL, "") for each in everything} - {environment.name}
    others = tuple(f"{PROJECT}-{each}-" for each in environments if each.startswith(f"{environment.name}-"))

    def ours(name: str) -> bool:
        return name.startswith(prefix) and not name.startswith(others)

    by_id = {str(each.attrs["Id"]): str(each.name) for each in everything}
    volumes = wanted.volumes | wanted.files.keys()
    every_volume = {str(each.name): each.attrs for each in client.volumes.list()}
    ours_measure = {f"{prefix}{part}" for part in _MEASURE_HOST}
    measuring = [each.attrs["Config"].get("Entrypoint") for each in everything if each.name in ours_measure]
    inside: dict[str, str] = {}
    holds: dict[str, Sequence[str]] = {}
    above: dict[str, Sequence[str]] = {}
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
        mounted = sorted(_mounted(attributes, every_volume) & volumes)
        measures = name in names or _measures_host(name, label, attributes, measuring)
        folders = [] if measures else _above(attributes, every_volume, volumes)
        if not (belongs or of_networks & wanted.networks.keys() or host or mounted or folders):
            continue
        if name not in names:
            holds[name], above[name] = mounted, folders
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
            for each in every_volume
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
        above=above,
    )


def _listed(client: docker.DockerClient, environment: Environment) -> list[Container]:
    """Return all containers but those that keep the lock of a half done restore, and are never started."""
    return [
        each
        for each in client.containers.list(all=True, ignore_removed=True)
        if not (is_lock(str(each.name), environment.prefix) and each.attrs["State"]["Status"] == "created")
    ]


def _mounted(attributes: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names of the volumes that a container mounts, also by their folder on the host.

    volumes: every volume of the engine, by name.
    """
    names = {str(mount.get("Name") or "") for mount in attributes["Mounts"]} - {""}
    folders = (folder for mount in attributes["Mounts"] for folder in _folders(mount, volumes))
    return names | {name for folder in folders for name in re.findall(r"/volumes/([^/]+)(?=/|$)", folder)}


def _above(attributes: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]], ours: Collection[str]) -> list[str]:
    """Return the folders of the host that a container mounts and that our volumes are in: `/`, `/var/lib/docker`.

    volumes: every volume of the engine, by name.
    """
    # `/var/lib/docker/volumes` of `/var/lib/docker/volumes/NAME/_data`: what is below it is one volume.
    places = {PurePosixPath(str(volumes[name]["Mountpoint"])).parent.parent for name in ours if name in volumes}
    sources = {folder for mount in attributes["Mounts"] for folder in _folders(mount, volumes)}
    return sorted(each for each in sources if any(place.is_relative_to(each) for place in places))


def _folders(mount: Mapping[str, Any], volumes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the folders of the host that a mount shows.

    volumes: every volume of the engine, by name. One may itself show folders: a bind has its folder in `device`, an
    overlay has its folders in `o` (`lowerdir=/a:/b,upperdir=/c`).
    """
    options = volumes.get(str(mount.get("Name") or ""), {}).get("Options") or {}
    for each in str(options.get("o") or "").split(","):
        key, _, folders = each.partition("=")
        if key in {"lowerdir", "upperdir"}:
            yield from filter(None, folders.split(":"))
    if folder := str(options.get("device") or mount.get("Source") or ""):
        yield folder


def _measures_host(name: str, environment: str | None, attributes: Mapping[str, Any], programs: Sequence[Any]) -> bool:
    """Tell whether it is called as the part of another environment that measures the host, and can only read there.

    programs: the entry points of this environment's own. Name and label are anybody's to choose. The image is not
    compared, because two environments have different versions between two deploys.
    """
    parts = {f"{PROJECT}-{environment}-{part}" for part in _MEASURE_HOST}
    runs = not programs or attributes["Config"].get("Entrypoint") in programs
    return name in parts and runs and not any(mount.get("RW") for mount in attributes["Mounts"])


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
