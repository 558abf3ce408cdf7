"""What the unit tests share: what costs much of their time and proves nothing here is done once or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def recordings_of_all_processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both processes of `make test-unit` ask for the same cases, and each run of the program takes a second."""
    if hasattr(request.config, "workerinput"):
        from tests import recording  # noqa: PLC0415 - half a second that a single file may not need

        recording.shared = tmp_path_factory.getbasetemp().parent / "recordings"
        recording.shared.mkdir(exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def commands_made_once() -> Iterator[None]:
    """Typer makes all commands anew whenever one is typed, which takes longer than most of the commands."""
    import typer.main  # noqa: PLC0415 - what one fixture needs
    import typer.testing  # noqa: PLC0415

    made = cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.main, "get_command", made)
        patched.setattr(typer.testing, "_get_command", made)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """No test cuts the power, so none waits for a disk; a handle that cannot be flushed is an error still."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", os.fstat)
        for name, value in {"COUNT": "1", "KEY_0": "core.fsync", "VALUE_0": "none"}.items():
            patched.setenv(f"GIT_CONFIG_{name}", value)
        yield
