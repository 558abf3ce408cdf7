"""Programs that are run, files that are written whole, and the lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from samokoder_backup import notes


class BackupError(Exception):
    """Something did not work; the message is for a person."""

    status = 1
    """Exit code, and what the metrics say of the run."""


class CannotError(BackupError):
    """What was asked for cannot be done, found out before anything was touched."""

    status = 2


class UnsureError(BackupError):
    """A check could not be made, for want of room or since it was killed: no verdict on what was to be checked."""


_AGAIN_SECONDS = 0.05
_LACKING = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EROFS}
_LACKED = re.compile(
    "No space left on device|Disk quota exceeded|Cannot allocate memory|[Oo]ut of memory|Too many open files"
    "|died with signal"
)
_LAST_LINES, _LINE_BYTES = 5, 2**16
_CHECKSUM = "checksum"


def lacking(error: BaseException) -> bool:
    """Tell whether something failed for want of room, memory or the like, and not for what it has read."""
    known = isinstance(error, (UnsureError, MemoryError))
    return known or (isinstance(error, OSError) and error.errno in _LACKING)


def say(text: str) -> None:
    """Tell a person; standard output is for what was asked for."""
    print(text, file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], *, what: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed; raises BackupError with its last lines.

    UnsureError, where the program cannot be started, was killed, or says that it lacks room.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        raise UnsureError(f"{what}: {error}") from error
    if done.returncode != 0:
        lines = [*done.stdout.strip().splitlines(), *done.stderr.strip().splitlines()]
        raise _failure(what, done.returncode, lines[-_LAST_LINES:])
    return done.stdout


def run_unread(command: Sequence[str | Path], *, what: str) -> None:
    """Run a program as `run` does, whose output is as long as somebody else likes and is not needed: none is kept."""
    last = deque[str](maxlen=_LAST_LINES)
    try:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as program:
            assert program.stderr is not None  # noqa: S101 - asked for above
            while line := program.stderr.readline(_LINE_BYTES):
                if text := line.decode(errors="replace").strip():
                    last.append(text)
    except OSError as error:
        raise UnsureError(f"{what}: {error}") from error
    if program.returncode != 0:
        raise _failure(what, program.returncode, list(last))


def _failure(what: str, status: int, last: Sequence[str]) -> BackupError:
    said = " | ".join(last)
    kind = UnsureError if status < 0 or _LACKED.search(said) else BackupError
    return kind(f"{what}: {said or f'ended with {status}'}")


def sha256(path: Path) -> str:
    """Return a file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file or a folder's names onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, and for good; for its owner alone. Threads may write the same one at once."""
    new = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def write_instead(path: Path, text: str, root: Path, why: object) -> None:
    """Write a file in the place of one that cannot be read, and is kept; raises OSError. root: the backups' folder.

    Killed at any moment it leaves the old one, or the new one, to be read.
    """
    new = notes.successor(path)
    write(new, text)
    try:
        kept = notes.put_by(path, root)
        say(f"{path.name} of {path.parent.name} cannot be read, and is kept as {kept.name}: {why}")
    except FileNotFoundError:
        pass  # nothing is left to be kept
    except OSError:
        new.unlink()
        raise
    new.replace(path)
    sync(path.parent)


def sealed(said: Mapping[str, Any]) -> str:
    """Return a JSON object as text, with a checksum of all that it says."""
    # An earlier version takes each entry of `state.json` for an object: it makes one of this list when it writes the
    # file, and so says that the checksum is not its own.
    return json.dumps({**said, _CHECKSUM: [["sha256", checksum(said)]]}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """Read what `sealed` has written; raises ValueError where it says something else now.

    What an earlier version wrote has no checksum, or that of another text as an object, and is taken as it is.
    """
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - what is read is wrong, not who calls
    known = said.pop(_CHECKSUM, None)
    if isinstance(known, list) and known != [["sha256", checksum(said)]]:
        raise ValueError("its checksum is another one than when it was written")
    return said


def checksum(said: Any) -> str:
    """Return the checksum of what is written as JSON."""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def keep(path: Path, text: str) -> None:
    """Write a file where it is not this already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write(path, text)


@contextlib.contextmanager
def exclusive(path: Path, *, brief: bool = False, seconds: float = inf) -> Iterator[None]:
    """Hold a lock; it goes with the process, however that ends. A volume that is read-only can be locked too.

    brief: it is held for a moment only, and nothing is said of a wait. seconds: a longer wait ends in a TimeoutError.
    A program that may read the backups can hold a lock of theirs, and so can an attacker in the part `drill`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError:
        if not path.exists():  # nobody has ever written there, and nobody can
            yield
            return
        descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not brief:
                say("waiting: another backup, verification or restore is running")
            _lock(descriptor, path, seconds)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, seconds: float) -> None:
    """Lock a file that somebody holds, once it is free."""
    if seconds == inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(f"somebody has held {path.name} for {seconds:g} s") from None
            time.sleep(_AGAIN_SECONDS)
        else:
            return
