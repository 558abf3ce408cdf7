"""Run one of the Go programs of `offline/go`, built first where it is not in the cache: python -m offline NAME ARG…."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from host.cache import cache_directory
from offline.errors import OfflineError
from offline.toolchain import build


def main(words: Sequence[str]) -> None:
    """Become the program that the first word names. Ends with status 2 without one, with 1 when it cannot be built."""
    if not words:
        sys.exit("Usage: python -m offline NAME ARG…, NAME being a folder of offline/go")
    name, *arguments = words
    try:
        program = build([name], cache=cache_directory())[name] / name
    except OfflineError as error:
        sys.exit(f"error: {error}")
    os.execv(program, [name, *arguments])  # noqa: S606 - a program of our own, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
