"""Run a command of this machine, and say how long it takes."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from host.errors import EngineError

Say = Callable[[str], None]

PROGRESS_SECONDS = 2.0
"""Seconds between two reports of progress to a person who waits."""

ALIVE_SECONDS = 30.0
"""Seconds between two lines that say that a long step still runs."""
ERROR_TAIL_LINES = 15


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    waiting: Callable[[float, str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command and return what it printed (both streams).

    Every two seconds `waiting` is called with the seconds so far and the last line of output. Raises EngineError with
    the end of the output when the command fails or is not there.
    """
    lines: list[str] = []
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise EngineError(f"{what}: the program {command[0]} is not there.") from error

    def read() -> None:
        lines.extend(line.rstrip() for line in process.stdout or ())

    reader = threading.Thread(target=read, daemon=True)
    with process:
        reader.start()
        try:
            while True:
                try:
                    process.wait(timeout=PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    last = next((line for line in reversed(lines) if line.strip()), "")
                    waiting(time.monotonic() - started, last[:90])
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=PROGRESS_SECONDS)
            process.kill()  # some programs (unshare) ignore SIGTERM
            raise
        reader.join()
    if process.returncode != 0:
        tail = "\n".join(f"    {line}" for line in lines[-ERROR_TAIL_LINES:])
        raise EngineError(f"{what}: {Path(command[0]).name} ended with status {process.returncode}.\n{tail}")
    return "\n".join(lines)


def run_and_say(command: Sequence[str | Path], what: str, report: Say, env: Mapping[str, str] | None = None) -> None:
    """Run a command as `run` does; report `what` when it starts, and each half minute while it runs."""
    said = 0.0

    def waiting(seconds: float, _last: str) -> None:
        nonlocal said
        if seconds - said >= ALIVE_SECONDS:
            said = seconds
            report(f"{what} ({seconds:.0f} s)")

    report(f"{what} ...")
    run(command, what=what, waiting=waiting, env=env)
