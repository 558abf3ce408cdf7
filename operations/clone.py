"""Where the clone is, and its commands as a person types them. It imports nothing slow, like `operations/errors.py`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
YES_VARIABLE = "SAMOKODER_YES"
"""Environment variable that means --yes. `ci deploy` sets it, because the older version of a rollback has no --yes."""


def typed(environment: str, words: str) -> str:
    """Return a command of `make` as a person types it for an environment. words: `restore BACKUP=latest`."""
    return f"make {words}{'' if environment == 'staging' else f' ENV={environment}'}"
