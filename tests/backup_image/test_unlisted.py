"""A folder that cannot be listed: it is told, all else goes on, and `latest` is not silently what is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from samokoder_backup import barman, catalogue, database, entries, jobs, metrics, restore, service, state, wal
from samokoder_backup.__main__ import main
from samokoder_backup.process import CannotError
from samokoder_backup.restore import Target
from tests.backup_image.folders import Home, Rounds, home_at, one_wrong_byte, segment

WHY = {errno.EACCES: "Permission denied", errno.EIO: "Input/output error"}
Spoil = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Two histories and a dump; WAL is received of the second."""
    home = home_at(tmp_path, monkeypatch)
    home.base(home.ago(days=2))
    home.wal(2, home.ago(days=1))
    home.base(home.ago(hours=20), history="7000-2")
    home.wal(2, home.ago(hours=1), "7000-2")
    home.wal(3, home.ago(minutes=1), "7000-2", received=True)
    home.copy(home.ago(hours=2))
    monkeypatch.setattr(barman, "current", lambda _: home.server("7000-2"))
    return home


@pytest.fixture(params=WHY, ids=list(WHY.values()))
def spoil(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Let a folder not be listed, nor anything in it be looked at: its mode was changed, or its disk fails.

    inside: whether what is in it cannot be looked at either.
    """

    def unlisted(folder: Path, *, inside: bool = True) -> None:
        for name in ("listdir", "scandir", "stat"):
            real = getattr(os, name)

            def look(path: Any, *, real: Any = real, itself: bool = name != "stat", **more: Any) -> object:
                it = Path(path) if isinstance(path, (str, Path)) else Path()
                if (inside and folder in it.parents) or (itself and it == folder):
                    raise OSError(request.param, WHY[request.param], str(it))
                return real(path, **more)

            monkeypatch.setattr(os, name, look)

    return unlisted


FOLDERS = ["", "main-7000-2", *(f"main-7000-2/{name}" for name in ("meta", "base", "wals", "streaming"))]
FOLDERS += ["main-7000-2/wals/0000000200000000"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_service_and_every_other_restore_go_on(
    home: Home, spoil: Spoil, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (dump,) = (each.id for each in entries.entries() if each.kind == "dump")
    old, _ = catalogue.bases()
    it = service.Service(home.settings)
    it._server = home.server("7000-2")
    spoil(home.root / "barman" / folder)
    monkeypatch.setattr(it, "_stop", Rounds(2))
    for job in ("backup", "verify", "drill"):
        monkeypatch.setattr(jobs, job, lambda *_: False)
    it._jobs()
    monkeypatch.setattr(it, "_stop", Rounds(1))
    it._archive()
    list(metrics.Metrics(home.settings, it).collect())
    catalogue.remove_leftovers()
    assert restore.plan(Target(backup=dump)).source.id == dump
    assert home.listed(capsys)[dump] == "good"
    if folder:
        assert restore.plan(Target(moment=home.ago(hours=30))).source.id == old.id, "of the other history all is there"
    with pytest.raises(CannotError):
        restore.plan(Target(latest=True))
    assert main(["check-restore", "--latest"]) == 2


@pytest.mark.parametrize("folder", ["", "main-7000-2", *(f"main-7000-2/{name}" for name in ("meta", "base", "wals"))])
def test_it_is_bad_and_told(home: Home, spoil: Spoil, folder: str) -> None:
    spoil(home.root / "barman" / folder)
    assert jobs.verify() is False
    assert "it cannot be listed" in " ".join(state.bad().values())


def test_a_verification_that_could_not_see_a_folder_forgets_nothing_that_is_bad(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = catalogue.bases()
    (dump,) = (each.id for each in entries.entries() if each.kind == "dump")
    known = {first.id: "one byte", second.id: "one byte", f"main-7000-2/{segment(2, 2)}": "one byte", dump: "one byte"}
    monkeypatch.setattr("samokoder_backup.copies.run_unread", lambda *_, **__: None)
    for folder in (home.root / "barman", home.server() / "meta"):
        state.record("verify", {"bad": known})
        with monkeypatch.context() as patch:
            listdir = os.listdir

            def look(path: Path, folder: Path = folder, listdir: Callable[[Path], list[str]] = listdir) -> list[str]:
                if Path(path) == folder:
                    raise OSError(errno.EIO, "Input/output error")
                return listdir(path)

            patch.setattr(os, "listdir", look)
            jobs.verify()
        assert first.id in state.bad(), "once it is seen again it would pass for good, and a good one be removed for it"
        assert dump not in state.bad(), "this one was looked at, and is good now"
    assert jobs.verify() is True


@pytest.mark.parametrize("folder", ["wals", f"wals/{segment(2, 2)[:16]}"])
def test_a_verification_that_could_not_list_a_folder_of_wal_forgets_none_of_it_that_is_bad(
    home: Home, spoil: Spoil, folder: str
) -> None:
    known, mended = f"main-7000-2/{segment(2, 2)}", f"main-7000-1/{segment(2)}"
    state.record("verify", {"bad": {known: "one byte", mended: "one byte"}})
    spoil(home.server("7000-2") / folder)
    jobs.verify()
    assert state.bad()[known] == "one byte"
    assert mended not in state.bad()


def test_latest_is_refused_with_the_folder_and_a_moment_that_can_be_named(home: Home, spoil: Spoil) -> None:
    spoil(home.server() / "streaming")
    with pytest.raises(CannotError) as refused:
        restore.plan(Target(latest=True))
    assert "main-7000-1/streaming" in str(refused.value)
    assert home.ago(minutes=1).isoformat(sep=" ") in str(refused.value)


def test_no_base_backup_is_said_to_be_missing_where_nobody_can_look(home: Home, spoil: Spoil) -> None:
    spoil(home.root / "barman")
    with pytest.raises(CannotError, match=r"barman: it cannot be listed: .*barman"):
        restore.plan(Target(moment=home.ago(hours=3)))


def test_what_is_old_goes_all_the_same_and_nothing_of_what_cannot_be_seen(
    home: Home, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(barman, "barman", lambda _, *words, what: removed.append(f"{words} {what}"))
    monkeypatch.setattr(barman, "current", lambda _: home.root / "barman" / "main-7000-2")
    for days in (9, 8):
        home.base(home.ago(days=days), 1, "7000-2")
    home.base(home.ago(days=30), 1, "5000-1")
    before = {path for path in home.files() if "main-5000-1" in path}
    spoil(home.server("5000-1") / "meta")
    jobs._retire(home.settings, "base")
    monkeypatch.undo()
    assert len(removed) == 1
    assert before <= home.files().keys()


SLOT = database.Slot(lost=False, active_pid=None, retained=0)


def attached(home: Home, monkeypatch: pytest.MonkeyPatch, slot: database.Slot | None = SLOT) -> Path:
    """Attach to the first history, which goes on after the other one."""
    monkeypatch.setattr(database, "connected", lambda _: nullcontext())
    monkeypatch.setattr(database, "identity", lambda _: database.Identity("7000", 1, segment(2)))
    monkeypatch.setattr(database, "slot", lambda *_: slot)
    mark = home.root / "mark"
    monkeypatch.setattr(database, "mark", lambda _: mark.read_text() if mark.exists() else "")
    monkeypatch.setattr(database, "set_mark", lambda _, new: mark.write_text(new))
    return barman.attach(home.settings).server


def test_a_history_that_cannot_be_seen_keeps_no_log_from_being_received(
    home: Home, spoil: Spoil, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.wal(1, home.ago(days=3), "5000-1")
    spoil(home.server("5000-1") / "streaming")
    assert attached(home, monkeypatch) == home.server()
    assert "main-5000-1" in capsys.readouterr().err
    ((since, until),) = catalogue.pauses(home.server())
    assert since == home.ago(days=1)
    assert until >= home.now, "the other history may be the one that PostgreSQL was on until a moment ago"


def test_a_history_that_cannot_be_seen_makes_one_pause_and_no_further_ones(
    home: Home, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.wal(1, home.ago(days=3), "5000-1")
    spoil(home.server("5000-1") / "streaming")
    attached(home, monkeypatch)
    known = catalogue.pauses(home.server())
    assert len(known) == 1, "it may be the one that was received until now"
    for seconds in (50, 30, 10):  # the receiver ends and begins again, or the service does
        home.wal(2, home.ago(seconds=seconds))
        attached(home, monkeypatch)
    assert catalogue.pauses(home.server()) == known, "nothing else was received since"
    (home.root / "attached").write_text("main-5000-1\n")
    attached(home, monkeypatch)
    assert len(catalogue.pauses(home.server())) == 2, "now something was"


@pytest.mark.parametrize("history", ["5000-1", "7000-1"])
def test_a_history_that_cannot_be_seen_for_want_of_something_is_looked_at_again(
    home: Home, history: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.wal(1, home.ago(days=3), "5000-1")
    newest = wal.newest

    def lacking(server: Path) -> float:
        if server == home.server(history):
            raise OSError(errno.EMFILE, "Too many open files")
        return newest(server)

    with monkeypatch.context() as patch:
        patch.setattr(wal, "newest", lacking)
        with pytest.raises(OSError, match="Too many"):  # the service tries again in a moment
            attached(home, monkeypatch)
    assert catalogue.pauses(home.server()) == [], "it would stay for good"
    attached(home, monkeypatch)
    assert [end for _, end in catalogue.pauses(home.server())] == [home.ago(minutes=1)], "as the other history says"


def test_a_moment_is_refused_with_both_causes_of_a_pause(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    attached(home, monkeypatch)
    home.wal(3, home.now)
    with pytest.raises(CannotError, match="was on another history, or nobody could see whether it was"):
        restore.plan(Target(moment=home.ago(hours=22)))


def test_log_is_received_where_a_slot_is_gone_and_nobody_can_see_what_was_received(
    home: Home, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(home.server() / "wals")
    assert attached(home, monkeypatch, slot=None) == home.server()


def test_where_the_histories_cannot_be_listed_the_log_is_received(
    home: Home, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(home.root / "barman", inside=False)
    assert attached(home, monkeypatch) == home.server()


def test_a_promotion_takes_no_number_of_a_folder_that_cannot_be_seen(home: Home, spoil: Spoil, tmp_path: Path) -> None:
    spoil(home.root / "barman", inside=False)
    assert wal.main([str(home.server()), "00000002.history", str(tmp_path / "out")]) > 125


def test_leftovers_of_the_other_histories_go(home: Home, spoil: Spoil) -> None:
    left = home.base(home.ago(hours=1), 2, "7000-2", status="STARTED", verified=False)
    one_wrong_byte(home.server() / "meta" / f"{catalogue.bases()[0].id}-backup.info")
    spoil(home.server() / "meta")
    catalogue.remove_leftovers()
    assert not (home.server("7000-2") / "base" / left).exists()
