"""The part postgres-roles: applies the declared roles at every start, then stays running.

Not an init script: those run only in an empty volume, so they would not change an adopted volume, a restored backup or
a rotated password. And not a job that ends: `up` waits until a running container is healthy and else fails, while the
next `up` accepts a container that ended with an error.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

from stack.common.names import NetworkName
from stack.parts.postgres import spec as postgres
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, Template, secret_file
from stack.spec.rotation import SECOND, slots
from stack.spec.service import NotScraped, ServiceSpec

PART = "postgres-roles"
ITERATIONS = 4096  # PostgreSQL's default
_NO_RIGHTS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_RETIRED = "NOLOGIN PASSWORD NULL;"
# Base backups without a superuser need these rights, which each database grants separately.
_BACKUP_FUNCTIONS = f"""\
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean), \
pg_catalog.pg_switch_wal(), pg_catalog.pg_create_restore_point(text) TO {postgres.BACKUP_ROLE};
"""
_CHANGE_LARGE_OBJECTS = (
    "pg_catalog.lo_unlink(oid), pg_catalog.lo_put(oid, bigint, bytea), pg_catalog.lowrite(integer, bytea), "
    "pg_catalog.lo_truncate(integer, integer), pg_catalog.lo_truncate64(integer, bigint)"
)
# The schema is made before the extension in it; a schema of the application's with the same name is renamed.
_EXTENSIONS = f"""\
SELECT pg_catalog.format('ALTER SCHEMA {postgres.EXTENSIONS} RENAME TO %I', '{postgres.EXTENSIONS}_' || oid)
    FROM pg_catalog.pg_namespace WHERE nspname = '{postgres.EXTENSIONS}'
    AND nspowner <> (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) \\gexec
CREATE SCHEMA IF NOT EXISTS {postgres.EXTENSIONS};
REVOKE ALL ON SCHEMA {postgres.EXTENSIONS} FROM PUBLIC, {postgres.APP_ROLE}, {postgres.SECOND_APP_ROLE};
GRANT USAGE ON SCHEMA {postgres.EXTENSIONS} TO PUBLIC;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA {postgres.EXTENSIONS};
ALTER EXTENSION pg_stat_statements SET SCHEMA {postgres.EXTENSIONS};
GRANT EXECUTE ON FUNCTION {postgres.EXTENSIONS}.pg_stat_statements_reset(oid, oid, bigint) TO {postgres.EXPORTER_ROLE};
"""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the part."""
    return ServiceSpec(
        part=PART,
        component="samokoder:app:PostgresRoles",
        image=environment.image("postgres"),
        user="999:999",
        settings=environment.settings.postgres_roles,
        entrypoint=("/etc/samokoder/keep-roles.sh",),
        environment={"SUPERUSER": environment.settings.postgres.superuser},
        files=files(environment),
        tmpfs={
            "/tmp": "rw,noexec,nosuid,nodev,size=1m",  # noqa: S108 - a mount of its own
            # The image declares a volume here; without a mount the engine would create an anonymous one.
            "/var/lib/postgresql/data": "ro,noexec,nosuid,nodev,size=4k",
        },
        health_command=health.APPLIED,
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="has nothing to measure: its health says whether the roles are applied"),
        stop_grace_seconds=5,
    )


def files(environment: Environment) -> Files:
    """Return the script, the SQL with password verifiers, and the superuser's password."""
    database = environment.settings.postgres.database
    accepted = sorted(slots(environment, "postgres_app").accepted)
    backup = ("postgres_backup",) if environment.settings.backup.enabled else ()

    def sql(salt: str, exporter: str, *passwords: str) -> str:
        verifiers = {
            name: scram_verifier(password, salt) for name, password in zip((*accepted, *backup), passwords, strict=True)
        }
        return roles_sql(
            database,
            app={role_of(slot): verifiers[slot] for slot in accepted},
            exporter=scram_verifier(exporter, salt),
            backup=verifiers.get("postgres_backup", ""),
            replication=environment.physical_backups,
        )

    return {
        "keep-roles.sh": KEEP_ROLES,
        "roles.sql": Template(("salt", "postgres_exporter", *accepted, *backup), sql),
        "superuser_password": secret_file("postgres_superuser"),
    }


def role_of(slot: str) -> str:
    """Return the role that logs in with the password of a slot of `postgres_app`."""
    return postgres.SECOND_APP_ROLE if slot.endswith(SECOND) else postgres.APP_ROLE


KEEP_ROLES = f"""\
#!/bin/sh
# Rendered by Samokoder Platform.
set -eu
umask 077
rm -f /tmp/applied
# libpq takes a password file only when it is private, and the mounted one is root's with mode 0444.
password=$(cat /etc/samokoder/superuser_password)
printf '{postgres.PART}:{postgres.PORT}:*:%s:%s\\n' "$SUPERUSER" "$password" > /tmp/pgpass
export PGPASSFILE=/tmp/pgpass
export PGCLIENTENCODING=UTF8 PGOPTIONS='{postgres.PINNED_OPTIONS}'
told=
until answer=$(pg_isready --host={postgres.PART}); do
    # Who finds the keeper unhealthy finds the reason in its log.
    if [ "$answer" != "$told" ]; then told=$answer && echo "waiting for PostgreSQL: $told"; fi
    sleep 0.5
done
psql --host={postgres.PART} --username="$SUPERUSER" --dbname=postgres --no-psqlrc --quiet \\
    --set=ON_ERROR_STOP=1 --file=/etc/samokoder/roles.sql
touch /tmp/applied
echo "roles applied"
exec sleep infinity
"""


def scram_verifier(password: str, salt: str) -> str:
    """Return the verifier that PostgreSQL stores for a password (RFC 5802, SHA-256), so that no SQL has the password.

    salt: any text; the same password and salt give the same verifier, so the SQL changes only with a rotation.
    """
    salt_bytes = hashlib.sha256(f"{salt}:{password}".encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt_bytes, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt_bytes, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{text[0]}${text[1]}:{text[2]}"


def roles_sql(database: str, *, app: Mapping[str, str], exporter: str, backup: str, replication: bool) -> str:
    """Render the SQL; it can be run any number of times.

    app: role -> SCRAM verifier, for the application's roles that may log in; the other role may not. exporter:
    verifier. backup: verifier, empty without backups. replication: whether there are base backups with the write-ahead
    log.
    """
    roles = (postgres.APP_ROLE, postgres.SECOND_APP_ROLE)
    logins = "\n".join(
        f"ALTER ROLE {role} {_NO_RIGHTS} " + (f"LOGIN PASSWORD '{app[role]}';" if role in app else _RETIRED)
        for role in roles
    )
    retired = ", ".join(f"'{role}'" for role in roles if role not in app)
    # Sessions of a role whose password is withdrawn are ended; during a rotation both roles may log in.
    end_sessions = f"""\
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
    WHERE usename IN ({retired}) \\g /dev/null
"""
    return f"""\
-- Rendered by Samokoder Platform.
SET client_min_messages = warning;
-- A failing statement must not put a verifier into the log.
SET log_min_error_statement = panic;
SELECT pg_catalog.format('CREATE ROLE %I', role)
    FROM pg_catalog.unnest(ARRAY['{"', '".join((*roles, postgres.EXPORTER_ROLE, postgres.BACKUP_ROLE))}']) AS role
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) \\gexec
-- Before it may log in: whatever the second role makes is the first one's, so that nobody sees which of them was used.
GRANT {roles[0]} TO {roles[1]};
ALTER ROLE {roles[1]} SET role = '{roles[0]}';
{logins}
ALTER ROLE {postgres.EXPORTER_ROLE} {_NO_RIGHTS} LOGIN CONNECTION LIMIT 5 PASSWORD '{exporter}';
GRANT pg_monitor TO {postgres.EXPORTER_ROLE};
-- For sessions that do not say it themselves, a person's too: a role's setting beats what the database's owner sets.
{_pinned("CURRENT_USER")}{_pinned(postgres.BACKUP_ROLE)}{_pinned(postgres.EXPORTER_ROLE, postgres.EXTENSIONS)}\
SELECT 'CREATE DATABASE "{database}"'
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = '{database}') \\gexec
ALTER DATABASE "{database}" OWNER TO {postgres.APP_ROLE};
REVOKE ALL ON DATABASE "{database}" FROM PUBLIC;
GRANT CONNECT ON DATABASE "{database}" TO {postgres.EXPORTER_ROLE};
\\connect "{database}"
SET client_min_messages = warning;
SET log_min_error_statement = panic;
{_EXTENSIONS}{_BACKUP_FUNCTIONS}\
-- In an adopted volume the tables are the old superuser's; a migration must be able to change them.
SELECT pg_catalog.format('ALTER %s %I.%I OWNER TO {postgres.APP_ROLE}',
              CASE relkind
                  WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE'
              END, nspname, relname)
    FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'public' AND relkind IN ('r', 'p', 'v', 'm', 'S')
      AND relowner <> '{postgres.APP_ROLE}'::pg_catalog.regrole
      -- A sequence that a column owns follows its table; what an extension made stays the extension's.
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                      WHERE objid = pg_class.oid AND deptype IN ('a', 'i', 'e')) \\gexec
-- Its types (a migration adds a value to an enumeration) and its functions as well.
SELECT pg_catalog.format('ALTER TYPE %s OWNER TO {postgres.APP_ROLE}', pg_type.oid::pg_catalog.regtype)
    FROM pg_catalog.pg_type LEFT JOIN pg_catalog.pg_class ON pg_class.oid = typrelid
    WHERE typnamespace = 'public'::pg_catalog.regnamespace
      AND typowner <> '{postgres.APP_ROLE}'::pg_catalog.regrole
      AND (typtype IN ('e', 'd', 'r') OR relkind = 'c')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = pg_type.oid AND deptype = 'e') \\gexec
SELECT pg_catalog.format('ALTER ROUTINE %s OWNER TO {postgres.APP_ROLE}', oid::pg_catalog.regprocedure)
    FROM pg_catalog.pg_proc
    WHERE pronamespace = 'public'::pg_catalog.regnamespace AND proowner <> '{postgres.APP_ROLE}'::pg_catalog.regrole
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = pg_proc.oid AND deptype IN ('i', 'e')) \\gexec
{end_sessions if retired else ""}{_backup_role(database, backup, replication=replication)}"""


def _pinned(role: str, *schemas: str) -> str:
    """Render a role's settings. schemas: added to search_path; the application must not be able to create in them."""
    values = {**postgres.PINNED, "search_path": ",".join(("pg_catalog", *schemas, "pg_temp"))}
    # Empty values are left out, because SQL has no empty list here: '' is a list with one empty name.
    quoted = {name: ", ".join(f"'{part}'" for part in value.split(",")) for name, value in values.items() if value}
    return "".join(f"ALTER ROLE {role} SET {name} = {value};\n" for name, value in quoted.items())


def _backup_role(database: str, verifier: str, *, replication: bool) -> str:
    """Render the backup server's role, its own database, and without replication the removal of its slot."""
    role = postgres.BACKUP_ROLE
    # BYPASSRLS, because rows that a policy hides would be missing in a dump; replication can read all rows anyway.
    rights = f"NOSUPERUSER NOCREATEDB NOCREATEROLE BYPASSRLS {'' if replication else 'NO'}REPLICATION"
    login = f"LOGIN CONNECTION LIMIT 10 PASSWORD '{verifier}'" if verifier else "NOLOGIN PASSWORD NULL"
    # A slot that no client uses keeps the write-ahead log until max_slot_wal_keep_size is reached.
    end_slot = f"""\
SELECT pg_catalog.pg_terminate_backend(active_pid, 5000) FROM pg_catalog.pg_replication_slots
    WHERE slot_name = '{role}' AND active \\g /dev/null
SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
    WHERE slot_name = '{role}' AND NOT active \\g /dev/null
"""
    return f"""\
ALTER ROLE {role} {rights} {login};
GRANT pg_read_all_data, pg_read_all_settings, pg_read_all_stats, pg_checkpoint TO {role};
GRANT CONNECT ON DATABASE "{database}" TO {role};
-- Before PostgreSQL 19 pg_read_all_data does not reach large objects, and a dump would end at the first one. This opens
-- them to the role for writing too, so nobody but the application may run what writes them.
ALTER ROLE {role} IN DATABASE "{database}" SET lo_compat_privileges = on;
REVOKE EXECUTE ON FUNCTION {_CHANGE_LARGE_OBJECTS} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {_CHANGE_LARGE_OBJECTS} TO {postgres.APP_ROLE};
{"" if replication else end_slot}\
SELECT 'CREATE DATABASE {role} OWNER {role}'
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = '{role}') \\gexec
REVOKE ALL ON DATABASE {role} FROM PUBLIC;
\\connect {role}
SET client_min_messages = warning;
{_BACKUP_FUNCTIONS}"""
