"""`latest` has what PostgreSQL has, or it is refused: log that was not received is missing in no restore unsaid."""

from __future__ import annotations

import gzip
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from operations.data.restore import actions
from samokoder_backup import present, settings
from samokoder_backup.__main__ import main
from samokoder_backup.process import BackupError
from tests.backup_image.folders import SEGMENT_SIZE, Home, home_at, segment

OFFSET = 0x28
CONTROL = """\
pg_control version number:            1300
Database system identifier:           {system}
Database cluster state:               shut down
Latest checkpoint location:           0/{position:X}
Latest checkpoint's TimeLineID:       {timeline}
Time of latest checkpoint:            {moment:%a %b %d %H:%M:%S %Y}
Bytes per WAL segment:                16777216
"""


def record(of: str = "this copy") -> bytes:
    """A checkpoint's record of the usual length."""
    return (114).to_bytes(4, "little") + of.encode().ljust(110, b".")


def log(path: Path, written: datetime, what: bytes, offset: int = OFFSET, *, packed: bool = False) -> Path:
    """Let a WAL file hold something."""
    # A page of WAL begins with PostgreSQL's magic number.
    whole = bytes.fromhex("10d1").ljust(offset, b"\0") + what + bytes(1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(whole) if packed else whole)
    os.utime(path, (written.timestamp(), written.timestamp()))
    return path


class PostgreSQL:
    """A data folder: its last checkpoint was a minute ago, in the second segment."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.moment, self.folder = home.ago(minutes=1), folder
        self.system, self.timeline, self.number, self.offset = "7000", 1, 2, OFFSET
        (folder / "global").mkdir(parents=True)
        (folder / "PG_VERSION").write_text("15\n")
        self.write()

    def write(self) -> None:
        name = segment(self.number, self.timeline)
        log(
            self.folder / "pg_wal" / name,
            self.moment,
            record() + b"what was there before in a file that is used again",
            self.offset,
        )

    def control(self) -> str:
        position = self.number * SEGMENT_SIZE + self.offset
        return CONTROL.format(system=self.system, timeline=self.timeline, position=position, moment=self.moment)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A base backup of yesterday, and the second segment as it was received an hour ago: without the checkpoint."""
    home = home_at(tmp_path, monkeypatch)
    home.base(home.ago(days=1))
    log(home.wal(2, home.ago(hours=1), received=True), home.ago(hours=1), b"")
    monkeypatch.setattr(settings, "PRESENT", tmp_path / "present")
    return home


@pytest.fixture
def postgres(home: Home, monkeypatch: pytest.MonkeyPatch) -> PostgreSQL:
    it = PostgreSQL(home, settings.PRESENT)
    monkeypatch.setattr(present, "run", lambda *_, **__: it.control())
    monkeypatch.setattr("samokoder_backup.__main__._CATCHES_UP_SECONDS", 0.0)
    return it


def received(home: Home, what: bytes, number: int = 2, offset: int = OFFSET, *, packed: bool = False) -> None:
    """Let what PostgreSQL wrote a minute ago be received."""
    path = home.wal(number, home.ago(minutes=1), received=not packed)
    log(path, home.ago(minutes=1), what, offset, packed=packed)


def check() -> int:
    return main(["check-restore", "--latest"])


@pytest.mark.parametrize("words", [["check-restore"], ["restore", "--into", "into"]], ids=["asked", "done"])
@pytest.mark.parametrize(
    "lacks", ["the end of a segment", "the next segment", "another copy's log", "another history", "another database"]
)
def test_what_was_not_received_makes_latest_refuse_with_both_moments_and_with_what_to_type(
    home: Home, postgres: PostgreSQL, lacks: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    end = home.ago(hours=1)
    if lacks == "the next segment":
        postgres.number = 3
    elif lacks == "another copy's log":
        received(home, record("another copy"))
        end = home.ago(minutes=1)
    elif lacks == "another history":
        postgres.timeline = 2
    elif lacks == "another database":
        postgres.system = "8000"
    postgres.write()
    into = [str(home.root / each) if each == "into" else each for each in words[1:]]
    assert main([words[0], "--latest", *into]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert postgres.moment.isoformat(sep=" ") in told, "what it would not have"
    assert f"on timeline {postgres.timeline} of the database {postgres.system}" in told
    assert f"TO='{end.isoformat(sep=' ')}'" in told, "what it would have, as it is typed"
    assert "Start PostgreSQL and the backup server" in told
    assert not (home.root / "into").exists()


@pytest.mark.parametrize("packed", [False, True], ids=["being received", "archived"])
@pytest.mark.parametrize("offset", [OFFSET, 8192 * 3 - 64], ids=["in a page", "over two pages"])
def test_latest_is_restored_where_the_last_checkpoint_was_received(
    home: Home, postgres: PostgreSQL, offset: int, *, packed: bool
) -> None:
    postgres.offset = offset
    postgres.write()
    mine = (postgres.folder / "pg_wal" / segment(2)).read_bytes()
    length = 114 + (24 if offset > OFFSET else 0)
    if packed:
        (home.server() / "streaming" / f"{segment(2)}.partial").unlink()
    received(home, mine[offset : offset + length - 1], offset=offset, packed=packed)
    assert check() == 2, "its last byte is missing"
    received(home, mine[offset : offset + length], offset=offset, packed=packed)
    assert check() == 0, "what comes after it in PostgreSQL's own file is nothing"


def test_a_moment_or_a_backup_that_is_named_is_not_compared(home: Home, postgres: PostgreSQL) -> None:
    postgres.timeline = 2
    postgres.write()
    assert check() == 2
    assert main(["check-restore", "--to", home.ago(hours=2).isoformat()]) == 0
    assert main(["check-restore", "--backup", f"{home.ago(days=1):%Y%m%dT%H%M%S}"]) == 0


def test_what_was_written_just_now_has_time_to_be_received(
    home: Home, postgres: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    del postgres
    monkeypatch.setattr("samokoder_backup.__main__._CATCHES_UP_SECONDS", 1000.0)
    monkeypatch.setattr(time, "sleep", lambda _: received(home, record()))
    assert check() == 0, "a checkpoint while it is asked would refuse a restore that loses nothing"


@pytest.mark.parametrize(
    "left",
    [
        "nothing",
        "an empty folder",
        "half of a copy",
        "no control file",
        "a control file of zeros",
        "no log",
        "a log of zeros",
        "no file",
    ],
)
def test_a_lost_or_damaged_database_is_nothing_to_compare_and_latest_goes_on(
    home: Home, postgres: PostgreSQL, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = postgres.folder / "pg_wal" / segment(2)

    def fails(*_: object, **__: object) -> str:
        raise BackupError("pg_controldata: could not open file")

    if left == "no control file":
        monkeypatch.setattr(present, "run", fails)
    elif left == "a control file of zeros":
        postgres.system, postgres.timeline, postgres.number, postgres.offset = "0", 0, 0, 0
    elif left == "half of a copy":
        (postgres.folder / ".samokoder-copying").touch()
    elif left == "a log of zeros":
        log(own, postgres.moment, b"")
    else:
        own.unlink()
        if left == "no file":
            os.mkfifo(own)  # of an application that was taken over: to read it would never end
        elif left != "no log":
            (postgres.folder / "pg_wal").rmdir()
            (postgres.folder / "global").rmdir()
            (postgres.folder / "PG_VERSION").unlink()
            postgres.folder.rmdir() if left == "nothing" else None
    assert check() == 0
    said = capsys.readouterr().err
    assert ("is not compared" in said) is (left not in {"nothing", "an empty folder", "half of a copy"}), said


def test_a_restore_mounts_it_where_the_program_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert str(settings.PRESENT) == actions.PRESENT
