"""The images that the parts run, pulled or built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pulumi
import pulumi_docker as docker

from stack.common.references import parse_reference
from stack.spec.built_image import BuiltImage
from stack.spec.service import ServiceSpec


def pulled_or_built(
    specs: Sequence[ServiceSpec], ours: Iterable[BuiltImage], parent: pulumi.Resource
) -> dict[str, docker.RemoteImage]:
    """Pull or build every image first, so that a missing image cannot stop a running container."""
    built = {image.name: image for image in ours}
    images: dict[str, docker.RemoteImage] = {}
    names = _resource_names(specs)
    for image in sorted({spec.image for spec in specs}):
        own = built.get(image)
        build, after = None, []
        if own:
            after = [
                docker.Tag(
                    base.title,
                    source_image=base.local,
                    target_image=base.reference,
                    opts=pulumi.ResourceOptions(parent=parent),
                )
                for base in own.bases
                if base.local
            ]
            build = docker.RemoteImageBuildArgs(
                context=str(own.context),
                build_args=own.arguments,
                # In this provider "legacy" means the engine's own BuildKit, through POST /session (deprecated since API
                # 1.53), in place of the buildx plugin, which Debian's engine does not have.
                use_legacy_builder=True,
            )
        elif not parse_reference(image).repository:
            continue  # a local image's id: no registry has it
        images[image] = docker.RemoteImage(
            own.title if own else names[image],
            name=image,
            build=build,
            # The old image stays for a rollback, and because another environment may run it.
            keep_locally=True,
            opts=pulumi.ResourceOptions(parent=parent, delete_before_replace=False, depends_on=after),
        )
    return images


def _resource_names(specs: Sequence[ServiceSpec]) -> dict[str, str]:
    """Return image -> name of its resource, made from the repository, so that a new version changes the same resource.

    If parts run different images of one repository, such as two tags for API and worker, the name of every image but
    the first ends with the name of its part.
    """
    names: dict[str, str] = {}
    for spec in specs:
        repository = parse_reference(spec.image).repository
        name = f"{repository.rpartition('/')[2]}-{hashlib.sha256(repository.encode()).hexdigest()[:6]}"
        if spec.image not in names:
            names[spec.image] = f"{name}-{spec.part}" if name in names.values() else name
    return names
