"""All settings of an environment, key by key as in `Pulumi.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stack.settings.alerts import Alerts
from stack.settings.app import Api, Frontend, Migrations, Worker
from stack.settings.data import Backup, Drill, Postgres, PostgresRoles, Redis, RedisUsers, Workspace
from stack.settings.host import Host, Networks, PacketFilter
from stack.settings.images import Images
from stack.settings.ingress import Ingress
from stack.settings.monitoring import (
    Alertmanager,
    BlackboxExporter,
    Cadvisor,
    Grafana,
    NodeExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from stack.settings.rotation import Rotating, Rotation
from stack.settings.types import CERTIFICATE, Certificate, Model, SecretName

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
    application_secrets: list[SecretName] = Field(
        default_factory=list,
        description="Names of further secrets of the team's own images. API, worker and migrations get them as they "
        "get SECRET_KEY: `secretsAs`. The value of each is a secret of the same name: `config set --secret "
        "samokoder:SMTP_PASSWORD`.",
        examples=[["SMTP_PASSWORD", "GITHUB_CLIENT_SECRET"]],
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

    @property
    def own_images(self) -> bool:
        """Whether API and worker are images of the team's own, so that the reference application does not run."""
        return bool(self.api.image and self.worker.image)
