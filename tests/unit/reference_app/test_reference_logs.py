"""What the reference application's log holds of an error: where it came from, and nothing that a user has sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

APPLICATION = Path(__file__).parents[3] / "reference_app"
EMAIL, TOKEN = "ada@example.org", "a-token-of-somebody"
FAILS = f"""
import structlog
from samokoder.logs import set_up_logs

set_up_logs("api")
log = structlog.stdlib.get_logger("test")

def deep(rest, parameters):
    if rest:
        return deep(rest - 1, parameters)
    raise LookupError('duplicate key\\nDETAIL:  Key (email)=({EMAIL}) already exists.\\nthe end')

try:
    try:
        deep(200, {{"email": "{EMAIL}", "token": "{TOKEN}"}})
    except LookupError as error:
        raise ExceptionGroup("several", [error])
except ExceptionGroup:
    log.exception("request failed", path="/auth/register")
"""

REFUSES = """
import asyncio, httpx
from samokoder.frontend import app

async def pieces():
    yield b"x" * 70_000

async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
        for body in (b"x" * 70_000, pieces()):
            answer = await client.post("/app/projects", content=body)
            print("ANSWER", answer.status_code, answer.headers.get("x-request-id", ""), flush=True)

asyncio.run(main())
"""


PROBED = """
import asyncio, httpx
from starlette.responses import Response
from samokoder.logs import set_up_logs
from samokoder.request_log import RequestLog

set_up_logs("api")
status = 200

async def app(scope, receive, send):
    await Response(status_code=status)(scope, receive, send)

async def main():
    global status
    transport = httpx.ASGITransport(RequestLog(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        for status in (200, 503, 503, 503, 500, 503, 200, 200):
            for path in ("/health", "/ready"):
                await client.get(path)

asyncio.run(main())
"""


def _logged(program: str = FAILS) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(APPLICATION), "API_URL": "http://nobody:8000"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def test_a_traceback_in_the_log_has_no_value_that_a_user_has_sent() -> None:
    logged = _logged()
    assert TOKEN not in logged, "a local variable holds what was sent, and whoever reads the log reads it"
    assert EMAIL not in logged, "PostgreSQL's DETAIL names the row, which is a user's"


def test_a_traceback_in_the_log_says_where_the_error_came_from() -> None:
    line, *more = _logged().splitlines()
    assert not more, "one event is one line"
    event = json.loads(line)
    assert (event["level"], event["event"], event["path"]) == ("error", "request failed", "/auth/register")
    assert "duplicate key" in line, "without the error's text nobody knows what has failed"
    assert "deep" in line, "without the frames nobody knows where"


def test_a_body_that_is_too_large_is_one_line_and_no_error() -> None:
    lines = _logged(REFUSES).splitlines()
    answers = [line.split(" ") for line in lines if line.startswith("ANSWER")]
    assert [status for _, status, _ in answers] == ["413", "413"], "with its length told, and without"
    assert all(request_id for *_, request_id in answers), "a refusal is found in the log by its id too"
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [event["status"] for event in events if event["event"] == "request"] == [413, 413], events
    assert not any("exception" in event or event["level"] == "error" for event in events), (
        "what a client does wrong is no fault of ours, and nobody is to be woken for it"
    )


def test_probes_are_logged_when_their_answer_changes_and_not_each_second() -> None:
    lines = [json.loads(line) for line in _logged(PROBED).splitlines() if line.startswith("{")]
    logged = [(each["path"], each["status"]) for each in lines if each["event"] == "request"]
    expected = [503, 500, 503, 200]
    for path in ("/health", "/ready"):
        assert [status for where, status in logged if where == path] == expected, (
            "while Redis is away an hour, its lines would be all that is left of the log"
        )
