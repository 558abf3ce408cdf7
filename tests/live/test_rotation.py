"""Rotations under load: no request is lost, the new value opens and the old one no longer does."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import httpx
import pytest
import yaml

from operations.engine import containers
from operations.engine.commands import execute
from operations.rotation import rotate
from operations.workspace.workspace import Workspace
from stack.common.names import NetworkName
from tests.live.conftest import begin, cut_off, under_load, up_with_llm, url, with_config
from tests.live.load import Load

pytestmark = pytest.mark.deploy


@pytest.fixture(scope="module")
def rotating(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A stack with a stack file of its own, and its LLM; gone when these tests are over."""
    files = tmp_path_factory.mktemp("committed")
    (files / "Pulumi.staging.yaml").write_text("# ours\nconfig: {}\n", encoding="utf-8")
    workspace = with_config(under_load(new_workspace()), {"samokoder:api": {"stableSeconds": 6}})
    workspace = replace(workspace, stack_files=files)
    with up_with_llm(workspace, engine):
        yield workspace


def committed(workspace: Workspace) -> dict[str, dict[str, object]]:
    """What the stack file says of rotations."""
    config = yaml.safe_load(workspace.committed_file.read_text())["config"]
    return {key.removeprefix("samokoder:"): value for key, value in config.items()}


def said(engine: docker.DockerClient, workspace: Workspace, part: str, command: list[str], **variables: str) -> str:
    """What a command says in a part's container."""
    container = containers.find(engine, workspace.settings(), part)
    return execute(container, command, environment=variables)[1].decode().strip()


def psql(engine: docker.DockerClient, workspace: Workspace, role: str, password: str) -> str:
    """What PostgreSQL says to somebody with this password: `in`, or why not."""
    login = ["psql", "-h", "postgres", "-U", role, "-d", "samokoder", "-XAtc", "SELECT 'in'"]
    return said(engine, workspace, "postgres-roles", login, PGPASSWORD=password)


def redis_cli(engine: docker.DockerClient, workspace: Workspace, password: str) -> str:
    """What Redis says to somebody with this password: the user's name, or why not."""
    login = ["redis-cli", "-h", "redis", "--user", "samokoder_app", "acl", "whoami"]
    return said(engine, workspace, "redis-users", login, REDISCLI_AUTH=password)


@contextlib.contextmanager
def redis_session(engine: docker.DockerClient, workspace: Workspace, password: str) -> Iterator[Callable[[str], bytes]]:
    """Log in to Redis and stay; yield what sends a command and gives its answer, nothing once the session is over."""
    environment = workspace.settings()
    networks = containers.find(engine, environment, "redis").attrs["NetworkSettings"]["Networks"]
    address = networks[f"{environment.prefix}-{NetworkName.DATA}"]["IPAddress"]
    with socket.create_connection((address, 6379), timeout=60) as connection:

        def ask(command: str) -> bytes:
            try:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(1000)
            except ConnectionError:
                return b""

        assert ask(f"auth samokoder_app {password}") == b"+OK\r\n"
        yield ask


def log_in(workspace: Workspace, *, new: bool) -> str:
    """Return a token of a user."""
    api, user = url(workspace.settings(), "ingress"), {"email": "rotated@example.org", "password": "correct horse 7"}
    with httpx.Client(base_url=api, timeout=60, trust_env=False) as client:
        if new:
            client.post("/auth/register", json=user).raise_for_status()
        return str(client.post("/auth/login", json=user).raise_for_status().json()["access_token"])


def me(workspace: Workspace, token: str) -> int:
    """Status of an answer to somebody with this token."""
    api = url(workspace.settings(), "ingress")
    headers = {"authorization": f"Bearer {token}"}
    return httpx.get(f"{api}/auth/me", headers=headers, timeout=60, trust_env=False).status_code


def test_logins_are_rotated_under_load_and_the_old_ones_open_nothing(
    rotating: Workspace, engine: docker.DockerClient
) -> None:
    before = rotating.open().secrets()
    servers = {part: containers.ids(engine, rotating.name)[part] for part in ("postgres", "redis", "ingress")}
    with redis_session(engine, rotating, before["redis-app"]) as thief:
        assert thief("get no-such-key") == b"$-1\r\n"
        with Load(url(rotating.settings(), "ingress")) as load:
            for secret in ("postgres-app", "redis-app"):
                rotate.rotate(rotating, secret, interactive=False)
        load.report.assert_nothing_lost()
        assert thief("get no-such-key") == b"", "whoever is in with the leaked password would read on for ever"
    after = rotating.open().secrets()
    assert committed(rotating) == {"rotation": {"postgresApp": 2, "redisApp": 2}}, "all phases are over"
    assert psql(engine, rotating, "samokoder_app_b", after["postgres-app"]) == "in"
    for role in ("samokoder_app", "samokoder_app_b"):
        assert "password authentication failed" in psql(engine, rotating, role, before["postgres-app"])
    assert redis_cli(engine, rotating, after["redis-app"]) == "samokoder_app"
    assert "WRONGPASS" in redis_cli(engine, rotating, before["redis-app"])
    now = containers.ids(engine, rotating.name)
    assert {part: now[part] for part in servers} == servers, "a server restarts for no password"
    rotating.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def test_users_stay_logged_in_while_the_signing_key_changes_until_it_is_retired(rotating: Workspace) -> None:
    old = log_in(rotating, new=True)
    with Load(url(rotating.settings(), "ingress")) as load:
        told = rotate.rotate(rotating, "secret-key", interactive=False)
    load.report.assert_nothing_lost()
    assert load.report.by_kind["login"] > 0, "nobody asked who they are"
    assert "run this again" in str(told), "tokens of the old key are good for hours"
    assert committed(rotating)["rotating"] == {"secretKey": "overlap"}
    assert (me(rotating, old), me(rotating, new := log_in(rotating, new=False))) == (200, 200)
    rotate.rotate(rotating, "secret-key", interactive=False, retire_now=True)
    assert "rotating" not in committed(rotating)
    assert me(rotating, new) == 200, "who logged in during the rotation stays logged in"
    assert me(rotating, old) == 401, "what the old key signed is worth nothing any more"


def test_a_rotation_that_is_killed_in_an_up_is_finished_by_running_it_again(
    rotating: Workspace, engine: docker.DockerClient
) -> None:
    before = rotating.open().secrets()["postgres-app"]
    generation = int(str(committed(rotating).get("rotation", {}).get("postgresApp", 1))) + 1
    role = "samokoder_app" if generation % 2 else "samokoder_app_b"
    with Load(url(rotating.settings(), "ingress")) as load:
        first = containers.ids(engine, rotating.name)["api-1"]
        process = begin(rotating, "rotate.rotate(workspace, 'postgres-app', interactive=False)")
        end = time.monotonic() + 240
        while containers.ids(engine, rotating.name).get("api-1") in (None, first):
            assert process.poll() is None, "it was over before it could be killed"
            assert time.monotonic() < end, "the first replica was never replaced"
            time.sleep(0.5)
        cut_off(process)
        assert committed(rotating)["rotating"]["postgresApp"] == "prepare", "where it was says the file"
        rotate.rotate(rotating, "postgres-app", interactive=False)
    load.report.assert_nothing_lost()
    assert committed(rotating)["rotation"]["postgresApp"] == generation, "one rotation, and not a second one"
    assert "postgresApp" not in committed(rotating).get("rotating", {})
    after = rotating.open().secrets()["postgres-app"]
    assert psql(engine, rotating, role, after) == "in"
    for each in ("samokoder_app", "samokoder_app_b"):
        assert "password authentication failed" in psql(engine, rotating, each, before)
    assert Path(rotating.committed_file).read_text().startswith("# ours\n"), "a person's comment is theirs"
