"""`samokoder logs`: one readable line for each event, or the whole of it as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound
from typer.testing import CliRunner

from operations import __main__ as command
from operations.cli import logs
from operations.engine import log_lines
from operations.engine.log_lines import Line, cut
from operations.errors import ProjectError
from operations.workspace import known
from stack.common.names import PART_LABEL

AT = "2026-11-29T14:52:35.123456789Z"


def line(text: str, part: str = "api-1") -> Line:
    return Line(part=part, at=AT, text=text)


def test_an_event_is_its_moment_its_level_its_message_and_what_else_it_says() -> None:
    event = {
        "event": "request",
        "level": "warning",
        "timestamp": "2026-11-29T14:52:35.1Z",
        "logger": "samokoder.request_log",
        "part": "api",
        "request": {"uri": "/a b", "headers": {"accept": ["*/*"]}},
        "status": 413,
        "route": None,
    }
    assert line(json.dumps(event)).readable() == (
        '2026-11-29 14:52:35Z WARNING request status=413 request.uri="/a b" request.headers.accept="[\\"*/*\\"]"'
    ), "what is common to all events stands first, and what is deep inside comes last"


def test_an_error_says_what_it_is_and_where_it_was_raised_in_its_one_line() -> None:
    frames = [{"filename": "main.py", "lineno": 1}, {"filename": "auth.py", "lineno": 57}]
    error = {"exc_type": "LookupError", "exc_value": "no\nrow", "frames": frames}
    said = line(json.dumps({"event": "request failed", "level": "error", "exception": [error]})).readable()
    assert said.endswith('ERROR request failed exception="LookupError: no\\nrow (auth.py:57)"'), said
    assert "\n" not in said, "one event is one line"


def test_the_token_of_the_telegram_bot_is_not_shown_where_its_address_is() -> None:
    url = "https://api.telegram.org/bot123456789:AAH-x_yz0123456789abcdefghijklmnopq/sendMessage"
    frame = f'{AT} level=WARN msg="Notify attempt failed" err="Post \\"{url}\\": dial tcp: i/o timeout"\n'.encode()
    (found,) = log_lines.of_frames("alertmanager", iter([frame]))
    for shown in (found.readable(), found.as_json()):
        assert "AAH" not in shown, "a log is pasted into a chat at 3 a.m., and whoever has the token is the bot"
        assert "/bot<telegramBotToken>/sendMessage" in shown


@pytest.mark.parametrize("text", ["LOG:  checkpoint complete", "level=info msg=ready", '{"broken', "[1, 2]", "{}"])
def test_other_text_stays_as_it_was_written(text: str) -> None:
    assert line(text).readable().endswith("" if text == "{}" else text)


@pytest.mark.parametrize("evil", ["\x1b]0;title\x07", "\x1b[2J", "\u202e", "a\rb", "\x9b2J", "\x00"])
def test_what_a_stranger_has_sent_moves_no_terminal(evil: str) -> None:
    for text in (evil, json.dumps({"event": evil}), json.dumps({"event": "x", evil: evil})):
        shown = line(text).readable()
        assert shown.isprintable(), f"a request could write to the terminal of who reads the log: {shown!r}"


@pytest.mark.parametrize("deep", [200, 400, 600, 900, 990, 1000, 100_000])
@pytest.mark.parametrize("opened", ['{"a":', "["])
def test_a_line_that_is_nested_deeply_hides_no_other_line(opened: str, deep: int) -> None:
    closed = {"[": "]"}.get(opened, "}")
    for text in ('{"event":' + opened * deep, '{"event":' + opened * deep + "1" + closed * deep + "}"):
        assert line(text).readable().isprintable(), "one line of a request would end the whole log in a traceback"
        assert line(text).as_json().startswith('{"part": "api-1"')


def test_a_long_line_is_cut_to_the_width_and_says_so() -> None:
    assert cut("short", 10) == "short"
    assert cut("0123456789", 10) == "0123456789"
    assert cut("0123456789a", 10) == "012345678…"
    assert cut("日本語日本語", 6) == "日本…", "a wide letter takes two columns"


def test_json_has_the_events_own_words_digit_for_digit() -> None:
    raw = '{"event": "x", "n": 1.10, "big": 12345678901234567890123}'
    whole = line(raw).as_json()
    assert raw in whole, "read and written anew, a number could change"
    assert json.loads(whole) == {"part": "api-1", "at": AT, "event": json.loads(raw)}
    assert json.loads(line("plain").as_json()) == {"part": "api-1", "at": AT, "text": "plain"}


def test_a_long_line_that_the_engine_keeps_in_pieces_is_one_line() -> None:
    stamp = f"{AT} ".encode()
    frames = [stamp + b"one\n", stamp + b"2026-01-01T00:00:00Z a", stamp + b"b", stamp + b"c\n", stamp + b"no end"]
    assert [each.text for each in log_lines.of_frames("api-1", iter(frames))] == [
        "one",
        "2026-01-01T00:00:00Z abc",
        "no end",
    ], "the engine puts its moment before each piece, and a moment of the part's own is the part's"


@dataclass
class Container:
    """One that has written these lines."""

    lines: Sequence[tuple[str, str]]
    asked: dict[str, Any] = field(default_factory=dict)

    def logs(self, **options: Any) -> Iterator[bytes]:
        self.asked |= options
        return iter([f"2026-11-29T{at}.000000000Z {text}\n".encode() for at, text in self.lines])


def answer(status: int) -> Any:
    return SimpleNamespace(status_code=status)


GONE = NotFound("No such container: 0123", response=answer(404))


@dataclass
class Replaced(Container):
    """One that a deploy removes after these lines."""

    error: Exception = GONE

    def logs(self, **options: Any) -> Iterator[bytes]:
        yield from super().logs(**options)
        raise self.error


REMOVED = APIError("409 Client Error", response=answer(409), explanation="container is marked for removal")


@pytest.mark.parametrize("error", [GONE, REMOVED], ids=["gone", "going"])
@pytest.mark.parametrize("option", [[], ["--follow"]])
def test_a_container_that_is_replaced_meanwhile_hides_no_other_parts_log(
    shown: Callable[..., list[str]], option: list[str], error: Exception
) -> None:
    replaced = Replaced([("14:00:00", "zero")], error=error)
    found = shown(*option, worker=replaced, api=Container([("14:00:01", "one")]))
    assert {"api    | 2026-11-29 14:00:01Z one", "worker | 2026-11-29 14:00:00Z zero"} < set(found)
    (told,) = (line for line in found if "replaced" in line)
    assert told.startswith("worker: "), "which one is not whole"


def test_another_error_of_the_engine_ends_the_command(shown: Callable[..., list[str]]) -> None:
    error = APIError("500 Server Error", response=answer(500))
    shown(status=1, api=Replaced([], error=error), worker=Container([]))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def run(*words: str, status: int = 0, **parts: Container) -> list[str]:
        there = SimpleNamespace(client=lambda: SimpleNamespace(close=lambda: None))
        monkeypatch.setattr(known, "of", lambda _workspace: there)
        monkeypatch.setattr(known, "containers_of", lambda *_: parts)
        done = CliRunner().invoke(command.app, ["logs", *words])
        assert done.exit_code == status, done.output
        return done.output.splitlines()

    return run


def test_all_parts_are_in_the_order_of_time_with_the_name_before_each_line(shown: Callable[..., list[str]]) -> None:
    api = Container([("14:00:01", '{"event": "one"}'), ("14:00:03", "three")])
    assert shown(api=api, worker=Container([("14:00:02", "two")])) == [
        "api    | 2026-11-29 14:00:01Z one",
        "worker | 2026-11-29 14:00:02Z two",
        "api    | 2026-11-29 14:00:03Z three",
    ], "what has led to what is seen in one list"


def test_one_part_needs_no_name_before_its_lines(shown: Callable[..., list[str]]) -> None:
    assert shown("api", api=Container([("14:00:01", "one")])) == ["2026-11-29 14:00:01Z one"]


def test_a_line_that_goes_to_no_terminal_is_whole(shown: Callable[..., list[str]]) -> None:
    text = "x" * 50_000
    assert shown("api", api=Container([("14:00:01", text)]))[0].endswith(text), "a pipe would lose what it looks for"
    (raw,) = shown("api", "--json", api=Container([("14:00:01", text)]))
    assert json.loads(raw)["text"] == text


def test_a_line_that_goes_to_a_terminal_is_cut_unless_it_is_json(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for as_json in (False, True):
        logs._writer(["api"], as_json=as_json)(line("x" * 500))
    readable, raw = capsysbinary.readouterr().out.decode().splitlines()
    assert (len(readable), readable[-1]) == (80, "…"), "a line that breaks over eleven cannot be read"
    assert json.loads(raw)["text"] == "x" * 500, "--json is for programs, which need all of it"


def test_only_the_lines_that_are_looked_for_are_shown_and_they_are_looked_for_in_all(
    shown: Callable[..., list[str]],
) -> None:
    lines = [("14:00:01", '{"event": "request", "status": 413}'), ("14:00:02", "nothing"), ("14:00:03", "x 413")]
    api = Container(lines)
    found = shown("api", "--grep", "status=413|x", "--tail", "1", api=api)
    assert found == ["2026-11-29 14:00:03Z x 413"], "the last one of those that match"
    assert api.asked["tail"] == "all", "what is looked for may lie before the last hundred lines"
    assert len(shown("api", "--grep", "status=413", api=Container(lines))) == 1, "as it is shown"
    assert len(shown("api", "--grep", '"status": 413', api=Container(lines))) == 1, "and as it was written"
    shown("api", "--grep", "(", status=2, api=Container([]))


def test_the_last_hundred_lines_are_shown_and_all_since_a_moment(shown: Callable[..., list[str]]) -> None:
    api = Container([(f"14:00:{number:02}", str(number)) for number in range(5)])
    shown("api", api=api)
    assert (api.asked["tail"], api.asked["since"]) == (100, None)
    assert len(shown("api", "--since", "2026-11-29 14:00:00Z", api=api)) == 5
    assert (api.asked["tail"], api.asked["since"]) == ("all", 1795960800.0)
    assert shown("api", "--tail", "0", api=api) == []


def test_logs_that_are_followed_end_when_all_have_ended(shown: Callable[..., list[str]]) -> None:
    followed = shown("--follow", api=Container([("14:00:01", "a")]), worker=Container([("14:00:02", "b")]))
    assert sorted(followed) == ["api    | 2026-11-29 14:00:01Z a", "worker | 2026-11-29 14:00:02Z b"]


@pytest.mark.parametrize(
    ("text", "ago"), [("30s", 30), ("10m", 600), ("10min", 600), ("2h", 7200), ("2 h", 7200), ("1d", 86400)]
)
def test_a_moment_can_be_said_as_how_long_ago(text: str, ago: int) -> None:
    now = datetime(2026, 11, 29, 14, tzinfo=UTC)
    assert logs.since_when(text, now) == now.timestamp() - ago


@pytest.mark.parametrize("text", ["yesterday", "2026-11-29 14:00:00", "10"])
def test_a_moment_that_could_mean_two_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ProjectError, match="10m, 2h, 1d") as refused:
        logs.since_when(text)
    assert "TO=" not in str(refused.value), "it is the option of another command"


def test_a_log_that_cannot_be_read_to_its_end_is_an_error_and_no_silence() -> None:
    def broken() -> Iterator[Line]:
        yield line("one")
        raise OSError("the engine went away")

    came = logs.together({"api-1": broken()})
    assert next(came).text == "one"
    with pytest.raises(OSError, match="went away"):
        next(came)


def test_a_part_with_replicas_is_all_of_them_and_no_part_is_all_parts() -> None:
    parts = ("api-2", "worker", "api-1")
    listed = [SimpleNamespace(labels={PART_LABEL: part}) for part in parts]
    client: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: listed))
    there: Any = SimpleNamespace(name="staging", workspace=SimpleNamespace(typed=lambda words: f"make {words}"))
    assert list(known.containers_of(client, there, "api")) == ["api-1", "api-2"]
    assert list(known.containers_of(client, there, "")) == ["api-1", "api-2", "worker"]
    listed.clear()
    for part in ("api", ""):
        with pytest.raises(ProjectError, match=re.escape("staging is not up: make up")):
            known.containers_of(client, there, part)


@pytest.mark.parametrize(("words", "limit"), [(["--tail", "0"], 0), (["--tail", "7"], 7), ([], logs.SEARCHED)])
def test_a_search_shows_as_many_lines_as_are_wanted(
    words: list[str], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(logs, "_searched", lambda *_, limit, **_more: asked.append(limit))
    assert CliRunner().invoke(command.app, ["logs", "--search", "x", *words]).exit_code == 0
    assert asked == [limit]
