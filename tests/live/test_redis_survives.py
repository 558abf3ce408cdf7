"""What an application has written to the Redis of a stack that is up, 1,000 jobs too, and whatever befalls that Redis.

The jobs wait in a queue of their own, which no worker of the stack takes from.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from operations.checks.doctor import after
from operations.checks.report import Verdict
from operations.data import backups
from operations.data.repair import redis_log, repair
from operations.data.restore import restore
from operations.errors import ProjectError
from operations.lifecycle.up import bring_up
from operations.rotation import rotate
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis
from tests import queued
from tests.live import clones
from tests.live.conftest import begin, cut_off, prometheus, with_config
from tests.live.job_queue import Queue
from tests.render.conftest import address, output, wait_until
from tests.render.redis_part import OLD_DEFAULT

FILE = "/data/appendonlydir/appendonly.aof.1.incr.aof"


@pytest.fixture(scope="module")
def up(new_workspace: Callable[[], Workspace], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A stack with a stack file of its own."""
    files = tmp_path_factory.mktemp("committed")
    (files / "Pulumi.staging.yaml").write_text("config: {}\n", encoding="utf-8")
    workspace = replace(new_workspace(), stack_files=files)
    bring_up(workspace, interactive=False)
    return workspace


@pytest.fixture
def queue(up: Workspace, engine: docker.DockerClient) -> Queue:
    made = Queue(up, engine, f"waits-{secrets.token_hex(3)}")
    made.put()
    return made


def test_a_repair_is_refused_while_nothing_is_damaged(queue: Queue) -> None:
    before = queue.server.attrs["State"]["StartedAt"]
    with (
        pytest.raises(ProjectError, match="there is nothing to repair"),
        repair.opened(queue.workspace, redis.PART, up=bring_up),
    ):
        pass
    server = queue.server
    server.stop()
    with (
        pytest.raises(ProjectError, match="nothing is damaged"),
        repair.opened(queue.workspace, redis.PART, up=bring_up),
    ):
        pass
    assert queue.server.attrs["State"]["StartedAt"] == before, "a look has started it"
    server.start()
    queue.holds()


def test_bytes_behind_the_end_are_repaired_and_what_was_there_is_listed(queue: Queue) -> None:
    queue.damage(f"head -c 4096 /dev/zero >> {FILE}")
    said = queue.repair()
    assert "Lost are 4096 bytes, in which no command begins" in said, said
    assert "Redis read all of its append-only file" in said, said
    _, aside = backups.backups(queue.workspace)
    assert aside[-1] in said, "what was there must be found again"
    queue.holds()


def test_a_repair_that_is_killed_between_the_copy_and_the_cut_goes_on_and_loses_nothing(queue: Queue) -> None:
    queue.damage(f"head -c 4096 /dev/urandom >> {FILE}")
    workspace = queue.workspace
    journal = workspace.folder / f"restore.{workspace.name}.json"
    process = begin(workspace, "repair.opened(workspace, 'redis', up=bring_up).__enter__().run()")
    end = time.monotonic() + 300
    while "keep-redis" not in done(journal):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end, "it never came to the copy"
        time.sleep(0.05)
    cut_off(process)
    aside = json.loads(journal.read_text())["aside"]
    assert aside, "nothing was set aside before the cut"
    restore.restore(workspace, up=bring_up)
    assert "read all" in redis_log.read(workspace)
    queue.holds()


def done(journal: Any) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return list(json.loads(journal.read_text())["done"])
    return []


def test_a_clean_restart_keeps_every_job(queue: Queue) -> None:
    queue.server.restart()
    queue.holds()


def test_a_sigkill_keeps_every_job(queue: Queue) -> None:
    server = queue.server
    server.kill()
    server.wait()
    server.start()
    queue.holds()


def test_an_up_that_replaces_redis_keeps_every_job(queue: Queue) -> None:
    before = queue.server.id
    bring_up(with_config(queue.workspace, {"samokoder:redis": {"maxmemoryMib": 190}}), interactive=False)
    assert queue.server.id != before, "it was not replaced"
    queue.holds()


def test_a_rotation_of_its_password_keeps_every_job(queue: Queue) -> None:
    before = queue.password
    rotate.rotate(queue.workspace, "redis-app", interactive=False)
    assert queue.password != before, "nothing was rotated"
    queue.holds()


def test_a_restore_of_a_copy_brings_every_job_back(queue: Queue) -> None:
    backups.now(queue.workspace, "redis")
    rows, _ = backups.backups(queue.workspace)
    copy = next(row.id for row in rows if row.kind == redis.PART)
    with queue.application.client() as client:
        for key in queue.before:
            client.delete(key.partition(" ")[2])
    restore.restore(queue.workspace, up=bring_up, backup=copy)
    queue.holds()


def test_an_upgrade_from_a_version_whose_redis_forgets_transactions_brings_every_job_back(
    up: Workspace, engine: docker.DockerClient, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    clones.make(older, "of-nobody", {})
    part = older / "stack" / "parts" / "redis" / "spec.py"
    text = part.read_text(encoding="utf-8")
    assert "user default off resetpass ~* &* +@all\n" in text
    part.write_text(text.replace("user default off resetpass ~* &* +@all\n", OLD_DEFAULT), encoding="utf-8")
    bring_up(replace(up, root=older), interactive=False)
    queue = Queue(up, engine, f"waits-{secrets.token_hex(3)}")
    queue.put()
    server = queue.server
    server.restart()
    wait_until(server, lambda: output(server, "/etc/samokoder/healthy.sh")[0] == 0)
    waiting = queued.waiting(address(server), queue.password, queue=queue.name)
    if "AOF-loading-client" in server.logs().decode():
        assert waiting == set(), "this is not the fault that it was"
    bring_up(up, interactive=False)
    assert queue.server.id != server.id, "it was not replaced"
    queue.holds()


def test_a_file_that_was_read_with_errors_is_told_by_doctor(queue: Queue) -> None:
    """The alert about it: test_alerts.py."""

    def told() -> list[Any]:
        query = 'ALERTS{alertname="RedisFileReadWithErrors"}'
        return list(prometheus(queue.workspace.settings(), "query", query=query)["result"])

    end = time.monotonic() + 420  # the rule keeps firing for four minutes
    while told():  # of the older version, which a test before has brought up
        assert time.monotonic() < end, "it is told of a file that was read whole"
        time.sleep(1)
    queue.gets_a_refused_command()
    found = next(each for each in after.after(queue.workspace).findings if each.check == "redis' file")
    assert found.verdict is Verdict.FAILED
    assert "it refused commands of the file" in found.why
