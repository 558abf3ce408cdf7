"""A job as a stream of Server-Sent Events."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[[str, Callable[[], object]], object]
ENDPOINT = "/jobs/{job_id}/events"
REQUESTS = f'samokoder_http_requests_total{{endpoint="{ENDPOINT}",method="GET",status="200"}}'
TOOK = f'samokoder_http_request_duration_seconds_sum{{endpoint="{ENDPOINT}",method="GET"}}'
IN_PROGRESS = 'samokoder_http_requests_in_progress{method="GET"}'


def _submit(api: Service) -> str:
    project = api.post("/projects", json={"name": "x"}).json()["id"]
    job: str = api.post(f"/projects/{project}/jobs", json={}).json()["id"]
    return job


def _ready(setup: Setup) -> Service:
    api = setup.api()
    api.wait_until("/ready")
    return api


@contextlib.contextmanager
def _stream(api: Service, job: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the events as they come; comments are left out."""
    with api.client() as client, client.stream("GET", f"/jobs/{job}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no", "a proxy must not keep events back"
        lines = answer.iter_lines()
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def _set(setup: Setup, job: str, state: str) -> None:
    setup.postgres.ask(lambda c: c.execute("UPDATE jobs SET state = $1 WHERE id = $2", state, uuid.UUID(job)))


def test_a_stream_ends_with_the_job_and_its_result(api: Service, worker: Service) -> None:
    assert worker.alive()
    job = _submit(api)
    with _stream(api, job) as events:
        seen = list(events)
    assert seen[-1] == api.get(f"/jobs/{job}").json(), "an event is the job as polling shows it"
    assert seen[-1]["state"] == "done"
    assert "1 lines" not in seen[-1]["result"]
    order = ["queued", "running", "done"]
    states = [event["state"] for event in seen]
    assert states == sorted(set(states), key=order.index), "each state once, in its order"
    with _stream(api, job) as events:
        assert [event["state"] for event in events] == ["done"], "who comes late gets the end at once"


@pytest.mark.usefixtures("alone")
def test_each_change_is_sent_when_it_happens_and_a_stream_that_is_open_is_no_request_in_progress(setup: Setup) -> None:
    api = _ready(setup)
    job = _submit(api)
    before = api.metric(IN_PROGRESS)
    assert api.metric(REQUESTS) == 0, "a counter that is born at 1 has no increase then"
    with _stream(api, job) as events:
        assert next(events)["state"] == "queued"
        assert api.metric(IN_PROGRESS) == before == 0, "a job of minutes must not look like a slow API"
        assert api.metric(REQUESTS) == 1, "it is counted when it begins"
        took = api.metric(TOOK)
        _set(setup, job, "running")
        assert next(events)["state"] == "running"
        _set(setup, job, "queued")
        assert next(events)["state"] == "queued", "a job that was given back"
        _set(setup, job, "failed")
        assert next(events)["state"] == "failed"
        assert list(events) == [], "a failed job ends the stream too"
    assert (api.metric(REQUESTS), api.metric(TOOK), api.metric(IN_PROGRESS)) == (1, took, 0)


def test_a_stream_of_no_job_is_not_found_and_counted_as_such(api: Service) -> None:
    answer = api.get(f"/jobs/{uuid.uuid4()}/events")
    assert (answer.status_code, answer.json()) == (404, {"detail": "no such job"})
    assert api.metric(REQUESTS.replace("200", "404")) is not None
    assert api.metric(IN_PROGRESS) == 0


@pytest.mark.usefixtures("alone")
def test_clients_that_go_away_leave_nothing_behind(setup: Setup, waiting: Waiting) -> None:
    api = _ready(setup)
    job = _submit(api)

    def connections() -> int:
        count: int = setup.postgres.ask(
            lambda c: c.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'samokoder-api' AND state <> 'idle'"
            ),
            superuser=True,
        )
        return count

    for _ in range(15):  # more than the pool has connections
        with _stream(api, job) as events:
            next(events)
    line = '"route": "/jobs/{job_id}/events"'
    waiting("the end of each in the log", lambda: api.said().count(line) == 15)
    waiting("no statement that runs on", lambda: connections() == 0)
    assert "Traceback" not in api.said(), api.said()
    assert (api.metric(REQUESTS), api.metric(IN_PROGRESS)) == (15, 0)
    assert api.get(f"/jobs/{job}").status_code == 200


@pytest.mark.usefixtures("alone")
def test_more_streams_than_database_connections_are_open_together(setup: Setup) -> None:
    api = _ready(setup)
    job = _submit(api)
    with contextlib.ExitStack() as many:
        streams = [many.enter_context(_stream(api, job)) for _ in range(25)]
        assert {next(events)["state"] for events in streams} == {"queued"}
        _set(setup, job, "running")
        assert {next(events)["state"] for events in streams} == {"running"}
        assert api.get(f"/jobs/{job}").status_code == 200, "streams hold no connection while nothing happens"


@pytest.mark.usefixtures("alone")
def test_a_stop_ends_streams_at_once_and_cleanly(setup: Setup) -> None:
    api = _ready(setup)
    job = _submit(api)
    with ThreadPoolExecutor(1) as pool, _stream(api, job) as events:
        assert next(events)["state"] == "queued"
        rest = pool.submit(list, events)
        begun = time.monotonic()
        api.running.send_signal(signal.SIGTERM)
        assert rest.result() == [], "a clean end: httpx would raise where the connection broke off"
        assert api.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 15, "a deploy must not wait for a stream until it is cut off (25 s)"
    assert '"stopped"' in api.said()
    assert "Traceback" not in api.said(), api.said()
    assert "timeout graceful shutdown" not in api.said()


@pytest.mark.usefixtures("alone")
def test_a_stream_outlives_a_short_absence_of_the_database(setup: Setup, waiting: Waiting) -> None:
    api = _ready(setup)
    job = _submit(api)
    with _stream(api, job) as events:
        assert next(events)["state"] == "queued"
        setup.postgres.stop(signal.SIGINT)
        try:
            refused = 'samokoder_db_errors_total{error_type="ConnectionRefusedError"}'
            waiting("a look that failed", lambda: (api.metric(refused) or 0) > 0)
        finally:
            setup.postgres.start()
        _set(setup, job, "done")
        assert [event["state"] for event in events] == ["done"]


@pytest.mark.usefixtures("alone")
def test_a_heartbeat_keeps_a_quiet_stream_open(setup: Setup) -> None:
    api = _ready(setup)
    job = _submit(api)
    with httpx.stream("GET", f"{api.url}/jobs/{job}/events", timeout=20) as answer:
        lines = answer.iter_lines()
        comment = next(line for line in lines if line.startswith(":"))
    assert comment == ": ping", "within 20 s, before a proxy takes the stream for dead"
