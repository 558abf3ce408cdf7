"""All settings of an environment, key by key as in `Pulumi.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stack.settings.alerts import Alerts
from stack.settings.app import ApiSettings, FrontendSettings, MigrationsSettings, WorkerSettings
from stack.settings.data import (
    BackupSettings,
    DrillSettings,
    PostgresRolesSettings,
    PostgresSettings,
    RedisSettings,
    RedisUsersSettings,
    WorkspaceSettings,
)
from stack.settings.host import Host, NetworkSettings, PacketFilterSettings
from stack.settings.images import Images
from stack.settings.ingress import IngressSettings
from stack.settings.monitoring import (
    AlertmanagerSettings,
    BlackboxExporterSettings,
    CadvisorSettings,
    GrafanaSettings,
    LogCollectorSettings,
    LogsSettings,
    NodeExporterSettings,
    PostgresExporterSettings,
    PrometheusSettings,
    RedisExporterSettings,
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
        description="Where Prometheus, AlertManager and VictoriaLogs ask for a password (user samokoder): in "
        "`production` alone, `always` or `never`. Without it they must stay on loopback.",
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
    packet_filter: PacketFilterSettings = Field(
        default_factory=PacketFilterSettings,
        description="The host's packet filter around the stack.",
        examples=[{"closed": ["169.254.0.0/16", "10.0.0.0/8"]}],
    )
    network: NetworkSettings = Field(
        default_factory=NetworkSettings,
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
    ingress: IngressSettings = Field(
        default_factory=IngressSettings,
        description="The public entry.",
        examples=[{"domain": "samokoder.example.org", "email": "admin@example.org"}],
    )
    migrations: MigrationsSettings = Field(
        default_factory=MigrationsSettings,
        description="Keeper of the database's schema.",
        examples=[{"command": ["alembic", "upgrade", "head"]}],
    )
    api: ApiSettings = Field(default_factory=ApiSettings, description="API.", examples=[{"replicas": 2}])
    worker: WorkerSettings = Field(default_factory=WorkerSettings, description="Worker.", examples=[{"memoryMib": 512}])
    frontend: FrontendSettings = Field(
        default_factory=FrontendSettings, description="Frontend.", examples=[{"port": 3001}]
    )
    postgres: PostgresSettings = Field(
        default_factory=PostgresSettings, description="PostgreSQL.", examples=[{"memoryMib": 1024}]
    )
    postgres_roles: PostgresRolesSettings = Field(
        default_factory=PostgresRolesSettings,
        description="Keeper of the database roles.",
        examples=[{"memoryMib": 64}],
    )
    redis: RedisSettings = Field(default_factory=RedisSettings, description="Redis.", examples=[{"maxmemoryMib": 384}])
    redis_users: RedisUsersSettings = Field(
        default_factory=RedisUsersSettings, description="Keeper of Redis' users.", examples=[{"memoryMib": 64}]
    )
    workspace: WorkspaceSettings = Field(
        default_factory=WorkspaceSettings,
        description="Files that the API and the worker share.",
        examples=[{"path": "/app/workspace"}],
    )
    backup: BackupSettings = Field(
        default_factory=BackupSettings,
        description="The backup server.",
        examples=[{"offsite": {"endpoint": "https://s3.example.org", "bucket": "backups"}}],
    )
    drill: DrillSettings = Field(
        default_factory=DrillSettings,
        description="Where a backup is restored for a trial.",
        examples=[{"memoryMib": 768}],
    )
    prometheus: PrometheusSettings = Field(
        default_factory=PrometheusSettings, description="Prometheus.", examples=[{"retentionTime": "30d"}]
    )
    alertmanager: AlertmanagerSettings = Field(
        default_factory=AlertmanagerSettings,
        description="AlertManager.",
        examples=[{"telegram": {"chatId": -100}}],
    )
    grafana: GrafanaSettings = Field(default_factory=GrafanaSettings, description="Grafana.", examples=[{"port": 3000}])
    postgres_exporter: PostgresExporterSettings = Field(
        default_factory=PostgresExporterSettings,
        description="PostgreSQL exporter.",
        examples=[{"port": 9187}],
    )
    redis_exporter: RedisExporterSettings = Field(
        default_factory=RedisExporterSettings, description="Redis exporter.", examples=[{"port": 9121}]
    )
    node_exporter: NodeExporterSettings = Field(
        default_factory=NodeExporterSettings, description="node_exporter.", examples=[{"port": 9100}]
    )
    cadvisor: CadvisorSettings = Field(
        default_factory=CadvisorSettings, description="cAdvisor.", examples=[{"port": 8080}]
    )
    blackbox_exporter: BlackboxExporterSettings = Field(
        default_factory=BlackboxExporterSettings, description="Blackbox exporter.", examples=[{"port": 9115}]
    )
    logs: LogsSettings = Field(
        default_factory=LogsSettings, description="VictoriaLogs.", examples=[{"retentionTime": "30d"}]
    )
    log_collector: LogCollectorSettings = Field(
        default_factory=LogCollectorSettings, description="What collects the logs.", examples=[{"bufferMib": 1024}]
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
