"""The database's volume is gone from a stack that is up, and comes back with all that was acknowledged.

What else can be lost, and what a restore does when it is cut off: test_backup.py and test_migrating.py.
"""

from __future__ import annotations

import docker
import pytest

from operations.data.restore import restore
from operations.engine import containers
from operations.engine.part_status import NOT_AVAILABLE
from operations.lifecycle.up import bring_up
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from tests.live.test_backup import lose, names, wait_for_backups, wait_until_received, write
from tests.live.traffic import Traffic


@pytest.fixture(scope="module", autouse=True)
def nobody_there(traffic: Traffic) -> None:
    """No users from here on: they would find no database."""
    traffic.stop()


def test_a_volume_that_is_gone_is_restored_to_its_last_moment_without_an_empty_database_between(
    stack: Workspace, engine: docker.DockerClient
) -> None:
    wait_for_backups(stack)
    write(stack, "before it was gone")
    wait_until_received(engine, stack)
    containers.find(engine, stack.settings(), "postgres").kill("SIGKILL")
    lose(engine, stack)
    restore.restore(stack, up=bring_up, backup="latest")
    assert "before it was gone" in names(engine, stack)
    write(stack, "it serves again")
    rows = live_status(stack)
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    stack.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
