from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from operations.rotation import servers
from stack.catalogue import specs
from stack.parts.postgres import spec as postgres
from stack.settings.environment import Environment
from stack.settings.rotation import Phase, Rotating, Rotation
from stack.spec.service import ServiceSpec
from tests.planted import SUPERUSER_PSQL
from tests.recording import secret_value
from tests.render.conftest import Laboratory, contents, output, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.live

APP = "samokoder_app"
EXPORTER = "samokoder_monitoring"
APP_SECRET = secret_value("postgres_app")
SECOND_APP = "samokoder_app_b"
SECOND_SECRET = secret_value("postgres_app_b")
EXPORTER_SECRET = secret_value("postgres_exporter")
BACKUP = "samokoder_backup"
BACKUP_SECRET = secret_value("postgres_backup")
SUPERUSER_SECRET = secret_value("postgres_superuser")


def described(environment: Environment) -> dict[str, ServiceSpec]:
    return {spec.part: spec for spec in specs(environment)}


@pytest.fixture(scope="module")
def server(laboratory: Laboratory, environment: Environment) -> Iterator[Container]:
    """PostgreSQL with the rendered files and an empty volume."""
    container = laboratory.healthy_part(described(environment)["postgres"])
    yield container
    log = container.logs().decode()
    for secret in (APP_SECRET, EXPORTER_SECRET, BACKUP_SECRET, SUPERUSER_SECRET):
        assert secret not in log, "a password is in the server's log"
    assert "SCRAM-SHA-256$" not in log, "a verifier is in the server's log: a password can be guessed against it"


def keep_roles(laboratory: Laboratory, environment: Environment) -> Container:
    """Run the keeper until it is healthy."""
    return laboratory.healthy_part(described(environment)["postgres-roles"])


def at(environment: Environment, generation: int, phase: Phase) -> Environment:
    """Return the environment in a phase of a rotation."""
    changed = {"rotation": Rotation(postgres_app=generation), "rotating": Rotating(postgres_app=phase)}
    return environment.model_copy(update={"settings": environment.settings.model_copy(update=changed)})


def ask(container: Container, sql: str, *, database: str = "samokoder") -> str:
    """Ask as the superuser over the socket, as a person at 3 a.m. does."""
    code, said = output(container, *SUPERUSER_PSQL, f"--dbname={database}", "-XAtqc", sql)
    assert code == 0, said
    return said.strip()


def ask_as(container: Container, user: str, password: str, sql: str, database: str = "samokoder") -> tuple[int, str]:
    """Ask over the network, as a part does, with a password."""
    url = f"postgresql://{user}:{password}@postgres/{database}"
    code, said = output(container, "psql", url, "-XAtc", sql)
    return code, said.strip()


def test_postgresql_reads_every_line_of_its_files(server: Container, environment: Environment) -> None:
    assert ask(server, "SELECT * FROM pg_file_settings WHERE error IS NOT NULL OR NOT applied") == ""
    assert ask(server, "SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL") == ""
    assert ask(server, "SELECT * FROM pg_ident_file_mappings WHERE error IS NOT NULL") == ""
    rules = int(ask(server, "SELECT count(*) FROM pg_hba_file_rules"))
    written = postgres.pg_hba_conf("samokoder", "postgres").splitlines()
    assert rules == len([line for line in written if not line.startswith("#")])
    settings = environment.settings.postgres
    assert ask(server, "SHOW config_file") == "/etc/samokoder/postgresql.conf"
    assert ask(server, "SHOW shared_buffers") == f"{settings.memory_mib // 4}MB"
    assert ask(server, "SHOW data_checksums") == "on"
    assert ask(server, "SHOW password_encryption") == "scram-sha-256"
    assert ask(server, "SHOW server_version_num").startswith("15"), "PostgreSQL 15 is the original's"


def test_the_log_has_nothing_of_what_users_store(server: Container) -> None:
    email = "ada@example.org"
    ask(server, "CREATE TABLE public.people (email text UNIQUE NOT NULL, age int NOT NULL CHECK (age > 0))")
    ask(server, f"INSERT INTO public.people VALUES ('{email}', 36)")
    for fault in (
        f"INSERT INTO public.people VALUES ('{email}', 36)",
        f"INSERT INTO public.people VALUES ('2{email}', NULL)",
        f"INSERT INTO public.people VALUES ('3{email}', -1)",
        f"SELECT '4{email}'::int",
    ):
        code, said = output(server, *SUPERUSER_PSQL, "--dbname=samokoder", "-XAtqc", fault)
        assert code != 0
        assert email in said, "the client is told all of it"
    log = server.logs().decode()
    assert 'duplicate key value violates unique constraint "people_email_key"' in log, "what happened is in the log"
    for kept_out in ("DETAIL", "STATEMENT", f"({email})", f"('{email}'"):
        assert kept_out not in log, f"a constraint that fails would tell a user's row to whoever reads the log: {log}"


MANY_ROWS = """
    CREATE TABLE public.facts AS SELECT g AS id, repeat('x', 40) AS text FROM generate_series(1, 2000000) AS g;
    ANALYZE public.facts;
"""
PARALLEL_JOIN = """
    SET work_mem = '128MB'; SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0;
    SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET enable_mergejoin = off; SET enable_nestloop = off;
    EXPLAIN (ANALYZE, COSTS off, TIMING off)
        SELECT count(a.text || b.text) FROM public.facts AS a JOIN public.facts AS b USING (id);
"""


def test_the_workers_of_a_large_parallel_hash_join_have_room_to_share_it(
    laboratory: Laboratory, environment: Environment
) -> None:
    """Its hash table has some 200 MB, which a part with 1 GiB of memory can hold and 128 MiB of /dev/shm cannot."""
    sized = environment.settings.postgres.model_copy(update={"memory_mib": 1024})
    settings = environment.settings.model_copy(update={"postgres": sized})
    spec = described(environment.model_copy(update={"settings": settings}))["postgres"]
    container = laboratory.run(spec, contents(spec), alias=False)
    wait_until(container, lambda: container.exec_run(list(spec.health_command)).exit_code == 0)
    ask(container, MANY_ROWS)
    code, said = output(container, *SUPERUSER_PSQL, "--dbname=samokoder", "-XAtqc", PARALLEL_JOIN)
    container.remove(force=True, v=True)
    assert code == 0, f"a report of a customer's ends in an error, however much memory the part has: {said}"
    assert "Parallel Hash Join" in said, "the plan that shares a hash table between workers"
    assert "Batches: 1 " in said, f"in batches it would need less, and prove nothing: {said}"


@pytest.mark.parametrize(("memory", "connections"), [(256, 20), (1024, 100), (65536, 5000)])
def test_postgresql_takes_the_file_of_every_size_of_host(
    laboratory: Laboratory, environment: Environment, memory: int, connections: int
) -> None:
    shell = laboratory.shell(
        environment.image("postgres"), {"/test/postgresql.conf": postgres.postgresql_conf(memory, connections, 4096)}
    )
    code, path = output(shell, "sh", "-c", "command -v postgres || ls /usr/lib/postgresql/*/bin/postgres")
    assert code == 0, path
    command = (
        path.strip(),
        "-C",
        "shared_buffers",
        "-c",
        "config_file=/test/postgresql.conf",
        "-c",
        "data_directory=/test",
    )
    code, said = output(shell, *command)
    pages = [line for line in said.splitlines() if line.isdigit()]
    assert (code, pages) == (0, [str(memory // 4 * 1024 // 8)]), said


def test_a_wrong_line_would_be_found(laboratory: Laboratory, environment: Environment) -> None:
    spec = described(environment)["postgres"]
    container = laboratory.part(spec, replaced={"postgresql.conf": "max_conections = 100\n"})
    container.wait()
    assert 'unrecognized configuration parameter "max_conections"' in container.logs().decode()


def test_the_roles_are_applied_any_number_of_times(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    first = keep_roles(laboratory, environment)
    roles = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, rolpassword FROM pg_authid ORDER BY 1"
    once = ask(server, roles.replace("pg_authid", "pg_authid WHERE rolname LIKE 'samokoder%'"))
    second = keep_roles(laboratory, environment)
    assert ask(server, roles.replace("pg_authid", "pg_authid WHERE rolname LIKE 'samokoder%'")) == once
    assert once.count("|f|f|f|t|SCRAM-SHA-256$4096:") == 3, "a part's role may do more than log in"
    assert f"{SECOND_APP}|f|f|f|f|\n" in f"{once}\n", "the second login is none until a rotation needs it"
    for keeper in (first, second):
        said = keeper.logs().decode()
        assert said.strip().endswith("roles applied"), said
        assert "ERROR" not in said
    code, variables = output(first, "cat", "/proc/1/environ")
    assert code == 0
    assert SUPERUSER_SECRET not in variables


def test_the_application_owns_its_database_and_nothing_else(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keep_roles(laboratory, environment)
    made = "CREATE TABLE job (id int); INSERT INTO job VALUES (7); SELECT id FROM job"
    code, said = ask_as(server, APP, APP_SECRET, made)
    assert (code, said.splitlines()[-1]) == (0, "7"), said
    for refused in (
        "CREATE ROLE other",
        "CREATE DATABASE other",
        "ALTER SYSTEM SET port = 1",
        "SELECT pg_read_file('/etc/passwd')",
    ):
        code, said = ask_as(server, APP, APP_SECRET, refused)
        assert code != 0, f"the application may {refused}"
        assert "permission denied" in said or "must be" in said, said


def test_the_exporter_sees_statistics_and_no_data(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keep_roles(laboratory, environment)
    assert ask_as(server, APP, APP_SECRET, "CREATE TABLE private (id int)")[0] == 0
    for allowed in (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE query IS NOT NULL",
        "SELECT count(*) >= 0 FROM pg_stat_statements",
        "SELECT pg_database_size('samokoder') > 0",
    ):
        assert ask_as(server, EXPORTER, EXPORTER_SECRET, allowed) == (0, "t"), allowed
    for refused in ("SELECT * FROM public.private", "CREATE TABLE public.other (id int)", "SET ROLE postgres"):
        code, said = ask_as(server, EXPORTER, EXPORTER_SECRET, refused)
        assert code != 0, f"the exporter may {refused}"
        assert "permission denied" in said, said


def test_the_backup_server_reads_everything_and_writes_to_its_own_database_alone(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keep_roles(laboratory, environment)
    hidden = (
        "CREATE TABLE hidden (id int); INSERT INTO hidden VALUES (7); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; "
        "ALTER TABLE hidden FORCE ROW LEVEL SECURITY; SELECT lo_from_bytea(4711, 'large')"
    )
    assert ask_as(server, APP, APP_SECRET, hidden)[0] == 0
    for allowed, answer in (
        ("SELECT id FROM public.hidden", "7"),
        ("SELECT convert_from(lo_get(4711), 'UTF8')", "large"),
        ("CHECKPOINT", "CHECKPOINT"),
        ("SELECT count(*) > 0 FROM pg_settings WHERE name = 'data_directory'", "t"),
        ("SELECT pg_switch_wal() IS NOT NULL", "t"),
        ("SELECT pg_backup_start('a test', true) IS NOT NULL", "t"),
    ):
        assert ask_as(server, BACKUP, BACKUP_SECRET, allowed) == (0, answer), allowed
    own = "CREATE TABLE IF NOT EXISTS public.mark (one int); INSERT INTO public.mark VALUES (1) RETURNING one"
    code, said = ask_as(server, BACKUP, BACKUP_SECRET, own, database=BACKUP)
    assert (code, said.splitlines()[1]) == (0, "1"), said
    large = ("lo_unlink(4711)", "lo_put(4711, 0, 'x')", "lowrite(lo_open(4711, 131072), 'x')")
    for refused in (
        *(
            "INSERT INTO public.hidden VALUES (8)",
            "CREATE TABLE public.other (id int)",
            f"SET ROLE {APP}",
            "CREATE ROLE x",
        ),
        *(f"SELECT {call}" for call in (*large, "lo_truncate(0, 0)", "lo_truncate64(0, 0)")),
    ):
        code, said = ask_as(server, BACKUP, BACKUP_SECRET, refused)
        assert code != 0, f"the backup server may {refused}"
        assert "permission denied" in said, said
    written = "SELECT lo_put(4711, 0, 'L'); SELECT convert_from(lo_get(4711), 'UTF8'); SELECT lo_unlink(4711)"
    code, said = ask_as(server, APP, APP_SECRET, written)
    assert (code, said.split()) == (0, ["Large", "1"]), "the application's own are its own"


def replicates(server: Container, command: str) -> tuple[int, str]:
    """Say a command of the replication protocol as the backup server."""
    url = f"postgresql://{BACKUP}:{BACKUP_SECRET}@postgres/?replication=true"
    code, said = output(server, "psql", url, "-XAtc", command)
    return code, said.strip()


def test_the_backup_server_replicates_until_base_backups_are_turned_off_and_its_slot_goes_with_them(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    slots = f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{BACKUP}'"
    keep_roles(laboratory, environment)
    assert replicates(server, "IDENTIFY_SYSTEM")[0] == 0
    assert replicates(server, f"CREATE_REPLICATION_SLOT {BACKUP} PHYSICAL RESERVE_WAL")[0] == 0
    assert ask(server, slots) == "reserved"
    keep_roles(laboratory, environment)
    assert ask(server, slots) == "reserved", "the log since the last base backup would have a gap"
    receiving = f"PGPASSWORD={BACKUP_SECRET} pg_receivewal --host=postgres --username={BACKUP} --slot={BACKUP} -D /tmp"
    server.exec_run(["sh", "-c", receiving], detach=True)
    active = f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{BACKUP}' AND active"
    wait_until(server, lambda: ask(server, active) == "1")
    for enabled, said_at_login in (
        (True, "must be superuser or replication role"),
        (False, "password authentication failed"),
    ):
        backup = environment.settings.backup.model_copy(update={"physical": False, "enabled": enabled})
        settings = environment.settings.model_copy(update={"backup": backup})
        keep_roles(laboratory, environment.model_copy(update={"settings": settings}))
        assert ask(server, slots) == "", "a slot that nobody reads keeps the log"
        code, said = replicates(server, "IDENTIFY_SYSTEM")
        assert code != 0
        assert said_at_login in said
    keep_roles(laboratory, environment)
    assert replicates(server, "IDENTIFY_SYSTEM")[0] == 0, "and back again"


def test_nobody_else_is_let_in(laboratory: Laboratory, environment: Environment, server: Container) -> None:
    keep_roles(laboratory, environment)
    for user, password, database, why in (
        (APP, EXPORTER_SECRET, "samokoder", "password authentication failed"),
        (APP, "", "samokoder", "no password supplied"),
        (APP, APP_SECRET, "postgres", "no pg_hba.conf entry"),
        (EXPORTER, EXPORTER_SECRET, "template1", "no pg_hba.conf entry"),
        (BACKUP, BACKUP_SECRET, "template1", "no pg_hba.conf entry"),
        (BACKUP, APP_SECRET, "samokoder", "password authentication failed"),
        (APP, APP_SECRET, BACKUP, "no pg_hba.conf entry"),
        ("somebody", APP_SECRET, "samokoder", "no pg_hba.conf entry"),
    ):
        code, said = ask_as(server, user, password, "SELECT 1", database)
        assert code != 0, f"{user} came into {database}"
        assert why in said, said
    for user, database in ((BACKUP, "samokoder"), (APP, "postgres"), (EXPORTER, BACKUP)):
        code, said = output(server, "psql", f"--username={user}", f"--dbname={database}", "-XAtc", "SELECT 1")
        assert code != 0, f"{user} came into {database} over the socket, as nobody does"
        assert "no pg_hba.conf entry" in said, said


def test_both_logins_are_good_in_the_middle_of_a_rotation_and_one_at_its_end(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    phases: dict[tuple[int, Phase], tuple[bool, bool]] = {
        (1, ""): (True, False),
        (2, "prepare"): (True, True),
        (2, "overlap"): (True, True),
        (2, ""): (False, True),
        (3, "prepare"): (True, True),
        (3, ""): (True, False),
    }
    for (generation, phase), expected in phases.items():
        keep_roles(laboratory, at(environment, generation, phase))
        logins = ((APP, APP_SECRET), (SECOND_APP, SECOND_SECRET))
        opens = tuple(ask_as(server, user, password, "SELECT 1") == (0, "1") for user, password in logins)
        assert opens == expected, f"generation {generation}, {phase!r}"
    # Secrets of these tests are the same in each generation of a slot.
    assert ask_as(server, APP, SECOND_SECRET, "SELECT 1")[0] != 0, "each password opens its own role"


def test_what_the_second_role_makes_is_the_first_ones(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keep_roles(laboratory, at(environment, 2, ""))
    made = "CREATE TABLE of_second (id serial PRIMARY KEY); RESET ALL; CREATE TABLE after_reset (id int)"
    assert ask_as(server, SECOND_APP, SECOND_SECRET, made)[0] == 0
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename IN ('of_second', 'after_reset')"
    assert ask(server, owners) == APP, "after the next rotation nobody could change it"
    keep_roles(laboratory, environment)
    assert ask_as(server, APP, APP_SECRET, "ALTER TABLE of_second ADD COLUMN x int; DROP TABLE after_reset")[0] == 0


def test_a_retired_login_is_ended_where_it_still_runs_and_others_go_on(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keep_roles(laboratory, at(environment, 2, "overlap"))
    for user, password in ((APP, APP_SECRET), (SECOND_APP, SECOND_SECRET)):
        url = f"postgresql://{user}:{password}@postgres/samokoder"
        server.exec_run(["psql", url, "-XAtc", "SELECT pg_sleep(600)"], detach=True)
    sleeping = (
        "SELECT string_agg(usename, ' ' ORDER BY usename) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'"
    )
    wait_until(server, lambda: ask(server, sleeping) == f"{APP} {SECOND_APP}")
    keep_roles(laboratory, at(environment, 2, "overlap"))
    assert ask(server, sleeping) == f"{APP} {SECOND_APP}", "a keeper that starts again disturbs nobody"
    keep_roles(laboratory, at(environment, 2, ""))
    wait_until(server, lambda: ask(server, sleeping) == SECOND_APP)
    keep_roles(laboratory, environment)
    wait_until(server, lambda: ask(server, sleeping) == "")


def test_what_an_adopted_database_has_becomes_the_applications(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    ask(
        server,
        "CREATE TABLE old (id serial PRIMARY KEY, name text); CREATE VIEW seen AS SELECT * FROM old; "
        "CREATE MATERIALIZED VIEW kept AS SELECT * FROM old; CREATE SEQUENCE free_one; "
        "CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN email AS text; CREATE TYPE pair AS (a int, b mood); "
        "CREATE TYPE span AS RANGE (subtype = date); "
        "CREATE FUNCTION twice(int, mood) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'",
    )
    keep_roles(laboratory, environment)
    owners = (
        "SELECT DISTINCT relowner::regrole FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'v', 'm', 'S') AND relname NOT LIKE 'pg_stat%'"
    )
    assert ask(server, owners) == APP, "the application's next migration could not change its own table"
    code, said = ask_as(
        server, APP, APP_SECRET, "ALTER TABLE old ADD COLUMN age int; INSERT INTO old (name) VALUES ('x') RETURNING id"
    )
    assert (code, said.splitlines()[1]) == (0, "1"), said
    for change in ("TYPE mood ADD VALUE 'glad'", "DOMAIN email SET NOT NULL", "TYPE pair ADD ATTRIBUTE c int"):
        assert ask_as(server, APP, APP_SECRET, f"ALTER {change}")[0] == 0, change
    assert ask_as(server, APP, APP_SECRET, "DROP FUNCTION twice; DROP TYPE span")[0] == 0


def test_the_keeper_is_not_healthy_while_the_roles_are_not_applied(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    spec = described(environment)["postgres-roles"]
    keeper = laboratory.part(spec, replaced={"superuser_password": "wrong"})
    keeper.wait()
    assert "password authentication failed" in keeper.logs().decode()
    assert keeper.wait()["StatusCode"] != 0, "an update must fail with it"


def test_postgresql_stops_without_a_recovery_at_the_next_start(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    spec = described(environment)["postgres"]
    ask(server, "CREATE TABLE survivor AS SELECT 7 AS id")
    server.kill(signal=spec.stop_signal)
    server.wait()
    server.start()
    wait_until(server, lambda: output(server, *spec.health_command)[0] == 0)
    log = server.logs().decode()
    assert "received fast shutdown request" in log
    assert "database system was not properly shut down" not in log
    assert ask(server, "SELECT id FROM survivor") == "7"


def test_the_files_of_these_tests_are_made_from_these_passwords(environment: Environment) -> None:
    assert contents(described(environment)["postgres"])["superuser_password"] == SUPERUSER_SECRET
    assert contents(described(environment)["postgres-exporter"])["password"] == EXPORTER_SECRET
    assert APP_SECRET in contents(described(environment)["api-1"])["samokoder_database_url"]


def test_a_rotation_finds_out_which_password_the_server_takes(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keeper = keep_roles(laboratory, environment)
    application, exporter = servers.SERVERS["postgres_app"], servers.SERVERS["postgres_exporter"]
    for check, slot, password, expected in (
        (application, "postgres-app", APP_SECRET, "in"),
        (application, "postgres-app", SECOND_SECRET, "refused"),
        (application, "postgres-app-b", SECOND_SECRET, "refused"),
        (exporter, "postgres-exporter", EXPORTER_SECRET, "in"),
        (exporter, "postgres-exporter", APP_SECRET, "refused"),
        (servers.SERVERS["postgres_backup"], "postgres-backup", BACKUP_SECRET, "in"),
        (servers.SERVERS["postgres_backup"], "postgres-backup", APP_SECRET, "refused"),
    ):
        assert check.login(keeper, environment, slot, password) == expected, f"{slot}: {expected}"
    assert APP_SECRET not in output(keeper, "sh", "-c", "cat /tmp/* 2>/dev/null")[1], "it was left behind"
