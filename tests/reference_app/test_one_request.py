"""A project with its job in one request: made once however often it is sent, and gone with its owner's account."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from operations.checks.smoke import user_account
from operations.errors import FailedError

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[..., Any]
WANTED = {"name": "one", "job": {"name": "write_skeleton"}}


def _key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _rows(setup: Setup, project: str) -> tuple[int, int]:
    """Count a project and its jobs in the database."""
    key = uuid.UUID(project)
    return (
        setup.postgres.ask(lambda c: c.fetchval("SELECT count(*) FROM projects WHERE id = $1", key)),
        setup.postgres.ask(lambda c: c.fetchval("SELECT count(*) FROM jobs WHERE project_id = $1", key)),
    )


def _named(setup: Setup, name: str) -> list[tuple[str, int]]:
    """Give each project of a name with how many jobs it has."""
    query = "SELECT id::text, (SELECT count(*) FROM jobs WHERE project_id = p.id) FROM projects p WHERE name = $1"
    return [tuple(row) for row in setup.postgres.ask(lambda c: c.fetch(query, name))]


def _state(api: Service, made: dict[str, Any]) -> str:
    return str(api.get(f"/jobs/{made['job']['id']}").json()["state"])


def test_a_request_that_is_sent_again_makes_one_project_and_one_job(setup: Setup, api: Service) -> None:
    key = _key()
    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: api.post("/projects", json=WANTED, headers=key), range(8)))
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    assert len({(made.json()["id"], made.json()["job"]["id"]) for made in answers}) == 1
    assert _rows(setup, answers[0].json()["id"]) == (1, 1)
    other = api.post("/projects", json={**WANTED, "name": "another"}, headers=key)
    assert other.json()["id"] != answers[0].json()["id"], "a form that was changed is not what was sent before"
    assert api.post("/projects", json=WANTED).json()["id"] != api.post("/projects", json=WANTED).json()["id"]


def test_while_the_queue_is_away_nothing_is_doubled_and_no_project_stays_without_its_job(
    setup: Setup, waiting: Waiting
) -> None:
    api, key, name = setup.api(), _key(), uuid.uuid4().hex
    api.wait_until("/ready")
    page = setup.frontend(api.url)
    page.wait_until("/health")
    form = {"name": f"page {name}", "kind": "write_skeleton", "key": uuid.uuid4().hex * 2}
    setup.redis.stop()
    try:
        assert api.post("/projects", json={**WANTED, "name": name}).status_code == 503
        assert _named(setup, name) == [], "a client without a key cannot ask for the same again"
        assert api.post("/projects", json={**WANTED, "name": name}, headers=key).status_code == 503
        assert page.post("/app/projects", data=form).status_code == 503
    finally:
        setup.redis.start()
    worker = setup.worker()
    worker.wait_until("/ready")
    again = api.post("/projects", json={**WANTED, "name": name}, headers=key)
    assert again.status_code == 201, again.text
    sent_again = page.post("/app/projects", data=form)
    assert sent_again.status_code == 303, sent_again.text
    waiting("the job's end", lambda: _state(api, again.json()) == "done", worker.said)
    for each in (name, form["name"]):
        assert [jobs for _, jobs in _named(setup, each)] == [1], "one project, and the job that was asked for"


def test_the_projects_of_an_account_are_in_nobody_elses_list_and_go_with_it(
    setup: Setup, api: Service, worker: Service, waiting: Waiting
) -> None:
    somebody = user_account.somebody()
    assert api.post("/auth/register", json=somebody).status_code == 201
    token = api.post("/auth/login", json=somebody).json()["access_token"]
    own = {"Authorization": f"Bearer {token}"}
    made = api.post("/projects", json=WANTED, headers=own).json()
    waiting("the job's end", lambda: _state(api, made) == "done", worker.said)
    assert made["id"] in {each["id"] for each in api.get("/projects?limit=100", headers=own).json()}
    assert made["id"] not in {each["id"] for each in api.get("/projects?limit=100").json()}
    logged_out = api.get("/projects", headers={"Authorization": "Bearer x"})
    assert logged_out.status_code == 401, "who is logged out must not think that all is gone"
    assert api.delete("/auth/me", headers=own).status_code == 204
    assert _rows(setup, made["id"]) == (0, 0)
    assert api.post("/projects", json=WANTED, headers=own).status_code == 401, "the token is worth nothing now"


@pytest.mark.usefixtures("alone")
def test_a_job_whose_project_is_gone_is_no_failure_of_the_worker(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")
    made = api.post("/projects", json=WANTED).json()
    setup.postgres.ask(lambda c: c.execute("DELETE FROM projects WHERE id = $1", uuid.UUID(made["id"])))
    worker = setup.worker()
    waiting("the job", lambda: "job was removed, with its project" in worker.said(), worker.said)
    assert worker.metric('worker_jobs_total{status="failed"}') == 0, "an alert counts on this metric"


THROWS = """\
import sys
import arq
import samokoder.worker.main as main
def thrown(*_): raise LookupError("tomorrow")
main.skeleton = thrown
arq.run_worker(main.WorkerSettings)
"""


def _as_user(api: Service) -> user_account.Said:
    with httpx.Client(timeout=30, trust_env=False) as client:
        return user_account.write_and_read(client, api.url, user_account.somebody(), seconds=6)


def _owned(setup: Setup) -> int:
    count: int = setup.postgres.ask(lambda c: c.fetchval("SELECT count(*) FROM projects WHERE owner_id IS NOT NULL"))
    return count


def test_the_smoke_test_has_a_real_job_done_and_leaves_nothing(setup: Setup, api: Service, worker: Service) -> None:
    assert worker.running
    assert "the worker has done a job" in _as_user(api).job()
    assert _owned(setup) == 0


@pytest.mark.usefixtures("alone")
def test_a_worker_whose_database_password_is_stale_is_not_ready_and_does_no_job(
    setup: Setup, api: Service, waiting: Waiting
) -> None:
    good = setup.secrets["samokoder_database_url"]
    setup.secrets["samokoder_database_url"] = good.replace(setup.postgres.application_password, "Jd83nqPz81Lm0Xw4")
    stale = setup.worker()
    setup.secrets["samokoder_database_url"] = good
    stale.wait_until("/health")
    waiting("readiness", lambda: stale.get("/ready").json().get("redis") == "ok", stale.said)
    answer = stale.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["database"].startswith("failed: "), "a deploy waits for readiness"
    with pytest.raises(FailedError, match="the worker has not done a job within 6 s: it is queued"):
        _as_user(api).job()
    assert _owned(setup) == 0


@pytest.mark.usefixtures("alone")
def test_a_worker_whose_code_throws_is_ready_and_fails_the_smoke_tests_job(setup: Setup, api: Service) -> None:
    worker = setup.worker()
    worker.stop(signal.SIGKILL)
    worker.command = [sys.executable, "-c", THROWS]
    worker.start()
    worker.wait_until("/ready")
    with pytest.raises(FailedError, match="the worker has ended a job as failed: failed: LookupError"):
        _as_user(api).job()
    assert _owned(setup) == 0
