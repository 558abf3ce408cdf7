"""The lock of an environment on a real engine: never do two hold it, and nobody who died keeps it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from tests.live.conftest import begin, cut_off
from tests.live.test_the_stack import until

ROUNDS = 6
MANY = 4


@pytest.fixture
def workspace(new_workspace: Callable[[], Workspace]) -> Workspace:
    """An environment that nobody brings up: its lock needs an engine, and no image."""
    made = new_workspace()
    made.folder.mkdir(parents=True, exist_ok=True)
    return made


def held_for(workspace: Workspace, seconds: float) -> subprocess.Popen[bytes]:
    """Another process that holds the lock so long."""
    held = "(held := lock.held(workspace, 'restore'), held.__enter__()"
    return begin(workspace, f"{held}, __import__('time').sleep({seconds}))")


def there(engine: docker.DockerClient, workspace: Workspace) -> list[str]:
    return list(lock.holders(engine, workspace.name))


def test_a_holder_in_another_process_is_named_and_its_lock_is_taken_over_once_it_was_killed(
    workspace: Workspace, engine: docker.DockerClient
) -> None:
    other = held_for(workspace, 300)
    try:
        (volume,) = until(lambda: there(engine, workspace), bool, 60)
        with pytest.raises(ProjectError, match=rf"`restore` since 20.* \(process {other.pid} of "):
            lock.held(workspace, "up").__enter__()
        assert there(engine, workspace) == [volume], "the one that was refused took another's away, or left its own"
    finally:
        cut_off(other)
    assert there(engine, workspace) == [volume], "a killed process gives nothing back"
    with lock.held(workspace, "up"):
        assert volume not in there(engine, workspace)
    assert not there(engine, workspace)


def test_of_many_that_come_at_once_two_never_hold_it(workspace: Workspace, engine: docker.DockerClient) -> None:
    """Each that has it makes a file that must not be there, and takes it away again."""
    inside, notes = workspace.folder / "inside", workspace.folder / "notes"
    program = f"""\
import os, time
from operations.workspace.stack_file import ProjectError
def turns():
    had = 0
    for _ in range({ROUNDS}):
        try:
            with lock.held(workspace, 'up'):
                os.close(os.open({str(inside)!r}, os.O_CREAT | os.O_EXCL))
                time.sleep(0.02)
                os.unlink({str(inside)!r})
                had += 1
        except ProjectError as refused:
            assert 'One at a time' in str(refused), refused
        time.sleep(0.01)
    return had
print(turns(), file=open({str(notes)!r}, 'a'))
"""
    file = workspace.folder / "program.py"
    file.write_text(program)
    run = f"exec(compile(Path({str(file)!r}).read_text(), 'program', 'exec'), globals())"
    many = [begin(workspace, run) for _ in range(MANY)]
    end = time.monotonic() + 240
    for process in many:
        assert process.wait(max(1, end - time.monotonic())) == 0, "two were in at once"
    assert sum(map(int, Path(notes).read_text().split())) > 0, "nobody ever had it"
    assert not there(engine, workspace), "a lock was left"
