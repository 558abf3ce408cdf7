"""What a metric of the contract is, and who exposes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """Parts that run a team's own image."""

    API = "api"
    WORKER = "worker"


class Job(StrEnum):
    """Who exposes a metric."""

    API = "api"
    WORKER = "worker"
    LLM = "whoever calls the LLM"
    """The worker of the reference application; of a team's own images it may be either."""
    BACKUP = "backup"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, as `/metrics` has it: a counter with `_total`, a histogram without `_bucket`."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    jobs: tuple[Job, ...]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    needs_buckets: bool = False
    """Whether an alert asks for one of the buckets, whichever the settings say: then an image needs them all."""
    required: bool
    """Whether an alert is mute without it. Of the LLM's: required of an image that has any of them."""

    def is_in(self, expression: str) -> bool:
        """Tell whether a PromQL expression asks for it."""
        return bool(_names_in(expression) & self._series())

    def _series(self) -> set[str]:
        return {self.name + end for end in ("_bucket", "_sum", "_count")} if self.type == "histogram" else {self.name}


def _names_in(expression: str) -> set[str]:
    """Return the words of an expression that can be a series; those of labels and functions do no harm."""
    word = "".join(letter if letter.isalnum() or letter in "_:" else " " for letter in expression)
    return set(word.split())
