"""What `make coverage` prints."""

from __future__ import annotations

from typing import Any

from tests.covered import lines_of


def file(known: int, run: int) -> dict[str, Any]:
    return {"summary": {"num_statements": known, "covered_lines": run, "percent_covered": 100 * run / known}}


def test_each_folder_has_its_share_and_a_file_below_80_percent_is_named_the_lowest_first() -> None:
    files = {"stack/a.py": file(10, 8), "operations/b.py": file(100, 70), "operations/c.py": file(10, 2)}
    assert lines_of(files) == [
        "Lines of the product that the unit tests run:",
        "  66.7%  all",
        "  65.5%  operations",
        "  80.0%  stack",
        "Below 80 %, the rest is for the tests on a real engine: 2 files",
        "  20.0%  operations/c.py",
        "  70.0%  operations/b.py",
    ]
