"""The report of `smoke`, `doctor` and `check-image`: how checks are asked, and how what came of them is told."""

from __future__ import annotations

import io
import threading
import time
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from operations.checks import report_table
from operations.checks.report import Check, Finding, Once, Report, Verdict, ask_all
from operations.errors import FailedError, UnavailableError


def raises(error: Exception) -> str:
    raise error


def slow() -> str:
    time.sleep(0.2)
    return "well"


def report(*verdicts: Verdict) -> Report:
    found = [Finding(check=f"check [{n}]", verdict=v, why=f"because [of] {n}") for n, v in enumerate(verdicts)]
    return Report(title="Smoke test of staging", about={"environment": "staging"}, findings=found)


ALL = report(Verdict.PASSED, Verdict.FAILED, Verdict.NOT_AVAILABLE)


def shown(what: Report, *, verbose: bool) -> str:
    console = Console(file=io.StringIO(), width=120)
    report_table.show(console, what, verbose=verbose)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_check_is_one_verdict_and_the_order_is_that_of_the_checks() -> None:
    found = ask_all(
        [
            Check(name="slow", ask=slow),
            Check(name="bad", ask=lambda: raises(FailedError("it is down"))),
            Check(name="unknown", ask=lambda: raises(UnavailableError("nobody can say"))),
            Check(name="broken", ask=lambda: raises(ValueError("an answer\nof two lines"))),
        ],
        seconds=10,
    )
    assert [(each.check, each.verdict, each.why) for each in found] == [
        ("slow", Verdict.PASSED, "well"),
        ("bad", Verdict.FAILED, "it is down"),
        ("unknown", Verdict.NOT_AVAILABLE, "nobody can say"),
        ("broken", Verdict.FAILED, "ValueError: an answer of two lines"),
    ], "what a check meets unawares is no proof that all is well"


def test_a_check_that_hangs_is_told_after_its_time_and_holds_nothing_back() -> None:
    release = threading.Event()
    began = time.monotonic()
    found = ask_all(
        [Check(name="hangs", ask=lambda: str(release.wait(60))), Check(name="good", ask=lambda: "well")], seconds=0.3
    )
    took = time.monotonic() - began
    release.set()
    assert [each.verdict for each in found] == [Verdict.FAILED, Verdict.PASSED]
    assert found[0].why == "no answer within 0.3 s"
    assert took < 5, "a person would wait for what never comes"


def test_what_several_checks_need_is_asked_for_once_and_fails_for_each_of_them() -> None:
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        time.sleep(0.1)
        raise FailedError("Prometheus does not answer")

    once = Once(ask)
    found = ask_all([Check(name=str(number), ask=once) for number in range(5)], seconds=10)
    assert len(asked) == 1, "twenty targets are one question"
    assert {each.why for each in found} == {"Prometheus does not answer"}


def test_what_cannot_be_said_is_neither_passed_nor_failed() -> None:
    only = report(Verdict.NOT_AVAILABLE)
    assert only.failed == []
    assert only.counts == {"total": 1, "passed": 0, "failed": 0, "not available": 1, "not configured": 0}
    assert only.as_json()["ok"] is True


def test_a_program_gets_every_check_with_its_verdict_and_why() -> None:
    told = ALL.as_json()
    assert (told["environment"], told["ok"]) == ("staging", False)
    assert told["counts"] == {"total": 3, "passed": 1, "failed": 1, "not available": 1, "not configured": 0}
    assert told["checks"][1] == {"check": "check [1]", "verdict": "failed", "why": "because [of] 1"}


def test_a_ci_system_gets_a_failure_and_what_is_skipped() -> None:
    suite = ET.fromstring(ALL.junit())  # noqa: S314 - our own text
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    assert [case.get("name") for case in suite] == ["check [0]", "check [1]", "check [2]"]
    assert [[element.tag for element in case] for case in suite] == [[], ["failure"], ["skipped"]]
    assert suite[1][0].get("message") == "because [of] 1"


def test_what_a_part_has_written_does_not_break_the_report_of_a_ci_system() -> None:
    coloured = Finding(check="a", verdict=Verdict.FAILED, why="\x1b[1mno\x00")
    said = Report(title="smoke", about={}, findings=[coloured])
    suite = ET.fromstring(said.junit())  # noqa: S314 - our own text
    assert suite[0][0].get("message") == "[1mno", "a colour of a log would make the whole report unreadable"


def test_a_person_sees_what_is_not_well_and_the_numbers_and_all_of_it_with_verbose() -> None:
    short, long = shown(ALL, verbose=False), shown(ALL, verbose=True)
    assert "because [of] 0" not in short, "sixty good lines hide the bad one"
    assert "because [of] 0" in long, "brackets in a reason are no markup"
    for text in (short, long):
        assert "because [of] 1" in text
        assert "because [of] 2" in text
        assert "3 checks, 1 passed, 1 failed, 1 not available" in text


def test_where_all_is_well_one_line_says_so() -> None:
    assert shown(report(Verdict.PASSED), verbose=False) == (
        "Smoke test of staging: 1 check, 1 passed, 0 failed, 0 not available\n"
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_has_its_colour(verdict: Verdict) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=120)
    report_table.show(console, report(verdict))
    assert isinstance(console.file, io.StringIO)
    codes = {Verdict.PASSED: "32", Verdict.FAILED: "31", Verdict.NOT_AVAILABLE: "33", Verdict.NOT_CONFIGURED: "2"}
    code = codes[verdict]
    assert f"\x1b[{code}m{verdict.value}" in console.file.getvalue()
