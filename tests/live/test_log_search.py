"""The logs of a stack that is up, in their store: each line once, whatever is restarted meanwhile, and no secret."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable

import docker
import httpx
import pytest
from docker.models.containers import Container
from typer.testing import CliRunner

from operations import __main__ as command
from operations.checks.smoke import smoke, user_account
from operations.cli import common
from operations.engine import containers, log_lines, log_search
from operations.engine.commands import execute
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from stack.parts.log_collector import spec as log_collector
from stack.parts.logs import spec as logs
from stack.settings.environment import Environment
from tests import leaks
from tests.live.conftest import prometheus, url
from tests.live.traffic import Traffic
from tests.planted import SUPERUSER_PSQL

PARTS = ("api-1", "api-2", "worker", "postgres", "redis", "ingress", "backup")
SOON_SECONDS = 30


@pytest.fixture(scope="module", autouse=True)
def nobody_there(traffic: Traffic) -> None:
    """No users from here on: the store is stopped for a while, and they would find alerts about it."""
    traffic.stop()


def write(engine: docker.DockerClient, environment: Environment, part: str, text: str) -> None:
    """Have a part's first process write a line: what a container's own output is, the engine keeps."""
    container = containers.find(engine, environment, part)
    status, said = execute(container, ["sh", "-c", 'printf "%s\n" "$0" > /proc/1/fd/1', text])
    assert status == 0, said


def stored(environment: Environment, query: str) -> list[dict[str, str]]:
    answer = httpx.post(
        f"{url(environment, 'logs')}/select/logsql/query",
        data={"query": f'{{environment="{environment.name}"}} {query}', "limit": "200000"},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(row) for row in answer.text.split("\n") if row]


def until(true: Callable[[], object], seconds: float = SOON_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.5)


def in_the_engine(container: Container) -> Counter[str]:
    lines = log_lines.of_frames("", container.logs(stream=True, timestamps=True, follow=False))
    return Counter(line.text or " " for line in lines)


def in_the_store(environment: Environment, container: Container) -> Counter[str]:
    return Counter(row["_msg"] for row in stored(environment, f'container:="{str(container.id)[:12]}"'))


def assert_each_line_is_stored_once(engine: docker.DockerClient, environment: Environment) -> None:
    for part in PARTS:
        container = containers.find(engine, environment, part)
        wanted = in_the_engine(container)
        # What is written after this question may be there too.
        until(lambda wanted=wanted, container=container: not wanted - in_the_store(environment, container))  # type: ignore[misc]
        there = in_the_store(environment, container)
        now = in_the_engine(container)
        assert not there - now, f"{part}: these came twice: {there - now}"


def mark() -> str:
    return f"mark{secrets.token_hex(8)}"


def test_lines_of_each_part_are_found_within_seconds(
    stack: Workspace, engine: docker.DockerClient, environment: Environment
) -> None:
    said = {part: mark() for part in PARTS}
    for part, text in said.items():
        write(engine, environment, part, text)
    for part, text in said.items():
        until(lambda text=text: stored(environment, text))  # type: ignore[misc]
        (row,) = stored(environment, text)
        name = "-".join(filter(None, (row["part"], row.get("replica"))))
        assert (name, row["stream"], row["_msg"]) == (part, "stdout", text)
    assert_each_line_is_stored_once(engine, environment)


def test_nothing_is_lost_while_the_store_is_stopped(
    stack: Workspace, engine: docker.DockerClient, environment: Environment
) -> None:
    store = containers.find(engine, environment, logs.PART)
    store.stop()
    try:
        said = [mark() for _ in range(5)]
        for text in said:
            write(engine, environment, "worker", text)
            time.sleep(12)
        health = httpx.get(f"{url(environment, 'ingress')}/health", timeout=10, trust_env=False)
        assert health.status_code == 200, "the application waits for its log"
    finally:
        store.start()
    until(lambda: containers.find(engine, environment, logs.PART).attrs["State"]["Health"]["Status"] == "healthy", 60)
    until(lambda: all(len(stored(environment, text)) == 1 for text in said), 60)
    assert_each_line_is_stored_once(engine, environment)


def test_nothing_is_lost_and_nothing_comes_twice_when_the_collector_is_restarted(
    stack: Workspace, engine: docker.DockerClient, environment: Environment
) -> None:
    collector = containers.find(engine, environment, log_collector.PART)
    before, while_down, after = mark(), mark(), mark()
    write(engine, environment, "api-1", before)
    collector.stop()
    write(engine, environment, "api-1", while_down)
    collector.start()
    write(engine, environment, "api-1", after)
    until(lambda: all(stored(environment, text) for text in (before, while_down, after)), 60)
    assert [len(stored(environment, text)) for text in (before, while_down, after)] == [1, 1, 1]
    assert_each_line_is_stored_once(engine, environment)
    dropped = prometheus(environment, "query", query="sum(log_collector_dropped_lines_total + 0)")["result"]
    assert not dropped or float(dropped[0]["value"][1]) == 0


def test_long_lines_and_garbage_hold_nothing_back(
    stack: Workspace, engine: docker.DockerClient, environment: Environment
) -> None:
    worker = containers.find(engine, environment, "worker")
    long, after = mark(), mark()
    script = (
        "import os, sys; out = os.open('/proc/1/fd/1', os.O_WRONLY); "
        "whole = (sys.argv[1] + ' ' + 'x' * 2**20 + chr(10)).encode() + os.urandom(3000) + b'\\n'; "
        "[os.write(out, whole[at:at + 4096]) for at in range(0, len(whole), 4096)]"
    )
    status, said = execute(worker, ["python", "-c", script, long])
    assert status == 0, said
    write(engine, environment, "worker", after)
    until(lambda: stored(environment, after))
    (row,) = stored(environment, long)
    assert row["_msg"].startswith(f"{long} xxx")
    assert int(row["cut"]) > 2**20


def test_no_generated_secret_is_in_the_store(stack: Workspace, environment: Environment) -> None:
    rows = json.dumps(stored(environment, "*"))
    assert len(rows) > 10_000, "an empty store proves nothing"
    for name, value in stack.open().secrets().items():
        assert value not in rows, f"{name} is stored"


def smoked(stack: Workspace, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Smoke-test the stack; return what its user sent and got."""
    user, tokens, good = user_account.somebody(), list[str](), user_account.good

    def noted(answer: httpx.Response, what: str, *statuses: int) -> httpx.Response:
        if what == "POST /auth/login":
            tokens.append(answer.json().get("access_token", ""))
        return good(answer, what, *statuses)

    monkeypatch.setattr(smoke, "somebody", lambda: user)
    monkeypatch.setattr(user_account, "good", noted)
    smoke.smoke(stack, wait=60)
    assert tokens, "the smoke test has not logged in"
    return {f"smoke's {name}": value for name, value in user.items()} | {"smoke's token": tokens[-1]}


def used_by_a_user(api: str) -> dict[str, str]:
    """Be a user who mistakes; return what was sent and got."""
    user = {"email": f"{secrets.token_hex(6)}@example.org", "password": secrets.token_urlsafe(24)}
    wrong = secrets.token_urlsafe(24)
    with httpx.Client(base_url=api, timeout=60, trust_env=False) as client:
        client.post("/auth/register", json=user).raise_for_status()
        assert client.post("/auth/register", json=user).status_code == httpx.codes.CONFLICT
        assert client.post("/auth/login", json={**user, "password": wrong}).status_code == httpx.codes.UNAUTHORIZED
        token = str(client.post("/auth/login", json=user).raise_for_status().json()["access_token"])
        client.get("/auth/me", headers={"authorization": f"Bearer {token}"}).raise_for_status()
        client.get("/auth/me", headers={"authorization": f"Bearer {token[:-2]}"})  # refused
        client.get("/auth/me", auth=(user["email"], user["password"]))
        client.get("/projects", params={"token": token, **user})
        client.get("/auth/me", headers={"referer": f"{api}/?token={token}", "cookie": f"session={token}"})
        client.post("/projects", json={"name": {"token": token, **user}})  # of the wrong kind
        client.post("/auth/login", content=json.dumps({**user, "more": "x" * 100_000}))  # too large
        client.post("/auth/login", content=json.dumps(user)[:-1])  # no JSON
    both = f"{user['email']}:{user['password']}"
    return {**user, "wrong password": wrong, "token": token, "both": both}


def refused_by_postgres(engine: docker.DockerClient, environment: Environment) -> str:
    """Break a unique constraint of the users' table with an address of its own; return the address."""
    server, email = containers.find(engine, environment, "postgres"), f"{secrets.token_hex(6)}@example.org"
    row = f"(gen_random_uuid(), '{email}', 'no hash')"
    words = ["-d", "samokoder", "-c", f"INSERT INTO users (id, email, password_hash) VALUES {row}, {row}"]
    status, said = execute(server, [*SUPERUSER_PSQL, *words])
    assert status != 0
    assert email in said.decode(), "its client is told the row"
    return email


def test_nothing_that_a_user_or_the_smoke_test_sent_is_in_a_log(
    stack: Workspace, engine: docker.DockerClient, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = smoked(stack, monkeypatch) | used_by_a_user(url(environment, "ingress"))
    used["address that PostgreSQL refused"] = refused_by_postgres(engine, environment)
    said = {part: mark() for part in PARTS}
    for part, text in said.items():
        write(engine, environment, part, text)  # the lines before it are stored when it is
    for text in said.values():
        until(lambda text=text: stored(environment, text))  # type: ignore[misc]
    rows = stored(environment, "*")
    logs_of = {part: "\n".join(in_the_engine(containers.find(engine, environment, part))) for part in PARTS}
    assert "duplicate key value" in logs_of["postgres"], "its line is there, without the row"
    assert "/auth/login" in logs_of["ingress"], "an empty log proves nothing"
    logs_of["the store"] = json.dumps(rows, ensure_ascii=False)
    told = {name: leaked for name, text in logs_of.items() if (leaked := leaks.found(text, used))}
    assert told == {}
    for name, value in used.items():
        planted = json.dumps([*rows, {"_msg": f"a line with {value}"}], ensure_ascii=False)
        assert name in leaks.found(planted, used), f"the search would not have found {name}"


def test_only_this_environment_is_stored(environment: Environment) -> None:
    answer = httpx.post(
        f"{url(environment, 'logs')}/select/logsql/query",
        data={"query": f'!environment:="{environment.name}"'},
        timeout=60,
        trust_env=False,
    )
    assert answer.text == "", "lines of others on this host are nobody's business here"


def test_nobody_takes_stored_days_away(environment: Environment) -> None:
    for path in ("partition/list", "partition/detach?name=20261130", "partition/snapshot/create", "force_merge"):
        answer = httpx.post(f"{url(environment, 'logs')}/internal/{path}", timeout=60, trust_env=False)
        assert answer.status_code == 401, path


def test_the_command_finds_lines_of_a_part_and_of_no_other(
    stack: Workspace,
    engine: docker.DockerClient,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = mark()
    for part in ("api-1", "api-2", "worker"):
        write(engine, environment, part, text)
    until(lambda: len(stored(environment, text)) == 3)
    monkeypatch.setattr(common, "workspace_of", lambda _env: stack)
    found = CliRunner().invoke(command.app, ["logs", "--search", text, "--since", "1h", "--part", "api", "--json"])
    assert found.exit_code == 0, found.output
    assert {json.loads(line)["part"] for line in found.stdout.splitlines()} == {"api-1", "api-2"}
    refused = CliRunner().invoke(command.app, ["logs", "--search", "( |", "--since", "1h"])
    assert refused.exit_code == 1
    store = containers.find(engine, environment, logs.PART)
    store.stop()
    try:
        with pytest.raises(ProjectError, match="does not answer"):
            log_search.search(environment, url(environment, "logs"), text, limit=1, password=str)
    finally:
        store.start()
