"""What the end of all sessions at Redis costs, as at the end of a rotation of its password: no request and no job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from redis import Redis

if TYPE_CHECKING:
    from tests.reference_app.conftest import Setup

Waiting = Callable[..., Any]
JOBS = 200


def test_no_request_and_no_job_is_lost_while_all_sessions_end_again_and_again(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    over, ended = threading.Event(), 0

    def end() -> int:
        killed = 0
        with Redis(
            port=setup.redis.port, username="admin", password=setup.redis.administrator_password
        ) as administrator:
            while not over.wait(0.1):
                killed += administrator.client_kill_filter(user="app")
        return killed

    with ThreadPoolExecutor(5) as many:
        killing = many.submit(end)
        wanted = {"name": "x", "job": {"name": "write_skeleton"}}
        answers = list(many.map(lambda _: api.post("/projects", json=wanted), range(JOBS)))
        over.set()
        ended = killing.result()
    assert {answer.status_code for answer in answers} == {201}, [
        answer.text for answer in answers if answer.status_code != 201
    ]
    assert ended >= 20, "so few say nothing"
    jobs = [answer.json()["job"]["id"] for answer in answers]

    def done() -> bool:
        return all(api.get(f"/jobs/{job}").json()["state"] == "done" for job in jobs)

    waiting("all jobs", done, worker.said)
    assert "lost job queued again" not in worker.said(), "a minute late is late: each was in the queue at once"
    worker.alive()
