"""Disk space for Pulumi's state in a folder: check for a full disk before an update, and thin what updates have left.

With each update Pulumi writes the whole state three times: beside its history, as a backup, and in place.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from operations.errors import ProjectError
from operations.workspace.backend import Backend
from stack.common.names import PROJECT

KEPT = 20
"""Number of updates whose history in Pulumi (`stack history`, `stack export --version`) and backup stay."""
_LEAST_BYTES = 32 * 2**20
_TIMES = 8
"""Free space that an update needs, in sizes of the state: it writes the state several times, and makes it larger."""
_MIB = 2**20
_LEAST_FILES = 64
"""Free inodes that an update needs: for history, backup, lock, and a new file beside each one that is replaced."""


def refuse_full(backend: Backend, stack: str) -> None:
    """Raise ProjectError where the disk of the state's folder has no room for an update."""
    folder = backend.folder
    if folder is None:
        return
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    state = folder / ".pulumi" / "stacks" / PROJECT / f"{stack}.json"
    needed = _LEAST_BYTES + (_TIMES * state.stat().st_size if state.is_file() else 0)
    # `free` is what this user may write; a part of the disk may be reserved for root.
    if (free := shutil.disk_usage(there).free) < needed:
        raise ProjectError(
            f"No space for the state: {there} has {free // _MIB} MiB free, and an update may write "
            f"{-(-needed // _MIB)} MiB. Nothing was changed. What is large there: du -xh {there} | sort -h | tail"
        )
    # A filesystem that makes inodes as it needs them says that it has none in all.
    inodes = os.statvfs(there)
    if inodes.f_files and inodes.f_favail < _LEAST_FILES:
        raise ProjectError(
            f"No space for the state: the disk of {there} has room for {inodes.f_favail} more files (inodes), and an "
            f"update may write {_LEAST_FILES}. Nothing was changed. Where many are: du -x --inodes {there} | sort -n | "
            "tail"
        )


def thin(backend: Backend, stack: str) -> int:
    """Remove history and backups older than the newest updates of a stack, and compress backups; return freed bytes.

    The state itself is not touched. The caller makes sure that no other process uses the stack. After an interruption
    the next call continues: a backup is removed only when its compressed copy is on the disk.
    """
    if backend.folder is None:
        return 0
    gained = 0
    for kind, between in (("history", "-"), ("backups", r"\.")):
        folder = backend.folder / ".pulumi" / kind / PROJECT / stack
        by_update: dict[int, list[Path]] = {}
        for update, file in _files(folder, re.compile(rf"{re.escape(stack)}{between}([0-9]+)\.[a-z.]+")):
            by_update.setdefault(update, []).append(file)
        # Updates from the future come from a clock that was once ahead, and would count as the newest for years.
        to_come = [update for update in by_update if update > time.time_ns()]
        for update in sorted(set(by_update) - set(to_come))[:-KEPT]:
            gained += sum(map(_remove, by_update[update]))
    for _, file in _files(folder, re.compile(rf"{re.escape(stack)}\.([0-9]+)\.json")):
        gained += _compress(file)
    return gained


def _files(folder: Path, name: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    """Yield the files of a folder that have such a name, each with the number of its update; no link is followed."""
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        if (found := name.fullmatch(file.name)) and file.is_file() and not file.is_symlink():
            yield int(found[1]), file


def _remove(file: Path) -> int:
    size = file.stat().st_size
    file.unlink(missing_ok=True)
    return size


def _compress(file: Path) -> int:
    """Replace a backup by a compressed copy; return the freed bytes."""
    packed, begun = file.with_name(f"{file.name}.gz"), file.with_name(f"{file.name}.begun")
    with begun.open("wb") as made:
        os.fchmod(made.fileno(), file.stat().st_mode & 0o777)
        made.write(gzip.compress(file.read_bytes()))
        made.flush()
        os.fsync(made.fileno())
    begun.replace(packed)
    handle = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    gained = _remove(file) - packed.stat().st_size
    attributes = file.with_name(f"{file.name}.attrs")
    return gained + (_remove(attributes) if attributes.is_file() else 0)
