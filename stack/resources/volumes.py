"""The data volumes: explicit names, protected, and in production kept even if the program no longer declares them."""

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
    """The parts, whose specs name the volumes, and the generated secrets that are needed to open the data in them."""

    environment: Environment
    specs: Sequence[ServiceSpec]
    opened_by: Sequence[pulumi.Resource]


class DataVolumes(pulumi.ComponentResource):
    """A protected volume for each part with data, also for a part that is switched off; `by_name` has them.

    They are protected in every environment: no update, rename or `pulumi destroy` removes one. They depend on the
    generated secrets, because `pulumi destroy --exclude-protected` keeps what protected resources depend on: a kept
    database whose password was deleted would be lost all the same.
    """

    by_name: Mapping[str, docker.Volume]

    def __init__(self, name: str, args: DataVolumesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(TYPE, name, None, opts)
        adopted = {spec.data.name: spec.data.adopt for spec in args.specs if spec.data}
        # The volumes of parts that are switched off stay declared, because Pulumi deletes what is no longer declared.
        volumes = used(args.environment, args.specs) | left(args.environment, args.specs)
        self.by_name = {
            which: docker.Volume(
                f"{name}-{which}",
                # Without labels and driver options, because the provider replaces a volume for any change of them.
                name=volume,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    protect=True,
                    retain_on_delete=args.environment.settings.production,
                    import_=adopted.get(which) or None,
                    # An adopted volume has Compose's labels; the provider would replace it with an empty one for them.
                    ignore_changes=["labels", "driver", "driverOpts"],
                    depends_on=list(args.opened_by),
                ),
            )
            for which, volume in volumes.items()
        }
        self.register_outputs({volume: resource.name for volume, resource in self.by_name.items()})
