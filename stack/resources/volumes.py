"""The data volumes: explicit names, protected, and in production kept even when they leave the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec
from stack.spec.volumes import left, used

TYPE = "samokoder:platform:DataVolumes"


@dataclass(frozen=True, kw_only=True)
class DataVolumesArgs:
    """Which volumes, and the generated secrets without which what is in them cannot be opened."""

    environment: Environment
    specs: Sequence[ServiceSpec]
    opened_by: Sequence[pulumi.Resource]


class DataVolumes(pulumi.ComponentResource):
    """One protected volume for each part with data, also for one that is switched off; `by_name` has them.

    Protected in every environment: no update, rename or `pulumi destroy` removes one. They depend on the generated
    secrets, because `pulumi destroy --exclude-protected` keeps what protected resources depend on: a kept database
    whose password was thrown away would be lost all the same.
    """

    by_name: Mapping[str, docker.Volume]

    def __init__(self, name: str, args: DataVolumesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        adopted = {spec.data.name: spec.data.adopt for spec in args.specs if spec.data}
        # Those of parts that are switched off stay declared: what leaves the program, Pulumi would delete.
        volumes = used(args.environment, args.specs) | left(args.environment, args.specs)
        self.by_name = {
            which: docker.Volume(
                f"{name}-{which}",
                # No label, no driver option: the provider replaces a volume for any change of them.
                name=volume,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    protect=True,
                    retain_on_delete=args.environment.settings.production,
                    import_=adopted.get(which) or None,
                    # Compose labels its volumes: no reason to replace one, and a replaced one is empty.
                    ignore_changes=["labels", "driver", "driverOpts"],
                    depends_on=list(args.opened_by),
                ),
            )
            for which, volume in volumes.items()
        }
        self.register_outputs({volume: resource.name for volume, resource in self.by_name.items()})
