"""What is told of a container that is not healthy, with an SDK of plain values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from operations.engine.part_status import statuses_of
from operations.lifecycle import failures
from operations.lifecycle.failures import tell_failures
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL

SECRET = "s3cr3t" * 6
NOW = datetime.now(tz=UTC)


def at(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def container(part: str, *, health: str, log: str = "", streak: int = 0, restarts: int = 0, **state: Any) -> Any:
    checks = [{"Start": at(5 * n), "ExitCode": 1, "Output": "trace\nno\nway: in"} for n in range(streak, 0, -1)]
    running = {"Status": "running", "Running": True, "StartedAt": at(100), "FinishedAt": "0001-01-01T00:00:00Z"}
    known = {"Health": {"Status": health, "FailingStreak": streak, "Log": checks}}
    return SimpleNamespace(
        labels={PART_LABEL: part, ENVIRONMENT_LABEL: "staging"},
        attrs={"State": {**running, **known, **state}, "Config": {"Image": "i"}, "RestartCount": restarts},
        logs=lambda tail: "\n".join(log.splitlines()[-tail:]).encode(),
    )


def told(*there: Any) -> list[failures.Failure]:
    client: Any = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: list(there)))
    more = "make logs PART={}".format
    return list(failures.failures(client, "staging", {"postgres-app": SECRET}, more=more))


def test_a_check_that_fails_is_told_with_since_when_and_the_command_for_more() -> None:
    (found,) = told(container("worker", health="unhealthy", streak=3, log="beginning\n"))
    first, *rest = found.text.splitlines()
    assert first.startswith(f"worker is not healthy since {NOW - timedelta(seconds=15):%H:%M:%S} UTC (")
    assert first.endswith(": 3 checks in a row have failed")
    assert rest == ["  check: no", "  check: way: in", "  log: beginning", "  more: make logs PART=worker"]


def test_one_that_ends_again_and_again_is_told_with_its_exit_code() -> None:
    ended: dict[str, Any] = {
        "Status": "restarting",
        "Restarting": True,
        "FinishedAt": at(2),
        "ExitCode": 137,
        "OOMKilled": True,
    }
    (found,) = told(container("api-1", health="starting", restarts=4, **ended))
    first = found.text.splitlines()[0]
    assert first.startswith("api-1 is not healthy: ended since ")
    assert first.endswith("with 137: it needed more memory than its limit, restarted 4 times")


def test_one_that_has_only_begun_is_named_after_those_that_failed_and_has_no_text() -> None:
    found = told(
        container("ingress", health="starting"),
        container("api-1", health="unhealthy", streak=1),
        container("postgres", health="healthy"),
    )
    assert [(each.part, bool(each.text)) for each in found] == [("api-1", True), ("ingress", False)], (
        "the part that failed would be lost among those that were to wait for it"
    )


def test_a_thousand_equal_lines_are_one_with_their_number() -> None:
    noise = "\n".join(
        f'{{"event":"request","path":"/ready","status":503,"timestamp":"2026-11-30T00:00:{n % 60:02}.5Z",'
        f'"request_id":"{n:032x}","milliseconds":{n}.25}}'
        for n in range(300)
    )
    text = f"before\n{noise}\n2026-11-30 00:05:00.000 UTC [17] FATAL: no pg_hba.conf entry\n"
    before, requests, fatal = failures.folded(text)
    assert before == "before", "what was said once would be lost behind what is said each second"
    assert requests.startswith("request path=/ready status=503")
    assert requests.endswith("(300 times)")
    assert "FATAL" in fatal


def test_numbers_that_say_something_keep_lines_apart() -> None:
    assert failures.folded("status=503\nstatus=500\nstatus=503\n") == ["status=500", "status=503 (2 times)"]


def test_it_is_a_few_lines_and_never_a_secret() -> None:
    log = "\n".join(f"different {'x' * (n % 26)} {SECRET} {'y' * 1000}" for n in range(500))
    (found,) = told(container("api-1", health="unhealthy", streak=9, log=log))
    lines = found.text.splitlines()
    assert len(lines) <= 10, "an error is a few lines, not a log"
    assert max(map(len, lines)) < 300
    assert SECRET not in found.text
    assert "<postgres-app>" in found.text


def test_an_image_whose_tag_went_to_a_newer_one_is_called_by_its_id() -> None:
    api = SimpleNamespace(
        images=lambda: [
            {"Id": "sha256:old", "RepoTags": ["<none>:<none>"]},
            {"Id": "sha256:new", "RepoTags": ["samokoder-redis:7"]},
            {"Id": "sha256:two", "RepoTags": ["<none>:<none>", "kept:1"]},
        ]
    )
    there = []
    for part, image in (("redis", "sha256:new"), ("postgres", "sha256:old"), ("worker", "sha256:two")):
        each = container(part, health="healthy")
        each.attrs["Config"]["Image"] = image
        there.append(each)
    client: Any = SimpleNamespace(api=api, containers=SimpleNamespace(list=lambda **_: there))
    rows = statuses_of(client, "staging", dict.fromkeys(("postgres", "redis", "worker"), ""), ())
    assert {row.part: row.image for row in rows} == {
        "postgres": "sha256:old",
        "redis": "samokoder-redis:7",
        "worker": "kept:1",
    }, "`<none>:<none>` tells nobody what runs"


def said_of(*there: Any, configured: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """The parts that failed, and what a person reads. configured: key -> value of a secret in the stack file."""
    said: list[str] = []
    workspace = SimpleNamespace(
        name="prod",
        typed=lambda words: f"make {words} ENV=prod",
        reporter=SimpleNamespace(say=said.append),
        client=lambda: SimpleNamespace(
            containers=SimpleNamespace(list=lambda **_: list(there)),
            close=lambda: None,
        ),
    )
    config = {key: {"value": value, "secret": True} for key, value in (configured or {}).items()}
    run = SimpleNamespace(secrets=lambda **_: {"postgres-app": SECRET}, configuration=lambda: config, variables={})
    return tell_failures(cast("Any", workspace), cast("Any", run)), said


def test_an_up_that_fails_says_it_with_the_typed_command() -> None:
    parts, said = said_of(container("api-1", health="unhealthy", streak=1), container("ingress", health="starting"))
    assert parts == ["api-1"]
    assert "more: make logs PART=api-1 ENV=prod" in said[0]
    assert "ingress" in said[1]


def test_an_up_that_fails_shows_neither_a_generated_nor_a_configured_secret() -> None:
    values = {"samokoder:SMTP_PASSWORD": 'hunter2 "quoted"', "samokoder:JWT_KEY": "-----BEGIN-----\nAAAAkey\n"}
    log = f'{{"event": "login with hunter2 \\"quoted\\" refused"}}\nhunter2 "quoted"\nAAAAkey\n{SECRET}\n'
    _, (text,) = said_of(container("api-1", health="unhealthy", streak=1, log=log), configured=values)
    for part in ("hunter2", "AAAAkey", SECRET):
        assert part not in text, "a log of CI is read by many"
    assert "<samokoder:SMTP_PASSWORD" in text, "which one it was helps whoever reads it"
