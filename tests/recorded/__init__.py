"""What a real engine (20.10) and a real state said of one environment, cut to three parts; files' contents made up."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

ENVIRONMENT = "t40166a"


@cache
def _read() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(__file__).parent / "engine.json").read_text(encoding="utf-8"))
    return document


def recorded() -> dict[str, Any]:
    """Return `containers`, `images` by id, `networks`, `volumes` and `deployment`, to be changed at will."""
    return deepcopy(_read())


def container(of: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the container of a part in what `recorded` gave."""
    found: dict[str, Any] = next(c for c in of["containers"] if c["Name"] == f"/samokoder-{ENVIRONMENT}-{part}")
    return found
