"""The labels for a Traefik of the team's own, read by a real one, in front of servers that say what reached them."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from operations.engine import laboratory as laboratories
from stack.parts.ingress.traefik import traefik_labels
from stack.settings.environment import Environment
from stack.spec import health
from tests.render.conftest import wait_until
from tests.render.test_ingress import (
    BY_PATH,
    METRICS_SPELLINGS,
    SCRATCH,
    SERVER,
    assert_headers_for_browsers,
    with_images,
)
from tests.traefik import SECURE, WEB, Traefik, address_on, traefik, traefiks_network

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

# Beside test_traefik.py, so that a night's run compiles Traefik in one place; the first run of a version does.
pytestmark = [pytest.mark.deploy, pytest.mark.timeout(3600)]

PREFIX = "/api"
ILL = f"{SCRATCH}/ill"
MOST_BYTES = 2**20
#: Host name -> further settings of the environment that is reached by it.
SITES: Mapping[str, Mapping[str, Any]] = {
    "page.example.org": {"frontend": {"enabled": True}, "ingress": {"stripPrefix": PREFIX}},
    "alone.example.org": {"ingress": {"stripPrefix": PREFIX}},
    "plain.example.org": {},
    "secure.example.org": {"ingress": {"traefik": {"entrypoint": "websecure", "certResolver": "letsencrypt"}}},
}
PAGE, ALONE, PLAIN, SECURED = SITES

# Alive always, and ready unless /tmp/ill is there: what the API is while Redis is away.
READY_OR_NOT = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path == "/ready" and os.path.exists("/tmp/ill") else 200)
        self.end_headers()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


class World:
    """Traefik and what it serves, each site with two replicas named `api-1.<site>` and `api-2.<site>`."""

    def __init__(self, client: docker.DockerClient, made: Traefik, labels: Mapping[str, str]) -> None:
        self.client, self.traefik, self.labels = client, made, labels
        self.environments: dict[str, Environment] = {}

    def start(
        self, site: str, name: str, service: str, port: int, *, server: str = SERVER, **options: Any
    ) -> Container:
        environment = self.environments[site]
        container: Container = self.client.containers.create(
            environment.image("python"),
            ["python", "-c", server, str(port)],
            hostname=f"{name}.{site}",
            network=self.traefik.network.name,
            labels={**self.labels, **traefik_labels(environment, service, port)},
            init=True,
            stop_signal="SIGKILL",
            **options,
        )
        container.start()
        return container

    def ask(self, site: str, path: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Ask for exactly this path and return what reached a server."""
        status, body = self.traefik.answer(path, site, headers)
        assert status == httpx.codes.OK, (path, status, body)
        return dict(json.loads(body))

    def service(self, site: str) -> str:
        return f"{self.environments[site].prefix}-api"

    def state(self, site: str, container: Container) -> str:
        """Return UP, DOWN, or `gone` where Traefik does not know the container."""
        inside = f"http://{address_on(container, self.traefik.network)}:8000"
        return self.traefik.servers(self.service(site)).get(inside, "gone")

    def up(self, site: str) -> int:
        """Tell how many replicas of a site's API are up to Traefik."""
        return Counter(self.traefik.servers(self.service(site)).values())["UP"]


@pytest.fixture(scope="module")
def world(engine: docker.DockerClient, local_images: Environment) -> Iterator[World]:
    with laboratories.opened(engine) as made:
        name = f"samokoder-traefik-{made.token}"
        with (
            traefiks_network(engine, name, made.labels) as (network, address),
            traefik(
                engine, local_images.image("node_exporter"), network, address, seen=made.labels, labels=made.labels
            ) as running,
        ):
            there = World(engine, running, made.labels)
            for number, (site, settings) in enumerate(SITES.items()):
                given = {"network": name, "address": address, "entrypoint": "web", "certResolver": ""}
                own = settings.get("ingress", {})
                entry = {"kind": "traefik", "domain": site, "maxBodyMib": MOST_BYTES // 2**20, **own}
                values = {**settings, "ingress": {**entry, "traefik": {**given, **own.get("traefik", {})}}}
                there.environments[site] = with_images(local_images, values, stack=f"site{number}")
                for replica in ("api-1", "api-2"):
                    there.start(site, replica, "api", 8000)
            there.start(PAGE, "frontend", "frontend", 8080)
            wait_until(running.container, lambda: all(there.up(site) == 2 for site in SITES))
            wait_until(running.container, lambda: running.answer("/", PAGE)[0] == httpx.codes.OK)
            yield there


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    """A user of the site with a page."""
    base = f"http://{world.traefik.address}:{WEB}"
    with httpx.Client(base_url=base, headers={"Host": PAGE}, timeout=60) as made:
        yield made


def test_traefik_takes_every_label_and_finds_no_mistake(world: World) -> None:
    for kind in ("routers", "services", "middlewares"):
        found = [each for each in world.traefik.own(f"http/{kind}") if each["provider"] == "docker"]
        assert found, kind
        assert not [each for each in found if each["status"] != "enabled" or each.get("error")], kind
    names = {each["name"] for each in world.traefik.own("http/routers")}
    declared = {
        router[1]
        for site, environment in world.environments.items()
        for service in (("api", "frontend") if site == PAGE else ("api",))
        for label in traefik_labels(environment, service, 8000)
        if (router := re.match(r"traefik\.http\.routers\.([\w-]+)\.rule$", label))
    }
    assert {f"{name}@docker" for name in declared} <= names
    log = world.traefik.container.logs(stdout=True).decode()
    assert "Unable to parse" not in log
    assert "field not found" not in log


@pytest.mark.parametrize(("path", "by"), [*BY_PATH, ("/api", "api")])
def test_the_apis_paths_go_to_the_api_and_all_else_to_the_frontend(world: World, path: str, by: str) -> None:
    assert world.ask(PAGE, path)["by"].partition("-")[0].partition(".")[0] == by


@pytest.mark.parametrize("site", [PAGE, ALONE])
@pytest.mark.parametrize(
    ("path", "reaches"),
    [("/api/v1/a%20b?c=d", "/v1/a%20b?c=d"), ("/api/", "/"), ("/api", "/"), ("/projects", "/projects")],
)
def test_the_api_gets_its_paths_without_the_prefix_that_users_know(
    world: World, site: str, path: str, reaches: str
) -> None:
    assert world.ask(site, path)["path"] == reaches


def test_what_only_begins_like_the_prefix_is_left_as_it_is(world: World) -> None:
    assert world.ask(ALONE, "/apiary/x")["path"] == "/apiary/x"


SPELLINGS = [
    *METRICS_SPELLINGS,
    # Traefik leaves a slash that is written so as it is.
    "/metrics%2F",
    "/metrics%2fanything",
    "/%2Fmetrics",
    "/api/metrics%2F",
    "/api%2Fmetrics",
    # With the prefix taken off wherever a path begins with its letters, this one is /metrics.
    "/apimetrics",
    "/api%6detrics",
    "/apimetrics/x",
]


@pytest.mark.parametrize("site", [PAGE, ALONE, PLAIN])
@pytest.mark.parametrize("path", SPELLINGS)
def test_the_metrics_are_not_for_the_world(world: World, site: str, path: str) -> None:
    status, body = world.traefik.answer(path, site)
    assert b"the metrics" not in body, "the metrics of the application, which are nobody's business outside"
    if status == httpx.codes.OK:
        reached = json.loads(body)
        seen = unquote(reached["path"].partition("?")[0])
        # An image with a root_path takes the prefix off once more.
        while site != PLAIN and seen.startswith(f"{PREFIX}/"):
            seen = seen.removeprefix(PREFIX)
        mine = reached["by"].startswith("api-") and re.match(r"(?is)/+metrics([/\s]|$)", seen)
        assert not mine, f"{path} came to the API as {reached['path']}"


@pytest.mark.parametrize("path", ["/projects", "/api/v1/projects"])
def test_nobody_outside_says_which_path_the_application_is_to_see(world: World, path: str) -> None:
    sent = {"SCRIPT_NAME": "/x", "PATH_INFO": "/metrics", "X-Mine": "kept"}
    got = {name.upper(): value for name, value in world.ask(PAGE, path, sent)["headers"].items()}
    assert got["X-MINE"] == "kept"
    assert not {"SCRIPT_NAME", "PATH_INFO"} & got.keys(), "an older Gunicorn serves another path than was asked for"


def test_every_replica_gets_its_share(world: World) -> None:
    by = Counter(world.ask(PAGE, "/projects")["by"] for _ in range(10))
    assert by == {f"api-1.{PAGE}": 5, f"api-2.{PAGE}": 5}, "all replicas of a service are one service to Traefik"


def test_an_address_of_ones_own_invention_is_not_believed(world: World) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.example", "X-Real-Ip": "203.0.113.9"}
    seen, plain = world.ask(PAGE, "/projects", forged)["headers"], world.ask(PAGE, "/projects")["headers"]
    assert seen["X-Forwarded-For"] == plain["X-Forwarded-For"], "whoever may choose an address has no limit"
    assert "," not in plain["X-Forwarded-For"]
    assert "203.0.113.9" not in json.dumps(seen)
    assert seen["X-Forwarded-Host"] == PAGE


def test_headers_for_browsers_are_set_and_the_server_is_not_named(client: httpx.Client) -> None:
    assert_headers_for_browsers(client.get("/projects").headers)


def test_by_tls_the_browser_is_told_to_stay_there(world: World) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE  # its own certificate: no authority is here
    base = f"https://{world.traefik.address}:{SECURE}"
    with httpx.Client(base_url=base, headers={"Host": SECURED}, verify=trusting, timeout=60) as client:
        answer = client.get("/projects")
    assert answer.json()["by"].endswith(SECURED)
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.json()["headers"]["X-Forwarded-Proto"] == "https"
    assert world.traefik.answer("/projects", SECURED)[0] == httpx.codes.NOT_FOUND, "without TLS it is nowhere"


@pytest.mark.parametrize("path", ["/projects", "/api/v1/projects", "/index.html"])
def test_a_request_that_is_too_large_is_refused(client: httpx.Client, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MOST_BYTES // 2**16 + 1):
            yield b"x" * 2**16

    for method in ("POST", "PUT", "PATCH"):
        refused = client.request(method, path, content=b"x" * (MOST_BYTES + 1))
        assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE, method
    assert client.post(path, content=pieces()).status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert client.post(path, content=b"x" * MOST_BYTES).json()["length"] == MOST_BYTES


def test_an_event_stream_comes_piece_by_piece_and_ends_with_its_client(client: httpx.Client) -> None:
    began = time.monotonic()
    with client.stream("GET", "/jobs/stream") as stream:
        first = next(stream.iter_raw())
    assert first.startswith(b"data: 0\n\n")
    assert time.monotonic() - began < 15, "the whole stream takes twenty seconds: it was held back"
    ended = any(client.get("/jobs/ended").status_code == httpx.codes.OK for _ in range(15))
    assert ended, "the application goes on for a client that is gone"


def test_a_replica_that_is_ill_or_gone_is_taken_out_and_let_in_again(world: World) -> None:
    ill = world.start(PLAIN, "api-3", "api", 8000)
    inside = f"http://{address_on(ill, world.traefik.network)}:8000"

    def state() -> str:
        # A container that has ended has no address any more.
        return world.traefik.servers(world.service(PLAIN)).get(inside, "gone")

    def until(good: Callable[[], bool]) -> None:
        wait_until(world.traefik.container, good)

    until(lambda: state() == "UP")
    assert ill.exec_run(["touch", ILL]).exit_code == 0
    until(lambda: state() == "DOWN")
    by = {world.ask(PLAIN, "/projects")["by"] for _ in range(12)}
    assert by == {f"api-1.{PLAIN}", f"api-2.{PLAIN}"}, "an ill replica answered"
    assert ill.exec_run(["rm", ILL]).exit_code == 0
    until(lambda: state() == "UP")
    until(lambda: world.ask(PLAIN, "/projects")["by"] == f"api-3.{PLAIN}")
    ill.kill()
    for _ in range(20):
        assert world.traefik.answer("/projects", PLAIN)[0] == httpx.codes.OK, "a request was lost with its replica"
    until(lambda: state() == "gone")
    ill.remove(force=True)
    assert {world.ask(PLAIN, "/projects")["by"] for _ in range(4)} == {f"api-1.{PLAIN}", f"api-2.{PLAIN}"}


@pytest.mark.parametrize(("later", "stays"), [("/health", True), ("", False)])
def test_who_is_not_ready_for_a_while_stays_in_traefik_because_the_engine_asks_for_life_alone(
    world: World, later: str, stays: bool
) -> None:
    check = {
        "test": ["CMD", *health.python(8000, "/ready", later=later)],
        "interval": 10**9,
        "timeout": 10 * 10**9,
        "retries": 2,
    }
    replica = world.start(PLAIN, "api-4", "api", 8000, server=READY_OR_NOT, healthcheck=check)
    try:
        wait_until(replica, lambda: world.state(PLAIN, replica) == "UP")
        assert replica.exec_run(["touch", ILL]).exit_code == 0
        asked = {each["Start"] for each in replica.attrs["State"]["Health"]["Log"]}

        def checked() -> bool:
            replica.reload()
            return len({each["Start"] for each in replica.attrs["State"]["Health"]["Log"]} - asked) > 4

        if stays:
            wait_until(replica, checked)
            assert replica.attrs["State"]["Health"]["Status"] == "healthy"
            assert world.state(PLAIN, replica) == "UP"
        else:
            wait_until(replica, lambda: world.state(PLAIN, replica) == "gone")
    finally:
        replica.remove(force=True)
