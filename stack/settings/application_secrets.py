"""Rules about `samokoder:applicationSecrets`: names of secrets that only the team's own images know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from stack.common.mistakes import Mistake
from stack.common.names import PROJECT
from stack.common.secret_rules import CONFIGURED_SECRETS, SecretInput, application_secret
from stack.settings.app import GIVEN_SECRETS, LLM_KEYS
from stack.settings.keys import key_of

KEY = key_of("application_secrets")
# Setting of the contract -> key of the secret that a person configures for it.
_KEYS = {"SECRET_KEY": "secretKey", "APP_SECRET_KEY": "appSecretKey"} | {name: key for key, name in LLM_KEYS.items()}
_PLAIN = {
    *("ENVIRONMENT", "HOME", "TRUSTED_PROXIES", "FORWARDED_ALLOW_IPS", "JOB_RETENTION_DAYS", "PGSSLROOTCERT"),
    *("REDIS_HOST", "REDIS_PORT", "REDIS_USERNAME", "REDIS_DB", "REDIS_TLS", "REDIS_CA_FILE"),
    # The path of its file would be REDIS_CA_FILE.
    "REDIS_CA",
}
_OF_EVERY_PROGRAM = {"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONHOME"}
GIVEN = frozenset(_PLAIN | _OF_EVERY_PROGRAM | GIVEN_SECRETS | {f"{name}_FILE" for name in GIVEN_SECRETS})
"""Names that no secret may have.

The platform gives them to the API or the worker in some environment, as it gives the paths of the secrets' files; or
whatever runs in their containers reads them.
"""


def rules(listed: Sequence[str], given: Mapping[str, SecretInput], *, incomplete: bool = False) -> Iterator[Mistake]:
    """Yield each name that cannot be listed or has no value, and each value without a listed name.

    given: the values by name, empty ones too; `check_secrets` judges the others. incomplete: whether a listed name may
    have no value yet.
    """
    taken = GIVEN | paths(listed)
    own = [name for name in listed if name not in taken]
    for name in listed:
        own_key = _KEYS.get(name)
        if name in taken:
            needs = f"names that only the image reads; {name} is one that {_whose(name)}"
            if own_key:
                needs += f", and its value, where you have one, is {PROJECT}:{own_key}"
            yield Mistake(KEY, name, needs, f"{KEY}: [{', '.join(own)}]" if own else f"pulumi config rm {KEY}")
        elif name not in given and not incomplete:
            how = application_secret(name).how_to_set
            yield Mistake(f"{PROJECT}:{name}", "nothing", f"the value of a secret that {KEY} lists", how)
    all_own = [*own, *(name for name in given if name not in {*listed, *taken})]
    for name, value in given.items():
        key = f"{PROJECT}:{name}"
        if name in listed:
            if not value.value:
                needs = f"the value of a secret that {KEY} lists"
                yield Mistake(key, "an empty value", needs, application_secret(name).how_to_set)
        elif name in taken:
            needs = f"nothing: {name} is a name that {_whose(name)}"
            example = f"pulumi config rm {key}"
            if own_key := _KEYS.get(name):
                needs += f"; its value, where you have one, is {PROJECT}:{own_key}"
                example += f"\n{CONFIGURED_SECRETS[own_key].how_to_set}"
            yield Mistake(key, "a value (not shown) that nobody gets", needs, example)
        else:
            yield Mistake(
                key,
                "a value (not shown) that nobody gets",
                f"its name in {KEY}: API and worker get what is listed there",
                f"{KEY}: [{', '.join(all_own)}]",
            )


def paths(listed: Sequence[str]) -> frozenset[str]:
    """Return the variables that say where the files of listed secrets are."""
    return frozenset(f"{name}_FILE" for name in listed)


def _whose(name: str) -> str:
    of_all = name in _OF_EVERY_PROGRAM
    return "decides how each program in the container starts" if of_all else "the platform gives by itself"
