"""Keep secrets out of what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

_SHORTEST_SECRET = 6
"""Characters. A shorter secret, as the application may have, stays as it is: its text occurs in ordinary words too."""


def without(secrets: Mapping[str, str], text: str) -> str:
    """Return `text` with each secret's name in place of its value."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if value:
            text = text.replace(value, f"<{name}>")
    return text


def in_every_form(secrets: Mapping[str, str]) -> dict[str, str]:
    """Add the other forms in which a secret may be printed: escaped, each line of a text, the password in a URL."""
    found = dict(secrets)
    for name, value in secrets.items():
        # Pulumi prints a text in quotes, with the escapes of JSON.
        found[f"{name}: escaped"] = json.dumps(value)[1:-1]
        found |= {f"{name}: line {number}": line.strip() for number, line in enumerate(value.splitlines())}
    for name, value in secrets.items():
        try:
            password = urlsplit(value).password
        except ValueError:
            continue
        if password:
            found[f"{name}: password"] = password
    return {name: value for name, value in found.items() if len(value) >= _SHORTEST_SECRET}
