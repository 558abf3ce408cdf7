"""What the program notes: a moment's error is no damage, and no write takes the place of what was not read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from samokoder_backup import barman, catalogue, database, entries, jobs, metrics, notes, process, service, state, wal
from samokoder_backup.settings import Offsite
from tests.backup_image.folders import Home, home_at, one_wrong_byte, segment

Fails = Callable[..., None]
ERRORS = {
    "EIO": OSError(errno.EIO, "Input/output error"),
    "ENOENT while it is renamed": FileNotFoundError(errno.ENOENT, "No such file or directory"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(notes, "_PAUSES", (0.0, 0.0))
    home = home_at(tmp_path, monkeypatch)
    home.base(home.ago(days=1))
    home.wal(2, home.ago(hours=1))
    return home


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Fails:
    """Let a file not be read so many times; 99: never."""

    def spoil(path: Path, times: int, error: OSError = ERRORS["EIO"]) -> None:
        left = [times]
        for name in ("read_text", "read_bytes"):
            real = getattr(Path, name)

            def read(self: Path, *words: Any, real: Any = real, **more: Any) -> Any:
                if self == path and left[0]:
                    left[0] -= 1
                    raise type(error)(error.errno, error.strerror, str(self))
                return real(self, *words, **more)

            monkeypatch.setattr(Path, name, read)

    return spoil


def kept(home: Home, name: str) -> list[bytes]:
    return [path.read_bytes() for path in home.root.glob(f"unread-*{name}*")]


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_that_is_gone_at_the_next_look_costs_nothing(home: Home, fails: Fails, error: OSError) -> None:
    bad = {"one": "byte"}
    state.record("verify", {"bad": bad})
    wal.note(home.server())
    catalogue.note_pause(home.server(), home.ago(days=5).timestamp(), home.ago(days=4).timestamp())
    (home.server() / "samokoder-mark.json").write_text('["mine"]')
    names = ("samokoder-wal.sha256", catalogue.PAUSES, "samokoder-mark.json")
    for path in (home.root / "state.json", *(home.server() / name for name in names)):
        fails(path, 2, error)
    state.record("dump", {"exit": 0})
    assert state.bad() == bad, "nothing old would go until all was verified"
    ledger = (home.server() / names[0]).read_text
    assert len(wal._ledger(home.server())) == len(ledger().splitlines()) == 2
    assert catalogue.pauses(home.server()) == [(home.ago(days=5), home.ago(days=4))]
    assert barman._is_known(home.server(), "mine"), "else another history begins, and `latest` is refused meanwhile"
    assert not barman._is_known(home.server(), "another"), "the file is there all the same"
    assert not list(home.root.glob("unread-*"))


def test_a_state_that_cannot_be_read_is_kept_beside_the_one_that_takes_its_place(home: Home, fails: Fails) -> None:
    state.record("verify", {"bad": {"one": "byte"}})
    before = (home.root / "state.json").read_bytes()
    fails(home.root / "state.json", 3)  # one record's look
    state.record("dump", {"exit": 0})
    assert kept(home, "state.json") == [before], "somebody may be able to read it"
    assert state.FORGOTTEN in state.bad(), "what was bad is not known meanwhile"
    assert state.read()["dump"]["exit"] == 0


def test_a_state_that_cannot_be_read_for_want_of_something_is_let_be(home: Home, fails: Fails) -> None:
    state.record("verify", {"bad": {"one": "byte"}})
    before = (home.root / "state.json").read_bytes()
    fails(home.root / "state.json", 6, OSError(errno.EMFILE, "Too many open files"))
    state.record("dump", {"exit": 0})
    assert (home.root / "state.json").read_bytes() == before
    assert state.bad() == {"one": "byte"}
    assert state.read()["dump"]["exit"] == 0, "this process knows it"


@pytest.mark.parametrize("renames", [True, False])
def test_what_gets_no_second_name_gets_another_one_or_keeps_its_own(
    home: Home, fails: Fails, monkeypatch: pytest.MonkeyPatch, *, renames: bool
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    before = (home.root / "state.json").read_bytes()
    fails(home.root / "state.json", 3 if renames else 6)
    with monkeypatch.context() as patched:
        if not renames:
            patched.setattr(Path, "rename", refused)
        state.record("dump", {"exit": 0})
    assert (kept(home, "state.json") if renames else [(home.root / "state.json").read_bytes()]) == [before]
    assert (state.FORGOTTEN in state.bad()) is renames, "from then on each verification is noted again"


def refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def notes_that_are_damaged(home: Home) -> None:
    start = home.ago(days=5)
    catalogue.note_pause(home.server(), start.timestamp(), home.ago(days=4).timestamp())
    for path in (home.server() / catalogue.PAUSES, home.root / "state.json"):
        one_wrong_byte(path, 3)


def note_one_more(home: Home) -> None:
    state.record("dump", {"exit": 0})
    with suppress(OSError):
        catalogue.note_pause(home.server(), home.ago(days=2).timestamp(), home.ago(days=1).timestamp())


def test_on_a_full_disk_what_cannot_be_read_keeps_its_name_though_it_can_get_no_second_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes_that_are_damaged(home)
    monkeypatch.setattr(os, "link", refused)
    for module in (process, state, catalogue):
        monkeypatch.setattr(module, "write", full)
    before = home.files()
    for _ in range(3):
        note_one_more(home)
    noted = {name for name in home.files() if "/samokoder-pause-" in name}
    assert len(noted) == 1, "a pause that a full disk takes no text of is known by the name of an empty file"
    assert {name: text for name, text in home.files().items() if name not in noted} == before
    assert not list(home.root.glob("unread-*"))
    assert state.FORGOTTEN in state.bad()
    assert catalogue.pauses(home.server())[0][0] == catalogue.FORGOTTEN


def test_killed_between_two_names_of_what_cannot_be_read_the_new_one_holds(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes_that_are_damaged(home)
    monkeypatch.setattr(os, "link", refused)
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name in {"state.json", catalogue.PAUSES} and not target.exists():
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        for _ in range(2):  # of the state, and of the pauses
            with pytest.raises(KeyboardInterrupt):
                note_one_more(home)
            patched.setattr(state, "record", lambda *_: None)
    assert not (home.root / "state.json").exists()
    assert state.FORGOTTEN in state.bad()
    forgotten, last = catalogue.pauses(home.server())
    assert (forgotten[0], last) == (catalogue.FORGOTTEN, (home.ago(days=2), home.ago(days=1)))
    home.wal(3, home.now)
    catalogue.note_pause(home.server(), home.ago(hours=3).timestamp(), home.ago(hours=2).timestamp())
    assert len(catalogue.pauses(home.server())) == 3


def test_a_folder_that_cannot_be_listed_does_not_say_that_a_file_is_not_there(
    home: Home, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.note_pause(home.server(), home.ago(days=5).timestamp(), home.ago(days=4).timestamp())
    fails(home.server() / catalogue.PAUSES, 99, ERRORS["ENOENT while it is renamed"])
    real = os.listdir

    def listdir(path: Path) -> list[str]:
        if path == home.server():
            raise ERRORS["EIO"]
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert catalogue.pauses(home.server())[0][0] == catalogue.FORGOTTEN


def test_figures_are_told_where_what_is_known_of_the_copies_off_site_cannot_be_read(home: Home, fails: Fails) -> None:
    (home.root / "offsite").mkdir()
    (home.root / "offsite" / "known.json").write_text("{}")
    fails(home.root / "offsite" / "known.json", 99)
    bucket = Offsite(endpoint="http://s3", bucket="copies", prefix="", region="", sync_minutes=5, keep_days=0)
    with_bucket = home.settings.model_copy(update={"offsite": bucket})
    names = {each.name for each in metrics.Metrics(with_bucket, service.Service(with_bucket)).collect()}
    assert "backup_volume_free_bytes" in names, "else each alert of the backups is mute"
    assert "backup_offsite_snapshots" not in names


def test_checksums_of_wal_that_cannot_be_read_are_kept(home: Home, fails: Fails) -> None:
    wal.note(home.server())
    ledger = home.server() / "samokoder-wal.sha256"
    before = ledger.read_bytes()
    fails(ledger, 3)
    home.wal(3, home.now)
    wal.note(home.server())
    assert kept(home, "sha256") == [before]
    assert len(ledger.read_text().splitlines()) == 3, "from now on each file has one again"


@pytest.mark.parametrize("how", ["unreadable", "damaged"])
def test_pauses_that_cannot_be_read_are_kept_and_one_more_is_noted(home: Home, fails: Fails, how: str) -> None:
    catalogue.note_pause(home.server(), home.ago(days=5).timestamp(), home.ago(days=4).timestamp())
    path = home.server() / catalogue.PAUSES
    if how == "damaged":
        one_wrong_byte(path, 3)
    before = path.read_bytes()
    if how == "unreadable":
        fails(path, 3)
    catalogue.note_pause(home.server(), home.ago(days=2).timestamp(), home.ago(days=1).timestamp())
    assert kept(home, "pauses") == [before]
    forgotten, last = catalogue.pauses(home.server())
    assert forgotten[0] == catalogue.FORGOTTEN
    assert last == (home.ago(days=2), home.ago(days=1))


def test_pauses_that_cannot_be_read_for_want_of_something_are_let_be(home: Home, fails: Fails) -> None:
    catalogue.note_pause(home.server(), home.ago(days=5).timestamp(), home.ago(days=4).timestamp())
    fails(home.server() / catalogue.PAUSES, 3, OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(OSError, match="Too many"):
        catalogue.note_pause(home.server(), home.ago(days=2).timestamp(), home.ago(days=1).timestamp())
    both = [(home.ago(days=5), home.ago(days=4)), (home.ago(days=2), home.ago(days=1))]
    assert catalogue.pauses(home.server()) == both, "the first was written over, or the second forgotten"


@pytest.mark.parametrize("mark", ["unreadable", "7"])
def test_a_mark_that_nobody_can_read_keeps_no_log_from_being_received(
    home: Home, fails: Fails, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    path = home.server() / "samokoder-mark.json"
    path.write_text(mark)
    if mark == "unreadable":
        fails(path, 99)
    monkeypatch.setattr(database, "connected", lambda _: nullcontext())
    monkeypatch.setattr(database, "identity", lambda _: database.Identity("7000", 1, segment(2)))
    monkeypatch.setattr(database, "slot", lambda *_: database.Slot(lost=False, active_pid=None, retained=0))
    monkeypatch.setattr(database, "mark", lambda _: "mine")
    monkeypatch.setattr(database, "set_mark", lambda *_: None)
    assert barman.attach(home.settings).server == home.server()
    (aside,) = (each for each in (home.root / "barman").iterdir() if each != home.server())
    assert (aside / "samokoder-mark.json").exists(), "all of it is kept"
    assert list((aside / "base").iterdir())


def test_a_disk_that_fails_once_makes_nothing_bad(home: Home, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = home.copy(home.ago(hours=1))
    monkeypatch.setattr("samokoder_backup.copies.run_unread", lambda *_, **__: None)
    fails(wal.locate(home.server(), segment(2)), 1)
    real, left = entries.verify, [1]

    def verify(thing: Any, bad: Any) -> None:
        if thing.id == dump and left[0]:
            left[0] -= 1
            raise ERRORS["EIO"]
        real(thing, bad)

    monkeypatch.setattr(entries, "verify", verify)
    assert jobs.verify() is True, state.bad()
    assert json.loads((home.root / "state.json").read_text())["verify"]["bad"] == {}


def test_pauses_that_cannot_be_read_cost_the_figures_one_look_and_no_wait(
    home: Home, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.base(home.ago(hours=5), 2)
    wal.note(home.server())
    catalogue.note_pause(home.server(), home.ago(days=5).timestamp(), home.ago(days=4).timestamp())
    for name in (catalogue.PAUSES, "samokoder-wal.sha256"):
        fails(home.server() / name, 99)
    waits: list[float] = []
    monkeypatch.setattr(notes, "_PAUSES", (0.3, 0.3))
    monkeypatch.setattr("time.sleep", waits.append)
    assert len(entries.entries()) == 2
    assert waits == [0.0]
    assert wal.fetch(home.server(), segment(2), home.root / "fetched") == 0
    assert waits == [0.0, 0.0], "PostgreSQL waits for each file"


def test_pauses_in_memory_are_noted_past_those_that_cannot_be_and_none_gets_shorter(home: Home) -> None:
    start, end = home.ago(days=5).timestamp() + 0.1234567, home.ago(days=4).timestamp()
    gone, spoilt = home.root / "barman" / "main-1-1", home.server("8000-1")
    (spoilt / catalogue.PAUSES).mkdir()
    catalogue.note_pause(home.server(), start, end)
    running = service.Service(home.settings)
    late = catalogue.Pause(home.server("7000-2"), start, end)
    blocked = catalogue.Pause(spoilt, start, end)
    running._pauses = [catalogue.Pause(gone, start, end), blocked, catalogue.Pause(home.server(), start, end - 9), late]
    running._note_pauses()
    assert running._pauses in ([blocked], []), "the others are noted"
    assert [each[1].timestamp() for each in catalogue.pauses(home.server())] == [end]
    assert len(catalogue.pauses(late.server)) == 1


def test_a_name_that_cannot_be_written_leaves_no_older_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / "attached").write_text("main-7000-2\n")
    monkeypatch.setattr(barman, "write", full)
    barman._note_attached(home.server())
    assert barman._attached_last() == ""
