"""What `make test` runs on a real engine is a list of names: each of them exists."""

from __future__ import annotations

import ast
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.conftest import (
    DEAREST,
    FIRST,
    IN_ORDER,
    LONG_FILES,
    ON_ONE_STACK,
    _ByFile,
    pytest_collection_modifyitems,
    time_by_file,
)
from tests.tiers import LONG, SHORT, asks_for_none_of, is_short

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


def test_a_file_is_left_out_where_none_of_its_tests_is_asked_for() -> None:
    file, short = "live/test_rotation.py", "live/test_deploys.py"
    makefile = (TESTS.parent / "Makefile").read_text(encoding="utf-8")
    asked = [marks.replace("$(SHORT)", "and not long") for marks in re.findall(r'-m "(.+? \$\(SHORT\))"', makefile)]
    assert [asks_for_none_of(file, marks) for marks in asked] == [False, True, True], asked
    assert not any(asks_for_none_of(short, marks) for marks in asked)
    assert not any(asks_for_none_of(file, marks.removesuffix(" and not long")) for marks in asked), "`make test-all`"


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


def test_what_takes_longest_is_begun_first() -> None:
    made: Any = _ByFile.__new__(_ByFile)
    longest, long = FIRST[0], LONG_FILES[-1]
    queue = {"tests/unit/test_many.py": {"many": False}, long: {"long": False}, longest: {"longest": False}}
    made.workqueue = OrderedDict(queue)
    process = Process()
    made.assigned_work, made.registered_collections = {}, {process: ["many", "long", "longest"]}
    for _ in queue:
        made._assign_work_unit(process)
    assert process.given == [2, 1, 0], "one process would be at it alone, when all others have ended"
    assert all((TESTS.parent / file).is_file() for file in (*LONG_FILES, *IN_ORDER))


class Item:
    """A test, as far as the order asks for it."""

    def __init__(self, file: str) -> None:
        self.nodeid, self.path, self.name = f"{file}::test", TESTS.parent / file, "test"

    def get_closest_marker(self, _name: str) -> None: ...


def test_on_a_stack_that_is_shared_what_stops_a_part_comes_after_those_who_watch_that_all_is_well() -> None:
    files = [f"tests/live/test_{name}.py" for name in ("log_search", "lock", "updates", "traffic", "the_stack")]
    items: Any = [Item(file) for file in files for _ in range(2)]
    pytest_collection_modifyitems(items)
    wanted = [f"tests/live/test_{name}.py" for name in ("lock", "the_stack", "traffic", "log_search", "updates")]
    assert [item.nodeid for item in items] == [f"{file}::test" for file in wanted for _ in range(2)]


def asks_for(file: Path, fixtures: frozenset[str]) -> bool:
    """Tell whether a test file asks for one of these fixtures, and has none of that name for itself."""
    made = [each for each in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(each, ast.FunctionDef)]
    of_tests = [
        each
        for each in made
        if each.name.startswith("test_") or "fixture" in "".join(map(ast.dump, each.decorator_list))
    ]
    asked = {argument.arg for each in of_tests for argument in each.args.args}
    return bool(asked & fixtures - {each.name for each in made})


@pytest.mark.parametrize(
    ("shared", "fixtures"),
    [("stack", {"stack", "environment", "traffic"}), ("alerting", {"alerting", "told", "alerted"})],
)
def test_whoever_uses_a_shared_stack_is_handed_out_with_all_who_do(shared: str, fixtures: set[str]) -> None:
    users = {file.stem for file in (TESTS / "live").glob("test_*.py") if asks_for(file, frozenset(fixtures))}
    assert users == set(ON_ONE_STACK[shared]), "each process would bring up one of its own"


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
