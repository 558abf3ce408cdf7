"""How long each thing takes that is made here: for what is said before and while it is made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

SECONDS: Mapping[str, int] = {
    # Programs of offline/go: seconds of processor time, the programs before it compiled (measured on 2026-11-29: the
    # first three and the docker provider alone, the others in a whole run on two quiet cores).
    "pulumi": 360,
    "prometheus": 200,
    "alertmanager": 70,
    "pulumi-language-python": 30,
    "pulumi-resource-docker": 260,
    "pulumi-resource-random": 35,
    "cadvisor": 40,
    "node_exporter": 20,
    "blackbox_exporter": 45,
    "caddy": 105,
    "postgres_exporter": 20,
    "redis_exporter": 20,
    "victoria_logs": 45,
    # Bases and images.
    "Debian base": 60,
    "BusyBox base": 5,
    "image postgres": 30,
    "image redis": 10,
    "image python": 40,
    "image backup": 35,
}
_IMAGE_OF_A_PROGRAM = 3


def expected(things: Iterable[str]) -> dict[str, float]:
    """Return thing -> seconds on one quiet core. things: of SECONDS, or `image NAME`."""
    return {thing: float(SECONDS.get(thing, _IMAGE_OF_A_PROGRAM)) for thing in things}


def together(things: Mapping[str, float]) -> float:
    """Return the seconds that all of it takes here, the compiler using every core."""
    return sum(things.values()) / min(os.cpu_count() or 1, 4)
