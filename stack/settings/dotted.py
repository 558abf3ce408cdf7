"""The mistake of writing a setting as one key with dots, `samokoder:api.replicas: 16`, as the tables print its name.

Such a key is refused. Every program that reads or writes a stack file (`make deploy`, `make rotate`, Pulumi's
`config set --path`) uses the nested form, and if a file had both forms, it would be unclear which one counts.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from stack.common.mistakes import Mistake

_READ_AS_ANOTHER_TYPE = re.compile(r"true|false|[+-]?[0-9]+")
"""Texts that `pulumi config set --path` stores as a boolean or an integer unless `--type string` is given."""


def mistake(key: str, value: Any) -> Mistake:
    """Return the mistake, which shows the nested form. key: `samokoder:api.replicas`. value: of the setting's type."""
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
    """Return the arguments of `pulumi config set --path` that store the value with its own type."""
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, float):
        kind = "--type float "
    else:
        kind = "--type string " if isinstance(value, str) and _READ_AS_ANOTHER_TYPE.fullmatch(value) else ""
    return f"{kind}{shlex.quote(key)} {'-- ' if text.startswith('-') else ''}{shlex.quote(text)}"
