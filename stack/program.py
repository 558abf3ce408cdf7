"""One environment of Samokoder as Pulumi's component: networks, secrets, volumes, images, and every part."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack.catalogue import specs
from stack.parts.api.reference import reference_image
from stack.parts.backup import spec as backup
from stack.resources.images import pulled_or_built
from stack.resources.networks import Networks, NetworksArgs
from stack.resources.part import Part, Platform
from stack.resources.secrets import Secrets, SecretsArgs
from stack.resources.volumes import DataVolumes, DataVolumesArgs
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec


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
        # Networks first: the provider waits two seconds for each one, however fast the engine is.
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
            images=pulled_or_built(self.specs, [reference_image(environment), backup.image(environment)], parent=self),
            volumes={**volumes.by_name, **scratch},
            secrets=secrets.values,
        )
        parts: dict[str, Part] = {}
        for spec in self.specs:
            after = [parts[part] for part in spec.after if part in parts]
            parts[spec.part] = Part(spec, platform, after, opts=child)
        self.parts = parts
        self.register_outputs({"parts": sorted(parts)})

    async def registered(self) -> None:
        """Wait until every part's container is registered, or one is refused. Pulumi itself reports a refusal."""
        waiting = [asyncio.ensure_future(part.container.urn.future()) for part in self.parts.values()]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
