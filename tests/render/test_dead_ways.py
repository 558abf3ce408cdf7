"""The ways to people are dead: the heart that a service outside watches stops, unless one of them still works.

The real Prometheus and the real AlertManager with the files of the stack; Telegram, the mail server and the service
outside are one small server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from docker.models.containers import Container

from operations.engine import laboratory as laboratory_of
from operations.engine.containers import remove_labelled
from stack.catalogue import specs
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.alertmanager.rules import failing
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec
from tests.recording import HEARTBEAT_URL, TELEGRAM_TOKEN, environment_of
from tests.render.conftest import Laboratory, address, contents, output, wait_until
from tests.render.rule_cases import rules_tests

pytestmark = pytest.mark.live

PORT = 8080
HTTP = httpx.Client(timeout=30, trust_env=False)
#: Telegram answers as for a group that became a supergroup; mail is taken, or refused with the first argument "no".
OUTSIDE = """
import collections, json, socketserver, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

seen = collections.Counter()
UPGRADED = {
    "ok": False,
    "error_code": 400,
    "description": "Bad Request: group chat was upgraded to a supergroup chat",
    "parameters": {"migrate_to_chat_id": -1009876543210},
}

class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, seen)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        telegram = self.path.endswith("/sendMessage")
        seen["telegram" if telegram else "heartbeat"] += 1
        self.answer(400, UPGRADED) if telegram else self.answer(200, {})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

class Mail(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 here\\r\\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"RCPT" and sys.argv[1] == "no":
                seen["refused"] += 1
                self.wfile.write(b"550 nobody of this name\\r\\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\\r\\n")
                while self.rfile.readline() not in (b".\\r\\n", b""):
                    pass
                seen["email"] += 1
                self.wfile.write(b"250 taken\\r\\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\\r\\n")
                return
            else:
                self.wfile.write(b"250 good\\r\\n")

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

threading.Thread(target=Server(("", 8025), Mail).serve_forever, daemon=True).start()
ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""
QUICK = {"groupWait": "1s", "groupInterval": "5s", "repeatInterval": "1h"}
EMAIL = {"smarthost": "outside:8025", "sender": "a@example.org", "recipient": "b@example.org", "requireTls": False}


def environment_with(environment: Environment, email: bool, beat: str = "1s") -> Environment:
    """The same images; Telegram, and mail where it is asked for; all waits short. beat: between two of the heart's."""
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    ways = {"telegram": {"chatId": -100, "apiUrl": f"http://outside:{PORT}"}, **({"email": EMAIL} if email else {})}
    return environment_of(
        "staging",
        {
            "images": images,
            "prometheus": {"scrapeInterval": "2s", "scrapeTimeout": "2s"},
            "alerts": {"waitFactor": 0.02},
            "alertmanager": {
                **ways,
                "timing": dict.fromkeys(("critical", "warning", "info"), QUICK),
                "heartbeatInterval": beat,
            },
            "telegramBotToken": TELEGRAM_TOKEN,
            "heartbeatUrl": HEARTBEAT_URL,
        },
    )


def part(environment: Environment, name: str) -> ServiceSpec:
    return next(each for each in specs(environment) if each.part == name)


@dataclass(frozen=True, kw_only=True)
class World:
    """What is up, and what is seen of it."""

    outside: Container
    alertmanager: Container
    prometheus: Container

    def seen(self) -> dict[str, int]:
        """How often each of the outside was asked."""
        counts: dict[str, int] = _json(self.outside, PORT, "/")
        return counts

    def asked(self, query: str) -> list[Any]:
        """Prometheus' answer."""
        result: list[Any] = _json(self.prometheus, prometheus.PORT, "/api/v1/query", query=query)["data"]["result"]
        return result

    def beats(self) -> bool:
        """Whether AlertManager has the alert that it sends to the outside."""
        return bool(_json(self.alertmanager, alertmanager.PORT, "/api/v2/alerts", filter='alertname="Watchdog"'))

    def burns(self) -> None:
        """Give AlertManager something to tell: a new Prometheus says nothing of parts that it has never seen."""
        labels = {"alertname": "HostDiskAlmostFull", "service": "host", "severity": "critical"}
        end = datetime.now(UTC) + timedelta(hours=1)
        url = f"http://{address(self.alertmanager)}:{alertmanager.PORT}/api/v2/alerts"
        HTTP.post(url, json=[{"labels": labels, "endsAt": end.isoformat()}]).raise_for_status()

    def wait(self, what: Callable[[], bool]) -> None:
        wait_until(self.prometheus, what)

    def goes_on(self, way: str, times: int) -> None:
        """Wait until a way was tried so many times more."""
        before = self.seen().get(way, 0)
        self.wait(lambda: self.seen().get(way, 0) >= before + times)


@contextmanager
def opened(laboratory: Laboratory, environment: Environment, *, mail_taken: bool) -> Iterator[World]:
    """Give what is up; it is gone afterwards, so that the next one's names are its own."""
    try:
        outside = laboratory.python(environment, OUTSIDE, "yes" if mail_taken else "no", alias="outside")
        wait_until(outside, lambda: _answers(outside, PORT))
        url = {"heartbeat_url": f"http://outside:{PORT}/heartbeat"}
        told = laboratory.healthy_part(part(environment, alertmanager.PART), replaced=url)
        spec = part(environment, prometheus.PART)
        asked = laboratory.run(spec, contents(spec))
        wait_until(asked, lambda: _answers(asked, prometheus.PORT))
        yield World(outside=outside, alertmanager=told, prometheus=asked)
    finally:
        remove_labelled(laboratory.client, f"{laboratory_of.LABEL}={laboratory.token}")


def _json(container: Container, port: int, path: str, **query: str) -> Any:
    answer = HTTP.get(f"http://{address(container)}:{port}{path}", params=query)
    answer.raise_for_status()
    return answer.json()


def _answers(container: Container, port: int) -> bool:
    try:
        return HTTP.get(f"http://{address(container)}:{port}/-/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("email", [False, True])
def test_the_heart_stops_where_telegram_is_dead_and_mail_too_or_there_is_none(
    laboratory: Laboratory, environment: Environment, email: bool
) -> None:
    with opened(laboratory, environment_with(environment, email), mail_taken=False) as world:
        world.wait(lambda: world.seen().get("heartbeat", 0) > 0)
        world.burns()
        world.wait(lambda: not world.beats())
        world.goes_on("telegram", 2)  # a beat that was under way has arrived
        last = world.seen()
        world.goes_on("telegram", 5)
        assert world.seen()["heartbeat"] == last["heartbeat"], "nobody is told, and the service outside believes in us"
        assert not last.get("email"), "somebody was told"
        assert bool(last.get("refused")) == email, "mail was not tried, and might work"


def test_the_heart_goes_on_where_telegram_is_dead_and_mail_tells_so(
    laboratory: Laboratory, environment: Environment
) -> None:
    most = failing('integration="telegram"') + " > 0.5"
    told = 'ALERTS{alertname="AlertmanagerNotificationsFailing",integration="telegram",alertstate="firing"}'
    with opened(laboratory, environment_with(environment, True), mail_taken=True) as world:
        world.burns()
        world.wait(lambda: bool(world.asked(most)))
        world.wait(lambda: bool(world.asked(told)))
        world.goes_on("telegram", 5)
        world.goes_on("heartbeat", 5)
        assert world.beats(), "a service outside would wake somebody whom the mail has told already"
        assert world.seen()["email"] > 0, "nobody was told"


@pytest.mark.parametrize("beat", ["1s", "1h"])
@pytest.mark.parametrize("email", [False, True])
def test_promtool_sees_the_heart_stop_only_where_every_way_is_dead(
    laboratory: Laboratory, environment: Environment, email: bool, beat: str
) -> None:
    described = environment_with(environment, email, beat)
    files = rules_tests(described, contents(part(described, prometheus.PART))["rules/samokoder.yml"])
    shell = laboratory.shell(environment.image("prometheus"), {f"/test/{name}": text for name, text in files.items()})
    code, said = output(shell, "promtool", "test", "rules", "/test/test-Watchdog-1m.yml")
    assert code == 0, said
