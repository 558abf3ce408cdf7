"""Starting, refusing to start, and stopping: what an engine sees of the service."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest

if TYPE_CHECKING:
    from tests.reference_app.conftest import Postgres, Service, Setup

Waiting = Callable[..., object]
PATIENCE_SECONDS = 300.0
PARTS = pytest.mark.parametrize("part", ["api", "worker"])


def _ends(setup: Setup, part: str, **environment: str) -> tuple[int, str]:
    service: Service = getattr(setup, part)(**environment)
    return service.ended(), service.said()


@PARTS
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("secret_key", "kT7" * 10, "SECRET_KEY: is shorter than 64 characters"),
        ("app_secret_key", "changeme" + "Zq8vB2xN5mK1" * 6, "APP_SECRET_KEY: "),
        ("app_secret_key", "Zq8vB2xN5m" * 7, "APP_SECRET_KEY: repeats one short piece"),
        ("secret_key", "a" * 63 + "b", "SECRET_KEY: has too few different characters"),
        ("redis_password", "samokoder-redis-2025", "REDIS_PASSWORD: looks like a default"),
        ("redis_password", "Jd83nq", "REDIS_PASSWORD: is shorter than 16 characters"),
        (
            "samokoder_database_url",
            "postgresql+asyncpg://app:postgres-pass-word@db/app",
            "looks like a default",
        ),
        ("samokoder_database_url", "postgresql://app:Jd83nqPz81Lm0Xw4@db/app", "postgresql+asyncpg://user:"),
        ("samokoder_database_url", "Jd83nqPz81Lm0Xw4", "postgresql+asyncpg://user:"),
    ],
)
def test_a_weak_secret_is_refused_by_name_and_never_shown(
    setup: Setup, part: str, name: str, value: str, reason: str
) -> None:
    setup.secrets[name] = value
    status, said = _ends(setup, part)
    assert status == 78, f"EX_CONFIG tells an engine that a restart does not help:\n{said}"
    assert reason in said, said
    assert not any(secret in said for secret in setup.secrets.values()), "a refused secret is a secret all the same"
    assert "Traceback" not in said, "one clear message, no stack of calls"


@PARTS
def test_equal_keys_are_refused(setup: Setup, part: str) -> None:
    setup.secrets |= {"app_secret_key": setup.secrets["secret_key"]}
    status, said = _ends(setup, part)
    assert (status, "SECRET_KEY and APP_SECRET_KEY must differ" in said) == (78, True), said
    assert setup.secrets["secret_key"] not in said


@PARTS
def test_every_missing_setting_is_named_at_once(setup: Setup, part: str) -> None:
    setup.secrets.clear()
    status, said = _ends(setup, part, REDIS_HOST="", REDIS_PORT="many", ENVIRONMENT="Not one")
    assert status == 78
    for name in ("SAMOKODER_DATABASE_URL", "REDIS_PASSWORD", "SECRET_KEY", "APP_SECRET_KEY"):
        assert f"- {name}: is not set" in said, f"one start must show all that is wrong:\n{said}"
    for name in ("REDIS_HOST", "REDIS_PORT", "ENVIRONMENT"):
        assert f"- {name}: " in said, said


def test_an_empty_secret_file_counts_as_missing(setup: Setup) -> None:
    setup.secrets |= {"secret_key": "\n"}
    status, said = _ends(setup, "api")
    assert (status, "SECRET_KEY: is not set" in said) == (78, True), said


def test_a_secret_comes_from_a_named_file_or_a_plain_variable_too(setup: Setup) -> None:
    named = setup.folder / "elsewhere"
    named.write_text(setup.secrets.pop("secret_key") + "\n")
    plain = setup.secrets.pop("app_secret_key")
    api = setup.api(SECRET_KEY_FILE=str(named), APP_SECRET_KEY=plain)
    api.wait_until("/ready")


def test_a_named_file_that_is_not_there_is_an_error_and_is_not_shown(setup: Setup) -> None:
    mistaken = secrets.token_urlsafe(64)  # the secret itself, put where its file's name belongs
    del setup.secrets["secret_key"]
    status, said = _ends(setup, "api", SECRET_KEY_FILE=mistaken)
    assert (status, "SECRET_KEY: the file that SECRET_KEY_FILE names cannot be read" in said) == (78, True), said
    assert mistaken not in said


def test_two_places_with_different_values_are_an_error_and_with_the_same_one_are_not(setup: Setup) -> None:
    other = secrets.token_urlsafe(64)
    status, said = _ends(setup, "api", SECRET_KEY=other)
    assert (
        status,
        "SECRET_KEY: the secrets folder's secret_key and the variable SECRET_KEY hold" in said,
    ) == (
        78,
        True,
    ), said
    assert other not in said
    api = setup.api(SECRET_KEY=setup.secrets["secret_key"])
    api.wait_until("/ready")


def test_no_secret_is_in_any_log_after_work(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    _finish_a_job(api, waiting)
    for service in (api, worker):
        service.stop()
        for secret in (*setup.secrets.values(), setup.postgres.application_password):
            assert secret not in service.said()


def _finish_a_job(api: Service, waiting: Waiting) -> None:
    project = api.post("/projects", json={"name": "x"}).json()
    job = api.post(f"/projects/{project['id']}/jobs", json={}).json()
    waiting("a job that is done", lambda: api.get(f"/jobs/{job['id']}").json()["state"] == "done")


class _Held:
    """Holds a lock in PostgreSQL from a thread, until told to let go: it makes a request or a job last."""

    def __init__(self, postgres: Postgres, statement: str, *arguments: object) -> None:
        self._free, self._has = threading.Event(), threading.Event()

        async def hold(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                await connection.execute(statement, *arguments)
                self._has.set()
                self._free.wait(PATIENCE_SECONDS)

        self._pool = ThreadPoolExecutor(1)
        self._work = self._pool.submit(postgres.ask, hold)
        assert self._has.wait(PATIENCE_SECONDS), "the lock was not had"

    def release(self) -> None:
        self._free.set()
        self._work.result(PATIENCE_SECONDS)
        self._pool.shutdown()


def _somebody_waits(postgres: Postgres) -> bool:
    waiting_now = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    count: int = postgres.ask(lambda c: c.fetchval(waiting_now), superuser=True)
    return count > 0


def test_the_api_finishes_the_request_in_hand_when_it_is_told_to_stop(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    lock = _Held(setup.postgres, "LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(api.post, "/projects", json={"name": "in hand"})
        waiting("a request that waits for the lock", lambda: _somebody_waits(setup.postgres))
        api.running.send_signal(signal.SIGTERM)
        waiting("the end of new connections", lambda: _refuses(api))
        assert api.running.poll() is None, "it must not go while a client waits for its answer"
        lock.release()
        assert request.result().status_code == 201, "a stop must not cost a request"
    assert api.ended() in (0, -signal.SIGTERM)
    assert '"stopped"' in api.said(), "connections are given back before the end"


def _refuses(service: Service) -> bool:
    try:
        service.get("/health")
    except httpx.ConnectError:
        return True
    return False


def _start_a_job_that_waits(setup: Setup, api: Service, waiting: Waiting) -> tuple[_Held, str]:
    project = api.post("/projects", json={"name": "slow"}).json()["id"]
    lock = _Held(setup.postgres, "SELECT 1 FROM projects WHERE id = $1 FOR NO KEY UPDATE", uuid.UUID(project))
    job: str = api.post(f"/projects/{project}/jobs", json={}).json()["id"]
    waiting("a job that waits for the lock", lambda: _somebody_waits(setup.postgres))
    assert _state(api, job) == "running"
    return lock, job


def _state(api: Service, job: str) -> str:
    state: str = api.get(f"/jobs/{job}").json()["state"]
    return state


@pytest.mark.usefixtures("alone")
def test_the_worker_finishes_its_job_when_it_is_told_to_stop(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    lock, job = _start_a_job_that_waits(setup, api, waiting)
    worker.running.send_signal(signal.SIGTERM)
    waiting("the signal in the log", lambda: "shutdown on SIGTERM" in worker.said())
    assert worker.running.poll() is None, "it must not go with a job in hand"
    lock.release()
    assert worker.ended() == 0, worker.said()
    assert _state(api, job) == "done"


@pytest.mark.usefixtures("alone")
def test_a_job_that_outlasts_the_stop_is_given_back_and_done_by_the_next_worker(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker(WORKER_SHUTDOWN_SECONDS="1")
    api.wait_until("/ready")
    worker.wait_until("/ready")
    lock, job = _start_a_job_that_waits(setup, api, waiting)
    assert worker.stop() == 0, worker.said()
    assert _state(api, job) == "queued", "who polls must not see a job as running that nobody runs"
    lock.release()
    setup.worker().wait_until("/ready")
    waiting("the job done by the second worker", lambda: _state(api, job) == "done", setup.started[-1].said)


@pytest.mark.usefixtures("alone")
def test_the_worker_outlives_a_short_absence_of_the_database_and_of_redis(setup: Setup, waiting: Waiting) -> None:
    api, worker = setup.api(), setup.worker()
    api.wait_until("/ready")
    worker.wait_until("/ready")
    setup.redis.stop()
    time.sleep(3)  # several polls of arq, which meet a refused connection
    setup.redis.start()
    _finish_a_job(api, waiting)
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    worker.running.send_signal(signal.SIGSTOP)
    job: str = api.post(f"/projects/{project}/jobs", json={}).json()["id"]
    setup.postgres.stop(signal.SIGINT)
    try:
        worker.running.send_signal(signal.SIGCONT)
        waiting("a try that failed", lambda: worker.metric('worker_jobs_total{status="retried"}') == 1, worker.said)
    finally:
        setup.postgres.start()
    waiting("the job done at a later try", lambda: _state(api, job) == "done", worker.said)
    assert worker.running.poll() is None


@pytest.mark.usefixtures("alone")
def test_a_job_that_redis_has_lost_is_queued_again_once_it_is_a_minute_old(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    asked = [
        api.post(f"/projects/{project}/jobs", json={"args": {"language": "javascript"}}, headers={"X-Request-ID": name})
        for name in ("lost", "young", "kept")
    ]
    lost, young, kept = (answer.json()["id"] for answer in asked)
    for job in (lost, young):
        assert setup.redis.cli("zrem", "arq:queue", job) == "1"
        assert setup.redis.cli("del", f"arq:job:{job}") == "1"
    old = [uuid.UUID(lost), uuid.UUID(kept)]
    setup.postgres.ask(
        lambda c: c.execute("UPDATE jobs SET created_at = now() - interval '61 s' WHERE id = ANY($1)", old)
    )
    workers = [setup.worker() for _ in range(2)]
    for worker in workers:
        worker.wait_until("/ready")
    for job in (lost, kept):
        waiting("the job's end", lambda job=job: _state(api, job) == "done")
    assert "javascript" in api.get(f"/jobs/{lost}").json()["result"], "it is the job that was asked for"
    assert _state(api, young) == "queued", "one that is just being queued must not be in the queue twice"
    said = "".join(worker.said() for worker in workers)
    assert said.count('"lost job queued again"') == 1, "by one worker of two, and only what the queue did not have"
    done = [json.loads(line) for line in said.splitlines() if '"job done"' in line]
    assert sorted(line["request_id"] for line in done) == ["kept", "lost"], "each once"
    assert sum(worker.metric('worker_jobs_total{status="complete"}') or 0 for worker in workers) == 2


@pytest.mark.usefixtures("alone")
def test_a_job_whose_worker_was_lost_with_it_does_not_run_for_ever(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    lost, earlier, kept, young = (api.post(f"/projects/{project}/jobs", json={}).json()["id"] for _ in range(4))
    assert all(setup.redis.cli("del", f"arq:job:{job}") == "1" for job in (lost, earlier, young))
    assert all(setup.redis.cli("zrem", "arq:queue", job) == "1" for job in (lost, earlier, young))
    setup.redis.cli("zadd", "arq:queue", str(round(time.time() + 3600) * 1000), kept)  # not due, so no worker takes it
    for job, minutes in ((lost, 7), (kept, 7), (young, 4), (earlier, None)):
        _make_running(setup, job, minutes)
    worker = setup.worker()
    waiting("the sweep", lambda: worker.said().count('"lost job failed"') == 2, worker.said)
    assert {job: _state(api, job) for job in (lost, earlier, kept, young)} == {
        lost: "failed",
        earlier: "failed",  # of a version that did not note the start
        kept: "running",
        young: "running",
    }
    assert api.get(f"/jobs/{lost}").json()["result"] == "failed: its worker was lost", (
        "who polls must not poll for ever"
    )
    assert worker.metric('worker_jobs_total{status="failed"}') == 2
    setup.redis.cli("zrem", "arq:queue", kept)


def _make_running(setup: Setup, job: str, minutes: int | None) -> None:
    """Have a job look as if it were running since then; None: begun by a version that did not note when."""
    started = datetime.now(UTC) - timedelta(minutes=minutes) if minutes else None
    statement = (
        "UPDATE jobs SET state = 'running', created_at = now() - interval '7 min', started_at = $1 WHERE id = $2"
    )
    setup.postgres.ask(lambda c: c.execute(statement, started, uuid.UUID(job)))


@pytest.mark.usefixtures("alone")
def test_the_worker_is_unready_but_alive_when_redis_hangs(setup: Setup, waiting: Waiting) -> None:
    worker = setup.worker()
    worker.wait_until("/ready")
    setup.redis.hang()
    try:
        waiting("503 from /ready", lambda: worker.get("/ready").status_code == 503)
        assert worker.get("/health").status_code == 200
    finally:
        setup.redis.go_on()
    worker.wait_until("/ready")


def test_the_health_check_tells_healthy_from_unhealthy_without_curl(
    api: Service, worker: Service, setup: Setup
) -> None:
    def check(*arguments: str) -> int:
        command = [sys.executable, "-m", "samokoder.healthcheck", *arguments]
        return subprocess.run(command, env=setup.environment(), check=False, capture_output=True).returncode

    assert check(f"{api.url}/health") == 0
    assert check(f"{worker.url}/health") == 0
    assert check(f"{api.url}/nothing-here") == 1, "any answer but 200 is unhealthy"
    assert check("http://127.0.0.1:1/health") == 1, "no answer is unhealthy"
    assert check() == 2
    assert check("file:///etc/passwd") == 2
