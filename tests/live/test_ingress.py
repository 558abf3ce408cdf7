"""The way in of a stack that is up; the configuration itself is tried in tests/render/test_ingress.py."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Iterator
from typing import Any

import docker
import httpx
import pytest

from operations.engine import containers
from stack.parts.ingress.caddyfile import COUNTED_HANDLER
from stack.settings.environment import Environment
from tests.live.conftest import prometheus, url
from tests.live.test_the_stack import until

# Its users come early, so that they have been there for five minutes when test_traffic.py asks.
pytestmark = pytest.mark.usefixtures("traffic")

LIMIT_OF_AUTH_ME = 50


@pytest.fixture(name="user")
def a_user(environment: Environment) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url(environment, "ingress"), timeout=60) as client:
        yield client


def test_the_application_is_published_by_the_ingress_alone_and_on_loopback(
    engine: docker.DockerClient, environment: Environment
) -> None:
    for part in ("api-1", "api-2", "worker", "postgres", "redis"):
        bound = containers.find(engine, environment, part).attrs["HostConfig"]["PortBindings"]
        assert not bound, f"{part} can be reached past the ingress, its limits and its log"
    (bound,) = containers.find(engine, environment, "ingress").attrs["HostConfig"]["PortBindings"].values()
    assert [binding["HostIp"] for binding in bound] == ["127.0.0.1"]
    port = environment.settings.ingress.port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as elsewhere:
        elsewhere.settimeout(5)
        own = socket.gethostbyname(socket.gethostname())
        if not own.startswith("127."):
            assert elsewhere.connect_ex((own, port)) != 0, "reached from outside the host"


def test_the_api_answers_through_it_and_its_metrics_to_this_machine_alone(user: httpx.Client) -> None:
    assert user.get("/health").status_code == httpx.codes.OK
    assert user.get("/projects").status_code == httpx.codes.OK
    here = user.get("/metrics")
    assert (here.status_code, "samokoder_http_requests_total{" in here.text) == (httpx.codes.OK, True), (
        "the owner's acceptance asks for Prometheus' metrics at http://localhost:8000/metrics"
    )
    for headers in ({"Host": "samokoder.example.org"}, {"X-Forwarded-For": "203.0.113.9"}):
        for path in ("/metrics", "/metrics/", "/%6detrics"):
            assert user.get(path, headers=headers).status_code == httpx.codes.NOT_FOUND, (headers, path)


def test_the_first_answer_names_the_product_as_the_owners_smoke_script_asks(user: httpx.Client) -> None:
    first = user.get("/", follow_redirects=False)
    assert "Samokoder" in first.text, f"{first.status_code} {first.headers}"


def test_the_page_is_what_a_browser_gets_and_asks_the_api_for_its_user(user: httpx.Client) -> None:
    page = user.get("/", follow_redirects=True)
    assert (page.url.path, page.status_code) == ("/app/", httpx.codes.OK)
    name = f"from the page {secrets.token_hex(4)}"
    sent = user.post("/app/projects", data={"name": name, "kind": "write_skeleton"})
    assert sent.status_code == httpx.codes.SEE_OTHER, sent.text
    assert name in user.get("/app/").text
    assert user.get(sent.headers["Location"]).status_code == httpx.codes.OK


def test_an_invented_address_does_not_help_against_the_limit_of_requests(user: httpx.Client) -> None:
    statuses = [
        user.get("/auth/me", headers={"X-Forwarded-For": f"203.0.113.{number}"}).status_code
        for number in range(LIMIT_OF_AUTH_ME + 5)
    ]
    assert set(statuses[:10]) == {httpx.codes.UNAUTHORIZED}
    assert statuses[-1] == httpx.codes.TOO_MANY_REQUESTS, "whoever invents addresses is never stopped"


def test_what_is_too_large_does_not_reach_the_application(user: httpx.Client, environment: Environment) -> None:
    body = b"x" * (environment.settings.ingress.max_body_mib * 2**20 + 1)
    assert user.post("/projects", content=body).status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE


def test_a_jobs_events_come_one_by_one(user: httpx.Client) -> None:
    project = user.post("/projects", json={"name": "stream through the ingress"}).json()["id"]
    job = user.post(f"/projects/{project}/jobs", json={"name": "write_skeleton"}).json()["id"]
    with user.stream("GET", f"/jobs/{job}/events") as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in events.headers
        lines = events.iter_lines()
        assert any(line.startswith("data:") for line in lines)


def test_a_request_is_found_in_the_log_of_both_by_its_id_and_no_secret_is(
    user: httpx.Client, engine: docker.DockerClient, environment: Environment
) -> None:
    secret = f"never-to-be-logged-{secrets.token_hex(8)}"
    headers = {"Authorization": f"Bearer {secret}", "Cookie": f"session={secret}"}
    reply = user.get("/projects", params={"token": secret}, headers=headers)
    identity = reply.headers["X-Request-Id"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert not {"server", "via"} & set(reply.headers)

    def log(part: str) -> str:
        return containers.find(engine, environment, part).logs(since=int(time.time()) - 60).decode()

    entry = until(lambda: [line for line in log("ingress").splitlines() if identity in line], bool)
    assert json.loads(entry[0])["request"]["uri"] == "/projects?REDACTED"
    both = log("api-1") + log("api-2")
    assert identity in both, "the application's lines about this request cannot be found"
    assert secret not in log("ingress")


def test_no_log_of_any_part_has_what_a_user_keeps_to_himself(
    user: httpx.Client, engine: docker.DockerClient, environment: Environment
) -> None:
    begun = int(time.time()) - 1
    account = {"email": f"{secrets.token_hex(8)}@example.org", "password": secrets.token_urlsafe(24)}
    other = {**account, "password": secrets.token_urlsafe(24)}

    def ask(method: str, path: str, **more: Any) -> httpx.Response:
        """Ask again while the limit of requests, which all tests share, is used up."""
        limited = httpx.codes.TOO_MANY_REQUESTS
        return until(lambda: user.request(method, path, **more), lambda answer: answer.status_code != limited, 300)

    assert ask("POST", "/auth/register", json=account).status_code == httpx.codes.CREATED
    assert ask("POST", "/auth/register", json=account).status_code == httpx.codes.CONFLICT
    assert ask("POST", "/auth/login", json={**account, "email": [other]}).status_code == 422
    assert ask("POST", "/auth/login", json=other).status_code == httpx.codes.UNAUTHORIZED
    refused = ask("POST", "/auth/login", json={**account, "more": "x" * 70_000})
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    token = ask("POST", "/auth/login", json=account).json()["access_token"]
    broken = ask("DELETE", "/auth/me", headers={"Authorization": f"Bearer {token}x"})
    assert broken.status_code == httpx.codes.UNAUTHORIZED
    last = ask("DELETE", "/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert last.status_code == httpx.codes.NO_CONTENT
    identity = last.headers["X-Request-Id"].encode()

    def logs() -> dict[str, bytes]:
        parts = containers.of_environment(engine, environment.name)
        return {str(part.name): part.logs(since=begun) for part in parts}

    said = until(logs, lambda said: sum(identity in text for text in said.values()) == 2)
    assert sum(identity in text for text in said.values()) == 2, "the lines of the last request are not there yet"
    kept = {"e-mail": account["email"], "password": account["password"], "other": other["password"], "token": token}
    found = [(part, what) for part, text in said.items() for what, value in kept.items() if value.encode() in text]
    assert not found, f"whoever may read the logs gets it: {found}"
    of_refused = [
        line
        for part, text in said.items()
        for line in text.splitlines()
        if "-api-" in part and refused.headers["X-Request-Id"].encode() in line
    ]
    assert [json.loads(line)["status"] for line in of_refused] == [413], "one request is one line"
    assert json.loads(of_refused[0])["level"] == "info", "what a client does wrong is no error of ours"


def test_its_metrics_are_scraped_and_see_both_replicas_well(environment: Environment) -> None:
    query = 'caddy_reverse_proxy_upstreams_healthy{upstream=~"api-[0-9]+:8000"}'

    def replicas() -> dict[str, str]:
        found = prometheus(environment, "query", query=query)["result"]
        return {sample["metric"]["upstream"]: sample["value"][1] for sample in found}

    expected = {f"{part}:8000": "1" for part in environment.parts_of("api")}
    assert until(replicas, lambda found: found == expected) == expected
    counted = (
        f'sum(caddy_http_request_duration_seconds_count{{job="ingress",server="http",handler="{COUNTED_HANDLER}"}}) > 0'
    )
    assert until(lambda: prometheus(environment, "query", query=counted)["result"], bool), (
        "IngressErrorRateHigh is mute"
    )
