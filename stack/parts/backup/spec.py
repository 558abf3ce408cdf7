"""The backup server: Barman, dumps and copies of Redis in one container, from an image of our own (`backup_image/`).

It gets all data over the network, as a replica does, without volumes of other parts and without the engine's socket, so
it works for a managed PostgreSQL too.
"""

from __future__ import annotations

import json
from typing import Any

from stack.common import managed
from stack.common.names import PROJECT, NetworkName
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.built_image import BuiltImage, base_of, built_image
from stack.spec.files import Files, Template, secret_file
from stack.spec.service import DataVolume, Scrape, ServiceSpec

PART = "backup"
PORT = 9188
DATA = DataVolume(name="backup", path="/backups")
SCRATCH = DataVolume(name="drill", path="/drill")
"""Volume of the part `drill`, in which the backup server reads the drill's results."""
OFFSITE_FILES = {
    "offsite_access_key_id": "s3AccessKeyId",
    "offsite_secret_access_key": "s3SecretAccessKey",
    "encryption_key": "backup_encryption_key",
}
"""Each file that the off-site copy is read with, and the secret that is in it."""
WORKSPACE = "workspace"
"""Name of the part that serves copies of the workspace."""
WORKSPACE_PORT = 9189
TMPFS = {
    "/tmp": "rw,noexec,nosuid,nodev,size=64m",  # noqa: S108 - a mount of its own
    # The base image declares a volume here; without a mount the engine would create an anonymous one.
    "/var/lib/postgresql/data": "ro,noexec,nosuid,nodev,size=4k",
}
"""The tmpfs mounts of every part that runs this image."""


def image(environment: Environment) -> BuiltImage:
    """Describe the backup server's image for this environment."""
    bases = [base_of(environment.image("backup"), title="backup-base")]
    if environment.settings.images.backup is None:
        # The programs of the same Redis, because an older Redis cannot read the files of a newer one. A configured base
        # image already contains them.
        bases.append(base_of(environment.image("redis"), title="backup-redis", argument="REDIS"))
    return built_image("backup-server", folder="backup_image", bases=bases)


def kinds(environment: Environment) -> dict[str, str]:
    """Return the kinds of backups that this environment has, each with its schedule."""
    settings = environment.settings.backup
    if not settings.enabled:
        return {}
    base = {"base": settings.base_schedule} if environment.physical_backups else {}
    copies = {} if environment.managed_redis else {"redis": settings.redis_schedule}
    files = {"workspace": settings.workspace_schedule} if environment.settings.workspace.path else {}
    return {**base, "dump": environment.dump_schedule, **copies, **files}


def spec(environment: Environment) -> ServiceSpec:
    """Describe the backup server."""
    outside = environment.managed_database or environment.offsite is not None
    return ServiceSpec(
        part=PART,
        component="samokoder:backup:Backup",
        image=image(environment).name,
        user="999:999",
        settings=environment.settings.backup,
        entrypoint=("samokoder-backup",),
        command=("run",),
        files=files(environment),
        data=DATA,
        reads=(SCRATCH,),
        tmpfs=TMPFS,
        health_command=health.python(PORT, "/health"),
        # `edge`, if the bucket or a managed database is outside.
        networks=(*((NetworkName.EDGE,) if outside else ()), NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        may_lack={
            r"backup_(restore_test|verify_last)_.*": "the first drill and the first verification come in their time",
            r"backup:size_bytes:.*": "it takes a sample at each full hour",
            **({} if environment.offsite else {r"backup_offsite_last_.*": "no bucket is configured"}),
        },
        after=(postgres_roles.PART, redis_users.PART, WORKSPACE),
    )


def files(environment: Environment) -> Files:
    """Return the configuration (what is backed up, when, and how long it is kept), and each password in a file."""
    password, authority = secret_file("postgres_backup"), environment.database_ca
    if environment.managed_database:
        password = Template(("managedDatabaseUrl",), lambda url: managed.database(url, ca=bool(authority)).password)
    offsite = {name: secret_file(secret) for name, secret in OFFSITE_FILES.items()}
    return {
        "backup.json": configuration(environment),
        "postgres_password": password,
        **({} if environment.managed_redis else {"redis_password": secret_file("redis_backup")}),
        **({"workspace_password": secret_file("workspace_backup")} if environment.settings.workspace.path else {}),
        **(offsite if environment.offsite else {}),
        **({managed.DATABASE_CA: authority} if authority else {}),
    }


def configuration(environment: Environment) -> str | Template:
    """Return the content of `backup.json`, which contains no password."""
    if environment.managed_database:
        ca = bool(environment.database_ca)
        return Template(("managedDatabaseUrl",), lambda url: backup_json(environment, _managed(url, ca=ca)))
    return backup_json(environment, _local(environment))


def backup_json(environment: Environment, database: dict[str, Any]) -> str:
    """Render the server's configuration. database: how PostgreSQL is reached."""
    settings, offsite = environment.settings.backup, environment.offsite
    document = {
        "postgres": {key: value for key, value in database.items() if key != "superuser"},
        "superuser": database["superuser"],
        "session_options": postgres.PINNED_OPTIONS,
        "managed": environment.managed_database,
        "physical": environment.physical_backups,
        "slot": postgres.BACKUP_ROLE,
        "redis": None
        if environment.managed_redis
        else {"host": redis.PART, "port": redis.PORT, "user": redis.BACKUP_USER, "tls": False},
        "workspace": {"host": WORKSPACE, "port": WORKSPACE_PORT} if environment.settings.workspace.path else None,
        "schedules": {
            "base": settings.base_schedule,
            "dump": environment.dump_schedule,
            "redis": settings.redis_schedule,
            "workspace": settings.workspace_schedule,
            "verify": settings.verify_schedule,
            "drill": settings.drill_schedule,
        },
        "recovery_window_days": settings.recovery_window_days,
        "dumps": settings.dumps.model_dump(),
        "redis_copies": settings.redis_copies,
        "workspace_copies": settings.workspace_copies,
        "max_slot_wal_mib": settings.max_slot_wal_mib,
        "offsite": offsite.model_dump() | {"prefix": offsite.prefix or f"{PROJECT}-{environment.name}"}
        if offsite
        else None,
    }
    return json.dumps(document, indent=2) + "\n"


def _local(environment: Environment) -> dict[str, Any]:
    settings = environment.settings.postgres
    return {
        "host": postgres.PART,
        "port": postgres.PORT,
        "database": settings.database,
        "user": postgres.BACKUP_ROLE,
        "sslmode": "disable",
        "superuser": settings.superuser,
    }


def _managed(url: str, *, ca: bool) -> dict[str, Any]:
    """Return the connection to a managed database: encrypted unless its URL disables that, as the user in the URL."""
    found = managed.database(url, ca=ca)
    return {
        "host": found.host,
        "port": found.port,
        "database": found.name,
        "user": found.user,
        "sslmode": found.sslmode,
        # Superuser of the drill's own server, into which a dump is restored: another role than the owner of its data.
        "superuser": "samokoder_superuser",
    }
