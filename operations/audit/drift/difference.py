"""One difference between what is declared and what runs, and what a person types to repair it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass

NOTHING = "nothing"
SECRET = "a secret"  # noqa: S105 - what is shown in its place


Step = tuple[str, ...]
"""Words after `docker` that remove what `up` then makes again."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference. `field` is empty where the whole thing is missing, or should not exist."""

    name: str
    """Name of the container, network or volume on the engine; of a resource that only Pulumi has, its name there."""
    field: str
    declared: str
    found: str
    repair: str
    """What to type."""
    steps: tuple[Step, ...] = ()
    """Steps of the repair that come before `up`."""

    @property
    def unknown(self) -> bool:
        """Whether nobody declared this thing: it may be an intruder's, or hold data, so a person looks at it first."""
        return not self.field and self.declared == NOTHING

    def as_json(self) -> dict[str, str]:
        """Return it with the keys of `samokoder drift --json`."""
        return {key: value for key, value in asdict(self).items() if key != "steps"}


@dataclass(frozen=True, kw_only=True)
class Typed:
    """How a person repairs things in this environment."""

    docker: str
    up: str
    """`make up ENV=prod`"""

    def line(self, *steps: Step, up: bool = True) -> str:
        """Return the steps in one line to paste. up: add `up`, which makes again what the steps removed."""
        return " && ".join([*(f"{self.docker} {shlex.join(step)}" for step in steps), *([self.up] if up else [])])


def remade(*containers: str, volume: str = "") -> tuple[Step, ...]:
    """Return the steps after which `up` makes containers again. volume: with their files; it is removed as well."""
    gone = (("stop", *containers), ("rm", *containers))
    return (*gone, ("volume", "rm", volume)) if volume else gone


def missing(name: str, what: str, repair: str) -> Difference:
    """Return the difference for something that is declared but not there. what: such as `a container`."""
    return Difference(name=name, field="", declared=what, found=NOTHING, repair=repair)
