"""Limits for the time and the output of a command in a container, because an image under check may do anything."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from operations.errors import ProjectError

MIB = 2**20


class BoundError(ProjectError):
    """A command took too long or wrote too much. The text says which, as in "it does not end within 5 s"."""


@dataclass
class Bound:
    """The limits of one command."""

    seconds: float
    size: int
    """Bytes of standard output and standard error together."""
    _end: float = field(init=False)
    _said: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Begin to count."""
        self._end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises BoundError where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.late()
        return left

    def take(self, size: int) -> None:
        """Count `size` more bytes of output. Raises BoundError where that is too much."""
        self._said += size
        if self._said > self.size:
            raise BoundError(f"it says more than {self.size / MIB:g} MiB")

    def late(self) -> BoundError:
        """Return the error that there is no time left."""
        return BoundError(f"it does not end within {self.seconds:g} s")
