"""The search in the logs, asked of a small server in this process."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from operations.engine.log_search import off, search
from operations.errors import ProjectError
from tests.recording import case_environment, environment_of
from tests.serving import serving

OURS = environment_of("staging", {"basicAuth": "always"})


@contextmanager
def store(status: int = 200, *rows: dict[str, str], text: str = "") -> Iterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            asked.append(({name: values[0] for name, values in form.items()}, self.headers["Authorization"]))
            answer = (text or "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Be silent."""

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked


@pytest.mark.parametrize(
    ("part", "stream"),
    [
        ("", '{environment="staging"}'),
        ("api", '{environment="staging",part="api"}'),
        ("api-2", '{environment="staging",part="api",replica="2"}'),
        ("redis-exporter", '{environment="staging",part="redis-exporter"}'),
    ],
)
def test_only_lines_of_the_environment_and_the_part_are_asked_for(part: str, stream: str) -> None:
    with store() as (url, asked):
        found = search(OURS, url, "a or b", part=part, since=1.5, limit=7, password=lambda: "p")
    form, login = asked[0]
    assert found == []
    assert form == {"query": f"{stream} (a or b)", "limit": "7", "start": "1.500"}, "`or` joins the words alone"
    assert login == "Basic c2Ftb2tvZGVyOnA="


def test_lines_come_in_the_order_of_time_with_the_part_that_wrote_them() -> None:
    rows = (
        {"_time": "2026-11-23T10:00:02Z", "_msg": "second", "part": "api", "replica": "2"},
        {"_time": "2026-11-23T10:00:01Z", "_msg": "first", "part": "worker"},
    )
    with store(200, *rows) as (url, _):
        found = search(OURS, url, "x", limit=7, password=lambda: "p")
    assert [(line.part, line.text) for line in found] == [("worker", "first"), ("api-2", "second")]


def test_no_lines_are_asked_for_where_none_are_wanted() -> None:
    with store(200, {"_time": "2026-11-23T10:00:01Z", "_msg": "x", "part": "api"}) as (url, asked):
        assert search(OURS, url, "x", limit=0, password=lambda: "p") == []
    assert asked == [], "to VictoriaLogs 0 is no limit"


def test_a_moment_of_which_the_store_leaves_out_zeros_comes_in_its_place() -> None:
    moments = ("01.12Z", "01.5Z", "01Z", "01.123456789Z")
    rows = [{"_time": f"2026-11-23T10:00:{moment}", "_msg": moment, "part": "api"} for moment in moments]
    with store(200, *rows) as (url, _):
        found = search(OURS, url, "x", limit=7, password=lambda: "p")
    assert [line.text for line in found] == ["01Z", "01.12Z", "01.123456789Z", "01.5Z"]
    assert found[0].at == "2026-11-23T10:00:01.000000000Z", "as the engine writes it"


def test_a_line_may_have_characters_that_end_lines_elsewhere() -> None:
    text = "a\u2028b\u2029c\u0085d"
    with store(200, {"_time": "2026-11-23T10:00:01Z", "_msg": text, "part": "api"}) as (url, _):
        (line,) = search(OURS, url, "x", limit=7, password=lambda: "p")
    assert line.text == text


def test_words_that_the_store_does_not_understand_are_told_with_how_to_write_them() -> None:
    with store(400, text="cannot parse") as (url, _), pytest.raises(ProjectError, match=r"cannot parse\n.*quotes"):
        search(OURS, url, "FATAL: x (", limit=7, password=lambda: "p")


def test_a_store_that_is_down_is_told_with_what_still_works() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ProjectError, match=r"does not answer .*logs PART=logs.*logs GREP=") as told:
            search(OURS, address, "x", limit=7, password=lambda: "secret")
    assert "secret" not in str(told.value)


def test_a_refused_password_is_told() -> None:
    with store(401, text="no") as (url, _), pytest.raises(ProjectError, match="answers 401: no"):
        search(OURS, url, "x", limit=7, password=lambda: "p")


def test_where_logs_are_not_collected_that_is_said_with_what_works_instead() -> None:
    assert off(case_environment("staging")) == ""
    told = off(environment_of("staging", {"logs": {"enabled": False}}))
    assert "samokoder:logs.enabled is false" in told
    assert "logs GREP=" in told
