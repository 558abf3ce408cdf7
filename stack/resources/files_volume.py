"""Files for a container: an immutable volume that is new for every content and filled by a carrier.

A read-only root and the provider's `uploads` exclude each other on one container ("container rootfs is marked
read-only"), so the uploads go to a carrier: a container that is created, never started, and mounts the volume
that the service then mounts read-only. Works over ssh:// as well, for nothing is read from the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker
import pulumi_random as random

from stack.common.names import CARRIER_ENTRYPOINT
from stack.spec.files import CARRIER_MOUNT, EXECUTABLE_MODE, MODE, SALT, Files, Template, content_digest

SecretValues = Mapping[str, pulumi.Output[str]]
"""Name of a secret -> its value."""


@dataclass(frozen=True, kw_only=True)
class MountedFiles:
    """A filled volume: its name, and the carrier that must exist before anybody mounts it."""

    volume_name: pulumi.Output[str]
    carrier: docker.Container


def resolve(content: str | Template, secrets: SecretValues) -> pulumi.Input[str]:
    """Return the text as it is, or as a secret Output made from the secrets that it needs."""
    if isinstance(content, str):
        return content
    values = pulumi.Output.all(*(secrets[need] for need in content.needs))
    return pulumi.Output.secret(values.apply(lambda resolved: content.render(*resolved)))


def files_volume(
    resource_name: str,
    *,
    prefix: str,
    image: str,
    files: Files,
    secrets: SecretValues,
    parent: pulumi.Resource,
    after: Sequence[pulumi.Resource],
) -> MountedFiles:
    """Declare the volume and its carrier. Raises ValueError for an empty file, which Docker cannot upload.

    after: what the service waits for. Its files wait as well: an update that fails before it is this part's turn must
    leave all of the part as it is, so that going back touches nothing of it.
    """
    for path, content in files.items():
        if content == "":
            raise ValueError(f"{resource_name}: the file {path} is empty, and the provider refuses empty uploads")
    paths = sorted(files)
    contents = {path: resolve(files[path], secrets) for path in paths}
    digest = pulumi.Output.all(secrets[SALT], *(contents[path] for path in paths)).apply(
        lambda values: content_digest(values[0], image, dict(zip(paths, values[1:], strict=True)))
    )
    # Made before the old one goes: the new content has a new name, and the service is down only for its own restart.
    opts = pulumi.ResourceOptions(parent=parent, delete_before_replace=False, depends_on=after)
    # Random, and not made from the content: after an update that failed, what it would have replaced is still there,
    # waiting for its removal, and going back to that content would end in "name already in use".
    version = random.RandomId(
        f"{resource_name}-files", byte_length=6, keepers={"content": pulumi.Output.unsecret(digest)}, opts=opts
    )
    name = pulumi.Output.concat(prefix, "-files-", version.hex)
    volume = docker.Volume(f"{resource_name}-files", name=name, opts=opts)
    carrier = docker.Container(
        f"{resource_name}-files",
        name=name,
        image=image,
        entrypoints=[CARRIER_ENTRYPOINT],
        start=False,
        must_run=False,
        network_mode="none",
        restart="no",
        log_driver="json-file",
        log_opts={"max-size": "1m", "max-file": "1"},
        memory=16,
        memory_swap=16,
        destroy_grace_seconds=1,
        volumes=[docker.ContainerVolumeArgs(volume_name=volume.name, container_path=CARRIER_MOUNT)],
        uploads=[
            docker.ContainerUploadArgs(
                file=f"{CARRIER_MOUNT}/{path}",
                content=contents[path],
                permissions=EXECUTABLE_MODE if path.endswith(".sh") else MODE,
            )
            for path in paths
        ],
        opts=opts,
    )
    return MountedFiles(volume_name=volume.name, carrier=carrier)
