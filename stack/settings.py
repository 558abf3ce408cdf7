"""Everything that is known when the program starts, as frozen pydantic models without a Pulumi type.

Source: the project's configuration (`Pulumi.<stack>.yaml`, `pulumi config set`), key by key as in
`Pulumi.yaml`. `read_settings` reads it once and finds every mistake in one go, so that a person who
sets up an environment corrects the file once and not once for each mistake.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from stack import connections, cron, dotted, ipv6
from stack.app.metrics_contract import LATENCY_BUCKETS
from stack.images import IMAGES, ImageReferenceError, PartName, parse_reference
from stack.mistakes import InvalidSettingsError, Mistake
from stack.names import USUAL_MTU
from stack.secret_rules import CONFIGURED_SECRETS, SecretInput, check_secrets

PROJECT = "samokoder"

# Docker's own rule for names is wider; this is what is also a valid DNS label and still leaves room
# for "samokoder-<environment>-postgres-exporter-files-<hash>" within 128 characters.
ENVIRONMENT_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")


def _image(value: str) -> str:
    try:
        parse_reference(value)
    except ImageReferenceError as error:
        raise ValueError(str(error)) from None
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("not an IP address") from None


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("not a network like 10.0.0.0/8") from None


def _container_path(value: str) -> str:
    """Accept a folder of the application's own: the stack's mounts and the system's folders are no place for it."""
    parts = value.split("/")[1:]
    systems = {"tmp", "run", "proc", "sys", "dev", "etc", "usr", "bin", "sbin", "lib", "lib64"}
    plain = all(re.fullmatch(r"[\w.-]+", part) and part.strip(".") for part in parts)
    if not (value.startswith("/") and plain) or parts[0] in systems:
        raise ValueError(f"not the whole path of a folder of its own, which is not in /{', /'.join(sorted(systems))}")
    return value


def _schedule(value: str) -> str:
    return cron.parse(value).text


Image = Annotated[str, AfterValidator(_image)]
Address = Annotated[str, AfterValidator(_address)]
Port = Annotated[int, Field(ge=1, le=65535)]
MemoryMib = Annotated[int, Field(ge=16)]
Cpus = Annotated[float, Field(gt=0, le=128)]
# minute hour day month weekday, in UTC; the days of the week become names.
CronSchedule = Annotated[str, AfterValidator(_schedule)]
# Prometheus' own syntax for a duration, without the compound forms that nobody writes by hand.
Duration = Annotated[str, Field(pattern=r"^[1-9][0-9]*(ms|s|m|h|d|w|y)$")]
Size = Annotated[str, Field(pattern=r"^[1-9][0-9]*(MB|GB|TB)$")]
SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
ContainerPath = Annotated[str, AfterValidator(_container_path)]

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
Certificate = Annotated[
    str,
    Field(
        pattern=r"^(\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)*$",
        max_length=512_000,
    ),
]

# Configured LLM key -> the name of its setting in the application's contract.
LLM_KEYS = {
    "openaiApiKey": "OPENAI_API_KEY",
    "anthropicApiKey": "ANTHROPIC_API_KEY",
    "openrouterApiKey": "OPENROUTER_API_KEY",
}
# The application's other secret settings.
_SECRET_SETTINGS = frozenset({"SECRET_KEY", "APP_SECRET_KEY", "SAMOKODER_DATABASE_URL", "REDIS_PASSWORD"})
# Only during a rotation, and always where SECRET_KEY is: nobody asks for it by name.
SECRET_KEY_PREVIOUS = "SECRET_KEY_PREVIOUS"  # noqa: S105 - a setting's name

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def seconds(duration: str) -> float:
    """Length of a `Duration` in seconds: `"15s"` is 15.0, `"2h"` is 7200.0."""
    number, unit = re.fullmatch(r"([0-9]+)([a-z]+)", duration).groups()  # type: ignore[union-attr]
    return int(number) * _SECONDS[unit]


def http_url(address: str, port: int) -> str:
    """Address of a page on an IP address: an IPv6 one stands in brackets."""
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}"


class Model(BaseModel):
    """Frozen, strict, and without unknown keys: a typing error in the YAML is a mistake, never ignored."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # An error must never print the value of something that may be a secret.
        hide_input_in_errors=True,
    )


class Health(Model):
    """When a container counts as healthy, and how long an update waits for that."""

    interval_seconds: int = Field(
        5, ge=1, le=300, description="Time between two health checks, in seconds.", examples=[10]
    )
    timeout_seconds: int = Field(
        5, ge=1, le=300, description="A check that takes longer has failed, in seconds.", examples=[5]
    )
    retries: int = Field(
        6,
        ge=1,
        le=100,
        description="So many failed checks in a row make the container unhealthy.",
        examples=[6],
    )
    start_period_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Failed checks do not count for so long after start, in seconds.",
        examples=[30],
    )
    wait_timeout_seconds: int = Field(
        120,
        ge=1,
        le=7200,
        description="`pulumi up` waits so long for healthy before it fails, in seconds. "
        "Longer than startPeriodSeconds + intervalSeconds x retries.",
        examples=[180],
    )

    @model_validator(mode="after")
    def _wait_outlasts_the_checks(self) -> Health:
        slowest = self.start_period_seconds + self.interval_seconds * self.retries
        if self.wait_timeout_seconds <= slowest:
            raise ValueError(
                f"waitTimeoutSeconds is {self.wait_timeout_seconds}, but a container may need "
                f"startPeriodSeconds + intervalSeconds x retries = {slowest} seconds to become healthy; "
                f"write waitTimeoutSeconds: {slowest + 30}"
            )
        return self


class Part(Model):
    """What every part of the stack has: limits and health."""

    memory_mib: MemoryMib = Field(64, description="Memory limit in MiB; there is no swap on top of it.", examples=[256])
    cpus: Cpus = Field(0.25, description="CPU limit in cores.", examples=[0.5])
    health: Health = Field(default_factory=Health, description="Health check timing.", examples=[{"retries": 10}])


class Published(Part):
    """A part with a port on the host."""

    port: Port = Field(description="Port on the host.", examples=[8000])
    bind_address: Address = Field(
        "127.0.0.1",
        description="Address of the host that the port is bound to. Anything but loopback needs bindReason.",
        examples=["127.0.0.1"],
    )
    bind_reason: str = Field(
        "",
        description="Why the port is reachable from outside the host; required when bindAddress is not loopback.",
        examples=["behind the provider's load balancer"],
    )

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return http_url(self.bind_address, self.port)


class Application(Model):
    """What the API, the worker and the frontend share: the team's image and how it takes its secrets."""

    image: Image | None = Field(
        None,
        description="The team's own image, `name:tag@sha256:…`. Empty: the reference application, "
        "built on the engine from `reference_app/`.",
        examples=["registry.example.org/samokoder/api:1.4.2@sha256:" + "0" * 64],
    )
    command: list[str] | None = Field(
        None,
        description="Command in place of the contract's own.",
        examples=[["uvicorn", "samokoder.main:app"]],
    )
    environment: dict[SecretName, str] = Field(
        default_factory=dict,
        description="Further plain settings of the image. Never a secret: who may ask the engine can read it.",
        examples=[{"LOG_LEVEL": "info"}],
    )
    secrets_as: Literal["files", "environment"] = Field(
        "files",
        description="How the image reads its secrets. `files`: from /run/secrets. `environment`: from its environment "
        "alone; a small start of the platform, run by the image's `python`, reads the files into the process' own "
        "environment, which `docker inspect` does not show. It takes the place of the image's ENTRYPOINT.",
        examples=["environment"],
    )
    writable_paths: list[ContainerPath] = Field(
        default_factory=list,
        description="Folders that the image writes to, in memory, each up to tmpMib and empty at every start: they "
        "hide what the image has there. What must stay belongs into samokoder:workspace or the database.",
        examples=[["/app/config", "/app/logs"]],
    )
    tmp_mib: int = Field(
        16,
        ge=1,
        le=65536,
        description="Size of /tmp, and of each of writablePaths, in MiB of its memory.",
        examples=[64],
    )
    secrets_in_environment: list[SecretName] = Field(
        default_factory=list,
        description="Secrets that this image can read only from the environment, by name. Each one is readable "
        "by `docker inspect`, and the preview warns of it.",
        examples=[["SECRET_KEY"]],
    )


DatabaseConnections = Annotated[int | None, Field(ge=1, le=1000)]


class Api(Application, Part):
    """The API: port 8000 in the container, `/health`, `/ready`, `/metrics`; reached through the ingress."""

    replicas: int = Field(
        2,
        ge=1,
        le=16,
        description="Containers of the API. From two on, a deploy replaces one after the other and no request is lost.",
        examples=[2],
    )
    stable_seconds: int = Field(
        15,
        ge=0,
        le=600,
        description="A replica must have run for so long and be ready before the next one is replaced, in seconds; "
        "what falls ill within that time never takes the second replica. With several replicas at least 8, for "
        "the ingress must have seen it be well.",
        examples=[30],
    )
    first: list[int] = Field(
        default_factory=list,
        description="Numbers of the replicas that a deploy replaces before the others; `make up` writes those that are "
        "sick, so that going back never takes the one that serves.",
        examples=[[2]],
    )
    health_path: str | None = Field(
        None,
        pattern=r"^/",
        description="Path that answers 200 when the API can serve. Empty: `/health` for the team's own image, "
        "`/ready` for the reference application.",
        examples=["/health"],
    )
    database_connections: DatabaseConnections = Field(
        None,
        description="Connections to PostgreSQL that a replica opens at most: its pool with the overflow, times its "
        "processes. Empty: 10 for the reference application, 15 (SQLAlchemy's default) for the team's own image.",
        examples=[20],
    )
    memory_mib: MemoryMib = Field(384, description="Memory limit in MiB, of each replica.", examples=[512])
    cpus: Cpus = Field(1.0, description="CPU limit in cores, of each replica.", examples=[1.0])
    health: Health = Field(
        # Its checks fail on purpose until it has been up for stableSeconds.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=120),
        description="Health check timing.",
        examples=[{"waitTimeoutSeconds": 180}],
    )

    @model_validator(mode="after")
    def _wait_outlasts_stable_seconds(self) -> Api:
        least = self.stable_seconds + 2 * self.health.interval_seconds
        if self.health.wait_timeout_seconds <= least:
            raise ValueError(
                f"health.waitTimeoutSeconds is {self.health.wait_timeout_seconds}, but a replica is healthy after "
                f"stableSeconds + 2 x intervalSeconds = {least} seconds at the earliest; "
                f"write health.waitTimeoutSeconds: {least + 60}"
            )
        return self


class Migrations(Part):
    """The keeper of the database's schema: brings it to the API's version before that one serves."""

    command: list[str] | None = Field(
        None,
        description="Command of the API's image that migrates the database; it ends with 0 when the schema is at this "
        "version's revision or newer. Empty: the reference application's; with the team's own image: no migrations.",
        examples=[["alembic", "upgrade", "head"]],
    )
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[512])
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[1.0])
    health: Health = Field(
        default_factory=lambda: Health(interval_seconds=2),
        description="Health check timing; waitTimeoutSeconds is how long the longest migration may take.",
        examples=[{"waitTimeoutSeconds": 1800}],
    )


class Worker(Application, Part):
    """The arq worker: metrics on port 9000 in the container."""

    database_connections: DatabaseConnections = Field(
        None, description="Connections to PostgreSQL that it opens at most; as of the API.", examples=[20]
    )
    memory_mib: MemoryMib = Field(384, description="Memory limit in MiB.", examples=[512])
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[1.0])
    health_command: list[str] | None = Field(
        None,
        description="Health check of the team's own worker image, run in the container. Empty: `/health` on its "
        "metrics port; of the reference worker `/ready`, until it was ready once.",
        examples=[["arq", "--check", "samokoder.worker.main.WorkerSettings"]],
    )
    metrics_port: Port | None = Field(
        9000,
        description="Port of the worker's `/metrics` in the container; `null` for an image that has none, "
        "which is then not scraped.",
        examples=[9000],
    )
    job_retention_days: int = Field(
        365,
        ge=0,
        le=36500,
        description="Days after which the worker removes the row of a job that is over; what it wrote stays in its "
        "project. 0: never. The reference application's (`JOB_RETENTION_DAYS`); another image may ignore it.",
        examples=[90],
    )


class Frontend(Published):
    """The optional frontend: there is one when `image` is set, or `enabled` for the reference application's."""

    enabled: bool = Field(
        False,
        description="Run the reference application's page where no image is set.",
        examples=[True],
    )
    image: Image | None = Field(
        None,
        description="The team's frontend image, `name:tag@sha256:…`. Empty: no frontend, or the reference one.",
        examples=["registry.example.org/samokoder/frontend:1.4.2@sha256:" + "0" * 64],
    )
    port: Port = Field(3001, description="Port on the host.", examples=[3001])
    container_port: Port = Field(
        8080, description="Port in the container; above 1024, it runs as a non-root user.", examples=[8080]
    )
    health_path: str | None = Field(
        None,
        pattern=r"^/",
        description="Path that answers 200 when it is healthy. Empty: `/`, or the reference page's.",
        examples=["/"],
    )
    user: str = Field(
        "10001:10001",
        pattern=r"^[1-9][0-9]*:[0-9]+$",
        description="uid:gid that it runs as.",
        examples=["101:101"],
    )
    writable_paths: list[ContainerPath] = Field(
        default_factory=list,
        description="Folders that the image writes to, in memory, each up to 16 MiB and empty at every start. "
        "nginx' own image needs two.",
        examples=[["/var/cache/nginx", "/var/run"]],
    )
    memory_mib: MemoryMib = Field(128, description="Memory limit in MiB.", examples=[128])


class Traefik(Model):
    """A Traefik of the team's own, which is configured by the labels of the containers."""

    network: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Docker network on which that Traefik listens; it must exist.",
        examples=["traefik"],
    )
    address: Address | Literal[""] = Field(
        "",
        description="That Traefik's fixed address on the network: its X-Forwarded-For alone is believed. Required.",
        examples=["172.30.0.2"],
    )
    entrypoint: str = Field("websecure", pattern=r"^[\w-]+$", description="Its entry point.", examples=["websecure"])
    cert_resolver: str = Field(
        "letsencrypt",
        pattern=r"^[\w-]*$",
        description="Its certificate resolver; empty: no TLS by us.",
        examples=["letsencrypt"],
    )


ApiPath = Annotated[str, Field(pattern=r"^/[\w./-]*\*?$")]
Network = Annotated[str, AfterValidator(_network)]


class Ingress(Published):
    """The public entry, and the only part that may be published beyond loopback: Caddy, or labels for a Traefik."""

    kind: Literal["caddy", "traefik"] = Field(
        "caddy",
        description="`caddy`: a Caddy of our own. `traefik`: no container, but labels for an existing Traefik.",
        examples=["traefik"],
    )
    domain: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+)?$",
        description="Public name of the service. With one, certificates are fetched and renewed by itself; port is 80 "
        "and bindAddress every address of the host unless set otherwise. Without one: HTTP on loopback.",
        examples=["samokoder.example.org"],
    )
    port: Port = Field(8000, description="Port for HTTP on the host; 80 with a domain.", examples=[8000])
    https_port: Port = Field(443, description="Port for HTTPS on the host; used with a domain.", examples=[443])
    email: str = Field(
        "",
        pattern=r"^(\S+@\S+)?$",
        description="Address that the certificate authority may write to.",
        examples=["admin@example.org"],
    )
    acme_directory: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="ACME directory of another certificate authority than Caddy's own choice.",
        examples=["https://ca.example.org/acme/directory"],
    )
    acme_root: str = Field(
        "",
        description="Root certificate in PEM under which acmeDirectory itself is served, where that is a private one.",
        examples=["-----BEGIN CERTIFICATE-----\n…"],
    )
    trusted_proxies: list[Network] = Field(
        default_factory=list,
        description="Networks of the load balancer in front, whose X-Forwarded-For is believed.",
        examples=[["10.0.0.0/8"]],
    )
    api_paths: list[ApiPath] = Field(
        default_factory=lambda: [
            "/projects*",
            "/jobs/*",
            "/auth/*",
            "/health",
            "/ready",
            "/docs*",
            "/redoc*",
            "/openapi.json",
        ],
        min_length=1,
        description="Paths of the API; all else goes to the frontend where there is one. A `*` at the end is any rest.",
        examples=[["/api/*", "/health"]],
    )
    strip_prefix: str = Field(
        "",
        pattern=r"^(/[\w-]+)*$",
        description="Prefix that users' requests for the API have and its own paths have not: with `/api`, the request "
        "/api/v1/projects reaches it as /v1/projects. Such paths are the API's, beside apiPaths. Behind it nobody "
        "reaches a path with a part `metrics`. Empty: none.",
        examples=["/api"],
    )
    max_body_mib: int = Field(
        10, ge=1, le=10240, description="A larger request is refused with 413, in MiB.", examples=[100]
    )
    traefik: Traefik | None = Field(
        None, description="The Traefik, where kind is `traefik`.", examples=[{"network": "traefik"}]
    )
    # A request that waits for a replica takes some 40 KiB: 3000 of them (30 s at 100/s) were seen to fill 128 MiB.
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[256])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[1.0])

    @property
    def url(self) -> str:
        """Where a person finds it: with a domain by TLS."""
        if not self.domain:
            return super().url
        # A Traefik of the team's own has ports of its own.
        port = "" if self.kind == "traefik" or self.https_port == 443 else f":{self.https_port}"  # noqa: PLR2004 - HTTPS'
        return f"https://{self.domain}{port}"

    @model_validator(mode="before")
    @classmethod
    def _a_domain_is_public(cls, given: Any) -> Any:
        if not (isinstance(given, dict) and given.get("domain") and given.get("kind", "caddy") == "caddy"):
            return given
        public = {"port": 80, "bindAddress": "0.0.0.0", "bindReason": f"the public entry of {given['domain']}"}  # noqa: S104
        return {**public, **given}


class Postgres(Part):
    """The local PostgreSQL 15. With the secret `managedDatabaseUrl` there is none, and only its exporter runs."""

    database: str = Field(
        "samokoder",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Name of the database.",
        examples=["samokoder"],
    )
    superuser: str = Field(
        "postgres",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="The superuser's role; for a volume adopted from compose its POSTGRES_USER.",
        examples=["samokoder"],
    )
    # A plain int: of two lower bounds, pydantic keeps the one of the alias.
    memory_mib: int = Field(
        512,
        ge=256,
        description="Memory limit in MiB; shared_buffers is a quarter of it, and what the workers of one query share "
        "(/dev/shm) at most another one.",
        examples=[1024],
    )
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[1.0])
    max_connections: int = Field(
        100,
        ge=20,
        le=5000,
        description="Connections at most. All that may connect at once has to fit (databaseConnections of the API and "
        "the worker); each takes some 5 to 10 MiB of memoryMib.",
        examples=[100],
    )
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["samokoder_postgres_data"],
    )
    health: Health = Field(
        # A database that recovers from a crash replays its log first: minutes, not seconds.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=300),
        description="Health check timing; allow for crash recovery.",
        examples=[{"waitTimeoutSeconds": 600}],
    )


class PostgresRoles(Part):
    """The keeper of the database roles: brings them to what is declared, after a restore or a rotation too."""


class RedisUsers(Part):
    """The keeper of Redis' users: brings them to what is declared, after a rotation or a lost file too."""


class Redis(Part):
    """The local Redis 7. With the secret `managedRedisUrl` there is none, and only its exporter runs."""

    maxmemory_mib: int = Field(
        192,
        ge=16,
        description="Redis' own limit in MiB; at it writes are refused (noeviction), for an evicted key may be a job. "
        "At most 80 % of memoryMib.",
        examples=[384],
    )
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[512])
    login: Literal["application", "none"] = Field(
        "application",
        description="Who may use Redis. `application`: who has the application's password. `none`: whoever reaches it "
        "has the application's rights, for an image that knows no password; the network `data` alone guards it then, "
        "and the preview warns of it.",
        examples=["none"],
    )
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["samokoder_redis_data"],
    )


class Workspace(Part):
    """Files that the API and the worker share: one data volume, and a part that hands copies of it to the backups."""

    path: ContainerPath | None = Field(
        None,
        description="Where the API and the worker have the folder that they share, writable and kept. Empty: none.",
        examples=["/app/workspace"],
    )


class Dumps(Model):
    """How many logical dumps stay."""

    daily: int = Field(7, ge=1, le=366, description="Newest dumps of so many days.", examples=[14])
    weekly: int = Field(4, ge=0, le=520, description="Newest dumps of so many weeks.", examples=[8])
    monthly: int = Field(6, ge=0, le=120, description="Newest dumps of so many months.", examples=[12])


class Offsite(Model):
    """A bucket elsewhere that gets a copy. Its keys are the secrets `s3AccessKeyId` and `s3SecretAccessKey`.

    What goes there is encrypted before it leaves, under the generated secret `backup-encryption-key`, or under
    `backupEncryptionKey` where that is set.
    """

    endpoint: str = Field(
        pattern=r"^https?://[^\s/@]+$",
        description="Address of the S3-compatible service.",
        examples=["https://s3.example.org"],
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket; it exists.", examples=["backups"]
    )
    prefix: str = Field(
        "",
        pattern=r"^([\w.-]+(/[\w.-]+)*)?$",
        description="Folder in the bucket. Empty: the environment's name with `samokoder-` before it.",
        examples=["samokoder/prod"],
    )
    region: str = Field(
        "us-east-1", pattern=r"^[a-z0-9-]+$", description="The bucket's region.", examples=["eu-central-1"]
    )
    sync_minutes: int = Field(
        5, ge=1, le=1440, description="Time between two copies, in minutes; after each backup as well.", examples=[15]
    )
    keep_days: int = Field(
        0,
        ge=0,
        le=3650,
        description="Copies older than so many days are removed there. 0: nothing is ever removed, so keys without the "
        "right to delete are enough. The bucket itself must never remove objects by their age: each copy needs objects "
        "of the first day. Only the prefix `locks/`, and old versions of objects, may have such a rule.",
        examples=[90],
    )
    read_days: int = Field(
        30,
        ge=0,
        le=256,
        description="In so many days all that is in the bucket is read once, a share each day: this is traffic. 0: "
        "only its structure is checked, each day.",
        examples=[7],
    )


class Backup(Part):
    """The backup server: Barman with the write-ahead log as it is written, dumps, copies of Redis."""

    enabled: bool = Field(True, description="Make backups.", examples=[False])
    memory_mib: MemoryMib = Field(512, description="Memory limit in MiB.", examples=[1024])
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[0.5])
    base_schedule: CronSchedule = Field(
        "15 2 * * *",
        description="When a base backup is made: minute hour day month weekday, in UTC.",
        examples=["15 2 * * *"],
    )
    dump_schedule: CronSchedule = Field(
        "15 3 * * *", description="When a logical dump is made, in UTC.", examples=["15 3 * * *"]
    )
    redis_schedule: CronSchedule = Field(
        "0 * * * *", description="When Redis is copied, in UTC.", examples=["*/30 * * * *"]
    )
    workspace_schedule: CronSchedule = Field(
        "15 1 * * *", description="When the workspace is copied, in UTC.", examples=["15 */6 * * *"]
    )
    verify_schedule: CronSchedule = Field(
        "45 3 * * *", description="When all that is kept is verified, in UTC.", examples=["45 3 * * *"]
    )
    drill_schedule: CronSchedule = Field(
        "30 4 * * sun", description="When the newest backup is restored as a drill, in UTC.", examples=["30 4 * * 0"]
    )
    recovery_window_days: int = Field(
        7, ge=1, le=365, description="One can go back to any moment of so many days.", examples=[14]
    )
    dumps: Dumps = Field(default_factory=Dumps, description="How many logical dumps stay.", examples=[{"monthly": 12}])
    redis_copies: int = Field(48, ge=1, le=10000, description="So many copies of Redis stay.", examples=[168])
    workspace_copies: int = Field(7, ge=1, le=10000, description="So many copies of the workspace stay.", examples=[30])
    max_slot_wal_mib: int = Field(
        4096,
        ge=256,
        le=1048576,
        description="PostgreSQL keeps so much of its write-ahead log for a backup server that is away, in MiB. Beyond "
        "it the log has a gap, which a new base backup ends, and PostgreSQL's disk is safe.",
        examples=[16384],
    )
    physical: bool | None = Field(
        None,
        description="Whether there are base backups and the write-ahead log, so that one can go back to any moment. "
        "Empty: yes for the local PostgreSQL, no for a managed one, of which there are dumps alone; `true` where its "
        "provider allows replication connections.",
        examples=[True],
    )
    offsite: Offsite | None = Field(
        None,
        description="A copy in an S3-compatible bucket, encrypted on this side; required in production.",
        examples=[{"endpoint": "https://s3.example.org", "bucket": "backups"}],
    )
    health: Health = Field(
        default_factory=lambda: Health(start_period_seconds=30, wait_timeout_seconds=120),
        description="Health check timing.",
        examples=[{"waitTimeoutSeconds": 180}],
    )


class Drill(Part):
    """Where the newest backup is restored for a trial, apart from the backups."""

    memory_mib: MemoryMib = Field(
        384,
        description="Memory limit in MiB. A Redis with all its keys is loaded in it: at least 96 and 1.25 times "
        "redis.maxmemoryMib.",
        examples=[768],
    )
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[0.5])


class WebPages(Published):
    """A part with pages that messages link to."""

    external_url: str = Field(
        "",
        pattern=r"^(https?://[^\s]*[^\s/])?$",
        description="Address in links of messages and pages. Empty: http://localhost:<port>.",
        examples=["https://monitoring.example.org/prometheus"],
    )

    @property
    def address(self) -> str:
        """Address in links, without a slash at its end."""
        return self.external_url or f"http://localhost:{self.port}"


class Prometheus(WebPages):
    """Prometheus."""

    port: Port = Field(9090, description="Port on the host.", examples=[9090])
    memory_mib: MemoryMib = Field(512, description="Memory limit in MiB.", examples=[1024])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[0.5])
    retention_time: Duration = Field("15d", description="How long samples are kept.", examples=["30d"])
    retention_size: Size = Field("5GB", description="How much disk samples may take.", examples=["10GB"])
    scrape_interval: Duration = Field("15s", description="Time between two scrapes of a target.", examples=["30s"])
    scrape_timeout: Duration = Field("10s", description="A scrape that takes longer has failed.", examples=["10s"])
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["prometheus_data"],
    )

    @property
    def connect_seconds(self) -> int:
        """So long an exporter waits for its server's first answer: whole seconds, well below the scrape's limit."""
        return max(1, int(seconds(self.scrape_timeout) * 0.4))

    @property
    def answer_seconds(self) -> int:
        """So long an exporter collects in all, in whole seconds: after it, it says that its server is down."""
        return max(1, int(seconds(self.scrape_timeout) * 0.5))


class Telegram(Model):
    """Alerts to Telegram. The bot's token is the secret `telegramBotToken`."""

    chat_id: int = Field(description="Chat that gets the alerts: negative for groups.", examples=[-1001234567890])
    message_thread_id: int | None = Field(
        None,
        gt=1,
        description="Topic of a forum that gets them: the number before the last in a link to one of its messages. "
        "Unset: the topic General.",
        examples=[42],
    )
    api_url: str = Field(
        "https://api.telegram.org",
        pattern=r"^https?://[^/\s]+$",
        description="Base URL of the bot API, for those who run their own server of it.",
        examples=["https://api.telegram.org"],
    )


class Email(Model):
    """Alerts by e-mail. The account's password is the secret `smtpPassword`."""

    smarthost: str = Field(
        pattern=r"^[^:\s]+:[1-9][0-9]{0,4}$",
        description="`host:port` of the mail server.",
        examples=["smtp.example.org:587"],
    )
    sender: str = Field(pattern=r"^\S+@\S+$", description="From address.", examples=["alerts@example.org"])
    recipient: str = Field(pattern=r"^\S+@\S+$", description="To address.", examples=["oncall@example.org"])
    username: str = Field(
        "", description="Account at the mail server; empty: no login.", examples=["alerts@example.org"]
    )
    require_tls: bool = Field(True, description="Refuse a server without STARTTLS.", examples=[True])


class Timing(Model):
    """When AlertManager sends for the alerts of one severity."""

    group_wait: Duration = Field(description="A new group waits so long for more alerts of its kind.", examples=["10s"])
    group_interval: Duration = Field(
        description="What is new in a group, its end included, is sent at most so often.", examples=["1m"]
    )
    repeat_interval: Duration = Field(description="What still fires is sent again after so long.", examples=["1h"])


class Timings(Model):
    """Timing by severity."""

    critical: Timing = Field(
        default_factory=lambda: Timing(group_wait="10s", group_interval="1m", repeat_interval="1h"),
        description="Alerts that wake somebody.",
        examples=[{"groupWait": "10s", "groupInterval": "1m", "repeatInterval": "1h"}],
    )
    warning: Timing = Field(
        default_factory=lambda: Timing(group_wait="30s", group_interval="5m", repeat_interval="12h"),
        description="Alerts for the working day.",
        examples=[{"groupWait": "30s", "groupInterval": "5m", "repeatInterval": "12h"}],
    )
    info: Timing = Field(
        default_factory=lambda: Timing(group_wait="5m", group_interval="15m", repeat_interval="3d"),
        description="What is good to know.",
        examples=[{"groupWait": "5m", "groupInterval": "15m", "repeatInterval": "3d"}],
    )


class Alertmanager(WebPages):
    """AlertManager and where its notifications go.

    A generic webhook and the heartbeat for the Watchdog are the secrets `alertWebhookUrl` and `heartbeatUrl`: an
    address of that kind is a password.
    """

    port: Port = Field(9093, description="Port on the host.", examples=[9093])
    language: Literal["en", "ru"] = Field("en", description="Language of the messages.", examples=["ru"])
    timing: Timings = Field(
        default_factory=Timings,
        description="When notifications are sent, by severity.",
        examples=[{"critical": {"groupWait": "10s", "groupInterval": "1m", "repeatInterval": "1h"}}],
    )
    heartbeat_interval: Duration = Field(
        "1m",
        description="The Watchdog is sent to the secret heartbeatUrl so often; what listens there raises the alarm "
        "when it stops.",
        examples=["1m"],
    )
    telegram: Telegram | None = Field(
        None, description="Alerts to Telegram; required in production.", examples=[{"chatId": -1001234567890}]
    )
    email: Email | None = Field(
        None,
        description="Alerts by e-mail; optional.",
        examples=[{"smarthost": "smtp.example.org:587", "sender": "a@example.org", "recipient": "b@example.org"}],
    )
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["alertmanager_data"],
    )


class Grafana(WebPages):
    """Grafana."""

    port: Port = Field(3000, description="Port on the host.", examples=[3000])
    # Of 13.2 others report 220 to 390 MiB at rest and 600 at work; its datasource is a second process.
    memory_mib: MemoryMib = Field(768, description="Memory limit in MiB; it takes up to 600.", examples=[1024])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[0.5])
    adopt_volume: str = Field(
        "",
        description="An existing Docker volume to take over in place of a new one.",
        examples=["grafana_data"],
    )
    health: Health = Field(
        # Its first start migrates its database: half a minute on two cores.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=240),
        description="Health check timing.",
        examples=[{"waitTimeoutSeconds": 300}],
    )


class Exporter(Published):
    """An exporter; its port on the host is for people, Prometheus asks it inside."""


class Cadvisor(Exporter):
    """cAdvisor."""

    port: Port = Field(8080, description="Port on the host.", examples=[8080])
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[256])
    containerd_socket: str = Field(
        "/run/containerd/containerd.sock",
        pattern=r"^/run/",
        description="Socket of the containerd that the engine uses, on the host; "
        "`/run/docker/containerd/containerd.sock` where dockerd runs its own.",
        examples=["/run/docker/containerd/containerd.sock"],
    )
    data_root: str = Field(
        "/var/lib/docker",
        pattern=r"^/[^/]",
        description="Folder of the engine, on the host; another with `data-root` in daemon.json, and with the snap. "
        "`make up` asks the engine for it.",
        examples=["/srv/docker"],
    )
    kernel_log: bool = Field(
        True,
        description="Whether it reads the kernel's log, from which it knows that memory ran out in a container; "
        "`false` on a host without /dev/kmsg (LXC), where ContainerOomKilled is then mute.",
        examples=[False],
    )


class PostgresExporter(Exporter):
    """PostgreSQL exporter."""

    port: Port = Field(9187, description="Port on the host.", examples=[9187])


class RedisExporter(Exporter):
    """Redis exporter."""

    port: Port = Field(9121, description="Port on the host.", examples=[9121])


class NodeExporter(Exporter):
    """Host metrics."""

    port: Port = Field(9100, description="Port on the host.", examples=[9100])


class BlackboxExporter(Exporter):
    """Probes: every HTTP endpoint of the stack, and the addresses by which users come."""

    port: Port = Field(9115, description="Port on the host.", examples=[9115])
    urls: list[Annotated[str, Field(pattern=r"^https?://[^\s/]+\S*$")]] = Field(
        default_factory=list,
        description="Public addresses that are probed from the stack as a user would come, TLS expiry included. "
        "Each must answer 200.",
        examples=[["https://samokoder.example.org/health"]],
    )


PercentOf = Annotated[float, Field(gt=0, lt=100)]
PositiveNumber = Annotated[float, Field(gt=0, le=1e9)]


def _bucket(value: float) -> float:
    # Only at a bucket's border can be counted how many requests were slower.
    if value not in LATENCY_BUCKETS:
        raise ValueError(f"not a bucket of the API's histogram: {', '.join(f'{each:g}' for each in LATENCY_BUCKETS)}")
    return value


LatencySeconds = Annotated[float, AfterValidator(_bucket)]


class Alerts(Model):
    """From where on an alert fires. The unit is in the name; a dashboard draws the same line."""

    runbooks_url: str = Field(
        "https://github.com/samokoder/samokoder-platform/blob/main/docs/runbooks",
        pattern=r"^https?://[^\s]*[^\s/]$",
        description="Where the pages of docs/runbooks are; each alert links to <runbooksUrl>/<alert>.md.",
        examples=["https://git.example.org/team/samokoder-platform/src/branch/main/docs/runbooks"],
    )
    wait_factor: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Every alert's `for` is multiplied by it, and alerts stay the shorter; below 1 to try alerts out.",
        examples=[0.1],
    )
    api_availability_percent: PercentOf = Field(
        99.9, description="Objective: so many of 100 requests do not end with a 5xx, in %.", examples=[99.5]
    )
    api_fast_percent: PercentOf = Field(
        99.0,
        description="Objective: so many of 100 requests are answered within apiFastSeconds, in %.",
        examples=[95.0],
    )
    api_fast_seconds: LatencySeconds = Field(
        0.5, description="What counts as a fast answer, in seconds: a bucket of the API's histogram.", examples=[1.0]
    )
    api_burn_requests: PositiveNumber = Field(
        5.0,
        description="Least number of bad requests in the long window of a burn rate: one in a quiet hour wakes nobody.",
        examples=[20.0],
    )
    api_error_percent: PercentOf = Field(
        5.0, description="ApiErrorRateHigh: 5xx answers of all in five minutes, in %.", examples=[2.0]
    )
    api_p95_seconds: PositiveNumber = Field(
        2.0, description="ApiLatencyHigh: 95th percentile of the answers, in seconds.", examples=[5.0]
    )
    api_requests_in_progress: PositiveNumber = Field(
        100.0, description="ApiRequestsPilingUp: requests being answered at once.", examples=[200.0]
    )
    rate_limit_hits_per_second: PositiveNumber = Field(
        10.0, description="RateLimitHitsHigh: answers 429 a second.", examples=[5.0]
    )
    auth_failures_per_second: PositiveNumber = Field(
        10.0, description="AuthenticationFailureSpike: failed logins a second.", examples=[1.0]
    )
    projects_expected_above_requests_per_second: PositiveNumber = Field(
        0.1,
        description="NoProjectsCreated: with more requests than so many a second, projects are expected.",
        examples=[1.0],
    )
    database_errors_per_second: PositiveNumber = Field(
        1.0, description="DatabaseErrors: errors of API and worker at the database a second.", examples=[0.1]
    )
    database_query_p95_seconds: PositiveNumber = Field(
        1.0, description="SlowDatabaseQueries: 95th percentile of the statements, in seconds.", examples=[0.5]
    )
    llm_error_percent: PercentOf = Field(
        10.0, description="LlmErrorRateHigh: failed calls of a provider in ten minutes, in %.", examples=[5.0]
    )
    llm_p95_seconds: PositiveNumber = Field(
        30.0, description="LlmLatencyHigh: 95th percentile of a provider's answers, in seconds.", examples=[60.0]
    )
    llm_cost_usd_per_hour: PositiveNumber = Field(
        10.0, description="LlmCostSpike: cost of the last hour, in US dollars.", examples=[50.0]
    )
    worker_oldest_job_seconds: PositiveNumber = Field(
        300.0, description="WorkerQueueOldestJobTooOld: age of the oldest waiting job, in seconds.", examples=[600.0]
    )
    worker_queue_jobs: PositiveNumber = Field(
        100.0, description="WorkerQueueBacklogGrowing: waiting jobs.", examples=[500.0]
    )
    worker_failed_percent: PercentOf = Field(
        5.0, description="WorkerJobFailureRatioHigh: failed jobs in fifteen minutes, in %.", examples=[10.0]
    )
    postgres_connections_percent: PercentOf = Field(
        80.0, description="PostgresConnectionsHigh: used connections, in %.", examples=[70.0]
    )
    postgres_transaction_seconds: PositiveNumber = Field(
        600.0, description="PostgresLongTransaction: age of the oldest transaction, in seconds.", examples=[3600.0]
    )
    postgres_cache_hit_percent: PercentOf = Field(
        95.0, description="PostgresCacheHitRatioLow: blocks found in memory, in %.", examples=[90.0]
    )
    redis_memory_percent: PercentOf = Field(
        85.0, description="RedisMemoryHigh: memory used of maxmemory, in %.", examples=[75.0]
    )
    redis_snapshot_hours: PositiveNumber = Field(
        24.0,
        description="RedisSnapshotOld: age of the last snapshot while there are changes, in hours.",
        examples=[6.0],
    )
    container_memory_percent: PercentOf = Field(
        90.0, description="ContainerMemoryNearLimit: memory used of the limit, in %.", examples=[95.0]
    )
    container_throttled_percent: PercentOf = Field(
        25.0, description="ContainerCpuThrottled: periods in which the CPU limit held it back, in %.", examples=[50.0]
    )
    host_cpu_percent: PercentOf = Field(80.0, description="HostCpuHigh: busy CPU, in %.", examples=[90.0])
    host_memory_available_percent: PercentOf = Field(
        10.0, description="HostMemoryLow: memory left, in %.", examples=[5.0]
    )
    disk_low_percent: PercentOf = Field(10.0, description="HostDiskLow: space left, in %.", examples=[15.0])
    disk_almost_full_percent: PercentOf = Field(
        5.0, description="HostDiskAlmostFull: space left, in %; less than diskLowPercent.", examples=[3.0]
    )
    backup_late_hours: PositiveNumber = Field(
        2.0,
        description="BackupTooOld, BackupVerificationTooOld: so many hours beyond the longest pause of the schedule; "
        "critical one missed backup later.",
        examples=[4.0],
    )
    backup_shrank_percent: PercentOf = Field(
        50.0,
        description="BackupShrank: so much smaller than the median of seven days, in %.",
        examples=[30.0],
    )
    backup_slot_percent: float = Field(
        50.0,
        gt=0,
        lt=80,
        description="BackupSlotGrowing: write-ahead log that waits for the backup server, of what PostgreSQL keeps, "
        "in %; critical from 80 on.",
        examples=[40.0],
    )
    wal_lag_seconds: float = Field(
        60.0,
        gt=0,
        lt=900,
        description="WalArchiveLagging: age of the oldest change that the backup server has not, in seconds; critical "
        "from 900 on.",
        examples=[120.0],
    )
    restore_drill_days: PositiveNumber = Field(
        8.0, description="RestoreDrillTooOld: since a backup was last restored and looked at, in days.", examples=[15.0]
    )
    backup_offsite_hours: PositiveNumber = Field(
        6.0, description="BackupOffsiteStale: since the last copy reached the bucket, in hours.", examples=[12.0]
    )
    backup_volume_free_percent: PercentOf = Field(
        15.0, description="BackupVolumeAlmostFull: space left where the backups are, in %.", examples=[20.0]
    )
    prometheus_series: PositiveNumber = Field(
        30000.0, description="PrometheusTooManySeries: series in memory.", examples=[100000.0]
    )
    probe_seconds: PositiveNumber = Field(
        2.0, description="ProbeSlow: mean duration of a probe, in seconds.", examples=[5.0]
    )
    tls_expires_days: PositiveNumber = Field(21.0, description="TlsCertificateExpiresSoon: days left.", examples=[14.0])
    tls_expires_very_soon_days: PositiveNumber = Field(
        3.0, description="TlsCertificateExpiresVerySoon: days left; less than tlsExpiresDays.", examples=[2.0]
    )


class Host(Model):
    """What the host is said to have; limits are checked against it."""

    memory_mib: int = Field(5632, ge=512, description="Memory of the host in MiB.", examples=[8192])
    cpus: int = Field(2, ge=1, description="Cores of the host.", examples=[4])


# What gives a machine's credentials: most clouds; Alibaba; Oracle; Azure.
METADATA = ("169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32")
# The same by IPv6: Amazon; Google; Oracle; Scaleway; Akamai.
METADATA_IPV6 = (
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "fd00:c1::a9fe:a9fe/128",
    "fd00:42::42/128",
    "fd00:a9fe:a9fe::1/128",
)


class PacketFilter(Model):
    """Rules of the host's packet filter for the network with a way out (docs/security.md)."""

    manage: bool = Field(
        True,
        description="Let `make up` put the rules, as root of the engine's host. `false`: another hand does it.",
        examples=[False],
    )
    closed: list[Network] = Field(
        [*METADATA, *METADATA_IPV6],
        description="Where no container comes to, but for DNS: by default the addresses at which clouds give a machine "
        "its credentials. Add your provider's private network if the application needs nothing there; `[]` opens all. "
        "A list of IPv4 alone leaves those of IPv6 as they are by default.",
        examples=[["169.254.0.0/16", "10.0.0.0/8"]],
    )

    def closed_by_family(self) -> tuple[list[str], list[str]]:
        """Return the closed networks of IPv4 and those of IPv6."""
        four, six = ([each for each in self.closed if (":" in each) == by_six] for by_six in (False, True))
        # Whoever wrote the list before there was IPv6 has opened nothing by it.
        return four, six or (list(METADATA_IPV6) if four else [])


class Networks(Model):
    """The stack's networks."""

    mtu: int | None = Field(
        None,
        ge=576,
        le=USUAL_MTU,
        description="Largest packet of the networks with a way out, in bytes. Empty: as they were made, 1500 by the "
        "engine. A change makes these networks and all containers on them anew, in which nobody is served.",
        examples=[1400],
    )
    ipv6: bool = Field(
        False,
        description="Whether the network `edge` has IPv6 too, and the ingress listens on it; from Docker Engine 28 on. "
        "A change makes that network and all containers on it anew, in which nobody is served (docs/faq.md).",
        examples=[True],
    )


class Images(Model):
    """Other images than those of `stack/images.py`, part by part: a mirror, or a local image id `sha256:…`."""

    postgres: Image | None = Field(
        None, description="PostgreSQL 15.", examples=["mirror.example.org/postgres:15@sha256:" + "0" * 64]
    )
    redis: Image | None = Field(
        None, description="Redis 7.", examples=["mirror.example.org/redis:7@sha256:" + "0" * 64]
    )
    prometheus: Image | None = Field(None, description="Prometheus.", examples=["sha256:" + "0" * 64])
    alertmanager: Image | None = Field(None, description="AlertManager.", examples=["sha256:" + "0" * 64])
    grafana: Image | None = Field(None, description="Grafana.", examples=["sha256:" + "0" * 64])
    postgres_exporter: Image | None = Field(None, description="PostgreSQL exporter.", examples=["sha256:" + "0" * 64])
    redis_exporter: Image | None = Field(None, description="Redis exporter.", examples=["sha256:" + "0" * 64])
    node_exporter: Image | None = Field(None, description="node_exporter.", examples=["sha256:" + "0" * 64])
    cadvisor: Image | None = Field(None, description="cAdvisor.", examples=["sha256:" + "0" * 64])
    blackbox_exporter: Image | None = Field(None, description="Blackbox exporter.", examples=["sha256:" + "0" * 64])
    caddy: Image | None = Field(None, description="Caddy, the ingress.", examples=["sha256:" + "0" * 64])
    python: Image | None = Field(
        None, description="Base of the reference application.", examples=["sha256:" + "0" * 64]
    )
    backup: Image | None = Field(
        None,
        description="Base of the backup server's own image, with the programs of PostgreSQL and Redis. Empty: made of "
        "the images of both.",
        examples=["sha256:" + "0" * 64],
    )


class Rotation(Model):
    """Generation of each generated secret: a number one higher makes a new value at the next `pulumi up`.

    Without a phase in `rotating`, the value before is worthless at once, and whoever still has it fails.
    """

    secret_key: int = Field(1, ge=1, description="SECRET_KEY.", examples=[2])
    app_secret_key: int = Field(
        1,
        ge=1,
        description="APP_SECRET_KEY. A new one is refused: what was stored under it could not be read any more.",
        examples=[2],
    )
    postgres_app: int = Field(1, ge=1, description="Password of the application's database role.", examples=[2])
    postgres_exporter: int = Field(1, ge=1, description="Password of the exporter's database role.", examples=[2])
    postgres_backup: int = Field(1, ge=1, description="Password of the backup server's database role.", examples=[2])
    redis_app: int = Field(1, ge=1, description="Password of the application's Redis user.", examples=[2])
    redis_exporter: int = Field(1, ge=1, description="Password of the exporter's Redis user.", examples=[2])
    redis_backup: int = Field(1, ge=1, description="Password of the backup server's Redis user.", examples=[2])
    grafana_admin: int = Field(
        1,
        ge=1,
        description="Grafana's admin password; Grafana itself takes it only into an empty volume.",
        examples=[2],
    )
    prometheus_web: int = Field(1, ge=1, description="Password of Prometheus' web pages and API.", examples=[2])
    alertmanager_web: int = Field(1, ge=1, description="Password of AlertManager's web pages and API.", examples=[2])


Phase = Literal["", "prepare", "overlap"]


class Rotating(Model):
    """Where a rotation without a lost request is; `make rotate` writes it, phase by phase.

    `prepare`: everybody uses the generation before, and the one of `rotation` is accepted beside it. `overlap`:
    everybody uses the one of `rotation`, and the one before is still accepted. Empty: it alone is accepted.
    """

    secret_key: Phase = Field("", description="SECRET_KEY.", examples=["overlap"])
    postgres_app: Phase = Field("", description="Login of the application to the database.", examples=["prepare"])
    redis_app: Phase = Field("", description="Password of the application's Redis user.", examples=["prepare"])
    grafana_admin: Phase = Field("", description="Grafana's admin password.", examples=["prepare"])


VolumeOf = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
VolumeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][\w.-]+$")]


class Settings(Model):
    """One environment of Samokoder."""

    production: bool = Field(
        False,
        description="The rules for production: digests required, Telegram required, the team's own images required, "
        "data volumes retained even when they leave the program.",
        examples=[True],
    )
    docker_host: str = Field(
        "unix:///var/run/docker.sock",
        pattern=r"^(unix:///\S+|ssh://([^\s:/@]+@)?([^\s:/@\[\]]+|\[[0-9a-fA-F:]+\])(:\d+)?(/\S*)?|tcp://\S+)$",
        description="Docker Engine that the stack runs on: a socket here, or `ssh://user@host` with a key, without a "
        "password (docs/remote-engine.md).",
        examples=["ssh://deploy@host.example.org"],
    )
    start_interval: bool = Field(
        False,
        description="Whether the engine knows the start interval of health checks (API 1.44: Docker 25 and newer). A "
        "container that starts is then asked every second while its startPeriodSeconds last, until it is healthy, and "
        "half as often as before from then on, unless its part sets intervalSeconds or retries. `make up` asks the "
        "engine.",
        examples=[True],
    )
    basic_auth: Literal["production", "always", "never"] = Field(
        "production",
        description="Where Prometheus and AlertManager ask for a password (user samokoder): in `production` alone, "
        "`always` or `never`. Without it they must stay on loopback.",
        examples=["always"],
    )
    unavailable: list[Literal["grafana"]] = Field(
        default_factory=list,
        description="Parts whose image this host cannot get; written by `make up` without a container registry. "
        "The stack comes up without them and says so everywhere.",
        examples=[["grafana"]],
    )
    managed_database_ca: Certificate = Field(
        "",
        description="The certificate, in PEM, of the authority that signed that of the server in `managedDatabaseUrl`, "
        "as its provider shows it; the certificate of that server is checked then.",
        examples=[CERTIFICATE],
    )
    managed_redis_ca: Certificate = Field(
        "",
        description="The certificate, in PEM, of the authority that signed that of the server in `managedRedisUrl`. "
        "Empty: one of those that each image knows.",
        examples=[CERTIFICATE],
    )
    app_secret_key_form: Literal["text", "fernet"] = Field(
        "text",
        description="Form of the generated APP_SECRET_KEY. `text`: 86 letters and digits. `fernet`: the 44 characters "
        "that cryptography.fernet wants, made of the same secret: a change of this setting is another key, and back "
        "again the first one.",
        examples=["fernet"],
    )
    host: Host = Field(default_factory=Host, description="What the host has.", examples=[{"memoryMib": 8192}])
    packet_filter: PacketFilter = Field(
        default_factory=PacketFilter,
        description="The host's packet filter around the stack.",
        examples=[{"closed": ["169.254.0.0/16", "10.0.0.0/8"]}],
    )
    network: Networks = Field(
        default_factory=Networks,
        description="The stack's networks.",
        examples=[{"mtu": 1400}],
    )
    images: Images = Field(
        default_factory=Images,
        description="Other images than the pinned ones.",
        examples=[{"redis": "sha256:" + "0" * 64}],
    )
    kept_volumes: dict[VolumeOf, VolumeName] = Field(
        default_factory=dict,
        description="Data volumes of parts that are switched off: which one -> its name on the engine. Written by "
        "`make up` from the state, so that nothing deletes them and their parts find them again.",
        examples=[{"postgres": "samokoder-staging-postgres-data"}],
    )
    keep_images: int = Field(
        3,
        ge=0,
        le=100,
        description="How many images of each part stay on the engine, the newest ones, at least two; `make up` removes "
        "the older ones that it has pulled or built itself. 0: it removes none.",
        examples=[0],
    )
    rotation: Rotation = Field(
        default_factory=Rotation,
        description="Generation of each generated secret.",
        examples=[{"secretKey": 2}],
    )
    rotating: Rotating = Field(
        default_factory=Rotating,
        description="Phase of each rotation that is not over; written by `make rotate`.",
        examples=[{"secretKey": "overlap"}],
    )
    ingress: Ingress = Field(
        default_factory=Ingress,
        description="The public entry.",
        examples=[{"domain": "samokoder.example.org", "email": "admin@example.org"}],
    )
    migrations: Migrations = Field(
        default_factory=Migrations,
        description="Keeper of the database's schema.",
        examples=[{"command": ["alembic", "upgrade", "head"]}],
    )
    api: Api = Field(default_factory=Api, description="API.", examples=[{"replicas": 2}])
    worker: Worker = Field(default_factory=Worker, description="Worker.", examples=[{"memoryMib": 512}])
    frontend: Frontend = Field(default_factory=Frontend, description="Frontend.", examples=[{"port": 3001}])
    postgres: Postgres = Field(default_factory=Postgres, description="PostgreSQL.", examples=[{"memoryMib": 1024}])
    postgres_roles: PostgresRoles = Field(
        default_factory=PostgresRoles,
        description="Keeper of the database roles.",
        examples=[{"memoryMib": 64}],
    )
    redis: Redis = Field(default_factory=Redis, description="Redis.", examples=[{"maxmemoryMib": 384}])
    redis_users: RedisUsers = Field(
        default_factory=RedisUsers, description="Keeper of Redis' users.", examples=[{"memoryMib": 64}]
    )
    workspace: Workspace = Field(
        default_factory=Workspace,
        description="Files that the API and the worker share.",
        examples=[{"path": "/app/workspace"}],
    )
    backup: Backup = Field(
        default_factory=Backup,
        description="The backup server.",
        examples=[{"offsite": {"endpoint": "https://s3.example.org", "bucket": "backups"}}],
    )
    drill: Drill = Field(
        default_factory=Drill, description="Where a backup is restored for a trial.", examples=[{"memoryMib": 768}]
    )
    prometheus: Prometheus = Field(
        default_factory=Prometheus, description="Prometheus.", examples=[{"retentionTime": "30d"}]
    )
    alertmanager: Alertmanager = Field(
        default_factory=Alertmanager,
        description="AlertManager.",
        examples=[{"telegram": {"chatId": -100}}],
    )
    grafana: Grafana = Field(default_factory=Grafana, description="Grafana.", examples=[{"port": 3000}])
    postgres_exporter: PostgresExporter = Field(
        default_factory=PostgresExporter,
        description="PostgreSQL exporter.",
        examples=[{"port": 9187}],
    )
    redis_exporter: RedisExporter = Field(
        default_factory=RedisExporter, description="Redis exporter.", examples=[{"port": 9121}]
    )
    node_exporter: NodeExporter = Field(
        default_factory=NodeExporter, description="node_exporter.", examples=[{"port": 9100}]
    )
    cadvisor: Cadvisor = Field(default_factory=Cadvisor, description="cAdvisor.", examples=[{"port": 8080}])
    blackbox_exporter: BlackboxExporter = Field(
        default_factory=BlackboxExporter, description="Blackbox exporter.", examples=[{"port": 9115}]
    )
    alerts: Alerts = Field(
        default_factory=Alerts, description="From where on an alert fires.", examples=[{"llmCostUsdPerHour": 50.0}]
    )

    @property
    def fernet(self) -> bool:
        """Whether APP_SECRET_KEY is a key of cryptography.fernet."""
        return self.app_secret_key_form == "fernet"  # noqa: S105 - a form's name


class Environment(Model):
    """The settings of one stack, together with its name and which secrets its configuration has."""

    name: str
    settings: Settings
    configured_secrets: frozenset[str] = frozenset()

    @property
    def prefix(self) -> str:
        """First part of every name on the engine: two environments share an engine without a clash."""
        return f"{PROJECT}-{self.name}"

    def data_volume(self, name: str, adopt: str = "") -> str:
        """Name on the engine of the data volume of that name. adopt: of an existing one that is taken over."""
        return adopt or f"{self.prefix}-{name}-data"

    def scratch_volume(self, name: str) -> str:
        """Name on the engine of the scratch volume of that name."""
        return f"{self.prefix}-{name}-scratch"

    @property
    def managed_database(self) -> bool:
        """Whether PostgreSQL is somebody else's: then there is no container, volume or role of ours."""
        return "managedDatabaseUrl" in self.configured_secrets

    @property
    def managed_redis(self) -> bool:
        """Whether Redis is somebody else's."""
        return "managedRedisUrl" in self.configured_secrets

    @property
    def database_ca(self) -> str:
        """The certificate that the managed PostgreSQL's is checked against; empty for none, and for a local one."""
        return self.settings.managed_database_ca if self.managed_database else ""

    @property
    def redis_ca(self) -> str:
        """The certificate that the managed Redis' is checked against; empty for none, and for a local one."""
        return self.settings.managed_redis_ca if self.managed_redis else ""

    @property
    def physical_backups(self) -> bool:
        """Whether there are base backups and the write-ahead log of PostgreSQL, beside its dumps."""
        asked = self.settings.backup.physical
        return self.settings.backup.enabled and (not self.managed_database if asked is None else asked)

    @property
    def offsite(self) -> Offsite | None:
        """The bucket that gets a copy of the backups; None where there is none."""
        return self.settings.backup.offsite if self.settings.backup.enabled else None

    @property
    def basic_auth(self) -> bool:
        """Whether Prometheus and AlertManager ask for a password."""
        asked = self.settings.basic_auth
        return asked == "always" or (asked == "production" and self.settings.production)

    @property
    def secret_settings(self) -> frozenset[str]:
        """Names of the application's secret settings in this environment: what `secretsInEnvironment` may name."""
        llm = {name for key, name in LLM_KEYS.items() if key in self.configured_secrets}
        return _SECRET_SETTINGS | llm

    @property
    def absent(self) -> frozenset[str]:
        """Field names of `Settings` of the parts that this environment does not run."""
        names: set[str] = set(self.settings.unavailable)
        if not (self.settings.frontend.enabled or self.settings.frontend.image):
            names.add("frontend")
        if self.settings.ingress.kind != "caddy":
            names.add("ingress")
        if self.settings.api.image and not self.settings.migrations.command:
            names.add("migrations")
        if not self.settings.backup.enabled:
            names |= {"backup", "drill"}
        if not self.settings.workspace.path:
            names.add("workspace")
        if self.managed_database:
            names |= {"postgres", "postgres_roles"}
        if self.managed_redis:
            names |= {"redis", "redis_users"}
        return frozenset(names)

    def parts_of(self, field: str) -> list[str]:
        """Names of the parts that a field of `Settings` describes: `postgres_exporter` is one, `api` has replicas."""
        if field == "api":
            return [f"api-{number}" for number in range(1, self.settings.api.replicas + 1)]
        return [field.replace("_", "-")]

    @property
    def alert_ways(self) -> list[str]:
        """The ways by which alerts reach a person, as AlertManager's metrics call them."""
        settings = self.settings.alertmanager
        ways = {
            "telegram": settings.telegram is not None,
            "email": settings.email is not None,
            "webhook": "alertWebhookUrl" in self.configured_secrets,
        }
        return [way for way, configured in ways.items() if configured]

    def api_in_turn(self) -> list[str]:
        """Names of the API's replicas in the order in which a deploy replaces them."""
        first = [f"api-{number}" for number in self.settings.api.first]
        return sorted(self.parts_of("api"), key=lambda part: part not in first)

    def image(self, name: PartName | Literal["backup"]) -> str:
        """Reference of a third-party image: the configured one, else the pinned one. `backup`: the base of our own."""
        configured: str | None = getattr(self.settings.images, name)
        if name == "backup":
            # Base backups are read by programs of the very version that wrote them.
            return configured or self.image("postgres")
        return configured or IMAGES[name].reference

    def running(self) -> dict[str, Part]:
        """Part settings by their field name, of the parts that run."""
        return {
            name: part
            for name in type(self.settings).model_fields
            if isinstance(part := getattr(self.settings, name), Part) and name not in self.absent
        }


def read_environment(stack: str, config: Mapping[str, str], secret_keys: frozenset[str] = frozenset()) -> Environment:
    """Read one stack's configuration.

    stack: the stack's name. config: every configured key (`samokoder:api`) with its value as Pulumi hands
    it over, objects as JSON text. secret_keys: those keys that the stack file holds encrypted.
    Raises InvalidSettingsError with every mistake at once; a secret's value is in none of them.
    """
    own = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items() if key.startswith(f"{PROJECT}:")}
    secrets = {
        name: SecretInput(own.pop(name), encrypted=f"{PROJECT}:{name}" in secret_keys)
        for name in CONFIGURED_SECRETS
        if name in own and (own[name] or own.pop(name))  # empty: the default in Pulumi.yaml, so not set
    }
    mistakes: list[Mistake] = []
    if not ENVIRONMENT_PATTERN.fullmatch(stack):
        mistakes.append(
            Mistake(
                "the stack's name",
                stack,
                "2 to 32 of a-z, 0-9 and -, a letter first",
                "pulumi stack init staging",
            )
        )
    for name in [name for name in own if f"{PROJECT}:{name}" in secret_keys and _field_at(name.split("."))[1]]:
        del own[name]  # nothing may show what somebody took for a secret
        mistakes.append(
            Mistake(
                f"{PROJECT}:{name}",
                "an encrypted value (not shown)",
                "a plain value: what is in a setting is plain text in the state and on the engine; a secret has a key "
                "of its own",
                f"pulumi config rm {PROJECT}:{name}",
            )
        )
    for name in [name for name in own if "." in name]:
        model, field = _field_at(name.split("."))
        if free := field is not None and get_origin(field.annotation) is dict:
            own[name] = "…"  # a variable of an image, which may be a secret
        if free or (model and field):
            mistakes.append(dotted.mistake(f"{PROJECT}:{name}", _json_value(name, own.pop(name))))
    document = {name: _json_value(name, text) for name, text in own.items()}
    settings, wrong = _validated(document)
    mistakes += wrong
    mistakes += check_secrets(
        secrets,
        fernet=settings.fernet,
        database_ca=bool(settings.managed_database_ca),
        redis_ca=bool(settings.managed_redis_ca),
    )
    environment = Environment.model_construct(name=stack, settings=settings, configured_secrets=frozenset(secrets))
    broken = {mistake.key for mistake in mistakes}
    # A rule that speaks of a key which is already wrong would only repeat it with a default's value.
    mistakes += [
        rule
        for rule in _rules(environment)
        if not any(rule.key == key or rule.key.startswith(f"{key}.") for key in broken)
    ]
    if mistakes:
        raise InvalidSettingsError(stack, mistakes)
    return environment


def _json_value(name: str, text: str) -> Any:
    """Parse a value as Pulumi hands it over; what is a string in the model stays the text that it is."""
    field = _field_at(name.split("."))[1]
    if field is None or field.annotation is str:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _validated(document: dict[str, Any]) -> tuple[Settings, list[Mistake]]:
    """Validate; where keys are wrong, name them and go on with their defaults, so that rules are checked too."""
    mistakes: list[Mistake] = []
    while True:
        try:
            return Settings.model_validate_json(json.dumps(document)), mistakes
        except ValidationError as error:
            details = error.errors(include_url=False)
            mistakes += [_explain(detail) for detail in details]
            # All places before the first goes: two wrong items of one list are one place, not its parent as well.
            for place in {_place(document, detail["loc"]) for detail in details}:
                _drop(document, place)


def _place(document: dict[str, Any], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the longest start of `location` that is the key of a mapping in `document`."""
    node: Any = document
    for depth, step in enumerate(location):
        if not isinstance(node, dict) or step not in node:
            return location[:depth]
        node = node[step]
    return location


def _drop(document: dict[str, Any], place: tuple[int | str, ...]) -> None:
    """Remove the value at `place`, where it is still there."""
    node: Any = document
    for step in place[:-1]:
        node = node.get(step, {})
    node.pop(place[-1], None)


def _explain(detail: ErrorDetails) -> Mistake:
    """Say one pydantic error in the words of the person who wrote the YAML."""
    location = detail["loc"]
    key = f"{PROJECT}:" + ".".join(str(step) for step in location)
    given = "nothing" if detail["type"] == "missing" else json.dumps(detail["input"], ensure_ascii=False)
    model, field = _field_at(location)
    if location[-1] in ("managedDatabaseCa", "managedRedisCa"):  # somebody may have put the key there, too
        return Mistake(key, "a value (not shown) that is no certificate", "certificates in PEM, and no key")
    if detail["type"] == "extra_forbidden":
        name = str(location[-1])
        if len(location) == 1 and (section := _field_at(name.split("."))[0]) not in {None, Settings}:
            # One name with dots whose end is misspelled: what is known is what its section has.
            model, name = section, name.rpartition(".")[2]
        known = sorted(to_camel(name) for name in model.model_fields) if model else []
        if model is Settings:
            known = sorted([*known, *CONFIGURED_SECRETS])
        return Mistake(key, "a key that does not exist", "one of " + ", ".join(known), _nearest(name, known))
    allowed = detail["msg"].removeprefix("Value error, ")
    example = ""
    if field is not None:
        allowed = f"{allowed}. {field.description}"
        if field.examples:
            example = f"{key}: {json.dumps(field.examples[0], ensure_ascii=False)}"
    return Mistake(key, given, allowed, example)


def _field_at(location: Sequence[int | str]) -> tuple[type[Model] | None, Any]:
    """Return the model that holds the last step of `location`, and the field there."""
    model: type[Model] | None = Settings
    field = None
    for step in location:
        if model is None:
            break
        name = next((n for n in model.model_fields if step in (n, to_camel(n))), None)
        if name is None:
            return model, None
        field = model.model_fields[name]
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((c for c in candidates if isinstance(c, type) and issubclass(c, Model)), None)
        if step is location[-1]:
            return model, field
        model = inner
    return model, field


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    match = get_close_matches(name, known, n=1)
    return f"did you mean {PROJECT}:…{match[0]}?" if match else ""


def key_of(*names: str) -> str:
    """Configuration key of a field path: `key_of("api", "bind_address")` is `samokoder:api.bindAddress`."""
    return f"{PROJECT}:" + ".".join(to_camel(name) for name in names)


def _rules(environment: Environment) -> Iterator[Mistake]:
    """Rules that need more than one key."""
    yield from _port_rules(environment)
    yield from _access_rules(environment)
    yield from _ingress_rules(environment)
    yield from _threshold_rules(environment)
    yield from _backup_rules(environment)
    yield from _memory_rules(environment)
    yield from connections.rules(environment)
    yield from ipv6.rules(environment)
    yield from _secret_use_rules(environment)
    yield from _workspace_rules(environment)
    yield from _rotation_rules(environment)
    if environment.settings.production:
        yield from _production_rules(environment)


def _port_rules(environment: Environment) -> Iterator[Mistake]:
    taken: dict[int, str] = {}  # port -> the key that has it
    for name, part in environment.running().items():
        if not isinstance(part, Published):
            continue
        fields = ["port"]
        if isinstance(part, Ingress) and part.domain:
            fields.append("https_port")
        for field in fields:
            port, key = getattr(part, field), key_of(name, field)
            if port in taken:
                allowed = f"a port that no other part has: {taken[port]} has it already"
                yield Mistake(key, str(port), allowed, f"{key}: {max(taken) + 1}")
            taken.setdefault(port, key)
        inside = bool(ipaddress.ip_address(part.bind_address).is_loopback)
        if not (inside or part.bind_reason.strip()):
            yield Mistake(
                key_of(name, "bind_address"),
                part.bind_address,
                "a loopback address, or bindReason beside it saying why this port is reachable from outside",
                f'{key_of(name, "bind_reason")}: "behind the provider\'s load balancer"',
            )


def _access_rules(environment: Environment) -> Iterator[Mistake]:
    """What has no password of its own stays on loopback."""
    for name in ("prometheus", "alertmanager"):
        part: Published = getattr(environment.settings, name)
        if not environment.basic_auth and not ipaddress.ip_address(part.bind_address).is_loopback:
            yield Mistake(
                key_of(name, "bind_address"),
                part.bind_address,
                f"a loopback address, or {key_of('basic_auth')}: always: without a password everybody who reaches "
                "the port may read all and silence every alert",
                f"{key_of('basic_auth')}: always",
            )


def _ingress_rules(environment: Environment) -> Iterator[Mistake]:
    """What labels for a Traefik need."""
    ingress = environment.settings.ingress
    if ingress.kind == "traefik" and ingress.traefik is None:
        key = key_of("ingress", "traefik", "network")
        yield Mistake(key, "nothing", "the Docker network on which your Traefik listens", f"{key}: traefik")
    if ingress.kind == "traefik" and ingress.traefik and not ingress.traefik.address:
        key = key_of("ingress", "traefik", "address")
        yield Mistake(
            key,
            "nothing",
            f"your Traefik's fixed address on {ingress.traefik.network} (`docker network inspect "
            f"{ingress.traefik.network}`): whoever else is on that network could claim any client's address",
            f"{key}: 172.30.0.2",
        )
    if ingress.kind == "traefik" and not ingress.domain:
        key = key_of("ingress", "domain")
        yield Mistake(
            key, "nothing", "the name by which your Traefik knows the service", f"{key}: samokoder.example.org"
        )


def _threshold_rules(environment: Environment) -> Iterator[Mistake]:
    """Of two thresholds for the same thing, the worse one comes later."""
    alerts = environment.settings.alerts
    for low, almost in (
        ("disk_low_percent", "disk_almost_full_percent"),
        ("tls_expires_days", "tls_expires_very_soon_days"),
    ):
        first, second = getattr(alerts, low), getattr(alerts, almost)
        if second >= first:
            yield Mistake(
                key_of("alerts", almost),
                str(second),
                f"less than {key_of('alerts', low)} ({first}): the critical alert comes after the warning",
                f"{key_of('alerts', almost)}: {first / 2}",
            )


def _backup_rules(environment: Environment) -> Iterator[Mistake]:
    """What is said to be too old is made more often than that."""
    if not environment.settings.backup.enabled:
        return
    pause = cron.parse(environment.settings.backup.drill_schedule).longest_pause_hours / 24
    if environment.settings.alerts.restore_drill_days <= pause:
        key = key_of("alerts", "restore_drill_days")
        yield Mistake(
            key,
            str(environment.settings.alerts.restore_drill_days),
            f"more than {pause:g}, the days between two restores by {key_of('backup', 'drill_schedule')}",
            f"{key}: {pause + 1:.1f}",
        )


_DRILL_BASE_MIB = 96
"""What the part `drill` needs beside a Redis that is loaded in it."""


def _memory_rules(environment: Environment) -> Iterator[Mistake]:
    limits = {name: part.memory_mib * len(environment.parts_of(name)) for name, part in environment.running().items()}
    total, host = sum(limits.values()), environment.settings.host.memory_mib
    if total > host:
        largest = ", ".join(f"{n} {m}" for n, m in sorted(limits.items(), key=lambda item: -item[1])[:4])
        yield Mistake(
            key_of("host", "memory_mib"),
            str(host),
            f"at least {total} MiB, the sum of the parts' memory limits (the largest: {largest}); "
            "name the host's real memory or lower the limits",
            f"{key_of('host', 'memory_mib')}: {max(total, 1024)}",
        )
    for name, part in environment.running().items():
        if part.cpus > environment.settings.host.cpus:
            yield Mistake(
                key_of(name, "cpus"),
                str(part.cpus),
                f"at most {environment.settings.host.cpus}, the host's cores ({key_of('host', 'cpus')})",
                f"{key_of(name, 'cpus')}: {float(environment.settings.host.cpus)}",
            )
    redis = environment.settings.redis
    if "redis" not in environment.absent and redis.maxmemory_mib > 0.8 * redis.memory_mib:
        yield Mistake(
            key_of("redis", "maxmemory_mib"),
            str(redis.maxmemory_mib),
            f"at most 80 % of {key_of('redis', 'memory_mib')} ({redis.memory_mib}): Redis needs the rest while it "
            "rewrites its append-only file, and the kernel would kill it",
            f"{key_of('redis', 'maxmemory_mib')}: {int(0.8 * redis.memory_mib)}",
        )
    drill, needed = environment.settings.drill.memory_mib, math.ceil(1.25 * redis.maxmemory_mib) + _DRILL_BASE_MIB
    if not {"redis", "drill"} & environment.absent and drill < needed:
        yield Mistake(
            key_of("drill", "memory_mib"),
            str(drill),
            f"at least {needed}, {_DRILL_BASE_MIB} and 1.25 times {key_of('redis', 'maxmemory_mib')} "
            f"({redis.maxmemory_mib}): each copy of Redis is loaded there, and one that is full would not be verified",
            f"{key_of('drill', 'memory_mib')}: {needed}",
        )
    prometheus = environment.settings.prometheus
    if seconds(prometheus.scrape_timeout) > seconds(prometheus.scrape_interval):
        yield Mistake(
            key_of("prometheus", "scrape_timeout"),
            prometheus.scrape_timeout,
            f"at most the scrape interval, {prometheus.scrape_interval}",
            f'{key_of("prometheus", "scrape_timeout")}: "{prometheus.scrape_interval}"',
        )


def _secret_use_rules(environment: Environment) -> Iterator[Mistake]:
    """A setting that needs a secret has it."""
    alertmanager = environment.settings.alertmanager
    needs = (
        ("telegramBotToken", alertmanager.telegram is not None, key_of("alertmanager", "telegram")),
        (
            "smtpPassword",
            bool(alertmanager.email and alertmanager.email.username),
            key_of("alertmanager", "email", "username"),
        ),
        ("s3AccessKeyId", environment.offsite is not None, key_of("backup", "offsite")),
        ("s3SecretAccessKey", environment.offsite is not None, key_of("backup", "offsite")),
    )
    for secret, needed, because in needs:
        if needed and secret not in environment.configured_secrets:
            yield Mistake(
                f"{PROJECT}:{secret}",
                "nothing",
                f"the secret that {because} needs",
                CONFIGURED_SECRETS[secret].how_to_set,
            )
    for name in ("api", "worker"):
        application: Application = getattr(environment.settings, name)
        if application.secrets_as == "environment" and application.secrets_in_environment:
            key = key_of(name, "secrets_in_environment")
            yield Mistake(
                key,
                ", ".join(application.secrets_in_environment),
                f"nothing beside {key_of(name, 'secrets_as')}: environment, which gives the image all of them unseen",
                f"pulumi config rm --path {key}",
            )
        for setting in application.secrets_in_environment:
            if setting not in environment.secret_settings:
                yield Mistake(
                    key_of(name, "secrets_in_environment"),
                    setting,
                    "secret settings that this environment has: " + ", ".join(sorted(environment.secret_settings)),
                    f"{key_of(name, 'secrets_in_environment')}: [SECRET_KEY]",
                )
        never_plain = _SECRET_SETTINGS | {SECRET_KEY_PREVIOUS, *LLM_KEYS.values()}
        for setting in sorted(application.environment.keys() & never_plain):
            yield Mistake(
                f"{key_of(name, 'environment')}.{setting}",
                "a value in plain text (not shown)",
                f"no secret: {setting} reaches the image as a file, or by {key_of(name, 'secrets_in_environment')}",
                f"pulumi config rm --path '{key_of(name, 'environment')}.{setting}'",
            )


def _workspace_rules(environment: Environment) -> Iterator[Mistake]:
    """The shared folder and those in memory do not hide one another."""
    shared = environment.settings.workspace.path
    for name in ("api", "worker"):
        paths = getattr(environment.settings, name).writable_paths
        every = [*paths, *([shared] if shared else [])]
        for path in paths:
            others = [other for other in every if other != path]
            both = [(f"{path}/", f"{other}/") for other in others]
            if every.count(path) > 1 or any(one.startswith(two) or two.startswith(one) for one, two in both):
                key = key_of(name, "writable_paths")
                yield Mistake(
                    key,
                    path,
                    f"a path that is named once, and none in another one ({key_of('workspace', 'path')} too)",
                    f"{key}: [/app/config]",
                )


def _rotation_rules(environment: Environment) -> Iterator[Mistake]:
    """A rotation goes from one generation of a generated secret to the next."""
    settings = environment.settings
    elsewhere = {
        "secret_key": (
            "secretKey" in environment.configured_secrets,
            "it is configured, and its owner makes a new one",
        ),
        "postgres_app": (environment.managed_database, "the managed database's password is not ours"),
        "redis_app": (environment.managed_redis, "the managed Redis' password is not ours"),
    }
    for name in Rotating.model_fields:
        phase, generation = getattr(settings.rotating, name), getattr(settings.rotation, name)
        key = key_of("rotating", name)
        given_elsewhere, why = elsewhere.get(name, (False, ""))
        if phase and given_elsewhere:
            yield Mistake(key, phase, f"nothing: {why}", f"pulumi config rm --path {key}")
        elif phase and generation == 1:
            generation_key = key_of("rotation", name)
            yield Mistake(
                generation_key, "1", f"2 or more: {key} is {phase!r}, so there is one before", f"{generation_key}: 2"
            )


def _production_rules(environment: Environment) -> Iterator[Mistake]:
    settings = environment.settings
    if settings.alertmanager.telegram is None:
        yield Mistake(
            key_of("alertmanager", "telegram", "chat_id"),
            "nothing",
            "production must be able to wake somebody: the chat that gets the alerts",
            "pulumi config set --path 'samokoder:alertmanager.telegram.chatId' -- -1001234567890",
        )
        if "telegramBotToken" not in environment.configured_secrets:
            yield Mistake(
                f"{PROJECT}:telegramBotToken",
                "nothing",
                "the token that BotFather gave the bot",
                CONFIGURED_SECRETS["telegramBotToken"].how_to_set,
            )
    if settings.backup.enabled and settings.backup.offsite is None:
        key = key_of("backup", "offsite")
        yield Mistake(
            key,
            "nothing",
            "production must survive the loss of this machine: the S3-compatible bucket elsewhere that gets a copy of "
            "every backup, encrypted before it leaves",
            "\n".join(
                (
                    f"pulumi config set --path {key}.endpoint https://s3.example.org",
                    f"pulumi config set --path {key}.bucket samokoder-backups",
                    CONFIGURED_SECRETS["s3AccessKeyId"].how_to_set,
                    CONFIGURED_SECRETS["s3SecretAccessKey"].how_to_set,
                )
            ),
        )
    for name in ("api", "worker"):
        if getattr(settings, name).image is None:
            yield Mistake(
                key_of(name, "image"),
                "nothing",
                "the team's own image with its digest: the reference application is for trials",
                f"{key_of(name, 'image')}: registry.example.org/samokoder/{name}:1.4.2@sha256:…",
            )
    images = {key_of("images", name): getattr(settings.images, name) for name in type(settings.images).model_fields}
    images |= {key_of(name, "image"): getattr(settings, name).image for name in ("api", "worker", "frontend")}
    for key, image in images.items():
        if image is not None and not parse_reference(image).is_pinned:
            yield Mistake(
                key,
                image,
                "production runs what was tested: a tag can move, so the digest is required",
                f"{key}: {image}@sha256:…",
            )
