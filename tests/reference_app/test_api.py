"""What a client of the API sees, against the real PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest

if TYPE_CHECKING:
    from tests.reference_app.conftest import Postgres, Redis, Service, Setup

Waiting = Callable[[str, Callable[[], object]], object]


def test_the_root_says_name_version_and_environment(api: Service) -> None:
    answer = api.get("/").json()
    assert answer == {"name": "Samokoder", "version": "0.1.0", "environment": "test"}, (
        "an operator sees by it which release answers in which environment"
    )


def test_health_and_readiness_are_good_when_all_is_up(api: Service, worker: Service, waiting: Waiting) -> None:
    assert api.get("/health").json() == {"status": "ok"}
    waiting("ready", lambda: api.get("/ready").json() == {"status": "ok", "database": "ok", "redis": "ok"})
    assert worker.get("/health").json() == {"status": "ok"}
    waiting("ready", lambda: worker.get("/ready").json() == {"status": "ok", "database": "ok", "redis": "ok"})


@pytest.mark.parametrize("path", ["/", "/health", "/ready"])
def test_head_is_answered_like_get(api: Service, waiting: Waiting, path: str) -> None:
    waiting("ready", lambda: api.get("/ready").status_code == httpx.codes.OK)
    got, asked = api.get(path), httpx.head(f"{api.url}{path}", timeout=60)
    assert asked.status_code == got.status_code == httpx.codes.OK, "uptime monitors ask so, and Traefik hands it on"
    assert asked.headers["content-length"] == got.headers["content-length"]
    assert not asked.content
    ways = api.get("/openapi.json").json()["paths"][path]
    assert set(ways) == {"get"}, "two operations of one name would be in the document"


def test_a_project_is_a_row_in_postgresql(api: Service, postgres: Postgres) -> None:
    before = api.metric("samokoder_projects_created_total") or 0
    created = api.post("/projects", json={"name": "  Recipe book "})
    assert created.status_code == 201, created.text
    project = created.json()
    assert project["name"] == "Recipe book", "spaces around a name are a slip of the keyboard"
    assert created.headers["location"] == f"/projects/{project['id']}"
    row = postgres.ask(
        lambda c: c.fetchrow("SELECT name, skeleton FROM projects WHERE id = $1", uuid.UUID(project["id"]))
    )
    assert row is not None, "the row must be in the database, not in the process"
    assert dict(row) == {"name": "Recipe book", "skeleton": None}
    assert api.get(f"/projects/{project['id']}").json() | {"job": None} == project
    listed = {key: value for key, value in project.items() if key not in {"notes", "job"}}
    assert api.get("/projects", params={"limit": 1}).json() == [listed], "newest first, and notes one by one only"
    assert api.metric("samokoder_projects_created_total") == before + 1, "an alert counts on this metric"


@pytest.mark.parametrize(
    "body", [{}, {"name": " "}, {"name": "x" * 101}, {"name": "x", "owner": "y"}, {"name": "a\0b"}]
)
def test_a_wrong_project_is_refused(api: Service, body: dict[str, str]) -> None:
    assert api.post("/projects", json=body).status_code == 422


def test_what_does_not_exist_is_not_found(api: Service) -> None:
    nobody = uuid.uuid4()
    assert api.get(f"/projects/{nobody}").status_code == 404
    assert api.get(f"/jobs/{nobody}").status_code == 404
    assert api.post(f"/projects/{nobody}/jobs", json={}).status_code == 404
    assert api.get("/projects/not-an-id").status_code == 422


@pytest.mark.parametrize(("language", "expected"), [("python", "def start_"), ("javascript", "export function start_")])
def test_a_job_goes_from_submit_to_done_and_leaves_its_text_in_the_project(
    api: Service, worker: Service, waiting: Waiting, language: str, expected: str
) -> None:
    complete = worker.metric('worker_jobs_total{status="complete"}') or 0
    submitted = api.metric('samokoder_jobs_submitted_total{name="write_skeleton"}') or 0
    project = api.post("/projects", json={"name": 'A "quoted" class'}).json()
    answer = api.post(
        f"/projects/{project['id']}/jobs",
        json={"name": "write_skeleton", "args": {"language": language}},
    )
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["state"] == "queued"
    assert answer.headers["location"] == f"/jobs/{job['id']}"

    def state() -> str:
        found: str = api.get(f"/jobs/{job['id']}").json()["state"]
        return found

    waiting("a job that is done", lambda: state() == "done")
    done = api.get(f"/jobs/{job['id']}").json()
    text = api.get(f"/projects/{project['id']}").json()["skeleton"]
    assert expected in text, "the worker must really have written the project's first file"
    assert language in done["result"]
    assert done["finished_at"] > done["created_at"]
    assert api.metric('samokoder_jobs_submitted_total{name="write_skeleton"}') == submitted + 1
    assert worker.metric('worker_jobs_total{status="complete"}') == complete + 1


def test_the_written_python_is_python_whatever_the_name_holds(api: Service, worker: Service, waiting: Waiting) -> None:
    assert worker.running.poll() is None
    name = 'x" + f"{1/0}\\ class 1'
    project = api.post("/projects", json={"name": name}).json()
    job = api.post(f"/projects/{project['id']}/jobs", json={}).json()
    waiting("a job that is done", lambda: api.get(f"/jobs/{job['id']}").json()["state"] == "done")
    text = api.get(f"/projects/{project['id']}").json()["skeleton"]
    names: dict[str, object] = {}
    exec(compile(text, "skeleton", "exec"), names)  # noqa: S102 - that it runs, and says no more, is the point
    assert names["TITLE"] == name


def test_an_unknown_job_is_refused(api: Service) -> None:
    project = api.post("/projects", json={"name": "x"}).json()
    url = f"/projects/{project['id']}/jobs"
    assert api.post(url, json={"name": "rm"}).status_code == 422
    assert api.post(url, json={"args": {"language": "cobol"}}).status_code == 422


def test_the_worker_shows_a_heartbeat_and_its_queue(worker: Service, waiting: Waiting) -> None:
    first = worker.metric("worker_heartbeat_timestamp_seconds") or 0
    waiting("a later heartbeat", lambda: (worker.metric("worker_heartbeat_timestamp_seconds") or 0) > first)
    assert worker.metric("worker_queue_depth") is not None
    assert worker.metric("worker_queue_oldest_job_age_seconds") is not None
    for status in ("complete", "retried", "failed"):
        assert worker.metric(f'worker_jobs_total{{status="{status}"}}') is not None, (
            "a series that first appears with its first failure has no rate then"
        )


def test_a_request_id_is_kept_echoed_and_logged_up_to_the_worker(
    api: Service, worker: Service, waiting: Waiting
) -> None:
    ours = f"test-{uuid.uuid4()}"
    project = api.post("/projects", json={"name": "x"}).json()
    answer = api.post(f"/projects/{project['id']}/jobs", json={}, headers={"X-Request-ID": ours})
    assert answer.headers["x-request-id"] == ours

    def lines(service: Service) -> list[dict[str, object]]:
        every = [json.loads(line) for line in service.said().splitlines()]  # a line that is no JSON fails here
        return [line for line in every if line.get("request_id") == ours]

    waiting("the id in the API's log", lambda: lines(api))
    assert lines(api)[-1]["status"] == 202
    assert lines(api)[-1]["route"] == "/projects/{project_id}/jobs"
    waiting("the id in the worker's log", lambda: lines(worker))
    assert {line["part"] for line in lines(worker)} == {"worker"}


def test_a_wild_request_id_and_a_query_string_stay_out_of_the_log(api: Service) -> None:
    answer = api.get("/projects?limit=1&token=hunter2hunter2", headers={"X-Request-ID": "a b\tc;" * 3})
    assert answer.headers["x-request-id"].isalnum(), "an id that is not a sane one is replaced"
    assert "hunter2hunter2" not in api.said(), "people put secrets into query strings"


def _ready(api: Service) -> tuple[int, str, str]:
    answer = api.get("/ready")
    database, redis = (answer.json()[part].partition(":")[0] for part in ("database", "redis"))
    return answer.status_code, database, redis


def test_ready_names_the_database_when_only_that_is_away(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    setup.postgres.stop(signal.SIGINT)
    try:
        waiting("503 that names the database only", lambda: _ready(api) == (503, "failed", "ok"))
        assert api.get("/health").status_code == 200, "a restart of the API would not help"
        refused = api.get("/projects")
        assert (refused.status_code, refused.json()) == (503, {"detail": "database unavailable"})
    finally:
        setup.postgres.start()
    waiting("ready again", lambda: api.get("/ready").status_code == 200)


def test_a_statement_that_the_database_breaks_off_is_no_fault_of_ours(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    blocked = "FROM pg_stat_activity WHERE application_name = 'samokoder-api' AND wait_event_type = 'Lock'"

    async def end_it(connection: asyncpg.Connection) -> httpx.Response:
        async with connection.transaction():
            await connection.execute("LOCK TABLE projects IN ACCESS EXCLUSIVE MODE")
            request = asyncio.create_task(asyncio.to_thread(api.get, "/projects"))
            # As a server that shuts down does with every session.
            while not await connection.fetchval(f"SELECT count(pg_terminate_backend(pid)) {blocked}"):
                await asyncio.sleep(0.05)
            return await request

    answer = setup.postgres.ask(end_it)
    assert (answer.status_code, answer.json()) == (503, {"detail": "database unavailable"}), "a client may come again"
    waiting("ready", lambda: api.get("/ready").status_code == 200)


def test_ready_names_redis_when_only_that_is_away_and_no_job_is_lost_in_between(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    project = api.post("/projects", json={"name": "x"}).json()
    setup.redis.stop()
    try:
        waiting("503 that names Redis only", lambda: _ready(api) == (503, "ok", "failed"))
        refused = api.post(f"/projects/{project['id']}/jobs", json={})
        assert (refused.status_code, refused.json()) == (503, {"detail": "queue unavailable"})
        count = setup.postgres.ask(
            lambda c: c.fetchval("SELECT count(*) FROM jobs WHERE project_id = $1", uuid.UUID(project["id"]))
        )
        assert count == 0, "a job that no worker can ever see must not stay as queued"
        assert api.metric('samokoder_jobs_not_queued_total{name="write_skeleton"}') == 1
    finally:
        setup.redis.start()
    waiting("ready again", lambda: api.get("/ready").status_code == 200)


def test_ready_gives_up_on_a_part_that_hangs(setup: Setup) -> None:
    api = setup.api()
    api.wait_until("/ready")
    setup.redis.hang()
    try:
        answer = api.get("/ready")
    finally:
        setup.redis.go_on()
    assert (answer.status_code, answer.json()["redis"]) == (503, "no answer within 2 s")


def test_the_api_starts_before_its_database(setup: Setup, waiting: Waiting) -> None:
    setup.postgres.stop(signal.SIGINT)
    try:
        api = setup.api()
        api.wait_until("/health")
        assert api.get("/ready").status_code == 503
    finally:
        setup.postgres.start()
    waiting("ready", lambda: api.get("/ready").status_code == 200)


def test_the_limited_users_were_enough_and_can_do_no_more(running: object, redis: Redis, postgres: Postgres) -> None:
    assert running
    redis.cli("acl", "log", administrator=False)  # one refusal that must show, so that an empty log means something
    log = redis.cli("acl", "log")
    assert "redis-cli" in log or "acl|log" in log, f"Redis must log refusals, it has: {log}"
    assert "redis-py" not in log, f"arq or the API asked for more than the rules give:\n{log}"
    for forbidden in (
        ["flushall"],
        ["keys", "*"],
        ["config", "get", "*"],
        ["get", "other:key"],
        ["script", "flush"],
    ):
        assert "NOPERM" in redis.cli(*forbidden, administrator=False), f"{forbidden[0]} must be refused"
    script = redis.cli("eval", "return redis.call('keys', '*')", "0", administrator=False)
    assert "can't run this command" in script, "a script may do no more than its user"
    assert postgres.ask(lambda c: c.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")) is False
