"""Redis without a login: whoever reaches it has the application's rights and no more, and nothing is lost by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from operations.data.repair import redis_log
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from tests.recording import environment_of
from tests.render.conftest import Laboratory, address, contents, output, wait_until
from tests.render.redis_part import described

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = pytest.mark.live


class Open:
    """Redis over a volume of its own, and the keeper of its users, which lets in who has no login."""

    def __init__(self, laboratory: Laboratory, environment: Environment) -> None:
        self._laboratory, self._environment = laboratory, environment
        name = f"samokoder-laboratory-{laboratory.token}-open"
        volume = laboratory.client.volumes.create(name, labels=laboratory.labels)
        spec = described(environment)
        self.server: Container = laboratory.run(spec, contents(spec), data=str(volume.name))
        self.ready()
        self.keeper = self.keep("none")

    def keep(self, login: Literal["application", "none"]) -> Container:
        images = self._environment.settings.images.model_dump(by_alias=True, exclude_none=True)
        environment = environment_of("staging", {"images": images, "redis": {"login": login}})
        return self._laboratory.healthy_part(described(environment, redis_users.PART))

    def ready(self) -> None:
        command = described(self._environment).health_command
        wait_until(self.server, lambda: output(self.server, *command)[0] == 0)

    def client(self) -> Redis:
        """Who knows host and port alone."""
        return Redis(address(self.server), decode_responses=True)

    def lets_in(self) -> bool:
        try:
            return bool(self.client().ping())
        except AuthenticationError:
            return False


@pytest.fixture(scope="module")
def opened(laboratory: Laboratory, environment: Environment) -> Iterator[Open]:
    made = Open(laboratory, environment)
    yield made
    made.server.remove(force=True)
    made.keeper.remove(force=True)


def test_who_has_no_login_may_do_what_the_application_may_and_no_more(opened: Open) -> None:
    with opened.client() as client:
        assert client.set("plain", "1")
        assert client.eval("redis.call('SET', KEYS[1], 1) return 1", 1, "scripted") == 1
        for forbidden in ("CONFIG GET dir", "ACL LIST", "FLUSHALL", "SHUTDOWN", "CONFIG SET dir /"):
            with pytest.raises(NoPermissionError):
                client.execute_command(*forbidden.split())


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_what_was_written_without_a_login_outlives_redis_and_nobody_is_let_in_with_more_rights_meanwhile(
    opened: Open, way: str
) -> None:
    with opened.client() as client, client.pipeline(transaction=True) as transaction:
        transaction.zadd("arq:queue", {f"job of {way}": 1})
        transaction.psetex(f"arq:job:{way}", 1_000_000, "1")
        transaction.execute()
    opened.keeper.pause()
    if way == "kill":
        time.sleep(2)  # a SIGKILL may cost the writes of the last second
        opened.server.kill()
        opened.server.wait()
        opened.server.start()
    else:
        opened.server.restart()
    opened.ready()
    assert not opened.lets_in(), "Redis read its file as a user with all rights, and somebody is let in as that one"
    opened.keeper.unpause()
    wait_until(opened.server, opened.lets_in)
    with opened.client() as client:
        assert client.zscore("arq:queue", f"job of {way}") == 1, "a transaction was forgotten"
        assert client.get(f"arq:job:{way}") == "1"
        with pytest.raises(NoPermissionError):
            client.execute_command("CONFIG", "GET", "dir")
    assert "read all" in redis_log.judge(opened.server.logs().decode())


def test_when_a_login_is_wanted_again_nobody_new_is_let_in_and_who_was_gains_nothing(opened: Open) -> None:
    with opened.client() as before:
        assert before.ping()
        opened.keeper.remove(force=True)
        opened.keeper = opened.keep("application")
        assert not opened.lets_in()
        with pytest.raises(NoPermissionError):
            before.execute_command("CONFIG", "GET", "dir")
