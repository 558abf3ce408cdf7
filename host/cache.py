"""Where the product keeps what it has fetched and built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return the product's cache folder, shared by all clones: $SAMOKODER_CACHE, else in the user's cache."""
    env = os.environ if environment is None else environment
    if own := env.get("SAMOKODER_CACHE"):
        return Path(own)
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "samokoder"
