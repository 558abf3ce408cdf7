"""A server does not start on its data, and `up` fails at it: what is backed up comes back, with no part that waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import docker
import pytest

from operations.data import backups
from operations.data.repair import repair
from operations.data.restore import restore
from operations.engine import containers
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.down import take_down
from operations.lifecycle.up import bring_up
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from tests.live.conftest import with_config
from tests.live.test_backup import names, wait_for_backups, wait_until_received, write

QUICK = {"health": {"startPeriodSeconds": 5, "intervalSeconds": 2, "retries": 2, "waitTimeoutSeconds": 60}}
"""An `up` that fails is not to be waited for five minutes."""


@pytest.fixture(scope="module")
def whole(new_workspace: Callable[[], Workspace]) -> Workspace:
    """A stack with its first backups."""
    workspace = with_config(new_workspace(), {"samokoder:postgres": QUICK, "samokoder:redis": QUICK})
    bring_up(workspace, interactive=False)
    wait_for_backups(workspace)
    return workspace


def damage(engine: docker.DockerClient, workspace: Workspace, server: str, script: str) -> None:
    """Stop a server, and run a script on its data."""
    container = containers.find(engine, workspace.settings(), server)
    container.stop(timeout=60)
    volume, image = f"samokoder-{workspace.name}-{server}-data", container.attrs["Image"]
    mounted = {volume: {"bind": "/data", "mode": "rw"}}
    engine.containers.run(image, ["-c", script], entrypoint="sh", user="0:0", volumes=mounted, remove=True)


def serves(workspace: Workspace) -> None:
    rows = live_status(workspace)
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    # Pulumi has noted that the server did not become healthy, so it may make that container anew.
    bring_up(workspace, interactive=False)
    workspace.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


@pytest.mark.parametrize("way", ["down", "restore"])
def test_a_damaged_database_is_restored_after_an_up_that_failed_at_it(
    way: str, whole: Workspace, engine: docker.DockerClient
) -> None:
    write(whole, f"before the damage ({way})")
    wait_until_received(engine, whole)
    time.sleep(1)
    at = str(datetime.now(UTC))
    time.sleep(1)
    write(whole, f"after it ({way})")
    wait_until_received(engine, whole)
    damage(engine, whole, "postgres", "head -c 8192 /dev/zero > /data/global/pg_control")
    if way == "down":
        take_down(whole, interactive=False)
    else:
        with pytest.raises(ProjectError):
            restore.restore(whole, up=bring_up, to="2001-01-01 00:00:00+00")
    with pytest.raises((ProjectError, PulumiFailedError)):
        bring_up(whole, interactive=False)
    if way == "down":
        assert "backup" not in containers.by_part(engine, whole.name), "this would prove nothing"
    assert backups.backups(whole)[0], "nobody sees which moments there are"
    restore.restore(whole, up=bring_up, to=at)
    assert f"before the damage ({way})" in names(engine, whole)
    serves(whole)
    write(whole, "it serves again")


def test_a_damaged_redis_is_repaired_after_a_down_and_an_up_that_failed_at_it(
    whole: Workspace, engine: docker.DockerClient
) -> None:
    damage(engine, whole, "redis", "for each in /data/appendonlydir/*.incr.aof; do echo 'no command' >> $each; done")
    take_down(whole, interactive=False)
    with pytest.raises((ProjectError, PulumiFailedError)):
        bring_up(whole, interactive=False)
    with repair.opened(whole, "redis", up=bring_up) as found:
        assert found.run()
    serves(whole)
