"""Two slots for a secret that is rotated without a lost request: one value is in use, the other may be accepted too.

Odd generations are in the first slot, which has the secret's own name, even ones in the second. So a new value never
overwrites the value in use, and an interrupted rotation loses neither value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from stack.settings.environment import Environment
from stack.settings.rotation import Phase, Rotating

SECOND = "_b"
SLOTTED = tuple(Rotating.model_fields)
"""Secrets with two slots. Every other secret has one slot, in which a new value replaces the old one."""

IN_USE = "inUse"
"""Output of the component Secrets: secret -> its slot in use, both spelt as in the names of resources."""
PHASES = "phases"
"""Output of the component Secrets: secret -> phase of its rotation, only for secrets that are being rotated."""


def label(secret: str) -> str:
    """Return the name of a secret or slot as in names of resources and on the command line: `postgres-app`."""
    return secret.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The slots of one secret. The name of a slot is also the name of the secret value in it."""

    generations: Mapping[str, int]
    """Slot -> generation of its value: of the odd or the even generations, the newest that was requested."""
    in_use: str
    """Slot whose value all clients use."""
    other: str
    """Slot whose value is accepted as well; empty if there is none."""

    @property
    def accepted(self) -> frozenset[str]:
        """All slots whose value is accepted."""
        return frozenset({self.in_use, self.other} - {""})


def slots_of(secret: str, generation: int, phase: Phase) -> Slots:
    """Return the slots of `secret` at a generation, 1 or more, and in a phase of its rotation."""
    names = (secret + SECOND, secret)  # even, odd
    newest, before = names[generation % 2], names[(generation - 1) % 2]
    generations = {newest: generation} | ({before: generation - 1} if generation > 1 else {})
    in_use, other = (before, newest) if phase == "prepare" else (newest, before)
    return Slots(generations=generations, in_use=in_use, other=other if phase else "")


def slots(environment: Environment, secret: str) -> Slots:
    """Return the slots of a secret of `SLOTTED` in an environment; a configured secret uses only the first slot."""
    if to_camel(secret) in environment.configured_secrets:
        return slots_of(secret, 1, "")
    settings = environment.settings
    return slots_of(secret, getattr(settings.rotation, secret), getattr(settings.rotating, secret))
