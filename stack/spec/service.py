"""What a part of the stack is, in plain values and free of the engine; `stack/resources/part.py` renders it.

The defaults are the hardening: what a spec does not ask for, its container does not get. What one asks for beyond them
breaks a rule of the hardening gate until `hardening.yaml` says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stack.common.names import NetworkName
from stack.settings.part import Health, PartSettings
from stack.settings.part import Published as PublishedSettings
from stack.spec.files import Files, Template

LOG_MIB, LOG_FILES = 10, 3
LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": f"{LOG_MIB}m", "max-file": str(LOG_FILES)}
TMP = {"/tmp": "rw,noexec,nosuid,nodev,size=16m"}  # noqa: S108 - a mount of its own
"""What a part has in memory unless it says otherwise."""


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
    """Additional published ports, without an HTTP page that is asked for health."""
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
    """A volume for temporary data, which is removed with the stack."""
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
