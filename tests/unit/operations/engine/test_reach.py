"""How the published ports are reached: here, and on another host by a tunnel through a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from host.ports import free_ports
from operations.engine import reach
from operations.engine.part_status import expected_parts
from operations.errors import ProjectError
from stack.settings.environment import Environment
from tests.recording import environment_of
from tests.serving import serving
from tests.sshd import Sshd


def environment(host: str, **grafana: object) -> Environment:
    settings = {"port": 13000, "bindReason": "a test", **grafana}
    return environment_of("staging", {"dockerHost": host, "basicAuth": "always", "grafana": settings})


@pytest.mark.parametrize(
    ("bound", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:13000"),
        ("0.0.0.0", "http://127.0.0.1:13000"),  # noqa: S104 - nothing is bound here
        ("10.0.0.5", "http://10.0.0.5:13000"),
        ("::1", "http://[::1]:13000"),
        ("::", "http://[::1]:13000"),
    ],
)
def test_on_this_machine_a_page_is_asked_at_its_published_port(bound: str, url: str) -> None:
    here = environment("unix:///var/run/docker.sock", bindAddress=bound)
    with reach.opened(here) as address:
        assert address(here.settings.grafana) == url


def test_an_engine_by_tcp_gives_no_way_to_loopback_and_the_message_says_which_does() -> None:
    with pytest.raises(ProjectError, match=r"samokoder:dockerHost: ssh://you@host\.example\.org"):
        reach.opened(environment("tcp://host.example.org:2376")).__enter__()


def test_a_tunnel_for_people_keeps_the_ports_and_leaves_out_what_is_public() -> None:
    there = environment("ssh://you@host.example.org:2222", bindAddress="0.0.0.0")  # noqa: S104 - nothing is bound here
    words = reach.tunnel("x", there.settings.docker_host, filter(None, expected_parts(there).values()))
    assert "127.0.0.1:8000:127.0.0.1:8000" in words, "a bookmark of staging here would not find it"
    assert not any("13000" in word for word in words), "what everybody reaches needs no tunnel"
    assert words[-1] == "ssh://you@host.example.org:2222"
    assert "make tunnel ENV=x" in reach.elsewhere(there.settings.docker_host, "make tunnel ENV=x")
    assert "-p 2222 you@host.example.org" in reach.elsewhere(there.settings.docker_host, "")


def test_on_this_machine_there_is_nothing_to_lead() -> None:
    here = environment("unix:///var/run/docker.sock")
    assert not reach.elsewhere(here.settings.docker_host, "make tunnel")
    with pytest.raises(ProjectError, match="is not reached by ssh"):
        reach.tunnel("x", here.settings.docker_host, [])


@pytest.fixture
def page() -> Iterator[int]:
    """A page on loopback; its port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Grafana")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Page)) as server:
        yield server.server_port


def test_on_another_host_every_port_is_reached_through_a_tunnel_that_ends_with_the_command(
    sshd: Sshd, page: int
) -> None:
    there = environment(sshd.host, port=page)
    with reach.opened(there) as address:
        url = address(there.settings.grafana)
        assert url != f"http://127.0.0.1:{page}", "the port is one of the other host"
        assert httpx.get(url, trust_env=False).text == "Grafana", sshd.log.read_text()
        others = {address(part) for part in (there.settings.prometheus, there.settings.alertmanager)}
        assert len(others | {url}) == 3, "each page has a port of its own"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_key_that_is_refused_is_told_and_no_password_is_asked_for(sshd: Sshd) -> None:
    (sshd.folder / "authorized_keys").write_text("")
    with (
        pytest.raises(ProjectError, match=r"no tunnel to ssh://.*Permission denied"),
        reach.opened(environment(sshd.host)),
    ):
        pass


def test_a_host_that_does_not_answer_is_told() -> None:
    (port,) = free_ports(1)
    with (
        pytest.raises(ProjectError, match=r"no tunnel to ssh://you@127.0.0.1.*refused"),
        reach.opened(environment(f"ssh://you@127.0.0.1:{port}")),
    ):
        pass
