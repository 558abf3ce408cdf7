"""What is removed takes with it no WAL that something else needs, and no base backup that a moment is reached from."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from samokoder_backup import barman, catalogue, entries, jobs, restore, retention, settings, wal
from samokoder_backup.__main__ import main
from samokoder_backup.restore import Target
from tests.backup_image.folders import Home, home_at, one_wrong_byte, segment

YEAR = timedelta(days=365)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The real Barman removes, and PostgreSQL is on the first history."""
    home = home_at(tmp_path, monkeypatch)
    (tmp_path / "etc" / "postgres_password").write_text("not used")
    settings.RUN.mkdir()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    return home


def is_archived(home: Home, last: int) -> None:
    """Let Barman know the WAL up to a file, all of which is there."""
    for number in range(1, last + 1):
        if not wal.locate(home.server(), segment(number)):
            home.wal(number, home.ago(minutes=1))
    known = "".join(f"{segment(number)}\t3\t1.0\tgzip\n" for number in range(1, last + 1))
    (home.server() / "wals" / "xlog.db").write_text(known)


def first_wal(home: Home) -> str:
    return min(path.name for path in wal.archived(home.server()))


def test_a_base_backup_out_of_barmans_sight_keeps_its_wal_while_others_that_were_never_good_go(home: Home) -> None:
    good = home.base(home.ago(days=2))
    never = [home.base(home.ago(hours=hours), 40 - hours, verified=False) for hours in (30, 29, 28)]
    is_archived(home, 14)
    info = home.server() / "meta" / f"{good}-backup.info"
    one_wrong_byte(info)
    catalogue.remove_leftovers()
    assert retention.thin(home.settings, home.server(), dict.fromkeys(never, "one byte")) == never[:1]
    assert not (home.server() / "base" / never[0]).exists()
    assert first_wal(home) == segment(1), "the only good base backup could never be restored again"
    one_wrong_byte(info.with_name(f"{info.name}.apart"))
    assert restore.plan(Target(backup=good)).source.id == good, "its one byte was mended"


def test_wal_that_nothing_needs_goes_with_what_was_never_good(home: Home) -> None:
    never = [home.base(home.ago(hours=hours), 40 - hours, verified=False) for hours in (30, 29, 28)]
    is_archived(home, 14)
    assert retention.thin(home.settings, home.server(), dict.fromkeys(never, "one byte")) == never[:1]
    assert first_wal(home) == segment(11), "for weeks without a good base backup it would fill the disk"


# Of what stays: Barman sees it; it was mended since; it was made by a clock that was ahead; it has one wrong byte.
# "ahead": that one is older by the log, and so does not stay.
@pytest.mark.parametrize("how", ["seen", "mended", "ahead", "ahead and newer", "damaged"])
def test_wal_goes_with_old_base_backups_only_where_nothing_that_stays_needs_it(home: Home, how: str) -> None:
    old = [home.base(home.ago(days=days), number) for days, number in ((20, 1), (19, 2))]
    ahead = home.base(home.now + YEAR, 3 if how == "ahead" else 6) if how.startswith("ahead") else ""
    kept = home.base(home.ago(days=9), 5)
    later = home.base(home.ago(days=1), 8)
    is_archived(home, 9)
    if how == "mended":
        info = home.server() / "meta" / f"{kept}-backup.info"
        info.rename(info.with_name(f"{info.name}.apart"))
    if how == "damaged":
        one_wrong_byte(home.server() / "meta" / f"{later}-backup.info")
    jobs._retire(home.settings, "base")
    assert {each.id for each in catalogue.bases()}.isdisjoint(old)
    if how == "damaged":
        one_wrong_byte(home.server() / "meta" / f"{later}-backup.info")
    for each in (left := catalogue.bases()):
        assert entries.chain(each, {}).last == segment(9), f"{each.id} stays, and is worth nothing without its WAL"
    assert {kept, later} <= {each.id for each in left}
    assert (ahead in {each.id for each in left}) is (how == "ahead and newer")
    first = {"mended": 2, "damaged": 1}
    assert first_wal(home) == segment(first.get(how, 5)), "it would fill the disk until the time of a name has come"


def test_what_stayed_of_the_wal_goes_with_a_later_base_backup(home: Home) -> None:
    for days, number in ((20, 1), (9, 5), (8, 7)):
        home.base(home.ago(days=days), number)
    damaged = home.base(home.ago(days=1), 9)
    is_archived(home, 9)
    info = home.server() / "meta" / f"{damaged}-backup.info"
    one_wrong_byte(info)
    jobs._retire(home.settings, "base")
    assert first_wal(home) == segment(1)
    one_wrong_byte(info)
    home.base(home.ago(days=7.5), 8)
    jobs._retire(home.settings, "base")
    assert first_wal(home) == segment(8)


@pytest.mark.parametrize("good", [True, False], ids=["a good one stays", "no good one stays"])
def test_a_name_of_a_time_to_come_that_cannot_be_read_keeps_no_wal_that_a_good_one_does_not_need(
    home: Home, capsys: pytest.CaptureFixture[str], *, good: bool
) -> None:
    ahead = home.base(home.now + YEAR, 3)
    never = [home.base(home.ago(hours=hours), 40 - hours, verified=False) for hours in (30, 29, 28)]
    old = [home.base(home.ago(days=days), number) for days, number in ((20, 1), (9, 5), (1, 8))] if good else []
    is_archived(home, 14)
    info = home.server() / "meta" / f"{ahead}-backup.info"
    one_wrong_byte(info)
    catalogue.remove_leftovers()
    if good:
        jobs._retire(home.settings, "base")
        assert first_wal(home) == segment(5), "the log of all years until then would fill the disk"
        assert {each.id for each in catalogue.bases()} >= set(old[1:])
    else:
        retention.thin(home.settings, home.server(), dict.fromkeys(never, "one byte"))
        assert first_wal(home) == segment(1), "it may be the only one that can be mended"
    capsys.readouterr()
    assert main(["list", "--json"]) == 0
    (told,) = [each["note"] for each in json.loads(capsys.readouterr().out) if each["id"] == ahead]
    assert ("its log goes" in told) is good, "who may mend it has to know"
    assert (home.server() / "base" / ahead).exists()


def test_of_a_history_that_is_over_what_is_of_a_time_to_come_goes_once_all_of_it_is_older(home: Home) -> None:
    """Whatever its name says, a backup is no younger than the last log of its history."""
    readable, damaged = home.base(home.now + YEAR, 2, "6000-1"), home.base(home.now + 2 * YEAR, 3, "6000-1")
    one_wrong_byte(home.server("6000-1") / "meta" / f"{damaged}-backup.info")
    home.wal(4, home.ago(days=12), "6000-1")
    home.base(home.ago(days=13))
    jobs._retire(home.settings, "base")
    assert readable in {each.id for each in catalogue.bases()}, "no newer one takes its place"
    home.base(home.ago(days=8), 2)
    jobs._retire(home.settings, "base")
    assert not (home.root / "barman" / "main-6000-1").exists()


def test_of_a_history_whose_last_log_is_of_a_time_to_come_nobody_knows_when_it_ended(home: Home) -> None:
    home.base(home.ago(days=12), 1, "6000-1")
    home.wal(2, home.now + YEAR, "6000-1")
    home.wal(3, home.ago(days=6 * 365), "6000-1")
    home.base(home.ago(days=8))
    jobs._retire(home.settings, "base")
    assert catalogue.bases(home.server("6000-1")), "it may have been the one until a moment ago"


def test_a_restore_that_was_undone_takes_no_moment_of_the_history_that_went_on(home: Home) -> None:
    """Its first base backup is the newest one before the window, and reaches nothing of the other history."""
    older, reaching = home.base(home.ago(days=9)), home.base(home.ago(days=8), 2)
    undone = home.base(home.ago(days=7, hours=12), history="7000-2")
    home.wal(3, home.ago(days=6, hours=12))
    home.base(home.ago(days=6), 4)
    is_archived(home, 5)
    moment = Target(moment=home.ago(days=6, hours=20))
    assert restore.plan(moment).source.id == reaching
    jobs._retire(home.settings, "base")
    assert restore.plan(moment).source.id == reaching, "it is within the seven days"
    assert {older, undone}.isdisjoint({each.id for each in catalogue.bases(home.server())})
    assert [each.id for each in catalogue.bases(home.server("7000-2"))] == [undone], "nothing newer takes its place"


def test_a_history_that_ended_before_the_window_goes_once_another_one_reaches_it(home: Home) -> None:
    for days, number in ((12, 1), (11, 2)):
        home.base(home.ago(days=days), number, "6000-1")
    damaged = home.base(home.ago(days=10), 3, "6000-1")
    one_wrong_byte(home.server("6000-1") / "meta" / f"{damaged}-backup.info")
    home.base(home.ago(days=8))
    jobs._retire(home.settings, "base")
    assert not (home.root / "barman" / "main-6000-1").exists()


def test_a_history_before_a_restore_keeps_what_reaches_its_moments(home: Home) -> None:
    """The restore was within the window, and the newest base backup before it is of the history before."""
    older, reaching = (home.base(home.ago(days=days), number, "6000-1") for days, number in ((9, 1), (8, 2)))
    home.wal(3, home.ago(days=5), "6000-1")
    home.base(home.ago(days=4))
    jobs._retire(home.settings, "base")
    assert [each.id for each in catalogue.bases(home.server("6000-1"))] == [reaching]
    assert not (home.server("6000-1") / "base" / older).exists()
