"""The reference page, in front of the real API and worker."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from samokoder.db import JobName

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[..., object]
NOWHERE = "http://127.0.0.1:9"
CONTENT_SECURITY_POLICY = "default-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def _page(setup: Setup, api_url: str, **environment: str) -> Service:
    page = setup.frontend(api_url, **environment)
    page.wait_until("/health")
    return page


def _ready_api(setup: Setup, **environment: str) -> Service:
    api = setup.api(**environment)
    api.wait_until("/ready")
    return api


def _create(page: Service, name: str, kind: str = "write_skeleton", **headers: str) -> httpx.Response:
    return page.post("/app/projects", data={"name": name, "kind": kind}, headers=headers)


def _submit(page: Service) -> str:
    """Give the path of a new job's page."""
    answer = _create(page, "x")
    assert answer.status_code == 303, answer.text
    path: str = answer.headers["location"]
    return path


@contextlib.contextmanager
def _stream(page: Service, job: str) -> Iterator[Iterator[dict[str, Any]]]:
    with page.client() as client, client.stream("GET", f"{job}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def _set(setup: Setup, job: str, state: str) -> None:
    key = uuid.UUID(job.rpartition("/")[2])
    setup.postgres.ask(lambda c: c.execute("UPDATE jobs SET state = $1 WHERE id = $2", state, key))


def _projects(api: Service) -> set[str]:
    return {project["name"] for project in api.get("/projects?limit=100").json()}


def _facts(answer: httpx.Response) -> dict[str, str]:
    """Give what the page lists: name -> value."""
    return dict(re.findall(r"<dt>(.*?)</dt><dd[^>]*>\s*(.*?)\s*</dd>", answer.text))


def _said(page: Service, path: str = "/app/", **more: Any) -> tuple[int, str]:
    """Give the status and what the page's alert says."""
    answer = page.get(path, **more)
    found = re.search(r'<p role="alert">(.*?)</p>', answer.text, re.DOTALL)
    return answer.status_code, " ".join(found[1].split()) if found else ""


def test_the_page_shows_how_the_api_is_and_keeps_other_sites_out(setup: Setup, api: Service) -> None:
    page = _page(setup, api.url)
    answer = page.get("/app/")
    assert answer.status_code == 200
    about = api.get("/").json()
    assert _facts(answer) == {
        "API": "ok",
        "Ready": "ok",
        "Database": "ok",
        "Redis": "ok",
        "Version": about["version"],
        "Environment": "test",
    }
    assert re.findall(r'<option value="(\w+)">', answer.text) == list(JobName), "every kind of job can be chosen"
    assert '<html lang="en">' in answer.text
    labelled = set(re.findall(r'<label for="(\w+)"', answer.text))
    assert labelled == set(re.findall(r'<(?:input|select) id="(\w+)"', answer.text)), "every field has its label"
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", answer.text), "nothing inline"
    for path in ("/app/", "/app/static/job.js", "/nothing", f"/app/jobs/{uuid.uuid4()}/events"):
        headers = page.get(path).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY, path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-request-id"], path


def test_all_paths_lie_below_app_but_the_entry_and_the_health_check(setup: Setup) -> None:
    page = _page(setup, NOWHERE)
    entry = page.get("/")
    assert (entry.status_code, entry.headers["location"]) == (307, "/app/")
    assert "Samokoder" in entry.text, "the owner's smoke script reads the name and follows nowhere"
    assert page.get("/health").json() == {"status": "ok"}, "liveness asks nobody"
    for path in ("/projects", "/jobs/x", "/ready", "/metrics", "/docs"):
        assert page.get(path).status_code == 404, "what is the API's is not here"
    assert page.get("/app/static/../../frontend.py").status_code == 404
    assert page.get("/app/static/%2e%2e/templates/home.html").status_code == 404, "static files and no others"


def test_a_form_makes_a_project_with_a_job_whose_page_shows_it(setup: Setup, api: Service, waiting: Waiting) -> None:
    page = _page(setup, api.url)
    name = "<script>alert(1)</script> & Söhne"
    answer = _create(page, name)
    assert answer.status_code == 303, "so that a reload submits nothing again"
    path = answer.headers["location"]
    assert path.startswith("/app/jobs/"), "a path, which is right under any host name"
    waiting("the end of the job", lambda: _facts(page.get(path))["State"] == "done")
    shown = page.get(path).text
    assert "sha256" in shown, "its result"
    assert "http-equiv" not in shown, "what is over is not watched"
    assert "job.js" not in shown
    listed = page.get("/app/").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Söhne" in listed
    assert "<script>alert" not in listed, "a name is text"
    assert "TITLE = " in listed, "what the worker wrote"


@pytest.mark.usefixtures("alone")
def test_a_job_is_watched_as_it_goes_with_a_script_or_without(setup: Setup) -> None:
    page = _page(setup, _ready_api(setup).url)
    job = _submit(page)
    shown = page.get(job).text
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in shown
    assert f'data-events="{job}/events"' in shown
    with _stream(page, job) as events:
        for state in ("queued", "running", "failed"):
            _set(setup, job, state)
            assert next(events)["state"] == state, "each change when it happens: nothing is buffered"
        assert list(events) == [], "and then the end"


@pytest.mark.usefixtures("alone")
def test_more_streams_than_a_pool_of_connections_has_are_open_together(setup: Setup) -> None:
    page = _page(setup, _ready_api(setup).url)
    job = _submit(page)
    with contextlib.ExitStack() as many:
        streams = [many.enter_context(_stream(page, job)) for _ in range(110)]  # httpx would open 100
        assert {next(events)["state"] for events in streams} == {"queued"}
        assert page.get(job).status_code == 200


@pytest.mark.usefixtures("alone")
def test_who_goes_away_leaves_no_stream_behind_at_the_api(setup: Setup, waiting: Waiting) -> None:
    api = _ready_api(setup)
    page = _page(setup, api.url)
    job = _submit(page)
    for _ in range(3):
        with _stream(page, job) as events:
            next(events)
    waiting("the end of each in the API's log", lambda: api.said().count('"route": "/jobs/{job_id}/events"') == 3)
    assert "Traceback" not in page.said(), page.said()


@pytest.mark.usefixtures("alone")
def test_a_stop_of_the_page_ends_its_streams_at_once_and_cleanly(setup: Setup) -> None:
    page = _page(setup, _ready_api(setup).url)
    job = _submit(page)
    with ThreadPoolExecutor(1) as pool, _stream(page, job) as events:
        assert next(events)["state"] == "queued"
        rest = pool.submit(list, events)
        begun = time.monotonic()
        page.running.send_signal(signal.SIGTERM)
        assert rest.result() == [], "a clean end: httpx would raise where the connection broke off"
        assert page.ended() in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 15, "a deploy must not wait for a stream until it is cut off (25 s)"
    assert "Traceback" not in page.said(), page.said()


@pytest.mark.usefixtures("alone")
def test_an_api_that_dies_ends_a_stream_without_a_traceback(setup: Setup) -> None:
    api = _ready_api(setup)
    page = _page(setup, api.url)
    job = _submit(page)
    with _stream(page, job) as events:
        assert next(events)["state"] == "queued"
        api.stop(signal.SIGKILL)
        assert list(events) == [], "the browser opens it again"
    answer = page.get(f"{job}/events")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Traceback" not in page.said(), page.said()


def test_an_api_that_is_away_is_said_with_503_until_it_is_back(setup: Setup) -> None:
    api = _ready_api(setup)
    page = _page(setup, api.url)
    assert _said(page) == (200, "")
    api.stop(signal.SIGKILL)
    away = "The API does not answer. Try again in 5 seconds."
    for path in ("/app/", f"/app/jobs/{uuid.uuid4()}"):
        assert _said(page, path) == (503, away)
        assert page.get(path).headers["retry-after"] == "5"
    assert _create(page, "x").status_code == 503
    assert page.get("/health").status_code == 200, "the page itself lives"
    assert "Traceback" not in page.said(), page.said()
    assert '"reason": "ConnectError"' in page.said(), "the log says why"
    api.start()
    api.wait_until("/ready")
    assert _said(page) == (200, "")


def test_the_page_says_which_part_behind_the_api_is_away(setup: Setup) -> None:
    api = setup.api(REDIS_PORT="9")
    api.wait_until("/health")
    page = _page(setup, api.url)
    answer = page.get("/app/")
    assert answer.status_code == 503
    assert _facts(answer)["Database"] == "ok"
    assert re.match("failed|no answer", _facts(answer)["Redis"])
    assert "Newest projects" in answer.text, "what can be asked is shown"


def test_whoever_else_is_at_the_address_of_the_api_breaks_nothing(setup: Setup) -> None:
    other = _page(setup, NOWHERE)
    page = _page(setup, other.url)
    assert _said(page) == (404, "The API says: status 404.")
    answer = page.get("/app/")
    assert _facts(answer)["Version"] == "unknown", "a redirect is no answer of the API"
    assert "Traceback" not in page.said(), page.said()


def test_a_limit_of_the_api_is_shown_with_its_end(setup: Setup) -> None:
    page = _page(setup, _ready_api(setup, RATE_LIMITS=json.dumps({"POST /projects": 1})).url)
    assert _create(page, "first").status_code == 303
    answer = _create(page, "second")
    assert answer.status_code == 429
    seconds = int(answer.headers["retry-after"])
    assert 0 < seconds <= 60
    assert "The API says: too many requests." in answer.text
    assert f"Try again in {seconds} seconds." in answer.text


def test_a_client_is_limited_by_its_own_address_and_no_forged_header_helps(setup: Setup) -> None:
    ingress = "127.0.0.1/32"
    api = _ready_api(setup, RATE_LIMITS=json.dumps({"POST /projects": 2}), TRUSTED_PROXIES=ingress)
    page = _page(setup, api.url, TRUSTED_PROXIES=ingress)

    def statuses(address: str, *forwarded: str) -> list[int]:
        form = {"name": "x", "kind": "write_skeleton"}
        with page.client(address) as client:
            return [
                client.post("/app/projects", data=form, headers={"x-forwarded-for": name} if name else {}).status_code
                for name in forwarded
            ]

    assert statuses("127.0.0.2", "", "203.0.113.1", "203.0.113.2") == [303, 303, 429], "a forged header is ignored"
    assert statuses("127.0.0.3", "", "", "") == [303, 303, 429], "another client has its own"
    forged = ("6.6.6.6, 203.0.113.9", "7.7.7.7, 203.0.113.9", "203.0.113.9", "203.0.113.10")
    assert statuses("127.0.0.1", *forged) == [303, 303, 429, 303], "from the ingress, the last address counts"
    assert '"client": "203.0.113.9"' in api.said(), "and the API's log has it too"
    nonsense = {"x-forwarded-for": b"\xe9\t, 127.0.0.1"}
    assert page.get("/app/", headers=nonsense).status_code == 200, "any text where all hops are trusted"


def test_a_request_has_one_id_in_the_logs_of_both(setup: Setup, api: Service, waiting: Waiting) -> None:
    page = _page(setup, api.url)
    name = f"test-{uuid.uuid4()}"
    assert page.get("/app/", headers={"x-request-id": name}).headers["x-request-id"] == name
    for part in (page, api):
        line = re.compile(rf'"route": "/[^\n]*"request_id": "{name}"|"request_id": "{name}"[^\n]*"route": "/')
        # It is written once the answer is on its way.
        waiting("its line in the log", lambda line=line, part=part: line.search(part.said()), part.said)
    assert {line["part"] for line in map(json.loads, page.said().splitlines())} == {"frontend"}, "JSON, every line"


def test_a_form_of_another_site_makes_nothing(setup: Setup, api: Service) -> None:
    page = _page(setup, api.url)
    name, host = f"forged {uuid.uuid4()}", page.url.removeprefix("http://")
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": page.url},
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": f"http://{host}.evil.test"},
    ):
        assert _create(page, name, **headers).status_code == 403, headers
    assert name not in _projects(api)
    for good in ({"sec-fetch-site": "same-origin"}, {"origin": page.url}, {"origin": f"https://{host}"}, {}):
        assert _create(page, name, **good).status_code == 303, good


def test_what_the_api_would_refuse_is_said_and_makes_nothing(setup: Setup, api: Service) -> None:
    page = _page(setup, api.url)
    name = f"refused {uuid.uuid4()}"
    answer = _create(page, name, kind="rm")
    assert (answer.status_code, "There is no such kind of job." in answer.text) == (422, True)
    assert page.post("/app/projects", content=b"\xff\x00&&=&name").status_code == 422
    for wrong in ("", "  ", "x" * 101, "\0"):
        answer = _create(page, wrong)
        assert answer.status_code == 422, repr(wrong)
        assert "The API says: name: String should" in answer.text
    assert page.post("/app/projects", content=b"x" * 70_000).status_code == 413
    assert name not in _projects(api)
    assert _said(page, f"/app/jobs/{uuid.uuid4()}") == (404, "The API says: no such job.")
    assert page.get("/app/jobs/..%2f..%2fprojects").status_code == 404
    assert page.get(f"/app/jobs/{uuid.uuid4()}/events").status_code == 404
    assert "Traceback" not in page.said(), page.said()


@pytest.mark.parametrize("wrong", ["", "ingress:8000", "http://user:pw@ingress", "http://ingress/path"])
def test_an_address_of_the_api_that_cannot_be_one_ends_the_start_with_one_line(setup: Setup, wrong: str) -> None:
    page = setup.frontend(wrong)
    assert page.ended() == 78
    assert page.said() == "samokoder's page refuses to start: API_URL must be like http://ingress:8000\n"
