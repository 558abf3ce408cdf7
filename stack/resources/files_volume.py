"""Files for a container: an immutable volume, which a carrier fills; each new content gets a new volume.

The provider's `uploads` do not work on a container with a read-only root ("container rootfs is marked read-only"), so
they go to a carrier: a container that is created but never started, and that mounts the volume which the service then
mounts read-only. This also works over ssh://, because nothing is read from the host.
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
    """A filled volume: its name, and the carrier, which must exist before a service mounts the volume."""

    volume_name: pulumi.Output[str]
    carrier: docker.Container


def resolve(content: str | Template, secrets: SecretValues) -> pulumi.Input[str]:
    """Return a text unchanged, and a template as a secret Output, rendered with the secrets that it needs."""
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

    after: resources that the service waits for. Its files wait for them too: an update that fails before this part's
    turn must leave all of the part unchanged, so that a rollback does not touch it.
    """
    for path, content in files.items():
        if content == "":
            raise ValueError(f"{resource_name}: the file {path} is empty, and the provider refuses empty uploads")
    paths = sorted(files)
    contents = {path: resolve(files[path], secrets) for path in paths}
    digest = pulumi.Output.all(secrets[SALT], *(contents[path] for path in paths)).apply(
        lambda values: content_digest(values[0], image, dict(zip(paths, values[1:], strict=True)))
    )
    # The new volume is made before the old one is deleted, so the service is down only for its own restart.
    opts = pulumi.ResourceOptions(parent=parent, delete_before_replace=False, depends_on=after)
    # The name is random and not a hash of the content: after a failed update the old volume still exists and waits for
    # its deletion, so a rollback to the same content would fail with "name already in use".
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
