"""What `make test` runs on a real engine is a list of names: each of them exists."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.conftest import DEAREST, FIRST, _ByFile, time_by_file
from tests.tiers import LONG, SHORT, is_short

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("promise", SHORT)
def test_a_promise_of_readme_is_proved_by_tests_that_exist(promise: str) -> None:
    for name in SHORT[promise]:
        file, _, test = name.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{name} is no longer run by `make test`"


def test_what_is_long_in_a_file_that_is_listed_exists() -> None:
    for name in LONG:
        file, _, test = name.partition("::")
        assert re.search(rf"^def {test}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE), f"no {name}"
        assert is_short(file, "test_another"), f"{file} is not listed whole: {name} is long without being named"
        assert not is_short(file, test), f"`make test` runs {name}"


def test_what_is_not_listed_is_long() -> None:
    assert is_short("live/test_smoke.py", "test_anything"), "a whole file is listed by its name"
    listed = "test_an_environment_that_is_not_up_is_an_error_and_no_drift"
    assert is_short("live/test_drift.py", listed)
    assert not is_short("live/test_drift.py", "test_another"), "a test of a file that is not listed whole is long"
    assert not is_short("live/test_rotation.py", listed)


def test_the_closing_lines_name_the_dearest_files_and_the_time_of_all() -> None:
    def report(file: int, when: Literal["setup", "call", "teardown"], seconds: float) -> pytest.TestReport:
        return pytest.TestReport(
            f"tests/test_{file}.py::test[a::b]", ("", 0, ""), {}, "passed", None, when, (), seconds
        )

    reports = [report(file, when, file) for file in range(1, 21) for when in ("setup", "call", "teardown")]
    lines = [line.split() for line in time_by_file(reports)]
    assert lines[0] == ["630.0", "s", "20", "tests", "all", "files"]
    assert lines[1] == ["60.0", "s", "1", "tests", "tests/test_20.py"], "setting up and taking down cost time as well"
    assert len(lines) == DEAREST + 1, "a long list is not read"


class Process:
    """One of the processes that run the tests; `given` are the tests that it is to run, by their numbers."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += numbers


def test_the_file_of_one_long_test_is_begun_before_those_of_many() -> None:
    made: Any = _ByFile.__new__(_ByFile)
    made.workqueue = OrderedDict({"tests/unit/test_many.py": {"many": False}, FIRST[0]: {"long": False}})
    process = Process()
    made.assigned_work, made.registered_collections = {}, {process: ["many", "long"]}
    made._assign_work_unit(process)
    assert process.given == [1], "one process would be at it alone, when all others have ended"
    assert all((TESTS.parent / file).is_file() for file in FIRST)


@pytest.mark.parametrize(
    ("mark", "folders"),
    [
        ("live", {"backup_image", "live", "reference_app", "render"}),
        ("deploy", {"live"}),
        ("archive", {"offline"}),
    ],
)
def test_each_kind_of_tests_is_in_the_folders_that_its_target_reads(mark: str, folders: set[str]) -> None:
    marked = {
        file.relative_to(TESTS).parts[0]
        for file in TESTS.rglob("*/*.py")
        if file != Path(__file__) and f"pytest.mark.{mark}" in file.read_text(encoding="utf-8")
    }
    assert marked <= folders, f"the Makefile's target leaves that folder out: the test would never run as {mark}"
