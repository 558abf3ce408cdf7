"""What the end of all sessions at Redis costs, as at the end of a rotation of its password: no request and no job."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import httpx
import pytest
from arq.constants import default_queue_name, in_progress_key_prefix, job_key_prefix
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import WatchError

from samokoder.backends import make_queue

if TYPE_CHECKING:
    from samokoder.settings import Settings
    from tests.reference_app.conftest import Setup

Waiting = Callable[..., Any]
TIMES = 8
USERS = 4


def administrator(setup: Setup) -> Redis:
    return Redis(port=setup.redis.port, username="admin", password=setup.redis.administrator_password)


def test_no_request_and_no_job_is_lost_while_all_sessions_end_again_and_again(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    over = threading.Event()

    def end() -> int:
        ended = 0
        with administrator(setup) as ending:
            for _ in range(TIMES):
                time.sleep(1)  # a rotation ends them once: the next time finds all that were lost logged in again
                ended += ending.client_kill_filter(user="app")
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


def test_a_job_whose_watch_is_lost_is_left_for_the_next_poll_and_the_worker_goes_on(setup: Setup) -> None:
    password = SecretStr(setup.redis.application_password)
    settings = SimpleNamespace(
        redis_host="127.0.0.1",
        redis_port=setup.redis.port,
        redis_db=0,
        redis_tls=False,
        redis_ca_file="",
        redis_username="app",
        redis_password=password,
    )
    progress, job = f"{in_progress_key_prefix}one", f"{job_key_prefix}one"

    async def poll() -> None:
        queue = make_queue(cast("Settings", settings), tries=2)
        with administrator(setup) as ending:
            # What arq asks before it begins a job; the session ends before the first answer, then before the second.
            async with queue.pipeline(transaction=True) as pipe:
                await pipe.watch(progress)
                assert ending.client_kill_filter(user="app")
                assert await pipe.exists(progress) == 1, "a lost watch ends the worker, and all that it has in hand"
            async with queue.pipeline(transaction=True) as pipe:
                await pipe.watch(progress)
                assert await pipe.exists(progress) == 0
                assert ending.client_kill_filter(user="app")
                assert await pipe.zscore(default_queue_name, "one") is None, "as above"
            async with queue.pipeline(transaction=True) as pipe:
                await pipe.watch(job)
                assert ending.client_kill_filter(user="app")
                with pytest.raises(WatchError):  # or a job that is not in the queue would pass for one that is
                    await pipe.exists(job)
        await queue.aclose(close_connection_pool=True)

    asyncio.run(poll())
