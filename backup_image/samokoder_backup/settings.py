"""What the program is told, and where its things are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from samokoder_backup.process import BackupError, keep

CONFIG = Path("/etc/samokoder")
"""Settings and secrets, read-only."""
ROOT = Path("/backups")
"""The volume: all that is kept."""
RUN = Path("/tmp/samokoder-backup")  # noqa: S108 - the container's own tmpfs
"""Whatever may go with the container."""
BARMAN_HOME = ROOT / "barman"
DUMPS = ROOT / "dumps"
REDIS_COPIES = ROOT / "redis"
WORKSPACE_COPIES = ROOT / "workspace"
WORKSPACE = Path("/workspace")
"""The files that the API and the worker share, in the one container that hands out copies of them."""
PRESENT = Path("/present")
"""The data that PostgreSQL has now, mounted for a restore that is to lose nothing of it; else nothing is there."""
SCRATCH = ROOT / "scratch"
"""Where a base backup is unpacked to be verified; never kept."""
DRILL_REQUEST = ROOT / "drill.json"
"""Which drill is asked for. The backup server writes it; the part `drill` reads it and can write nothing there."""
DRILL = Path("/drill")
"""The volume of the part `drill`. The backup server reads it and can write nothing there."""
METRICS_PORT = 9188
WORKSPACE_PORT = 9189
DATABASE = "samokoder_backup"
"""The service's own database: the heartbeat is in it, and Barman's connections go to it."""

Kind = Literal["base", "dump", "redis", "workspace"]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1, le=10_000)]


def _cron(value: str) -> str:
    from apscheduler.triggers.cron import CronTrigger  # noqa: PLC0415 - slow, and a restore needs no schedule

    CronTrigger.from_crontab(value, timezone="UTC")
    return value


Cron = Annotated[str, AfterValidator(_cron)]


class Part(BaseModel):
    """Strict: a value of another type, or a name that is not known, is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Postgres(Part):
    """The server that is backed up, and the role that does it."""

    host: str = Field(min_length=1)
    port: Port
    database: str = Field(min_length=1, description="the application's, which is dumped")
    user: str = Field(min_length=1)
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Redis(Part):
    """The Redis that is copied, and the user that does it."""

    host: str = Field(min_length=1)
    port: Port
    user: str = Field(min_length=1)
    tls: bool


class Workspace(Part):
    """Where copies of the workspace are asked for."""

    host: str = Field(min_length=1)
    port: Port


class Schedules(Part):
    """When each thing is done: five fields of cron, in UTC."""

    base: Cron
    dump: Cron
    redis: Cron
    workspace: Cron
    verify: Cron
    drill: Cron


class Dumps(Part):
    """How many dumps are kept: the newest ones, and the newest of each day, week and month."""

    latest: Annotated[int, Field(ge=1)]
    daily: Annotated[int, Field(ge=1)]
    weekly: Annotated[int, Field(ge=0)]
    monthly: Annotated[int, Field(ge=0)]


class Offsite(Part):
    """The bucket that has the copy on other premises."""

    endpoint: str = Field(min_length=1)
    bucket: str = Field(min_length=1)
    prefix: str
    region: str
    sync_minutes: Count
    keep_days: Annotated[int, Field(ge=0, le=10_000, description="0: nothing is ever deleted there")]


class Settings(Part):
    """The file `backup.json`."""

    postgres: Postgres | None
    managed: bool = Field(default=False, description="whether PostgreSQL is on another machine, with its own clock")
    physical: bool
    slot: str = Field(pattern=r"^[a-z0-9_]{1,63}$")
    redis: Redis | None
    workspace: Workspace | None
    schedules: Schedules
    recovery_window_days: Count
    dumps: Dumps
    redis_copies: Count
    workspace_copies: Count
    max_slot_wal_mib: Annotated[int, Field(ge=64)]
    superuser: str = Field(min_length=1)
    session_options: str = Field(description="of each session that may do more than the application, as libpq has them")
    offsite: Offsite | None

    def kinds(self) -> tuple[Kind, ...]:
        """Return what is backed up here."""
        found: list[Kind] = []
        if self.postgres:
            found += ["base", "dump"] if self.physical else ["dump"]
        found += ["redis"] if self.redis else []
        return (*found, "workspace") if self.workspace else tuple(found)

    @property
    def streamed(self) -> Postgres | None:
        """The server whose WAL is streamed, where there is one."""
        return self.postgres if self.physical else None


def load() -> Settings:
    """Read the settings; raises BackupError that names every mistake."""
    path = CONFIG / "backup.json"
    try:
        return Settings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BackupError(f"{path} is wrong: {mistakes}") from None


def secret(name: str) -> str:
    """Read a secret file."""
    return (CONFIG / name).read_text(encoding="utf-8").rstrip("\r\n")


def passfile(postgres: Postgres) -> Path:
    """Write libpq's password file, which must be private, and return its path."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    path = RUN / "pgpass"
    escaped = secret("postgres_password").replace("\\", "\\\\").replace(":", "\\:")
    line = f"{postgres.host}:{postgres.port}:*:{postgres.user}:{escaped}\n"
    keep(path, line)
    return path


def conninfo(postgres: Postgres, database: str) -> str:
    """Return libpq's connection string, without the password."""
    words = {
        "host": postgres.host,
        "port": str(postgres.port),
        "user": postgres.user,
        "dbname": database,
        "sslmode": postgres.sslmode,
        "passfile": str(passfile(postgres)),
        "connect_timeout": "10",
        **({"sslrootcert": str(authority)} if (authority := CONFIG / "managed_database_ca.pem").exists() else {}),
    }
    return " ".join(
        "{}='{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'")) for key, value in words.items()
    )
