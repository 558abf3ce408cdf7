"""Damaged, unreadable and unverified backups by the real image, with real servers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.backup_image.conftest import DATA, Lab, docker, wait_for
from tests.backup_image.test_backups import ask, one_wrong_byte, received
from tests.small_disk import small_disk

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]


@pytest.fixture
def own_lab(new_lab: Callable[[], Lab]) -> Iterator[Lab]:
    """An environment of the test's own, with its first backups, each kind made once more."""
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    lab.sql("CREATE TABLE marks (name text PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    lab.start_backup(lab.volume("backup"))
    lab.first_backups()
    assert lab.backup("now").returncode == 0
    yield lab
    lab.close()


def exists(lab: Lab, pattern: str) -> bool:
    return lab.inside(f"import pathlib; print(*pathlib.Path('/backups').glob('{pattern}'))") != ""


TWO_DAYS_AGO = """
import datetime, pathlib
from samokoder_backup.process import sealed, unsealed
at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
(note,) = pathlib.Path('/backups').glob('*/{id}.json')
(copy,) = pathlib.Path('/backups').glob('*/{id}.[dr]*')
name = f'{kind}-{{at:%Y%m%dT%H%M%SZ}}'
note.write_text(sealed({{**unsealed(note.read_text()), 'finished': at.isoformat()}}))
copy.rename(copy.with_stem(name))
note.rename(note.with_stem(name))
print(name)
"""


@pytest.mark.parametrize("kind", ["dump", "redis"])
def test_a_damaged_description_costs_no_copy_and_is_told_at_once(lab: Lab, kind: str) -> None:
    damaged = lab.inside(TWO_DAYS_AGO.format(id=lab.list(kind)[-1]["id"], kind=kind))
    assert lab.backup("now", "--kind", kind).returncode == 0
    with one_wrong_byte(lab, f"*/{damaged}.json", "0"):
        time.sleep(1)  # the next one has another name
        assert lab.backup("now", "--kind", kind).returncode == 0
        assert exists(lab, f"*/{damaged}.[dr]*"), "the copy itself is good"
        assert {entry["id"]: entry["status"] for entry in lab.list(kind)}[damaged] == "bad"
        assert lab.metrics()["backup_verify_failed"] == 1, "it wakes somebody before the next verification"
        refused = lab.backup("check-restore", "--backup", damaged, check=False)
        assert (refused.returncode, "cannot be read" in refused.stderr) == (2, True)
    assert lab.backup("verify").returncode == 0
    assert lab.metrics()["backup_verify_failed"] == 0


FLIP_INFO = """
import pathlib
(path,) = pathlib.Path('/backups/barman').glob('main-*/meta/{id}-backup.info*')
data = bytearray(path.read_bytes())
data[data.index(b'{where}')] ^= 0x40
path.write_bytes(data)
print(path.name)
"""


@pytest.mark.parametrize(("where", "barmans"), [("DONE", "FONE"), ("size=", "3ize=")])
def test_a_damaged_description_costs_no_base_backup_and_barman_goes_on(own_lab: Lab, where: str, barmans: str) -> None:
    lab = own_lab
    damaged = lab.list("base")[0]["id"]
    lab.inside(FLIP_INFO.format(id=damaged, where=where))
    assert lab.backup("now", "--kind", "base").returncode == 0, f"what Barman cannot read ends it: {barmans}"
    assert exists(lab, f"barman/main-*/base/{damaged}/data/base.tar.gz"), "the archive is good"
    assert {entry["id"]: entry["status"] for entry in lab.list("base")}[damaged] == "bad"
    found = lab.backup("verify", "--json", check=False)
    assert (found.returncode, list(json.loads(found.stdout))) == (1, [damaged])
    assert lab.backup("check-restore", "--latest").returncode == 0
    mended = lab.inside(FLIP_INFO.format(id=damaged, where=chr(ord(where[0]) ^ 0x40) + where[1:]))
    assert mended.endswith(".apart"), "it was out of Barman's sight"
    assert lab.backup("verify").returncode == 0
    assert lab.backup("now", "--kind", "base").returncode == 0
    assert {entry["status"] for entry in lab.list("base")} == {"good"}
    assert exists(lab, f"barman/main-*/meta/{damaged}-backup.info"), (
        "it is Barman's again, and goes when its time is over"
    )


def test_a_file_that_may_not_be_read_does_not_end_the_verification_of_the_others(own_lab: Lab) -> None:
    lab = own_lab
    unreadable, later = (entry["id"] for entry in lab.list("dump"))
    lab.inside(f"import os; os.chmod('/backups/dumps/{unreadable}.dump', 0)")
    with one_wrong_byte(lab, f"dumps/{later}.dump"):
        found = lab.backup("verify", "--json", check=False)
        assert set(json.loads(found.stdout)) == {unreadable, later}, found.stderr
    lab.inside(f"import os; os.chmod('/backups/dumps/{unreadable}.dump', 0o600)")
    assert lab.backup("verify").returncode == 0


# Between Barman's work and the verification, one byte of the archive changes; and no older base backup is there.
DAMAGE_THE_NEXT = """
import shutil
from samokoder_backup import barman, jobs, settings
real = barman.verify
def damaged(base):
    path = base.folder / 'data' / 'base.tar.gz'
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for other in barman.bases():
        if {alone} and other.id != base.id:
            shutil.rmtree(other.folder)
            (base.server / 'meta' / f'{{other.id}}-backup.info').unlink()
    real(base)
barman.verify = damaged
print(jobs.backup(settings.load(), 'base'))
"""


def test_a_base_backup_that_fails_its_verification_is_not_what_latest_takes(own_lab: Lab) -> None:
    lab = own_lab
    before = [entry["id"] for entry in lab.list("base")]
    assert lab.inside(DAMAGE_THE_NEXT.format(alone=False)) == "False"
    bad = lab.list("base")[-1]
    assert bad["id"] not in before
    assert bad["status"] == "bad", "nobody has verified it since"
    assert lab.metrics()["backup_verify_failed"] == 1
    lab.sql("INSERT INTO marks VALUES ('after')")
    planned = json.loads(lab.backup("check-restore", "--latest").stdout)
    assert planned["backup"] == before[-1]
    assert lab.backup("drill").returncode == 0


def test_a_base_backup_that_fails_its_verification_is_made_again_by_the_service(own_lab: Lab) -> None:
    lab = own_lab
    assert lab.inside(DAMAGE_THE_NEXT.format(alone=True)) == "False"
    (bad,) = [entry["id"] for entry in lab.list("base") if entry["status"] == "bad"]
    wait_for(
        "another base backup",
        lambda: [entry for entry in lab.list("base") if entry["status"] == "good"],
        lambda: lab.logs("backup"),
    )
    assert exists(lab, f"barman/main-*/base/{bad}/data/base.tar.gz"), "the bad one stays"


@pytest.fixture
def disk() -> Iterator[str]:
    """A folder on a file system of its own, of 600 MiB."""
    with small_disk(600, owner=999) as mounted:
        yield str(mounted)


def test_a_base_backup_that_there_is_no_room_to_unpack_is_not_bad_and_the_disk_is_not_filled(
    new_lab: Callable[[], Lab], disk: str
) -> None:
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    lab.start_backup(disk)
    lab.first_backups()
    lab.sql("CREATE TABLE big (text text)")
    for _ in range(8):
        lab.sql("INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 60000)")
        time.sleep(3)  # the receiver follows
    made = lab.backup("now", "--kind", "base", check=False)
    assert made.returncode == 1, "somebody is told"
    assert "MiB are needed to unpack" in made.stderr, made.stderr
    newest = lab.list("base")[-1]
    assert newest["status"] == "unverified"
    found = lab.backup("verify", "--json", check=False)
    assert (found.returncode, json.loads(found.stdout)) == (1, {}), "the base backup is good, and is kept as such"
    lab.close()


def test_after_a_restore_latest_is_refused_until_the_new_history_has_its_base_backup(own_lab: Lab) -> None:
    lab = own_lab
    lab.sql("INSERT INTO marks VALUES ('before')")
    received(lab)
    lab.remove("postgres")
    target = lab.volume("restored")
    lab.restore(f"{lab.name}-backup", target, "--latest")
    end = lab.list("base")[-1]["to"].replace("T", " ")
    # One sender is the receiver's, so that base backups fail; and they may do so for hours.
    few = f"echo max_wal_senders=1 >> {DATA}/postgresql.auto.conf"
    mounts = ("--user=999:999", f"--volume={target}:{DATA}", "--entrypoint=sh")
    docker("run", "--rm", *mounts, lab.images.image("postgres"), "-c", few)
    lab.start_postgres(target)
    lab.sql("INSERT INTO marks VALUES ('after')")
    wait_for("the new history", lambda: exists(lab, "barman/main-*-2/streaming/*"), lambda: lab.logs("backup"))
    wait_for("its WAL", lambda: lab.backup("check-restore", "--latest", check=False).returncode == 2)
    refused = lab.backup("check-restore", "--latest", check=False)
    assert "which has no good base backup yet" in refused.stderr, "the end of the history before has no 'after' in it"
    assert end in refused.stderr, f"it names what could be restored: {end}"
    drilled = lab.backup("drill", check=False)
    assert drilled.returncode == 1, "it would prove what nobody would restore"
    assert "which has no good base backup yet" in drilled.stderr
    assert lab.backup("check-restore", "--to", end).returncode == 0, "who names it means it"
    lab.sql("ALTER SYSTEM RESET max_wal_senders")
    docker("restart", f"{lab.name}-postgres")
    wait_for(
        "a base backup of the new history",
        lambda: lab.backup("check-restore", "--latest", check=False).returncode == 0,
        lambda: lab.logs("backup"),
    )
    again = lab.volume("again")
    lab.restore(f"{lab.name}-backup", again, "--latest")
    assert ask(lab, again, "SELECT string_agg(name, ', ' ORDER BY name) FROM marks") == "after, before"
