"""The configured secrets and Grafana's password."""

from __future__ import annotations

import contextlib

import httpx

from operations.checks.doctor.asked import EnvironmentAsked
from operations.checks.doctor.outside import _OK, _UNAUTHORIZED
from operations.engine import reach
from operations.errors import FailedError, ProjectError, UnavailableError
from operations.workspace.known import live_status
from stack.common.secret_rules import SecretInput, check_secrets
from stack.parts.grafana import spec as grafana
from stack.settings import application_secrets
from stack.settings.keys import key_of
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED, secret_names


def judge_secrets(asked: EnvironmentAsked) -> str:
    """Judge the values of the secrets: the settings say only which are configured."""
    generated = [name for name in secret_names(asked.environment) if name in GENERATED]
    told = f"{len(generated)} are generated, of {min(GENERATED[name].length for name in generated)} characters or more"
    if not asked.environment.configured_secrets:
        return f"{told}; none is configured"
    settings = asked.environment.settings
    secrets, listed = asked.secrets(), settings.application_secrets
    # Only decrypted does an empty value show: in the stack file it looks like every other one.
    empty = {name: SecretInput("", encrypted=True) for name in listed if name not in secrets}
    wrong = [
        *application_secrets.rules(list(empty), empty),
        *check_secrets(
            secrets,
            fernet=settings.fernet,
            own_images=settings.own_images,
            database_ca=bool(asked.environment.database_ca),
            redis_ca=bool(asked.environment.redis_ca),
        ),
    ]
    if wrong:
        raise FailedError("\n".join(map(str, wrong)))
    # Whoever issued a secret of the application chose its strength.
    of_application = asked.environment.configured_secrets & set(listed)
    strong = asked.environment.configured_secrets - of_application
    told += f"; strong: {', '.join(sorted(strong))}" if strong else ""
    return told + (f"; of the application: {', '.join(sorted(of_application))}" if of_application else "")


def judge_grafana_password(asked: EnvironmentAsked) -> str:
    """Log in to Grafana with the generated password, and with the default one where that may be in use."""
    settings = asked.environment.settings.grafana
    if "grafana" in asked.environment.absent:
        raise UnavailableError(f"there is no Grafana on this host ({key_of('unavailable')})")
    rows = {row.part: row for row in live_status(asked.workspace)} if _has_engine(asked) else {}
    if (row := rows.get(grafana.PART)) is None or not row.ok:
        up = asked.workspace.typed("up")
        if settings.adopt_volume:
            raise UnavailableError(f"an adopted volume keeps the password that it has: ask again after `{up}`")
        return f"generated at the first `{up}`, {GENERATED['grafana_admin'].length} characters"
    generated = ""
    with contextlib.suppress(ProjectError):  # other checks report a state that cannot be read
        generated = asked.workspace.open_made().secrets().get(label("grafana_admin"), "")
    shown = asked.workspace.typed("password NAME=grafana-admin")
    with reach.opened(asked.environment) as url, httpx.Client(timeout=asked.seconds / 2, trust_env=False) as client:
        # Grafana locks admin out for five minutes after five failed logins, so the default password is tried only where
        # it may be valid: the generated one is not known, or the volume was adopted.
        default = ("admin",) if settings.adopt_volume or not generated else ()
        for password in filter(None, (generated, *default)):
            answer = client.get(f"{url(settings)}/api/user", auth=("admin", password))
            if answer.status_code not in (_OK, _UNAUTHORIZED):
                raise FailedError(f"Grafana does not say whether it lets admin in: it answers {answer.status_code}")
            if answer.status_code == _OK:
                break
        else:
            # During the lock-out Grafana refuses valid passwords too, so a refusal is no proof of a wrong one.
            tried = [*([f"what `{shown}` shows"] if generated else []), *default]
            text = f"admin is refused with {' and with '.join(tried)}"
            raise UnavailableError(f"{text}: its password was changed by hand, or it is locked for five minutes")
    if password != generated:
        raise FailedError(
            "it lets admin in with the password admin; in its container: grafana cli admin reset-admin-password "
            f"--password-from-stdin, with what `{shown}` shows"
        )
    return "the generated one is in use"


def _has_engine(asked: EnvironmentAsked) -> bool:
    with contextlib.suppress(UnavailableError):
        return bool(asked.engine())
    return False
