"""A metric of the contract with the application's images, and which jobs expose it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """Kinds of parts that can run a team's own image."""

    API = "api"
    WORKER = "worker"


class Job(StrEnum):
    """Prometheus' jobs that expose a metric."""

    API = "api"
    WORKER = "worker"
    LLM = "whoever calls the LLM"
    """In the reference application the worker; with a team's own images it may be the API or the worker."""
    BACKUP = "backup"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, named as on `/metrics`: a counter with `_total`, a histogram without `_bucket`."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    jobs: tuple[Job, ...]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    needs_buckets: bool = False
    """Whether an alert reads one of the buckets, which the settings choose: then an image must have all buckets."""
    required: bool
    """Whether an alert cannot fire without it. LLM metrics are required only of an image that has any LLM metric."""

    def is_in(self, expression: str) -> bool:
        """Return whether a PromQL expression reads this metric."""
        return bool(_names_in(expression) & self._series())

    def _series(self) -> set[str]:
        return {self.name + end for end in ("_bucket", "_sum", "_count")} if self.type == "histogram" else {self.name}


def _names_in(expression: str) -> set[str]:
    """Return all words of an expression; names of labels and functions are among them, but match no metric."""
    word = "".join(letter if letter.isalnum() or letter in "_:" else " " for letter in expression)
    return set(word.split())
