"""From a plain description of a service to a hardened container: the one place where a container is made.

`ServiceSpec` says what a part is, in plain values and free of the engine. `Part` renders it for Docker Engine.
The defaults are the hardening: what a spec does not ask for, its container does not get. What one asks for beyond them
breaks a rule of the hardening gate until `hardening.yaml` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from stack.config_files import Files, Secrets, Template, files_volume, resolve
from stack.names import ENVIRONMENT_LABEL, NO_NEW_PRIVILEGES, NO_SEARCH_DOMAIN, PART_LABEL, NetworkName
from stack.settings import Environment, Health
from stack.settings import Part as PartSettings
from stack.settings import Published as PublishedSettings

LOG_MIB, LOG_FILES = 10, 3
LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": f"{LOG_MIB}m", "max-file": str(LOG_FILES)}
TMP = {"/tmp": "rw,noexec,nosuid,nodev,size=16m"}  # noqa: S108 - a mount of its own
"""What a part has in memory unless it says otherwise."""
# Edits of these are silently not applied by the provider's in-place update (reference: provider pitfalls, 7 and
# "#initerror"): a container that failed its wait would be accepted as healthy by the next `up`.
REPLACE_ON_CHANGES = ("#initerror", "healthcheck", "tmpfs", "init", "cpuPeriod", "cpuQuota", "ulimits")


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Where Prometheus scrapes this part, inside the network `monitoring`."""

    port: int
    path: str = "/metrics"
    job: str = ""
    """Replicas of one service share a job; empty: the part's own name."""
    sample_limit: int = 5000
    """A scrape with more samples fails: a label with a value for each user would fill Prometheus' memory."""


@dataclass(frozen=True, kw_only=True)
class NotScraped:
    """Why this part is no target of its own."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Publish:
    """A port of the container on an address of the host; `path` answers 200 to a person or a check."""

    container_port: int
    host_port: int
    address: str
    path: str = "/"

    @classmethod
    def of(cls, settings: PublishedSettings, container_port: int, path: str = "/") -> Publish:
        """Publish `container_port` where the part's settings say."""
        return cls(container_port=container_port, host_port=settings.port, address=settings.bind_address, path=path)


@dataclass(frozen=True, kw_only=True)
class DataVolume:
    """Data of a part, or of several that name the same: a protected volume. `adopt`: an existing one to take over."""

    name: str
    path: str
    adopt: str = ""


@dataclass(frozen=True, kw_only=True)
class HostPath:
    """A path of the host that is mounted read-only, or a device that may be read."""

    host: str
    container: str


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """What one part of the stack is. Memory in MiB, times in seconds."""

    part: str
    """Name inside the networks and on the command line: `postgres-exporter`."""
    component: str
    """Type of the part's component: `samokoder:monitoring:PostgresExporter`."""
    image: str
    user: str
    settings: PartSettings
    """Limits and health timing."""
    health_command: tuple[str, ...]
    networks: tuple[NetworkName, ...]
    scrape: Scrape | NotScraped
    web_password: str = ""
    """Secret with which its pages and its metrics are asked for, as the user of `stack/monitoring/access.py`."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, Template] = field(default_factory=dict)
    """Variable -> how its secret value is made, for an image that cannot read a file: an opt-in."""
    publish: Publish | None = None
    also_publish: tuple[Publish, ...] = ()
    """Further ports, of which no page is asked."""
    aliases: tuple[str, ...] = ()
    """Further names inside the networks: one that all replicas share."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels, for a reverse proxy that is configured by them. A change replaces the container."""
    external_networks: tuple[str, ...] = ()
    """Networks of somebody else, by their names on the engine."""
    files: Files = field(default_factory=dict)
    """Relative path -> content, mounted read-only at `files_at`."""
    files_at: str = "/etc/samokoder"
    data: DataVolume | None = None
    scratch: DataVolume | None = None
    """What it fills and nobody keeps: this volume goes with the stack."""
    reads: tuple[DataVolume, ...] = ()
    """Volumes of other parts, read-only."""
    tmpfs: Mapping[str, str] = field(default_factory=lambda: dict(TMP))
    host_paths: tuple[HostPath, ...] = ()
    devices: tuple[HostPath, ...] = ()
    capabilities: tuple[str, ...] = ()
    """As the engine writes them back: without `CAP_` one would be a difference for ever."""
    processes: int = 4096
    """Threads of its uid on the whole host, not of this container alone: every other container of the uid counts, those
    of another environment too. At 256 the ninth monitoring part of two environments could not start a thread."""
    open_files: int = 4096
    shm_mib: int = 64
    stop_signal: str = "SIGTERM"
    stop_grace_seconds: int = 30
    after: tuple[str, ...] = ()
    """Parts that are healthy before this one starts, where they run in this environment."""
    formerly: str = ""
    """Name of the part that this one replaces: Pulumi then frees its port first."""

    def __post_init__(self) -> None:
        """Refuse what cannot be reached as it says: ValueError, at preview and in every unit test."""
        if isinstance(self.scrape, Scrape) and NetworkName.MONITORING not in self.networks:
            raise ValueError(f"{self.part} is scraped but does not join the network 'monitoring'")
        if self.publish and not {NetworkName.EDGE, NetworkName.PUBLISHED} & {*self.networks}:
            raise ValueError(f"{self.part} is published but joins neither 'edge' nor 'published': others are internal")

    @property
    def health(self) -> Health:
        """Health check timing."""
        return self.settings.health

    @property
    def job(self) -> str:
        """Prometheus' job of this part; empty where it is not scraped."""
        return (self.scrape.job or self.part) if isinstance(self.scrape, Scrape) else ""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What every part stands on."""

    environment: Environment
    networks: Mapping[NetworkName, docker.Network]
    images: Mapping[str, docker.RemoteImage]
    """Pulled or built images by reference; a local image id has none."""
    volumes: Mapping[str, docker.Volume]
    secrets: Secrets


class Part(pulumi.ComponentResource):
    """One running part: its files, mounted read-only, and its container, healthy when this is done."""

    container: docker.Container

    def __init__(
        self,
        spec: ServiceSpec,
        platform: Platform,
        after: Sequence[Part] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        # The children's aliases follow from this one: their names begin with the part's.
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
                # Unset where it may be written, as it always was: a difference here would replace the container.
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
            # Named although it is the default: engines from 26 on show a difference for ever without it.
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
            # Equal to memory: no swap. Unset, the engine reports twice the memory, a difference for ever.
            memory_swap=spec.settings.memory_mib,
            cpus=cpus_text(spec.settings.cpus),
            shm_size=spec.shm_mib,
            ulimits=[
                docker.ContainerUlimitArgs(name="nofile", soft=spec.open_files, hard=spec.open_files),
                # The provider has no limit of processes for the container; this one is for its user on the host.
                docker.ContainerUlimitArgs(name="nproc", soft=spec.processes, hard=spec.processes),
            ],
            log_driver=LOG_DRIVER,
            log_opts=LOG_OPTIONS,
            restart="unless-stopped",
            stop_signal=spec.stop_signal,
            stop_timeout=spec.stop_grace_seconds,
            # Unset, the provider kills at once, PostgreSQL included.
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
    """When the engine asks a container whether it is healthy.

    start_interval: the engine can ask often while the start period lasts, so that it may ask seldom later: each time
    starts a process. Checks that fail at once make a container unhealthy after as long as without.
    """
    timing, often = spec.health, 1
    if start_interval and not timing.model_fields_set & {"interval_seconds", "retries"}:
        often = 2
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *spec.health_command],
        interval=go_duration(timing.interval_seconds * often),
        timeout=go_duration(timing.timeout_seconds),
        start_period=go_duration(timing.start_period_seconds),
        # An engine that does not know it refuses the container.
        start_interval=go_duration(1) if start_interval else None,
        retries=timing.retries // often,
    )


def labels(environment: Environment, spec: ServiceSpec) -> list[docker.ContainerLabelArgs]:
    """Labels by which the `samokoder` command finds a container, and the part's own."""
    values = {ENVIRONMENT_LABEL: environment.name, PART_LABEL: spec.part, **spec.labels}
    return [docker.ContainerLabelArgs(label=label, value=value) for label, value in values.items()]


def go_duration(seconds: int) -> str:
    """Seconds as Docker writes them back: 90 is `1m30s`. Another spelling would be a difference for ever."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def cpus_text(cpus: float) -> str:
    """Cores as the provider reads them back: 1 is `1.0`, 10 is `10.` (sic). Else: a difference for ever.

    Its nanoInt64ToDecimalString takes nine zeros in nine decimals for a round number and trims the others.
    """
    text = f"{cpus:.9f}"
    return f"{cpus:.1f}" if text.count("0") == 9 else text.rstrip("0")  # noqa: PLR2004 - explained above


def _port(publish: Publish) -> docker.ContainerPortArgs:
    return docker.ContainerPortArgs(
        internal=publish.container_port, external=publish.host_port, ip=publish.address, protocol="tcp"
    )


def _host_path(path: HostPath) -> docker.ContainerVolumeArgs:
    return docker.ContainerVolumeArgs(host_path=path.host, container_path=path.container, read_only=True)


def _device(device: HostPath) -> docker.ContainerDeviceArgs:
    return docker.ContainerDeviceArgs(host_path=device.host, container_path=device.container, permissions="r")
