"""What the program declared, read from the inputs of the resources in Pulumi's state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operations.workspace.pulumi_state import CONTAINER, NETWORK, SECRET_MARK, VOLUME
from stack.spec.files import CARRIER_MOUNT

_IMAGE = "docker:index/remoteImage:RemoteImage"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content, by its SHA-256, and its permissions."""

    digest: str
    mode: str


Files = Mapping[str, File]


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the program gave to each resource on the engine, from Pulumi's state. It has secrets in plain text."""

    containers: Mapping[str, Mapping[str, Any]]
    """Name -> inputs."""
    secret_environment: frozenset[str]
    """Containers with a secret in a variable."""
    networks: Mapping[str, Mapping[str, Any]]
    volumes: frozenset[str]
    image_ids: Mapping[str, str]
    files: Mapping[str, Files]
    """Volume -> path -> file that the volume's carrier has put there."""
    secret_files: frozenset[str]
    """Volumes with a secret in a file."""


def read_state(deployment: Mapping[str, Any]) -> Declared:
    """Read a deployment that was exported with its secrets in plain."""
    resources = [each for each in deployment.get("resources") or () if not each.get("delete")]

    def inputs_of(kind: str) -> Iterator[dict[str, Any]]:
        yield from (each.get("inputs") or {} for each in resources if each["type"] == kind)

    containers = {str(inputs["name"]): plain(inputs) for inputs in inputs_of(CONTAINER)}
    return Declared(
        containers=containers,
        secret_environment=frozenset(
            str(inputs["name"]) for inputs in inputs_of(CONTAINER) if _has_secret(inputs.get("envs"))
        ),
        networks={str(inputs["name"]): plain(inputs) for inputs in inputs_of(NETWORK)},
        volumes=frozenset(str(inputs["name"]) for inputs in inputs_of(VOLUME)),
        image_ids={
            str(each["inputs"]["name"]): str((each.get("outputs") or {}).get("imageId") or "")
            for each in resources
            if each["type"] == _IMAGE
        },
        files={
            str(inputs["volumes"][0]["volumeName"]): _uploaded(inputs["uploads"])
            for inputs in containers.values()
            if inputs.get("uploads")
        },
        secret_files=frozenset(
            str(inputs["volumes"][0]["volumeName"])
            for inputs in inputs_of(CONTAINER)
            if _has_secret(inputs.get("uploads"))
        ),
    )


def plain(node: Any) -> Any:
    """Return inputs with plain values in place of marked secrets. node: of a state exported with its secrets."""
    if isinstance(node, dict):
        if SECRET_MARK in node:
            return plain(json.loads(node["plaintext"]))
        return {key: plain(value) for key, value in node.items() if key != "__defaults"}
    return [plain(each) for each in node] if isinstance(node, list) else node


def _has_secret(node: Any) -> bool:
    if isinstance(node, dict):
        return SECRET_MARK in node or any(map(_has_secret, node.values()))
    return isinstance(node, list) and any(map(_has_secret, node))


def _uploaded(uploads: Sequence[Mapping[str, Any]]) -> Files:
    return {
        str(upload["file"]).removeprefix(f"{CARRIER_MOUNT}/"): File(
            digest=digest_of(str(upload["content"]).encode()), mode=str(upload["permissions"]).lstrip("0")
        )
        for upload in uploads
    }


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
