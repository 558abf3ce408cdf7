"""How the process of Pulumi is started, followed and interrupted, so that it notes what it has begun."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO

_TURN_SECONDS = 0.5


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def ends_with(parent: int) -> None:
    """Let the kernel send this process a SIGINT when its parent dies: else it would make changes without our lock."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)


@contextlib.contextmanager
def sigint_not_ignored() -> Iterator[None]:
    """Let a started process receive SIGINT even where this process ignores it, as in `nohup make up &`.

    Pulumi ends its plugins with a SIGINT and kills them five seconds later, so each command would take five seconds
    longer.
    """
    ignored = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    )
    if ignored:
        signal.signal(signal.SIGINT, lambda *_: None)  # exec resets a handler, and keeps an ignored signal
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for the process whatever happens to this one, and pass a SIGTERM on to it, as a SIGINT.

    A SIGTERM reaches only this process. A Ctrl-C at a terminal reaches Pulumi too, so it is not passed on: a second
    SIGINT would interrupt Pulumi in the middle of an operation.
    """
    terminated = False

    def hand_on(_signal: int, _frame: object) -> None:
        nonlocal terminated
        terminated = True
        process.send_signal(signal.SIGINT)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, hand_on) if in_main_thread else None
    try:
        yield
    finally:
        _wait(process)
        if process.stdout:
            process.stdout.close()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    if terminated:
        raise SystemExit(128 + signal.SIGTERM)


def communicate(process: subprocess.Popen[str], given: str | None = None) -> tuple[str, str]:
    """Give the process its standard input, wait for it, and return what it printed where that is captured.

    It waits in short turns, because a signal that comes just before a blocking call is handled only after that call.
    """
    stdin, process.stdin = process.stdin, None
    if stdin:
        # A thread writes it, because a second call of `communicate` drops what did not fit into the pipe in the first.
        threading.Thread(target=_give, args=(stdin, given or ""), daemon=True).start()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_TURN_SECONDS)


def _give(stdin: IO[str], text: str) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(text)


def _wait(process: subprocess.Popen[str]) -> None:
    """Wait for the process, in short turns as `communicate` does."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_TURN_SECONDS)
            return


def follow(process: subprocess.Popen[str], show: Callable[[str], None]) -> tuple[str, str]:
    """Wait for the process and show its lines as they come; return them all."""
    lines: list[str] = []

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            show(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    _wait(process)
    reader.join()
    return "".join(lines), ""
