"""The log collector, on files that are written, rotated and removed as Docker Engine does it."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.parts.log_collector import __main__ as program
from stack.parts.log_collector import collector as module
from stack.parts.log_collector.__main__ import sender, served
from stack.parts.log_collector.collector import Collector, RefusedError
from stack.parts.log_collector.counts import LogCounts
from stack.parts.log_collector.events import kinds_of
from stack.parts.log_collector.log_files import LogFile
from tests.serving import serving

MOMENT = "2026-11-23T10:05:00.123456789Z"
PIECE = 16 * 1024


class Container:
    """The log of a container, as the engine keeps it: three files, and pieces of 16 KiB."""

    def __init__(self, folder: Path, name: str, part: str, environment: str = "staging") -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.log = self.folder / f"{name}-json.log"
        labels = {ENVIRONMENT_LABEL: environment, PART_LABEL: part}
        (self.folder / "config.v2.json").write_text(json.dumps({"Config": {"Labels": labels, "Env": ["A=secret"]}}))

    def write(self, text: str, stream: str = "stdout", moment: str = MOMENT) -> None:
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)] or [""]
        for number, piece in enumerate(pieces):
            end = "\n" if number == len(pieces) - 1 else ""
            self.raw({"log": piece + end, "stream": stream, "time": moment})

    def raw(self, line: Mapping[str, Any] | bytes) -> None:
        with self.log.open("ab") as log:
            log.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def rotate(self, *, compress: bool = False) -> None:
        end = ".gz" if compress else ""
        oldest, middle = (self.log.with_name(f"{self.log.name}.{number}{end}") for number in (2, 1))
        oldest.unlink(missing_ok=True)
        if middle.exists():
            middle.rename(oldest)
        newest = self.log.rename(self.log.with_name(f"{self.log.name}.1"))
        self.log.touch()
        if compress:
            middle.write_bytes(gzip.compress(newest.read_bytes()))
            newest.unlink()

    def remove(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


class Store:
    """What the store has got. While it is `away` or refuses, it says so."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []
        self.away = self.refuses = False

    def __call__(self, rows: bytes) -> None:
        if self.away:
            raise ConnectionRefusedError("away")
        if self.refuses:
            raise RefusedError("no")
        self.rows += [json.loads(row) for row in rows.splitlines()]

    @property
    def texts(self) -> list[str]:
        return [row["_msg"] for row in self.rows]


class Engine:
    """The engine's folder, a store, and the collector between them, which can be started anew."""

    def __init__(self, path: Path, buffer_bytes: int = 10_000_000) -> None:
        self.folder, self.positions, self.buffer_bytes = path / "containers", path / "positions.json", buffer_bytes
        self.folder.mkdir()
        self.store = Store()
        self.collector = self.started()

    def started(self) -> Collector:
        self.collector = Collector(
            folder=self.folder,
            positions=self.positions,
            environment="staging",
            send=self.store,
            buffer_bytes=self.buffer_bytes,
        )
        return self.collector

    def container(self, name: str = "a" * 64, part: str = "worker", environment: str = "staging") -> Container:
        return Container(self.folder, name, part, environment)

    def turn(self) -> list[str]:
        while self.collector.turn():
            pass
        return self.store.texts

    def tried_again(self) -> None:
        """Wait until the collector has looked at its files and asked the store once more."""
        tries = self.collector.counts.values["store_errors"]
        until(lambda: self.collector.counts.values["store_errors"] > tries + 1)

    def while_away(self, act: Any) -> None:
        """Have the collector meet a store that is away, do something meanwhile, and end it before it is back."""
        self.store.away = True
        thread = threading.Thread(target=self.collector.turn)
        thread.start()
        until(lambda: self.collector.counts.values["store_errors"] > 0)
        act()
        self.tried_again()
        self.store.away = False
        thread.join(timeout=30)
        assert not thread.is_alive()


def is_open(path: Path) -> bool:
    """Tell whether this process has a file open."""
    return any(link.resolve() == path.resolve() for link in Path("/proc/self/fd").iterdir())


def ago(seconds: float) -> str:
    """Return a moment as the engine writes it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f789Z")


def until(true: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(module, "_LONGEST_WAIT_SECONDS", 0.05)
    return Engine(tmp_path)


def test_a_line_comes_with_the_labels_of_its_container_and_the_engines_moment(engine: Engine) -> None:
    engine.container(part="api-2").write("hello", stream="stderr")
    engine.turn()
    assert engine.store.rows == [
        {
            "_time": MOMENT,
            "_msg": "hello",
            "environment": "staging",
            "part": "api",
            "replica": "2",
            "stream": "stderr",
            "container": "a" * 12,
        }
    ]


def test_containers_of_other_environments_and_projects_are_not_read(engine: Engine) -> None:
    engine.container("b" * 64, "api-1", environment="staging-2").write("not ours")
    foreign = engine.folder / "c"
    foreign.mkdir()
    (foreign / "config.v2.json").write_text(json.dumps({"Config": {"Labels": None}}))
    (foreign / "c-json.log").write_text('{"log": "not ours", "stream": "stdout", "time": "x"}\n')
    assert engine.turn() == []


def test_the_applications_json_becomes_fields_that_can_take_no_name_of_ours(engine: Engine) -> None:
    said = {
        "event": "paid",
        "level": "error",
        "request": {"id": 7},
        "part": "postgres",
        "_time": "1999",
        "_stream": "x",
    }
    engine.container().write(json.dumps(said))
    engine.turn()
    (row,) = engine.store.rows
    assert json.loads(row["_msg"]) == said, "the whole line can be searched"
    assert (row["level"], row["event"], row["request.id"]) == ("error", "paid", "7")
    assert (row["part"], row["_time"]) == ("worker", MOMENT), "who takes the application over names no other part"


def test_names_that_never_end_take_no_memory_of_the_store_and_hide_no_level(engine: Engine) -> None:
    container = engine.container(part="api-1")
    for line in range(100):
        container.write(json.dumps({f"k{line}_{number}": "x" for number in range(32)}))
    container.write(json.dumps({"level": "error", "event": "paid", "new": "a", "k0_0": "b"}))
    engine.container("b" * 64, "worker").write('{"own": "1"}')
    engine.turn()
    names = {name for row in engine.store.rows for name in row if name.startswith("k")}
    assert len(names) == 300, "VictoriaLogs has every name of the newest lines in memory"
    (last,) = [row for row in engine.store.rows if row.get("event") == "paid"]
    assert (last["level"], last["k0_0"], "new" in last) == ("error", "b", False)
    assert '"new": "a"' in last["_msg"], "the text has it all the same"
    assert [row["own"] for row in engine.store.rows if row["part"] == "worker"] == ["1"], (
        "each part has names of its own"
    )
    assert engine.collector.counts.values["left_out_fields"] == 100 * 32 - 300 + 1


def test_a_line_of_a_mebibyte_is_cut_once_and_counted(engine: Engine) -> None:
    container = engine.container()
    container.write("begin " + "x" * 2**20)
    container.write("after")
    first, second = engine.turn()
    assert first.startswith("begin xxx")
    assert len(first) == module.LINE_CHARACTERS
    assert engine.store.rows[0]["cut"] == str(2**20 + len("begin \n"))
    assert second == "after"
    assert engine.collector.counts.values["cut_lines"] == 1


def test_the_longest_line_stays_below_the_stores_limit_whatever_is_in_it(engine: Engine) -> None:
    engine.container().write("\x01" * 2**20)
    sent: list[bytes] = []
    engine.collector._send = sent.append
    engine.turn()
    assert max(map(len, b"".join(sent).splitlines())) < 2**20


def test_binary_garbage_and_zeros_of_a_power_cut_lose_no_other_line(engine: Engine) -> None:
    container = engine.container()
    container.write("before")
    container.raw(b"\0\0\0\xff\xfe\r{]\n")
    container.raw(
        b"\0" * 100 + json.dumps({"log": "\ud800 half\n", "stream": "stdout", "time": MOMENT}).encode() + b"\n"
    )
    container.write("\x1b[31m\x00 red")
    container.write("")
    assert engine.turn() == ["before", "? half", "\x1b[31m\x00 red", " "]
    assert engine.collector.counts.dropped["unreadable"] == 1


def test_pieces_of_both_streams_are_joined_each_with_its_own(engine: Engine) -> None:
    container = engine.container()
    container.raw({"log": "out ", "stream": "stdout", "time": MOMENT})
    container.raw({"log": "err ", "stream": "stderr", "time": MOMENT})
    container.raw({"log": "put\n", "stream": "stdout", "time": MOMENT})
    container.raw({"log": "or\n", "stream": "stderr", "time": MOMENT})
    assert engine.turn() == ["out put", "err or"]


def test_the_last_words_of_a_container_need_no_end(engine: Engine) -> None:
    container = engine.container()
    container.raw({"log": "panic: dying", "stream": "stderr", "time": MOMENT})
    assert engine.turn() == []
    container.remove()
    assert engine.turn() == ["panic: dying"]


def test_rotated_files_are_read_to_the_end_and_never_twice(engine: Engine) -> None:
    container, expected = engine.container(), []
    for number in range(40):
        container.write(f"line {number}")
        expected.append(f"line {number}")
        if number % 7 == 6:
            container.rotate()
        if number % 3 == 2:
            engine.turn()
    assert engine.turn() == expected


def test_a_restart_goes_on_where_the_store_has_everything(engine: Engine) -> None:
    container, expected = engine.container(), []
    for number in range(60):
        container.write(f"line {number}")
        expected.append(f"line {number}")
        if number % 11 == 10:
            container.rotate()
        if number % 4 == 3:
            engine.turn()
        if number % 5 == 4:
            engine.started()
    assert engine.turn() == expected


def test_positions_that_cannot_be_written_end_nothing(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    container = engine.container()
    unfinished = engine.positions.with_suffix(".unfinished")
    unfinished.mkdir()
    container.write("first")
    assert engine.turn() == ["first"]
    container.write("second")
    assert engine.turn() == ["first", "second"]
    assert capsys.readouterr().out.count("positions are not written") == 1, "its own log is collected too"
    unfinished.rmdir()
    engine.turn()
    engine.started()
    assert engine.turn() == ["first", "second"], "they are written as soon as that is possible"


@pytest.mark.parametrize("before", [["whole"], []])
def test_an_unfinished_line_is_read_anew_after_a_restart(engine: Engine, before: list[str]) -> None:
    container = engine.container()
    for text in before:
        container.write(text)
    container.raw({"log": "half ", "stream": "stdout", "time": MOMENT})
    assert engine.turn() == before
    engine.started()
    container.raw({"log": "and half\n", "stream": "stdout", "time": MOMENT})
    assert engine.turn() == [*before, "half and half"]


def test_a_rotation_in_the_middle_of_a_look_loses_no_line(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    container, opened = engine.container(), os.open
    container.write("oldest")
    container.rotate()
    container.write("older")

    def rotated(*words: Any) -> int:
        monkeypatch.setattr(os, "open", opened)
        container.rotate()
        container.write("newer")
        return opened(*words)

    monkeypatch.setattr(os, "open", rotated)
    engine.turn()
    container.write("newest")
    assert engine.turn() == ["oldest", "older", "newer", "newest"]


def test_the_last_line_before_a_container_is_removed_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    container, read = engine.container(), LogFile.read
    container.write("first")
    engine.turn()

    def and_then_removed(file: LogFile) -> bytes:
        found = read(file)
        monkeypatch.setattr(LogFile, "read", read)
        container.write("last")
        container.remove()
        return found

    monkeypatch.setattr(LogFile, "read", and_then_removed)
    engine.turn()
    assert engine.turn() == ["first", "last"]


def test_files_that_came_and_went_between_two_looks_are_told(engine: Engine) -> None:
    container = engine.container()
    container.write("first")
    engine.turn()
    for number in range(4):
        container.rotate()
        container.write(f"later {number}")
    assert engine.turn() == ["first", "later 1", "later 2", "later 3"]
    assert engine.collector.counts.values["gaps"] == 1
    container.rotate()
    engine.turn()
    container.remove()
    engine.turn()
    assert engine.collector.counts.values["gaps"] == 1, "a rotation that is seen, and a removed container, are none"


def test_nothing_is_lost_while_the_store_hangs(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    asked, goes_on = threading.Event(), threading.Event()

    def hangs(rows: bytes) -> None:
        asked.set()
        assert goes_on.wait(60)
        engine.store(rows)

    engine.collector._send = hangs
    engine.container("a" * 64).write("before")
    thread = threading.Thread(target=engine.collector.turn)
    thread.start()
    try:
        assert asked.wait(20)
        short = engine.container("b" * 64)
        short.write("meanwhile")
        until(lambda: is_open(short.log))
        short.remove()
    finally:
        goes_on.set()
        thread.join(timeout=30)
    assert engine.turn() == ["before", "meanwhile"]


def test_after_a_power_cut_that_took_more_than_was_written_since_no_line_is_passed_over(engine: Engine) -> None:
    container = engine.container()
    container.write("whole")
    size = container.log.stat().st_size
    for number in range(20):
        container.write(f"lost with the power {number}")
    engine.turn()
    os.truncate(container.log, size)
    container.write("after")
    engine.store.rows.clear()
    engine.started()
    assert engine.turn() == ["whole", "after"], "a line that comes twice is better than one that never comes"
    assert engine.collector.counts.values["gaps"] == 1


def test_after_a_power_cut_no_later_line_is_taken_for_one_that_was_sent(engine: Engine) -> None:
    container = engine.container()
    container.write("lost with the power")
    container.write("lost " * 40)
    engine.turn()
    os.truncate(container.log, 100)
    for number in range(4):
        container.write(f"after {number}")
    engine.started()
    assert engine.turn()[-3:] == ["after 1", "after 2", "after 3"], "the first one hangs on the end that was cut"
    assert engine.collector.counts.values["gaps"] == 1


def test_positions_that_are_damaged_are_told(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.container().write("first")
    engine.turn()
    engine.positions.write_text(engine.positions.read_text()[:20])
    engine.started()
    assert engine.turn() == ["first", "first"]
    assert "positions cannot be read" in capsys.readouterr().out


def test_a_line_without_a_moment_takes_no_other_one_along(engine: Engine) -> None:
    container = engine.container()
    container.write("before")
    container.write("x", moment="yesterday")
    container.write("after")
    assert engine.turn() == ["before", "after"]
    assert engine.collector.counts.dropped["unreadable"] == 1, "the store would leave it out and answer 200"


def test_a_strange_file_of_somebody_elses_container_ends_nothing(engine: Engine) -> None:
    foreign = engine.folder / "c"
    foreign.mkdir()
    (foreign / "config.v2.json").write_text(json.dumps({"Config": {"Labels": ["a"]}}))
    engine.container().write("ours")
    assert engine.turn() == ["ours"]


def test_what_the_engine_removed_while_the_collector_was_down_is_told(engine: Engine) -> None:
    container = engine.container()
    container.write("first")
    engine.turn()
    for number in range(4):
        container.rotate()
        container.write(f"later {number}")
    engine.started()
    assert engine.turn() == ["first", "later 1", "later 2", "later 3"]
    assert engine.collector.counts.values["gaps"] == 1


def test_an_engine_that_compresses_what_it_rotates_costs_no_line_and_no_alert(engine: Engine) -> None:
    container, expected = engine.container(), []
    for number in range(5):
        container.write(f"before the look {number}")
        engine.turn()
        container.write(f"after the look {number}")
        container.rotate(compress=True)
        expected += [f"before the look {number}", f"after the look {number}"]
        assert engine.turn() == expected
    assert engine.collector.counts.values["gaps"] == 0, "LogLinesDropped would fire at each rotation"
    container.rotate(compress=True)
    container.write("only in a compressed file")
    container.rotate(compress=True)
    assert engine.turn() == expected
    assert engine.collector.counts.values["gaps"] == 1, "what nobody has read is lost to the store, and told"


def test_a_compressed_file_with_the_number_of_an_earlier_one_is_not_taken_for_it(
    engine: Engine, tmp_path: Path
) -> None:
    container = engine.container()
    container.write("first")
    container.rotate(compress=True)
    container.write("second")
    engine.turn()
    newest = container.log.with_name(f"{container.log.name}.1.gz")
    number = tmp_path / "number"
    number.hardlink_to(newest)
    inode = newest.stat().st_ino
    container.rotate(compress=True)
    container.write("lost")
    container.rotate(compress=True)
    # ext4 gives the number of the file that it has just removed to the next one.
    number.write_bytes(newest.read_bytes())
    number.replace(newest)
    container.write("lost too")
    container.rotate(compress=True)
    assert newest.with_suffix("").with_suffix(".2.gz").stat().st_ino == inode
    engine.turn()
    assert engine.collector.counts.values["gaps"] == 1, "three rotations were taken for one"


def test_what_was_compressed_while_the_collector_was_down_is_told(engine: Engine) -> None:
    container = engine.container()
    container.write("first")
    engine.turn()
    container.write("only in a compressed file")
    container.rotate(compress=True)
    container.write("new")
    engine.started()
    assert engine.turn() == ["first", "new"]
    assert engine.collector.counts.values["gaps"] == 1


def test_a_file_that_somebody_has_emptied_is_read_from_its_beginning_and_told(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    container = engine.container()
    container.write("a long line before it was emptied")
    engine.turn()
    assert engine.collector.counts.values["gaps"] == 0
    container.write("nobody has read this")
    container.log.write_bytes(b"")
    container.write("new")
    assert engine.turn()[1:] == ["new"]
    engine.turn()
    assert engine.collector.counts.values["gaps"] == 1, "a search that finds nothing would be believed"
    said = capsys.readouterr().out
    assert "somebody has emptied the log file of worker" in said
    assert "may be lost" in said, "nobody knows whether anything was unread"


def test_an_emptied_file_that_is_longer_again_than_before_is_read_from_its_beginning_and_told(engine: Engine) -> None:
    container = engine.container()
    container.write("short")
    engine.turn()
    container.log.write_bytes(b"")
    written = [f"new {number}" for number in range(9)]
    for number, text in enumerate(written):
        container.write(text, moment=f"2026-11-23T10:06:0{number}.5Z")
    assert engine.turn()[1:] == written, "its first lines would be nowhere"
    engine.turn()
    assert engine.collector.counts.values["gaps"] == 1
    assert not engine.collector.counts.dropped["unreadable"]


def test_nothing_is_lost_while_the_store_is_away_and_containers_are_replaced(engine: Engine) -> None:
    container = engine.container()
    container.write("before")

    def meanwhile() -> None:
        for number in range(5):
            container.write(f"meanwhile {number}")
            engine.tried_again()
            container.rotate()
        container.remove()

    engine.while_away(meanwhile)
    assert engine.turn() == ["before", *(f"meanwhile {number}" for number in range(5))]
    assert sum(engine.collector.counts.dropped.values()) == 0


def test_beyond_the_buffer_the_oldest_lines_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_WAIT_SECONDS", 0.05)
    engine = Engine(tmp_path, buffer_bytes=300)
    old, new = engine.container("a" * 64), engine.container("b" * 64)
    engine.container("c" * 64).write("first")

    def meanwhile() -> None:
        for number in range(4):
            old.write(f"old {number}")
        new.write("new")
        engine.tried_again()
        old.remove()

    engine.while_away(meanwhile)
    assert engine.turn() == ["first", "new"]
    assert engine.collector.counts.dropped["buffer"] == 4
    assert engine.collector.counts.held_bytes == 0


def test_a_batch_that_the_store_never_takes_holds_back_no_later_line(engine: Engine) -> None:
    container = engine.container()
    container.write("poison")
    engine.store.refuses = True
    engine.turn()
    engine.store.refuses = False
    container.write("after")
    assert engine.turn() == ["after"]
    assert engine.collector.counts.dropped["refused"] == 1


def test_a_container_that_writes_without_end_holds_no_other_one_back(engine: Engine) -> None:
    noisy, quiet = engine.container("a" * 64, "api-1"), engine.container("b" * 64, "worker")
    line = json.dumps({"log": "noise\n", "stream": "stdout", "time": MOMENT}).encode() + b"\n"
    noisy.raw(line * 200_000)
    quiet.write("quiet")
    assert engine.collector.turn(), "there is more of the noise"
    assert "quiet" in engine.store.texts


def test_that_the_lines_of_before_are_still_read_is_told(engine: Engine) -> None:
    container = engine.container()
    line = json.dumps({"log": "long ago\n", "stream": "stdout", "time": MOMENT}).encode() + b"\n"
    container.raw(line * 5_000)
    engine.collector.turn()
    assert "log_collector_first_read 1\n" in engine.collector.counts.text()
    engine.turn()
    assert "log_collector_first_read 0\n" in engine.collector.counts.text()
    container.raw(line * 5_000)
    engine.collector.turn()
    assert "log_collector_first_read 0\n" in engine.collector.counts.text(), "these are new"


def test_no_token_of_telegram_is_ever_sent(engine: Engine) -> None:
    engine.container(part="alertmanager").write('{"err": "Post https://api.telegram.org/bot12345:AA-b_c/sendMessage"}')
    engine.turn()
    assert "AA-b_c" not in json.dumps(engine.store.rows)


def test_the_variables_of_no_container_are_sent(engine: Engine) -> None:
    engine.container().write("x")
    engine.turn()
    assert "secret" not in json.dumps(engine.store.rows) + engine.positions.read_text()


@pytest.mark.parametrize(
    ("part", "text", "kinds"),
    [
        ("worker", "Traceback (most recent call last):", ["traceback"]),
        ("api", '{"event": "x", "exception": [{"exc_type": "ValueError"}]}', ["traceback"]),
        ("api", '{"event": "a user wrote: Traceback (most recent call last)"}', []),
        ("postgres", '2026-11-23 10:05:00.1 UTC [7] FATAL:  could not open file "x"', ["fatal"]),
        ("postgres", "2026-11-23 10:05:00.1 UTC [7] app@db PANIC:  could not write", ["panic"]),
        (
            "postgres",
            '2026-11-23 10:05:00 UTC [7] app@db FATAL:  password authentication failed for user "app"',
            ["login"],
        ),
        ("postgres", "2026-11-23 10:05:00 UTC [7] app@db FATAL:  the database system is starting up", []),
        ("postgres", "2026-11-23 10:05:00 UTC [7] app@db LOG:  statement: select ' FATAL:  '", []),
        ("worker", "2026-11-23 10:05:00 UTC [7] FATAL:  a lie", []),
        ("postgres", "2026-11-23 10:05:00.123 GMT [7] PANIC:  could not write to file", ["panic"]),
        (
            "postgres",
            '2026-11-23 10:05:00 UTC [7] app@a b FATAL:  password authentication failed for user "a"',
            ["login"],
        ),
        ("postgres", 'b FATAL:  password authentication failed for user "app"', ["login"]),
        ("postgres", '2026-11-23 10:05:00 UTC [7] a@b FATAL:  no pg_hba.conf entry for host "10.0.0.1"', ["login"]),
        (
            "postgres",
            '2026-11-23 10:05:00 UTC [7] app@x PANIC:  q FATAL:  password authentication failed for user "app"',
            ["login"],
        ),
        ("postgres", '2026-11-23 10:05:00 UTC [7] app@x PANIC:  q FATAL:  database "x PANIC:  q" does not exist', []),
        ("postgres", "2026-11-23 10:05:00 UTC [7] x PANIC:  q@app FATAL:  too many connections", []),
        ("postgres", "\t[1] PANIC:  forged", []),
        ("postgres", "\t2026-11-23 10:05:00.1 UTC [7] PANIC:  forged", []),
        ("postgres", "2026-11-23 10:05:00.1 UTC [7] app@db ERROR:  [1] PANIC:  forged", []),
    ],
)
def test_kinds_of_trouble_are_read_from_lines(part: str, text: str, kinds: list[str]) -> None:
    event = json.loads(text) if text.startswith("{") else None
    assert list(kinds_of(part, text, event)) == kinds


def test_each_series_begins_with_nothing_so_that_the_first_trouble_is_seen(engine: Engine) -> None:
    container = engine.container(part="postgres")
    container.write("2026-11-23 10:05:00.1 UTC [7] PANIC:  could not write", moment=ago(5))
    engine.turn()
    panics = 'log_collector_matches_total{part="postgres",kind="panic"}'
    first, second = engine.collector.counts.text(), engine.collector.counts.text()
    assert f"{panics} 0\n" in first, "Prometheus sees no increase in a first value"
    assert f"{panics} 1\n" in second
    assert 'log_collector_lines_total{part="postgres"} 1\n' in second


def test_trouble_of_long_ago_that_a_first_start_finds_wakes_nobody(engine: Engine) -> None:
    container, panic = engine.container(part="postgres"), "2026-11-23 10:05:00.1 UTC [7] PANIC:  could not write"
    for seconds in (5_000_000, 3_600, 60):
        container.write(panic, moment=ago(seconds))
    assert len(engine.turn()) == 3, "all can be searched"
    assert engine.collector.counts.matches["postgres", "panic"] == 1, "one came within ten minutes"
    # The clock may be set back after the start: what comes next is new, whatever it says.
    container.write(panic, moment=ago(5_000_000))
    engine.turn()
    engine.container("b" * 64, "postgres").write(panic, moment=ago(5_000_000))
    engine.turn()
    assert engine.collector.counts.matches["postgres", "panic"] == 3
    container.write(panic, moment=ago(3_600))
    engine.started()
    engine.turn()
    assert engine.collector.counts.matches["postgres", "panic"] == 1, "nobody was told while the collector was down"
    engine.positions.write_text("{")
    engine.started()
    engine.turn()
    assert engine.collector.counts.matches["postgres", "panic"] == 1, "the one of a minute ago"


def test_what_each_start_finds_lost_is_an_increase_for_prometheus(engine: Engine) -> None:
    container = engine.container()
    for _ in range(2):
        container.write("first")
        engine.turn()
        for number in range(4):
            container.rotate()
            container.write(f"later {number}")
        engine.started()
        engine.turn()
        shown = [engine.collector.counts.text() for _ in range(2)]
        assert ["log_collector_gaps_total 0\n" in shown[0], "log_collector_gaps_total 1\n" in shown[1]] == [True, True]


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Be silent."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


def test_the_store_is_asked_in_its_own_form_with_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p")
    with answering(200) as (address, asked):
        sender(address, "samokoder", tmp_path / "password")(b"{}\n")
    path, headers, body = asked[0]
    assert path == "/insert/jsonline?_stream_fields=environment%2Cpart%2Creplica&_time_field=_time"
    assert headers["Content-Type"] == "application/stream+json", "any other is answered with 200, and nothing is stored"
    assert headers["Authorization"] == "Basic c2Ftb2tvZGVyOnA="
    assert body == b"{}\n"


@pytest.mark.parametrize(("status", "error"), [(401, OSError), (503, OSError), (429, OSError), (400, RefusedError)])
def test_a_wrong_password_or_a_full_store_is_waited_for_and_a_bad_batch_is_not(
    status: int, error: type[Exception]
) -> None:
    with answering(status) as (address, _), pytest.raises(error):
        sender(address, "", None)(b"{}\n")


def test_connections_that_ask_nothing_take_no_memory_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_ASKED_SECONDS", 0.5)
    before = threading.active_count()
    with served(LogCounts(), 0) as server, ExitStack() as idle:
        for _ in range(12):
            idle.enter_context(socket.create_connection(("127.0.0.1", server.server_port)))
        time.sleep(0.3)
        # The server, and for each connection that is answered one thread and one that ends it.
        assert threading.active_count() <= before + 1 + 2 * 4, "who took the application over makes thousands of them"
        server.shutdown()


def test_connections_that_never_end_hold_up_no_scrape_and_raise_no_alert(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "_ASKED_SECONDS", 0.5)
    over = threading.Event()

    def drips(connection: socket.socket) -> None:
        with suppress(OSError):
            while not over.wait(0.1):
                connection.sendall(b"a")

    with served(LogCounts(), 0) as server, ExitStack() as slow:
        for _ in range(4):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", server.server_port)))
            threading.Thread(target=drips, args=[connection], daemon=True).start()
        time.sleep(0.2)
        asked = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        asked.request("GET", "/metrics")
        assert asked.getresponse().status == 200
        asked.close()
        over.set()
        server.shutdown()
    assert "Traceback" not in capfd.readouterr().err


def test_the_health_of_a_collector_that_hangs_is_bad() -> None:
    counts = LogCounts()
    with served(counts, 0) as server:
        for late, status in ((0, 200), (1000, 503)):
            counts.alive = time.monotonic() - late
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
            connection.request("GET", "/health")
            assert connection.getresponse().status == status
            connection.close()
        server.shutdown()
