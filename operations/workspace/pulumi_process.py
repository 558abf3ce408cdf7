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
    """Have this process asked to end, as by Ctrl-C, when the one that started it dies: it would change on, unlocked."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it died before this was asked for
            os._exit(1)


@contextlib.contextmanager
def sigint_not_ignored() -> Iterator[None]:
    """Let a process that is started see SIGINT where we were told to ignore it, as `nohup make up &` is by the shell.

    Pulumi asks its plugins to end by a SIGINT and kills them five seconds later: each command would take those longer.
    """
    ignored = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    )
    if ignored:
        signal.signal(signal.SIGINT, lambda *_: None)  # a handler is no longer one after exec; to ignore is inherited
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible(process: subprocess.Popen[str]) -> Iterator[None]:
    """Wait for the process whatever happens to us, and hand on what it does not see itself.

    A Ctrl-C at a terminal reaches Pulumi too, and a second one would cut it off in the middle of an operation; a
    SIGTERM reaches us alone.
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

    In short turns: a signal that comes just before a blocking call is seen only when that call returns.
    """
    stdin, process.stdin = process.stdin, None
    if stdin:
        # Beside that: `communicate` forgets in its second turn what did not fit into the pipe in the first.
        threading.Thread(target=_give, args=(stdin, given or ""), daemon=True).start()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_TURN_SECONDS)


def _give(stdin: IO[str], text: str) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:
        stdin.write(text)


def _wait(process: subprocess.Popen[str]) -> None:
    """Wait for the process, in short turns as above."""
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
