"""Settings of PostgreSQL, Redis, the workspace and the backups."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stack.settings.part import Health, PartSettings
from stack.settings.types import ContainerPath, Cpus, CronSchedule, MemoryMib, Model

LEAST_MAXMEMORY_MIB = 16


class PostgresSettings(PartSettings):
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
    # Not MemoryMib: with that type, pydantic would use its lower bound and ignore the one given here.
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
        # After a crash PostgreSQL replays its write-ahead log before it accepts connections, which takes minutes.
        default_factory=lambda: Health(start_period_seconds=60, wait_timeout_seconds=300),
        description="Health check timing; allow for crash recovery.",
        examples=[{"waitTimeoutSeconds": 600}],
    )


class PostgresRolesSettings(PartSettings):
    """The part postgres-roles: applies the declared database roles, also after a restore or a rotation."""


class RedisUsersSettings(PartSettings):
    """The part redis-users: applies the declared Redis users, also after a rotation or the loss of the users' file."""


class RedisSettings(PartSettings):
    """The local Redis 7. With the secret `managedRedisUrl` there is none, and only its exporter runs."""

    maxmemory_mib: int = Field(
        192,
        ge=LEAST_MAXMEMORY_MIB,
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


class WorkspaceSettings(PartSettings):
    """Files that the API and the worker share: one data volume, and a part that serves copies of it to the backups."""

    path: ContainerPath | None = Field(
        None,
        description="Where the API and the worker have the folder that they share, writable and kept. Empty: none.",
        examples=["/app/workspace"],
    )


class Dumps(Model):
    """How many logical dumps are kept."""

    latest: int = Field(4, ge=1, le=1000, description="So many newest dumps, whenever they were made.", examples=[24])
    daily: int = Field(7, ge=1, le=366, description="Newest dumps of so many days.", examples=[14])
    weekly: int = Field(4, ge=0, le=520, description="Newest dumps of so many weeks.", examples=[8])
    monthly: int = Field(6, ge=0, le=120, description="Newest dumps of so many months.", examples=[12])


class Offsite(Model):
    """A bucket off-site that gets a copy of the backups. Its keys are the secrets `s3AccessKeyId`, `s3SecretAccessKey`.

    The backup server encrypts the copy before it sends it, with `backupEncryptionKey` if that is set, else with the
    generated secret `backup-encryption-key`.
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
        "right to delete are enough; one each 5 minutes is 105,000 a year. The bucket itself must never remove objects "
        "by their age: each copy needs objects of the first day. Only the prefix `locks/`, and old versions of "
        "objects, may have such a rule.",
        examples=[90],
    )


class BackupSettings(PartSettings):
    """The backup server: Barman with a continuously streamed write-ahead log, dumps, copies of Redis."""

    enabled: bool = Field(True, description="Make backups.", examples=[False])
    memory_mib: MemoryMib = Field(512, description="Memory limit in MiB.", examples=[1024])
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[0.5])
    base_schedule: CronSchedule = Field(
        "15 2 * * *",
        description="When a base backup is made: minute hour day month weekday, in UTC.",
        examples=["15 2 * * *"],
    )
    dump_schedule: CronSchedule | None = Field(
        None,
        description="When a logical dump is made, in UTC. Empty: `15 3 * * *`, and `15 */6 * * *` where there are no "
        "base backups, as of a managed database: all that was written since the last dump can be lost there.",
        examples=["15 3 * * *"],
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


class DrillSettings(PartSettings):
    """The part in which the newest backup is restored as a test, isolated from the backups."""

    memory_mib: MemoryMib = Field(
        384,
        description="Memory limit in MiB. A Redis with all its keys is loaded in it: at least 96 and 1.25 times "
        "redis.maxmemoryMib.",
        examples=[768],
    )
    cpus: Cpus = Field(1.0, description="CPU limit in cores.", examples=[0.5])
