"""What the part `drill` answers is a stranger's text: whoever broke out of a restored database writes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samokoder_backup import apart, drill, settings, state
from samokoder_backup.process import BackupError, CannotError
from tests.backup_image.folders import Home, home_at

MEASURED = {"backup": "20261123T021500", "rpo": 1.5, "rto": 40.0, "rows": {"public.jobs": 7}}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(apart, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(apart, "_SILENCE_SECONDS", 1.5)
    home = home_at(tmp_path, monkeypatch)
    settings.RUN.mkdir()
    return home


def answer() -> Path:
    return settings.DRILL / "answer.json"


def part(home: Home) -> Callable[[str], None]:
    """The real other side."""

    def serves(_: str) -> None:
        apart.serve_one({"drill": lambda _: drill.drill(home.settings)})

    return serves


def asked(reply: Callable[[str], None]) -> dict[str, Any]:
    """Ask for a drill, which somebody answers who gets the request's id."""

    def hears() -> None:
        while not settings.DRILL_REQUEST.exists():
            time.sleep(0.01)
        reply(str(json.loads(settings.DRILL_REQUEST.read_text())["id"]))

    other = threading.Thread(target=hears, daemon=True)
    other.start()
    try:
        return apart.ask("drill").model_dump(include=set(MEASURED))
    finally:
        other.join()
        assert not settings.DRILL_REQUEST.exists(), "the part would go on for nobody"


def writes(**values: Any) -> Callable[[str], None]:
    def reply(request: str) -> None:
        new = answer().with_suffix(".new")  # whole, or the other side would read half of it
        new.write_text(json.dumps({"id": request, "status": "done", **MEASURED, **values}))
        new.replace(answer())

    return reply


def test_a_drill_is_asked_for_done_apart_and_its_figures_come_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "drill", lambda _: MEASURED)
    assert asked(part(home)) == MEASURED


def test_what_fails_apart_fails_here_with_its_reason(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> dict[str, Any]:
        raise CannotError("there is no good dump yet")

    monkeypatch.setattr(drill, "drill", fails)
    with pytest.raises(CannotError, match="there is no good dump yet"):
        asked(part(home))


def a_link(_: str) -> None:
    answer().symlink_to(settings.CONFIG / "backup.json")


def a_pipe(_: str) -> None:
    os.mkfifo(answer())


def too_much(_: str) -> None:
    with answer().open("wb") as file:
        file.truncate(2**40)


def deep(_: str) -> None:
    answer().write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (a_link, "cannot be read"),
        (a_pipe, "is no file"),
        (too_much, "is longer than"),
        (deep, "is none"),
        (writes(backup="../../etc/passwd"), "is none: backup"),
        (writes(rpo="1"), "is none: rpo"),
        (writes(rpo=-1.0), "is none: rpo"),
        (writes(rto=float("nan")), "is none"),
        (writes(rows={"public.jobs": "many"}), "is none: rows"),
        (writes(status="perfect"), "is none: status"),
        (writes(more=1), "is none: more"),
    ],
)
def test_an_answer_that_is_none_is_refused(home: Home, reply: Callable[[str], None], why: str) -> None:
    began = time.monotonic()
    with pytest.raises(BackupError, match=why):
        asked(reply)
    assert time.monotonic() - began < 1.4, "it waits for what will never be read"


def test_nothing_that_a_terminal_obeys_comes_out_of_an_answer(home: Home) -> None:
    rows = asked(writes(rows={"public.\x1b]0;owned\x07": 1}))["rows"]
    assert rows == {"public.?]0;owned?": 1}
    with pytest.raises(BackupError) as caught:
        asked(writes(status="failed", error="\x1b[2Jall is good"))
    assert str(caught.value) == "?[2Jall is good"


def test_an_answer_to_another_request_and_a_part_that_is_silent_end_the_wait(home: Home) -> None:
    with pytest.raises(BackupError, match="does not answer"):
        asked(writes(id="0" * 16))


def test_a_part_that_shows_itself_is_waited_for_and_one_that_stops_is_not(home: Home) -> None:
    def works(request: str) -> None:
        writes(status="running")(request)
        for _ in range(20):  # longer than silence may last
            time.sleep(0.1)
            os.utime(answer())
        writes()(request)

    assert asked(works) == MEASURED
    began = time.monotonic()
    with pytest.raises(BackupError, match="does not answer"):
        asked(writes(status="running"))
    assert time.monotonic() - began < 10


def test_a_drill_that_was_cut_off_is_told_and_what_it_left_goes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(request: str) -> None:
        writes(status="running")(request)
        (settings.DRILL / "data").mkdir()
        (settings.DRILL / "data" / "file").touch()
        (settings.DRILL / "link").symlink_to(home.root)
        apart._tidy()
        apart._known()

    with pytest.raises(BackupError, match="it was cut off"):
        asked(killed)
    assert [path.name for path in settings.DRILL.iterdir()] == ["answer.json"]
    assert home.root.is_dir()


@pytest.mark.parametrize("left", [a_link, a_pipe, too_much, lambda _: answer().mkdir(), writes(id="no id")])
def test_what_a_shell_has_left_does_not_spoil_the_next_drill(
    home: Home, monkeypatch: pytest.MonkeyPatch, left: Callable[[str], None]
) -> None:
    left("")
    kept = (settings.CONFIG / "backup.json").read_bytes()
    apart._tidy()
    apart._known()
    monkeypatch.setattr(drill, "drill", lambda _: MEASURED)
    assert asked(part(home)) == MEASURED
    assert (settings.CONFIG / "backup.json").read_bytes() == kept


HOLDS = """
import fcntl, sys, time
held = [open(path) for path in sys.argv[1:]]
for file in held:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_shell_that_removes_the_answer_and_holds_the_locks_is_ended_and_stops_no_backup(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locks = [home.root / "lock", home.root / ".state.lock"]
    for path in locks:
        path.touch()
    shells: list[subprocess.Popen[str]] = []
    monkeypatch.setattr(state, "_LOCK_SECONDS", 0.2)

    def end_others() -> None:
        for shell in shells:
            shell.kill()

    monkeypatch.setattr(apart, "_end_others", end_others)

    def taken_over(_: object) -> dict[str, Any]:
        words = [sys.executable, "-c", HOLDS, *map(str, locks)]
        shells.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        with shells[0].stdout or pytest.fail("it says nothing") as said:
            assert said.readline() == "held\n"
        state.record("offsite", {"exit": 0, "finished": 7.0})
        assert state.read()["offsite"]["exit"] == 0, "what a job came to is known as on a full disk"
        assert ".state.lock" in capsys.readouterr().err
        answer().unlink()
        shutil.rmtree(settings.RUN)
        shells[0].wait(10)
        settings.RUN.mkdir()
        raise BackupError("the drill's server was ended")

    monkeypatch.setattr(drill, "drill", taken_over)
    with pytest.raises(BackupError, match="was ended"):
        asked(part(home))
    assert state.attempt("dump", dict), "a lock that is never given back is the end of all backups"
    assert json.loads((home.root / "state.json").read_text()).keys() >= {"offsite", "dump"}
