"""How long each thing takes that is made here: for what is said before and while it is made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from offline.images.recipes import BUSYBOX_BASE, DEBIAN_BASE, RECIPES
from offline.programs import PROGRAMS

SECONDS: Mapping[str, int] = {
    DEBIAN_BASE: 85,
    BUSYBOX_BASE: 5,
    **{name: program.seconds for name, program in PROGRAMS.items()},
    **{f"image {name}": recipe.seconds for name, recipe in RECIPES.items()},
}
"""Thing -> seconds in a cold run on two quiet cores, where two compilers and often an image run side by side."""


def expected(things: Iterable[str]) -> dict[str, float]:
    """Return thing -> seconds as in SECONDS. things: of SECONDS."""
    return {thing: float(SECONDS[thing]) for thing in things}


def together(things: Mapping[str, float]) -> float:
    """Return the seconds that all of it takes here: on two cores two and a half of them run at a time."""
    return sum(things.values()) / (1.25 * min(os.cpu_count() or 1, 4))
