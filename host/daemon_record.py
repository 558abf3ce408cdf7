"""The file that says which dockerd this product has started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from host.cache import cache_directory


def state_directory(cache: Path | None) -> Path:
    """Return the folder of the record; make it where it is missing. cache: the product's cache; None: the usual one."""
    directory = (cache or cache_directory()) / "engine"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def record_file(cache: Path | None) -> Path:
    """Return the path of the record of the engine at the usual address."""
    return state_directory(cache) / "system.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """Return a record: `pid`, its `start_time` and `docker_host`; None where there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"pid", "start_time", "docker_host"} <= record.keys() else None
