"""The data volumes of an environment, by their names on the engine."""

from __future__ import annotations

from collections.abc import Sequence

from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec


def used(environment: Environment, specs: Sequence[ServiceSpec]) -> dict[str, str]:
    """Return the data volumes that the parts use: name in the spec (`postgres`) -> name on the engine."""
    # A dictionary, because several parts may share a volume.
    return {spec.data.name: environment.data_volume(spec.data.name, spec.data.adopt) for spec in specs if spec.data}


def left(environment: Environment, specs: Sequence[ServiceSpec]) -> dict[str, str]:
    """Return the data volumes of parts that are switched off: name in the spec -> name on the engine."""
    there = used(environment, specs)
    return {name: volume for name, volume in environment.settings.kept_volumes.items() if name not in there}
