"""Logs of several containers, shown as one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping


def show(logs: Mapping[str, Iterable[bytes]], write: Callable[[bytes], object]) -> None:
    """Write the lines of several logs as they come, each after its log's name, until all have ended."""
    width = max(map(len, logs))
    writing = threading.Lock()

    def read(name: str, chunks: Iterable[bytes]) -> None:
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            with writing:
                for line in lines:
                    write(f"{name:{width}} | ".encode() + line + b"\n")
        if rest:
            with writing:
                write(f"{name:{width}} | ".encode() + rest + b"\n")

    # A daemon: Ctrl-C ends the command, and a log that is followed has no end.
    readers = [threading.Thread(target=read, args=log, daemon=True) for log in logs.items()]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
