"""Files in which the program notes what it knows: a moment's error is no damage, and no write loses what is in them.

Alone of Python's own library, for PostgreSQL waits for each start of `wal.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

_PAUSES = (0.05, 0.15, 0.3)
"""Seconds before each further try."""


def text(path: Path, *, errors: str = "strict", wait: bool = True) -> str:
    """Return a file's text. Raises FileNotFoundError where it is not there, OSError where it cannot be read.

    It is not there only where its folder does not list it either. wait: else the one further try is made at once.
    """
    for pause in (*(_PAUSES if wait else (0.0,)), None):
        try:
            return path.read_text(encoding="utf-8", errors=errors)
        except FileNotFoundError:
            if not _listed(path):
                with contextlib.suppress(FileNotFoundError):
                    return successor(path).read_text(encoding="utf-8", errors=errors)
                if not _listed(path):  # what was to take its place may have taken it at this moment
                    raise
            if pause is None:
                raise OSError(errno.EIO, "its folder lists it, and it cannot be opened", str(path)) from None
        except OSError:
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError  # the last try returns or raises


def _listed(path: Path) -> bool:
    try:
        return path.name in os.listdir(path.parent)  # noqa: PTH208 - the names alone are asked for
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # nobody can say that it is not there


def successor(path: Path) -> Path:
    """Return the file that is going to take the place of one that cannot be read; it holds where that one is gone."""
    return path.with_name(f".{path.name}.next")


def put_by(path: Path, root: Path) -> Path:
    """Give what cannot be read a second name, or another one, before something new takes the first. Raises OSError.

    Its `successor` is written before, since nothing may be left here by the first name. Somebody may be able to read it
    later. root: the folder of all backups, of whose files no copy goes off-site.
    """
    # Named by the file itself: where nothing new can be written, as on a full disk, each try gives the same name.
    kept = root / f"unread-{path.parent.name}-{path.name}-{path.lstat().st_ino}"
    if kept.exists() and not kept.samefile(path):
        kept = kept.with_name(f"{kept.name}-{time.time_ns()}")
    try:
        os.link(path, kept, follow_symlinks=False)
    except FileExistsError:
        pass
    except PermissionError:  # another user's: Linux gives it no second name, and a volume may have none at all
        path.rename(kept)
    return kept
