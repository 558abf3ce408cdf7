"""What the end of all sessions at Redis costs, as at the end of a rotation of its password: no request and no job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
from redis import Redis

if TYPE_CHECKING:
    from tests.reference_app.conftest import Setup

Waiting = Callable[..., Any]
TIMES = 8
USERS = 4


def test_no_request_and_no_job_is_lost_while_all_sessions_end_again_and_again(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    over = threading.Event()

    def end() -> int:
        ended, password = 0, setup.redis.administrator_password
        with Redis(port=setup.redis.port, username="admin", password=password) as administrator:
            for _ in range(TIMES):
                time.sleep(1)  # a rotation ends them once: the next time finds all that were lost logged in again
                ended += administrator.client_kill_filter(user="app")
        over.set()
        return ended

    def submit() -> list[httpx.Response]:
        wanted, answers = {"name": "x", "job": {"name": "write_skeleton"}}, []
        while not over.is_set():
            answers.append(api.post("/projects", json=wanted))
        return answers

    with ThreadPoolExecutor(USERS + 1) as many:
        ending = many.submit(end)
        submitting = [many.submit(submit) for _ in range(USERS)]
        assert ending.result() >= TIMES, "no session was there to be ended"
        answers = [answer for each in submitting for answer in each.result()]
    assert [answer.text for answer in answers if answer.status_code != 201] == []
    jobs = {answer.json()["job"]["id"] for answer in answers}

    def done() -> bool:
        jobs.difference_update({job for job in jobs if api.get(f"/jobs/{job}").json()["state"] == "done"})
        return not jobs

    waiting("all jobs", done, worker.said)
    assert "lost job queued again" not in worker.said(), "a minute late is late: each was in the queue at once"
    worker.alive()
