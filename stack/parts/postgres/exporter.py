"""PostgreSQL exporter: it logs in as a role that may only read statistics."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from stack.common import managed
from stack.common.names import NetworkName
from stack.parts.postgres import collations
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, Template, secret_file, yaml_text
from stack.spec.service import Publish, Scrape, ServiceSpec

PART = "postgres-exporter"
PORT = 9187
FILES = "/etc/samokoder"
STATEMENT = "pg_statement_named"
"""Metric: 1 for each statement whose duration is measured; a label has the beginning of its text."""

# pg_stat_statements replaces every value in these statements with `$1`, but not in ALTER ROLE ... PASSWORD and the
# like, so the query skips those. A quoted value may remain when its table is full; the text is cut before it, because
# where a value ends depends on its prefix, its tag and the server's settings.
QUOTED = r"('|\$([^0-9\s$][^\s$]*)?\$).*"
"""Pattern of what is cut from a text: everything from the first quote or dollar quote on; `$1` is no dollar quote."""
# Only the first 1000 characters are searched, because the text of a bulk INSERT may have hundreds of kB.
_STATEMENTS = rf"""
SELECT DISTINCT ON (queryid) queryid::text AS queryid, 1 AS named,
    pg_catalog.left(pg_catalog.regexp_replace(pg_catalog.regexp_replace(
        beginning, '{QUOTED.replace("'", "''")}', '?'), '\s+', ' ', 'g'), 80) AS statement
FROM (
    SELECT queryid, beginning, total_exec_time
    FROM (SELECT queryid, pg_catalog.left(query, 1000) AS beginning, total_exec_time FROM pg_stat_statements) AS begun
    WHERE beginning ~* '^\s*(select|insert|update|delete|with|merge)\M' ORDER BY total_exec_time DESC LIMIT 200
) AS busiest
ORDER BY queryid, total_exec_time DESC"""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the exporter."""
    settings = environment.settings.postgres_exporter
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:PostgresExporter",
        image=environment.image("postgres_exporter"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/postgres_exporter",),
        command=(
            f"--web.listen-address=:{PORT}",
            # With the timeout, a server that accepts the connection but never answers is down, not a failed scrape.
            f"--collection-timeout={environment.settings.prometheus.answer_seconds}s",
            "--collector.stat_statements",
            "--collector.long_running_transactions",
            # Off by default, but PostgresXidWraparoundRisk and PostgresRestarted need them.
            "--collector.database_wraparound",
            "--collector.postmaster",
            # Deprecated, but the only way in 0.20: PostgresCollationOutdated needs a metric that no collector has.
            *(() if environment.managed_database else (f"--extend.query-path={FILES}/queries.yml",)),
        ),
        environment={
            f"DATA_SOURCE_{name}_FILE": f"{FILES}/{file}"
            for name, file in (("URI", "uri"), ("USER", "user"), ("PASS", "password"))
        },
        files=files(environment),
        publish=Publish.of(settings, PORT),
        # Not /metrics, because a health check must not query the database.
        health_command=health.wget(PORT, "/"),
        networks=(
            # `edge`, because a managed database is outside.
            NetworkName.EDGE if environment.managed_database else NetworkName.PUBLISHED,
            NetworkName.DATA,
            NetworkName.MONITORING,
        ),
        scrape=Scrape(port=PORT),
        after=(postgres_roles.PART,),
    )


def files(environment: Environment) -> Files:
    """Return address, user and password in separate files, so that no URL has the password, and further queries."""
    connect = environment.settings.prometheus.connect_seconds
    if environment.managed_database:
        ca = bool(environment.database_ca)
        return {
            "uri": Template(("managedDatabaseUrl",), lambda url: managed_uri(url, connect, ca=ca)),
            "user": Template(("managedDatabaseUrl",), lambda url: managed.database(url, ca=ca).user),
            "password": Template(("managedDatabaseUrl",), lambda url: managed.database(url, ca=ca).password),
        } | ({managed.DATABASE_CA: environment.database_ca} if ca else {})
    return {
        "uri": f"{postgres.PART}:{postgres.PORT}/{environment.settings.postgres.database}?sslmode=disable"
        f"&connect_timeout={connect}",
        "user": postgres.EXPORTER_ROLE,
        "password": secret_file("postgres_exporter"),
        "queries.yml": yaml_text({**collations.exporter_query(), **_statements()}),
    }


def _statements() -> dict[str, Any]:
    labels = {"queryid": "Its number in pg_stat_statements.", "statement": "The beginning of its text, without values."}
    metrics = [
        *({name: {"usage": "LABEL", "description": description}} for name, description in labels.items()),
        {"named": {"usage": "GAUGE", "description": "1."}},
    ]
    return {"pg_statement": {"query": _STATEMENTS.strip(), "metrics": metrics}}


def managed_uri(url: str, connect_seconds: int, *, ca: bool) -> str:
    """Return host, database and options of a managed database; encrypted unless its URL disables that."""
    found = managed.database(url, ca=ca)
    root = f"&sslrootcert={FILES}/{managed.DATABASE_CA}" if found.verified else ""
    address, name = f"{managed.in_url(found.host)}:{found.port}", quote(found.name, safe="")
    return f"{address}/{name}?sslmode={found.sslmode}{root}&connect_timeout={connect_seconds}"
