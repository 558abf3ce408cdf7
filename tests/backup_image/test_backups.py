"""Backups and restores by the real image, with real servers, and what goes wrong there."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from redis import Redis
from redis.exceptions import RedisError

from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from tests.backup_image.conftest import DATA, Lab, docker, moment, wait_for
from tests.planted import SUPERUSER_PSQL
from tests.small_disk import small_disk
from tests.written import Application

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]

RPO_SECONDS = 10.0
"""What the issue allows to be lost; what a test measures is printed."""


@pytest.fixture
def target(lab: Lab) -> Iterator[str]:
    with lab.target() as name:
        yield name


def ask(lab: Lab, volume: str, query: str) -> str:
    """Start PostgreSQL over a restored volume, ask, stop."""
    name = lab.run("restored", f"--volume={volume}:{DATA}", "--network=none", lab.images.image("postgres"))
    words = (*SUPERUSER_PSQL, "-At", "--dbname=samokoder", "--command", query)
    # The image's entrypoint takes the restored folder for what it is; its pg_hba.conf asks no password over the socket.
    found = wait_for(
        "the restored PostgreSQL",
        lambda: docker("exec", name, *words).stdout.splitlines(),  # noqa: PLW0108 - each time anew
        lambda: lab.logs("restored"),
    )
    assert "database system was shut down at" in lab.logs("restored"), "it must need no recovery of its own"
    lab.remove("restored")
    return found[0]


def mark(lab: Lab, name: str) -> str:
    """Write a mark; give the moment of its commit, after which a second passes."""
    lab.sql(f"INSERT INTO marks VALUES ('{name}')")
    at = moment(lab.sql("SELECT clock_timestamp()"))
    time.sleep(1)
    return at


def received(lab: Lab) -> None:
    """Wait until what was written by now has come over."""
    now = time.time()
    wait_for("the newest WAL", lambda: lab.list("base")[-1]["to"] > datetime.fromtimestamp(now, UTC).isoformat())


def test_the_service_makes_the_first_backups_by_itself_and_its_figures_say_so(lab: Lab) -> None:
    values = lab.metrics()
    for kind in ("base", "dump", "redis"):
        assert time.time() - values[f'backup_last_success_timestamp_seconds{{kind="{kind}"}}'] < 600
        assert values[f'backup_last_exit_code{{kind="{kind}"}}'] == 0
        assert values[f'backup_size_bytes{{kind="{kind}"}}'] > 0
        assert values[f'backup_retained{{kind="{kind}"}}'] >= 1
        assert f'backup_last_duration_seconds{{kind="{kind}"}}' in values
    assert values["backup_restore_test_last_exit_code"] == 0, "a new stack is told at once whether it can be restored"
    assert values["backup_wal_receiver_up"] == 1
    assert values["wal_archive_lag_seconds"] < 30
    assert values["backup_slot_limit_bytes"] == 256 * 2**20
    assert 0 <= values["backup_slot_retained_bytes"] < 256 * 2**20
    assert 0 < values["backup_volume_free_bytes"] < values["backup_volume_size_bytes"]
    assert values["backup_offsite_enabled"] == 0
    assert all(entry["from"] for entry in lab.list("base")), "a base backup has its range of moments"


def test_a_moment_between_two_writes_has_the_first_and_not_the_second(lab: Lab, target: str) -> None:
    between = mark(lab, "first")
    mark(lab, "second")
    received(lab)
    assert lab.backup("check-restore", "--to", between).returncode == 0
    done = lab.restore(f"{lab.name}-backup", target, "--to", between)
    assert len(done.stdout.splitlines()) == 1, "which changes it has; progress goes to standard error"
    assert ask(lab, target, "SELECT name FROM marks WHERE name IN ('first', 'second')") == "first"


def test_the_newest_moment_of_a_quiet_database_can_be_asked_for(lab: Lab, target: str) -> None:
    mark(lab, "quiet")
    received(lab)
    lab.restore(f"{lab.name}-backup", target, "--to", lab.list("base")[-1]["to"])
    assert ask(lab, target, "SELECT count(*) FROM marks WHERE name = 'quiet'") == "1"


def test_a_drill_measures_the_loss_and_the_time_and_leaves_nothing(lab: Lab) -> None:
    done = lab.backup("drill", "--json")
    result = json.loads(done.stdout)
    print(f"drill: RPO {result['rpo']:.1f} s, RTO {result['rto']:.1f} s, {result['seconds']:.1f} s in all")
    assert result["rpo"] < RPO_SECONDS
    assert result["rows"]["public.bulk"] == 200_000
    values = lab.metrics()
    assert values["backup_restore_test_last_exit_code"] == 0
    assert values["backup_restore_test_rpo_seconds"] == pytest.approx(result["rpo"])
    assert values["backup_restore_test_rto_seconds"] == pytest.approx(result["rto"])
    assert time.time() - values["backup_restore_test_last_success_timestamp_seconds"] < 600
    assert lab.inside("import pathlib; print(pathlib.Path('/backups/scratch').exists())") == "False"


def test_a_dump_is_restored_with_its_owners(lab: Lab, target: str) -> None:
    lab.restore(f"{lab.name}-backup", target, "--backup", lab.list("dump")[-1]["id"])
    query = "SELECT count(*), (SELECT tableowner FROM pg_tables WHERE tablename = 'bulk') FROM bulk"
    assert ask(lab, target, query) == "200000|samokoder_app"


def test_a_dump_has_large_objects_though_they_are_the_applications_alone(lab: Lab, target: str) -> None:
    lab.sql("SET ROLE samokoder_app; SELECT lo_from_bytea(4711, 'large')")
    assert lab.backup("now", "--kind", "dump").returncode == 0
    lab.restore(f"{lab.name}-backup", target, "--backup", lab.list("dump")[-1]["id"])
    owner = "SELECT rolname FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = lomowner WHERE m.oid = 4711"
    query = f"SELECT convert_from(lo_get(4711), 'UTF8'), ({owner})"
    assert ask(lab, target, query) == "large|samokoder_app"
    lab.sql("SELECT lo_unlink(4711)")


def test_a_copy_of_redis_is_restored_to_an_append_only_file(lab: Lab, target: str) -> None:
    password = lab.passwords["r"]
    application = Application(host=lab.address("redis"), password=password, name="copied")
    before = application.write()
    try:
        assert lab.backup("now", "--kind", "redis").returncode == 0
    finally:
        application.holds(before)
    lab.restore(f"{lab.name}-backup", target, "--backup", lab.list("redis")[-1]["id"], where="/data")
    users = lab.folder / "users.acl"
    lines = redis_users.users_commands(app=[password], exporter=password, backup=password, login=True).splitlines()
    ours = [line.replace("ACL SETUSER", "user") for line in lines if "samokoder_" in line]
    users.write_text(redis.seed_acl("keeper") + "\n".join(ours) + "\n")
    lab.run(
        "restored",
        *(f"--network={lab.name}", f"--volume={target}:/data", f"--volume={users}:/etc/users.acl:ro"),
        *(lab.images.image("redis"), "redis-server", "--appendonly", "yes", "--aclfile", "/etc/users.acl"),
    )

    def key() -> Any:
        with (
            contextlib.suppress(RedisError),
            Redis(lab.address("restored"), username=redis.APP_USER, password=password) as client,
        ):
            return client.get("arq:one")

    assert wait_for("Redis", key, lambda: lab.logs("restored")) == b"1"
    replace(application, host=lab.address("restored")).holds(before)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "2020-01-01 00:00:00+00"], "the first moment that can be restored is"),
        (["--to", "2099-01-01 00:00:00+00"], "cannot be reached: the last moment"),
        (["--to", "2099-01-01 00:00:00"], "says no offset"),
        (["--backup", "20200101T000000"], "there is no backup 20200101T000000"),
        (["--latest", "--into", "/backups/dumps"], "is not empty"),
        (["--latest", "--into", "/tmp/restored"], "MiB are free"),  # noqa: S108 - in the container, of 64 MiB
    ],
)
def test_what_cannot_be_restored_is_refused_before_anything_is_touched(lab: Lab, words: list[str], why: str) -> None:
    done = lab.backup("check-restore", *words, check=False)
    assert done.returncode == 2
    assert why in done.stderr


FILL = """
import os
file = open('/backups/filler', 'wb', buffering=0)
for size in (65536, 512):
    try:
        while file.write(bytes(size)) == size:
            pass
    except OSError:
        pass
"""

FLIP = """
import os, pathlib
path = sorted(pathlib.Path('/backups').glob('{pattern}'))[-1]
data = bytearray(path.read_bytes())
data[{at}] ^= 1
stamp = path.stat()
path.write_bytes(data)
os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
print(path.relative_to('/backups'))
"""


@contextmanager
def one_wrong_byte(lab: Lab, pattern: str, at: str = "len(data) // 2") -> Iterator[None]:
    """Damage the newest file of a pattern, and mend that very one: the service may have made a new one by then."""
    path = lab.inside(FLIP.format(pattern=pattern, at=at))
    try:
        yield
    finally:
        lab.inside(FLIP.format(pattern=path, at=at))


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("base", "barman/main-*/base/*/data/base.tar.gz"),
        ("base", "barman/main-*/base/*/data/backup_manifest"),
        ("dump", "dumps/*.dump"),
        ("redis", "redis/*.rdb"),
    ],
)
def test_one_wrong_byte_of_a_backup_is_found_by_verification(lab: Lab, kind: str, pattern: str) -> None:
    assert lab.backup("verify").returncode == 0
    newest = lab.list(kind)[-1]["id"]
    with one_wrong_byte(lab, pattern):
        found = lab.backup("verify", "--json", check=False)
        assert found.returncode == 1
        assert list(json.loads(found.stdout)) == [newest]
        assert [entry["status"] for entry in lab.list(kind) if entry["id"] == newest] == ["bad"]
        assert lab.metrics()["backup_verify_failed"] == 1
        refused = lab.backup("check-restore", "--backup", newest, check=False)
        assert (refused.returncode, "is bad" in refused.stderr) == (2, True)
    assert lab.backup("verify").returncode == 0


@pytest.mark.parametrize("at", ["4", "len(data) // 2"])  # a time stamp that gzip itself does not check; the content
def test_one_wrong_byte_of_archived_wal_is_found_and_no_restore_goes_past_it(lab: Lab, target: str, at: str) -> None:
    before = mark(lab, f"before-{at}")
    lab.sql("SELECT pg_switch_wal()")
    mark(lab, f"in-{at}")
    segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    lab.sql("SELECT pg_switch_wal()")
    noted = "import pathlib; print([p.read_text() for p in pathlib.Path('/backups/barman').glob('main-*/*.sha256')])"
    wait_for("its checksum", lambda: segment in lab.inside(noted))
    past = mark(lab, f"after-{at}")
    time.sleep(6)
    received(lab)
    with one_wrong_byte(lab, f"barman/main-*/wals/*/{segment}", at):
        # Nobody has verified yet: the restore itself must not take the damage for the end of the WAL.
        done = lab.restore(f"{lab.name}-backup", target, "--latest", check=False)
        assert done.returncode == 1, done.stderr
        assert "damaged" in done.stderr
        found = lab.backup("verify", "--json", check=False)
        assert any(name.endswith(f"/{segment}") for name in json.loads(found.stdout))
        lab.restore(f"{lab.name}-backup", target, "--to", before)
        refused = lab.backup("check-restore", "--to", past, check=False)
        assert (refused.returncode, segment in refused.stderr) == (2, True)
        # And a new base backup is made at once, from which the latest moment is within reach again.
        wait_for("a new base", lambda: lab.backup("check-restore", "--latest", check=False).returncode == 0)
    assert lab.backup("verify").returncode == 0


@pytest.mark.parametrize("kind", ["base", "dump", "redis"])
def test_a_backup_that_is_killed_in_the_middle_leaves_nothing_that_counts(lab: Lab, kind: str) -> None:
    before = lab.list()
    pattern = {"base": "barman/main-*/base/*/data/*", "dump": "dumps/.*.part", "redis": "redis/.*.part"}[kind]
    known = lab.inside(f"import pathlib; print(len(list(pathlib.Path('/backups').glob('{pattern}'))))")
    done: list[int] = []
    running = threading.Thread(target=lambda: done.append(lab.backup("now", "--kind", kind, check=False).returncode))
    running.start()
    # From inside, since it may be there for a moment only: all that runs in the container is killed at once.
    kill = f"""
import os, pathlib
while len(list(pathlib.Path('/backups').glob('{pattern}'))) <= {known}:
    pass
os.kill(-1, 9)
"""
    docker("exec", f"{lab.name}-backup", "python", "-c", kill, check=False)
    running.join()
    docker("wait", f"{lab.name}-backup")
    assert done != [0], "it was killed too late"
    docker("start", f"{lab.name}-backup")
    wait_for("the service", lambda: lab.metrics()["backup_wal_receiver_up"] == 1, lambda: lab.logs("backup"))
    assert [entry["id"] for entry in lab.list()] == [entry["id"] for entry in before]
    assert lab.backup("now", "--kind", kind).returncode == 0
    made = lab.list(kind)[-1]
    assert made["id"] not in {entry["id"] for entry in before}
    left = "import pathlib; print([str(p) for p in pathlib.Path('/backups').rglob('*.part')])"
    assert lab.inside(left) == "[]"
    bases = "import pathlib; print(len(list(pathlib.Path('/backups').glob('barman/main-*/base/*'))))"
    assert int(lab.inside(bases)) == len(lab.list("base"))


def test_a_restore_that_is_killed_can_be_run_again(lab: Lab, target: str) -> None:
    at = mark(lab, "again")
    received(lab)
    running = threading.Thread(
        target=lambda: lab.restore(f"{lab.name}-backup", target, "--to", at, check=False), daemon=True
    )
    running.start()
    begun = ("run", "--rm", f"--volume={target}:{DATA}", "--entrypoint=ls", lab.images.image("postgres"), "-A", DATA)
    wait_for("the restore", lambda: "PG_VERSION" in docker(*begun).stdout)
    lab.kill("restore")
    running.join()
    assert ".samokoder-restore" in docker(*begun).stdout
    lab.restore(f"{lab.name}-backup", target, "--to", at)
    assert ".samokoder-restore" not in docker(*begun).stdout
    assert ask(lab, target, "SELECT count(*) FROM marks WHERE name = 'again'") == "1"


def test_wal_goes_on_without_a_gap_after_postgresql_was_away(lab: Lab, target: str) -> None:
    servers = "import pathlib; print(sorted(p.name for p in pathlib.Path('/backups/barman').glob('main-*')))"
    before, bases = lab.inside(servers), len(lab.list("base"))
    docker("stop", f"{lab.name}-postgres")
    time.sleep(15)
    docker("start", f"{lab.name}-postgres")
    wait_for("PostgreSQL", lambda: lab.sql("SELECT 1") == "1")
    mark(lab, "back")
    received(lab)
    assert lab.inside(servers) == before
    assert len(lab.list("base")) == bases, "no new base backup was needed"
    lab.restore(f"{lab.name}-backup", target, "--latest")
    assert ask(lab, target, "SELECT count(*) FROM marks WHERE name = 'back'") == "1"


def test_a_slot_that_somebody_drops_is_made_anew_and_nothing_is_missing(lab: Lab, target: str) -> None:
    servers = "import pathlib; print(sorted(p.name for p in pathlib.Path('/backups/barman').glob('main-*')))"
    before, bases = lab.inside(servers), len(lab.list("base"))
    lab.sql("SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots")
    lab.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    mark(lab, "without a slot")
    wait_for(
        "a new slot", lambda: lab.sql("SELECT active FROM pg_replication_slots") == "t", lambda: lab.logs("backup")
    )
    assert "the slot samokoder_backup is gone" in lab.logs("backup"), "it is told"
    mark(lab, "with a new slot")
    received(lab)
    assert (lab.inside(servers), len(lab.list("base"))) == (before, bases), "PostgreSQL had all of it still"
    lab.restore(f"{lab.name}-backup", target, "--latest")
    query = "SELECT count(*) FROM marks WHERE name IN ('without a slot', 'with a new slot')"
    assert ask(lab, target, query) == "2"


AGE = """
import datetime, hashlib, json, os, pathlib, re
for info in pathlib.Path('/backups/barman').glob('main-*/meta/{id}-backup.info'):
    def older(found):
        at = datetime.datetime.fromisoformat(found[2]) - datetime.timedelta(days={days})
        return found[1] + at.isoformat(sep=' ')
    info.write_text(re.sub(r'(?m)^((?:begin|end)_time=)(.*)$', older, info.read_text()))
    noted = info.parents[1] / 'base' / '{id}' / 'samokoder.json'
    known = json.loads(noted.read_text())
    known['backup.info'] = hashlib.sha256(info.read_bytes()).hexdigest()
    noted.write_text(json.dumps(known))
    if {wal_too}:
        for path in info.parents[1].rglob('0*'):
            at = path.stat().st_mtime - {days} * 86400
            os.utime(path, (at, at))
"""


def age(lab: Lab, base: str, days: int, *, wal_too: bool = False) -> None:
    """Let a base backup be so old; wal_too: with all of its history."""
    lab.inside(AGE.format(id=base, days=days, wal_too=wal_too))


def archived(lab: Lab) -> list[str]:
    program = "import pathlib; print(*sorted(p.name for p in pathlib.Path('/backups/barman').glob('main-*/wals/*/0*')))"
    return [name for name in lab.inside(program).split() if len(name) == len("000000010000000000000001")]


def begun_at(lab: Lab, base: str) -> str:
    """Return the first WAL file that a base backup needs."""
    program = f"from samokoder_backup import barman; print(*(b.begin_wal for b in barman.bases() if b.id == '{base}'))"
    return lab.inside(program)


def take(lab: Lab) -> str:
    """Make a base backup, some WAL before it."""
    lab.sql("INSERT INTO marks VALUES (gen_random_uuid()::text); SELECT pg_switch_wal()")
    assert lab.backup("now", "--kind", "base").returncode == 0
    return str(lab.list("base")[-1]["id"])


@pytest.fixture
def own_lab(new_lab: Callable[[], Lab]) -> Iterator[Lab]:
    """An environment of the test's own, with its first backups."""
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    lab.sql("CREATE TABLE marks (name text PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    lab.start_backup(lab.volume("backup"))
    lab.first_backups()
    yield lab
    lab.close()


def test_an_old_base_backup_goes_with_its_wal_only_when_a_newer_good_one_takes_its_place(own_lab: Lab) -> None:
    lab = own_lab
    oldest, old = lab.list("base")[0]["id"], take(lab)
    take(lab)
    age(lab, oldest, 9)
    age(lab, old, 8)
    first, second = begun_at(lab, oldest), begun_at(lab, old)
    with one_wrong_byte(lab, f"barman/main-*/base/{old}/data/base.tar.gz"):
        assert lab.backup("verify", check=False).returncode == 1
        take(lab)
        assert oldest in {entry["id"] for entry in lab.list()}, "the only good one that reaches back a week"
        assert first in archived(lab), "and it is worth nothing without its WAL"
    assert lab.backup("verify").returncode == 0
    take(lab)
    left = lab.list("base")
    assert next(entry["id"] for entry in left) == old, "the older one is needed no longer, this one is"
    assert len(left) == 4
    assert min(archived(lab)) == second, "WAL goes with the base backup that it belongs to, and no more of it"
    program = "import pathlib; print(*(p.read_text() for p in pathlib.Path('/backups/barman').glob('main-*/*.sha256')))"
    take(lab)
    assert first not in lab.inside(program), "the checksums of what is gone are forgotten"
    assert lab.backup("verify").returncode == 0
    assert all(entry["status"] == "good" for entry in lab.list("base"))
    target = lab.volume("target")
    lab.restore(f"{lab.name}-backup", target, "--backup", old)
    again = lab.volume("again")
    lab.restore(f"{lab.name}-backup", again, "--to", lab.list("base")[-1]["to"])
    assert ask(lab, again, "SELECT count(*) FROM marks") == "5"


BURN = "SELECT txid_current(); SELECT pg_switch_wal();"
SLOT = "SELECT active, wal_status FROM pg_replication_slots"
NO_HALF = "import pathlib; [p.unlink() for p in pathlib.Path('/backups/barman').glob('main-*/streaming/*')]"


@pytest.mark.parametrize("how", ["given up", "dropped", "dropped, with nothing half received"])
def test_wal_that_is_gone_with_its_slot_is_a_gap_that_is_told_and_ended_by_a_new_base_backup(
    own_lab: Lab, how: str
) -> None:
    lab = own_lab
    old = lab.list("base")
    lab.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
    lab.sql("SELECT pg_reload_conf()")
    before = mark(lab, "before")
    segment = lab.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    lab.sql("SELECT pg_switch_wal()")
    wait_for("the archive", lambda: segment in archived(lab), lambda: lab.logs("backup"))
    docker("stop", f"{lab.name}-backup")
    if "half" in how:
        mounted = f"--volume={lab.name}-backup:/backups"
        docker("run", "--rm", "--user=999:999", mounted, "--entrypoint=python", lab.image, "-c", NO_HALF)
    if "dropped" in how:
        lab.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    gap = mark(lab, "in the gap")
    for _ in range(8):
        lab.sql(BURN)
    lab.sql("CHECKPOINT")
    if how == "given up":
        assert lab.sql("SELECT wal_status FROM pg_replication_slots") == "lost", "PostgreSQL keeps it still"
    time.sleep(35)  # longer than nobody writes anything
    docker("start", f"{lab.name}-backup")
    wait_for(
        "a new base backup",
        lambda: [entry for entry in lab.list("base")[len(old) :] if entry["status"] == "good"],
        lambda: lab.logs("backup"),
    )
    log = docker("logs", f"{lab.name}-backup")
    told = "given up the slot" if how == "given up" else "the slot samokoder_backup is gone"
    assert told in log.stderr, "a person finds out why there is a gap"
    assert ("WAL has a gap" in log.stderr) is (how == "dropped"), "where the receiver is the one that meets it"
    after = mark(lab, "after")
    received(lab)
    # The receiver tells PostgreSQL how far it has come every ten seconds: so long the slot is behind its bound.
    wait_for("a slot that follows", lambda: lab.sql(SLOT) == "t|reserved", lambda: lab.sql(SLOT))
    assert lab.metrics()["backup_wal_receiver_up"] == 1
    # Never is a gap taken for a quiet time: each of these moments is there, or is refused.
    refused = lab.backup("check-restore", "--to", gap, check=False)
    assert (refused.returncode, "the last moment that can be restored before it is" in refused.stderr) == (2, True)
    for to, expected in ((before, "before"), (after, "after, before, in the gap")):
        target = lab.volume(f"target-{len(expected)}")
        lab.restore(f"{lab.name}-backup", target, "--to", to)
        assert ask(lab, target, "SELECT string_agg(name, ', ' ORDER BY name) FROM marks") == expected
    assert lab.backup("verify").returncode == 0, "what is there is whole"
    assert lab.backup("drill").returncode == 0
    if how == "given up":
        # As it is left where old WAL comes belatedly, and then no more: the files are younger than what is in them.
        lab.inside("import pathlib; [p.touch() for p in pathlib.Path('/backups/barman').glob('main-*Z/*/**/0*')]")
        late = (datetime.fromisoformat(lab.list("base")[len(old)]["from"]) - timedelta(seconds=1)).isoformat()
        assert lab.backup("check-restore", "--to", late).returncode == 0, "nobody could know"
        short = lab.restore(f"{lab.name}-backup", lab.volume("short"), "--to", late, check=False)
        assert (short.returncode, "the last change that was received is of" in short.stderr) == (2, True), short.stderr
        # What was set aside goes as a whole once nothing of it is needed.
        for entry in old:
            age(lab, entry["id"], 20, wal_too=True)
        age(lab, lab.list("base")[-1]["id"], 8)
        take(lab)
        assert not {entry["id"] for entry in old} & {entry["id"] for entry in lab.list()}
        servers = "import pathlib; print(len(list(pathlib.Path('/backups/barman').glob('main-*'))))"
        assert lab.inside(servers) == "1", "the folder of the history before the gap"
        assert lab.backup("verify").returncode == 0


@pytest.fixture
def disk() -> Iterator[str]:
    """A folder on a file system of its own, of 600 MiB."""
    with small_disk(600, owner=999) as mounted:
        yield str(mounted)


def test_a_full_disk_costs_no_older_backup_and_wal_goes_on_afterwards(new_lab: Callable[[], Lab], disk: str) -> None:
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    lab.sql("CREATE TABLE marks (name text)")
    lab.start_backup(disk)
    lab.first_backups()
    before = lab.list()
    lab.inside(FILL)
    for kind in ("base", "dump", "redis"):
        assert lab.backup("now", "--kind", kind, check=False).returncode == 1
    # More than a segment, so that the receiver meets the full disk.
    lab.sql("CREATE TABLE more AS SELECT md5(n::text) FROM generate_series(1, 600000) AS n")
    lab.sql("INSERT INTO marks VALUES ('while full')")
    time.sleep(10)
    assert [entry["id"] for entry in lab.list()] == [entry["id"] for entry in before]
    lab.inside("import os; os.unlink('/backups/filler')")
    wait_for("the receiver", lambda: lab.metrics()["backup_wal_receiver_up"] == 1, lambda: lab.logs("backup"))
    after = mark(lab, "after")
    received(lab)
    assert lab.backup("now").returncode == 0
    assert lab.backup("verify").returncode == 0
    # Nothing is missing in the middle: from the base backup before it one gets past the time when the disk was full.
    target = lab.volume("target")
    lab.restore(disk, target, "--to", after)
    assert ask(lab, target, "SELECT string_agg(name, ', ') FROM marks") == "while full, after"
    lab.close()


def test_a_lost_volume_under_load_loses_no_more_than_the_measured_seconds(new_lab: Callable[[], Lab]) -> None:
    lab = new_lab()
    data = lab.volume("postgres")
    lab.start_postgres(data)
    lab.start_redis(lab.volume("redis"))
    lab.sql("SET ROLE samokoder_app; CREATE TABLE acks (n serial PRIMARY KEY, filler text)")
    lab.start_backup(lab.volume("backup"))
    lab.first_backups()
    acknowledged: list[tuple[int, float]] = []
    stop = threading.Event()

    def write() -> None:
        with_server = lab.connect()
        try:
            with with_server.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("INSERT INTO acks (filler) VALUES (repeat('x', 2000)) RETURNING n")
                    acknowledged.append((cursor.fetchone()[0], time.time()))
        except psycopg2.Error:
            pass  # it was killed

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(20)
    lab.kill("postgres")
    stop.set()
    for writer in writers:
        writer.join()
    lab.remove("postgres")
    lab.drop_volume(data)
    time.sleep(2)  # what was on its way has come or is lost

    old = lab.list("base")
    target = lab.volume("restored")
    began = time.monotonic()
    lab.restore(f"{lab.name}-backup", target, "--latest")
    rto = time.monotonic() - began
    lab.start_postgres(target)
    there = set(map(int, lab.sql("SELECT n FROM acks").split()))
    lost = [at for n, at in acknowledged if n not in there]
    rpo = max(at for _, at in acknowledged) - min(lost) if lost else 0.0
    print(f"{len(acknowledged)} acknowledged, {len(lost)} lost, RPO {rpo:.2f} s, RTO {rto:.1f} s")
    assert acknowledged
    assert rpo < RPO_SECONDS

    # It is another history now: a new slot, a new base backup, and the moments before are still there.
    wait_for(
        "a base backup of the restored database",
        lambda: [entry for entry in lab.list("base") if entry["id"] not in {each["id"] for each in old}],
        lambda: lab.logs("backup"),
    )
    assert lab.sql("SELECT active FROM pg_replication_slots") == "t"
    lab.sql("CREATE TABLE after_restore AS SELECT 1 AS one")
    received(lab)
    assert lab.backup("drill").returncode == 0
    assert lab.backup("check-restore", "--to", old[-1]["from"]).returncode == 0
    assert lab.backup("verify").returncode == 0
    again = lab.volume("again")
    lab.restore(f"{lab.name}-backup", again, "--to", old[-1]["to"])
    lab.close()
