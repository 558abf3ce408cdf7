"""What an environment's parts are, made once for all tests of a process: a description never changes.

A whole environment takes a tenth of a second, and hundreds of tests ask for the same few. What compares two
descriptions of one environment asks `stack.catalogue` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from stack import catalogue
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec


@dataclass(frozen=True)
class _Asked:
    """An environment by its content."""

    content: str
    environment: Environment = field(compare=False)


# Of one environment there are two megabytes.
@lru_cache(maxsize=40)
def _specs(asked: _Asked) -> tuple[ServiceSpec, ...]:
    return tuple(catalogue.specs(asked.environment))


@lru_cache(maxsize=40)
def _dashboard_texts(asked: _Asked) -> Mapping[str, str]:
    return catalogue.dashboard_texts(asked.environment)


def specs(environment: Environment) -> list[ServiceSpec]:
    """Describe every part that an environment runs."""
    return list(_specs(_Asked(environment.model_dump_json(), environment)))


def dashboard_texts(environment: Environment) -> Mapping[str, str]:
    """Return every dashboard by its uid."""
    return _dashboard_texts(_Asked(environment.model_dump_json(), environment))
