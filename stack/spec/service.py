"""The description of a part, in plain values; `stack/resources/part.py` makes a container of it.

The defaults are hardened: a container gets only what its spec requests. Each request beyond the defaults breaks a rule
of the hardening gate until `hardening.yaml` gives a reason.
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
"""The tmpfs mounts of a part whose spec sets none."""


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Where Prometheus scrapes this part, inside the network `monitoring`."""

    port: int
    path: str = "/metrics"
    job: str = ""
    """Name of Prometheus' job, which replicas of one service share; empty: the part's own name."""
    sample_limit: int = 5000
    """A scrape with more samples fails: a label with a value for each user would fill Prometheus' memory."""


@dataclass(frozen=True, kw_only=True)
class NotScraped:
    """Why Prometheus does not scrape this part."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Publish:
    """A port of the container, published on an address of the host. `path`: a page there that answers 200."""

    container_port: int
    host_port: int
    address: str
    path: str = "/"

    @classmethod
    def of(cls, settings: PublishedSettings, container_port: int, path: str = "/") -> Publish:
        """Publish `container_port` on the address and port of the part's settings."""
        return cls(container_port=container_port, host_port=settings.port, address=settings.bind_address, path=path)


@dataclass(frozen=True, kw_only=True)
class DataVolume:
    """A protected volume with data; parts whose specs have the same `name` share it. `adopt`: an existing volume."""

    name: str
    path: str
    adopt: str = ""


@dataclass(frozen=True, kw_only=True)
class HostPath:
    """A path of the host that is mounted read-only, or a device of the host that the container may read."""

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
    """Secret that is the password of its pages and metrics; the user is that of `stack/monitoring/access.py`."""
    may_lack: Mapping[str, str] = field(default_factory=dict)
    """Pattern of a series' name -> why a healthy stack may have none of it: the smoke test does not ask for it."""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, Template] = field(default_factory=dict)
    """Variable -> template of its secret value, for an image that cannot read a file: an opt-in."""
    publish: Publish | None = None
    also_publish: tuple[Publish, ...] = ()
    """Further published ports, whose pages no health check requests."""
    aliases: tuple[str, ...] = ()
    """Further names inside the networks: one that all replicas share."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels, which configure a reverse proxy. A change replaces the container."""
    external_networks: tuple[str, ...] = ()
    """Networks that another project owns, by their names on the engine."""
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
    """Spelt as the engine reports them, with `CAP_`: another spelling would be a difference in every preview."""
    processes: int = 4096
    """Limit of threads for the container's uid on the whole host: threads of all containers with this uid count, in
    other environments too. At 256 the ninth monitoring part of two environments could not start a thread."""
    open_files: int = 4096
    shm_mib: int = 64
    stop_signal: str = "SIGTERM"
    stop_grace_seconds: int = 30
    after: tuple[str, ...] = ()
    """Parts that must be healthy before this one starts; parts that do not run in this environment are ignored."""
    formerly: str = ""
    """Name of the part that this one replaces: Pulumi then frees its port first."""

    def __post_init__(self) -> None:
        """Raise ValueError, at preview, if a scraped or published part does not join a network that this needs."""
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
    """Return a duration as Docker reports it: 90 is `1m30s`. Another spelling is a difference in every preview."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def cpus_text(cpus: float) -> str:
    """Return cores as the provider reports them: 1 is `1.0`, 10 is `10.` (sic); else each preview shows a difference.

    The provider's nanoInt64ToDecimalString formats with nine decimals: a text with exactly nine zeros counts as a round
    number and gets one decimal, all other texts lose the zeros at their end. So it would report 0.01 as `0.0`, which
    limits nothing: a number that loses its decimals so gets a billionth of a core more, and one zero less.
    """
    text = f"{cpus:.9f}"
    if text.count("0") != 9:  # noqa: PLR2004 - explained above
        return text.rstrip("0")
    rounded = f"{cpus:.1f}"
    return rounded if float(rounded) == float(text) else f"{text[:-1]}1"
