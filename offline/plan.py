"""How long each thing takes that is made here: for what is said before and while it is made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

SECONDS: Mapping[str, int] = {
    # Programs of offline/go: seconds of processor time in an empty cache. Estimates, from the times of whole runs and
    # from how many packages each one compiles: no quiet machine was there to measure each one by itself.
    "pulumi": 400,
    "prometheus": 270,
    "alertmanager": 40,
    "pulumi-language-python": 30,
    "pulumi-resource-docker": 90,
    "pulumi-resource-random": 10,
    "cadvisor": 40,
    "node_exporter": 10,
    "blackbox_exporter": 10,
    "caddy": 40,
    "postgres_exporter": 10,
    "redis_exporter": 10,
    # Bases and images.
    "Debian base": 40,
    "BusyBox base": 5,
    "image postgres": 20,
    "image redis": 8,
    "image python": 15,
    "image backup": 20,
}
_IMAGE_OF_A_PROGRAM = 3


def expected(things: Iterable[str]) -> dict[str, float]:
    """Return thing -> seconds on one quiet core. things: of SECONDS, or `image NAME`."""
    return {thing: float(SECONDS.get(thing, _IMAGE_OF_A_PROGRAM)) for thing in things}


def together(things: Mapping[str, float]) -> float:
    """Return the seconds that all of it takes here, the compiler using every core."""
    return sum(things.values()) / min(os.cpu_count() or 1, 4)
