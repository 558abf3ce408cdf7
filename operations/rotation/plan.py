"""Which secrets are rotated, the generation and phase of each, and the remaining steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic.alias_generators import to_camel

from operations.clone import typed
from operations.errors import ProjectError
from operations.workspace import kept_secrets, pulumi_state, stack_file
from operations.workspace.generations import ADMIN, RotationStep, is_before, refuse_undoing, step_of, steps_in
from operations.workspace.known import Known
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.settings.rotation import Phase
from stack.spec.files import SALT
from stack.spec.rotation import SLOTTED, label
from stack.spec.secrets import GENERATED, LOGS_WEB, OPENS_WHAT_IS_KEPT, WEB_PASSWORDS, secret_names

NEVER: Mapping[str, str] = {
    "app_secret_key": "the application's stored data is encrypted under it, and a new one could read none of it",
    "postgres_superuser": "only the keeper of the roles has it, and the database's volume since it was made",
    "redis_keeper": "only the keeper of Redis' users has it",
    "workspace_backup": "only the workspace and the backup server have it",
    "backup_encryption_key": "the off-site copies are encrypted under it, and a new one could read none of them",
    "grafana_secret_key": "Grafana's stored data is encrypted under it",
    SALT: "it opens nothing: it makes the names of volumes",
}
"""Generated secrets that are not rotated, and why."""
_OF_BACKUPS = frozenset({"postgres_backup", "redis_backup", "backup_encryption_key"})
_SIGNS = "secret_key"


@dataclass(frozen=True, kw_only=True)
class RotationRow:
    """One generated secret: its generation and phase, and how it is rotated or why it is not."""

    secret: str
    generation: int
    phase: Phase
    how: str
    rotates: bool


def rows(environment: Environment) -> list[RotationRow]:
    """Return every generated secret of an environment."""
    found = []
    for secret in secret_names(environment):
        if secret not in GENERATED or secret == SALT:
            continue
        found.append(_row(secret, step_of(environment, secret), refusal(environment, secret)))
    return found


def listed(there: Known) -> list[RotationRow]:
    """Return every generated secret; where the stack file has mistakes, those in the state.

    Raises ProjectError where the state has no secrets either.
    """
    if there.environment:
        return rows(there.environment)
    deployment = there.deployment()
    steps_there = ((secret, steps_in(deployment, secret)) for secret in sorted(GENERATED) if secret != SALT)
    found = [_row(secret, at[0], NEVER.get(secret, "")) for secret, at in steps_there if at]
    if not found:
        raise ProjectError(f"{there.name} is not up, and has no secrets yet: {there.workspace.typed('up')}")
    return found


def _row(secret: str, at: RotationStep, why_not: str) -> RotationRow:
    """Return one row. why_not: why it is not rotated; empty where it is."""
    phased = "no request is lost" if secret in SLOTTED else "one step: whoever asks with it may fail for seconds"
    how = f"never: {why_not}" if why_not else phased
    return RotationRow(secret=label(secret), generation=at.generation, phase=at.phase, how=how, rotates=not why_not)


def refusal(environment: Environment, secret: str) -> str:
    """Say why a generated secret cannot be rotated in this environment; empty where it can be."""
    configured = GENERATED[secret].configured
    if configured in environment.configured_secrets:
        if secret not in OPENS_WHAT_IS_KEPT:
            up = f"{kept_secrets.VARIABLE}={label(secret)} {typed(environment.name, 'up')}"
            return f"it is configured ({key_of(configured)}): set another value, then {up}"
        return f"it is configured ({key_of(configured)}): whoever issued it makes a new one"
    if secret not in secret_names(environment) and secret != "workspace_backup":  # noqa: S105 - a name
        return _absence(environment, secret)
    return NEVER.get(secret, "")


def _absence(environment: Environment, secret: str) -> str:
    """Say why this environment does not have a generated secret."""
    if secret == LOGS_WEB and "logs" in environment.absent:
        return f"the logs are not collected here ({key_of('logs', 'enabled')})"
    if secret in WEB_PASSWORDS:
        return f"no password is asked for here ({key_of('basic_auth')})"
    if (secret in _OF_BACKUPS and not environment.settings.backup.enabled) or secret == "backup_encryption_key":  # noqa: S105 - a name
        return f"there are no such backups here ({key_of('backup')})"
    return "the server is a managed one, and its passwords are not ours"


def steps(secret: str, generation: int, phase: Phase) -> list[RotationStep]:
    """Return the remaining steps of the rotation that is under way, or else all steps of a new one."""
    if secret not in SLOTTED:
        return [RotationStep(generation=generation + 1, phase="")]
    order: tuple[Phase, ...] = ("prepare", "overlap", "")
    # The phase that is written was completed; the one after it may have begun.
    left = order[order.index(phase) + 1 :] if phase else order
    target = generation if phase else generation + 1
    # Grafana's password has no overlap: its API changes the password after "prepare", and no other part uses it.
    return [RotationStep(generation=target, phase=each) for each in left if not (secret == ADMIN and each == "overlap")]


def left(secret: str, written: RotationStep, there: Sequence[RotationStep]) -> list[RotationStep]:
    """Return what is left to do from the step that the stack file says is complete.

    there: the step in the state, or which ones it can be; empty where that is not known. Somebody's `up` with an older
    file may have gone back in the rotation that is under way: then the steps that are undone are done again.
    """
    ahead = steps(secret, written.generation, written.phase)
    if written.phase and there and all(is_before(step, written) for step in there):
        again = steps(secret, there[0].generation, there[0].phase)
        if again[-1] == ahead[-1]:
            return again
    return ahead


def going_on(secret: str, written: RotationStep, to_do: Sequence[RotationStep]) -> str:
    """Say with what a rotation begins. written: the step that the stack file has. to_do: as `left` returns it."""
    if to_do != steps(secret, written.generation, written.phase):
        return f"somebody's `up` has undone steps of this rotation; going on at {to_do[0].phase!r}"
    return f"going on after {written.phase!r}" if written.phase else f"generation {written.generation + 1}"


def planned(workspace: Workspace, name: str) -> tuple[str, RotationStep, list[RotationStep]]:
    """Return a secret, its step in the stack file, and the steps that `rotate` would do. Nothing is written.

    Raises ProjectError as `rotate` does.
    """
    environment = workspace.settings()
    secret = known_secret(environment, name)
    deployment = workspace.deployment()
    if label(secret) not in pulumi_state.generations(deployment):
        raise no_secrets(workspace)
    written = step_of(environment, secret)
    to_do = left(secret, written, steps_in(deployment, secret))
    refuse_undoing(at(workspace, secret, to_do[0]).settings(), deployment, file=workspace.committed_file.name)
    return secret, written, to_do


def no_secrets(workspace: Workspace) -> ProjectError:
    """Return the error for a rotation in an environment that was never up."""
    return ProjectError(f"{workspace.name} has no secrets yet: bring it up first.")


def at(workspace: Workspace, secret: str, step: RotationStep) -> Workspace:
    """Return the same workspace with the settings of a step that is not in its stack file yet."""
    field = to_camel(secret)
    wanted: dict[str, Any] = {key_of("rotation"): {field: step.generation}}
    if secret in SLOTTED:
        wanted[key_of("rotating")] = {field: step.phase}
    return replace(workspace, extra_config=stack_file.fill(wanted, workspace.extra_config))


def waits(secret: str, step: RotationStep) -> bool:
    """Tell whether a step comes only when the tokens that the old key signed have expired."""
    return secret == _SIGNS and not step.phase


def known_secret(environment: Environment, name: str) -> str:
    """Return the secret of this name. Raises ProjectError for one that is not rotated or does not exist."""
    secret = name.lower().replace("-", "_")
    if secret not in GENERATED:
        can = ", ".join(row.secret for row in rows(environment) if row.rotates)
        raise ProjectError(f"There is no generated secret {name!r}. These can be rotated: {can}.")
    if why_not := refusal(environment, secret):
        raise ProjectError(f"{label(secret)} is not rotated: {why_not}.")
    return secret


def says(secret: str, step: RotationStep) -> str:
    """Say what a step of a rotation does."""
    if secret not in SLOTTED:
        return f"generation {step.generation} takes the place of the one before"
    return {
        "prepare": f"prepare: generation {step.generation} is accepted beside the one in use",
        "overlap": f"overlap: generation {step.generation} is used, the one before is still accepted",
        "": f"generation {step.generation} alone is accepted",
    }[step.phase]
