"""What cannot be read is bad, is told, and stays; only what is known to be unfinished is removed."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from samokoder_backup import barman, catalogue, copies, entries, jobs, process, settings, state, wal
from samokoder_backup.process import BackupError, UnsureError
from tests.backup_image.folders import Home, home_at, one_wrong_byte, segment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return home_at(tmp_path, monkeypatch)


def make(home: Home, kind: settings.Kind = "dump", content: str = "new") -> None:
    """Make a copy, as a run does, but for the program that fills it."""

    def fill(path: Path) -> dict[str, object]:
        path.write_text(content)
        return {}

    copies._make(kind, fill)


@pytest.mark.parametrize("kind", ["dump", "redis"])
def test_a_damaged_description_costs_no_copy(
    home: Home, kind: settings.Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, good = home.copy(home.ago(days=2), kind), home.copy(home.ago(days=1), kind)
    (note,) = home.root.glob(f"*/{damaged}.json")
    one_wrong_byte(note)
    before = home.files()
    make(home, kind)
    copies.retire(home.settings, kind, set())
    assert before.items() <= home.files().items(), "the copy itself is whole, and somebody may mend the description"
    said = home.listed(capsys)
    assert (said[damaged], said[good]) == ("bad", "good"), "`make backups` tells it before any verification"
    one_wrong_byte(note)
    assert home.listed(capsys)[damaged] == "good", "it was mended"


def test_a_copy_whose_description_is_lost_or_that_is_lost_itself_is_told_and_what_is_left_stays(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, lost, short = (home.copy(home.ago(days=days)) for days in (4, 3, 2))
    (home.root / "dumps" / f"{alone}.json").unlink()
    (home.root / "dumps" / f"{lost}.dump").unlink()
    os.truncate(home.root / "dumps" / f"{short}.dump", 3)
    before = home.files()
    make(home)
    copies.retire(home.settings, "dump", set())
    assert before.items() <= home.files().items()
    said = home.listed(capsys)
    assert {said[each] for each in (alone, lost, short)} == {"bad"}
    assert jobs.verify() is False
    assert {alone, lost, short} <= state.bad().keys()


class CutOffError(BaseException):
    """The process dies here."""


def cut_off(monkeypatch: pytest.MonkeyPatch, at: int, run: Callable[[], object]) -> bool:
    """Run something until its step number `at`, each change of the disk being one; tell whether it was cut off."""
    steps = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def step(*words: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps >= at:  # nor is anything done that would tidy up
                raise CutOffError
            return real(*words, **more)

        return step

    with monkeypatch.context() as patch:
        for name in ("unlink", "rename", "replace", "rmdir", "write_text"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        for name in ("unlink", "rmdir", "fsync"):
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            run()
        except CutOffError:
            return True
    return False


def test_a_copy_that_is_cut_off_at_any_step_of_its_making_leaves_nothing_that_counts_or_is_bad(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = home.copy(home.ago(days=1))
    for at in range(1, 100):
        was_cut = cut_off(monkeypatch, at, lambda: make(home))
        said = home.listed(capsys)
        assert set(said.values()) == {"good"}, f"nothing is bad, it was cut off at step {at}"
        copies._remove_leftovers("dump", home.root / "dumps")
        assert home.listed(capsys) == said
        assert len(home.files()) == 2 * len(said), f"each has a file and a description after step {at}"
        for new in said.keys() - {old}:
            for path in (home.root / "dumps").glob(f"{new}.*"):
                path.unlink()
        if not was_cut:
            assert at > 4, "there are as many steps at least"
            return
    pytest.fail("it never came to its end")


def test_a_removal_that_is_cut_off_at_any_step_is_ended_and_not_taken_for_damage(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for at in range(1, 100):
        old = home.copy(home.ago(days=400))
        for days in range(1, 12):
            home.copy(home.ago(days=days))
        was_cut = cut_off(monkeypatch, at, lambda: copies.retire(home.settings, "dump", set()))
        assert set(home.listed(capsys).values()) == {"good"}, f"it was cut off at step {at}"
        copies._remove_leftovers("dump", home.root / "dumps")
        said = home.listed(capsys)
        assert len(home.files()) == 2 * len(said), f"each has a file and a description after step {at}"
        if not was_cut:
            assert old in said, "as the newest of its month"
            assert len(said) < 12, "some are removed"
            return
    pytest.fail("it never came to its end")


def test_a_bad_copy_takes_no_place_and_stays_as_long_as_a_good_one_would(home: Home) -> None:
    made = [home.copy(home.ago(hours=hours), "redis") for hours in range(60, 0, -1)]
    bad = {made[0], made[20]}
    one_wrong_byte(home.root / "redis" / f"{made[30]}.json")
    copies.retire(home.settings, "redis", bad)
    left = {path.stem for path in (home.root / "redis").glob("*.rdb")}
    assert made[0] not in left, "with the last 48, it would have gone"
    assert {made[20], made[30]} <= left
    good = left - bad - {made[30]}
    assert len(good) == 48, "so many good ones are kept"


STATES = ("EMPTY", "STARTED", "FAILED", "WAITING_FOR_WALS")


@pytest.mark.parametrize("status", STATES)
def test_a_base_backup_that_its_description_calls_unfinished_is_removed_however_often_that_is_cut_off(
    home: Home, status: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = home.base(home.ago(hours=2))
    for at in range(1, 30):
        home.base(home.ago(hours=1), 2, status=status, verified=False)
        was_cut = cut_off(monkeypatch, at, catalogue.remove_leftovers)
        assert home.listed(capsys) == {good: "good"}, f"what is half removed is not bad (step {at})"
        catalogue.remove_leftovers()
        assert [path.name for path in (home.server() / "base").iterdir()] == [good]
        assert [path.name for path in (home.server() / "meta").iterdir()] == [f"{good}-backup.info"]
        if not was_cut:
            return
    pytest.fail("it never came to its end")


# Where a byte is changed: in the name of a line, in Barman's word for its state, in the moment, in a line that only
# Barman reads. The first three cannot be read, the last one is known by its checksum alone.
@pytest.mark.parametrize("where", ["status=", "DONE", "end_time=2", "mode="])
def test_a_damaged_description_costs_no_base_backup_and_does_not_keep_barman_from_working(
    home: Home, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, good = home.base(home.ago(days=2)), home.base(home.ago(days=1), 2)
    info = home.server() / "meta" / f"{damaged}-backup.info"
    at = info.read_text().index(where) + len(where) - 1
    one_wrong_byte(info, at)
    before = set(home.files().values())
    catalogue.remove_leftovers()
    assert set(home.files().values()) == before, "the archive is whole, and somebody may mend the description"
    assert home.listed(capsys) == {damaged: "bad", good: "good"}
    assert not info.exists(), "a Barman that reads it ends with an error, whatever it is to do in this history"
    assert jobs.verify() is False
    assert damaged in state.bad()
    apart = info.with_name(f"{info.name}.apart")
    one_wrong_byte(apart, at)
    assert jobs.verify() is True, "it was mended"
    assert home.listed(capsys)[damaged] == "good"
    catalogue.remove_leftovers()
    assert info.exists(), "and is Barman's again"


@pytest.mark.parametrize("lost", ["data/base.tar.gz", "data/backup_manifest", "samokoder.json", ""])
def test_a_base_backup_of_which_something_is_lost_or_unreadable_is_bad_at_once(
    home: Home, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = home.base(home.ago(days=9)), home.base(home.ago(days=8), 2)
    if lost == "samokoder.json":
        one_wrong_byte(home.server() / "base" / newer / lost)
    elif lost:
        (home.server() / "base" / newer / lost).unlink()
    else:
        (home.server() / "meta" / f"{newer}-backup.info").unlink()
    assert home.listed(capsys) == {older: "good", newer: "bad"}
    catalogue.remove_leftovers()
    assert (home.server() / "base" / newer / "data").exists(), "what is left of it stays"


@pytest.fixture
def retiring(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """Lets retention do its work, but for the WAL; gives the base backups that it has removed."""
    monkeypatch.setattr(barman, "barman", lambda *_, **__: "")
    monkeypatch.setattr(barman, "current", lambda _: home.server())

    def there() -> set[str]:
        return {path.name for path in (home.root / "barman").glob("*/base/*")}

    def run() -> set[str]:
        before = there()
        jobs._retire(home.settings, "base")
        return before - there()

    return run


def test_an_older_good_base_backup_stays_when_the_newer_one_is_damaged_or_unverified(
    home: Home, retiring: Callable[[], set[str]]
) -> None:
    home.base(home.ago(days=10))
    damaged = home.base(home.ago(days=9), 2)
    home.base(home.ago(days=8), 3, verified=False)
    one_wrong_byte(home.server() / "base" / damaged / "samokoder.json")
    assert retiring() == set(), "the oldest one is the only good one that reaches back so far"


def test_a_damaged_base_backup_goes_when_a_good_one_of_its_age_would(
    home: Home, retiring: Callable[[], set[str]]
) -> None:
    oldest, damaged = home.base(home.ago(days=10)), home.base(home.ago(days=9), 2)
    home.base(home.ago(days=8), 3)
    later = home.base(home.ago(days=1), 4)
    for each in (damaged, later):
        one_wrong_byte(home.server() / "meta" / f"{each}-backup.info")
    assert retiring() == {oldest, damaged}
    assert (home.server() / "base" / later).exists()


def test_a_history_with_a_base_backup_that_cannot_be_read_or_listed_is_not_removed(
    home: Home, retiring: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    home.base(home.ago(days=8), history="7000-2")
    damaged = home.base(home.ago(days=6), history="6000-1")
    (home.server("6000-1") / "meta" / f"{damaged}-backup.info").write_text("")
    home.wal(1, home.ago(days=20), "5000-1")
    listdir, os_walk = os.listdir, os.walk
    for unreadable in ("6000-1", "5000-1"):
        os.utime(home.wal(1, home.ago(days=20), unreadable))
        home.wal(1, home.ago(days=20), unreadable)
    monkeypatch.setattr(barman, "current", lambda _: home.server("7000-2"))

    def failing(path: Path) -> list[str]:
        if "main-5000-1" in str(path):
            raise OSError(5, "Input/output error", str(path))
        return listdir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing)
        assert retiring() == set()
    assert {path.name for path in (home.root / "barman").iterdir()} == {"main-5000-1", "main-6000-1", "main-7000-2"}
    assert os_walk is os.walk
    assert retiring() == set()
    assert not (home.root / "barman" / "main-5000-1").exists(), "nothing needs it"


@pytest.mark.parametrize("which", ["dump", "redis copy", "noted checksums", "checksums of the WAL", "WAL file", "WAL"])
def test_one_unreadable_file_does_not_end_the_verification_of_the_others(
    home: Home, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = home.base(home.ago(days=1))
    names = [home.copy(home.ago(days=days), kind) for kind in ("dump", "redis") for days in (3, 2, 1)]
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    path = {
        "dump": home.root / "dumps" / f"{names[0]}.dump",
        "redis copy": home.root / "redis" / f"{names[3]}.rdb",
        "noted checksums": home.server() / "base" / base / "samokoder.json",
        "checksums of the WAL": ledger,
        "WAL file": home.server() / "wals" / segment(1)[:16] / segment(1),
        "WAL": home.server() / "wals" / segment(1)[:16],
    }[which]
    one_wrong_byte(home.root / "dumps" / f"{names[2]}.dump")  # a later one, which is bad
    opened, listed = Path.open, os.scandir

    def failing(self: Path, *words: object, **more: object) -> object:
        if self == path:
            raise OSError(5, "Input/output error", str(self))
        return opened(self, *words, **more)  # type: ignore[call-overload]

    def unlisted(self: Path = Path()) -> object:
        if Path(self) == path:
            raise OSError(5, "Input/output error", str(self))
        return listed(self)

    monkeypatch.setattr(copies, "run", lambda *_, **__: "")
    monkeypatch.setattr(copies, "run_unread", lambda *_, **__: None)
    monkeypatch.setattr(Path, "open", failing)
    monkeypatch.setattr(os, "scandir", unlisted)
    iterdir = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda self: unlisted(self) and iterdir(self) if self == path else iterdir(self)
    )
    assert jobs.verify() is False
    assert names[2] in state.bad(), "retention would count it, and remove an older good one for it"
    assert "Input/output error" in " ".join(state.bad().values()), "what cannot be read is told"


def test_a_check_that_lacked_room_is_no_verdict_and_what_was_known_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = home.copy(home.ago(days=2)), home.copy(home.ago(days=1))
    state.record("verify", {"bad": {bad: "one byte"}, "finished": 1.0, "success": 2.0})

    def full(*_: object, **__: object) -> str:
        raise UnsureError("No space left on device")

    monkeypatch.setattr(copies, "run_unread", full)
    assert jobs.verify() is False
    assert state.bad() == {bad: "one byte"}, "neither is a good one bad now, nor a bad one good"
    known = state.read()["verify"]
    assert good in known["error"], "it is told that it was not checked"
    assert known["success"] == 2.0, "so that in time an alert says that nothing was verified"


def test_what_cannot_be_looked_at_is_told_and_ends_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails, or a folder whose mode somebody has changed."""
    names = [home.copy(home.ago(days=days)) for days in (3, 2, 1)]
    real = Path.stat

    def fails(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name.startswith(names[1]):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", fails)
    assert names[1] in entries.known_bad(), "one file would end the service, and with it each backup and each restore"
    assert [copy.id for copy in copies.copies("dump")] == [names[0], names[2]]


@pytest.mark.parametrize(
    ("script", "unsure"),
    [
        ("echo 'tar: x: Cannot write: No space left on device' >&2; exit 2", True),
        ("kill -9 $$", True),
        ("echo 'backup manifest checksum mismatch' >&2; exit 1", False),
    ],
)
def test_a_program_that_was_killed_or_lacked_room_has_not_judged(script: str, unsure: bool) -> None:
    with pytest.raises(BackupError) as raised:
        process.run(["sh", "-c", script], what="check")
    assert isinstance(raised.value, UnsureError) is unsure


@pytest.mark.parametrize("how", ["damaged", "removed"])
def test_when_nobody_knows_what_is_bad_nothing_is_removed_until_all_was_verified(
    home: Home, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [home.copy(home.ago(hours=hours), "redis") for hours in range(60, 0, -1)]
    state.record("verify", {"bad": dict.fromkeys(made[20:], "one byte"), "finished": 1.0, "whole": 1.0})
    one_wrong_byte(home.root / "state.json")
    monkeypatch.setattr(state, "_memory", {})
    if how == "removed":
        (home.root / "state.json").unlink()
    state.record("redis", {"exit": 0, "finished": 2.0})  # a run that knows nothing of it writes it anew
    assert (state.FORGOTTEN in state.bad()) is (how == "damaged"), "it is told"
    jobs._retire(home.settings, "redis")
    assert len(copies.copies("redis")) == 60, "most of the newer ones were bad"
    monkeypatch.setattr(copies, "run", lambda *_, **__: "")
    for only in ("a name that nobody has", made[0]):
        jobs.verify(only)
        jobs._retire(home.settings, "redis")
        assert len(copies.copies("redis")) == 60, "of all others nobody knows yet whether they are bad"
    assert jobs.verify() is True
    jobs._retire(home.settings, "redis")
    assert len(copies.copies("redis")) == 48


def test_what_a_full_disk_did_not_take_is_known_until_it_can_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.record("verify", {"bad": {}, "finished": 1.0})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state, "write", full)
        state.record("verify", {"bad": {"one": "byte"}})
        assert state.bad() == {"one": "byte"}
    state.record("redis", {"exit": 0})
    assert json.loads((home.root / "state.json").read_text())["verify"]["bad"] == {"one": "byte"}


@pytest.fixture
def unreadable_ledger(home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checksums of two WAL files cannot be read, until there is another file in the place of theirs."""
    for number in (1, 2):
        home.wal(number, home.ago(hours=1)).write_bytes(gzip.compress(b"wal"))
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    opened, spoilt = io.open, ledger.stat().st_ino

    def failing(path: object, *words: Any, **more: Any) -> Any:
        if path == ledger and ledger.stat().st_ino == spoilt:
            raise OSError(5, "Input/output error", str(path))
        return opened(path, *words, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", failing)
    return ledger


def test_checksums_that_cannot_be_read_are_told_and_stop_no_recovery(
    home: Home, unreadable_ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(home.server()), segment(1), str(tmp_path / "out")]
    assert wal.main(words) == 0, "all of the log is whole, and no moment of this history could be restored"
    assert "samokoder-wal.sha256 of main-7000-1 cannot be read" in capsys.readouterr().err
    home.wal(1, home.ago(hours=1)).write_bytes(gzip.compress(b"wal")[:-5])
    assert wal.main(words) > 125, "gzip itself sees this"
    assert unreadable_ledger.name in wal.damaged(home.server())


def test_checksums_that_cannot_be_read_are_noted_again(home: Home, unreadable_ledger: Path) -> None:
    wal.note(home.server())
    assert [line[66:] for line in sorted(unreadable_ledger.read_text().splitlines(), key=lambda line: line[66:])] == [
        segment(1),
        segment(2),
    ]
    home.wal(1, home.ago(hours=1)).write_bytes(b"was")
    assert list(wal.damaged(home.server())) == [segment(1)]


def test_what_is_bad_stays_so_where_checksums_are_noted_again(home: Home, unreadable_ledger: Path) -> None:
    home.wal(1, home.ago(hours=1)).write_bytes(bytes(100))
    for _ in range(2):
        wal.note(home.server(), [segment(2)])
        assert wal.damaged(home.server()) == {segment(1): wal.CHANGED, segment(2): wal.CHANGED}
    assert unreadable_ledger.exists()


@pytest.mark.parametrize("lost", ["all of them", "all but the file", "all but zeros", "one line"])
def test_what_is_bad_stays_so_where_checksums_are_lost(home: Home, lost: str) -> None:
    for number in (1, 2, 3):
        home.wal(number, home.ago(hours=1))
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    lines = sorted(ledger.read_text().splitlines(), key=lambda line: line[66:])
    if lost == "all of them":
        ledger.unlink()
    elif lost == "one line":
        ledger.write_text("\n".join([*lines[:1], lines[1].replace("  ", " x"), *lines[2:]]))
    else:
        ledger.write_bytes(b"" if lost == "all but the file" else bytes(ledger.stat().st_size))
    home.wal(2, home.ago(hours=1)).write_bytes(gzip.compress(b"another"))
    for _ in range(2):
        wal.note(home.server(), [segment(2)])
        assert wal.damaged(home.server()) == {segment(2): wal.CHANGED}, "gzip takes it for whole"
    assert sorted(line[66:] for line in ledger.read_text().splitlines()) == [segment(each) for each in (1, 2, 3)]


def test_a_file_that_was_put_back_is_good_again_by_the_line_of_the_runbook(home: Home) -> None:
    good = home.wal(1, home.ago(hours=1)).read_bytes()
    path = home.wal(1, home.ago(hours=1))
    path.write_bytes(bytes(100))
    wal.note(home.server())
    path.write_bytes(good)
    assert wal.damaged(home.server()) == {segment(1): wal.CHANGED}, "its checksum is lost"
    runbook = (Path(__file__).parents[2] / "docs/runbooks/BackupVerificationFailed.md").read_text()
    line = runbook.partition("sh -c 'cd /backups/barman/main-… &&")[2].partition("'")[0].replace("NAME", segment(1))
    subprocess.run(["sh", "-c", line], cwd=home.server(), check=True)
    wal.note(home.server(), [segment(1)])
    assert wal.damaged(home.server()) == {}


def test_a_segment_that_is_not_compressed_is_never_noted_as_good(home: Home) -> None:
    home.wal(1, home.ago(hours=1)).write_bytes(bytes(100))
    wal.note(home.server())
    assert wal.damaged(home.server()) == {segment(1): wal.CHANGED}


def test_checksums_are_on_the_disk_when_they_are_noted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.wal(1, home.ago(hours=1))
    wal.note(home.server())
    before = (home.server() / "samokoder-wal.sha256").read_text()
    home.wal(2, home.ago(hours=1))
    assert cut_off(monkeypatch, 1, lambda: wal.note(home.server())), "a power cut would leave zeros in their place"
    assert (home.server() / "samokoder-wal.sha256").read_text() == before


def test_checksums_that_cannot_be_read_for_want_of_something_are_not_noted_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home.wal(1, home.ago(hours=1))
    wal.note(home.server())
    one_wrong_byte(path)

    def lacking(_: Path) -> dict[str, str]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(wal, "_ledger", lacking)
        with pytest.raises(OSError, match="Too many"):
            wal.note(home.server())
    assert wal.damaged(home.server()) == {segment(1): wal.CHANGED}


def test_checksums_that_cannot_be_noted_make_no_base_backup_incomplete(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    home.wal(1, home.ago(hours=1))
    monkeypatch.setattr(barman, "database", MagicMock(size=lambda _: 0))
    monkeypatch.setattr(barman, "current", lambda _: home.server())
    monkeypatch.setattr(barman, "_needed", lambda *_: 0)
    monkeypatch.setattr(barman, "barman", lambda *_, **__: home.base(home.now, 2, verified=False))
    monkeypatch.setattr(wal, "note", failing)
    assert barman.take(home.settings, {}).id == f"{home.now:%Y%m%dT%H%M%S}"
    assert "cannot be noted: " in capsys.readouterr().err


@pytest.mark.parametrize("unreadable", ["ledger", "file"])
def test_wal_that_cannot_be_read_is_never_the_end_of_the_wal(
    home: Home, unreadable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL takes any status up to 125 for the end, and would promote what it has."""
    path = home.wal(1, home.ago(hours=1))
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    if unreadable == "ledger":
        ledger.write_bytes(b"\xff" * 65 + ledger.read_bytes())
        assert wal.main([str(home.server()), segment(1), str(tmp_path / "out")]) == 0, "its file is there"
        return
    exists = Path.exists

    def failing(self: Path) -> bool:
        if self == path:
            raise OSError(5, "Input/output error", str(self))
        return exists(self)

    monkeypatch.setattr(Path, "exists", failing)
    assert wal.main([str(home.server()), segment(1), str(tmp_path / "out")]) > 125


def test_a_damaged_line_of_the_checksums_makes_no_good_wal_bad(home: Home) -> None:
    home.wal(1, home.ago(hours=1))
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    ledger.write_bytes(b"\xff" + ledger.read_bytes()[1:])
    assert wal.damaged(home.server()) == {}
    wal.note(home.server())
    assert segment(1) in ledger.read_text(errors="replace").splitlines()[-1], "it is noted again"


def test_the_time_of_a_copy_in_its_name_is_what_its_place_is_judged_by_when_nothing_else_can_be_read(
    home: Home,
) -> None:
    damaged = home.copy(home.ago(days=3))
    (home.root / "dumps" / f"{damaged}.json").write_text("")
    (found,) = copies.broken("dump")
    assert abs(found.finished - home.ago(days=3)) < timedelta(seconds=1)
