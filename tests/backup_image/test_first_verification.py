"""A base backup counts once it was verified: until then, and where that fails, nothing is built on it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest

from samokoder_backup import barman, database, jobs, process, restore, retention, service, settings, state
from samokoder_backup.catalogue import Base, bases
from samokoder_backup.process import BackupError
from samokoder_backup.restore import Target
from tests.backup_image.folders import Home, home_at

MIB = 2**20


class Usage(NamedTuple):
    """As of a disk of a terabyte."""

    total: int
    used: int
    free: int


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return home_at(tmp_path, monkeypatch)


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - size, size))


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Programs that were run: `tar` and `pg_verifybackup` do well, unless an error is put in the place of a name."""
    ran: list[str] = []

    def run(command: list[str | Path], *, what: str, environment: object = None) -> str:
        ran.append(str(command[0]))
        return ""

    monkeypatch.setattr(barman, "run", run)
    return ran


def taking(home: Home, monkeypatch: pytest.MonkeyPatch, *, content: str = '{"Files": []}') -> list[str]:
    """Let a run make one more base backup, by the size that its manifest tells; gives those that were made."""
    made: list[str] = []

    def take(_settings: settings.Settings, _bad: object) -> Base:
        made.append(home.base(home.ago(minutes=5 - len(made)), 5 + len(made), verified=False))
        (base,) = (each for each in bases() if each.id == made[-1])
        (base.folder / "data" / "backup_manifest").write_text(content)
        return base

    monkeypatch.setattr(barman, "take", take)
    return made


def looking(home: Home, name: settings.Kind = "base") -> float | None:
    """Say when the service thinks that the newest backup was made that counts."""
    it = service.Service(home.settings)
    it._server = home.server()
    return it._newest(name)


def test_a_base_backup_that_fails_its_first_verification_is_bad_at_once_and_is_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = home.base(home.ago(days=1))
    for number in range(2, 8):
        home.wal(number, home.ago(minutes=1))
    made = taking(home, monkeypatch)

    def failing(*_: object, what: str, **__: object) -> str:
        raise BackupError(f"{what}: manifest checksum mismatch")

    monkeypatch.setattr(barman, "run", failing)
    assert jobs.backup(home.settings, "base") is False
    assert home.listed(capsys) == {older: "good", made[0]: "bad"}, "it is told before the next verification"
    assert restore.plan(Target(latest=True)).source.id == older, "`latest` begins with one that is good"
    assert looking(home) == home.ago(days=1).timestamp(), "so that the next one is due as if it was not there"
    assert "mismatch" in state.read()["base"]["error"]
    jobs.backup(home.settings, "base")
    assert set(made) <= state.bad().keys(), "the second one does not make the first one good"


def test_of_the_very_first_base_backup_that_is_bad_another_one_is_due_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    taking(home, monkeypatch, content="no manifest")
    assert jobs.backup(home.settings, "base") is False
    assert looking(home) is None


def test_where_there_is_no_room_to_unpack_it_a_base_backup_is_neither_good_nor_bad(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], programs: list[str]
) -> None:
    older = home.base(home.ago(days=1))
    for number in range(2, 8):
        home.wal(number, home.ago(minutes=1))
    made = taking(home, monkeypatch, content=f'{{"Files": [{{"Size": {300 * MIB}}}]}}')
    free(monkeypatch, 500 * MIB)
    retired: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(retention, "retire", lambda *_: retired.append("base"))
        assert jobs.backup(home.settings, "base") is False, "somebody is told that it was not verified"
    assert retired == ["base"], "the base backups and the log of each day would fill the disk"
    assert programs == [], "the disk is PostgreSQL's, too: nothing is unpacked that may fill it"
    assert home.listed(capsys) == {older: "good", made[0]: "unverified"}
    assert restore.plan(Target(latest=True)).source.id == older, "the one that is known to be good leads there, too"
    moment = home.ago(minutes=2)
    assert restore.plan(Target(moment=moment)).source.id == older
    assert jobs.verify() is False
    assert state.bad() == {}
    assert made[0] in state.read()["verify"]["error"]
    free(monkeypatch, 600 * MIB)
    assert jobs.verify() is True
    assert home.listed(capsys)[made[0]] == "good"
    assert restore.plan(Target(latest=True)).source.id == made[0]


def test_an_unverified_base_backup_is_used_where_no_verified_one_leads(home: Home) -> None:
    home.base(home.ago(days=2))  # WAL does not go on from it
    only = home.base(home.ago(hours=1), 9, verified=False)
    assert restore.plan(Target(latest=True)).source.id == only
    assert restore.plan(Target(moment=home.ago(hours=1))).source.id == only


def test_a_disk_that_fills_up_while_it_is_unpacked_makes_no_base_backup_bad(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = taking(home, monkeypatch)

    def full(command: list[str], *, what: str, **_: object) -> str:
        return process.run(["sh", "-c", "echo 'tar: base: No space left on device' >&2; exit 2"], what=what)

    monkeypatch.setattr(barman, "run", full)
    assert jobs.backup(home.settings, "base") is False
    assert state.bad() == {}
    assert made
    assert not (home.root / "scratch" / "verify").exists(), "what was unpacked gives its room back"


def test_after_one_that_is_bad_room_for_the_databases_is_asked_for_beside_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = home.base(home.ago(hours=1), verified=False)
    monkeypatch.setattr(database, "connected", nullcontext)
    monkeypatch.setattr(database, "end_backups", lambda _: None)
    monkeypatch.setattr(database, "size", lambda _: 10**9)
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    free(monkeypatch, 300 * MIB)
    reached: list[str] = []

    def first_wal(*_: object) -> None:
        reached.append("room")
        raise BackupError("far enough")

    monkeypatch.setattr(barman, "_first_wal", first_wal)
    for known, expected in (({}, "far enough"), ({bad: "one byte"}, "1209 MiB are needed")):
        with pytest.raises(BackupError, match=expected):
            barman.take(home.settings, known)
    assert reached == ["room"]


def made_beside(home: Home, monkeypatch: pytest.MonkeyPatch, lay: Callable[[], object]) -> list[str]:
    """Ask for a base backup while something else holds the lock and lays down another; gives those that were made."""
    made, waits = taking(home, monkeypatch), threading.Event()
    monkeypatch.setattr(process, "say", lambda _: waits.set())
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    monkeypatch.setattr(barman, "run", lambda *_, **__: "")
    asked = threading.Thread(target=jobs.backup, args=(home.settings, "base"))
    with process.exclusive(home.root / "lock"):
        asked.start()
        assert waits.wait(60), "it waits for the lock"
        lay()
    asked.join(60)
    assert not asked.is_alive()
    assert state.read()["base"]["exit"] == 0
    return made


def test_a_base_backup_that_came_to_its_end_meanwhile_is_not_made_a_second_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.base(home.ago(days=1))
    assert made_beside(home, monkeypatch, lambda: home.base(home.ago(minutes=1), 2)) == [], (
        "after a restore the service and `make restore` both want the first one, and each takes as long as the database"
    )
    assert state.read()["base"]["id"] == f"{home.ago(minutes=1):%Y%m%dT%H%M%S}"


@pytest.mark.parametrize("how", ["there before", "not verified", "bad", "of another history", "WAL does not lead on"])
def test_a_base_backup_that_is_not_as_good_as_the_one_that_is_asked_for_is_not_taken_for_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    base = home.base(home.ago(minutes=3), verified=how != "there before")

    def lay() -> None:
        if how == "there before":  # a verification had the lock
            (noted,) = (each.noted for each in bases())
            noted.write_text(json.dumps({"backup.info": process.sha256(bases()[0].info)}))
            assert bases()
            return
        made = home.base(
            home.ago(minutes=1),
            2,
            "8000-1" if how == "of another history" else "7000-1",
            verified=how != "not verified",
        )
        if how == "bad":
            state.record("verify", {"bad": {made: "one byte"}})
        if how == "WAL does not lead on":
            home.wal(9, home.ago(seconds=30))

    made = made_beside(home, monkeypatch, lay)
    assert len(made) == 1, "nothing leads on from the other one to what is there now"
    assert base not in made


def test_base_backups_that_are_bad_for_a_lasting_reason_do_not_fill_the_disk_and_are_made_once_a_day(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = home.base(home.ago(days=1))
    for number in range(2, 9):
        home.wal(number, home.ago(minutes=1))
    made = taking(home, monkeypatch, content="no manifest")
    it = service.Service(home.settings)
    it._server = home.server()
    tried = 0
    while it._may_succeed() and tried < 10:
        assert jobs.backup(home.settings, "base") is False, "somebody is told each time"
        tried += 1
    assert tried == retention.KEPT_FAILING, "it would be made again each hour"
    assert "2 in a row are: the next one is made in a day, or by hand" in state.read()["base"]["error"]
    assert it._newest("base") == home.ago(days=1).timestamp(), "the alert of a late base backup goes by the good one"
    jobs.backup(home.settings, "base")  # by hand, or a day later
    listed = home.listed(capsys)
    assert listed[good] == "good"
    assert list(listed.values()).count("bad") == retention.KEPT_FAILING, "the last one is there for whoever looks at it"
    assert made[0] not in listed, "each of them would stay until the disk is full"
    assert made[0] not in state.bad(), "an alert would tell of what is no more"
    assert service.Service(home.settings)._may_succeed(), "no history is received yet"


def test_a_base_backup_that_was_good_once_is_not_removed_for_others_that_are_bad(home: Home) -> None:
    bad = {home.base(home.ago(hours=9 - number), number): "one byte" for number in range(2, 6)}
    assert retention.thin(home.settings, home.server(), bad) == [], "most of it can be read"
    never = [home.base(home.ago(minutes=30 - number), 10 + number, verified=False) for number in range(4)]
    assert retention.thin(home.settings, home.server(), bad) == [], "nobody has looked at these yet"
    bad |= dict.fromkeys(never, "one byte")
    assert retention.thin(home.settings, home.server(), bad) == never[:2]
    assert {base.id for base in bases()} == bad.keys() - set(never[:2])


def test_a_day_after_the_last_bad_one_another_base_backup_is_tried(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    never = [home.base(home.ago(hours=hours), 30 - hours, verified=False) for hours in (26, 25)]
    state.record("verify", {"bad": dict.fromkeys(never, "a tablespace")})
    it = service.Service(home.settings)
    it._server = home.server()
    assert it._may_succeed(), "the reason may be mended by now"
    state.record("verify", {"bad": {}})
    assert it._may_succeed()


def test_the_first_segment_of_a_history_ends_only_once_it_is_received(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, looks = home.server(), list[str]()

    def slot(_connection: object, _name: str) -> database.Slot | None:
        looks.append("slot")
        return {1: None, 2: database.Slot(lost=False, active_pid=None, retained=0)}.get(
            len(looks), database.Slot(lost=False, active_pid=7, retained=0)
        )

    def finish_segment(_: object) -> None:
        looks.append("ended")
        if looks.count("slot") > 2:
            home.wal(2, home.now)

    monkeypatch.setattr(database, "slot", slot)
    monkeypatch.setattr(database, "finish_segment", finish_segment)
    monkeypatch.setattr(barman, "archive", lambda *_: None)
    monkeypatch.setattr(barman, "_ARCHIVE_SECONDS", 10)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    barman._first_wal(home.settings, server, object())  # type: ignore[arg-type]
    assert looks == ["slot", "slot", "slot", "ended"], (
        "one that ended before the receiver began never comes: the base backup of a restore would fail after minutes"
    )
