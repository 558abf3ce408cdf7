"""Compares the generations of the secrets in a stack file with those in the state, before anything is changed.

A stack file that lacks a rotation (another clone, an older commit, `git stash`) would undo it: the servers would refuse
the value in use, and would accept the earlier value again, which may have leaked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from operations.clone import typed
from operations.errors import ProjectError
from operations.workspace import pulumi_state, stack_file
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.rotation import Phase, Rotation
from stack.spec.rotation import SLOTTED, label, slots_of
from stack.spec.secrets import GENERATED, OPENS_WHAT_IS_KEPT

ADMIN = "grafana_admin"


@dataclass(frozen=True, kw_only=True)
class RotationStep:
    """One step of a rotation: what the stack file says of the secret during one `up`."""

    generation: int
    phase: Phase


def step_of(environment: Environment, secret: str) -> RotationStep:
    """Return the step of a secret that is in the settings."""
    settings = environment.settings
    generation: int = getattr(settings.rotation, secret, 1)  # a secret that is never rotated has one generation
    phase: Phase = getattr(settings.rotating, secret, "")
    return RotationStep(generation=generation, phase=phase)


def refuse_undoing(
    environment: Environment, deployment: Mapping[str, Any], *, file: str, by_rotate: bool = True
) -> None:
    """Raise ProjectError where the step of a secret in the settings may not follow its step in the state.

    deployment: the stack's state, its secrets encrypted or not. file: the stack file's name, for the message.
    by_rotate: whether `rotate` takes the step of Grafana's password, and so has handed the new one to Grafana.
    """
    lines = [
        line
        for secret in Rotation.model_fields
        # A secret that opens stored data is in the state even where another one is configured in its place.
        if secret in OPENS_WHAT_IS_KEPT or GENERATED[secret].configured not in environment.configured_secrets
        for line in _of_secret(environment, secret, deployment, by_rotate=by_rotate)
    ]
    if lines:
        raise ProjectError("\n".join([f"{file} does not go on from what is there, so nothing was changed:", *lines]))


def _of_secret(environment: Environment, secret: str, deployment: Mapping[str, Any], *, by_rotate: bool) -> list[str]:
    """Return what is wrong with the step of one secret, and what to do."""
    there, wanted = steps_in(deployment, secret), step_of(environment, secret)
    if secret in OPENS_WHAT_IS_KEPT:
        return _of_kept(secret, there, wanted)
    if not there or any(may_follow(secret, step, wanted, by_rotate=by_rotate) for step in there):
        return []
    newest = there[0]
    rotate = typed(environment.name, f"rotate SECRET={label(secret)}")
    if is_before(newest, wanted):
        by_hand = _written(secret, RotationStep(generation=newest.generation + 1, phase=""))
        # `rotate` resumes from what is there where both are of one rotation, else the file is as far from it after it.
        of_one = wanted.phase and wanted.generation == newest.generation + (not newest.phase)
        first = "" if of_one else f"write {_written(secret, newest)}, then "
        said = (
            f"  {label(secret)}: {_says(newest)} is there, {_says(wanted)} is wanted. The next step is {first}{rotate}"
        )
        if secret == ADMIN:
            return [said, "    That hands the new one to Grafana, which reads its file only into an empty volume."]
        before = RotationStep(generation=newest.generation - 1, phase="")
        more = []
        if newest.phase == "prepare":
            more = [
                "    So also after an emergency `up` that was cut off: the same generation is not taken again.",
                f"    To give the rotation up: {_written(secret, before)}",
            ]
        return [said, f"    Or, at the price of errors: {by_hand}", *more]
    return [
        f"  {label(secret)}: {_says(newest)} is there, and the file says {_says(wanted)}.",
        "    Everybody who uses the value would be locked out, and the one before would be good again.",
        f"    Merge the commit that has the rotation, or write: {_written(secret, newest)}",
        f"    To get rid of the value that is there, rotate once more after that: {rotate}",
    ]


def _of_kept(secret: str, there: list[RotationStep], wanted: RotationStep) -> list[str]:
    """Return the message where a secret that opens stored data would be replaced, with the line that prevents it.

    Pulumi refuses to replace a secret that is protected in the state, but earlier versions did not protect it.
    """
    if not there or wanted == there[0]:
        return []
    return [
        f"  {label(secret)}: {_says(there[0])} is there, and the file says {_says(wanted)}.",
        "    What was encrypted with the one that is there could never be read again, so it is never replaced.",
        f"    Write: {_written(secret, there[0])}",
    ]


def steps_in(deployment: Mapping[str, Any], secret: str) -> list[RotationStep]:
    """Return the steps at which a state may have a secret; several where the state does not say which.

    Empty where the state does not have the secret, or is older than the slots.
    """
    generations = pulumi_state.generations(deployment)
    slots = {label(secret)} if secret not in SLOTTED else {label(secret), label(f"{secret}_b")}
    there = [generations[slot] for slot in slots if slot in generations]
    if not there:
        return []
    newest = max(there)
    if secret not in SLOTTED:
        return [RotationStep(generation=newest, phase="")]
    in_use = pulumi_state.slots_in_use(deployment).get(label(secret))
    if in_use is None:
        return []
    if in_use != label(slots_of(secret, newest, "").in_use):
        return [RotationStep(generation=newest, phase="prepare")]
    told: Mapping[str, Phase] | None = pulumi_state.phases(deployment)
    if told is None:
        return [RotationStep(generation=newest, phase=phase) for phase in _PHASES if phase != "prepare"]
    # The state has "prepare" here where an `up` was interrupted before it noted which slot is in use.
    phase: Phase = "overlap" if told.get(label(secret)) == "overlap" else ""
    return [RotationStep(generation=newest, phase=phase)]


_PHASES: tuple[Phase, ...] = ("", "overlap", "prepare")


def may_follow(secret: str, there: RotationStep, wanted: RotationStep, *, by_rotate: bool = True) -> bool:
    """Tell whether an `up` may go from one step of a secret to another without withdrawing a value in use.

    One step is allowed although it withdraws it: the next generation without a phase, which a person writes by hand in
    an emergency. by_rotate: as in `refuse_undoing`.
    """
    if wanted == there:
        return True
    begins = not there.phase and wanted == RotationStep(generation=there.generation + 1, phase="prepare")
    ends = wanted == RotationStep(generation=there.generation, phase="")
    if secret == ADMIN:
        # Grafana takes a value only from `rotate`: any other step would call one in use that it may never have got.
        return begins or (ends and (by_rotate or there.phase == "overlap"))
    if wanted == RotationStep(generation=there.generation + 1, phase=""):
        return True
    if there.phase == "overlap":
        return ends or wanted == RotationStep(
            generation=there.generation, phase="prepare"
        )  # both phases accept both values
    if there.phase == "prepare":
        given_up = wanted == RotationStep(generation=there.generation - 1, phase="")  # no part uses the new value yet
        return given_up or wanted == RotationStep(generation=there.generation, phase="overlap")
    return begins


def is_handed_over(workspace: Workspace) -> bool:
    """Tell whether the stack file says that Grafana's password is prepared: then `rotate` takes the step after it.

    `rotate` writes the phase of a step only when that is done, and takes the next one with settings of its own.
    """
    config = stack_file.merged(workspace.committed(), machine={})["config"]
    return stack_file.section(config, "rotating").get(to_camel(ADMIN)) == "prepare"


def is_before(step: RotationStep, other: RotationStep) -> bool:
    """Tell whether a step of a secret comes before another one of it."""
    return _order(step) < _order(other)


def _order(step: RotationStep) -> tuple[int, int]:
    return step.generation, {"prepare": 0, "overlap": 1, "": 2}[step.phase]


def _says(step: RotationStep) -> str:
    return f"generation {step.generation}" + (f" in the phase {step.phase!r}" if step.phase else "")


def _written(secret: str, step: RotationStep) -> str:
    """Return what to write into the stack file to be at a step."""
    field = to_camel(secret)
    written = f"{key_of('rotation')}.{field}: {step.generation}"
    return f"{written} and {key_of('rotating')}.{field}: {step.phase}" if step.phase else written
