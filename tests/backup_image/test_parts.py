"""What needs no server: the WAL that is there, what is kept, what is told."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from samokoder_backup import barman, copies, entries, jobs, process, restore, service, settings, state, wal
from samokoder_backup import server as servers
from samokoder_backup.__main__ import main, moment
from samokoder_backup.catalogue import Base, bases
from samokoder_backup.copies import Copy
from samokoder_backup.process import BackupError, CannotError
from samokoder_backup.restore import Target
from tests.backup_image.folders import home_at

MIB = 2**20
SEGMENT_SIZE = 16 * MIB
FIRST = "0000000100000000000000FE"
SEGMENTS = (FIRST, "0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001")


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Four segments over the border of a log file: three archived, one that is being received."""
    server = tmp_path / "main-7000-1"
    (server / "streaming").mkdir(parents=True)
    for number, name in enumerate(SEGMENTS[:3]):
        path = server / "wals" / name[:16] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(name.encode()))
        os.utime(path, (1000 + number, 1000 + number))
    partial = server / "streaming" / f"{SEGMENTS[3]}.partial"
    partial.write_bytes(b"newest")
    os.utime(partial, (2000, 2000))
    wal.note(server)
    return server


def test_whether_something_can_be_restored_is_asked_while_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def plan(_: Target) -> None:
        asked.set()
        raise CannotError("there is none")

    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "load", lambda: None)
    monkeypatch.setattr(restore, "plan", plan)
    with ThreadPoolExecutor(1) as pool:
        with process.exclusive(tmp_path / "lock"):
            answer = pool.submit(main, ["check-restore", "--latest"])
            assert not asked.wait(0.5), "retention was at work, and the answer would be of what goes just now"
        assert answer.result(10) == CannotError.status


def archived(server: Path, name: str) -> Path:
    return server / "wals" / name[:16] / name


def test_wal_is_followed_over_the_border_of_a_log_file_into_what_is_being_received(server: Path) -> None:
    found = wal.chain(server, FIRST, SEGMENT_SIZE, frozenset())
    assert found == wal.Chain(SEGMENTS[3], datetime.fromtimestamp(2000, UTC), "")


def test_the_archive_of_a_busy_week_is_listed_once_however_many_base_backups_lead_into_it(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = catalogue / "barman" / "main-7000-1"
    for number in range(2, 20_000):
        name = f"00000001{number >> 8:08X}{number & 255:08X}"
        if number % 256 in {0, 2}:
            (server / "wals" / name[:16]).mkdir(exist_ok=True)
        # One file under all names: what lies in them is not looked at.
        os.link(server / "wals" / "0000000100000000" / "000000010000000000000001", server / "wals" / name[:16] / name)
    listed: Counter[str] = Counter()
    located: list[str] = []
    scandir, locate = os.scandir, wal.locate

    def counting(path: Path) -> Iterator[os.DirEntry[str]]:
        listed[os.path.relpath(path, catalogue / "barman")] += 1
        return scandir(path)

    def finding(server: Path, name: str) -> Path | None:
        located.append(name)
        return locate(server, name)

    monkeypatch.setattr(os, "scandir", counting)
    monkeypatch.setattr(wal, "locate", finding)
    times = []
    for _ in range(2):
        began = time.process_time()
        found = entries.entries()
        times.append(time.process_time() - began)
        meta = server / "meta" / "old-backup.info"
        for copy in range(8):
            meta.with_name(f"more{copy}-backup.info").write_text(meta.read_text())
            shutil.copytree(server / "base" / "old", server / "base" / f"more{copy}", dirs_exist_ok=True)
    assert len(found) == 3 + 8
    assert {entry.to for entry in found if entry.id != "other"} == {found[0].to}, "all lead to the newest moment"
    folders = {each: count for each, count in listed.items() if "/wals/" in each or each.endswith("streaming")}
    assert len(folders) >= 80
    assert set(folders.values()) == {2}, "each folder once for each look"
    assert len(located) <= 2 * 3 + 8, "no look at each segment: that took seconds, every five seconds"
    assert times[1] < 8 * times[0], "eight more base backups are no reason for eight more looks"


@pytest.mark.parametrize("how", ["missing", "bad"])
def test_a_gap_ends_the_range_and_is_named(server: Path, how: str) -> None:
    if how == "missing":
        archived(server, SEGMENTS[1]).unlink()
    bad = frozenset({SEGMENTS[1]} if how == "bad" else ())
    assert wal.chain(server, FIRST, SEGMENT_SIZE, bad) == wal.Chain(
        FIRST, datetime.fromtimestamp(1000, UTC), SEGMENTS[1]
    )
    assert wal.chain(server, SEGMENTS[1], SEGMENT_SIZE, bad) is None


def test_what_comes_while_the_folders_are_looked_at_is_no_gap(server: Path) -> None:
    looked = wal.look(server)
    partial = server / "streaming" / f"{SEGMENTS[3]}.partial"
    partial.rename(partial.with_suffix(""))  # the receiver has ended it, and begun the next one
    following = "000000010000000100000002"
    (server / "streaming" / f"{following}.partial").write_bytes(b"newer")
    os.utime(server / "streaming" / f"{following}.partial", (3000, 3000))
    found = wal.chain(server, FIRST, SEGMENT_SIZE, frozenset(), looked)
    assert found == wal.Chain(following, datetime.fromtimestamp(3000, UTC), "")


def test_a_segment_that_is_empty_is_none(server: Path) -> None:
    (server / "streaming" / "000000010000000100000002.partial").touch()  # as a receiver makes it
    archived(server, SEGMENTS[1]).write_bytes(b"")  # as a crash may leave it
    found = wal.chain(server, FIRST, SEGMENT_SIZE, frozenset())
    assert found == wal.Chain(FIRST, datetime.fromtimestamp(1000, UTC), SEGMENTS[1])
    found = wal.chain(server, SEGMENTS[2], SEGMENT_SIZE, frozenset())
    assert found is not None
    assert found.last == SEGMENTS[3]


@pytest.mark.parametrize("size", [3 * 8192, SEGMENT_SIZE], ids=["on a full disk", "before the first WAL"])
def test_a_segment_that_a_receiver_has_filled_with_zeros_is_none(server: Path, tmp_path: Path, size: int) -> None:
    following = "000000010000000100000002"
    (server / "streaming" / f"{SEGMENTS[3]}.partial").rename(server / "streaming" / SEGMENTS[3])
    partial = server / "streaming" / f"{following}.partial"
    partial.write_bytes(bytes(size))
    before = wal.Chain(SEGMENTS[3], datetime.fromtimestamp(2000, UTC), "")
    assert wal.chain(server, FIRST, SEGMENT_SIZE, frozenset()) == before, "a moment is promised that nobody has"
    assert wal.fetch(server, following, tmp_path / "out") == 1, "PostgreSQL ends a recovery at a file that is too short"
    assert wal.newest(server) == 2000, "it is said that WAL comes, while each try fills the file anew"
    with partial.open("r+b") as file:
        file.write(bytes.fromhex("10d1"))
    assert wal.fetch(server, following, tmp_path / "out") == 0
    archived(server, FIRST).write_bytes(bytes(size))
    assert wal.fetch(server, FIRST, tmp_path / "out") == 200, "what was archived is damaged, and no end"


def test_the_newest_moment_is_that_of_what_is_received_else_of_the_last_of_the_archive(server: Path) -> None:
    assert wal.newest(server) == 2000
    (server / "streaming" / f"{SEGMENTS[3]}.partial").unlink()
    assert wal.newest(server) == 1002, "of the last log file"
    assert wal.newest(server.with_name("main-1-1")) == 0


def test_postgresql_gets_archived_and_unfinished_segments(server: Path, tmp_path: Path) -> None:
    for name, content in ((FIRST, FIRST.encode()), (SEGMENTS[3], b"newest")):
        assert wal.fetch(server, name, tmp_path / "out") == 0
        assert (tmp_path / "out").read_bytes() == content


def test_the_end_of_wal_and_damage_are_told_apart(server: Path, tmp_path: Path) -> None:
    assert wal.fetch(server, "000000010000000100000002", tmp_path / "out") == 1, "PostgreSQL promotes then"
    data = bytearray(archived(server, FIRST).read_bytes())
    data[4] ^= 1  # a byte that gzip itself does not check
    archived(server, FIRST).write_bytes(data)
    assert wal.fetch(server, FIRST, tmp_path / "out") > 125, "PostgreSQL stops then"
    assert list(wal.damaged(server)) == [FIRST]


def test_a_promotion_never_takes_a_number_that_another_history_has(server: Path, tmp_path: Path) -> None:
    sister = server.with_name("main-7000-2") / "wals"
    sister.mkdir(parents=True)
    (sister / "00000002.history").write_text("1\t0/1\twhy\n")
    other = server.with_name("main-8000-3") / "wals"
    other.mkdir(parents=True)
    (other / "00000003.history").write_text("of another cluster")
    assert wal.fetch(server, "00000002.history", tmp_path / "out") == 0
    assert wal.fetch(server, "00000003.history", tmp_path / "out") == 1


def test_checksums_are_noted_once_and_forgotten_with_their_file(server: Path) -> None:
    ledger = server / "samokoder-wal.sha256"
    before = ledger.read_text()
    wal.note(server)
    assert ledger.read_text() == before
    ledger.write_text(before + "0123456")  # cut off
    archived(server, FIRST).unlink()
    wal.note(server)
    assert sorted(line[66:] for line in ledger.read_text().splitlines()) == sorted(SEGMENTS[1:3])
    assert wal.damaged(server) == {}


def not_seen_by_gzip(data: bytes, content: bytes) -> bool:
    try:
        return gzip.decompress(data) == content
    except (OSError, EOFError, zlib.error):
        return False


def test_wal_that_a_base_backup_has_archived_itself_has_its_checksum_at_once(
    server: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing waits for the service then; and gzip, which is left, does not see each wrong bit in a run of zeros."""
    segment, content = archived(server, SEGMENTS[3]), bytes(range(256)) * 40 + bytes(SEGMENT_SIZE)

    def backup(*_: object, what: str) -> str:
        segment.write_bytes(gzip.compress(content, 1))
        raise BackupError(what)

    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(barman, "database", MagicMock(size=lambda _: 0))
    monkeypatch.setattr(barman, "current", lambda _: server)
    monkeypatch.setattr(barman, "remove_leftovers", lambda: None)
    monkeypatch.setattr(barman, "_needed", lambda *_: 0)
    monkeypatch.setattr(barman, "barman", backup)
    with pytest.raises(BackupError):
        barman.take(MagicMock(), {})
    data = segment.read_bytes()
    flipped = (data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :] for at in range(len(data) // 2, len(data)))
    segment.write_bytes(next(each for each in flipped if not_seen_by_gzip(each, content)))
    assert list(wal.damaged(server)) == [SEGMENTS[3]], "whatever became of the backup, its WAL is checked"


def made(day: datetime, kind: settings.Kind = "dump") -> Copy:
    name = f"{kind}-{day:%Y%m%dT%H%M%SZ}"
    path = (settings.DUMPS if kind == "dump" else settings.REDIS_COPIES) / f"{name}.dump"
    return Copy(name, kind, path, day, 1, "", (), 0)


def test_of_each_day_week_and_month_the_newest_dump_is_kept() -> None:
    start = datetime(2026, 1, 1, 3, tzinfo=UTC)
    all_of_them = [made(start + timedelta(hours=12 * number)) for number in range(400)]
    days = copies.newest_of_each(all_of_them, "%Y-%m-%d", 7)
    assert len(days) == 7
    assert all(name.endswith("T150000Z") for name in days), "the later one of each day"
    assert len(copies.newest_of_each(all_of_them, "%Y-%m", 6)) == 6
    assert copies.newest_of_each(all_of_them, "%G-%V", 0) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    process.write(path, "old")

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            process.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pgpass"
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(process.write, path, "the same") for _ in range(200)]:
            done.result()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("the same", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_moment_without_its_offset_is_refused() -> None:
    assert moment("2026-11-23 10:05:00+03").utcoffset() == timedelta(hours=3)
    with pytest.raises(argparse.ArgumentTypeError, match="no offset"):
        moment("2026-11-23 10:05:00")


def test_a_mistake_in_the_settings_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CONFIG", tmp_path)
    (tmp_path / "backup.json").write_text(json.dumps({"slot": "Bad Slot", "unknown": 1}))
    with pytest.raises(BackupError, match=r"slot: .*unknown: "):
        settings.load()


NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two base backups of one history and one of the history that a restore has begun, an hour apart; WAL of each."""
    home = home_at(tmp_path, monkeypatch)
    for history, identifier, hour in (("7000-1", "old", 0), ("7000-1", "new", 1), ("7000-2", "other", 2)):
        end = NOON + timedelta(hours=hour)
        home.base(end, hour, history, verified=False, identifier=identifier)
        home.wal(hour, end + timedelta(minutes=50), history)
    return home.root


def test_a_moment_is_reached_from_the_newest_base_backup_before_it(catalogue: Path) -> None:
    for minutes, expected in ((5, "old"), (65, "new"), (105, "new"), (125, "other")):
        planned = restore.plan(Target(moment=NOON + timedelta(minutes=minutes)))
        assert isinstance(planned.source, Base)
        assert planned.source.id == expected
    assert restore.plan(Target(latest=True)).source.id == "other"
    assert restore.plan(Target(backup="old")).recovery == {"recovery_target": "immediate"}


def test_of_two_databases_the_newest_moment_is_nobodys_and_a_drill_takes_the_one_that_is_there(catalogue: Path) -> None:
    (catalogue / "barman" / "main-7000-2").rename(catalogue / "barman" / "main-8000-1")
    with pytest.raises(CannotError, match=r"2 databases.* empty one.*2026-11-23 13:50.*2026-11-23 14:50"):
        restore.plan(Target(latest=True))
    assert restore.plan(Target(present=True)).source.id == "other"
    assert restore.plan(Target(moment=NOON + timedelta(minutes=65))).source.id == "new"


def test_a_database_that_a_restore_has_brought_back_is_not_taken_for_an_empty_one(catalogue: Path) -> None:
    # The one in the middle came in the place of a lost volume.
    known = catalogue / "barman" / "main-7000-1"
    meta = catalogue / "barman" / "main-8000-1" / "meta"
    shutil.copytree(known / "base" / "new", meta.parent / "base" / "empty")
    meta.mkdir()
    info = (known / "meta" / "new-backup.info").read_text()
    (meta / "empty-backup.info").write_text(info.replace("13:00:00", "13:30:00"))
    assert [base.id for base in bases()] == ["old", "new", "empty", "other"]
    assert restore.plan(Target(latest=True)).source.id == "other", "whoever restored once could do so never again"


class Rounds(threading.Event):
    """Ends the service's loop after so many looks."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout, "it would never look again"
        self.left -= 1
        return self.left < 0


@pytest.fixture
def drilled(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets the service look six times; gives the looks at which it did a drill, which fails."""

    def run(server: Path | None, known: dict[str, float] | None = None) -> list[int]:
        never = "0 0 1 1 *"
        postgres = {"host": "postgres", "port": 5432, "database": "samokoder", "user": "backup", "sslmode": "disable"}
        document = {
            "postgres": postgres,
            "physical": True,
            "slot": "backup",
            "redis": None,
            "schedules": dict.fromkeys(("base", "dump", "redis", "workspace", "verify", "drill"), never),
            "recovery_window_days": 7,
            "dumps": {"latest": 4, "daily": 7, "weekly": 4, "monthly": 6},
            "redis_copies": 48,
            "workspace": None,
            "workspace_copies": 7,
            "max_slot_wal_mib": 256,
            "superuser": "postgres",
            "session_options": "",
            "offsite": None,
        }
        if known:
            (catalogue / "state.json").write_text(json.dumps({"drill": {"finished": time.time(), **known}}))
        it, rounds, found = service.Service(settings.Settings.model_validate(document)), Rounds(6), list[int]()
        monkeypatch.setattr(settings, "SCRATCH", catalogue / "scratch")
        monkeypatch.setattr(settings, "DRILL_REQUEST", catalogue / "drill.json")
        monkeypatch.setattr(state, "_memory", {})
        monkeypatch.setattr(jobs, "backup", lambda *_: False)
        monkeypatch.setattr(jobs, "verify", lambda: True)
        monkeypatch.setattr(jobs, "drill", lambda: found.append(rounds.left))
        it._stop, it._server = rounds, server
        it._jobs()
        return found

    return run


def test_the_first_drill_comes_with_the_first_base_backup_and_the_next_by_its_schedule(
    catalogue: Path, drilled: Callable[..., list[int]]
) -> None:
    server = catalogue / "barman" / "main-7000-2"
    assert drilled(server) == [5], "at once; and one that fails is not tried again at each look"
    assert drilled(server, {"exit": 0, "success": time.time()}) == [], "what was proved needs no second proof"
    assert drilled(server, {"exit": 1, "success": time.time() - 400 * 86400}) == [5], "its schedule has come"


def test_no_drill_is_tried_before_there_is_anything_to_restore(
    catalogue: Path, drilled: Callable[..., list[int]]
) -> None:
    shutil.rmtree(catalogue / "barman")
    assert drilled(None) == [], "it would fail, and wake somebody up"
    new = catalogue / "barman" / "main-7000-1"
    (new / "streaming").mkdir(parents=True)
    (new / "streaming" / "000000010000000000000001.partial").write_bytes(b"wal")
    assert drilled(new) == [], "WAL alone is no backup"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Target(moment=NOON - timedelta(minutes=1)), "the first moment that can be restored is 2026-11-23T12:00"),
        (Target(moment=NOON + timedelta(minutes=115)), "the last moment that can be restored before it is .*T13:50"),
        (Target(backup="none"), "there is no backup none"),
    ],
)
def test_what_was_never_there_is_refused(catalogue: Path, target: Target, why: str) -> None:
    with pytest.raises(CannotError, match=why):
        restore.plan(target)


def test_a_bad_backup_and_a_bad_wal_file_are_gone_around_or_refused(catalogue: Path) -> None:
    state = {"verify": {"finished": 1, "bad": {"new": "one byte", "main-7000-2/000000020000000000000002": "one byte"}}}
    (catalogue / "state.json").write_text(json.dumps(state))
    with pytest.raises(CannotError, match="new is bad: one byte"):
        restore.plan(Target(backup="new"))
    # The older base backup leads there too: its WAL goes on without a gap.
    assert restore.plan(Target(moment=NOON + timedelta(minutes=65))).source.id == "old"
    with pytest.raises(CannotError, match=r"other cannot .* its WAL file 000000020000000000000002 is missing"):
        restore.plan(Target(latest=True))
    assert [(entry.id, entry.status) for entry in entries.entries()] == [
        ("old", "unverified"),
        ("new", "bad"),
        ("other", "bad"),
    ]


def test_wal_that_ends_long_before_the_moment_is_not_taken_for_a_quiet_time() -> None:
    log = "LOG:  last completed transaction was at log time 2026-11-23 12:00:00.25+00\nFATAL:  recovery ended before"
    servers._was_quiet(log, NOON + timedelta(seconds=20))
    with pytest.raises(CannotError, match=r"12:05:00\+00:00 cannot .* is of 2026-11-23 12:00:00.250000\+00:00"):
        servers._was_quiet(log, NOON + timedelta(minutes=5))
    with pytest.raises(CannotError, match="in the base backup"):
        servers._was_quiet("FATAL:  recovery ended before", NOON)


def test_a_backup_of_another_version_is_refused(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore, "_installed", lambda: 16)
    with pytest.raises(CannotError, match="other is of PostgreSQL 15, and this image has 16"):
        restore.plan(Target(latest=True))
