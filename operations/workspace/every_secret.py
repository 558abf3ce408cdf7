"""Every secret that a run of Pulumi knows, so that nothing shows one."""

from __future__ import annotations

from operations.engine.redaction import in_every_form
from operations.workspace.pulumi import PulumiRun

_SECRET_VARIABLES = (
    *("PULUMI_CONFIG_PASSPHRASE", "PULUMI_ACCESS_TOKEN", "SSH_PRIVATE_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN"),
)


def every_secret(run: PulumiRun) -> dict[str, str]:
    """Return name -> secret in each form that a text may have: generated, configured, and of the run's variables."""
    found = run.secrets(every=True)
    found |= {key: str(entry["value"]) for key, entry in run.configuration().items() if entry.get("secret")}
    found |= {name: run.variables[name] for name in _SECRET_VARIABLES if run.variables.get(name)}
    return in_every_form(found)
