from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stack.app import redis
from stack.platform import specs
from stack.service import ServiceSpec
from stack.settings import Environment
from tests.recording import secret_value
from tests.render.conftest import Laboratory, output, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.live

APP_SECRET = secret_value("redis_app")
EXPORTER_SECRET = secret_value("redis_exporter")


def described(environment: Environment) -> ServiceSpec:
    (spec,) = [spec for spec in specs(environment) if spec.part == "redis"]
    return spec


@pytest.fixture(scope="module")
def server(laboratory: Laboratory, environment: Environment) -> Iterator[Container]:
    """Redis with the rendered files and an empty volume."""
    container = laboratory.healthy_part(described(environment))
    yield container
    log = container.logs().decode()
    for secret in (APP_SECRET, EXPORTER_SECRET):
        assert secret not in log, "a password is in the server's log"


def ask(server: Container, *command: str, user: str = "", password: str = "") -> str:
    login = (f"redis://{user}:{password}@127.0.0.1:6379",) if user else ()
    _, said = output(server, "redis-cli", *(("--no-auth-warning", "-u", *login) if login else ()), *command)
    return said.strip()


def app(server: Container, *command: str) -> str:
    return ask(server, *command, user=redis.APP_USER, password=APP_SECRET)


def exporter(server: Container, *command: str) -> str:
    return ask(server, *command, user=redis.EXPORTER_USER, password=EXPORTER_SECRET)


def test_redis_takes_every_line_of_its_files(server: Container, environment: Environment) -> None:
    assert exporter(server, "config", "get", "maxmemory").split() == [
        "maxmemory",
        str(environment.settings.redis.maxmemory_mib * 2**20),
    ]
    for key, value in (("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "everysec")):
        assert exporter(server, "config", "get", key).split() == [key, value]
    assert "redis_version:7." in exporter(server, "info", "server"), "Redis 7 is the original's"


def test_a_wrong_line_would_be_found(laboratory: Laboratory, environment: Environment) -> None:
    for name, text, said in (
        ("redis.conf", "maxmemori 1mb\n", "Bad directive"),
        ("users.acl", "user default on nopass -@all +no-such-command\n", "Unknown command"),
    ):
        container = laboratory.part(described(environment), replaced={name: text})
        assert container.wait()["StatusCode"] != 0
        assert said in container.logs().decode()


def test_whoever_has_no_password_may_say_ping_and_nothing_else(server: Container) -> None:
    assert ask(server, "ping") == "PONG", "the health check has no password"
    for command in (
        ("get", "x"),
        ("info",),
        ("config", "get", "*"),
        ("keys", "*"),
        ("acl", "whoami"),
        ("publish", "c", "m"),
    ):
        assert ask(server, *command).startswith("NOPERM"), f"{command} without a password"


def test_the_application_works_with_all_keys_and_administers_nothing(server: Container) -> None:
    assert app(server, "set", "arq:job", "1") == "OK"
    assert app(server, "get", "arq:job") == "1"
    assert app(server, "zadd", "arq:queue", "1", "job") == "1"
    assert app(server, "keys", "arq:*").split() != []
    assert "redis_version" in app(server, "info", "server")
    for command in (
        ("config", "set", "maxmemory", "0"),
        ("config", "get", "maxmemory"),
        ("acl", "list"),
        ("shutdown", "nosave"),
        ("bgrewriteaof",),
        ("replicaof", "elsewhere", "6379"),
        ("flushall",),
        ("module", "list"),
    ):
        assert app(server, *command).startswith("NOPERM"), f"the application may {' '.join(command)}"


def test_the_exporter_sees_numbers_and_no_data(server: Container) -> None:
    assert app(server, "set", "private", "1") == "OK"
    assert "used_memory:" in exporter(server, "info", "all")
    assert not exporter(server, "slowlog", "len").startswith("NOPERM")
    assert not exporter(server, "latency", "latest").startswith("NOPERM")
    for command in (
        ("get", "private"),
        ("keys", "*"),
        ("set", "x", "1"),
        ("config", "set", "maxmemory", "0"),
        ("scan", "0"),
    ):
        assert exporter(server, *command).startswith("NOPERM"), f"the exporter may {' '.join(command)}"


@pytest.mark.parametrize("user", [redis.APP_USER, redis.EXPORTER_USER])
def test_a_wrong_password_is_refused(server: Container, user: str) -> None:
    wrong = secret_value("another")
    assert "WRONGPASS" in ask(server, "auth", user, wrong)
    assert "WRONGPASS" in ask(server, "auth", user, "")


def test_a_full_redis_refuses_a_write_and_keeps_every_job(laboratory: Laboratory, environment: Environment) -> None:
    text = redis.redis_conf(environment.settings.redis.maxmemory_mib).replace("maxmemory 192mb", "maxmemory 3mb")
    server = laboratory.healthy_part(described(environment), replaced={"redis.conf": text})
    assert app(server, "set", "job", "1") == "OK"
    answers = {app(server, "setrange", f"fill:{number}", "500000", "x") for number in range(8)}
    assert any(answer.startswith("OOM") for answer in answers), answers
    assert app(server, "get", "job") == "1", "an evicted key may be a job"


def test_what_was_written_is_there_after_a_stop(server: Container, environment: Environment) -> None:
    spec = described(environment)
    assert app(server, "set", "kept", "7") == "OK"
    server.kill(signal=spec.stop_signal)
    server.wait()
    server.start()
    wait_until(server, lambda: output(server, *spec.health_command)[0] == 0)
    assert app(server, "get", "kept") == "7"
