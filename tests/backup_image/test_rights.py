"""Nobody runs what an application that was taken over has planted: no backup, no drill, no restore."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator

import pytest

from stack.parts.postgres import spec as postgres
from tests.backup_image.conftest import DATA, Lab, docker, wait_for
from tests.planted import PLANTED, SETTINGS, SUPERUSER_PSQL

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]

SUPERUSERS = "SELECT string_agg(rolname, ' ') FROM pg_catalog.pg_roles WHERE rolsuper"
RAN = "SELECT count(*) FROM public.canary"
SHELL = r"""
import glob, os, socket, sys
def tells(name, reached):
    print(f"a shell reaches {name}: {reached}", file=open("/proc/1/fd/2", "w"))
def writes(path):
    try:
        open(path, "w").close()
        return True
    except OSError:
        return False
def connects(address):
    try:
        socket.create_connection(address, 3).close()
        return True
    except OSError:
        return False
tells("the backups", writes("/backups/canary"))
tells("a file of the backups", any(map(writes, glob.glob("/backups/**/*.info", recursive=True))))
tells("a key", sorted(set(os.listdir("/etc/samokoder")) - {"backup.json"}))
tells("a password", any("pgpass" in names for _, _, names in os.walk("/tmp")))
tells("PostgreSQL", connects(("postgres", 5432)) or connects(("ADDRESS", 5432)))
tells("the network", sorted(name for _, name in socket.if_nameindex() if name != "lo"))
"""
"""What a shell tries; it says in the container's log what it has reached."""
SHELL_SQL = """
CREATE FUNCTION pg_catalog.a_fault() RETURNS event_trigger LANGUAGE plpgsql AS $fault$
BEGIN
    IF current_setting('data_directory') NOT LIKE '/var/%' THEN
        COPY (SELECT 'SHELL') TO PROGRAM 'base64 -d | python3 -';
    END IF;
END $fault$;
CREATE EVENT TRIGGER a_fault ON ddl_command_end EXECUTE FUNCTION pg_catalog.a_fault();
"""
"""Only a superuser can make it: it stands for a fault of PostgreSQL by which the application becomes one."""


@pytest.fixture(scope="module")
def taken(new_lab: Callable[[], Lab]) -> Lab:
    """An environment whose application was taken over before the first backup."""
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    with lab.connect().cursor() as cursor:
        cursor.execute(PLANTED)
        cursor.execute(SETTINGS)
    lab.start_backup(lab.volume("backup"))
    lab.first_backups()
    return lab


@pytest.fixture
def target(taken: Lab) -> Iterator[str]:
    with taken.target() as name:
        yield name


def assert_nothing_ran(lab: Lab) -> None:
    found = lab.inside("import glob; print(glob.glob('/backups/canary') + glob.glob('/tmp/canary'))")
    assert found == "[]", "the application had a shell in the backup container"
    assert lab.sql(RAN) == "0", "its code ran with the rights of another role"
    assert lab.sql(SUPERUSERS) == "postgres"


def test_a_drill_runs_nothing_of_the_applications(taken: Lab) -> None:
    assert taken.backup("drill", "--json").returncode == 0
    assert_nothing_ran(taken)


def test_a_backup_of_each_kind_runs_nothing_of_the_applications(taken: Lab) -> None:
    for kind in ("base", "dump"):
        assert taken.backup("now", "--kind", kind).returncode == 0
    assert_nothing_ran(taken)


def test_a_drill_of_a_dump_runs_nothing_of_the_applications(taken: Lab) -> None:
    taken.start_backup(f"{taken.name}-backup", physical=False)
    wait_for("the service", lambda: taken.list("dump"), lambda: taken.logs("backup"))
    assert taken.backup("drill", "--json").returncode == 0
    assert_nothing_ran(taken)
    taken.start_backup(f"{taken.name}-backup")


@pytest.mark.parametrize("kind", ["dump", "base"])
def test_a_restore_gives_the_application_no_rights_and_keeps_what_it_owned(taken: Lab, target: str, kind: str) -> None:
    taken.restore(f"{taken.name}-backup", target, "--backup", taken.list(kind)[-1]["id"])
    name = taken.run("restored", f"--volume={target}:{DATA}", "--network=none", taken.images.image("postgres"))

    def ask(query: str) -> str:
        return docker("exec", name, *SUPERUSER_PSQL, "-XAt", "--dbname=samokoder", "-c", query).stdout.strip()

    assert wait_for("the restored PostgreSQL", lambda: ask(SUPERUSERS)) == "postgres"
    assert ask(RAN) == "0", "what is restored ran with the rights of another role"
    owner = "SELECT DISTINCT relowner::pg_catalog.regrole FROM pg_catalog.pg_class WHERE relname LIKE 'planted%'"
    assert ask(owner) == postgres.APP_ROLE
    assert ask("SELECT count(*) FROM public.planted") == "50"


@pytest.mark.long
def test_a_shell_in_the_drills_server_reaches_no_backup_no_key_and_no_network(taken: Lab) -> None:
    script = base64.b64encode(SHELL.replace("ADDRESS", taken.address("postgres")).encode()).decode()
    taken.sql("SET allow_system_table_mods = on;" + SHELL_SQL.replace("SHELL", script))
    try:
        assert taken.backup("now", "--kind", "base").returncode == 0
        drilled = taken.backup("drill", check=False)
        said = dict(re.findall(r"a shell reaches ([^:]+): (.+)", taken.logs("drill")))
    finally:
        taken.sql("SET allow_system_table_mods = on; DROP EVENT TRIGGER a_fault; DROP FUNCTION pg_catalog.a_fault")
    assert said, f"the shell did not run: {drilled.stdout}{drilled.stderr}{taken.logs('drill')}"
    assert said == {
        "the backups": "False",
        "a file of the backups": "False",
        "a key": "[]",
        "a password": "False",
        "PostgreSQL": "False",
        "the network": "[]",
    }, "who breaks out of the restored database has the backups, a key, or a way to carry them away"
    assert taken.backup("now", "--kind", "base").returncode == 0
    assert taken.backup("drill").returncode == 0, "the next drill is spoilt by what the shell has left"
