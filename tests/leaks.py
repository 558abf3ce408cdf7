"""Looks in logs for what a user sent: as it was, and as a URL, JSON or the Basic scheme would write it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

#: What a user of any test may have sent, whoever did: an address of nobody, a token (JWT), a hash of a password.
KINDS = {
    "an e-mail address": re.compile(r"[\w.+-]+(?:@|%40)[\w.-]*(?:example\.(?:com|net|org)|\.invalid)\b"),
    "a token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a hash of a password": re.compile(r"\$argon2\w*\$"),
}


def forms(value: str) -> set[str]:
    """Return a value in the forms in which a log may have it."""
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    return {value, *quoted, json.dumps(value)[1:-1], base64.b64encode(value.encode()).decode().rstrip("=")}


def found(logged: str, used: Mapping[str, str]) -> list[str]:
    """Return what is in a log: the names of the values that are, and the kinds of what anybody may have sent.

    used: name -> value, of what was sent.
    """
    values = [name for name, value in used.items() if any(form in logged for form in forms(value))]
    return [*values, *(name for name, pattern in KINDS.items() if pattern.search(logged))]
