"""The shell of the migrations: it ends when they have, and not before."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from stack.parts.api import migrations
from tests.recording import environment_of

_ROLLS_BACK = "trap 'touch stopping; until [ -e go ]; do sleep 0.05; done; touch done; exit {status}' TERM"
_WORKS = f"{_ROLLS_BACK}\ntouch ready\nwhile :; do sleep 0.05; done"


def started(folder: Path, migration: str) -> subprocess.Popen[bytes]:
    """Run the shell of the container, with another program for the migration, in a folder that is its /tmp."""
    words = migrations.spec(environment_of("staging", {})).entrypoint
    script = next(word for word in words if "/tmp/applied" in word).replace("/tmp", str(folder))  # noqa: S108 - replaced
    return subprocess.Popen(["sh", "-euc", script, migrations.PART, "sh", "-c", migration], cwd=folder)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, f"the shell has ended before {path.name}"
        time.sleep(0.02)


@pytest.mark.parametrize("status", [0, 3])
def test_a_signal_reaches_the_migration_and_the_shell_waits_until_it_has_rolled_back(
    tmp_path: Path, status: int
) -> None:
    shell = started(tmp_path, _WORKS.format(status=status))
    wait_for(tmp_path / "ready", shell)
    for _ in range(2):
        shell.terminate()
        wait_for(tmp_path / "stopping", shell)
    (tmp_path / "go").touch()
    assert shell.wait(60) == status, "the container would end, and the kernel kill the migration half way"
    assert (tmp_path / "done").exists()
    assert not (tmp_path / "applied").exists()


def test_a_migration_that_fails_ends_the_shell_with_its_status(tmp_path: Path) -> None:
    assert started(tmp_path, "exit 4").wait(60) == 4
    assert not (tmp_path / "applied").exists()


def test_the_shell_stays_after_a_migration_and_ends_at_the_first_signal(tmp_path: Path) -> None:
    shell = started(tmp_path, "true")
    wait_for(tmp_path / "applied", shell)
    shell.terminate()
    assert shell.wait(60) == -15
