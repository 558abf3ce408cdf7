from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from operations.rotation import servers
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.settings.rotation import Phase
from tests.recording import secret_value
from tests.render.conftest import Laboratory, address, contents, output, wait_until
from tests.render.redis_part import APP_SECRET, KEEPER_SECRET, SECOND_SECRET, described, keep_users

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.live

EXPORTER_SECRET = secret_value("redis_exporter")
BACKUP_SECRET = secret_value("redis_backup")


@pytest.fixture(scope="module")
def kept(laboratory: Laboratory, environment: Environment) -> Iterator[tuple[Container, Container]]:
    """Redis with the rendered files and an empty volume, and the keeper of its users."""
    container = laboratory.healthy_part(described(environment))
    keeper = keep_users(laboratory, environment)
    yield container, keeper
    for log in (container.logs().decode(), keeper.logs().decode()):
        for secret in (APP_SECRET, EXPORTER_SECRET, BACKUP_SECRET, KEEPER_SECRET):
            assert secret not in log, "a password is in a log"


@pytest.fixture(scope="module")
def server(kept: tuple[Container, Container]) -> Container:
    """Redis, its users from their keeper."""
    return kept[0]


def opens(server: Container, password: str) -> bool:
    """Whether the application's user gets in with a password."""
    said = ask(server, "set", "who", "1", user=redis.APP_USER, password=password)
    assert said == "OK" or "WRONGPASS" in said, said
    return said == "OK"


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
        ("seed.acl", "user default on nopass -@all +no-such-command\n", "Unknown command"),
    ):
        container = laboratory.part(described(environment), replaced={name: text})
        assert container.wait()["StatusCode"] != 0
        assert said in container.logs().decode()


def answers(server: Container, *commands: str) -> list[str]:
    """The first line that each command is answered with, on one connection over the network `data`."""
    with socket.create_connection((address(server), redis.PORT), timeout=30) as connection:
        lines = connection.makefile("r", encoding="utf-8")
        said = []
        for command in commands:
            connection.sendall(f"{command}\r\n".encode())
            said.append(lines.readline().strip())
        return said


def test_nobody_gets_in_without_a_password(server: Container) -> None:
    for command in (
        *("ping", "get x", "set x 1", "info", "config get *", "acl whoami", "acl setuser default on nopass", "multi"),
        *("eval 'return 1' 0", "publish c m", "subscribe c", "psync ? -1", "monitor", "hello", "hello 3"),
    ):
        (said,) = answers(server, command)
        assert said.startswith("-NOAUTH"), f"{command} without a password: {said}"
    for password in ('""', "x", "default", "nopass", APP_SECRET, KEEPER_SECRET):
        for login in (f"auth default {password}", f"auth {password}", f"hello 3 auth default {password}"):
            first, second = answers(server, login, "get x")
            assert first.startswith("-WRONGPASS"), f"{login}: {first}, and `default` has all rights"
            assert second.startswith("-NOAUTH"), second
    for user in (redis.HEALTH_USER, redis.KEEPER_USER, redis.APP_USER, redis.EXPORTER_USER, redis.BACKUP_USER):
        (said,) = answers(server, f'auth {user} ""')
        assert said.startswith("-WRONGPASS"), f"{user} gets in without a password: {said}"


def test_who_is_logged_in_does_not_become_the_user_with_all_rights(server: Container) -> None:
    said = answers(server, f"auth {redis.APP_USER} {APP_SECRET}", "reset", "get x", "auth default x", "ping")
    assert [line.split()[0] for line in said] == ["+OK", "+RESET", "-NOAUTH", "-WRONGPASS", "-NOAUTH"], (
        "RESET makes a connection that of `default`"
    )


def test_the_health_check_may_say_ping_and_nothing_else_with_a_password_of_each_start(server: Container) -> None:
    def password() -> str:
        code, said = output(server, "cat", "/tmp/health_password")  # noqa: S108 - in the container
        assert (code, len(said)) == (0, 64), said
        return said

    def healthy(*command: str, password: str) -> str:
        return ask(server, *command, user=redis.HEALTH_USER, password=password)

    first = password()
    assert healthy("ping", password=first) == "PONG"
    for command in (
        ("get", "x"),
        ("info",),
        ("keys", "*"),
        ("acl", "whoami"),
        ("acl", "setuser", "x"),
        ("psync", "?", "-1"),
    ):
        assert "NOPERM" in healthy(*command, password=first), f"the health check may {' '.join(command)}"
    server.restart()
    wait_until(server, lambda: output(server, "/etc/samokoder/healthy.sh")[0] == 0)
    assert password() != first
    assert "WRONGPASS" in ask(server, "auth", redis.HEALTH_USER, first), "an old password still opens"
    assert "WRONGPASS" not in ask(server, "auth", redis.HEALTH_USER, password())


def test_the_application_works_with_all_keys_and_administers_nothing(server: Container) -> None:
    assert app(server, "set", "arq:job", "1") == "OK"
    assert app(server, "get", "arq:job") == "1"
    assert (said := app(server, "zadd", "arq:queue", "1", "job")) == "1", said
    assert app(server, "keys", "arq:*").split() != []
    assert "redis_version" in app(server, "info", "server")
    for command in (
        ("config", "set", "maxmemory", "0"),
        ("config", "get", "maxmemory"),
        ("acl", "list"),
        ("acl", "load"),
        ("acl", "save"),
        ("acl", "setuser", "default", "on", "nopass"),
        ("acl", "deluser", redis.EXPORTER_USER),
        ("shutdown", "nosave"),
        ("bgrewriteaof",),
        ("replicaof", "elsewhere", "6379"),
        ("flushall",),
        ("module", "list"),
    ):
        assert app(server, *command).startswith("NOPERM"), f"the application may {' '.join(command)}"
    said = app(server, "eval", "return redis.call('acl', 'setuser', 'default', 'on', 'nopass')", "0")
    assert said.startswith("ERR"), f"a script has the rights of who runs it: {said}"
    assert ask(server, "ping").startswith("NOAUTH")


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


def test_the_backup_server_gets_a_copy_and_reads_no_key(server: Container) -> None:
    assert app(server, "set", "copied", "1") == "OK"
    login = ("--no-auth-warning", "-u", f"redis://{redis.BACKUP_USER}:{BACKUP_SECRET}@127.0.0.1:6379")
    code, said = output(server, "redis-cli", *login, "--rdb", "/tmp/copy.rdb")  # noqa: S108 - in the container
    assert code == 0, said
    code, said = output(server, "sh", "-c", "redis-check-rdb /tmp/copy.rdb && grep -c copied /tmp/copy.rdb")
    assert code == 0, said
    for command in (("get", "copied"), ("keys", "*"), ("set", "x", "1"), ("config", "get", "*"), ("acl", "list")):
        answer = ask(server, *command, user=redis.BACKUP_USER, password=BACKUP_SECRET)
        assert answer.startswith("NOPERM"), f"the backup server may {' '.join(command)}"


def test_without_backups_nobody_copies(laboratory: Laboratory, environment: Environment, server: Container) -> None:
    backup = environment.settings.backup.model_copy(update={"enabled": False})
    without = environment.model_copy(update={"settings": environment.settings.model_copy(update={"backup": backup})})
    laboratory.healthy_part(described(without, redis_users.PART)).remove(force=True)
    assert "WRONGPASS" in ask(server, "auth", redis.BACKUP_USER, BACKUP_SECRET)
    keep_users(laboratory, environment).remove(force=True)
    assert ask(server, "auth", redis.BACKUP_USER, BACKUP_SECRET) == "OK", "and back again"


@pytest.mark.parametrize("user", [redis.APP_USER, redis.EXPORTER_USER, redis.BACKUP_USER])
def test_a_wrong_password_is_refused(server: Container, user: str) -> None:
    wrong = secret_value("another")
    assert "WRONGPASS" in ask(server, "auth", user, wrong)
    assert "WRONGPASS" in ask(server, "auth", user, "")


def test_a_full_redis_refuses_a_write_and_keeps_every_job(laboratory: Laboratory, environment: Environment) -> None:
    text = redis.redis_conf(environment.settings.redis.maxmemory_mib).replace("maxmemory 192mb", "maxmemory 3mb")
    spec = described(environment)
    seed = f"user {redis.APP_USER} on #{redis.password_hash(APP_SECRET)} ~* +@all\n"
    files = contents(spec) | {"redis.conf": text, "seed.acl": redis.seed_acl(KEEPER_SECRET) + seed}
    server = laboratory.run(spec, files, alias=False, hostname="other")  # not the one that the keeper finds
    wait_until(server, lambda: output(server, *spec.health_command)[0] == 0)
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
    assert app(server, "get", "kept") == "7", "with its users: who asks at once must get in"


def test_what_a_volume_has_in_a_snapshot_alone_is_served(server: Container, environment: Environment) -> None:
    assert app(server, "set", "snapshot", "7") == "OK"
    login = ("--no-auth-warning", "-u", f"redis://{redis.BACKUP_USER}:{BACKUP_SECRET}@127.0.0.1:6379")
    assert output(server, "redis-cli", *login, "--rdb", "/data/dump.rdb")[0] == 0
    assert output(server, "rm", "-r", "/data/appendonlydir")[0] == 0
    for _ in range(2):
        server.kill()
        server.wait()
        server.start()
        wait_until(server, lambda: output(server, *described(environment).health_command)[0] == 0)
        assert app(server, "get", "snapshot") == "7", "an installation that had no append-only file would be empty"
    assert "a snapshot alone" in server.logs().decode()


@pytest.mark.parametrize("marker", [".samokoder-copying", ".samokoder-restore"])
def test_half_of_the_data_is_neither_served_nor_written_to(
    server: Container, environment: Environment, marker: str
) -> None:
    listing = "cd /data && find . -type f -exec md5sum {} + | sort"
    assert app(server, "set", "whole", "yes") == "OK"
    assert output(server, "sh", "-c", f"echo 'It goes on by: make restore ENV=prod' > /data/{marker}")[0] == 0
    server.kill()
    server.wait()
    client = server.client
    assert client is not None
    image, volumes = server.attrs["Image"], {each["Name"]: each for each in server.attrs["Mounts"]}
    mounts = {name: {"bind": each["Destination"], "mode": "rw"} for name, each in volumes.items()}

    def beside(script: str) -> str:
        run = client.containers.run(image, ["-c", script], entrypoint="sh", user="999:999", volumes=mounts, remove=True)
        return str(run.decode())

    before = beside(listing)
    server.start()
    try:
        assert server.wait(timeout=60)["StatusCode"] == 1, "half of the keys would be served"
        assert "It goes on by: make restore ENV=prod" in server.logs(tail=3).decode(), (
            "at 3 a.m. somebody reads the log"
        )
        assert beside(listing) == before, "what is half there was written to"
    finally:
        beside(f"rm /data/{marker}")
        server.start()
    wait_until(server, lambda: output(server, *described(environment).health_command)[0] == 0)
    assert app(server, "get", "whole") == "yes"


def test_both_passwords_are_good_in_the_middle_of_a_rotation_and_no_connection_ends(
    laboratory: Laboratory, environment: Environment, kept: tuple[Container, Container]
) -> None:
    server, first = kept
    # It makes its users again after each start of the server, which other tests have killed: not meanwhile.
    first.kill()
    login = f"redis-cli --no-auth-warning -u redis://{redis.APP_USER}:{APP_SECRET}@127.0.0.1:6379"
    later = "echo 'incr connection'; until [ -e /tmp/go ]; do sleep 0.1; done; echo 'incr connection'"
    server.exec_run(["sh", "-c", f"({later}) | {login}"], detach=True)
    wait_until(server, lambda: app(server, "get", "connection") == "1")
    phases: dict[tuple[int, Phase], tuple[bool, bool]] = {
        (2, "prepare"): (True, True),
        (2, "overlap"): (True, True),
        (2, ""): (False, True),
    }
    for (generation, phase), expected in phases.items():
        keeper = keep_users(laboratory, environment, generation=generation, phase=phase)
        keeper.remove(force=True)  # it would be heard again when the server restarts
        assert (opens(server, APP_SECRET), opens(server, SECOND_SECRET)) == expected, f"{generation} {phase}"
        if phase == "overlap":
            output(server, "touch", "/tmp/go")  # noqa: S108 - in the container
            wait_until(server, lambda: app(server, "get", "connection") == "2")
    keep_users(laboratory, environment)
    assert (opens(server, APP_SECRET), opens(server, SECOND_SECRET)) == (True, False), "the way back"
    first.start()


def test_a_session_of_a_withdrawn_password_ends_with_it_and_those_of_other_users_stay(
    laboratory: Laboratory, environment: Environment, kept: tuple[Container, Container]
) -> None:
    server, first = kept
    first.kill()
    with contextlib.ExitStack() as open_:
        connections = {
            name: open_.enter_context(socket.create_connection((address(server), redis.PORT), timeout=30))
            for name in ("app", "exporter")
        }
        logins = {"app": (redis.APP_USER, APP_SECRET), "exporter": (redis.EXPORTER_USER, EXPORTER_SECRET)}
        for name, connection in connections.items():
            connection.sendall(f"auth {' '.join(logins[name])}\r\n".encode())
            assert connection.recv(100) == b"+OK\r\n"

        def alive(name: str) -> bool:
            try:
                connections[name].sendall(b"ping\r\n")
                return connections[name].recv(100) == b"+PONG\r\n"
            except ConnectionError:
                return False

        keep_users(laboratory, environment, generation=2, phase="overlap").remove(force=True)
        assert (alive("app"), alive("exporter")) == (True, True), "nothing is withdrawn yet"
        keeper = keep_users(laboratory, environment, generation=2)
        assert (alive("app"), alive("exporter")) == (False, True), "whoever had the leaked password reads on for ever"
        assert f"sessions ended: CLIENT KILL USER {redis.APP_USER}" in keeper.logs().decode()
        keeper.remove(force=True)
    keep_users(laboratory, environment).remove(force=True)
    first.start()


@pytest.mark.parametrize(
    "left",
    [
        "rm /data/users.acl",
        "echo user samokoder_app on +no-such-command > /data/users.acl",
        "head -c 4096 /dev/urandom > /data/users.acl",
        "for user in default samokoder_keeper somebody; do echo user $user on nopass ~* +@all; done > /data/users.acl",
    ],
    ids=["lost", "broken", "garbage", "foreign"],
)
def test_users_that_are_lost_broken_or_foreign_are_made_anew(
    server: Container, environment: Environment, left: str
) -> None:
    assert output(server, "sh", "-c", left)[0] == 0
    server.restart()
    wait_until(server, lambda: output(server, *described(environment).health_command)[0] == 0)
    wait_until(server, lambda: opens(server, APP_SECRET))
    assert ask(server, "get", "who").startswith("NOAUTH"), "nobody gets in without a password"
    assert "WRONGPASS" in ask(server, "auth", "somebody", "x"), "whoever was in that file is not let in"


def test_the_keeper_is_not_healthy_while_the_users_are_not_applied(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    spec = described(environment, redis_users.PART)
    for replaced, said in (
        ({"users.redis": f"ACL SETUSER {redis.APP_USER} +no-such-command\nACL SAVE\n"}, "Unknown command"),
        ({"keeper_password": "wrong"}, "WRONGPASS"),
    ):
        keeper = laboratory.part(spec, replaced=replaced)
        assert keeper.wait()["StatusCode"] != 0, "an update must fail with it"
        assert said in keeper.logs().decode(), "whoever looks for the reason looks there"


def test_a_rotation_finds_out_which_password_the_server_takes(
    laboratory: Laboratory, environment: Environment, server: Container
) -> None:
    keeper = keep_users(laboratory, environment)
    for secret, right in (
        ("redis_app", APP_SECRET),
        ("redis_exporter", EXPORTER_SECRET),
        ("redis_backup", BACKUP_SECRET),
    ):
        check = servers.SERVERS[secret]
        assert check.login(keeper, environment, secret, right) == "in"
        assert check.login(keeper, environment, secret, secret_value("another")) == "refused", (
            "redis-cli goes on as the user without a password, which may say ping too"
        )
    code, said = output(keeper, "sh", "-c", "cat /tmp/* 2>/dev/null")
    assert APP_SECRET not in said, f"{code}: it was left behind"
    keeper.remove(force=True)
