"""The whole stack: which parts there are, and how they are wired."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack.app import api, frontend, ingress, migrations, postgres, postgres_roles, redis, redis_users, worker
from stack.app.reference import reference_image
from stack.backup import backup, drill, workspace
from stack.common.references import parse_reference
from stack.monitoring import (
    alertmanager,
    blackbox_exporter,
    cadvisor,
    grafana,
    node_exporter,
    postgres_exporter,
    prometheus,
    redis_exporter,
)
from stack.resources.networks import Networks, NetworksArgs
from stack.resources.part import Part, Platform
from stack.resources.secrets import Secrets, SecretsArgs
from stack.resources.volumes import DataVolumes, DataVolumesArgs
from stack.settings.environment import Environment
from stack.spec.built_image import BuiltImage
from stack.spec.service import ServiceSpec

# Field of the settings -> the part. A new part is one file and one line here; its scrape job, its missing-container
# rule, its row in the table and its place in the networks follow from its spec.
PARTS: Mapping[str, Callable[[Environment], ServiceSpec | Iterable[ServiceSpec]]] = {
    "postgres": postgres.spec,
    "postgres_roles": postgres_roles.spec,
    "redis": redis.spec,
    "redis_users": redis_users.spec,
    "workspace": workspace.spec,
    "migrations": migrations.spec,
    "api": api.specs,
    "worker": worker.spec,
    "ingress": ingress.spec,
    "frontend": frontend.spec,
    # Before the backup server, which asks it.
    "drill": drill.spec,
    "backup": backup.spec,
    "alertmanager": alertmanager.spec,
    "grafana": grafana.spec,
    "postgres_exporter": postgres_exporter.spec,
    "redis_exporter": redis_exporter.spec,
    "node_exporter": node_exporter.spec,
    "cadvisor": cadvisor.spec,
    "blackbox_exporter": blackbox_exporter.spec,
}


def specs(environment: Environment) -> list[ServiceSpec]:
    """Describe every part that this environment runs; Prometheus last, for it knows the others."""
    others: list[ServiceSpec] = []
    for name, describe in PARTS.items():
        if name not in environment.absent:
            described = describe(environment)
            others += [described] if isinstance(described, ServiceSpec) else described
    # Whose turn it is in a deploy changes no file: else going back would replace Prometheus, and the next `up` again.
    by_name = {spec.part: spec for spec in others}
    by_number = [
        by_name[part] for field in PARTS if field not in environment.absent for part in environment.parts_of(field)
    ]
    parts = [*others, prometheus.spec(environment, by_number)]
    return [
        alertmanager.with_files(each, environment, parts) if each.part == alertmanager.PART else each for each in parts
    ]


@dataclass(frozen=True, kw_only=True)
class StackArgs:
    """What a whole stack is made from."""

    environment: Environment


class Stack(pulumi.ComponentResource):
    """One environment of Samokoder: networks, secrets, volumes and every part."""

    parts: Mapping[str, Part]
    specs: Sequence[ServiceSpec]

    def __init__(self, name: str, args: StackArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("samokoder:platform:Stack", name, None, opts)
        environment = args.environment
        child = pulumi.ResourceOptions(parent=self)
        self.specs = specs(environment)
        # First, since the provider takes two seconds for a network, whatever the engine needs.
        networks = Networks("network", NetworksArgs(environment=environment), opts=child)
        secrets = Secrets("secret", SecretsArgs(environment=environment), opts=child)
        volumes = DataVolumes(
            "data",
            DataVolumesArgs(
                environment=environment,
                specs=self.specs,
                opened_by=secrets.generated,
            ),
            opts=child,
        )
        scratch = {
            spec.scratch.name: docker.Volume(
                f"scratch-{spec.scratch.name}", name=environment.scratch_volume(spec.scratch.name), opts=child
            )
            for spec in self.specs
            if spec.scratch
        }
        platform = Platform(
            environment=environment,
            networks=networks.by_name,
            images=_images(self.specs, [reference_image(environment), backup.image(environment)], parent=self),
            volumes={**volumes.by_name, **scratch},
            secrets=secrets.values,
        )
        parts: dict[str, Part] = {}
        for spec in self.specs:
            after = [parts[part] for part in spec.after if part in parts]
            parts[spec.part] = Part(spec, platform, after, opts=child)
        self.parts = parts
        self.register_outputs({"parts": sorted(parts)})


def _images(
    specs: Sequence[ServiceSpec], ours: Iterable[BuiltImage], parent: pulumi.Resource
) -> dict[str, docker.RemoteImage]:
    """Pull or build each image before a container goes: an image that cannot be pulled takes nothing down."""
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
                # The provider means: by the engine's own BuildKit, over POST /session (deprecated since API 1.53), and
                # not by the plugin buildx, which Debian's engine has not.
                use_legacy_builder=True,
            )
        elif not parse_reference(image).repository:
            continue  # a local image's id: there is nowhere to pull it from
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
    """Name each image's resource by its repository, so that a new version is a change of the same resource.

    Of several images of one repository, such as the API's and the worker's tag, all but the first part's have their
    part's name as well.
    """
    names: dict[str, str] = {}
    for spec in specs:
        repository = parse_reference(spec.image).repository
        name = f"{repository.rpartition('/')[2]}-{hashlib.sha256(repository.encode()).hexdigest()[:6]}"
        if spec.image not in names:
            names[spec.image] = f"{name}-{spec.part}" if name in names.values() else name
    return names
