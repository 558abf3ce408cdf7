"""What a person sees while something long is made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from host import process
from host.progress import Reporter, Task, about, duration
from operations import __main__ as command
from operations.errors import PulumiFailedError

PATIENCE_SECONDS = 10


def plain(every: float = 30.0) -> tuple[Reporter, StringIO]:
    output = StringIO()
    return Reporter(Console(file=output, force_terminal=False, width=100), every=every), output


def wait_for(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not seen() and time.monotonic() < end:
        time.sleep(0.01)


def test_without_a_terminal_a_thing_has_one_line_when_it_begins_and_one_when_it_ends() -> None:
    reporter, output = plain()
    with reporter.task("prometheus") as task:
        for number in range(200):
            task.detail = f"{number} packages compiled"
    assert output.getvalue().splitlines() == ["prometheus ...", "prometheus: done in 0 s"], (
        "a log of CI had 270 lines of package names"
    )


def test_without_a_terminal_one_line_now_and_then_names_all_that_is_being_made() -> None:
    reporter, output = plain(every=0.02)
    with reporter.task("pulumi") as first, reporter.task("image redis"):
        first.detail = "7 packages compiled"
        wait_for(lambda: "7 packages" in output.getvalue())
    signs = [line for line in output.getvalue().splitlines() if "7 packages compiled" in line]
    assert signs, "nobody can tell a silent build from one that hangs"
    assert signs[0] == "pulumi: 7 packages compiled (0 s); image redis (0 s)", "one line for all of it"


def test_a_line_of_something_else_is_a_sign_of_life_too() -> None:
    reporter, output = plain(every=0.5)
    with reporter.task("pulumi"):
        for _ in range(10):
            time.sleep(0.1)
            reporter.say("something")
    assert "pulumi (" not in output.getvalue(), "a line every 30 seconds is for silence alone"


def test_a_plan_tells_how_far_the_whole_is() -> None:
    reporter, output = plain()
    with reporter.plan({"a": 60.0, "b": 60.0, "c": 120.0}, together=120.0):
        with reporter.task("a"):
            pass
        assert reporter.lines()[0] == "1 of 3, less than a minute left", "it went faster than was expected"
        with pytest.raises(OSError, match="broken"), reporter.task("b"):
            raise OSError("broken")
        assert reporter.lines()[0].startswith("1 of 3"), "what failed is not made"
        with reporter.task("not planned"):
            assert reporter.lines()[1] == "  not planned (0 s)"
    assert "a: done in 0 s; 1 of 3, less than a minute left" in output.getvalue()
    assert "b: stopped after 0 s\n" in output.getvalue()


def test_what_is_left_follows_the_times_and_the_pace() -> None:
    reporter, _ = plain()
    with reporter.plan({"short": 60.0, "long": 540.0}, together=300.0):
        assert reporter._plan is not None
        assert reporter._plan.left([]) == pytest.approx(300, abs=1)
        reporter._plan.done.add("short")
        reporter._plan.started -= 60  # the machine took two seconds where one was measured
        assert reporter._plan.left([]) == pytest.approx(540, abs=2), "a busy machine needs twice the time for the rest"
        slow = Task("long")
        slow.started -= 10_000
        assert reporter._plan.left([slow]) > 0, "what takes longer than it should is not done"


def test_on_a_terminal_each_thing_in_work_has_its_own_line_and_the_whole_is_above() -> None:
    output = StringIO()
    reporter = Reporter(Console(file=output, force_terminal=True, width=100))
    with (
        reporter.plan({"pulumi": 60.0, "image redis": 60.0}, together=60.0),
        reporter.task("pulumi") as one,
        reporter.task("image redis"),
    ):
        one.detail = "7 packages compiled"
        wait_for(lambda: "7 packages compiled" in output.getvalue())
        assert reporter.lines() == [
            "0 of 2, about 1 minute left",
            "  pulumi: 7 packages compiled (0 s)",
            "  image redis (0 s)",
        ]
    assert "0 of 2, about 1 minute left" in output.getvalue()
    assert "pulumi: done in" in output.getvalue(), "what is finished stays to be read"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "less than a minute"), (29, "less than a minute"), (70, "about 1 minute"), (420, "about 7 minutes")],
)
def test_how_long_is_said_in_minutes(seconds: float, told: str) -> None:
    assert about(seconds) == told


def test_a_time_is_read_by_people() -> None:
    assert (duration(59), duration(185)) == ("59 s", "3 min 05 s")


def test_installing_says_a_line_when_it_begins_and_then_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRESS_SECONDS", 0.02)
    said: list[str] = []
    process.run_and_say(
        ["sh", "-c", "for i in 1 2 3 4 5; do echo package $i; sleep 0.05; done"], "Installing", said.append
    )
    assert said == ["Installing ..."], "each package would be a line of the log"


@pytest.mark.parametrize("words", [["up"], ["up", "--env", "prod", "--yes"]])
def test_the_last_lines_of_a_failed_up_are_the_cause_and_how_to_go_on(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PulumiFailedError("Debian base: mmdebstrap ended with status 25.\n" + "    a line\n" * 15)

    monkeypatch.delenv("ENV", raising=False)
    monkeypatch.setattr("operations.cli.asking.agreement", lambda *_, **__: None)
    monkeypatch.setattr("operations.lifecycle.up.bring_up", fail)
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    last = capsys.readouterr().err.splitlines()[-3:]
    assert ended.value.code == 1
    assert "error: Debian base: mmdebstrap ended with status 25." in last, "who reads the end of a log looks no further"
    assert last[-1].endswith("make up ENV=prod" if "prod" in words else "make up"), "and what to type next"


def test_a_daemon_thread_ends_with_the_last_task() -> None:
    before = threading.active_count()
    reporter, _ = plain(every=0.01)
    for _ in range(3):
        with reporter.task("short"):
            pass
    wait_for(lambda: threading.active_count() <= before)
    assert threading.active_count() <= before, "each task would leave a thread behind"
