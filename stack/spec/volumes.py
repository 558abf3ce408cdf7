"""The data volumes of an environment, by their names on the engine."""

from __future__ import annotations

from collections.abc import Sequence

from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec


def used(environment: Environment, specs: Sequence[ServiceSpec]) -> dict[str, str]:
    """Return the data volumes that the parts use: what each is for (`postgres`) -> its name on the engine."""
    # Several parts may share one.
    return {spec.data.name: environment.data_volume(spec.data.name, spec.data.adopt) for spec in specs if spec.data}


def left(environment: Environment, specs: Sequence[ServiceSpec]) -> dict[str, str]:
    """Return the data volumes that parts had which are switched off, in the same way."""
    there = used(environment, specs)
    return {name: volume for name, volume in environment.settings.kept_volumes.items() if name not in there}
