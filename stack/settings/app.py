"""Settings of the API, the worker, the migrations and the frontend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stack.settings.part import Health, PartSettings, Published
from stack.settings.types import ContainerPath, Cpus, Image, MemoryMib, Model, Port, SecretName

# Configured LLM key -> the name of its setting in the application's contract.
LLM_KEYS = {
    "openaiApiKey": "OPENAI_API_KEY",
    "anthropicApiKey": "ANTHROPIC_API_KEY",
    "openrouterApiKey": "OPENROUTER_API_KEY",
}
# The application's other secret settings.
SECRET_SETTINGS = frozenset({"SECRET_KEY", "APP_SECRET_KEY", "SAMOKODER_DATABASE_URL", "REDIS_PASSWORD"})
# Exists only during a rotation, and goes wherever SECRET_KEY goes; `secretsInEnvironment` cannot name it.
SECRET_KEY_PREVIOUS = "SECRET_KEY_PREVIOUS"  # noqa: S105 - a setting's name
# All secret settings that the platform gives in any environment.
GIVEN_SECRETS = SECRET_SETTINGS | {SECRET_KEY_PREVIOUS, *LLM_KEYS.values()}


class Application(Model):
    """Settings that the API and the worker share: the team's image and how it reads its secrets."""

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


class ApiSettings(Application, PartSettings):
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
        # The API's health checks fail on purpose until it has been up for stableSeconds.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=120),
        description="Health check timing.",
        examples=[{"waitTimeoutSeconds": 180}],
    )

    @model_validator(mode="after")
    def _wait_outlasts_stable_seconds(self) -> ApiSettings:
        least = self.stable_seconds + 2 * self.health.interval_seconds
        if self.health.wait_timeout_seconds <= least:
            raise ValueError(
                f"health.waitTimeoutSeconds is {self.health.wait_timeout_seconds}, but a replica is healthy after "
                f"stableSeconds + 2 x intervalSeconds = {least} seconds at the earliest; "
                f"write health.waitTimeoutSeconds: {least + 60}"
            )
        return self


class MigrationsSettings(PartSettings):
    """The migrations: they bring the database's schema to the API's version before that version serves."""

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


class WorkerSettings(Application, PartSettings):
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


class FrontendSettings(Published):
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
