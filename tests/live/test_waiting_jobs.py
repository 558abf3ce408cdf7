"""Jobs that wait for a worker, in a stack that is up, while Redis is restarted and killed."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import docker
import httpx
import pytest
from arq.constants import default_queue_name
from redis import Redis

from operations.data.repair import redis_log
from operations.engine import containers
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis
from stack.settings.environment import Environment
from tests.live.conftest import url
from tests.live.test_the_stack import until
from tests.live.traffic import Traffic
from tests.render.conftest import address, output, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

JOBS = 20
"""As many as one address may order within a minute, with room."""


@pytest.fixture(scope="module", autouse=True)
def nobody_there(traffic: Traffic) -> None:
    """No users from here on: they would find Redis away, and their jobs would be among ours."""
    traffic.stop()


def test_jobs_that_wait_outlive_a_restart_and_a_sigkill_of_redis_and_run_once(
    stack: Workspace, environment: Environment, engine: docker.DockerClient
) -> None:
    worker, server = (containers.find(engine, environment, part) for part in ("worker", redis.PART))
    password = stack.open().secrets()["redis-app"]
    api = url(environment, "ingress")

    def waiting() -> set[str]:
        with Redis(address(server), username=redis.APP_USER, password=password, decode_responses=True) as client:
            return set(client.zrange(default_queue_name, 0, -1))

    def jobs() -> dict[str, str]:
        return {job: httpx.get(f"{api}/jobs/{job}", timeout=30).raise_for_status().json()["state"] for job in ordered}

    worker.stop(timeout=60)
    try:
        project = httpx.post(f"{api}/projects", json={"name": "waits"}, timeout=30).raise_for_status().json()["id"]
        orders = [httpx.post(f"{api}/projects/{project}/jobs", json={}, timeout=30) for _ in range(JOBS)]
        ordered = {order.raise_for_status().json()["id"] for order in orders}
        before = waiting()
        assert before >= ordered, "a job was not queued"
        time.sleep(2)  # a SIGKILL may cost the last second, `appendfsync everysec`
        # With no worker nobody puts a job back from the database: what is in the queue, Redis has kept.
        for fault in (restarted, killed):
            fault(server)
            wait_until(server, lambda: output(server, "/etc/samokoder/healthy.sh")[0] == 0)
            assert waiting() == before, "Redis has forgotten jobs, and only the database knows of them"
            assert "read all" in redis_log.read(stack)
        began = time.time()
    finally:
        worker.start()
    states = until(jobs, lambda found: set(found.values()) == {"done"}, 120)
    assert Counter(states.values()) == {"done": JOBS}, states
    lines = [json.loads(line) for line in worker.logs(since=int(began)).decode().splitlines() if '"job done"' in line]
    assert Counter(line["job_id"] for line in lines) == Counter(ordered), "a job did not run once"


def restarted(container: Container) -> None:
    container.restart()


def killed(container: Container) -> None:
    container.kill("SIGKILL")
    container.wait()
    container.start()
