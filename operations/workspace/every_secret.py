"""Every secret that a run of Pulumi knows, so that nothing shows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from operations.engine.redaction import in_every_form, without
from operations.errors import ProjectError

if TYPE_CHECKING:
    from operations.workspace.pulumi import PulumiRun

_SECRET_VARIABLES = (
    *("PULUMI_CONFIG_PASSPHRASE", "PULUMI_ACCESS_TOKEN", "SSH_PRIVATE_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN"),
)


def every_secret(run: PulumiRun) -> dict[str, str]:
    """Return name -> secret in each form that a text may have: generated, configured, and of the run's variables."""
    found = run.secrets(every=True)
    found |= {key: str(entry["value"]) for key, entry in run.configuration().items() if entry.get("secret")}
    return in_every_form(found | _of_variables(run.variables))


def without_secrets(run: PulumiRun, text: str) -> str:
    """Return a text of Pulumi or of a provider without secrets."""
    return without(known_secrets(run), text)


def known_secrets(run: PulumiRun) -> dict[str, str]:
    """Return what is to be replaced: where the state cannot be opened now, the secrets of Pulumi's variables alone."""
    try:
        return every_secret(run)
    except (OSError, ProjectError, ValueError):
        return in_every_form(_of_variables(run.variables))


def _of_variables(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables[name] for name in _SECRET_VARIABLES if variables.get(name)}
