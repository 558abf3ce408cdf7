"""What is stored encrypted under APP_SECRET_KEY."""

from __future__ import annotations

import secrets
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.reference_app.conftest import Postgres, Service, Setup

NOTES = "Ask for Ünal's recipes;\nkeep the budget to ourselves."


def _stored(postgres: Postgres, project: str) -> bytes:
    sealed: bytes = postgres.ask(
        lambda c: c.fetchval("SELECT sealed_notes FROM projects WHERE id = $1", uuid.UUID(project))
    )
    return sealed


def _with_notes(api: Service) -> str:
    answer = api.post("/projects", json={"name": "x", "notes": NOTES})
    assert (answer.status_code, answer.json()["notes"]) == (201, NOTES), answer.text
    project: str = answer.json()["id"]
    return project


def test_notes_are_encrypted_in_the_database_and_read_back_by_the_api(api: Service, postgres: Postgres) -> None:
    project, same = _with_notes(api), _with_notes(api)
    stored = _stored(postgres, project)
    assert stored
    assert not any(word.encode() in stored for word in ("recipes", "budget", "ourselves"))
    assert stored != _stored(postgres, same), "the same text must not look the same"
    assert api.get(f"/projects/{project}").json()["notes"] == NOTES
    assert "notes" not in api.get("/projects").json()[0]
    assert "recipes" not in api.said()


def test_a_project_without_notes_has_none(api: Service, postgres: Postgres) -> None:
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    assert api.get(f"/projects/{project}").json()["notes"] is None
    assert _stored(postgres, project) is None


def test_notes_outlive_a_restart_and_another_key_reads_nothing_and_says_so(setup: Setup) -> None:
    first = setup.api()
    first.wait_until("/ready")
    project, plain = _with_notes(first), first.post("/projects", json={"name": "plain"}).json()["id"]
    first.stop()
    again = setup.api()
    again.wait_until("/ready")
    assert again.get(f"/projects/{project}").json()["notes"] == NOTES, "a restart derives the same key"
    setup.secrets["app_secret_key"] = secrets.token_urlsafe(64)
    other = setup.api()
    other.wait_until("/ready")
    refused = other.get(f"/projects/{project}")
    assert (refused.status_code, refused.json()) == (
        500,
        {"detail": "stored data is not readable with this APP_SECRET_KEY"},
    )
    assert "stored data is not readable with this APP_SECRET_KEY" in other.said(), "the log tells the operator"
    assert "Traceback" not in other.said()
    assert other.get("/projects").status_code == 200, "one unreadable project must not hide all others"
    assert other.get(f"/projects/{plain}").status_code == 200
    series = 'samokoder_http_requests_total{endpoint="/projects/{project_id}",method="GET",status="500"}'
    assert other.metric(series) == 1, "and an alert can see it"


def test_bytes_that_nobody_encrypted_are_refused_too(api: Service, postgres: Postgres) -> None:
    project = _with_notes(api)
    postgres.ask(lambda c: c.execute("UPDATE projects SET sealed_notes = 'forged' WHERE id = $1", uuid.UUID(project)))
    assert api.get(f"/projects/{project}").status_code == 500
    assert api.get("/health").status_code == 200
