"""Many facts of one kind in one test: it fails once and names all that are not so.

A case of its own for each costs collection, setup and a report, in every process: more than the fact itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

Fact = Callable[[object], AbstractContextManager[None]]


@contextmanager
def facts() -> Iterator[Fact]:
    """Give what a fact is asked in: `with fact("its name"): assert …`. At the end the test fails where one was not so.

    An error in a fact is told with it as well; the others are asked all the same.
    """
    asked = 0
    wrong: list[str] = []

    @contextmanager
    def fact(name: object) -> Iterator[None]:
        nonlocal asked
        asked += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            said = str(error) if isinstance(error, AssertionError) else repr(error)
            wrong.append(f"- {name}: {said}")

    yield fact
    assert asked, "no fact was asked: the list of them is empty"
    if wrong:
        pytest.fail(f"{len(wrong)} of {asked} facts are not so:\n" + "\n".join(wrong), pytrace=False)
