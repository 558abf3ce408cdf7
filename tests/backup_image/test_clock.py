"""A clock that was once ahead: what was made then is told, and stops neither backups nor alerts, and costs nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from samokoder_backup import (
    barman,
    catalogue,
    copies,
    entries,
    jobs,
    metrics,
    reached,
    restore,
    server,
    service,
    state,
    wal,
)
from samokoder_backup.process import BackupError, CannotError
from samokoder_backup.restore import Target
from samokoder_backup.server import Server
from samokoder_backup.settings import Kind
from tests.backup_image.folders import Home, Rounds, home_at, segment

YEAR = timedelta(days=365)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(reached, "_dumped", lambda *_: iter(()))  # in no file here is WAL
    return home_at(tmp_path, monkeypatch)


def done(home: Home, monkeypatch: pytest.MonkeyPatch, *, clock: float = 0.0) -> list[str]:
    """Return what a service does at one look. clock: seconds by which the clock was ahead as it was started."""
    found: list[str] = []
    every_minute = dict.fromkeys(("base", "dump", "redis", "verify", "drill"), "* * * * *")
    schedules = home.settings.schedules.model_copy(update=every_minute)
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + clock)
        it = service.Service(home.settings.model_copy(update={"schedules": schedules}))
    it._began -= 120  # so long it has been running
    it._server = home.server()
    monkeypatch.setattr(it, "_stop", Rounds(1))

    def failing(job: str) -> bool:
        found.append(job)
        return False

    monkeypatch.setattr(jobs, "backup", lambda _, kind: failing(kind))
    monkeypatch.setattr(jobs, "verify", lambda: failing("verify"))
    monkeypatch.setattr(jobs, "drill", lambda: failing("drill"))
    it._jobs()
    return found


def figures(home: Home) -> dict[tuple[str, str], float]:
    families = metrics.Metrics(home.settings, service.Service(home.settings)).collect()
    return {
        (sample.name, sample.labels.get("kind", "")): sample.value for family in families for sample in family.samples
    }


KINDS: tuple[Kind, ...] = ("base", "dump", "redis")


def everything(home: Home, moment: datetime) -> None:
    """Make one of everything, at a moment."""
    home.base(moment, 2)
    for kind in KINDS[1:]:
        home.copy(moment, kind)
    stamp = moment.timestamp()
    for job in ("verify", "drill"):
        state.record(job, {"exit": 0, "finished": stamp, "success": stamp})


def test_what_was_made_while_the_clock_was_ahead_lets_everything_be_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(home, home.now + YEAR)
    home.wal(3, home.now)
    assert set(done(home, monkeypatch)) == {*KINDS, "verify"}, "it would be a year until anything is due"
    home.base(home.now, 3)
    assert "drill" in done(home, monkeypatch), "there is something to restore now"


def test_what_was_made_at_the_right_time_is_not_made_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(home, home.now + timedelta(seconds=90))  # as far as the clocks of two machines may differ
    home.wal(3, home.now)
    assert done(home, monkeypatch) == []


def test_a_clock_that_was_ahead_when_the_service_began_does_not_keep_it_from_verifying(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(home, home.ago(minutes=5))
    state.record("verify", {"finished": (home.now + YEAR).timestamp()})
    assert "verify" in done(home, monkeypatch, clock=YEAR.total_seconds())


def test_what_failed_while_the_clock_was_ahead_is_tried_again(home: Home) -> None:
    it = service.Service(home.settings)
    it._tried["dump"] = (time.time() + YEAR.total_seconds(), 3)
    assert it._due("dump", "* * * * *", None)


def test_it_is_told_and_the_figures_are_of_what_counts(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    everything(home, home.ago(days=3))
    before = figures(home)
    assert before["backup_stamps_ahead", ""] == 0
    everything(home, home.now + YEAR)
    home.wal(3, home.now)
    after = figures(home)
    assert after["backup_stamps_ahead", ""] == 5, "three backups, a verification and a drill: an alert fires"
    for kind in KINDS:
        name = "backup_last_success_timestamp_seconds", kind
        assert after[name] == before[name], "else its age is negative for a year, and no alert is left"
        assert after["backup_retained", kind] == 1
    for job in ("verify", "restore_test"):
        assert (f"backup_{job}_last_success_timestamp_seconds", "") not in after, "as of one that was never done"
    assert sorted(home.listed(capsys).values()) == ["ahead"] * 3 + ["good"] * 3


def test_a_later_run_that_fails_does_not_hide_the_stamp_and_one_that_does_well_ends_it(home: Home) -> None:
    state.record("drill", {"success": (home.now + YEAR).timestamp()})
    state.record("drill", {"exit": 1, "finished": home.now.timestamp()})
    assert state.ahead() == ["drill"]
    state.record("drill", {"exit": 0, "finished": home.now.timestamp(), "success": home.now.timestamp()})
    assert state.ahead() == []


@pytest.mark.parametrize("ahead", ["what was written", "what was not"])
def test_what_a_full_disk_did_not_take_is_known_whichever_stamp_is_ahead(
    home: Home, monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    written, not_written = (home.now + YEAR, home.now) if ahead == "what was written" else (home.now, home.now + YEAR)
    state.record("verify", {"bad": {}, "finished": written.timestamp()})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state, "write", full)
        state.record("verify", {"bad": {"one": "byte"}, "finished": not_written.timestamp()})
    assert state.bad() == {"one": "byte"}, "what is bad would be restored from, and good ones be removed for it"


def test_what_another_process_has_written_since_is_believed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(state, "write", full)
        state.record("verify", {"bad": {"one": "byte"}, "finished": (home.now + YEAR).timestamp()})
    later = {"verify": {"bad": {"another": "byte"}, "finished": home.now.timestamp() + 1}}
    (home.root / "state.json").write_text(json.dumps(later))
    assert state.bad() == {"another": "byte"}, "that one has verified all again"


def test_wal_of_a_time_to_come_is_no_sign_that_wal_is_received(home: Home) -> None:
    home.wal(1, home.ago(minutes=30))
    home.wal(2, home.now + YEAR)
    assert wal.newest(home.server()) == home.ago(minutes=30).timestamp()
    it = service.Service(home.settings)
    it._server = home.server()
    assert it.lag == pytest.approx(1800, abs=30), "0 for a year: nobody would be told that the receiver hangs"


def test_a_base_backup_of_a_time_to_come_is_good_by_its_wal(home: Home) -> None:
    base = home.base(home.now + YEAR)
    home.wal(2, home.now)
    assert jobs.verify() is True, "its end is a WAL file that is there, whatever the clock said"
    (entry,) = entries.entries()
    assert (entry.id, entry.to) == (base, home.now), "WAL goes on from it to now"


def test_latest_and_a_moment_begin_with_a_base_backup_of_the_right_time(home: Home) -> None:
    right = home.base(home.ago(days=1))
    ahead = home.base(home.now + YEAR, 2)
    home.wal(3, home.now)
    for target in (Target(latest=True), Target(present=True), Target(moment=home.ago(minutes=1))):
        assert restore.plan(target).source.id == right
    assert restore.plan(Target(backup=ahead)).source.id == ahead, "who names it gets it"


def test_where_there_is_no_other_it_is_used(home: Home) -> None:
    ahead = home.base(home.now + YEAR)
    home.wal(2, home.now)
    assert restore.plan(Target(latest=True)).source.id == ahead


def test_wal_of_a_time_to_come_does_not_hide_that_another_history_is_newer(home: Home) -> None:
    home.base(home.ago(days=1))
    home.wal(2, home.ago(hours=1))
    home.wal(3, home.now + YEAR)
    home.wal(1, home.ago(minutes=2), "7000-2", received=True)
    with pytest.raises(CannotError, match="which has no good base backup yet"):
        restore.plan(Target(latest=True))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_is_of_a_time_to_come_takes_no_place_and_stays(home: Home, kind: Kind) -> None:
    ahead = {home.copy(home.now + YEAR + timedelta(hours=hours), kind) for hours in range(0, 24 * 60, 24)}
    made = [home.copy(home.ago(days=days), kind) for days in range(6, -1, -1)]
    copies.retire(home.settings, kind, set())
    left = {copy.id for copy in copies.copies(kind)}
    assert set(made) <= left, "sixty others are newer by their stamps"
    assert ahead <= left

    def fill(path: Path) -> dict[str, object]:
        path.write_text("new")
        return {}

    assert copies._make(kind, fill).id not in ahead, "a run tells of what it has made itself"


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("left", ["whole", "its file alone", "its description alone"])
def test_a_copy_takes_the_name_of_no_other_of_its_second(home: Home, kind: Kind, left: str) -> None:
    names = [home.copy(home.now + timedelta(seconds=seconds), kind) for seconds in range(30)]
    for path in list(home.files()) if left != "whole" else ():
        if (Path(path).suffix == ".json") is (left == "its file alone"):
            (home.root / path).unlink()
    before = home.files()

    def fill(path: Path) -> dict[str, object]:
        path.write_text("new")
        return {}

    made = copies._make(kind, fill)
    assert made.id not in names
    assert home.files().items() >= before.items(), "a clock that was set back costs a backup"
    with pytest.raises(BackupError, match="cut off"):
        copies._make(kind, cut_off)
    assert home.files().items() >= before.items(), "and so does a run that is cut off"


def cut_off(_: Path) -> dict[str, object]:
    raise OSError("cut off")


def test_a_base_backup_of_a_time_to_come_lets_no_older_one_go(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(barman, "barman", lambda _, *words, what: asked.append(f"{words} {what}"))
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    for number, days in enumerate((20, 9), 1):
        home.base(home.ago(days=days), number)
    home.base(home.now + YEAR, 3)
    jobs._retire(home.settings, "base")
    assert len(asked) == 1
    assert f"{home.ago(days=20):%Y%m%dT%H%M%S}" in asked[0]


def test_the_name_of_a_wal_file_says_where_it_is_and_not_when(home: Home) -> None:
    home.wal(1, home.now + YEAR)
    os.utime(home.wal(2, home.now))
    found = wal.chain(home.server(), segment(1), 16 * 2**20, frozenset())
    assert found is not None
    assert (found.last, found.end <= datetime.now(UTC)) == (segment(2), True)


def stops(home: Home, change: datetime, number: int = 2) -> str:
    """What PostgreSQL logs where it stops before a change, in a WAL file; it fetches that one once more at the end."""
    fetched = "".join(f'LOG:  restored log file "{segment(each)}" from archive\n' for each in range(1, number + 1))
    stopped = f"LOG:  recovery stopping before commit of transaction 7, time {change.isoformat(sep=' ')}\n"
    end = f'LOG:  restored log file "{segment(number)}" from archive\nLOG:  selected new timeline ID: 2\n'
    return f"LOG:  starting point-in-time recovery\n{fetched}{stopped}LOG:  redo done at 0/{number:X}000060\n{end}"


def restored(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    moment: datetime,
    log: str,
    *,
    managed: bool = False,
    before: datetime | None = None,
    after: datetime | None = None,
) -> restore.Plan:
    """Restore to a moment, where PostgreSQL logs something.

    managed: it was on another machine. before, after: stamp of a change on that side of where recovery has stopped.
    """
    sockets = home.root / "sockets"
    sockets.mkdir(exist_ok=True)
    (sockets / "log").write_text(log)

    def running(*_: object) -> AbstractContextManager[Server]:
        return nullcontext(Server(sockets, "postgres", ""))

    monkeypatch.setattr(server, "running", running)
    monkeypatch.setattr(barman, "unpack", lambda *_: None)
    # Files without WAL: the stamps of real changes are in `test_moments.py`.
    found: list[tuple[int, float]] = []
    with suppress(BackupError):
        if stop := Server(sockets, "postgres", "").stop():
            stamps = {-1: before, 0: stop.change, 1: after}
            found = [(stop.position + each, stamp.timestamp()) for each, stamp in stamps.items() if stamp]
    monkeypatch.setattr(reached, "_changes", lambda *_: iter(found))
    planned = restore.plan(Target(moment=moment))
    with restore.restored(home.settings.model_copy(update={"managed": managed}), planned, home.root):
        return planned


@pytest.mark.parametrize("ahead", [timedelta(hours=1), YEAR], ids=["an hour", "a year"])
@pytest.mark.parametrize("back", ["in the same WAL file", "in a later one"])
def test_a_moment_after_a_clock_was_ahead_is_not_silently_an_older_state(
    home: Home, monkeypatch: pytest.MonkeyPatch, ahead: timedelta, back: str
) -> None:
    """PostgreSQL stops at the first change with a later stamp, which was made long before the moment."""
    base, early = home.base(home.ago(hours=9)), home.ago(hours=5)
    home.wal(2, early if back == "in the same WAL file" else early + ahead)
    home.wal(3, home.ago(hours=4, minutes=30))
    home.wal(4, home.ago(minutes=1))
    moment = home.ago(hours=4, minutes=10)
    with pytest.raises(CannotError, match="a clock was ahead") as refused:
        restored(home, monkeypatch, moment, stops(home, early + ahead))
    assert base in str(refused.value)
    assert "latest" in str(refused.value), "what can be done"


@pytest.mark.parametrize("wrong", ["the clock was behind once", "the other machine's clock is ahead a bit"])
def test_a_moment_is_not_refused_for_a_clock_that_did_not_matter(
    home: Home, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    home.base(home.ago(hours=9))
    moment = home.ago(hours=5)
    behind = wrong.startswith("the clock")
    home.wal(2, moment if behind else moment - timedelta(minutes=4))
    home.wal(3, home.ago(days=6 * 365) if behind else home.ago(hours=4))
    home.wal(4, home.ago(minutes=1))
    assert restored(home, monkeypatch, moment, stops(home, moment + timedelta(seconds=1)), managed=not behind)


@pytest.mark.parametrize("behind", [60, 6 * 365])
def test_a_moment_is_refused_for_a_clock_that_is_behind_after_a_start_only_where_it_may_be_right(
    home: Home, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    """By a stamp of sixty days before the clock may have been ahead until then, and the host off since."""
    home.base(home.ago(hours=9))
    moment = home.ago(hours=5)
    for number in (2, 3, 6, 7):
        home.wal(number, home.ago(days=behind, minutes=-2 * number))
    home.wal(4, home.ago(hours=8))
    home.wal(5, moment)
    home.wal(8, home.ago(minutes=1))
    log = stops(home, moment + timedelta(seconds=1), 5)
    if behind == 60:
        with pytest.raises(CannotError, match="or behind"):
            restored(home, monkeypatch, moment, log)
    else:
        assert restored(home, monkeypatch, moment, log)


@pytest.mark.parametrize(("first", "ahead"), [(40, "once"), (9, "twice")])
def test_stamps_below_those_of_a_clock_that_was_ahead_are_the_right_ones(
    home: Home, monkeypatch: pytest.MonkeyPatch, first: int, ahead: str
) -> None:
    end = home.ago(days=3)
    home.base(end)
    home.wal(2, home.ago(days=first))
    home.wal(3, end if ahead == "twice" else home.ago(days=first))
    home.wal(4, home.ago(days=first - 1))
    home.wal(5, home.ago(minutes=1))
    with pytest.raises(CannotError, match="or behind"):
        restored(home, monkeypatch, end + timedelta(minutes=1), stops(home, end + timedelta(minutes=2), 4))


@pytest.mark.parametrize("seen", ["twice", "by the first base backup"])
def test_a_clock_that_was_ahead_for_all_that_is_known_is_no_silent_older_state(
    home: Home, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """The database itself is older than each right stamp."""
    history, end = f"{int(home.ago(days=400).timestamp()) << 32}-1", home.ago(days=3)
    home.base(end, 1, history)
    if seen == "twice":
        home.wal(2, home.ago(days=40), history)
        home.wal(3, end, history)
        home.wal(4, home.ago(days=39), history)
        home.wal(5, home.ago(days=38), history)
    else:
        home.wal(2, home.ago(days=8), history)
        home.wal(3, home.ago(days=8, minutes=-11), history)
    home.wal(6 if seen == "twice" else 4, home.ago(minutes=1), history)
    log = stops(home, end + timedelta(minutes=2), 4 if seen == "twice" else 2)
    with pytest.raises(CannotError, match="or behind"):
        restored(home, monkeypatch, end + timedelta(minutes=1), log)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_change_with_an_earlier_stamp_behind_a_later_one_refuses_the_moments_between(
    home: Home, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """Whatever the times of the files are: a clock may be wrong and right again within one."""
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(minutes=1))
    moment = home.ago(hours=5)
    last = moment - timedelta(minutes=40 if side == "before" else 0)
    log = f"{stops(home, moment + timedelta(seconds=1))}LOG:  last completed transaction was at log time {last}\n"
    before, after = (
        (moment - timedelta(minutes=2), None) if side == "before" else (None, moment - timedelta(minutes=40))
    )
    with pytest.raises(CannotError, match="a newer state" if side == "before" else "an older state"):
        restored(home, monkeypatch, moment, log, before=before, after=after)


def test_a_stamp_that_no_right_clock_gave_refuses_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(minutes=1))
    moment = home.ago(hours=5)
    log = f"{stops(home, moment + timedelta(seconds=1))}LOG:  last completed transaction was at log time {moment}\n"
    assert restored(home, monkeypatch, moment, log, after=datetime(2000, 1, 1, tzinfo=UTC))


def test_where_the_change_is_not_found_at_which_it_stopped_nobody_can_tell(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = home.base(home.ago(hours=9))
    home.wal(2, home.ago(minutes=1))
    moment = home.ago(hours=5)
    stop = server.Stop(0x2000060, moment + timedelta(seconds=1), moment)
    monkeypatch.setattr(reached, "_changes", lambda *_: iter([]))
    (found,) = catalogue.bases()
    assert found.id == base
    with pytest.raises(BackupError, match="does not find the change"):
        reached.refuse_another(found, moment, stop, home.root / "scratch", last="", end=moment, managed=False)


def test_what_postgresql_does_not_say_of_where_it_has_stopped_is_no_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(minutes=1))
    with pytest.raises(BackupError, match="nobody can tell which moment"):
        restored(home, monkeypatch, home.ago(hours=5), "LOG:  database system is ready to accept connections\n")


def test_on_one_machine_no_minute_is_missing_from_what_is_called_restored(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.base(home.ago(hours=9))
    moment = home.ago(hours=5)
    home.wal(2, moment - timedelta(minutes=1))
    home.wal(3, home.ago(minutes=1))
    with pytest.raises(CannotError, match="a clock was ahead"):
        restored(home, monkeypatch, moment, stops(home, moment + timedelta(seconds=1)))


def test_settings_of_an_earlier_version_are_of_a_postgresql_on_this_machine(home: Home) -> None:
    assert home.settings.managed is False, "they do not say it"


def test_a_base_backup_by_a_clock_that_was_days_ahead_reaches_no_moment_in_silence(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.wal(1, home.ago(days=9))
    home.base(home.ago(days=3), 2)
    home.wal(3, home.ago(days=8))
    home.wal(4, home.ago(minutes=1))
    with pytest.raises(CannotError, match="or behind"):
        restored(home, monkeypatch, home.ago(days=2), stops(home, home.ago(days=1), 2))


@pytest.mark.parametrize("quiet", [timedelta(seconds=3), timedelta(hours=4)], ids=["busy", "nobody wrote for hours"])
def test_a_moment_by_a_right_clock_is_reached(home: Home, monkeypatch: pytest.MonkeyPatch, quiet: timedelta) -> None:
    """Without the backup server no heartbeat is written; the log is received afterwards, and the state is right."""
    home.base(home.ago(hours=9))
    moment = home.ago(hours=5)
    for number in (2, 3):
        home.wal(number, moment + quiet)
    home.wal(4, home.ago(minutes=1))
    assert restored(home, monkeypatch, moment, stops(home, moment + quiet))
    assert restored(home, monkeypatch, moment, "LOG:  recovery ended before configured recovery target was reached")


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("behind", ["not set", "an hour before the first", "between the first and the moment"])
def test_a_base_backup_by_a_clock_that_is_behind_brings_back_nothing_of_after_the_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch, behind: str, *, verified: bool
) -> None:
    """What is before it in the log came after the moment: from it the moment is refused."""
    first = home.base(home.ago(hours=9), verified=verified)
    home.wal(2, home.ago(hours=6, minutes=30))
    home.wal(3, home.ago(hours=5))
    stamps = {"not set": datetime(2000, 1, 1, tzinfo=UTC), "an hour before the first": home.ago(hours=10)}
    stamp = stamps.get(behind, home.ago(hours=8))
    second = home.base(stamp, 4)
    home.wal(5, home.ago(minutes=1))
    moment = home.ago(hours=7)
    chosen = restore.plan(Target(moment=moment)).source.id
    assert chosen == (first if verified and not behind.startswith("between") else second)
    if chosen == first:
        return
    last = stamp + timedelta(minutes=1)
    log = f"{stops(home, home.ago(hours=4), 5)}LOG:  last completed transaction was at log time {last}\n"
    with pytest.raises(CannotError, match="a newer state"):
        restored(home, monkeypatch, moment, log, before=last)


def told(
    home: Home, monkeypatch: pytest.MonkeyPatch, moment: datetime, before: list[datetime], after: list[datetime]
) -> str:
    """What is said of a moment, or refused, by the stamps on both sides of where recovery stopped."""
    base = catalogue.bases()[-1]
    stop = server.Stop(0x5000000, after[0], before[-1])
    found = [(stop.position + each - len(before), stamp.timestamp()) for each, stamp in enumerate([*before, *after])]
    monkeypatch.setattr(reached, "_changes", lambda *_: iter(found))
    scratch = home.root / "scratch"
    return reached.refuse_another(base, moment, stop, scratch, last="", end=home.now, managed=False)


def parted(stamps: list[datetime], moment: datetime) -> tuple[list[datetime], list[datetime]]:
    """Return the stamps on both sides of where recovery to a moment stops: at the first later one."""
    split = next(number for number, each in enumerate(stamps) if each > moment)
    return stamps[:split], stamps[split:]


def by_the_minute(start: datetime, minutes: float) -> list[datetime]:
    """Stamps as of a heartbeat's changes."""
    return [start + timedelta(seconds=20 * each) for each in range(int(minutes * 3))]


@pytest.mark.parametrize("seen", ["after the base backup", "before it"])
def test_a_moment_that_a_clock_reaches_while_it_is_behind_is_no_silent_newer_state(
    home: Home, monkeypatch: pytest.MonkeyPatch, seen: str
) -> None:
    """Right until six hours ago, then an hour behind for two hours, then set: what is lost came between."""
    cut = home.ago(hours=6)
    right, behind = by_the_minute(cut - timedelta(hours=2), 120), by_the_minute(cut - timedelta(hours=1), 120)
    if seen == "before it":
        home.base(home.ago(hours=9))
        home.wal(2, cut)
        home.base(behind[0], 3)
        right = []
    else:
        home.base(right[0])
    home.wal(4, home.ago(minutes=1))
    moment = cut + timedelta(minutes=15)
    before = [*right, *(each for each in behind if each <= moment)]
    after = [*(each for each in behind if each > moment), *by_the_minute(cut + timedelta(hours=2), 240)]
    with pytest.raises(CannotError, match="a newer state"):
        told(home, monkeypatch, moment, before, after)
    later = cut + timedelta(hours=3)
    whole = [*right, *behind, *after[-240 * 3 :]]
    assert "a clock was wrong then" in told(home, monkeypatch, later, *parted(whole, later)), "it was set"


@pytest.mark.parametrize("earlier", ["one that was larger", "none"])
@pytest.mark.parametrize("back", ["at once", "in two parts"])
def test_no_earlier_step_back_hides_the_one_after_which_a_clock_is_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch, earlier: str, back: str
) -> None:
    """Set by 48 minutes at first; then behind by 15 minutes, or by 40 seconds in two parts, until after the moment."""
    start = home.ago(hours=9)
    home.base(start)
    home.wal(4, home.ago(minutes=1))
    stamps = by_the_minute(start, 60)
    if earlier != "none":
        stamps += by_the_minute(start + timedelta(minutes=12), 5)
    stamps += by_the_minute(start + timedelta(minutes=65), 120)
    parts = [timedelta(minutes=15)] if back == "at once" else [timedelta(seconds=20), timedelta(seconds=40)]
    cut = stamps[-1]
    for part in parts:
        stamps += by_the_minute(cut - part, 0.34 if part != parts[-1] else 30)
    moment = cut + timedelta(minutes=5)
    before, after = parted(stamps, moment)
    after += by_the_minute(stamps[-1] + parts[-1] + timedelta(seconds=20), 360)
    with pytest.raises(CannotError, match="a newer state"):
        told(home, monkeypatch, moment, before, after)


def test_a_clock_that_is_behind_may_have_been_set_since_the_last_change(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right until four hours ago, then half an hour behind until nobody wrote any more, an hour ago by its stamps."""
    start = home.ago(hours=6)
    home.base(start)
    home.wal(4, home.ago(minutes=1))
    stamps = [*by_the_minute(start, 120), *by_the_minute(start + timedelta(minutes=90), 210)]
    assert timedelta(minutes=59) < home.now - stamps[-1] < timedelta(minutes=61)
    moment = start + timedelta(minutes=140)
    with pytest.raises(CannotError, match="a newer state"):
        told(home, monkeypatch, moment, *parted(stamps, moment))


@pytest.mark.parametrize("written", ["before the base backup", "after a clock was set back", "not known"])
def test_log_that_was_received_late_is_no_step_back(home: Home, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """What is before the base backup was received after it; then nobody wrote for an hour, until now."""
    end = home.ago(hours=8)
    for number in (1, 2, 3):
        home.wal(number, end + timedelta(minutes=10 + number))
    home.base(end, 4)
    late = end + timedelta(minutes=12)
    stamps = {segment(number): end - timedelta(minutes=9 - number) for number in (1, 2, 3)}
    if written == "after a clock was set back":
        stamps[segment(2)] = late

    def dumped(first: Path, last: Path) -> Generator[tuple[int, float], None, int]:
        assert first == last
        assert first.read_bytes() == b"wal"
        if written != "not known":
            yield 1, stamps[first.name].timestamp() - 60
            yield 2, stamps[first.name].timestamp()
        return 1  # its last record ends in the next file

    monkeypatch.setattr(reached, "_dumped", dumped)
    before, after = by_the_minute(end - timedelta(minutes=1), 120), by_the_minute(end + timedelta(minutes=119), 300)
    if written == "before the base backup":
        assert "wrong" not in told(home, monkeypatch, home.ago(hours=6), before, after)
    else:
        with pytest.raises(CannotError, match="a newer state"):
            told(home, monkeypatch, home.ago(hours=6), before, after)
    assert not (home.root / "scratch").exists()


def test_a_base_backup_that_took_long_is_no_step_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of a base backup begins with its begin, and its own stamp is of its end."""
    home.base(home.ago(hours=8))
    home.wal(4, home.ago(minutes=1))
    before, after = by_the_minute(home.ago(hours=9), 120), by_the_minute(home.ago(hours=6), 60)
    assert "wrong" not in told(home, monkeypatch, home.ago(hours=7), before, after)


def test_a_moment_after_a_clock_that_was_ahead_and_set_is_reached_and_the_step_is_told(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = home.ago(hours=9)
    home.base(start)
    home.wal(2, home.ago(minutes=1))
    stamps = [*by_the_minute(start + timedelta(hours=1), 30), *by_the_minute(start + timedelta(minutes=30), 510)]
    said = told(home, monkeypatch, home.ago(hours=5), *parted(stamps, home.ago(hours=5)))
    assert "step back by 0:59:40" in said


@pytest.mark.parametrize("ahead", [True, False])
def test_the_end_is_offered_only_where_it_is_all_of_a_history(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, ahead: bool
) -> None:
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(hours=4))
    home.wal(3, home.now + YEAR if ahead else home.ago(hours=3))
    moment = home.ago(hours=5)
    with pytest.raises(CannotError, match="or behind") as refused:
        restored(home, monkeypatch, moment, stops(home, home.ago(hours=3, minutes=-1), 2))
    assert ("all of a history" in str(refused.value)) is not ahead
    assert "a backup by its name" in str(refused.value)


@pytest.mark.parametrize("moment", ["the end of the right stamps", "before it"])
def test_the_end_of_the_right_stamps_is_not_all_of_a_log_that_goes_on_with_wrong_ones(home: Home, moment: str) -> None:
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(hours=5))
    home.wal(3, home.now + YEAR)
    home.wal(4, home.now + YEAR)
    asked = home.ago(hours=5, minutes=0 if moment.startswith("the end") else 1)
    assert "recovery_target_time" in restore.plan(Target(moment=asked)).recovery


def looked_through(
    home: Home, monkeypatch: pytest.MonkeyPatch, last: int, *, fails_at: int = 0
) -> tuple[list[int], str]:
    """The changes that are found in a log of so many files, and from which file on it was not read.

    In each file a change begins that ends in the next one, so it is seen only where both are there.
    fails_at: the program fails where it is to read this file.
    """
    if not catalogue.bases():
        home.base(home.ago(hours=9))
    for number in range(2, last + 1):
        if not (home.server() / "wals" / segment(number)[:16] / segment(number)).exists():
            home.wal(number, home.ago(minutes=last - number))

    def dumped(first: Path, end: Path) -> Generator[tuple[int, float], None, int]:
        numbers = range(int(first.name[-2:], 16), int(end.name[-2:], 16) + 1)
        assert all((first.parent / segment(number)).exists() for number in numbers)
        yield from ((number, home.ago(hours=9).timestamp()) for number in numbers[:-1])
        return int(fails_at in numbers)

    monkeypatch.setattr(reached, "_dumped", dumped)
    scratch, seen = home.root / "scratch", reached._Seen()
    scratch.mkdir(exist_ok=True)
    (base,) = catalogue.bases()
    found = [position for position, _ in reached._changes(base, scratch, "", seen)]
    assert not list(scratch.iterdir()), "it takes the room of the restored database"
    return sorted(set(found)), seen.unread


@pytest.mark.parametrize("last", [1, 4, 5, 6, 9, 10, 12])
def test_each_change_of_a_long_log_is_looked_at_and_its_end_is_no_damage(
    home: Home, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Also one that begins in a file and ends in the next; where the log ends, the program fails."""
    assert looked_through(home, monkeypatch, last, fails_at=last) == ([*range(1, last)], "")


def test_how_far_it_has_looked_through_a_long_log_is_told_now_and_then(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_through(home, monkeypatch, 12)
    assert "looking" not in capsys.readouterr().err, "a short log is looked through at once"
    monkeypatch.setattr(reached, "_TELL_SECONDS", 0.0)
    looked_through(home, monkeypatch, 12)
    lines = [each for each in capsys.readouterr().err.splitlines() if "looking" in each]
    assert lines == [f"looking through {segment(number)}" for number in (1, 5, 9)]


def test_a_file_that_the_program_does_not_read_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked_through(home, monkeypatch, 8, fails_at=3) == ([*range(1, 8)], segment(1))


def test_a_damaged_file_of_the_log_does_not_hide_what_comes_after_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.wal(3, home.ago(hours=1)).write_bytes(b"\x1f\x8bno gzip")
    assert looked_through(home, monkeypatch, 12) == ([1, *range(4, 12)], segment(3))


def test_a_file_that_is_archived_at_this_moment_is_looked_for_once_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, gone = wal.locate, set[str]()

    def locate(history: Path, name: str) -> Path | None:
        if name == segment(3) and name not in gone:
            gone.add(name)
            return history / "streaming" / name
        return real(history, name)

    monkeypatch.setattr(wal, "locate", locate)
    assert looked_through(home, monkeypatch, 4) == ([1, 2, 3], "")


@pytest.mark.parametrize(
    "said",
    [
        "COMMIT 2026-11-30 22:01:04.521413 UTC",
        "COMMIT 2026-11-30 22:01:04.521413 UTC; subxacts: 726 727",
        "COMMIT 2026-11-30 22:01:04.521413 UTC; rels: base/5/16384; inval msgs: catcache 55 relcache 16384",
        "COMMIT_PREPARED 728: 2026-11-30 22:01:04.521413 UTC",
        "ABORT_PREPARED 729: 2026-11-30 22:01:04.521413 UTC",
        "ABORT 2026-11-30 22:01:04.521413 UTC",
    ],
)
def test_a_line_of_pg_waldump_has_the_stamp_and_the_position_of_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """As PostgreSQL's program has said them."""
    head = "rmgr: Transaction len (rec/tot):     50/    50, tx:        725, lsn: 2/00616838, prev 2/006167F8, desc: "
    lines = [f"{head}{said}", f"{head}PREPARE gid x: 2026-11-30 22:01:04.521413 UTC", f"{head}ASSIGNMENT xtop 1"]
    program = tmp_path / "pg_waldump"
    program.write_text("#!/bin/sh\ncat << 'END'\n" + "\n".join(lines) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stamp = datetime(2026, 11, 30, 22, 1, 4, 521413, tzinfo=UTC).timestamp()
    assert list(reached._dumped(tmp_path / "a", tmp_path / "b")) == [((2 << 32) + 0x616838, stamp)]


def test_what_the_database_has_set_for_a_recovery_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the last change would be left out where recovery is to end at its position."""
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: asked.append(command))
    server._start(tmp_path, tmp_path, {"recovery_target_lsn": "0/1"})
    assert "recovery_target_inclusive=on" in asked[0]


@pytest.mark.parametrize("size", [16, 64])
def test_there_is_room_for_the_log_that_is_looked_through(home: Home, size: int) -> None:
    home.base(home.ago(hours=9))
    home.wal(2, home.ago(minutes=1))
    planned = restore.plan(Target(moment=home.ago(hours=5)))
    assert isinstance(planned.source, catalogue.Base)
    larger = replace(planned, source=replace(planned.source, segment_size=size * 2**20))
    assert larger.needed >= reached.FILES * size * 2**20 + restore._MARGIN
