"""What is in volumes of a compose stack.

Runs in a container that mounts them, so it needs Python's own library alone.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

_APPEND_ONLY_IS_OLD_SECONDS = 3600
"""An RDB file that is so much newer is from a time when nothing was appended any more."""


def look(volume: Path) -> dict[str, Any]:
    """Return what is in one volume: `kind` is `postgres`, `redis` or empty, and what there is to say of it.

    `changed`: when something in it was last written, in nanoseconds since 1970.
    """
    found = _postgres(volume) or _redis(volume)
    files = [path.lstat() for path in [volume, *volume.rglob("*")]]
    size, changed = sum(each.st_blocks * 512 for each in files), max((each.st_mtime_ns for each in files), default=0)
    return {"kind": "", **found, "bytes": size, "changed": changed, "free": shutil.disk_usage(volume).free}


def _postgres(volume: Path) -> dict[str, Any]:
    # PGDATA is the volume, or a folder in it: some file systems have a `lost+found` at the top.
    clusters = sorted(path.parent for path in [*volume.glob("PG_VERSION"), *volume.glob("*/PG_VERSION")])
    if not clusters:
        return {}
    cluster = clusters[0]
    links = [cluster / "pg_wal", *(cluster / "pg_tblspc").glob("*")]
    return {
        "kind": "postgres",
        "folder": cluster.relative_to(volume).as_posix(),
        "others": [other.relative_to(volume).as_posix() for other in clusters[1:]],
        "version": (cluster / "PG_VERSION").read_text(encoding="utf-8").strip(),
        "elsewhere": [str(path.relative_to(cluster)) for path in links if path.is_symlink()],
        "standby": any((cluster / name).exists() for name in ("standby.signal", "recovery.signal")),
    }


def _redis(volume: Path) -> dict[str, Any]:
    snapshot, appended = volume / "dump.rdb", [volume / "appendonly.aof", *volume.glob("appendonlydir/*.aof")]
    snapshots = [path.stat().st_mtime for path in [snapshot] if path.is_file()]
    appends = [path.stat().st_mtime for path in appended if path.is_file()]
    if not snapshots and not appends:
        return {}
    # What has an append-only file has everything in it, unless it was given up long before the last snapshot.
    stale = bool(snapshots and appends) and max(snapshots) - max(appends) > _APPEND_ONLY_IS_OLD_SECONDS
    return {"kind": "redis", "folder": ".", "appendonly": bool(appends) and not stale}


if __name__ == "__main__":
    print(json.dumps({volume.name: look(volume) for volume in Path(sys.argv[1]).iterdir()}))
