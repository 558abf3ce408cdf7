"""What is in volumes of a compose stack.

Runs in a container that mounts them, so it needs Python's own library alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

_APPEND_ONLY_IS_OLD_SECONDS = 3600
"""An RDB file that is so much newer is from a time when nothing was appended any more."""


def look(volume: Path) -> dict[str, Any]:
    """Return what is in one volume: `kind` is `postgres`, `redis` or empty, and what there is to say of it.

    `changed`: a digest of all names, sizes and times in it; the same as before where nothing was written since.
    `newest`: the newest time in it, in nanoseconds since 1970, which an earlier version noted in its place.
    """
    found = _postgres(volume) or _redis(volume)
    size, newest, changed = 0, 0, hashlib.sha256()
    for path in sorted([volume, *volume.rglob("*")]):
        file = path.lstat()
        size, newest = size + file.st_blocks * 512, max(newest, file.st_mtime_ns)
        # The time of its inode too, which nobody can set: a clock that went back leaves the newest time as it was.
        file_is = (str(path.relative_to(volume)), file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        changed.update(repr(file_is).encode())
    free = shutil.disk_usage(volume).free
    noted = {"changed": changed.hexdigest(), "newest": newest}
    return {"kind": "", **found, "bytes": size, **noted, "free": free}


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
