"""PostgreSQL 15: the application's database, in the network `data` alone and published nowhere."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec.files import Files, secret_file
from stack.spec.service import DataVolume, NotScraped, ServiceSpec

PART = "postgres"
PORT = 5432
APP_ROLE = "samokoder_app"
"""Owner of all that is in the database; odd generations of the password log in as it."""
SECOND_APP_ROLE = f"{APP_ROLE}_b"
"""Member of the owner, which it becomes at login: even generations log in as it."""
EXPORTER_ROLE = "samokoder_monitoring"
BACKUP_ROLE = "samokoder_backup"
"""Reads everything, by replication too. Its own database has its name, and its replication slot."""
EXTENSIONS = "samokoder_extensions"
"""Schema of what the superuser installs in the application's database; the application can make nothing in it."""
PINNED = {
    "search_path": "pg_catalog,pg_temp",
    # Each of these can make a statement of the superuser fail, or mean something else.
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
"""Settings of every session that may do more than the application.

The application owns its database and may choose these for it (ALTER DATABASE ... SET). With a search_path of its own,
a catalogue name without its schema is a view of the application's, which runs functions as whoever asks.
"""
PINNED_OPTIONS = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in PINNED.items())
"""The same for libpq (`PGOPTIONS`, `options=`): what a client asks for beats the settings of database and role."""


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
            # Checksums are chosen once, at initdb: a corrupted page is then found and not served.
            "POSTGRES_INITDB_ARGS": "--data-checksums --auth-host=scram-sha-256 --auth-local=peer",
        },
        files=files(environment),
        data=DataVolume(name="postgres", path="/var/lib/postgresql/data", adopt=settings.adopt_volume),
        tmpfs={
            "/tmp": "rw,noexec,nosuid,nodev,size=64m",  # noqa: S108 - a mount of its own
            "/var/run/postgresql": "rw,noexec,nosuid,nodev,size=1m,uid=999,gid=999,mode=0775",
        },
        # Over TCP: while it initialises, the server listens on its socket alone and is not ready for anybody.
        health_command=("pg_isready", "--quiet", "--host=127.0.0.1", f"--username={settings.superuser}"),
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="speaks no HTTP: postgres-exporter measures it"),
        # One for each connection, beside the servers of other environments.
        processes=4096 + settings.max_connections,
        open_files=16384,
        # The workers of one query hand rows to each other there. It counts as memory, of which shared_buffers is
        # another quarter: a query that needs more ends in an error before the kernel ends the server.
        shm_mib=settings.memory_mib // 4,
        # SIGINT is PostgreSQL's fast shutdown: sessions end, everything is written, no recovery at the next start.
        stop_signal="SIGINT",
        stop_grace_seconds=120,
    )


def files(environment: Environment) -> Files:
    """Return the configuration; settings that need the host's size follow from the memory limit."""
    settings = environment.settings.postgres
    kept_for_backups = environment.settings.backup.max_slot_wal_mib
    return {
        "postgresql.conf": postgresql_conf(settings.memory_mib, settings.max_connections, kept_for_backups),
        "pg_hba.conf": pg_hba_conf(settings.database, settings.superuser),
        # Who the container's own user may be over the socket: for a restore, and for a person at 3 a.m.
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
    """Render pg_ident.conf: which roles the container's own user may be over the socket."""
    return "".join(f"owner postgres {role}\n" for role in (superuser, APP_ROLE, SECOND_APP_ROLE, EXPORTER_ROLE))
