"""Redis and the keeper of its users, as the stack makes them, for tests of both."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis import Redis

from operations import redis_log
from stack.app import redis, redis_users
from stack.platform import specs
from stack.service import ServiceSpec
from stack.settings import Environment, Phase, Rotating, Rotation
from tests import queued
from tests.recording import secret_value
from tests.render.conftest import Laboratory, address, contents, output, wait_until

if TYPE_CHECKING:
    from docker.models.containers import Container

APP_SECRET = secret_value("redis_app")
SECOND_SECRET = secret_value("redis_app_b")
KEEPER_SECRET = secret_value("redis_keeper")


def described(environment: Environment, part: str = "redis") -> ServiceSpec:
    (spec,) = [spec for spec in specs(environment) if spec.part == part]
    return spec


def keep_users(
    laboratory: Laboratory, environment: Environment, *, generation: int = 1, phase: Phase = ""
) -> Container:
    """Run the keeper of a generation and a phase until it is healthy."""
    changed = {"rotation": Rotation(redis_app=generation), "rotating": Rotating(redis_app=phase)}
    environment = environment.model_copy(update={"settings": environment.settings.model_copy(update=changed)})
    return laboratory.healthy_part(described(environment, redis_users.PART))


# As rendered until 29 November 2026: Redis read its append-only file with the rights of this `default`.
OLD_DEFAULT = "user default on nopass resetkeys resetchannels -@all +ping\n"
LIBRARY = """#!lua name=pair
redis.register_function('pair', function(keys) redis.call('SET', keys[1], 1) redis.call('SET', keys[2], 2) end)
"""


@dataclass
class Kept:
    """Redis over a volume that outlives its container, with its users."""

    laboratory: Laboratory
    environment: Environment
    volume: str
    password: str = APP_SECRET
    container: Container = field(init=False)

    def start(self, *, old: bool = False) -> None:
        """Start a new container over the volume. old: of a version whose `default` may say ping alone."""
        spec = described(self.environment)
        files = contents(spec)
        if old:
            keeper = redis.seed_acl(KEEPER_SECRET).splitlines(keepends=True)[1:]
            files["seed.acl"] = OLD_DEFAULT + "".join(keeper)
        self.container = self.laboratory.run(spec, files, data=self.volume)
        self.ready()

    def ready(self) -> None:
        health = described(self.environment).health_command
        wait_until(self.container, lambda: output(self.container, *health)[0] == 0)

    def replace(self, *, old: bool = False) -> None:
        """Stop it, and put a new container in its place."""
        self.container.stop()
        self.container.remove()
        self.start(old=old)

    def kill(self) -> None:
        self.container.kill()
        self.container.wait()
        self.container.start()
        self.ready()

    def shell(self, script: str) -> str:
        """Run a script in a container of its own, beside the server's, over its volume; return what it prints."""
        spec = described(self.environment)
        said: bytes = self.laboratory.client.containers.run(
            spec.image,
            ["-c", script],
            entrypoint="sh",
            user=spec.user,
            network_mode="none",
            volumes={self.volume: {"bind": "/data"}},
            remove=True,
        )
        return said.decode(errors="replace")

    @property
    def host(self) -> str:
        return address(self.container)

    def client(self, database: int = 0) -> Redis:
        return Redis(self.host, username=redis.APP_USER, password=self.password, db=database, decode_responses=True)

    def write(self) -> dict[str, object]:
        """Write in each way that an application writes, queue 1,000 jobs, and return what is there."""
        queued.put(self.host, self.password)
        with self.client() as client:
            client.set("plain", "1")
            client.set("expiring", "1", ex=1000)
            with client.pipeline(transaction=True) as transaction:
                transaction.zadd("transaction", {"member": 1})
                transaction.psetex("transaction expiring", 1_000_000, "1")
                transaction.xadd("transaction stream", {"field": "1"})
                transaction.execute()
            client.eval("redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)", 2, "script 1", "script 2")
            client.eval("redis.call('SET', KEYS[1], 1)", 1, "script alone")
            client.function_load(LIBRARY)
            client.fcall("pair", 2, "function 1", "function 2")
            for number in range(3):
                client.xadd("stream", {"field": str(number)})
            client.xgroup_create("stream", "group", "0")
            client.xreadgroup("group", "consumer", {"stream": ">"}, count=2)
            client.sadd("set", *range(10))
            client.spop("set", 3)
            client.rpush("list", 1, 2, 3)
            client.lmove("list", "moved")
        with self.client(3) as client, client.pipeline(transaction=True) as transaction:
            transaction.set("other database", "1")
            transaction.execute()
        return self.seen()

    def seen(self) -> dict[str, object]:
        """Return what is there: each key's content, and whether it ends by itself."""
        read: dict[str, Callable[[Redis, str], Any]] = {
            "string": lambda client, key: client.get(key),
            "list": lambda client, key: client.lrange(key, 0, -1),
            "set": lambda client, key: client.smembers(key),
            "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
            "stream": lambda client, key: client.xrange(key),
        }
        found: dict[str, object] = {}
        for database in (0, 3):
            with self.client(database) as client:
                for key in sorted(client.keys()):
                    kind = client.type(key)
                    # arq's jobs are bytes that are no text.
                    content = client.strlen(key) if key.startswith("arq:job:") else read[kind](client, key)
                    found[f"{database} {key}"] = (kind, content, client.ttl(key) > 0)
        with self.client() as client:
            found["functions"] = client.function_list()
            if client.exists("stream"):
                found["pending"] = [
                    each["message_id"] for each in client.xpending_range("stream", "group", "-", "+", 9)
                ]
        return found

    def settle(self) -> None:
        """Wait until the file has it all: a SIGKILL may cost the writes of the last second, `appendfsync everysec`."""

        def written() -> bool:
            with self.client() as client:
                said = client.info("persistence")
            return bool(said["aof_buffer_length"] == said["aof_pending_bio_fsync"] == 0)

        time.sleep(1)
        wait_until(self.container, written)

    def holds(self, before: dict[str, object]) -> None:
        """Check that all is there as before, and that each queued job runs once."""
        now = self.seen()
        lost = {key: (was, now.get(key)) for key, was in before.items() if now.get(key) != was}
        few = dict(sorted(lost.items())[:5])
        assert not lost, f"{len(lost)} of {len(before)} are lost or changed, such as {few}"
        assert now.keys() == before.keys(), "more came back than was there"
        assert queued.run(self.host, self.password) == queued.once(), "a job was lost, or ran twice"
        assert "read all" in redis_log.judge(self.container.logs().decode())


@contextmanager
def kept_redis(laboratory: Laboratory, environment: Environment) -> Iterator[Kept]:
    """Give Redis over an empty volume, which is gone afterwards."""
    volume = laboratory.client.volumes.create(
        f"samokoder-laboratory-{laboratory.token}-{secrets.token_hex(3)}", labels=laboratory.labels
    )
    made = Kept(laboratory, environment, str(volume.name))
    yield made
    made.container.remove(force=True)
    laboratory.client.volumes.get(made.volume).remove()


def begin(kept: Kept, *, old: bool = False) -> dict[str, object]:
    """Start Redis, its users, write, and wait until the file has it."""
    kept.start(old=old)
    keep_users(kept.laboratory, kept.environment).remove(force=True)
    before = kept.write()
    kept.settle()
    return before
