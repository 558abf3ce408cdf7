"""Refuses to change which secret is in use: the one that was generated, or one that is configured.

With a stack file that lacks a configured key (another clone, an older commit, `git stash`) `up` would use the generated
one: what is stored cannot be read, and what is written meanwhile is lost once the file is right again. So it is with
another configured value, of which the state has a mark, and with the generated APP_SECRET_KEY in another form.

SECRET_KEY opens nothing that is stored, but an earlier value may have leaked, and would be good again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operations.errors import ProjectError
from operations.workspace import pulumi_state
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.secret_rules import fernet_key
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED, OPENS_WHAT_IS_KEPT, kept_forms, kept_origins, mark_of

VARIABLE = "OTHER_KEY"
"""Environment variable: the secrets, by label and separated by spaces, that a person means to change."""


def refuse_others(workspace: Workspace, run: PulumiRun, deployment: Mapping[str, Any]) -> None:
    """Raise ProjectError where `up` would use another value than the one in use.

    Not where OTHER_KEY names it, and not where both are equal. deployment: the stack's state, its secrets encrypted.
    """
    meant = workspace.variables.get(VARIABLE, "").split()
    environment = workspace.settings()
    others = [secret for secret in changed(environment, run, deployment) if label(secret) not in meant]
    if not others:
        return
    there = pulumi_state.kept_origins(deployment)
    lines = [
        f"{workspace.committed_file.name} changes which secret is in use, so nothing was changed:",
        *(
            line
            for secret in others
            for line in (
                _form_told(workspace, secret, deployment)
                if secret in _reformed(environment, deployment)
                else _told(workspace, secret, there[label(secret)])
            )
        ),
        # The state notes what an `up` has begun with, also where it ended before API and worker had it.
        "In use is the one of the last `up`, also of one that failed: API and worker may still have the one before.",
        f"To change over all the same: {up_with(workspace, [*meant, *map(label, others)])}",
    ]
    raise ProjectError("\n".join(lines))


def changed(environment: Environment, run: PulumiRun, deployment: Mapping[str, Any]) -> list[str]:
    """Return the secrets that would have another value after an `up` than now.

    run: is asked for values only where a secret would come from elsewhere, or is configured. deployment: as for
    `refuse_others`.
    """
    moved = _moved(environment, deployment)
    # Only a configured value can be compared: the state does not have the one that a stack file has lost.
    others = {
        secret
        for secret in moved
        if not (_is_configured(environment, secret) and _equal(environment, run, deployment, secret))
    }
    others |= _remarked(environment, run, deployment) | _reformed(environment, deployment)
    return [secret for secret in GENERATED if secret in others]


def up_with(workspace: Workspace, labels: list[str]) -> str:
    """Return the `up`, as a person types it, that changes these secrets."""
    named = " ".join(dict.fromkeys(labels))
    return f"{VARIABLE}={named if len(labels) == 1 else repr(named)} {workspace.typed('up')}"


def _moved(environment: Environment, deployment: Mapping[str, Any]) -> list[str]:
    """Return the secrets whose origin in the settings differs from the one in the state, which may not note it."""
    if not pulumi_state.data_volumes(dict(deployment)):
        return []  # nothing is stored yet
    there = pulumi_state.kept_origins(deployment)
    wanted = kept_origins(environment)
    return [
        secret
        for secret in GENERATED
        if (is_ := label(secret)) in wanted and there.get(is_, wanted[is_]) != wanted[is_]
    ]


def _remarked(environment: Environment, run: PulumiRun, deployment: Mapping[str, Any]) -> set[str]:
    """Return the secrets that were configured at the last `up` and are now, with another value."""
    there, wanted = pulumi_state.kept_origins(deployment), kept_origins(environment)
    noted = pulumi_state.kept_marks(deployment)  # none in a state of an earlier version
    both = [
        secret
        for secret in GENERATED
        if (is_ := label(secret)) in noted and there.get(is_) == wanted.get(is_) == "configured"
    ]
    if not both or not pulumi_state.data_volumes(dict(deployment)):
        return set()
    marks, configuration = pulumi_state.kept_marks(run.in_plain()), run.configuration()
    return {
        secret for secret in both if mark_of(secret, _configured(configuration, secret)) != marks.get(label(secret))
    }


def _reformed(environment: Environment, deployment: Mapping[str, Any]) -> set[str]:
    """Return the generated secrets that are used in one form and would be in another."""
    there, wanted = pulumi_state.kept_forms(deployment), kept_forms(environment)
    if not pulumi_state.data_volumes(dict(deployment)):
        return set()
    return {
        secret for secret in GENERATED if (is_ := label(secret)) in there and wanted.get(is_, there[is_]) != there[is_]
    }


def _configured(configuration: Mapping[str, Mapping[str, Any]], secret: str) -> str:
    return str(configuration.get(key_of(GENERATED[secret].configured), {}).get("value"))


def _is_configured(environment: Environment, secret: str) -> bool:
    return GENERATED[secret].configured in environment.configured_secrets


def _equal(environment: Environment, run: PulumiRun, deployment: Mapping[str, Any], secret: str) -> bool:
    """Tell whether the configured value is the generated one, which a person may have copied to keep it elsewhere."""
    configured = _configured(run.configuration(), secret)
    generated = run.secrets().get(label(secret), "")
    if secret != "app_secret_key":  # noqa: S105 - a name
        return configured == generated
    # A state of an earlier version does not say in which form it was used.
    form = pulumi_state.kept_forms(deployment).get(label(secret), environment.settings.app_secret_key_form)
    used = fernet_key(generated) if form == "fernet" else generated
    return (fernet_key(configured) if environment.settings.fernet else configured) == used


def _told(workspace: Workspace, secret: str, there: str) -> tuple[str, str, str]:
    key = key_of(GENERATED[secret].configured)
    was_configured = there == "configured"
    has = _is_configured(workspace.settings(), secret)
    file = f"has another one ({key})" if has else f"lacks it ({key})"
    keep = f"merge the commit that has {'that ' if has else ''}{key}, or " if was_configured else ""
    words = f"config set --secret {key}" if was_configured else f"config rm {key}"
    typed = workspace.typed(f"pulumi ARGS='{words}'")
    return (
        f"  {label(secret)}: the {there} one is in use, and the file {file}.",
        _WHAT_IS_STORED
        if secret in OPENS_WHAT_IS_KEPT
        else "    Everybody would be logged out, and an earlier one, which may have leaked, would be good again.",
        f"    To keep the one in use: {keep}{typed}",
    )


_WHAT_IS_STORED = (
    "    What was stored with the one in use could not be opened, and what is stored now not with it later."
)


def _form_told(workspace: Workspace, secret: str, deployment: Mapping[str, Any]) -> tuple[str, str, str]:
    key, form = key_of("app_secret_key_form"), pulumi_state.kept_forms(deployment)[label(secret)]
    typed = workspace.typed(f"pulumi ARGS='config set {key} {form}'")
    return (
        f"  {label(secret)}: the generated one is in use as {form}, and the file has another form of it ({key}).",
        _WHAT_IS_STORED,
        f"    To keep the one in use: merge the commit that has {key}, or {typed}",
    )
