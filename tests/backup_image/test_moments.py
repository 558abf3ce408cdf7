"""A moment is restored by a real PostgreSQL whose clock steps: what is called restored is the state of that moment."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from host.errors import EngineError
from host.packages import debian_has, install_packages
from samokoder_backup import restore
from samokoder_backup.process import CannotError
from samokoder_backup.restore import Target
from tests.backup_image.folders import Home, home_at, segment
from tests.faketime import libfaketime

pytestmark = pytest.mark.long  # it installs Debian's PostgreSQL
SIZE = 2**20
"""Of a WAL file: the smallest there is."""
NOBODY = 65534
START = timedelta(days=4)
"""So long ago it all begins."""


PROGRAMS = Path("/usr/lib/postgresql/15/bin")
CREATES_NONE = Path("/etc/postgresql-common/createcluster.conf")


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where PostgreSQL 15 has its programs. What is missing is installed where root on Debian 12 asks."""
    try:
        libfaketime()
        if not (PROGRAMS / "pg_waldump").exists():
            _install_postgresql()
    except EngineError as error:
        pytest.skip(f"{error} Root on Debian 12 gets both.")
    return PROGRAMS


def _install_postgresql() -> None:
    """Install it without a database that runs: the setting is there only meanwhile."""
    if os.geteuid() or not debian_has("postgresql-15"):
        raise EngineError("Missing: postgresql-15.")
    own = not CREATES_NONE.exists()
    if own:
        CREATES_NONE.parent.mkdir(exist_ok=True)
        CREATES_NONE.write_text("create_main_cluster = false\n")
    try:
        install_packages(["postgresql-15"], report=print)
    finally:
        if own:
            CREATES_NONE.unlink()


class Machine:
    """A PostgreSQL with a clock of its own, a base backup of it, and its WAL."""

    def __init__(self, home: Home, folder: Path, programs: Path) -> None:
        self.home, self.folder, self.data, self.programs = home, folder, folder / "data", programs
        self.start, self.real = home.now - START, timedelta()
        self.process: subprocess.Popen[bytes] | None = None
        self.ahead = timedelta()
        words = ["--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", f"--wal-segsize={SIZE >> 20}"]
        self.run("initdb", f"--pgdata={self.data}", *words)

    @property
    def clock(self) -> datetime:
        """What PostgreSQL's clock says."""
        return self.start + self.real + self.ahead

    def run(self, *command: str) -> str:
        done = subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "TZ": "UTC"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def command(self, program: str, *words: str) -> list[str]:
        """A program whose clock is ours; what makes it another user's runs without that, or it owns the clock."""
        (self.folder / "clock").write_text(f"@{self.clock:%Y-%m-%d %H:%M:%S}\n")
        how = {"LD_PRELOAD": str(libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(self.folder / "clock"), "TZ": "UTC"}
        how |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return [
            *as_nobody(),
            "env",
            *(f"{name}={value}" for name, value in how.items()),
            str(self.programs / program),
            *words,
        ]

    def at(self, real: timedelta, *, ahead: timedelta = timedelta()) -> None:
        """Start the server anew at a time. ahead: so far is its clock from it."""
        self.stop()
        self.real, self.ahead = real, ahead
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off"}
        # What is received is only whole files: none of them goes, or gets another name, before it is.
        settings |= {"wal_keep_size": "64MB", "wal_recycle": "off", "autovacuum": "off", "shared_buffers": "16MB"}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            command = self.command("postgres", "-D", str(self.data), *words)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        end = time.monotonic() + 60
        while True:
            try:
                return self.sql("SELECT 1")
            except psycopg2.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def sql(self, text: str) -> None:
        connection = psycopg2.connect(host=str(self.folder), user="postgres", dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text)
        connection.close()

    def write(self, name: str, *, switch: bool = False) -> None:
        """A row. switch: WAL goes on in another file then, and this one has the time of now."""
        self.sql(f"INSERT INTO writes VALUES ('{name}')")
        if switch:
            self.sql("SELECT pg_switch_wal()")
        self.received()

    def base(self) -> None:
        """Lay down a base backup as Barman does."""
        self.sql("CREATE TABLE writes (name text)")
        made = self.folder / "made"
        words = [f"--pgdata={made}", "--format=tar", "--gzip", "--wal-method=none", "--checkpoint=fast", "--no-sync"]
        self.run("pg_basebackup", f"--host={self.folder}", "--username=postgres", *words)
        number = int(self.run("pg_controldata", str(self.data)).split("REDO WAL file:")[1].split()[0][16:], 16)
        identifier = self.home.base(self.clock, number)
        server = self.home.server()
        (server / "wals" / segment(number)[:16] / segment(number)).unlink()
        for name in ("base.tar.gz", "backup_manifest"):
            shutil.copyfile(made / name, server / "base" / identifier / "data" / name)
        info = server / "meta" / f"{identifier}-backup.info"
        info.write_text(info.read_text().replace(f"={16 * SIZE}", f"={SIZE}"))
        (server / "base" / identifier / "samokoder.json").unlink()
        self.sql("SELECT pg_switch_wal()")
        self.received()

    def received(self) -> None:
        """Take over what has come to the log, by the clock of now."""
        into = self.home.server() / "streaming"
        for path in sorted((self.data / "pg_wal").glob("0000000[1-9]" + "?" * 16)):
            here, now = into / path.name, path.read_bytes()
            # Files that wait for their turn are zeros, or have what another one had.
            begun = int.from_bytes(now[8:16], "little") == int(path.name[8:], 16) % 2**32 * SIZE
            if begun and not (here.exists() and here.read_bytes() == now):
                here.write_bytes(now)
                os.utime(here, (self.clock.timestamp(),) * 2)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(2)
            self.process.wait(60)
            self.received()
            self.process = None


def as_nobody() -> list[str]:
    """PostgreSQL does not run as root, which tests may do; it may read what is root's."""
    if os.geteuid():
        return []
    words = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *words, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


@pytest.fixture
def machine(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    home = home_at(tmp_path, monkeypatch)
    monkeypatch.setattr(restore, "_installed", lambda: 15)
    own_programs, folder = tmp_path / "bin", tmp_path / "m"
    own_programs.mkdir()
    folder.mkdir()
    own = "" if os.geteuid() else f"chown -R {NOBODY}:{NOBODY} {shlex.quote(str(tmp_path / 'into'))} {tmp_path / 'run'}"
    if not os.geteuid():
        shutil.chown(folder, NOBODY, NOBODY)
    postgres = own_programs / "postgres"
    postgres.write_text(f'#!/bin/sh\n{own}\nexec {shlex.join(as_nobody())} {programs}/postgres "$@"\n')
    postgres.chmod(0o755)
    program = str(Path(restore.__file__).parents[1])
    monkeypatch.setenv("PATH", f"{own_programs}:{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", program)
    made = Machine(home, folder, programs)
    yield made
    made.stop()


def rows(machine: Machine, moment: datetime) -> set[str]:
    """What is restored to a moment."""
    machine.stop()
    planned = restore.plan(Target(moment=moment.replace(tzinfo=UTC)))
    into = machine.home.root.parent / "into"
    into.mkdir(mode=0o700)
    with restore.restored(machine.home.settings, planned, into) as server:
        return {name for (name,) in server.ask("SELECT name FROM writes")}


HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)


def test_a_moment_by_a_right_clock_is_the_state_of_that_moment(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.at(timedelta())
    machine.base()
    machine.write("before", switch=True)
    machine.at(HOUR)
    machine.write("after", switch=True)
    assert rows(machine, machine.start + HOUR / 2) == {"before"}
    assert f"{machine.start:%Y-%m-%d %H:%M}" in capsys.readouterr().out, "the last change that it has is told"


def test_a_clock_that_was_right_for_one_file_alone_is_not_taken_for_one_that_is_not_set(machine: Machine) -> None:
    """Three days ahead at first, right for a moment, then off for days: by its files' times alone it looks unset."""
    machine.at(timedelta(), ahead=DAY * 3 - HOUR * 24)
    machine.base()
    machine.write("ahead", switch=True)
    machine.at(HOUR * 6, ahead=DAY * 2)
    machine.write("ahead, later", switch=True)
    machine.at(HOUR * 12)
    machine.write("right", switch=True)
    machine.at(DAY * 3.5)
    machine.write("much later", switch=True)
    with pytest.raises(CannotError, match="a clock was ahead"):
        rows(machine, machine.start + DAY * 2 + HOUR * 3)


def test_a_clock_that_was_ahead_within_one_file_of_the_log_is_seen(machine: Machine) -> None:
    """The file's own time is a right one, and later than the moment."""
    machine.at(timedelta())
    machine.base()
    machine.write("before")
    machine.at(HOUR, ahead=HOUR)
    machine.write("ahead")
    machine.at(HOUR + 10 * MINUTE, ahead=HOUR)
    machine.write("ahead, later")
    machine.at(HOUR * 1.5)
    machine.write("right")
    machine.at(HOUR * 3)
    machine.write("later", switch=True)
    with pytest.raises(CannotError, match="a clock was ahead"):
        rows(machine, machine.start + HOUR * 2 + 5 * MINUTE)


def test_a_clock_that_was_behind_does_not_bring_back_what_came_after_the_moment(machine: Machine) -> None:
    machine.at(timedelta())
    machine.base()
    machine.write("before")
    machine.at(HOUR, ahead=-HOUR / 2)
    machine.write("after the moment, stamped before it")
    machine.at(HOUR * 2)
    machine.write("later", switch=True)
    machine.at(HOUR / 4)
    machine.write("earlier stamp", switch=True)
    machine.at(HOUR * 3)
    machine.write("last", switch=True)
    with pytest.raises(CannotError, match="a clock was behind"):
        rows(machine, machine.start + HOUR * 2.5)


def test_a_clock_that_no_start_has_set_yet_refuses_no_moment_before(machine: Machine) -> None:
    machine.at(timedelta())
    machine.base()
    machine.write("before", switch=True)
    machine.at(HOUR)
    machine.write("after", switch=True)
    machine.at(HOUR * 2, ahead=datetime(2000, 1, 1, tzinfo=UTC) - machine.start)
    machine.write("of a clock without a battery", switch=True)
    machine.at(HOUR * 3)
    machine.write("last", switch=True)
    assert rows(machine, machine.start + HOUR / 2) == {"before"}


def test_a_setting_of_the_database_does_not_hide_where_recovery_has_stopped(machine: Machine) -> None:
    machine.at(timedelta())
    machine.sql("ALTER SYSTEM SET log_min_messages = 'panic'")
    machine.base()
    machine.write("before")
    machine.at(HOUR, ahead=HOUR)
    machine.write("ahead")
    machine.at(HOUR * 1.5)
    machine.write("right", switch=True)
    with pytest.raises(CannotError, match="a clock was ahead"):
        rows(machine, machine.start + HOUR * 1.4)


def test_where_nothing_was_written_until_the_moment_it_is_the_end_of_the_log(machine: Machine) -> None:
    machine.at(timedelta())
    machine.base()
    machine.write("last", switch=True)
    machine.at(timedelta(seconds=25))
    assert rows(machine, machine.start + timedelta(seconds=20)) == {"last"}


def test_the_last_moment_of_a_history_is_all_of_it_whatever_a_clock_has_stamped(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else nobody could ask for the end of a database that was lost after its clock had been ahead."""
    machine.at(timedelta())
    machine.base()
    machine.write("before", switch=True)
    machine.at(HOUR, ahead=HOUR * 3)
    machine.write("ahead")
    machine.at(HOUR * 2)
    machine.write("last", switch=True)
    machine.stop()
    assert rows(machine, machine.clock) == {"before", "ahead", "last"}
    assert "the last moment of" in capsys.readouterr().out
