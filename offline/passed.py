"""What a program that builds gets of the user's environment: by which way packages come, and no secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_BY_WHICH_WAY = frozenset(
    (
        *("HOME", "USER", "TMPDIR", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    )
)


def passed(given: Mapping[str, str], more: Collection[str]) -> dict[str, str]:
    """Return what of `given` leads to packages, and what `more` names. Names are in capital or small letters."""
    return {name: value for name, value in given.items() if name.upper() in _BY_WHICH_WAY or name.upper() in more}
