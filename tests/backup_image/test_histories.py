"""`latest` is the newest moment of what is there now, or it is refused: never silently the end of what was before."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import barman, catalogue, database, jobs, restore, service, state, wal
from samokoder_backup.__main__ import main
from samokoder_backup.catalogue import Base
from samokoder_backup.drill import drill
from samokoder_backup.process import CannotError
from samokoder_backup.restore import Target
from tests.backup_image.folders import Home, home_at, one_wrong_byte, segment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A history whose last WAL is an hour old."""
    home = home_at(tmp_path, monkeypatch)
    home.base(home.ago(days=1))
    home.wal(2, home.ago(hours=1))
    return home


def as_told(moment: datetime) -> str:
    return moment.isoformat(sep=" ")


@pytest.mark.parametrize(
    "history", ["7000-2", "8000-1", "7000-1-20261129T101500Z"], ids=["after a restore", "an empty database", "a gap"]
)
@pytest.mark.parametrize("target", [Target(latest=True), Target(present=True)], ids=["latest", "the drill"])
def test_while_another_history_has_newer_wal_and_no_base_backup_latest_is_refused_and_both_moments_are_named(
    home: Home, history: str, target: Target
) -> None:
    assert restore.plan(target).source.id == f"{home.ago(days=1):%Y%m%dT%H%M%S}", "nothing is newer yet"
    home.wal(1, home.ago(minutes=2), history, received=True)
    with pytest.raises(CannotError) as refused:
        restore.plan(target)
    assert as_told(home.ago(minutes=2)) in str(refused.value), "what it would not have"
    assert as_told(home.ago(hours=1)) in str(refused.value), "what it would have"
    assert "\n" not in str(refused.value), "`make restore` shows the last line"
    assert restore.plan(Target(moment=home.ago(hours=1))).source, "a moment that is named is what somebody wants"
    home.base(home.ago(minutes=1), 2, history)
    found = restore.plan(Target(present=True)).source
    assert isinstance(found, Base)
    assert found.server == home.server(history)


@pytest.mark.parametrize("how", ["verified as bad", "its description is damaged"])
def test_where_the_first_base_backup_of_the_newer_history_is_bad_latest_is_refused_too(home: Home, how: str) -> None:
    base = home.base(home.ago(minutes=2), history="7000-2")
    if how == "verified as bad":
        state.record("verify", {"bad": {base: "one byte"}})
    else:
        one_wrong_byte(home.server("7000-2") / "meta" / f"{base}-backup.info")
    with pytest.raises(CannotError, match="which has no good base backup yet"):
        restore.plan(Target(latest=True))


def test_wal_of_a_history_before_is_no_reason_to_refuse(home: Home) -> None:
    home.base(home.ago(minutes=30), history="7000-2")
    home.wal(2, home.ago(minutes=29), "7000-2")
    found = restore.plan(Target(latest=True)).source
    assert isinstance(found, Base)
    assert found.server == home.server("7000-2")


def test_the_refusal_is_told_before_anything_is_touched(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.wal(1, home.ago(minutes=2), "7000-2", received=True)
    for words in (["check-restore", "--latest"], ["restore", "--latest", "--into", str(home.root / "into")]):
        assert main(words) == 2
        assert as_told(home.ago(minutes=2)) in capsys.readouterr().err.splitlines()[-1]
    assert not (home.root / "into").exists()


@pytest.fixture
def undone(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A restore of an hour ago was undone half an hour later, and the log of before goes on in the same segment."""
    home.wal(1, home.ago(minutes=30), "7000-2", received=True)
    monkeypatch.setattr(database, "connected", lambda _: nullcontext())
    monkeypatch.setattr(database, "identity", lambda _: database.Identity("7000", 1, segment(2)))
    monkeypatch.setattr(database, "slot", lambda *_: database.Slot(lost=False, active_pid=None, retained=0))
    marks = [""]
    monkeypatch.setattr(database, "mark", lambda _: marks[-1])
    monkeypatch.setattr(database, "set_mark", lambda _, new: marks.append(new))
    for _ in range(2):  # a second start before anything has come
        assert barman.attach(home.settings).server == home.server()
    home.wal(2, home.now)
    return home


def test_a_moment_of_a_restore_that_was_undone_is_not_what_was_before_it(
    undone: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    for minutes in (59, 31):
        with pytest.raises(CannotError, match="was on another history"):
            restore.plan(Target(moment=undone.ago(minutes=minutes)))
    for minutes in (61, 29):
        assert restore.plan(Target(moment=undone.ago(minutes=minutes))).source, "before and after it is in the log"
    assert main(["list", "--json"]) == 0
    (base,) = json.loads(capsys.readouterr().out)
    assert base["without"] == [{"from": undone.ago(hours=1).isoformat(), "to": undone.ago(minutes=30).isoformat()}]
    assert main(["list"]) == 0
    assert f"but {undone.ago(hours=1).isoformat()} .. " in capsys.readouterr().out
    assert restore.plan(Target(latest=True)).source, "now it is the newest again"


def test_a_moment_of_it_that_its_own_base_backup_reaches_is_restored_from_that_one(undone: Home) -> None:
    base = undone.base(undone.ago(minutes=50), history="7000-2")
    undone.wal(1, undone.ago(minutes=30), "7000-2")
    found = restore.plan(Target(moment=undone.ago(minutes=40))).source
    assert (found.id, isinstance(found, Base) and found.server) == (base, undone.server("7000-2"))


def test_a_pause_that_cannot_be_noted_does_not_keep_the_log_from_being_received(
    home: Home, undone: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    undone.wal(1, undone.now + timedelta(seconds=30), "7000-2", received=True)
    monkeypatch.setattr(catalogue, "write", full)
    assert barman.attach(home.settings).server == home.server()
    assert "cannot be noted: " in capsys.readouterr().err


def test_a_pause_that_could_not_be_noted_is_noted_once_that_works(
    home: Home, undone: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (home.server() / catalogue.PAUSES).unlink()
    undone.wal(2, undone.ago(hours=1))
    it = service.Service(home.settings)
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "write", full)
        it._attach()
        undone.wal(2, undone.now)
        it._mark_again(cast("Connection", None))
    pause = undone.ago(hours=1), undone.ago(minutes=30)
    assert catalogue.pauses(home.server()) == [pause], "a restore is another process, and this one may die meanwhile"
    it._mark_again(cast("Connection", None))
    it._mark_again(cast("Connection", None))
    assert catalogue.pauses(home.server()) == [pause], "as it was seen then"
    assert not list(home.server().glob("samokoder-pause-*")), "it is noted twice for good"


def test_a_pause_that_a_full_disk_took_by_its_name_alone_holds_beside_a_file_that_cannot_be_read(
    home: Home, undone: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    noted, now = home.server() / catalogue.PAUSES, undone.now
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "write", full)
        with pytest.raises(OSError, match="No space"):
            catalogue.note_pause(home.server(), undone.ago(minutes=9).timestamp(), undone.ago(minutes=5).timestamp())
    noted.write_text("[")
    os.utime(noted, (undone.ago(minutes=20).timestamp(),) * 2)
    later = undone.ago(minutes=9), undone.ago(minutes=5)
    assert catalogue.pauses(home.server()) == [(catalogue.FORGOTTEN, undone.ago(minutes=20)), later]
    catalogue.note_pause(home.server(), undone.ago(minutes=2).timestamp(), now.timestamp())
    assert later in catalogue.pauses(home.server()), "it was in the name of a file that is gone"


@pytest.mark.parametrize("command", ["check-restore", "restore"])
def test_retention_removes_nothing_while_a_restore_is_asked_for_or_made(
    home: Home, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def planned(_: Target) -> restore.Plan:
        with (home.root / "lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise CannotError("the lock was held")

    monkeypatch.setattr(restore, "plan", planned)
    assert main([command, "--latest", "--into", str(home.root.parent / "into")]) == CannotError.status


def test_a_drill_does_not_prove_the_history_before(home: Home) -> None:
    home.wal(1, home.ago(minutes=2), "7000-2", received=True)
    with pytest.raises(CannotError, match="which has no good base backup yet"):
        drill(home.settings)


def test_a_drill_of_dumps_takes_the_newest_good_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = home.copy(home.ago(days=2)), home.copy(home.ago(days=1))
    state.record("verify", {"bad": {bad: "one byte"}})
    settings = home.settings.model_copy(update={"physical": False})
    planned: list[str] = []

    def check(plan: restore.Plan, _into: Path) -> None:
        planned.append(plan.source.id)
        raise CannotError("far enough")

    monkeypatch.setattr(restore, "check", check)
    with pytest.raises(CannotError, match="far enough"):
        drill(settings)
    assert planned == [good]


@pytest.mark.parametrize("end", [".compressed", ".tmp"])
def test_what_barman_has_half_compressed_is_no_damaged_log(
    home: Home, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It lies there for a moment with each segment, and for good where Barman was killed."""
    server = home.server()
    segment = home.wal(3, home.ago(minutes=1))
    half = segment.with_name(f"{segment.name}{end}")
    half.write_bytes(gzip.compress(b"wal" * 100)[:-5])
    wal.note(server)
    assert "damaged" not in capsys.readouterr().err
    assert jobs.verify() is True, "the alert of bad backups would fire, and tell a good chain is broken"
    assert segment in wal.archived(server)
