"""Two slots for a secret that changes without a lost request: which value is in use, and which is accepted beside it.

Odd generations are in the first slot, which has the secret's own name, even ones in the second. So a new value never
takes the place of the one that is in use, and an interrupted rotation has lost neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from stack.settings.environment import Environment
from stack.settings.rotation import Phase, Rotating

SECOND = "_b"
SLOTTED = tuple(Rotating.model_fields)
"""Secrets with two slots. All others have one, and a new value takes the old one's place."""

IN_USE = "inUse"
"""Output of the component of the secrets: secret -> its slot in use, both as the resources are named."""
PHASES = "phases"
"""Output of the same: secret -> the phase of its rotation, for those that are in one."""


def label(secret: str) -> str:
    """Return the name of a secret or a slot as resources have it and people write it: `postgres-app`."""
    return secret.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The slots of one secret. A slot's name is the name of the secret value in it."""

    generations: Mapping[str, int]
    """Slot -> the generation of its value: the newest of its own that was ever asked for."""
    in_use: str
    """Slot whose value everybody uses."""
    other: str
    """Slot whose value is accepted too; empty: none is."""

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
    """Return the slots of a secret of `SLOTTED` in an environment; one that is configured is in the first alone."""
    if to_camel(secret) in environment.configured_secrets:
        return slots_of(secret, 1, "")
    settings = environment.settings
    return slots_of(secret, getattr(settings.rotation, secret), getattr(settings.rotating, secret))
