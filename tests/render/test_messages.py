"""What a person reads: the templates, rendered by AlertManager's own amtool."""

from __future__ import annotations

import html
import json
import re
import string
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from stack.monitoring.log_links import LAST_HOUR
from stack.parts.alertmanager import messages
from stack.parts.alertmanager.messages import WORDS, Language, messages_tmpl
from stack.settings.environment import Environment
from tests.render.conftest import Laboratory, output

if TYPE_CHECKING:
    from docker.models.containers import Container

LANGUAGES: tuple[Language, ...] = ("en", "ru")
EXTERNAL = "https://alerts.example.org/prod"
# AlertManager replaces a longer one, whole, by a sentence that says so.
LONGEST = 4096
# https://core.telegram.org/bots/api#html-style: these, and entities by their number.
TELEGRAM_ENTITY = re.compile(r"&(#[0-9]+|#x[0-9a-f]+|lt|gt|amp|quot);")
AWKWARD = "a<b> & \"c\" 'd' 100% \\e {{f}} Ёлка 🎄 +g"

# A file of the container for each: template.data wants a file.
Kind = Literal["html", "text"]


def alert(**labels: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "status": "firing",
        "labels": {
            "alertname": "PostgresDown",
            "severity": "critical",
            "service": "postgres",
            "environment": "prod",
            **labels,
        },
        "annotations": {
            "summary": "PostgreSQL does not answer",
            "description": "pg_up is 0.\nThe API answers 503.",
            "runbook_url": "https://git.example.org/docs/runbooks/PostgresDown.md",
            "dashboard_url": "https://grafana.example.org/d/postgres?from=now-1h&to=now",
            "logs_url": f"https://logs.example.org/select/vmui/#/?{LAST_HOUR}&query=%7Bpart%3D%22postgres%22%7D",
        },
        "startsAt": (now - timedelta(hours=1, minutes=2, seconds=3)).isoformat(),
        "endsAt": now.isoformat(),
        "generatorURL": "https://prometheus.example.org/graph?g0.expr=pg_up+%3D%3D+0&g0.tab=1",
        "fingerprint": "0123456789abcdef",
    }


def awkward(**labels: str) -> dict[str, Any]:
    made = alert(place=AWKWARD, **labels)
    made["annotations"] |= {"summary": f"summary {AWKWARD}", "description": f"description {AWKWARD}"}
    return made


def resolved(made: dict[str, Any]) -> dict[str, Any]:
    return made | {"status": "resolved"}


def data(*alerts: dict[str, Any]) -> dict[str, Any]:
    def common(of: str) -> dict[str, str]:
        return {k: v for k, v in alerts[0][of].items() if all(each[of].get(k) == v for each in alerts)}

    return {
        "receiver": "on-call",
        "status": "firing" if any(each["status"] == "firing" for each in alerts) else "resolved",
        "alerts": list(alerts),
        "groupLabels": {name: alerts[0]["labels"].get(name, "") for name in ("alertname", "service")},
        "commonLabels": common("labels"),
        "commonAnnotations": common("annotations"),
        "externalURL": EXTERNAL,
    }


def huge(text: str) -> dict[str, Any]:
    """An alert in which everything is too long."""
    made = alert(place=text)
    made["annotations"] = dict.fromkeys(made["annotations"], text * 20)
    made["generatorURL"] = "https://prometheus.example.org/" + "x" * 3000
    return made


SITUATIONS: dict[str, dict[str, Any]] = {
    "one": data(alert()),
    "over": data(resolved(alert())),
    "both": data(alert(instance="a"), resolved(alert(instance="b"))),
    "awkward": data(awkward()),
    "three": data(*(alert(instance=f"host-{number}") for number in range(3))),
    "many": data(*(awkward(instance=f"host-{number}") for number in range(200))),
    "many-mixed": data(*((resolved(alert(n=str(n))) if n % 2 else alert(n=str(n))) for n in range(200))),
    "huge": data(*(huge('<&"Ж' * 50) for _ in range(200))),
    "bare": data({**alert(), "labels": {"alertname": "Bare"}, "annotations": {}, "generatorURL": ""}),
}
TEMPLATES: dict[str, tuple[str, Kind]] = {
    "telegram": (messages.TELEGRAM, "html"),
    "subject": (messages.SUBJECT, "text"),
    "mail.text": (messages.MAIL_TEXT, "text"),
    "mail.html": (messages.MAIL_HTML, "html"),
}


@pytest.fixture(scope="module")
def amtool(laboratory: Laboratory, environment: Environment) -> Container:
    """A container with amtool, the templates of both languages and the data of every situation."""
    files = {f"/{language}.tmpl": messages_tmpl(language) for language in LANGUAGES}
    files |= {f"/{name}.json": json.dumps(situation) for name, situation in SITUATIONS.items()}
    return laboratory.shell(environment.image("alertmanager"), files)


def rendered(amtool: Container, language: Language, template: str, situation: str) -> str:
    text, kind = TEMPLATES[template]
    code, said = output(
        amtool,
        *("amtool", "template", "render", f"--template.glob=/{language}.tmpl", f"--template.text={text}"),
        *(f"--template.type={kind}", f"--template.data=/{situation}.json"),
    )
    assert code == 0, said
    return said


class Tags(HTMLParser):
    """The tags of an HTML text, the links in it, and whether each tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: dict[str, str] = {}
        self._href = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag != "meta":
            self.open.append(tag)
        self._href = dict(attrs).get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} is closed and was never opened"
        assert self.open.pop() == tag, f"{tag} is closed inside of another"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["a"]:
            self.links[data] = self._href


def taken_by_telegram(text: str) -> Tags:
    """Assert that Telegram takes a text with parse_mode HTML, as its bot API describes it."""
    assert 0 < len(text) <= LONGEST, f"{len(text)} characters"
    tags = Tags(text)
    assert tags.seen <= {"a", "b"}
    without = re.sub(r'</?b>|<a href="[^"<>]*">|</a>', "", text)
    assert not re.search("[<>]", without), "a < that begins no tag: Telegram refuses the message"
    assert "&" not in TELEGRAM_ENTITY.sub("", text), "an entity that Telegram does not know"
    for link in tags.links.values():
        assert urlsplit(link).scheme in {"http", "https"}
        assert not re.search(r"\s", link)
    return tags


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_a_text_for_every_word(language: Language) -> None:
    text = messages_tmpl(language)
    assert "@@" not in text, "a word that nobody has filled in"
    assert WORDS[language].keys() == WORDS["en"].keys()
    assert not [word for word in WORDS[language].values() if set(word) & set("\"'\\<>&{}%")], "it would end a string"


def test_russian_messages_have_no_english_word() -> None:
    latin = set(string.ascii_letters)
    assert not [word for word in WORDS["ru"].values() if set(word) & latin]


@pytest.mark.live
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_telegram_takes_every_message(amtool: Container, language: Language, situation: str) -> None:
    taken_by_telegram(rendered(amtool, language, "telegram", situation))


@pytest.mark.live
def test_a_message_says_what_and_where_and_leads_on(amtool: Container) -> None:
    text = rendered(amtool, "en", "telegram", "one")
    tags = taken_by_telegram(text)
    lines = html.unescape(re.sub("<[^>]*>", "", text)).splitlines()
    assert lines[0] == "🔴 FIRING: PostgreSQL does not answer", "what a locked phone shows"
    assert lines[1] == "PostgresDown · critical · prod · postgres"
    assert lines[2:4] == ["pg_up is 0.", "The API answers 503."]
    assert re.fullmatch(r"Since [0-9-]{10} [0-9:]{5} UTC, for 1h [0-9]{1,2}m", lines[4])
    assert lines[5] == "Runbook · Dashboard · Logs · Silence · Query"
    situation = SITUATIONS["one"]["alerts"][0]
    assert tags.links["Runbook"] == situation["annotations"]["runbook_url"]
    assert tags.links["Dashboard"] == situation["annotations"]["dashboard_url"]
    assert tags.links["Query"] == situation["generatorURL"]


@pytest.mark.live
@pytest.mark.parametrize("template", ["telegram", "mail.text", "mail.html"])
@pytest.mark.parametrize("situation", ["one", "over"])
def test_the_link_to_the_logs_opens_the_hour_of_the_alert(amtool: Container, template: str, situation: str) -> None:
    text = html.unescape(rendered(amtool, "en", template, situation))
    (link,) = re.findall(r"https://logs\.example\.org/[^\s\"]*", text)
    begun = datetime.fromisoformat(SITUATIONS[situation]["alerts"][0]["startsAt"])
    # As the page reads it: what is behind the question mark is in the fragment.
    asked = dict(parse_qsl(urlsplit(link).fragment.partition("?")[2]))
    assert datetime.fromisoformat(asked.pop("g0.end_input")) == begun.replace(microsecond=0) + timedelta(minutes=15)
    assert asked == {"g0.range_input": "1h", "g0.relative_time": "none", "query": '{part="postgres"}'}


@pytest.mark.live
def test_a_message_is_in_the_language_of_the_settings(amtool: Container) -> None:
    lines = html.unescape(re.sub("<[^>]*>", "", rendered(amtool, "ru", "telegram", "one"))).splitlines()
    assert lines[0] == "🔴 СРАБОТАЛО: PostgreSQL does not answer"
    assert lines[1] == "PostgresDown · критично · prod · postgres"
    assert re.fullmatch(r"Началось [0-9-]{10} [0-9:]{5} UTC, длится 1 ч [0-9]{1,2} мин", lines[4])
    assert lines[5] == "Что делать · Дашборд · Логи · Заглушить · Запрос"


@pytest.mark.live
@pytest.mark.parametrize(
    ("language", "state", "lasted"), [("en", "RESOLVED", "lasted 1h 2m"), ("ru", "РЕШЕНО", "длилось 1 ч 2 мин")]
)
def test_the_end_is_told_as_such(amtool: Container, language: Language, state: str, lasted: str) -> None:
    text = rendered(amtool, language, "telegram", "over")
    assert text.startswith(f"✅ <b>{state}: ")
    assert re.search(rf"[0-9-]{{10}} [0-9:]{{5}} . [0-9:]{{5}} UTC, {lasted}", text)
    assert "silences" not in text, "there is nothing to silence"


@pytest.mark.live
@pytest.mark.parametrize("template", ["telegram", "mail.text", "mail.html"])
def test_the_silence_link_fills_alertmanagers_form(amtool: Container, template: str) -> None:
    text = html.unescape(rendered(amtool, "en", template, "awkward"))
    (link,) = re.findall(r"https://alerts\.example\.org/prod/#/silences/new\?filter=[^\s\"]*", text)
    query = link.partition("filter=")[2]
    assert re.fullmatch(r"[A-Za-z0-9%._-]+", query), "the form reads a plus sign as one, and ends at an ampersand"
    # As the form parses it (ui/app/src/Utils/Filter.elm): names, and values as JSON.
    matchers = unquote(query)
    assert matchers[0] + matchers[-1] == "{}"
    decoder, rest, found = json.JSONDecoder(), matchers[1:-1], {}
    while rest:
        name, _, rest = rest.partition("=")
        found[name], end = decoder.raw_decode(rest)
        rest = rest[end:].removeprefix(", ")
    assert found == SITUATIONS["awkward"]["alerts"][0]["labels"]


@pytest.mark.live
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_comes_from_an_alert_is_text_and_no_markup(amtool: Container, language: Language) -> None:
    for template in ("telegram", "mail.html"):
        text = rendered(amtool, language, template, "awkward")
        assert "a&lt;b&gt; &amp; " in text
        shown = html.unescape(re.sub("<[^>]*>", "", text))
        assert f"summary {AWKWARD}" in shown
        assert f"description {AWKWARD}" in shown
    assert f"description {AWKWARD}" in rendered(amtool, language, "mail.text", "awkward"), "plain text escapes nothing"


@pytest.mark.live
@pytest.mark.parametrize(("language", "more"), [("en", "More alerts: "), ("ru", "Ещё алертов: ")])
@pytest.mark.parametrize("situation", ["many", "many-mixed", "huge"])
def test_of_many_alerts_the_message_says_how_many_more(
    amtool: Container, language: Language, more: str, situation: str
) -> None:
    text = rendered(amtool, language, "telegram", situation)
    shown = text.count("<b>")
    assert 1 <= shown <= 10
    assert f"{more}{200 - shown} · <a" in text, "none may get lost"
    assert "#/silences/new" in text or situation == "huge", "at least one has its links"


@pytest.mark.live
def test_of_many_alerts_those_that_fire_come_first(amtool: Container) -> None:
    text = rendered(amtool, "en", "telegram", "many-mixed")
    assert text.startswith("🔥 FIRING: 100 ✅ RESOLVED: 100\n")
    assert text.count("<b>FIRING") == 10, "what is over can wait"


@pytest.mark.live
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_mail_is_whole(amtool: Container, language: Language, situation: str) -> None:
    subject = rendered(amtool, language, "subject", situation)
    assert subject == subject.strip()
    assert "\n" not in subject, "a header is one line"
    assert len(subject) <= 151
    Tags(rendered(amtool, language, "mail.html", situation))
    text = rendered(amtool, language, "mail.text", situation)
    alerts = SITUATIONS[situation]["alerts"]
    shown = min(len(alerts), 50)
    assert sum(text.count(f"\n{icon} ") + text.startswith(f"{icon} ") for icon in "🔴🔵✅") == shown
    assert (f"{len(alerts) - shown} · {EXTERNAL}" in text) == (len(alerts) > shown)


@pytest.mark.live
def test_a_subject_says_what_and_where(amtool: Container) -> None:
    assert rendered(amtool, "en", "subject", "one") == "[prod] 🔴 FIRING: PostgreSQL does not answer"
    assert rendered(amtool, "ru", "subject", "over") == "[prod] ✅ РЕШЕНО: PostgreSQL does not answer"
    assert rendered(amtool, "en", "subject", "three") == "[prod] 🔴 FIRING (3): PostgreSQL does not answer"
