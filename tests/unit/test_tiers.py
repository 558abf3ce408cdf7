"""What `make test` runs on a real engine is a list of names: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tiers import SHORT, is_short

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("promise", SHORT)
def test_a_promise_of_readme_is_proved_by_tests_that_exist(promise: str) -> None:
    for name in SHORT[promise]:
        file, _, test = name.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{name} is no longer run by `make test`"


def test_what_is_not_listed_is_long() -> None:
    assert is_short("live/test_smoke.py", "test_anything"), "a whole file is listed by its name"
    listed = "test_a_stack_that_nobody_touched_has_no_drift"
    assert is_short("live/test_drift.py", listed)
    assert not is_short("live/test_drift.py", "test_another"), "a test of a file that is not listed whole is long"
    assert not is_short("live/test_rotation.py", listed)
