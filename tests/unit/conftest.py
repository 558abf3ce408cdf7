"""What the unit tests share: what costs much of their time and proves nothing here is done once or not at all."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from functools import cache, wraps
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stack.monitoring.boards import Board


@pytest.fixture(scope="session", autouse=True)
def recordings_of_all_processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both processes of `make test-unit` ask for the same cases, and each run of the program takes a second."""
    if hasattr(request.config, "workerinput"):
        from tests import recording  # noqa: PLC0415 - half a second that a single file may not need

        recording.shared = tmp_path_factory.getbasetemp().parent / "recordings"
        recording.shared.mkdir(exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def dashboards_written_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each environment that differs in anything has seven of them: a tenth of a second. tests/render looks at them."""
    if not hasattr(request.config, "workerinput"):
        yield
        return
    from stack.parts.grafana import grafana_json  # noqa: PLC0415 - half a second that a single file may not need

    write, written = grafana_json.to_text, dict[bytes, str]()

    @wraps(write)
    def to_text(board: Board) -> str:
        content = pickle.dumps(board)
        if content not in written:
            written[content] = write(board)
        return written[content]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grafana_json, "to_text", to_text)
        yield


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
