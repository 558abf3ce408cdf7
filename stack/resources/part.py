"""Make a hardened container from the plain description of a part. No other module makes containers of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from stack.common.names import ENVIRONMENT_LABEL, NO_NEW_PRIVILEGES, NO_SEARCH_DOMAIN, PART_LABEL, NetworkName
from stack.resources.files_volume import SecretValues, files_volume, resolve
from stack.settings.environment import Environment
from stack.spec.service import LOG_DRIVER, LOG_OPTIONS, HostPath, Publish, ServiceSpec, cpus_text, go_duration

# The provider's in-place update silently ignores changes of these (reference: provider pitfalls, 7 and "#initerror").
# Without "#initerror", the next `up` would accept a container that did not become healthy in time.
REPLACE_ON_CHANGES = ("#initerror", "healthcheck", "tmpfs", "init", "cpuPeriod", "cpuQuota", "ulimits")


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The resources that the parts share."""

    environment: Environment
    networks: Mapping[NetworkName, docker.Network]
    images: Mapping[str, docker.RemoteImage]
    """Pulled or built images by reference; an image that is named by a local id has no resource."""
    volumes: Mapping[str, docker.Volume]
    secrets: SecretValues


class Part(pulumi.ComponentResource):
    """One running part: its files, mounted read-only, and its container, which is healthy when the update is done."""

    container: docker.Container

    def __init__(
        self,
        spec: ServiceSpec,
        platform: Platform,
        after: Sequence[Part] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        # Pulumi derives the children's aliases from this one, because their names begin with the part's name.
        formerly = pulumi.ResourceOptions(aliases=[pulumi.Alias(name=spec.formerly)] if spec.formerly else None)
        super().__init__(spec.component, spec.part, None, pulumi.ResourceOptions.merge(opts, formerly))
        name = f"{platform.environment.prefix}-{spec.part}"
        volumes = [_host_path(path) for path in spec.host_paths]
        waits_for: list[pulumi.Resource] = [part.container for part in after]
        if image := platform.images.get(spec.image):
            waits_for.append(image)
        if spec.files:
            mounted = files_volume(
                spec.part,
                prefix=name,
                image=spec.image,
                files=spec.files,
                secrets=platform.secrets,
                parent=self,
                after=tuple(waits_for),
            )
            volumes.append(
                docker.ContainerVolumeArgs(
                    volume_name=mounted.volume_name, container_path=spec.files_at, read_only=True
                )
            )
            waits_for.append(mounted.carrier)
        volumes += [
            docker.ContainerVolumeArgs(
                volume_name=platform.volumes[volume.name].name,
                container_path=volume.path,
                # None and not False for a writable volume: existing states have None, and a change would replace the
                # container.
                read_only=True if volume in spec.reads else None,
            )
            for volume in (spec.data, spec.scratch, *spec.reads)
            if volume
        ]
        environment: dict[str, pulumi.Input[str]] = {key: f"{key}={value}" for key, value in spec.environment.items()}
        environment |= {
            key: pulumi.Output.concat(key, "=", resolve(template, platform.secrets))
            for key, template in spec.secret_environment.items()
        }
        self.container = docker.Container(
            spec.part,
            name=name,
            image=spec.image,
            entrypoints=list(spec.entrypoint) or None,
            command=list(spec.command) or None,
            envs=[line for _, line in sorted(environment.items())] or None,
            user=spec.user,
            hostname=spec.part,
            # Set although it is the default: without it, engines from 26 on show a difference in every preview.
            network_mode="bridge" if spec.networks else "none",
            networks_advanced=[
                *(
                    docker.ContainerNetworksAdvancedArgs(
                        name=platform.networks[network].name, aliases=[spec.part, *spec.aliases]
                    )
                    for network in sorted(spec.networks)
                ),
                *(docker.ContainerNetworksAdvancedArgs(name=name) for name in spec.external_networks),
            ]
            or None,
            dns_searches=[NO_SEARCH_DOMAIN],
            ports=[_port(publish) for publish in (spec.publish, *spec.also_publish) if publish] or None,
            volumes=volumes or None,
            devices=[_device(device) for device in spec.devices] or None,
            tmpfs=dict(spec.tmpfs) or None,
            read_only=True,
            init=True,
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"], adds=list(spec.capabilities) or None),
            security_opts=[NO_NEW_PRIVILEGES],
            memory=spec.settings.memory_mib,
            # The same as `memory` means no swap; if unset, the engine reports twice the memory in every preview.
            memory_swap=spec.settings.memory_mib,
            cpus=cpus_text(spec.settings.cpus),
            shm_size=spec.shm_mib,
            ulimits=[
                docker.ContainerUlimitArgs(name="nofile", soft=spec.open_files, hard=spec.open_files),
                # The provider cannot limit the processes of a container, so this limits its user on the whole host.
                docker.ContainerUlimitArgs(name="nproc", soft=spec.processes, hard=spec.processes),
            ],
            log_driver=LOG_DRIVER,
            log_opts=LOG_OPTIONS,
            restart="unless-stopped",
            stop_signal=spec.stop_signal,
            stop_timeout=spec.stop_grace_seconds,
            # If unset, the provider kills the container at once, PostgreSQL too.
            destroy_grace_seconds=spec.stop_grace_seconds,
            healthcheck=health_check(spec, start_interval=platform.environment.settings.start_interval),
            wait=True,
            wait_timeout=spec.health.wait_timeout_seconds,
            labels=labels(platform.environment, spec),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=waits_for,
                delete_before_replace=True,
                replace_on_changes=list(REPLACE_ON_CHANGES),
            ),
        )
        self.register_outputs({"container": self.container.name})


def health_check(spec: ServiceSpec, *, start_interval: bool) -> docker.ContainerHealthcheckArgs:
    """Return the health check of a container.

    start_interval: the engine can check every second during the start period. Then later checks run half as often,
    because each one starts a process; half the retries keep the time until a failing container is unhealthy.
    """
    timing, often = spec.health, 1
    if start_interval and not timing.model_fields_set & {"interval_seconds", "retries"}:
        often = 2
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *spec.health_command],
        interval=go_duration(timing.interval_seconds * often),
        timeout=go_duration(timing.timeout_seconds),
        start_period=go_duration(timing.start_period_seconds),
        # An engine that does not know the start interval refuses to create the container.
        start_interval=go_duration(1) if start_interval else None,
        retries=timing.retries // often,
    )


def labels(environment: Environment, spec: ServiceSpec) -> list[docker.ContainerLabelArgs]:
    """Return the labels with which the `samokoder` command finds a container, and the labels of its spec."""
    values = {ENVIRONMENT_LABEL: environment.name, PART_LABEL: spec.part, **spec.labels}
    return [docker.ContainerLabelArgs(label=label, value=value) for label, value in values.items()]


def _port(publish: Publish) -> docker.ContainerPortArgs:
    return docker.ContainerPortArgs(
        internal=publish.container_port, external=publish.host_port, ip=publish.address, protocol="tcp"
    )


def _host_path(path: HostPath) -> docker.ContainerVolumeArgs:
    return docker.ContainerVolumeArgs(host_path=path.host, container_path=path.container, read_only=True)


def _device(device: HostPath) -> docker.ContainerDeviceArgs:
    return docker.ContainerDeviceArgs(host_path=device.host, container_path=device.container, permissions="r")
