"""Keep secrets out of what is shown."""

from __future__ import annotations

from collections.abc import Mapping


def without(secrets: Mapping[str, str], text: str) -> str:
    """Return `text` with each secret's name in place of its value."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        if value:
            text = text.replace(value, f"<{name}>")
    return text
