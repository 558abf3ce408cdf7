"""Nobody who has more rights than the application runs what the application has planted in its database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stack.catalogue import specs
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.postgres import spec as postgres
from stack.settings.environment import Environment
from tests.planted import MARK, PLANTED, SETTINGS
from tests.recording import secret_value
from tests.render.conftest import Laboratory, output

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.live

RIGHTS = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper"
EXPORTER_PAGE = f"http://127.0.0.1:{postgres_exporter.PORT}/metrics"


@pytest.fixture(scope="module")
def server(laboratory: Laboratory, environment: Environment) -> Iterator[Container]:
    """PostgreSQL whose application was taken over."""
    described = {spec.part: spec for spec in specs(environment)}
    container = laboratory.healthy_part(described["postgres"])
    laboratory.healthy_part(described["postgres-roles"])
    for text in (PLANTED, SETTINGS):
        code, said = ask(container, postgres.APP_ROLE, text)
        assert code == 0, said
    yield container
    code, said = superuser(container, "TABLE public.canary")
    assert (code, said) == (0, ""), "the canary ran as this role"


def ask(container: Container, role: str, sql: str) -> tuple[int, str]:
    """Ask over the network, as a part does, with a password."""
    secret = {
        postgres.APP_ROLE: "postgres_app",
        postgres.EXPORTER_ROLE: "postgres_exporter",
        postgres.BACKUP_ROLE: "postgres_backup",
    }[role]
    url = f"postgresql://{role}:{secret_value(secret)}@postgres/samokoder"
    code, said = output(container, "psql", url, "-XAtq", "--set=ON_ERROR_STOP=1", "-c", sql)
    return code, said.strip()


def superuser(container: Container, sql: str) -> tuple[int, str]:
    """Ask as a person does who opens a psql over the socket and says nothing of a search_path."""
    code, said = output(container, "psql", "--username=postgres", "--dbname=samokoder", "-XAtq", "-c", sql)
    return code, said.strip()


def assert_nothing_ran(server: Container) -> None:
    ran = [line for line in server.logs().decode().splitlines() if MARK in line and "unpinned" not in line]
    assert not ran, "code of the application's ran with more rights than the application has"
    assert superuser(server, RIGHTS) == (0, "postgres"), "the application's role has become superuser"


def test_the_canary_is_heard_where_nothing_is_pinned(server: Container) -> None:
    unpinned = (
        "CREATE ROLE unpinned SUPERUSER; SET LOCAL SESSION AUTHORIZATION unpinned; SET LOCAL search_path = public"
    )
    code, said = superuser(server, f"BEGIN; {unpinned}, pg_catalog; SELECT count(*) FROM pg_namespace; ROLLBACK")
    assert code == 0, said
    assert f"{MARK} unpinned" in server.logs().decode(), "what is planted does nothing, so no test here can fail"


def test_the_keeper_of_the_roles_runs_nothing_of_the_applications(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    described = {spec.part: spec for spec in specs(environment)}
    keeper = laboratory.healthy_part(described["postgres-roles"])
    assert "ERROR" not in keeper.logs().decode()
    assert_nothing_ran(server)


def test_a_person_at_a_superusers_psql_runs_nothing_of_the_applications(server: Container) -> None:
    for asked in (
        "SELECT nspname FROM pg_namespace WHERE nspname ~ '^pub' AND oid = 'public'::regnamespace",
        "SELECT relname, n_live_tup FROM pg_stat_user_tables ORDER BY n_live_tup DESC, relname LIMIT 3",
        "SELECT pid, now() - query_start, left(query, 9) FROM pg_stat_activity WHERE state = 'active'",
        "SELECT pg_size_pretty(pg_database_size('samokoder'))",
        "\\d",
        "\\du",
        "ANALYZE public.planted",
        "VACUUM (ANALYZE) public.planted",
        "REINDEX TABLE public.planted",
    ):
        code, said = superuser(server, asked)
        assert code == 0, f"{asked}: {said}"
    assert_nothing_ran(server)


def test_the_exporter_runs_nothing_of_the_applications_and_still_has_its_figures(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    described = {spec.part: spec for spec in specs(environment)}
    exporter = laboratory.healthy_part(described["postgres-exporter"])
    code, page = output(exporter, "wget", "-qO-", EXPORTER_PAGE)
    assert code == 0, page
    for name in ("pg_stat_statements_calls_total{", "pg_stat_user_tables_n_live_tup{", "pg_up 1"):
        assert name in page, f"{name} is missing: {exporter.logs().decode()}"
    assert_nothing_ran(server)


def test_the_exporter_names_the_statements_and_no_value_of_theirs(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    described = {spec.part: spec for spec in specs(environment)}
    value = "a-customers-secret"
    for said in (f"SELECT 42, '{value}'::text", f"WITH x AS (SELECT '{value}'::text) SELECT  *\n FROM x"):
        assert ask(server, postgres.APP_ROLE, said)[0] == 0
    # What a person types who sets a password: nothing puts a `$1` in its place.
    code, told = superuser(server, f"CREATE ROLE somebody LOGIN PASSWORD '{value}'")
    assert code == 0, told
    exporter = laboratory.healthy_part(described["postgres-exporter"])
    code, page = output(exporter, "wget", "-qO-", EXPORTER_PAGE)
    assert code == 0, page
    named = [line for line in page.splitlines() if line.startswith(f"{postgres_exporter.STATEMENT}{{")]
    assert any('statement="SELECT $1, $2::text"' in line for line in named), (named, exporter.logs().decode())
    assert any('statement="WITH x AS (SELECT $1::text) SELECT * FROM x"' in line for line in named), named
    assert value not in page, "a value of somebody is kept by Prometheus for weeks"
    assert "PASSWORD" not in page.upper().replace("PASSWORD_ENCRYPTION", ""), "the text that sets a password"
    assert superuser(
        server, f"SELECT count(*) > 0 FROM samokoder_extensions.pg_stat_statements WHERE query ~ '{value}'"
    ) == (
        0,
        "t",
    ), "PostgreSQL keeps no such text any more: this test proves nothing"
    superuser(server, "DROP ROLE somebody")
    assert_nothing_ran(server)


def test_what_the_backup_server_asks_runs_nothing_of_the_applications(server: Container) -> None:
    roles = "SELECT array_agg(rolname::text ORDER BY 1) FROM pg_roles WHERE rolname !~ '^pg_'"
    code, said = ask(server, postgres.BACKUP_ROLE, roles)
    assert (code, postgres.APP_ROLE in said) == (0, True), said
    url = f"postgresql://{postgres.BACKUP_ROLE}:{secret_value('postgres_backup')}@postgres/samokoder"
    code, said = output(
        server, "sh", "-c", 'pg_dump --format=custom --create "$0" > /tmp/dump && wc -c < /tmp/dump', url
    )
    assert code == 0, said
    assert_nothing_ran(server)


def test_a_schema_that_the_application_made_in_the_place_of_the_superusers_is_put_out_of_the_way(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    schema = postgres.EXTENSIONS
    assert superuser(server, f"DROP SCHEMA {schema} CASCADE")[0] == 0
    made = f"CREATE SCHEMA {schema}; CREATE VIEW {schema}.pg_stat_statements AS SELECT public.canary(); "
    assert ask(server, postgres.APP_ROLE, f"{made} GRANT USAGE ON SCHEMA {schema} TO PUBLIC")[0] == 0
    described = {spec.part: spec for spec in specs(environment)}
    laboratory.healthy_part(described["postgres-roles"])
    owner = f"SELECT nspowner::regrole FROM pg_namespace WHERE nspname = '{schema}'"
    assert superuser(server, owner) == (0, "postgres")
    assert ask(server, postgres.EXPORTER_ROLE, "SELECT count(*) > 0 FROM pg_stat_statements") == (0, "t")
    code, said = ask(server, postgres.APP_ROLE, f"CREATE VIEW {schema}.pg_database AS SELECT 1")
    assert (code, "permission denied" in said) == (1, True), said
    assert_nothing_ran(server)
