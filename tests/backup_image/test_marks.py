"""A copy of PostgreSQL's data from before that is put back: what is received of it is not the log of the one before."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import barman, database, service
from samokoder_backup.process import BackupError
from tests.backup_image.folders import Home, home_at, segment


@dataclass
class Copy:
    """PostgreSQL's data, as far as the backup server asks for it."""

    mark: str = ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = home_at(tmp_path, monkeypatch)
    home.base(home.ago(hours=1))
    home.wal(2, home.ago(minutes=1), received=True)
    return home


@pytest.fixture
def copy(monkeypatch: pytest.MonkeyPatch) -> Copy:
    """All is in the segment that is being received."""
    copy = Copy()
    monkeypatch.setattr(database, "connected", lambda _: nullcontext(copy))
    monkeypatch.setattr(database, "identity", lambda _: database.Identity("7000", 1, segment(2)))
    monkeypatch.setattr(database, "slot", lambda *_: database.Slot(lost=False, active_pid=None, retained=0))
    monkeypatch.setattr(database, "mark", lambda copy: copy.mark)
    monkeypatch.setattr(database, "set_mark", lambda copy, new: setattr(copy, "mark", new))
    return copy


def full_disk(_: Copy, __: str) -> None:
    raise BackupError("No space left on device")


def histories(home: Home) -> list[str]:
    return sorted(path.name for path in (home.root / "barman").iterdir())


def test_a_restart_goes_on_with_what_was_received(home: Home, copy: Copy) -> None:
    marks = set()
    for _ in range(3):
        assert barman.attach(home.settings).server == home.server()
        marks.add(copy.mark)
    assert histories(home) == ["main-7000-1"], "each restart would cost a base backup"
    assert len(marks) == 3


def test_a_copy_from_before_begins_a_history_of_its_own_also_within_one_segment(home: Home, copy: Copy) -> None:
    barman.attach(home.settings)
    before = copy.mark  # it is set aside here
    barman.attach(home.settings)
    assert histories(home) == ["main-7000-1"]
    copy.mark = before
    server = barman.attach(home.settings).server
    aside, now = sorted(histories(home), key=len, reverse=True)
    assert (server.name, [path.name for path in server.iterdir()]) == (now, ["samokoder-mark.json"])
    kept = home.root / "barman" / aside
    assert list((kept / "streaming").iterdir()), "its log would be written over, and moments that are listed be wrong"
    barman.attach(home.settings)
    assert len(histories(home)) == 2, "from then on this one is known"


@pytest.mark.parametrize("step", ["before the mark", "after the mark"])
def test_a_death_while_a_mark_is_given_makes_no_other_copy_of_it(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    barman.attach(home.settings)

    def dies(copy: Copy, new: str) -> None:
        if step == "after the mark":
            copy.mark = new
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(database, "set_mark", dies)
        with pytest.raises(KeyboardInterrupt):
            barman.attach(home.settings)
    barman.attach(home.settings)
    assert histories(home) == ["main-7000-1"]


def test_log_is_received_also_where_nothing_can_be_written(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(database, "set_mark", full_disk)
        assert barman.attach(home.settings).server == home.server(), "to receive what waits is what makes room"
    barman.attach(home.settings)
    assert histories(home) == ["main-7000-1"]
    assert copy.mark


def test_log_is_received_also_where_the_marks_file_cannot_be_written(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    barman.attach(home.settings)
    before = copy.mark

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(barman, "write", full)
        attached = barman.attach(home.settings)
    assert attached.server == home.server(), "to receive and archive what waits is what makes room"
    assert "No space left" in attached.unmarked
    assert copy.mark == before, "one that no file knows would be taken for another copy at the next start"
    barman.attach(home.settings)
    assert histories(home) == ["main-7000-1"]


def test_a_mark_that_could_not_be_given_is_given_later_and_told_once(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = service.Service(home.settings)
    connection = cast("Connection", copy)
    with monkeypatch.context() as patched:
        patched.setattr(database, "set_mark", full_disk)
        running._attach()
        running._attach()
        running._mark_again(connection)
    assert capsys.readouterr().err.count("keeps its mark: No space left") == 1
    running._mark_again(connection)
    assert copy.mark, "a copy that is taken from now on is known when it is put back"
    assert "has a new mark" in capsys.readouterr().err
    running._mark_again(connection)
    assert capsys.readouterr().err == "", "nobody wants to read that each minute"


def test_a_copy_that_was_taken_while_the_log_is_received_is_known_after_the_next_mark(home: Home, copy: Copy) -> None:
    running = service.Service(home.settings)
    running._attach()
    taken = copy.mark  # a snapshot of the volume, by whatever makes it
    running._mark_again(cast("Connection", copy))
    copy.mark = taken
    barman.attach(home.settings)
    assert len(histories(home)) == 2, "the log of hours would be written over, since all is in one segment"


def test_a_mark_that_cannot_be_given_any_more_is_told_once(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = service.Service(home.settings)
    running._attach()
    monkeypatch.setattr(database, "set_mark", full_disk)
    for _ in range(3):
        running._mark_again(cast("Connection", copy))
    assert capsys.readouterr().err.count("keeps its mark: No space left") == 1
    barman.attach(home.settings)
    assert histories(home) == ["main-7000-1"], "it is the same copy, whichever of both marks it has"


def test_a_copy_that_is_not_known_gets_no_mark_before_it_is_attached(
    home: Home, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    barman.attach(home.settings)
    before = copy.mark
    barman.attach(home.settings)
    copy.mark = before  # put back, and the heartbeat is there before the receiver
    assert barman.mark_again(cast("Connection", copy), home.server()), "it has no new one"
    assert copy.mark == before
    barman.attach(home.settings)
    assert len(histories(home)) == 2, "it would be taken for the one whose log was received"


def test_the_log_of_an_installation_from_before_there_were_marks_goes_on(home: Home, copy: Copy) -> None:
    assert copy.mark == ""
    assert barman.attach(home.settings).server == home.server()
    assert histories(home) == ["main-7000-1"]


def test_a_mark_that_cannot_be_read_is_no_mark(home: Home, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    (home.server() / "samokoder-mark.json").write_bytes(b"\xff[")
    barman.attach(home.settings)
    assert len(histories(home)) == 2, "nobody knows whether what comes joins on"
    assert "samokoder-mark.json cannot be read" in capsys.readouterr().err
    assert copy.mark
