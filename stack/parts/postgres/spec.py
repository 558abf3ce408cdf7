"""PostgreSQL 15: the application's database, only in the network `data` and not published."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec.files import Files, secret_file
from stack.spec.service import DataVolume, NotScraped, ServiceSpec

PART = "postgres"
PORT = 5432
APP_ROLE = "samokoder_app"
"""Role that owns everything in the database; the application logs in as it with odd generations of the password."""
SECOND_APP_ROLE = f"{APP_ROLE}_b"
"""Member of the owner's role, to which a session switches at login; used with even generations of the password."""
EXPORTER_ROLE = "samokoder_monitoring"
BACKUP_ROLE = "samokoder_backup"
"""Role that reads everything, through replication too. Its own database and its replication slot have the same name."""
EXTENSIONS = "samokoder_extensions"
"""Schema for what the superuser installs in the application's database; the application can create nothing there."""
PINNED = {
    "search_path": "pg_catalog,pg_temp",
    # Each of these settings could make a statement of the superuser fail or change its meaning.
    "role": "none",
    "local_preload_libraries": "",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_session_timeout": "0",
    "exit_on_error": "off",
    "standard_conforming_strings": "on",
}
"""Settings of every session that has more rights than the application.

The application owns its database and can set defaults for it (ALTER DATABASE ... SET). With a search_path of the
application's, an unqualified catalogue name could be a view of the application's, whose functions would run with the
rights of the session's role.
"""
PINNED_OPTIONS = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in PINNED.items())
"""The same for libpq (`PGOPTIONS`, `options=`): options of a client override settings of the database and the role."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the database server."""
    settings = environment.settings.postgres
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Postgres",
        image=environment.image("postgres"),
        user="999:999",
        settings=settings,
        command=(
            "postgres",
            "-c",
            "config_file=/etc/samokoder/postgresql.conf",
            "-c",
            "hba_file=/etc/samokoder/pg_hba.conf",
            "-c",
            "ident_file=/etc/samokoder/pg_ident.conf",
        ),
        environment={
            "POSTGRES_USER": settings.superuser,
            "POSTGRES_DB": settings.database,
            "POSTGRES_PASSWORD_FILE": "/etc/samokoder/superuser_password",
            # Checksums can be enabled only at initdb; with them PostgreSQL refuses a corrupted page.
            "POSTGRES_INITDB_ARGS": "--data-checksums --auth-host=scram-sha-256 --auth-local=peer",
        },
        files=files(environment),
        data=DataVolume(name="postgres", path="/var/lib/postgresql/data", adopt=settings.adopt_volume),
        tmpfs={
            "/tmp": "rw,noexec,nosuid,nodev,size=64m",  # noqa: S108 - a mount of its own
            "/var/run/postgresql": "rw,noexec,nosuid,nodev,size=1m,uid=999,gid=999,mode=0775",
        },
        # Over TCP, because a server that initialises its volume listens only on its socket and serves no clients yet.
        health_command=("pg_isready", "--quiet", "--host=127.0.0.1", f"--username={settings.superuser}"),
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="speaks no HTTP: postgres-exporter measures it"),
        # A process for each connection, in addition to the servers of other environments.
        processes=4096 + settings.max_connections,
        open_files=16384,
        # The workers of a query exchange rows in /dev/shm. It counts as memory, of which shared_buffers takes another
        # quarter: with this limit a query that needs more fails, before the kernel kills the server.
        shm_mib=settings.memory_mib // 4,
        # SIGINT is PostgreSQL's fast shutdown: it ends sessions and writes everything, so a start needs no recovery.
        stop_signal="SIGINT",
        stop_grace_seconds=120,
    )


def files(environment: Environment) -> Files:
    """Return the configuration, whose memory settings follow from the memory limit, and the superuser's password."""
    settings = environment.settings.postgres
    kept_for_backups = environment.settings.backup.max_slot_wal_mib
    return {
        "postgresql.conf": postgresql_conf(settings.memory_mib, settings.max_connections, kept_for_backups),
        "pg_hba.conf": pg_hba_conf(settings.database, settings.superuser),
        # The roles that the container's user may log in as over the socket: for a restore, and for a person at 3 a.m.
        "pg_ident.conf": pg_ident_conf(settings.superuser),
        "superuser_password": secret_file("postgres_superuser"),
    }


def postgresql_conf(memory_mib: int, max_connections: int, max_slot_wal_mib: int) -> str:
    """Render postgresql.conf for a server with `memory_mib` MiB. max_slot_wal_mib: kept for a backup server, in MiB."""
    return f"""\
# Rendered by Samokoder Platform; an edit in the container is lost.
listen_addresses = '*'
port = {PORT}
max_connections = {max_connections}
# The usual quarter and half of the memory that the container may have.
shared_buffers = {memory_mib // 4}MB
effective_cache_size = {memory_mib // 2}MB
maintenance_work_mem = {max(16, memory_mib // 16)}MB
work_mem = 4MB
shared_preload_libraries = 'pg_stat_statements'
password_encryption = scram-sha-256
wal_level = replica
max_wal_size = 1GB
# A backup server that is away must not fill the disk: beyond this its slot is given up, before which an alert fires.
max_slot_wal_keep_size = {max_slot_wal_mib}MB
# A client that went away without a word must not keep its locks for hours.
tcp_keepalives_idle = 60
idle_in_transaction_session_timeout = 10min
log_destination = stderr
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
log_lock_waits = on
log_checkpoints = on
log_min_duration_statement = 1s
# What users store is not logged: no parameters, no row that breaks a constraint, no statement that failed. The client
# is told all of it. A statement of more than a second is logged, with its literals.
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_error_verbosity = terse
log_min_error_statement = panic
timezone = 'UTC'
"""


def pg_hba_conf(database: str, superuser: str) -> str:
    """Render pg_hba.conf: who may connect, from the server's own networks only."""
    return f"""\
# Rendered by Samokoder Platform. TYPE DATABASE USER ADDRESS METHOD
local all {superuser} peer map=owner
# `samokoder psql` logs in as these.
local {database} {APP_ROLE},{SECOND_APP_ROLE},{EXPORTER_ROLE} peer map=owner
host {database} {APP_ROLE} samenet scram-sha-256
# Both lines are always there, so that a rotation does not restart the server. postgres-roles decides which role may
# log in.
host {database} {SECOND_APP_ROLE} samenet scram-sha-256
host {database} {EXPORTER_ROLE} samenet scram-sha-256
# The backup server: dumps, its own heartbeat, and the log as it is written. Without backups it may not log in.
host {database} {BACKUP_ROLE} samenet scram-sha-256
host {BACKUP_ROLE} {BACKUP_ROLE} samenet scram-sha-256
host replication {BACKUP_ROLE} samenet scram-sha-256
# The keeper of the roles; nothing else has this password.
host all {superuser} samenet scram-sha-256
"""


def pg_ident_conf(superuser: str) -> str:
    """Render pg_ident.conf: the roles that the container's user may log in as over the socket."""
    return "".join(f"owner postgres {role}\n" for role in (superuser, APP_ROLE, SECOND_APP_ROLE, EXPORTER_ROLE))
