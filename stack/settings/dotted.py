"""A setting that was written as one key with dots, `samokoder:api.replicas: 16`: the tables name it so.

It is not taken as it stands. Every program that reads or writes a stack file (`make deploy`, `make rotate`, Pulumi's
`config set --path`) has the nested form, and of two spellings in one file nobody could say which one counts.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from stack.common.mistakes import Mistake

_READ_AS_ANOTHER_TYPE = re.compile(r"true|false|[+-]?[0-9]+")
"""Texts that `pulumi config set --path` takes for a boolean or a whole number unless it is told."""


def mistake(key: str, value: Any) -> Mistake:
    """Say how a setting is written. key: `samokoder:api.replicas`. value: as the setting's type has it."""
    section, *names = key.split(".")
    given = json.dumps(value, ensure_ascii=False)
    nested = [f"{section}:", *(f"{'  ' * depth}{name}:" for depth, name in enumerate(names, 1))]
    nested[-1] += f" {given}"
    lines = [*nested, "and no line with dots; by commands:", f"pulumi config rm {key}"]
    if isinstance(value, str | int | float):
        lines.append(f"pulumi config set --path {_words(key, value)}")
    else:
        lines[-2:] = ["and no line with dots"]
    return Mistake(
        key,
        f"{given} under one name with dots in it",
        f"the nested form, beside what `{section}:` has in the stack file",
        "\n".join(lines),
    )


def _words(key: str, value: str | float) -> str:
    """Return the last words of `pulumi config set --path`, which write the value as its own type."""
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, float):
        kind = "--type float "
    else:
        kind = "--type string " if isinstance(value, str) and _READ_AS_ANOTHER_TYPE.fullmatch(value) else ""
    return f"{kind}{shlex.quote(key)} {'-- ' if text.startswith('-') else ''}{shlex.quote(text)}"
