"""Where the clone is, and its commands as a person types them. It imports nothing slow, like `operations/errors.py`."""

from __future__ import annotations

import os
from pathlib import Path

from stack.common import names

ROOT = Path(__file__).resolve().parents[1]
YES_VARIABLE = "SAMOKODER_YES"
"""Environment variable that means --yes. `ci deploy` sets it, because the older version of a rollback has no --yes."""


def typed(environment: str, words: str) -> str:
    """Return a command of `make` as a person types it for an environment. words: `restore BACKUP=latest`."""
    return names.typed(environment, words) if _is_named(environment) else f"make {words}"


def _is_named(environment: str) -> bool:
    """Tell whether the command must name it: a shell that exports ENV=prod would take staging's command for prod's."""
    typed_to_make = "ENV=" in os.environ.get("MAKEFLAGS", "")
    return environment != "staging" or os.environ.get("ENV", environment) != environment or typed_to_make
