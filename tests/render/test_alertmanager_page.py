"""The page of AlertManager where it is built here, in a real browser and with the real AlertManager behind it.

Where the official image is used, upstream's own page is in it and ours is not.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from docker.models.containers import Container
from selenium.common import exceptions
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from offline.alertmanager_page import page, stored_brotli
from offline.programs import PROGRAMS, SOURCES
from stack.catalogue import specs
from stack.monitoring import access
from stack.monitoring.log_links import LAST_HOUR
from stack.parts.alertmanager import spec as parts
from stack.settings.environment import Environment
from stack.spec.secrets import ALERTMANAGER_WEB
from stack.spec.service import ServiceSpec
from tests.chromium import console
from tests.recording import WEBHOOK_URL, environment_of, secret_value
from tests.render.conftest import PATIENCE_SECONDS, Laboratory, address, wait_until

if TYPE_CHECKING:
    from selenium import webdriver

PAGE = page(SOURCES / "alertmanager" / "page")
AT_ONCE = {"groupWait": "1s", "groupInterval": "1s", "repeatInterval": "1h"}
# Takes what AlertManager sends, and gives back all of it.
HOOK = """
import http.server, json
seen = []
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(seen).encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Hook).serve_forever()
"""
pytestmark = pytest.mark.live


def built_here(environment: Environment, values: Mapping[str, Any]) -> ServiceSpec:
    """AlertManager as the stack runs it with these settings, of the image that is built here."""
    image = environment.image("alertmanager")
    if not image.startswith("sha256:"):
        pytest.skip("this host has the official image, which has upstream's own page")
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    described = environment_of("staging", {"images": images, **values})
    return next(each for each in specs(described) if each.part == parts.PART)


@dataclass(frozen=True)
class Running:
    """An AlertManager, and what gets its notifications."""

    container: Container
    hook: Container

    @property
    def url(self) -> str:
        return f"http://{address(self.container)}:{parts.PORT}"

    def fire(self, name: str, **labels: str) -> None:
        """Post an alert that fires for an hour."""
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        alert = {
            "labels": {"alertname": name, "severity": "critical", **labels},
            "annotations": {
                "summary": f"summary of {name}",
                "description": "<script>document.title = 'mine'</script>",
                "runbook_url": f"https://example.org/{name}.md",
                "log_command": "make logs PART=postgres",
                "logs_url": f"https://example.org/select/vmui/#/?{LAST_HOUR}&query=%7B%7D",
                "evil_url": "javascript:document.title='mine'",
            },
            "generatorURL": "https://example.org/graph?g0.expr=up+%3D%3D+0",
            "endsAt": end,
        }
        httpx.post(f"{self.url}/api/v2/alerts", json=[alert], timeout=30).raise_for_status()

    def ask(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v2/{path}", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def status(self, name: str) -> dict[str, Any]:
        """What AlertManager says of an alert."""
        (alert,) = [each for each in self.ask("alerts") if each["labels"]["alertname"] == name]
        return dict(alert["status"])

    def told(self) -> set[str]:
        """Names of all alerts of which a notification came."""
        sent = httpx.get(f"http://{address(self.hook)}:8080", timeout=30).json()
        return {alert["labels"]["alertname"] for each in sent for alert in each["alerts"]}

    def listens(self) -> bool:
        """Tell whether notifications would arrive."""
        try:
            return not self.told()
        except httpx.TransportError:
            return False

    def kept_back(self) -> float:
        """How many notifications a silence has kept back."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        found = [line for line in text.splitlines() if "notifications_suppressed_total" in line and 'silence"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@pytest.fixture(scope="module")
def running(laboratory: Laboratory, environment: Environment) -> Running:
    """AlertManager with a webhook that it tells of everything within seconds."""
    described = built_here(
        environment, {"alertWebhookUrl": WEBHOOK_URL, "alertmanager": {"timing": {"critical": AT_ONCE}}}
    )
    hook = laboratory.python(environment, HOOK, alias="hook")
    alertmanager = laboratory.healthy_part(described, replaced={"alert_webhook_url": "http://hook:8080/"})
    made = Running(alertmanager, hook)
    wait_until(hook, made.listens)
    return made


@dataclass(frozen=True)
class Person:
    """What somebody does in the browser. Each step waits until it can be done."""

    chromium: webdriver.Chrome

    def until(self, good: Callable[[], Any], what: str) -> Any:
        ignored = (
            exceptions.StaleElementReferenceException,  # the list was filled anew between two words
            exceptions.ElementNotInteractableException,
            exceptions.ElementClickInterceptedException,
            exceptions.NoSuchElementException,
        )
        return WebDriverWait(self.chromium, PATIENCE_SECONDS, 0.2, ignored).until(lambda _: good(), what)

    def opens(self, url: str, language: str = "en") -> None:
        self.chromium.get(url)
        self.chromium.execute_script(f"localStorage.setItem('language', '{language}')")
        self.chromium.refresh()

    def presses(self, selector: str) -> None:
        def pressed() -> bool:
            self.chromium.find_element(By.CSS_SELECTOR, selector).click()
            return True

        self.until(pressed, f"press {selector}")

    def writes(self, selector: str, words: str) -> None:
        element = self.until(lambda: self.chromium.find_element(By.CSS_SELECTOR, selector), selector)
        element.clear()
        element.send_keys(words)

    def text(self, selector: str = "main") -> str:
        """The text that is seen; read at one stroke, since the page may be filled anew meanwhile."""
        return str(self.runs("return document.querySelector(arguments[0])?.innerText || ''", selector))

    def runs(self, script: str, *words: str) -> Any:
        """What a script of ours says of the page."""
        return self.chromium.execute_script(script, *words)

    def reads(self, words: str, selector: str = "main") -> None:
        self.until(lambda: words in self.text(selector), f"{words!r} in {selector}")

    def makes_a_silence(self, comment: str) -> None:
        self.writes("#author", "on call")
        self.writes("#comment", comment)
        self.reads("of the alerts that there are now", "#hits")
        self.presses("#send")
        self.reads("The silence is made", "#notice")


@pytest.fixture
def person(chromium: webdriver.Chrome) -> Iterator[Person]:
    """Somebody at a browser that has nothing to complain of at the end."""
    console(chromium)
    yield Person(chromium)
    # What a test has refused on purpose is a line of the console too, and so is the icon of a page that is not ours.
    usual = ("status of 400", "/favicon.ico - ")
    wrong = [each for each in console(chromium) if not any(words in each["message"] for words in usual)]
    assert wrong == [], "an error, or something that the page's policy had to stop"


def link_of(labels: Mapping[str, str]) -> str:
    """The address in a message that leads to the form (see stack/parts/alertmanager/alert.tmpl)."""
    matchers = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    return f"/#/silences/new?filter={quote('{' + matchers + '}', safe='')}"


@pytest.mark.parametrize(
    ("accepted", "encoding", "body"),
    [
        ("gzip, deflate, br, zstd", "br", stored_brotli(PAGE.encode())),
        ("*", "br", stored_brotli(PAGE.encode())),
        ("gzip", "gzip", PAGE.encode()),
        ("identity", "", PAGE.encode()),
    ],
)
def test_the_page_is_served_in_each_encoding(running: Running, accepted: str, encoding: str, body: bytes) -> None:
    with httpx.stream("GET", f"{running.url}/", headers={"Accept-Encoding": accepted}, timeout=30) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.status_code == httpx.codes.OK, "AlertManager falls back to no other encoding: that one is missing"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers.get("Content-Encoding", "") == encoding
    assert (gzip.decompress(raw) if encoding == "gzip" else raw) == body


def test_a_silence_made_in_the_page_stops_the_notification_until_it_is_expired_there(
    running: Running, person: Person
) -> None:
    labels = {"alertname": "Quiet", "place": 'a "b" + c, {d} & e\\f=g%', "severity": "critical"}
    person.opens(running.url + link_of(labels))
    values = "return [...document.querySelectorAll('.row [name=value]')].map((each) => each.value)"
    person.until(
        lambda: person.runs(values) == list(labels.values()),
        "the link of a message fills the form",
    )
    person.reads("It hits 0 of the alerts", "#hits")
    person.makes_a_silence("known <b>fault</b>")
    person.reads("known <b>fault</b>")

    before = running.kept_back()
    running.fire("Quiet", place=labels["place"])
    running.fire("Loud")
    wait_until(running.container, lambda: running.kept_back() > before and "Loud" in running.told())
    assert "Quiet" not in running.told(), "somebody was woken by what was silenced in the page"
    (silence,) = running.status("Quiet")["silencedBy"]
    assert running.status("Quiet")["state"] == "suppressed"

    person.opens(running.url + "/#/alerts?filter=" + quote('{alertname="Quiet"}'))
    person.reads("Of all: active 0, silenced 1, inhibited 0.", "#summary")
    person.presses(f"article a[href='#/silences/{silence}']")
    person.presses(f"[data-key='end {silence}']")
    person.chromium.switch_to.active_element.send_keys(Keys.ESCAPE)
    person.until(lambda: not person.chromium.find_element(By.ID, "confirm").is_displayed(), "Escape keeps it")
    assert running.ask(f"silence/{silence}")["status"]["state"] == "active", "asked and not confirmed, it stays"
    person.presses(f"[data-key='end {silence}']")
    person.presses("#expire")
    person.reads("The silence is expired", "#notice")
    assert running.ask(f"silence/{silence}")["status"]["state"] == "expired"
    wait_until(running.container, lambda: "Quiet" in running.told())


def test_an_alert_is_silenced_by_one_click_and_two_fields(running: Running, person: Person) -> None:
    running.fire("Clicked", place="here")
    running.fire("Clicked", place="there")
    person.opens(running.url + "/#/alerts?filter=" + quote('{alertname="Clicked", place="here"}'))
    person.reads("Alerts shown: 1 of 1", "#summary")
    person.presses("article .links a")
    person.reads("It hits 1 of the alerts", "#hits")
    assert "place=here" in person.text("#preview")
    person.makes_a_silence("one of two")
    alerts = running.ask('alerts?filter=alertname="Clicked"')
    assert len(alerts) == 2
    hit = [each["labels"]["place"] for each in alerts if each["status"]["state"] == "suppressed"]
    assert hit == ["here"], "silenced is what the form was filled with, and nothing else"
    (made,) = [each for each in running.ask("silences") if each["comment"] == "one of two"]
    assert made["createdBy"] == "on call"
    assert made["status"]["state"] == "active", "begun at once, by AlertManager's clock"


def test_alerts_are_found_and_what_they_say_is_text_and_safe_links(running: Running, person: Person) -> None:
    running.fire("Found", test="find")
    running.fire("Other", test="find")
    person.opens(running.url + "/#/alerts?filter=" + quote('{test="find"}'))
    person.reads("Alerts shown: 2 of 2", "#summary")
    person.writes("#search", "summary of FOUND")
    person.reads("Alerts shown: 1 of 2", "#summary")
    assert "Receiver: on-call" in person.text("#list"), "as AlertManager groups them"
    assert "<script>document.title = 'mine'</script>" in person.text("#list")
    assert "make logs PART=postgres" in person.text("#list code")
    links = person.runs("return [...document.querySelectorAll('article a')].map((each) => each.getAttribute('href'))")
    assert {"https://example.org/Found.md", "https://example.org/graph?g0.expr=up+%3D%3D+0"} < set(links)
    (lines,) = [each for each in links if "vmui" in each]
    assert "g0.range_input=1h&g0.relative_time=none&g0.end_input=2" in lines, "the hour of the alert, as in messages"
    assert lines.endswith("Z&query=%7B%7D")
    assert not [each for each in links if each.startswith("javascript")], "an annotation may come from anybody"
    person.presses("input[name=active]")
    person.reads("Alerts shown: 0 of 2", "#summary")
    person.presses("input[name=active]")
    person.writes("#matchers", "no matcher")
    person.reads("This is no matcher: no matcher", "#trouble")
    person.writes("#matchers", 'test=~"("')
    person.reads("AlertManager refuses (400)", "#trouble")
    person.writes("#matchers", 'alertname="Other"')
    person.writes("#search", " ")
    person.reads("Alerts shown: 1 of 1", "#summary")
    assert not person.text("#trouble"), "what was mended is no trouble any more"
    assert person.chromium.title == "Alerts · AlertManager", "nothing of an alert was run"


def test_the_page_speaks_two_languages_and_is_dark_at_night(running: Running, person: Person) -> None:
    person.opens(f"{running.url}/#/status", "ru")
    person.reads("Версия")
    person.reads(PROGRAMS["alertmanager"].version)
    assert "receiver: on-call" in person.text("#configuration")
    assert "hooks.example.org" not in person.text("#configuration"), "the webhook's address is a password"
    person.presses("#language")
    person.reads("Version")
    background = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        person.chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        seen.append(person.runs(background))
    assert seen == ["rgb(255, 255, 255)", "rgb(20, 23, 26)"]


def test_an_alertmanager_that_does_not_answer_is_told_and_so_is_its_return(running: Running, person: Person) -> None:
    person.opens(running.url + link_of({"alertname": "Unsure"}))
    person.reads("It hits 0 of the alerts", "#hits")
    assert "Last answer of AlertManager" in person.text("#answered")
    person.writes("#author", "on call")
    person.writes("#comment", "made or not")
    running.container.pause()
    try:
        person.presses("#send")
        person.reads("Look at the list of silences before you try again", "#result")
        person.reads("AlertManager does not answer", "#trouble")
    finally:
        running.container.unpause()
    person.until(lambda: not person.text("#trouble"), "it answers again")


def test_inside_another_page_there_is_nothing_to_press(running: Running, person: Person) -> None:
    person.chromium.get(f"{running.url}/metrics")
    person.runs("const inner = document.createElement('iframe'); inner.src = '/'; document.body.append(inner)")
    body = "return document.querySelector('iframe').contentDocument.body"
    person.until(lambda: "inside another page" in person.runs(f"{body}?.innerText || ''"), "it says why it is empty")
    assert not person.runs(f"{body}.querySelectorAll('a, button').length")


def test_with_a_password_the_page_works_and_without_it_there_is_none(
    laboratory: Laboratory, environment: Environment, person: Person
) -> None:
    container = laboratory.healthy_part(built_here(environment, {"basicAuth": "always"}))
    host = f"{address(container)}:{parts.PORT}"
    assert httpx.get(f"http://{host}/", timeout=30).status_code == httpx.codes.UNAUTHORIZED
    person.opens(f"http://{access.USER}:{secret_value(ALERTMANAGER_WEB, 40)}@{host}/#/status")
    person.reads(PROGRAMS["alertmanager"].version)
    person.presses("nav a[href='#/silences/new']")
    person.writes("[name=value]", "Any")
    person.makes_a_silence("with a password")
