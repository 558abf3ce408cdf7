"""The ingress with its rendered configuration, in front of servers that say what reached them."""

from __future__ import annotations

import gzip
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from operations.engine import laboratory as laboratories
from stack.parts.ingress import spec as ingress
from stack.parts.ingress.caddyfile import caddyfile
from stack.parts.ingress.ports import HTTP_PORT, HTTPS_PORT, INTERNAL_PORT, METRICS_PORT
from stack.settings.environment import Environment
from tests.recording import environment_of
from tests.render.conftest import Laboratory, address, output, wait_until
from tests.render.test_what_survives import killed, restarted

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

pytestmark = pytest.mark.live

# What a replica and the frontend are here. Its health is ill while /tmp/ill is there, and slow while /tmp/slow is.
SERVER = """
import http.server, json, os, socket, sys, threading, time

ended = threading.Event()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        ill = os.path.exists("/tmp/ill")
        if os.path.exists("/tmp/slow"):
            time.sleep(4)
        if path == "/jobs/stream":
            self.stream()
        elif path == "/jobs/own-headers":
            self.answer(200, b"{}", X_Frame_Options="SAMEORIGIN", X_Request_Id="mine", Set_Cookie="session=hidden")
        elif path == "/jobs/large":
            self.answer(200, b"{" + b" " * 100_000 + b"}")
        elif path == "/jobs/ended":
            self.answer(200 if ended.wait(1) else 504, b"{}")
        elif ill and path in ("/health", "/metrics"):
            self.answer(500, b"{}")
        elif path == "/metrics":
            self.answer(200, b"the metrics")
        else:
            said = {"by": socket.gethostname(), "path": self.path, "headers": dict(self.headers)}
            self.answer(200, json.dumps(said).encode())

    def do_POST(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            length = 0
            while size := int(self.rfile.readline(), 16):
                length += len(self.rfile.read(size + 2)) - 2
        else:
            length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.answer(200, json.dumps({"length": length, "by": socket.gethostname()}).encode())

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for number in range(200):
                self.wfile.write(f"data: {number}\\n\\n".encode())
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            ended.set()

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""
# What the engine does where ports are published: 80 and 443 of the host lead to Caddy's.
PUBLISHED = """
import asyncio, sys

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()

def forward(port):
    async def handle(reader, writer):
        there, back = await asyncio.open_connection("ingress", port)
        await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)
    return handle

async def main():
    for outside, inside in ((80, int(sys.argv[1])), (443, int(sys.argv[2]))):
        await asyncio.start_server(forward(inside), port=outside)
    await asyncio.Event().wait()

asyncio.run(main())
"""
# A certificate authority of our own, served by another Caddy.
AUTHORITY = """
{
	admin off
	skip_install_trust
	storage file_system /tmp/caddy
	https_port 8443
	auto_https disable_redirects
}
https://ca.example.org:8443 {
	tls internal
	acme_server
}
"""
SCRATCH = "/tmp"  # noqa: S108 - of a container
KEPT = "/var/tmp/caddy/certificates"  # noqa: S108 - of a container
SECRET = "the-secret-of-a-user"  # noqa: S105 - of nobody
DOMAIN = "samokoder.example.org"
STABLE_SECONDS = 7
CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "one replica": {"api": {"replicas": 1}},
    "with a frontend": {"frontend": {"enabled": True}},
    "with a domain": {"ingress": {"domain": DOMAIN, "email": "admin@example.org", "trustedProxies": ["10.0.0.0/8"]}},
    "with everything": {
        "host": {"memoryMib": 8192},
        "api": {"replicas": 3},
        "frontend": {"enabled": True},
        "ingress": {
            "domain": DOMAIN,
            "httpsPort": 8443,
            "acmeDirectory": "https://ca.example.org/acme/directory",
            "trustedProxies": ["10.0.0.0/8", "192.0.2.7/32"],
            "apiPaths": ["/api/*"],
        },
    },
}


@pytest.fixture(scope="module")
def described(environment: Environment) -> Environment:
    """Staging with a frontend, and replicas that are let in soon."""
    front, api = {"enabled": True}, {"stableSeconds": STABLE_SECONDS}
    outside = {"maxBodyMib": 1, "stripPrefix": "/api"}
    return with_images(environment, {"frontend": front, "api": api, "ingress": outside})


def with_images(environment: Environment, values: Mapping[str, Any], *, stack: str = "staging") -> Environment:
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    return environment_of(stack, {"images": images, **values})


class Servers:
    """The parts behind the ingress."""

    def __init__(self, laboratory: Laboratory, image: str) -> None:
        self._laboratory, self._image = laboratory, image
        self.running: dict[str, Container] = {}

    def start(self, name: str, port: int = 8000) -> None:
        command = ["python", "-c", SERVER, str(port)]
        self.running[name] = self._laboratory.start(
            self._image, {}, alias=name, command=command, hostname=name, init=True, stop_signal="SIGKILL"
        )

    def remove(self, name: str) -> None:
        self.running.pop(name).remove(force=True)

    def ill(self, name: str, *, ill: bool) -> None:
        self._set(name, "ill", on=ill)

    @contextmanager
    def slow(self, *names: str) -> Iterator[None]:
        """Let them take longer for each answer than a replica that is well."""
        for name in names:
            self._set(name, "slow", on=True)
        yield
        for name in names:
            self._set(name, "slow", on=False)

    def _set(self, name: str, what: str, *, on: bool) -> None:
        code, said = output(self.running[name], *(("touch",) if on else ("rm",)), f"{SCRATCH}/{what}")
        assert code == 0, said


@pytest.fixture(scope="module")
def servers(laboratory: Laboratory, described: Environment) -> Servers:
    """Two replicas and the frontend."""
    made = Servers(laboratory, described.image("python"))
    for name, port in (("api-1", 8000), ("api-2", 8000), ("frontend", 8080)):
        made.start(name, port)
    return made


@pytest.fixture(scope="module")
def caddy(laboratory: Laboratory, servers: Servers, described: Environment) -> Container:
    """The ingress, as the stack runs it."""
    return laboratory.healthy_part(ingress.spec(described))


@pytest.fixture(scope="module")
def client(caddy: Container) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{address(caddy)}:{HTTP_PORT}", timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def shell(laboratory: Laboratory, environment: Environment) -> Container:
    """Caddy's own commands."""
    spec = ingress.spec(environment)
    return laboratory.start(
        spec.image,
        {},
        entrypoint=["sleep"],
        command=["infinity"],
        user=spec.user,
        cap_drop=["ALL"],
        cap_add=list(spec.capabilities),
        security_opt=["no-new-privileges=true"],
        init=True,
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_caddy_takes_every_configuration_and_would_write_it_the_same(
    name: str, shell: Container, environment: Environment
) -> None:
    text = caddyfile(with_images(environment, CONFIGURATIONS[name]))
    file = f"{SCRATCH}/Caddyfile"
    code, said = output(shell, "sh", "-c", f'printf %s "$0" > {file}', text)
    assert code == 0, said
    code, said = output(shell, "caddy", "validate", "--config", file, "--adapter", "caddyfile")
    assert code == 0, said
    _, formatted = output(shell, "caddy", "fmt", file)
    assert formatted == text, "what a person reads has Caddy's own form"


def test_the_program_starts_only_where_its_file_capability_can_be_had_and_then_holds_none(
    laboratory: Laboratory, environment: Environment, shell: Container
) -> None:
    spec = ingress.spec(environment)
    bare = laboratory.start(
        spec.image, {}, entrypoint=["sleep"], command=["infinity"], user=spec.user, cap_drop=["ALL"], init=True
    )
    code, said = output(bare, "caddy", "version")
    assert code != 0, "the offline image lacks the official one's file capability: remove neither without the other"
    assert "operation not permitted" in said.lower()
    code, said = output(shell, "caddy", "version")
    assert (code, said[:3]) == (0, "v2.")


def test_caddy_holds_no_capability(caddy: Container) -> None:
    _, said = output(caddy, "sh", "-c", "cat /proc/$(pidof caddy)/status")
    held = dict(re.findall(r"^(Cap(?:Prm|Eff|Amb)|NoNewPrivs):\s*(\w+)$", said, re.MULTILINE))
    assert {name: int(value, 16) for name, value in held.items()} == {
        "CapPrm": 0,
        "CapEff": 0,
        "CapAmb": 0,
        "NoNewPrivs": 1,
    }


def test_a_new_volume_can_be_written_by_caddys_user(caddy: Container) -> None:
    code, said = output(caddy, "sh", "-c", "stat -c '%a %u' /var/tmp/caddy /var/tmp")
    assert (code, said.split()) == (0, ["700", "10002", "1777", "0"]), "certificates could not be kept"


#: Path of a request -> who gets it, where there is a frontend and the prefix /api. Of a Traefik, too.
BY_PATH = [
    ("/projects", "api"),
    ("/projects/7/jobs", "api"),
    ("/auth/login", "api"),
    ("/openapi.json", "api"),
    ("/health", "api"),
    ("/%70rojects", "api"),
    ("/", "frontend"),
    ("/index.html", "frontend"),
    ("/x/../projects", "api"),
    ("/api/v1/anything", "api"),
    ("/v1/anything", "frontend"),
    ("/apiary", "frontend"),
]


@pytest.mark.parametrize(("path", "by"), BY_PATH)
def test_the_apis_paths_go_to_the_api_and_all_else_to_the_frontend(client: httpx.Client, path: str, by: str) -> None:
    assert raw(client, path)["by"].partition("-")[0] == by


@pytest.mark.parametrize("path", ["/", "/health", "/api/health"])
def test_a_monitor_that_asks_by_head_gets_the_answer_to_a_get_without_its_body(client: httpx.Client, path: str) -> None:
    got, asked = client.get(path), client.head(path)
    assert asked.status_code == got.status_code == 200, "an uptime monitor would call a service down that serves"
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert asked.content == b""
    assert client.head("/projects").status_code == 501, "any other path is asked as the client asks it"


@pytest.mark.parametrize("port", [HTTP_PORT, INTERNAL_PORT])
@pytest.mark.parametrize(("path", "reaches"), [("/api/v1/a%20b?c=d", "/v1/a%20b?c=d"), ("/api/", "/"), ("/x", "/x")])
def test_the_api_gets_its_paths_without_the_prefix_that_users_know(
    client: httpx.Client, path: str, reaches: str, port: int
) -> None:
    if path == "/x" and port == HTTP_PORT:
        pytest.skip("from outside this is the frontend's")
    status, body = answer(client, path, port)
    assert (status, json.loads(body)["path"]) == (httpx.codes.OK, reaches)


def raw(client: httpx.Client, path: str) -> dict[str, Any]:
    """Ask for exactly this path: httpx would clean it."""
    status, body = answer(client, path)
    assert status == httpx.codes.OK, body
    return dict(json.loads(body))


def answer(client: httpx.Client, path: str, port: int = HTTP_PORT, host: str = "x", more: str = "") -> tuple[int, str]:
    with socket.create_connection((client.base_url.host, port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n".encode())
        with connection.makefile("rb") as reader:
            head, _, body = reader.read().decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


#: Ways to write the path of the API's metrics. Of a Traefik, too.
METRICS_SPELLINGS = [
    "/metrics",
    "/metrics/",
    "/metrics?x=1",
    "//metrics",
    "/./metrics",
    "/x/../metrics",
    "/%6detrics",
    "/%2e/metrics",
    "/METRICS",
    "/metrics/anything",
    "/api/metrics",
    "/api/metrics/",
    "/api//metrics",
    "/api/%6detrics",
    "/%61pi/metrics",
    "/api/x/../metrics",
    "/x/../api/./metrics",
    "/api/METRICS",
    # Starlette takes a path with a line's end behind for the same one.
    "/metrics%0A",
    "/api/metrics%0A",
    # An image with a root_path takes the prefix off once more.
    "/api/api/metrics",
    "/api/api/metrics/x",
    "/api/api%2Fmetrics",
]


@pytest.mark.parametrize("port", [HTTP_PORT, INTERNAL_PORT])
@pytest.mark.parametrize("path", METRICS_SPELLINGS)
def test_the_metrics_are_not_for_the_world(client: httpx.Client, path: str, port: int) -> None:
    status, body = answer(client, path, port)
    assert status == httpx.codes.NOT_FOUND
    assert "the metrics" not in body


HERE = ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"]


@pytest.mark.parametrize("host", HERE)
def test_who_asks_on_this_machine_gets_the_metrics_of_a_replica(client: httpx.Client, host: str) -> None:
    assert answer(client, "/metrics", host=host) == (httpx.codes.OK, "the metrics"), "the owner's acceptance"


def test_a_proxy_on_this_machine_that_asks_for_others_does_not_get_the_metrics(client: httpx.Client) -> None:
    for sent in ("X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9", "Via: 1.1 x"):
        status, body = answer(client, "/metrics", host=HERE[0], more=f"{sent}\r\n")
        assert (status, "the metrics" in body) == (httpx.codes.NOT_FOUND, False), sent
    for host in ("samokoder.example.org", "localhost.example.org", "127.0.0.1.example.org", "203.0.113.9:8000"):
        status, body = answer(client, "/metrics", host=host)
        assert (status, "the metrics" in body) == (httpx.codes.NOT_FOUND, False), f"{host}: a page of anybody's"


@pytest.mark.parametrize("port", [HTTP_PORT, INTERNAL_PORT])
@pytest.mark.parametrize("path", METRICS_SPELLINGS)
def test_on_this_machine_nothing_but_this_page_is_handed_on_and_nothing_to_the_frontend(
    client: httpx.Client, path: str, port: int
) -> None:
    if port == HTTP_PORT and re.fullmatch(r"/+metrics(\?.*)?", path):
        return  # the page itself
    assert "the metrics" not in answer(client, path, port, host=HERE[0])[1]


@pytest.mark.parametrize("path", ["/projects", "/api/v1/projects"])
def test_nobody_outside_says_which_path_the_application_is_to_see(client: httpx.Client, path: str) -> None:
    sent = {"SCRIPT_NAME": "/x", "PATH_INFO": "/metrics", "X-Mine": "kept"}
    got = {name.upper(): value for name, value in client.get(path, headers=sent).json()["headers"].items()}
    assert got["X-MINE"] == "kept"
    assert not {"SCRIPT_NAME", "PATH_INFO"} & got.keys(), "an older Gunicorn serves another path than was asked for"


def test_every_replica_gets_its_share(client: httpx.Client) -> None:
    by = [client.get("/projects").json()["by"] for _ in range(10)]
    assert by.count("api-1") == by.count("api-2") == 5, by


def test_an_address_of_ones_own_invention_is_not_believed(client: httpx.Client, caddy: Container) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    seen = client.get("/projects", headers=forged).json()["headers"]
    mine = client.get("/projects").json()["headers"]["X-Forwarded-For"]
    assert seen["X-Forwarded-For"] == mine, "whoever may choose an address has no limit of requests"
    assert "," not in mine
    assert seen["X-Forwarded-Proto"] == "http"
    assert seen["X-Forwarded-Host"] == f"{address(caddy)}:{HTTP_PORT}"


@pytest.mark.parametrize("user", ["203.0.113.9", "10.1.2.3", "192.168.7.9", "127.0.0.1", "fd00::7"])
def test_the_stacks_own_parts_may_say_for_whom_they_ask(client: httpx.Client, caddy: Container, user: str) -> None:
    inside = f"http://{address(caddy)}:{INTERNAL_PORT}/projects"
    seen = client.get(inside, headers={"X-Forwarded-For": user}).json()["headers"]
    assert seen["X-Forwarded-For"] == user, "else all users of the frontend, or of an office, would share one limit"


def assert_headers_for_browsers(plain: httpx.Headers) -> None:
    """Assert that an answer without TLS has them. Of a Traefik, too."""
    assert plain["X-Content-Type-Options"] == "nosniff"
    assert plain["X-Frame-Options"] == "DENY"
    assert plain["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert "Permissions-Policy" in plain
    assert not {"server", "via", "strict-transport-security"} & {name.lower() for name in plain}


def test_headers_for_browsers_are_set_and_the_applications_own_are_kept(client: httpx.Client) -> None:
    plain = client.get("/projects").headers
    assert_headers_for_browsers(plain)
    own = client.get("/jobs/own-headers").headers
    assert own.get_list("X-Frame-Options") == ["SAMEORIGIN"], "the application knows better"
    assert own.get_list("X-Request-Id") == ["mine"]
    assert own["X-Content-Type-Options"] == "nosniff", "one header of its own cost the application all the others"
    refused = client.get("/metrics").headers
    assert refused["X-Content-Type-Options"] == "nosniff", "an error has them, too"


def test_a_request_has_an_id_from_the_first_to_the_last(client: httpx.Client, caddy: Container) -> None:
    given = client.get("/projects", headers={"X-Request-Id": "given-1"})
    assert (given.json()["headers"]["X-Request-Id"], given.headers["X-Request-Id"]) == ("given-1", "given-1")
    made = client.get("/projects?marked=made")
    identity = made.headers["X-Request-Id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", identity)
    assert made.json()["headers"]["X-Request-Id"] == identity
    wild = client.get("/projects", headers={"X-Request-Id": "x" * 65})
    assert wild.json()["headers"]["X-Request-Id"] != "x" * 65, "it ends in every log"
    # Caddy writes the line once the answer is out.
    wait_until(caddy, lambda: identity in {line.get("request_id") for line in access_log(caddy)})


def access_log(caddy: Container) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in caddy.logs().decode().splitlines()]
    return [line for line in lines if line.get("logger", "").startswith("http.log.access")]


def test_no_secret_of_a_request_is_logged_and_no_health_check(client: httpx.Client, caddy: Container) -> None:
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "Cookie": f"session={SECRET}",
        "X-Api-Key": SECRET,
        "Referer": f"http://x/?token={SECRET}",
        "User-Agent": "a-browser",
    }
    client.get("/jobs/own-headers", params={"token": SECRET, "anything": SECRET}, headers=headers)
    client.get("/metrics", params={"token": SECRET}, headers=headers)  # ends with an error, which is logged as well
    client.get("/health", headers={"User-Agent": "a-monitor"})
    asked = {"/jobs/own-headers?REDACTED", "/metrics?REDACTED"}
    wait_until(caddy, lambda: asked <= {line["request"]["uri"] for line in access_log(caddy)})
    log = caddy.logs().decode()
    assert SECRET not in log
    assert "hidden" not in log, "a cookie that the application sets"
    written = access_log(caddy)
    assert "a-browser" in {line["user_agent"] for line in written}
    assert "a-monitor" not in {line["user_agent"] for line in written}
    assert {"status", "duration", "size"} <= written[0].keys()


def test_a_request_that_is_too_large_is_refused(client: httpx.Client) -> None:
    most = 2**20
    assert client.post("/projects", content=b"x" * most).json()["length"] == most
    refused = client.post("/projects", content=b"x" * (most + 1))
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert refused.json() == {"detail": "Request Entity Too Large"}


def test_a_client_cannot_make_a_replica_look_ill(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100_000

    for _ in range(8):
        # Cut off on the way to the replica, which to Caddy is a request that failed there.
        assert client.post("/projects", content=pieces()).status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    began = time.monotonic()
    assert {client.get("/projects").json()["by"] for _ in range(4)} == {"api-1", "api-2"}
    assert time.monotonic() - began < 5, "no replica was taken out for it"


def test_an_event_stream_comes_piece_by_piece_uncompressed_and_ends_with_its_client(client: httpx.Client) -> None:
    began = time.monotonic()
    with client.stream("GET", "/jobs/stream", headers={"Accept-Encoding": "gzip, zstd"}) as stream:
        assert "Content-Encoding" not in stream.headers
        first = next(stream.iter_raw())
    assert first.startswith(b"data: 0\n\n")
    assert time.monotonic() - began < 10, "the whole stream takes twenty seconds: it was held back"
    # Either replica may have had it. Each answer waits for a second.
    ended = any(client.get("/jobs/ended").status_code == httpx.codes.OK for _ in range(15))
    assert ended, "the application goes on for a client that is gone"


def test_what_is_large_is_compressed(client: httpx.Client) -> None:
    with client.stream("GET", "/jobs/large", headers={"Accept-Encoding": "gzip"}) as large:
        assert large.headers["Content-Encoding"] == "gzip"
        body = b"".join(large.iter_raw())
    assert len(body) < 10_000
    assert len(gzip.decompress(body)) == 100_002


def test_its_own_metrics_name_the_server_and_the_replicas(caddy: Container) -> None:
    def metrics() -> str:
        code, text = output(caddy, "wget", "-q", "-O", "-", f"http://127.0.0.1:{METRICS_PORT}/metrics")
        assert code == 0, text
        return text

    # Caddy writes the health of its replicas into its metrics every ten seconds only.
    healthy = 'caddy_reverse_proxy_upstreams_healthy{upstream="api-1:8000"} 1'
    wait_until(caddy, lambda: healthy in metrics())
    text = metrics()
    counted = r'^caddy_http_request_duration_seconds_count\{code="200",handler="log_append",.*server="http"\}'
    assert re.search(counted, text, re.MULTILINE)
    assert "host=" not in text, "a label with a value for each name that anybody asks for"


def asked_until(client: httpx.Client, good: Callable[[set[str]], bool], seconds: float) -> float:
    """Ask until the last ten answers are from the wanted replicas; return how long it took. Every answer is good."""
    began = time.monotonic()
    by: list[str] = []
    while time.monotonic() - began < seconds:
        reply = client.get("/projects")
        assert reply.status_code == httpx.codes.OK, "a request was lost"
        by.append(reply.json()["by"])
        if len(by) >= 10 and good(set(by[-10:])):
            return time.monotonic() - began
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {by[-20:]}")


def test_a_replica_that_goes_and_comes_back_costs_no_request_and_waits_until_it_is_steady(
    client: httpx.Client, servers: Servers
) -> None:
    servers.remove("api-1")
    asked_until(client, lambda by: by == {"api-2"}, 30)
    time.sleep(4)
    servers.start("api-1")
    waited = asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)
    assert waited > STABLE_SECONDS - 4, "it was let in at once"


def test_a_replica_that_recovers_for_a_moment_again_and_again_is_never_let_in(
    client: httpx.Client, servers: Servers
) -> None:
    for _ in range(4):
        servers.ill("api-1", ill=True)
        time.sleep(3.5)
        servers.ill("api-1", ill=False)
        began = time.monotonic()
        while time.monotonic() - began < 2:
            assert client.get("/projects").json()["by"] == "api-2", "successes were added up over its recoveries"
            time.sleep(0.1)
    asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)


def test_a_slow_replica_gets_no_request_while_another_one_is_well(client: httpx.Client, servers: Servers) -> None:
    with servers.slow("api-1"):
        asked_until(client, lambda by: by == {"api-2"}, 60)
        time.sleep(5)
        began = time.monotonic()
        assert {client.get("/projects").json()["by"] for _ in range(6)} == {"api-2"}
        assert time.monotonic() - began < 4, "a request waited for a replica that hangs"
    asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)


def test_where_all_replicas_are_slow_they_serve(client: httpx.Client, servers: Servers) -> None:
    with servers.slow("api-1", "api-2"):
        # Long enough for three probes that fail, were they counted.
        for _ in range(3):
            answer = client.get("/projects")
            assert answer.status_code == httpx.codes.OK, "nobody was left to serve, although all of them would have"
    asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)


def test_a_slow_replica_serves_where_the_other_one_is_ill(client: httpx.Client, servers: Servers) -> None:
    servers.ill("api-1", ill=True)
    time.sleep(5)
    with servers.slow("api-2"):
        for _ in range(3):
            answer = client.get("/projects")
            assert (answer.status_code, answer.json()["by"]) == (httpx.codes.OK, "api-2"), "slow is better than ill"
    servers.ill("api-1", ill=False)
    asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)


def test_where_every_replica_answers_its_health_with_an_error_they_serve(
    client: httpx.Client, servers: Servers
) -> None:
    for name in ("api-1", "api-2"):
        servers.ill(name, ill=True)
    # Until what was counted while the other one was still well is forgotten.
    time.sleep(STABLE_SECONDS + 4)
    began = time.monotonic()
    assert client.get("/projects").status_code == httpx.codes.OK, "their own store is down, and no path is served"
    assert time.monotonic() - began < 10, "the request waited for a replica that is better"
    servers.ill("api-2", ill=False)
    asked_until(client, lambda by: by == {"api-2"}, 60)
    servers.ill("api-1", ill=False)
    asked_until(client, lambda by: by == {"api-1", "api-2"}, 60)


def test_requests_wait_while_no_replica_is_there(client: httpx.Client, servers: Servers) -> None:
    servers.remove("api-1")
    servers.remove("api-2")
    time.sleep(1)
    servers.start("api-1")
    servers.start("api-2")
    reply = client.post("/projects", content=b"three")
    assert (reply.status_code, reply.json()["length"]) == (httpx.codes.OK, 5), "it was given up at once"


@pytest.fixture
def elsewhere(engine: docker.DockerClient) -> Iterator[Laboratory]:
    """Another network, where the ingress is one with a domain."""
    with laboratories.opened(engine) as made:
        yield Laboratory(made.client, made.token, made.network)


@pytest.fixture
def root_certificate(elsewhere: Laboratory, environment: Environment) -> str:
    """The certificate of an authority that issues by ACME at ca.example.org."""
    authority = elsewhere.start(
        environment.image("caddy"),
        {f"{SCRATCH}/Caddyfile": AUTHORITY},
        alias="ca.example.org",
        command=["caddy", "run", "--config", f"{SCRATCH}/Caddyfile", "--adapter", "caddyfile"],
        init=True,
    )
    path = f"{SCRATCH}/caddy/pki/authorities/local/root.crt"
    wait_until(authority, lambda: output(authority, "test", "-s", path)[0] == 0)
    return output(authority, "cat", path)[1]


@dataclass
class Secured:
    """The ingress with a domain, and how it is reached."""

    caddy: Container
    host: str
    trusted: ssl.SSLContext

    def ask(self, path: str) -> httpx.Response | None:
        """Ask by HTTPS for the domain; None where there is no certificate that is trusted."""
        request = f"GET {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode()
        try:
            with self._connected() as tls:
                tls.sendall(request)
                with tls.makefile("rb") as reader:
                    head, _, body = reader.read().partition(b"\r\n\r\n")
        except OSError:
            return None
        status, *headers = head.decode().split("\r\n")
        pairs = [(name, value) for name, _, value in (line.partition(": ") for line in headers)]
        return httpx.Response(int(status.split()[1]), headers=pairs, content=body)

    def certificate(self) -> bytes | None:
        """The certificate that is shown for the domain; None where none is, or one that is not trusted."""
        try:
            with self._connected() as tls:
                return tls.getpeercert(binary_form=True)
        except OSError:
            return None

    @contextmanager
    def _connected(self) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection((self.host, 443), timeout=10) as connection,
            self.trusted.wrap_socket(connection, server_hostname=DOMAIN) as tls,
        ):
            yield tls


@pytest.fixture
def secured(elsewhere: Laboratory, environment: Environment, root_certificate: str) -> Secured:
    """The ingress with a domain, whose certificate it has fetched from the authority."""
    settings = {"domain": DOMAIN, "acmeDirectory": "https://ca.example.org:8443/acme/local/directory"}
    values = {"api": {"replicas": 1}, "ingress": {**settings, "acmeRoot": root_certificate}}
    described = with_images(environment, values)
    Servers(elsewhere, described.image("python")).start("api-1")
    ports = (str(HTTP_PORT), str(HTTPS_PORT))
    published = elsewhere.start(
        described.image("python"), {}, alias=DOMAIN, command=["python", "-c", PUBLISHED, *ports], init=True
    )
    caddy = elsewhere.healthy_part(ingress.spec(described))
    made = Secured(caddy, address(published), ssl.create_default_context(cadata=root_certificate))
    wait_until(caddy, lambda: made.ask("/projects") is not None)
    return made


def test_with_a_domain_a_certificate_is_fetched_kept_and_used(secured: Secured) -> None:
    reply = secured.ask("/projects")
    assert reply is not None
    assert reply.status_code == httpx.codes.OK
    assert reply.json()["headers"]["X-Forwarded-Proto"] == "https"
    assert reply.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Alt-Svc" not in reply.headers, "it would name a port that is not published"
    code, kept = output(secured.caddy, "find", KEPT, "-name", f"{DOMAIN}.key")
    assert (code, kept.count("\n")) == (0, 1), "fetched anew at every start, until the authority refuses"
    redirected = httpx.get(f"http://{secured.host}/projects?page=2", headers={"Host": "elsewhere.example"})
    assert (redirected.status_code, redirected.headers["Location"]) == (308, f"https://{DOMAIN}/projects?page=2")
    assert httpx.get(f"http://{secured.host}/health").status_code == httpx.codes.OK, "smoke test and probes ask here"


@pytest.mark.long
def test_the_same_certificate_is_shown_after_a_restart_and_after_sigkill(secured: Secured) -> None:
    before = secured.certificate()
    assert before is not None
    for fault in (restarted, killed):
        fault(secured.caddy)
        wait_until(secured.caddy, lambda: secured.certificate() is not None)
        assert secured.certificate() == before, "it was fetched anew, and an authority gives a domain only a few a week"
