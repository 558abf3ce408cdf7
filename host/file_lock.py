"""One process at a time: a lock file that the kernel frees when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from host.process import Say

_LOCK_POLL_SECONDS = 0.2


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, report: Say) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another run that holds it and saying so.

    The kernel frees it when its holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        if not locked(handle):
            report(f"{what}: another run is at it, waiting for it")
            while not locked(handle):
                time.sleep(_LOCK_POLL_SECONDS)
        yield


def locked(handle: TextIO) -> bool:
    """Take the lock of an open file unless another process has it; return whether it was taken."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
