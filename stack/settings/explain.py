"""Translate pydantic's errors into mistakes that name keys and values as they are in the stack file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_origin

from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from stack.common.mistakes import Mistake
from stack.common.names import PROJECT
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.settings.tree import Settings
from stack.settings.types import Model

_LISTING = ("applicationSecrets", "application_secrets")
"""Both names under which pydantic takes the list of the application's secrets."""


def explain(detail: ErrorDetails) -> Mistake:
    """Return the mistake for one pydantic error."""
    location = detail["loc"]
    key = f"{PROJECT}:" + ".".join(str(step) for step in location)
    given = "nothing" if detail["type"] == "missing" else json.dumps(detail["input"], ensure_ascii=False)
    if location[0] in _LISTING:
        given = "a value (not shown)"  # somebody may have written the secrets themselves there
    model, field = field_at(location)
    if location[-1] in ("managedDatabaseCa", "managedRedisCa"):  # the value may contain a private key
        return Mistake(key, "a value (not shown) that is no certificate", "certificates in PEM, and no key")
    if detail["type"] == "extra_forbidden":
        name = str(location[-1])
        if len(location) == 1 and (section := field_at(name.split("."))[0]) not in {None, Settings}:
            # A key with dots whose last name is misspelt: the message lists the keys of its section.
            model, name = section, name.rpartition(".")[2]
        known = sorted(to_camel(name) for name in model.model_fields) if model else []
        if model is Settings:
            known = sorted([*known, *CONFIGURED_SECRETS])
        return Mistake(key, "a key that does not exist", "one of " + ", ".join(known), _nearest(name, known))
    allowed = detail["msg"].removeprefix("Value error, ")
    example = ""
    if field is not None:
        allowed = f"{allowed}. {field.description}"
        if field.examples:
            # An item of a list is written with its whole list.
            setting = ".".join(step for step in location if isinstance(step, str))
            example = f"{PROJECT}:{setting}: {json.dumps(field.examples[0], ensure_ascii=False)}"
    return Mistake(key, given, allowed, example)


def written_as_text(key: str) -> Mistake | None:
    """Return the mistake for a key whose value is an object or a list, and stands as text in a stack file; else None.

    Pulumi would hand such a text over like the object; but what the program fills in beside the keys of a section, and
    what reads and writes one section of the file, needs the object itself.
    """
    name = key.removeprefix(f"{PROJECT}:")
    field = field_at([name])[1]
    kind = get_origin(field.annotation) or field.annotation if field and key != name else None
    if not isinstance(kind, type) or not issubclass(kind, (Model, dict, list)):
        return None
    what = "a list" if kind is list else "an object"
    needs = f"{what} without quotes around it, as `config set --path` writes it. {field.description}"
    return Mistake(
        key, "a value (not shown) that is text", needs, f"{key}: {json.dumps(field.examples[0], ensure_ascii=False)}"
    )


def field_at(location: Sequence[int | str]) -> tuple[type[Model] | None, Any]:
    """Return the model that holds the last step of `location`, and the field there."""
    model: type[Model] | None = Settings
    field = None
    for step in location:
        if model is None:
            break
        name = next((n for n in model.model_fields if step in (n, to_camel(n))), None)
        if name is None:
            return model, None
        field = model.model_fields[name]
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((c for c in candidates if isinstance(c, type) and issubclass(c, Model)), None)
        if step is location[-1]:
            return model, field
        model = inner
    return model, field


def _nearest(name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    match = get_close_matches(name, known, n=1)
    return f"did you mean {PROJECT}:…{match[0]}?" if match else ""
