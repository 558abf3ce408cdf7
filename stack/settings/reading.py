"""Read a stack's configuration and report all its mistakes at once.

So a person who sets up an environment corrects the file once, and not once for each mistake.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import ValidationError

from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.names import PROJECT, VARIABLE
from stack.common.secret_rules import CONFIGURED_SECRETS, SecretInput, check_secrets
from stack.settings import application_secrets, dotted
from stack.settings.environment import Environment
from stack.settings.explain import explain, field_at
from stack.settings.rules import rules
from stack.settings.tree import Settings

# Docker allows more in a name; this pattern also gives a valid DNS label, and leaves room for
# "samokoder-<environment>-postgres-exporter-files-<hash>" within 128 characters.
ENVIRONMENT_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")


def read_environment(
    stack: str, config: Mapping[str, str], secret_keys: frozenset[str] = frozenset(), *, incomplete: bool = False
) -> Environment:
    """Read one stack's configuration.

    stack: the stack's name. config: every configured key (`samokoder:api`) with its value as Pulumi hands
    it over, objects as JSON text. secret_keys: those keys that the stack file holds encrypted. incomplete: whether
    what an `up` needs may still be missing, such as a secret or an image of production.
    Raises InvalidSettingsError with every mistake at once; no mistake contains the value of a secret.
    """
    own = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items() if key.startswith(f"{PROJECT}:")}
    secrets = {
        name: SecretInput(own.pop(name), encrypted=f"{PROJECT}:{name}" in secret_keys)
        for name in CONFIGURED_SECRETS
        if name in own and (own[name] or own.pop(name))  # empty: the default in Pulumi.yaml, so not set
    }
    of_application = {
        name: SecretInput(own.pop(name), encrypted=f"{PROJECT}:{name}" in secret_keys)
        for name in list(own)
        if re.fullmatch(VARIABLE, name)
    }
    mistakes: list[Mistake] = []
    if not ENVIRONMENT_PATTERN.fullmatch(stack):
        mistakes.append(
            Mistake(
                "the stack's name",
                stack,
                "2 to 32 of a-z, 0-9 and -, a letter first",
                "pulumi stack init staging",
            )
        )
    for name in [name for name in own if f"{PROJECT}:{name}" in secret_keys and field_at(name.split("."))[1]]:
        del own[name]  # no message may show a value that somebody encrypted
        mistakes.append(
            Mistake(
                f"{PROJECT}:{name}",
                "an encrypted value (not shown)",
                "a plain value: what is in a setting is plain text in the state and on the engine; a secret has a key "
                "of its own",
                f"pulumi config rm {PROJECT}:{name}",
            )
        )
    for name in [name for name in own if "." in name]:
        model, field = field_at(name.split("."))
        if free := field is not None and get_origin(field.annotation) is dict:
            own[name] = "…"  # the value is hidden, because a variable of an image may be a secret
        if free or (model and field):
            mistakes.append(dotted.mistake(f"{PROJECT}:{name}", _json_value(name, own.pop(name))))
    document = {name: _json_value(name, text) for name, text in own.items()}
    settings, wrong = _validated(document)
    mistakes += wrong
    if not any(mistake.key.startswith(application_secrets.KEY) for mistake in mistakes):
        mistakes += application_secrets.rules(settings.application_secrets, of_application, incomplete=incomplete)
    secrets |= {name: given for name, given in of_application.items() if given.value}
    mistakes += check_secrets(
        secrets,
        fernet=settings.fernet,
        own_images=settings.own_images,
        database_ca=bool(settings.managed_database_ca),
        redis_ca=bool(settings.managed_redis_ca),
    )
    environment = Environment.model_construct(name=stack, settings=settings, configured_secrets=frozenset(secrets))
    broken = {mistake.key for mistake in mistakes}
    # A rule about a key that is already wrong is left out: it would judge the default that replaced the wrong value.
    mistakes += [
        rule
        for rule in rules(environment, incomplete=incomplete)
        if not any(rule.key == key or rule.key.startswith(f"{key}.") for key in broken)
    ]
    if mistakes:
        raise InvalidSettingsError(stack, mistakes)
    return environment


def _json_value(name: str, text: str) -> Any:
    """Parse a value from Pulumi, which is JSON; the value of a field of type str stays a plain text."""
    field = field_at(name.split("."))[1]
    if field is None or field.annotation is str:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _validated(document: dict[str, Any]) -> tuple[Settings, list[Mistake]]:
    """Validate the document and return the settings and all mistakes; a wrong key gets its default.

    The defaults make it possible to check the rules that need more than one key as well.
    """
    mistakes: list[Mistake] = []
    while True:
        try:
            return Settings.model_validate_json(json.dumps(document)), mistakes
        except ValidationError as error:
            details = error.errors(include_url=False)
            mistakes += [explain(detail) for detail in details]
            # All places are computed before the first is dropped: for two wrong items of one list both are the list
            # itself, whereas after a drop the second place would be the list's parent.
            for place in {_place(document, detail["loc"]) for detail in details}:
                _drop(document, place)


def _place(document: dict[str, Any], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the longest start of `location` that is the key of a mapping in `document`."""
    node: Any = document
    for depth, step in enumerate(location):
        if not isinstance(node, dict) or step not in node:
            return location[:depth]
        node = node[step]
    return location


def _drop(document: dict[str, Any], place: tuple[int | str, ...]) -> None:
    """Remove the value at `place` if it is still there."""
    node: Any = document
    for step in place[:-1]:
        node = node.get(step, {})
    node.pop(place[-1], None)
