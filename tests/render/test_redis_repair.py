"""A damaged file of Redis' data: what is mended, what is lost, and that it is said. `repair_redis.sh`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from host.progress import Task
from operations.data.restore import mending
from operations.data.restore.request import Mend
from operations.errors import ProjectError
from stack.settings.environment import Environment
from tests import queued
from tests.render.conftest import Laboratory, wait_until
from tests.render.redis_part import Kept, keep_users, kept_redis

pytestmark = [pytest.mark.live, pytest.mark.long]

COUNT = 100
FOLDER = "/data/appendonlydir"
INCR, BASE, MANIFEST = (f"{FOLDER}/appendonly.aof.{name}" for name in ("1.incr.aof", "1.base.rdb", "manifest"))


@dataclass
class Damaged:
    """Redis that has as many jobs as keys, and was stopped; then its volume is damaged."""

    kept: Kept
    before: dict[str, object] = field(default_factory=dict)

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        return mending.mend(self.kept.container, way, self.kept.volume, into=into, task=Task(""))

    def why(self, way: Mend) -> str:
        with pytest.raises(ProjectError) as caught:
            self.mend(way)
        return str(caught.value)

    def refuses_to_start(self) -> str:
        """Start it, and return why it ends."""
        self.kept.container.start()
        assert self.kept.container.wait(timeout=60)["StatusCode"] != 0, "it would serve damaged data, or none"
        return str(self.kept.container.logs(tail=20).decode())

    def put(self, way: Mend) -> dict[str, str]:
        """Mend it as a repair does, beside, and start Redis over what came of it."""
        kept = self.kept
        volume = kept.laboratory.client.volumes.create(f"{kept.volume}-mended", labels=kept.laboratory.labels)
        said = self.mend(way, str(volume.name))
        kept.container.remove()
        damaged, kept.volume = kept.volume, str(volume.name)
        kept.start()
        self.kept.laboratory.client.volumes.get(damaged).remove()
        return said

    def listing(self) -> str:
        return self.kept.shell("cd /data && find . -type f -exec md5sum {} + | sort")


@pytest.fixture
def damaged(laboratory: Laboratory, environment: Environment) -> Iterator[Damaged]:
    with kept_redis(laboratory, environment) as kept:
        kept.start()
        keep_users(laboratory, environment).remove(force=True)
        queued.put(kept.host, kept.password, COUNT)
        with kept.client() as client:
            time.sleep(1.1)  # the file notes each second once
            for number in range(COUNT):
                client.set(f"key {number}", number)
        kept.settle()
        before = kept.seen()
        kept.container.stop()
        yield Damaged(kept, before)


AT_ITS_END = {
    "zeros": f"head -c 4096 /dev/zero >> {INCR}",
    "noise": f"head -c 4096 /dev/urandom >> {INCR}",
}


@pytest.mark.parametrize("damage", AT_ITS_END)
def test_bytes_behind_the_end_are_cut_off_and_what_was_written_is_kept(damaged: Damaged, damage: str) -> None:
    damaged.kept.shell(AT_ITS_END[damage])
    assert "Bad file format" in damaged.refuses_to_start()
    assert "Bad file format" in damaged.why("read")
    before = damaged.listing()
    said = damaged.mend("cut")
    assert damaged.listing() == before, "a look has changed the only data there is"
    assert damaged.put("cut") == said, "what was told before is what is done"
    assert (said["bytes"], said["refused"]) == ("4096", "0"), said
    assert damaged.kept.seen() == damaged.before
    assert queued.run(damaged.kept.host, damaged.kept.password) == queued.once(COUNT), "a job was lost, or ran twice"


def test_damage_in_the_middle_costs_what_follows_and_how_much_is_said_in_commands_and_seconds(damaged: Damaged) -> None:
    # The length of a value becomes a letter, half way through the keys.
    at = damaged.kept.shell(f"grep -abo 'key 50' {INCR} | cut -d : -f 1 | tail -n 1").strip()
    damaged.kept.shell(f"printf 'X' | dd of={INCR} bs=1 seek=$(({at} - 4)) conv=notrunc status=none")
    assert "Bad file format" in damaged.refuses_to_start()
    said = damaged.put("cut")
    kept = {key for key in damaged.kept.seen() if key.startswith("0 key ")}
    assert kept == {f"0 key {number}" for number in range(50)}
    assert int(said["commands"]) == 50, said
    assert 0 <= int(said["written"]) - int(said["kept"]) < 60, said
    assert int(said["keys"]) == len(damaged.kept.seen()) - 1, "the library of functions is no key"
    assert queued.run(damaged.kept.host, damaged.kept.password) == queued.once(COUNT), "what comes before it is kept"


def test_a_command_that_does_not_exist_ends_the_file_at_the_second_before_it(damaged: Damaged) -> None:
    # A job is a SET in the file too, so one of the keys alone.
    at = damaged.kept.shell(f"grep -abo 'key 50' {INCR} | cut -d : -f 1 | tail -n 1").strip()
    damaged.kept.shell(f"printf SXT | dd of={INCR} bs=1 seek=$(({at} - 9)) conv=notrunc status=none")
    assert "Unknown command 'SXT'" in damaged.refuses_to_start()
    said = damaged.put("cut")
    assert int(said["commands"]) >= 50, said
    assert queued.run(damaged.kept.host, damaged.kept.password) == queued.once(COUNT)


def test_a_damaged_base_cannot_be_cut_and_the_snapshot_is_read_in_its_place(damaged: Damaged) -> None:
    kept = damaged.kept
    kept.container.start()
    kept.ready()
    kept.container.kill()  # no snapshot at this end
    kept.container.wait()
    kept.shell(f"printf XXXX | dd of={BASE} bs=1 seek=30 conv=notrunc status=none")
    log = damaged.refuses_to_start()
    assert "RDB" in log, log
    assert "RDB" in damaged.why("cut")
    said = damaged.put("snapshot")
    assert int(said["kept"]) > time.time() - 600, said
    now = damaged.kept.seen()
    assert now == damaged.before, "the first clean end has written a snapshot with all of it"
    damaged.kept.kill()
    assert damaged.kept.seen() == damaged.before, "and an append-only file is made of it"


def test_a_damaged_base_without_a_snapshot_has_no_way_but_a_copy_of_the_backups(damaged: Damaged) -> None:
    damaged.kept.shell(f"printf XXXX | dd of={BASE} bs=1 seek=30 conv=notrunc status=none; rm /data/dump.rdb")
    assert damaged.why("snapshot") == "There is no snapshot"
    damaged.why("cut")


def test_a_damaged_snapshot_is_refused(damaged: Damaged) -> None:
    damaged.kept.shell("printf XXXX | dd of=/data/dump.rdb bs=1 seek=30 conv=notrunc status=none")
    assert "RDB" in damaged.why("snapshot")


LISTS = {
    "a name in it is changed": f"printf XXXX | dd of={MANIFEST} bs=1 seek=10 conv=notrunc status=none",
    "it is empty": f": > {MANIFEST}",
    "it is noise": f"head -c 100 /dev/urandom > {MANIFEST}",
    "it is gone": f"rm {MANIFEST}",
}


@pytest.mark.parametrize("damage", LISTS)
def test_a_damaged_list_of_the_parts_is_made_anew_and_nothing_is_lost(damaged: Damaged, damage: str) -> None:
    damaged.kept.shell(LISTS[damage])
    before = damaged.listing().replace("users.acl", "")
    damaged.refuses_to_start()
    parts = [line for line in before.splitlines() if "appendonlydir" in line]
    assert set(parts) <= set(damaged.listing().splitlines()), "Redis began empty and wrote over what it did not know"
    damaged.why("read")
    said = damaged.put("cut")
    assert said["list"] == "anew", said
    assert said["bytes"] == "0", said
    assert damaged.kept.seen() == damaged.before
    assert queued.run(damaged.kept.host, damaged.kept.password) == queued.once(COUNT)


def test_a_list_that_is_in_doubt_is_not_made_anew(damaged: Damaged) -> None:
    damaged.kept.shell(f": > {MANIFEST}; cp {BASE} {FOLDER}/appendonly.aof.2.base.rdb")
    assert "in doubt" in damaged.why("cut")


def test_what_is_not_damaged_is_read_as_it_is_and_nothing_of_it_is_cut(damaged: Damaged) -> None:
    keys = str(sum(key.startswith(("0 ", "3 ")) for key in damaged.before))
    assert damaged.mend("read") == {"keys": keys, "refused": "0"}
    assert damaged.mend("cut") | {"kept": "", "written": ""} == {
        "keys": keys,
        "refused": "0",
        "bytes": "0",
        "commands": "0",
        "kept": "",
        "written": "",
    }


def test_half_of_the_data_is_no_data(damaged: Damaged) -> None:
    damaged.kept.shell("touch /data/.samokoder-copying")
    ways: Mapping[Mend, str] = {way: damaged.why(way) for way in ("read", "cut", "snapshot")}
    assert all("make restore" in why for why in ways.values()), ways


def test_a_first_start_that_is_killed_wherever_it_is_starts_again(kept: Kept) -> None:
    kept.start()
    for hundredths in range(0, 40, 2):
        kept.container.kill()
        kept.container.wait()
        kept.shell("rm -rf /data/* /data/.samokoder*")
        kept.container.start()
        time.sleep(hundredths / 100)
    wait_until(kept.container, lambda: True)
    kept.container.kill()
    kept.container.wait()
    kept.container.start()
    kept.ready()


@pytest.fixture
def kept(laboratory: Laboratory, environment: Environment) -> Iterator[Kept]:
    with kept_redis(laboratory, environment) as made:
        yield made
