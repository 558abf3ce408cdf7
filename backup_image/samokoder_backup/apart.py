"""What opens the application's data, in a part of its own: the backup server asks, the part `drill` does and answers.

The data may be the work of an application that was taken over, and a PostgreSQL or a Redis opens it. So that part has
no network, no secret, and the backups read-only. Each side writes into a volume that the other one only reads: the
request lies beside the backups, the answer in the part's own volume. An attacker in the part can write any
answer, and so the backup server reads it as what it is: a stranger's text.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import stat
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, CannotError, say, write
from samokoder_backup.settings import Part

_ANSWER = "answer.json"
_LONGEST = 4 * 2**20
"""Bytes of an answer: tens of thousands of tables."""
_SILENCE_SECONDS = 120.0
"""A part that says nothing for so long is not there; it shows every second that it is at work."""
_LONGEST_SECONDS = 12 * 3600.0
"""Nothing is waited for longer: no backup is made meanwhile."""
_LOOK_SECONDS = 1.0
_COMMAND = b"serve-drill"
"""In the command line of the container's first process."""
_SET_DUMPABLE = 4  # prctl(2)

Task = Literal["drill", "load"]
"""What can be asked for: a drill, or to load a copy of Redis and count its keys."""
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Answer(Part):
    """What the part says of what it was asked for."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    status: Literal["running", "done", "failed", "cannot"]
    backup: str = Field("", pattern=r"^[A-Za-z0-9-]{0,64}$")
    rpo: Seconds = 0.0
    rto: Seconds = 0.0
    keys: int = Field(0, ge=0)
    rows: dict[Annotated[str, Field(max_length=200)], Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    error: str = Field("", max_length=4000)


def ask(task: Task, of: str = "") -> Answer:
    """Ask for something and wait for its end. of: the file name of the copy to load.

    Raises BackupError, CannotError where there is nothing to restore. The caller holds the lock of the backups.
    """
    request = secrets.token_hex(8)
    write(at.DRILL_REQUEST, json.dumps({"id": request, "task": task, "of": of}))
    try:
        answer = _wait(request)
    finally:
        at.DRILL_REQUEST.unlink(missing_ok=True)
    if answer.status != "done":
        kind = CannotError if answer.status == "cannot" else BackupError
        raise kind(_printable(answer.error) or "it does not say why")
    return answer.model_copy(update={"rows": {_printable(name): count for name, count in answer.rows.items()}})


def _wait(request: str) -> Answer:
    """Wait for the answer to a request. The clock may be set meanwhile: a stamp is only held against the one before."""
    began = heard = time.monotonic()
    before = None
    while True:
        found = _read()
        now = time.monotonic()
        if found and found[1].id == request:
            stamp, answer = found
            if answer.status != "running":
                return answer
            heard, before = (now if stamp != before else heard), stamp
        if now - heard > _SILENCE_SECONDS:
            raise BackupError("the part `drill` does not answer: it does not run, or see its log")
        if now - began > _LONGEST_SECONDS:
            raise BackupError(f"the part `drill` has not ended in {_LONGEST_SECONDS / 3600:.0f} hours")
        time.sleep(_LOOK_SECONDS)


def _read() -> tuple[int, Answer] | None:
    """Return the answer that lies there, with its file's stamp; None where there is none."""
    path = at.DRILL / _ANSWER
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackupError(f"the answer of the part `drill` cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BackupError("the answer of the part `drill` is no file")
        text = file.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise BackupError(f"the answer of the part `drill` is longer than {_LONGEST} bytes")
    try:
        return found.st_mtime_ns, Answer.model_validate_json(text)
    except ValidationError as error:
        wrong = ", ".join(sorted({str(each["loc"][0]) if each["loc"] else "all of it" for each in error.errors()}))
        raise BackupError(f"the answer of the part `drill` is none: {_printable(wrong)}") from None


def _printable(text: str) -> str:
    """Return a stranger's text without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)


Tasks = Mapping[Task, Callable[[str], Mapping[str, Any]]]
"""What does each of them; they get `of` and return fields of the answer."""


def serve(tasks: Tasks) -> int:
    """Do what is asked for, one after the other."""
    # Nobody with this user's rights may trace this process then, or write into its memory.
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    at.RUN.mkdir(mode=0o700, exist_ok=True)
    while True:  # until SIGTERM
        serve_one(tasks)


def serve_one(tasks: Tasks) -> None:
    """Wait for one request, do it, end what it has left running, and answer."""
    _end_others()
    _tidy()
    known = _known()
    while (asked := (request := _asked())["id"]) in {"", known.id if known else ""}:
        _alive()
        time.sleep(_LOOK_SECONDS)
    _answer(Answer(id=asked, status="running"))
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(asked, ended), daemon=True)
    watcher.start()
    say(f"{request['task']} {request['of']}".strip())
    try:
        answer = Answer(id=asked, status="done", **tasks[request["task"]](request["of"]))
    except Exception as error:  # whatever it is, somebody waits for an answer
        if not isinstance(error, (BackupError, OSError)):
            traceback.print_exc()
        say(f"{request['task']}: {error}")
        kind: Literal["cannot", "failed"] = "cannot" if isinstance(error, CannotError) else "failed"
        answer = Answer(id=asked, status=kind, error=str(error)[:4000])
    ended.set()
    watcher.join()
    _end_others()
    _answer(answer)


def _end_others() -> None:
    """End every other process of the container: a shell that came out of the data is not to outlive it."""
    # Only where this container is all that a process sees: elsewhere it would be the whole machine.
    if _COMMAND in Path("/proc/1/cmdline").read_bytes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def _tidy() -> None:
    """Remove whatever was left; what was opened may have had a shell here."""
    at.DRILL.chmod(0o700)
    for path in at.DRILL.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # where that does not work, the next drill says so
        elif path.name != _ANSWER or path.is_symlink() or not path.is_file():
            path.unlink()


def _known() -> Answer | None:
    """Return the last answer, ended where it was truncated; what is none goes, or it would be the next one's answer."""
    try:
        found = _read()
    except BackupError as error:
        say(str(error))
        (at.DRILL / _ANSWER).unlink()
        return None
    known = found[1] if found else None
    if known and known.status == "running":
        # Only a part that was killed has left that; memory that ran out is the usual reason.
        _answer(known.model_copy(update={"status": "failed", "error": "it was cut off; did its memory run out?"}))
    return known


def _asked() -> dict[str, Any]:
    """Return what is asked for; an empty `id` where nothing is."""
    try:
        return {"id": "", **json.loads(at.DRILL_REQUEST.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return {"id": ""}


def _answer(answer: Answer) -> None:
    write(at.DRILL / _ANSWER, answer.model_dump_json())


def _alive() -> None:
    """Show the health check that this continues."""
    (at.RUN / "alive").touch()


def _watch(asked: str, ended: threading.Event) -> None:
    """Show that it continues; where nobody waits for it any more, end the programs that do it."""
    while not ended.wait(_LOOK_SECONDS):
        try:
            _alive()
            waits = _asked()["id"] == asked
            if waits:
                os.utime(at.DRILL / _ANSWER)
        except OSError:
            # A shell that came out of the data has removed what shows it: nothing else would end that shell.
            waits = False
        if not waits:
            say("nobody waits for the answer any more")
            _end_others()
