"""How mistakes in a configuration are reported: all of them at once, a readable block for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """One wrong value: the configuration key, what was given (never a secret), what is allowed, an example."""

    key: str
    given: str
    allowed: str
    example: str = ""

    def __str__(self) -> str:
        lines = [self.key, f"  is:    {self.given}", f"  needs: {self.allowed}"]
        if self.example:
            lines += [
                f"  {'' if number else 'write:':6} {line}" for number, line in enumerate(self.example.splitlines())
            ]
        return "\n".join(lines)


class InvalidSettingsError(Exception):
    """The configuration of a stack is wrong; `mistakes` has every one of them, in the order of the keys."""

    def __init__(self, stack: str, mistakes: Sequence[Mistake]) -> None:
        self.stack = stack
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.key))
        many = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(
            f"{many} in the configuration of {stack!r}\n\n" + "\n\n".join(str(mistake) for mistake in self.mistakes)
        )
