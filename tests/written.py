"""What an application writes to Redis, in each way that one writes, and what of it is there later."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arq.constants import default_queue_name
from redis import Redis

from stack.parts.redis import spec as redis
from tests import queued

PATIENCE_SECONDS = 180.0
LIBRARY = """#!lua name=pair
redis.register_function('pair', function(keys) redis.call('SET', keys[1], 1) redis.call('SET', keys[2], 2) end)
"""
_DATABASES = (0, 3)


@dataclass(frozen=True, kw_only=True)
class Application:
    """The application at its Redis."""

    host: str
    password: str
    name: str = ""
    """Before each key, and the queue's; empty: arq's own queue, and nobody else writes to this Redis."""

    @property
    def queue(self) -> str:
        """Its queue."""
        return self.name or default_queue_name

    def client(self, database: int = 0) -> Redis:
        """Connect as the application does."""
        return Redis(self.host, username=redis.APP_USER, password=self.password, db=database, decode_responses=True)

    def write(self) -> dict[str, object]:
        """Write in each way that an application writes, queue 1,000 jobs, and return what is there."""
        queued.put(self.host, self.password, queue=self.queue)
        key = self._key
        with self.client() as client:
            client.set(key("plain"), "1")
            client.set(key("expiring"), "1", ex=10_000)
            with client.pipeline(transaction=True) as transaction:
                transaction.zadd(key("transaction"), {"member": 1})
                transaction.psetex(key("transaction expiring"), 10_000_000, "1")
                transaction.xadd(key("transaction stream"), {"field": "1"})
                transaction.execute()
            script = "redis.call('SET', KEYS[1], 1) redis.call('SET', KEYS[2], 2)"
            client.eval(script, 2, key("script 1"), key("script 2"))
            client.eval("redis.call('SET', KEYS[1], 1)", 1, key("script alone"))
            client.function_load(LIBRARY, replace=True)
            client.fcall("pair", 2, key("function 1"), key("function 2"))
            for number in range(3):
                client.xadd(key("stream"), {"field": str(number)})
            client.xgroup_create(key("stream"), "group", "0")
            client.xreadgroup("group", "consumer", {key("stream"): ">"}, count=2)
            client.sadd(key("set"), *range(10))
            client.spop(key("set"), 3)
            client.rpush(key("list"), 1, 2, 3)
            client.lmove(key("list"), key("moved"))
        with self.client(_DATABASES[-1]) as client, client.pipeline(transaction=True) as transaction:
            transaction.set(key("other database"), "1")
            transaction.execute()
        return self.seen()

    def seen(self) -> dict[str, object]:
        """Return what is there of it: each key's content, and whether it ends by itself."""
        read: dict[str, Callable[[Redis, str], Any]] = {
            "string": lambda client, key: client.get(key),
            "list": lambda client, key: client.lrange(key, 0, -1),
            "set": lambda client, key: client.smembers(key),
            "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
            "stream": lambda client, key: client.xrange(key),
        }
        jobs = f"arq:job:{self.name}"
        found: dict[str, object] = {}
        for database in _DATABASES:
            with self.client(database) as client:
                for key in sorted(client.keys()):
                    if not key.startswith((self.name, jobs)):
                        continue
                    kind = client.type(key)
                    # arq's jobs are bytes that are no text.
                    content = client.strlen(key) if key.startswith(jobs) else read[kind](client, key)
                    found[f"{database} {key}"] = (kind, content, client.ttl(key) > 0)
        with self.client() as client:
            found["functions"] = client.function_list()
            if client.exists(stream := self._key("stream")):
                pending = client.xpending_range(stream, "group", "-", "+", 9)
                found["pending"] = [each["message_id"] for each in pending]
        return found

    def settle(self) -> None:
        """Wait until the file has it all: a SIGKILL may cost the writes of the last second, `appendfsync everysec`."""
        time.sleep(1)
        end = time.monotonic() + PATIENCE_SECONDS
        with self.client() as client:
            while any(map(client.info("persistence").get, ("aof_buffer_length", "aof_pending_bio_fsync"))):
                assert time.monotonic() < end, "Redis does not write its file"
                time.sleep(0.1)

    def holds(self, before: dict[str, object]) -> None:
        """Check that all is there as before, and that each queued job runs once."""
        now = self.seen()
        lost = {key: (was, now.get(key)) for key, was in before.items() if now.get(key) != was}
        few = dict(sorted(lost.items())[:5])
        assert not lost, f"{len(lost)} of {len(before)} are lost or changed, such as {few}"
        assert now.keys() == before.keys(), "more came back than was there"
        ran = queued.run(self.host, self.password, queue=self.queue)
        assert ran == queued.once(), "a job was lost, or ran twice"

    def _key(self, name: str) -> str:
        return f"{self.name} {name}" if self.name else name
