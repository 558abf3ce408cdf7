"""Debian's libfaketime, by which a PostgreSQL of the tests has a clock of its own; installed where it is missing."""

from __future__ import annotations

from pathlib import Path

from host.packages import install_packages


def libfaketime() -> Path:
    """Return the library. Raises EngineError where it is missing and cannot be installed.

    A test that needs it is not skipped: what cannot run has not passed.
    """
    if not (found := sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))):
        install_packages(["libfaketime"], report=print)
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return found[0]
