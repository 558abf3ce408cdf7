"""The volumes on an engine: their names, their sizes, their removal."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import docker
import docker.errors
from requests.exceptions import RequestException


def volume_names(client: docker.DockerClient) -> set[str]:
    """Return the names of all volumes on the engine. Callers need them because a mount creates a missing volume."""
    return {str(volume.name) for volume in client.volumes.list()}


def used_by_others(client: docker.DockerClient, names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return volume -> names of its containers, for named volumes in use by containers whose id is not in `known`."""
    users: dict[str, list[str]] = {}
    wanted = set(names)
    for container in client.api.containers(all=True):
        for mount in container["Mounts"] if container["Id"] not in known else ():
            if mount.get("Name") in wanted:
                users.setdefault(mount["Name"], []).append(
                    (container["Names"] or [container["Id"][:12]])[0].lstrip("/")
                )
    return {name: ", ".join(sorted(found)) for name, found in users.items()}


def remove_volumes(client: docker.DockerClient, names: Sequence[str]) -> list[str]:
    """Remove those of the named volumes that are still there, and return them."""
    removed = []
    for name in names:
        with contextlib.suppress(docker.errors.NotFound):
            client.volumes.get(name).remove()
            removed.append(name)
    return removed


def volume_sizes(client: docker.DockerClient) -> dict[str, int]:
    """Return volume -> bytes; empty where the engine does not answer within the client's timeout."""
    with contextlib.suppress(docker.errors.APIError, RequestException):
        # Since API 1.53 the answer has the volumes in another field, and lists each one only with `verbose`.
        place = f"{client.api.base_url}/v{client.api.api_version}/system/df"
        answer = client.api.get(place, params={"type": "volume", "verbose": "1"}, timeout=client.api.timeout)
        answer.raise_for_status()
        said: dict[str, Any] = answer.json()
        volumes = said.get("Volumes") or (said.get("VolumeUsage") or {}).get("Items") or []
        sizes = {str(each["Name"]): int((each.get("UsageData") or {}).get("Size", -1)) for each in volumes}
        return {name: size for name, size in sizes.items() if size >= 0}
    return {}
