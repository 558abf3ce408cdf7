"""Jobs in arq's queue, put there and run by arq itself, as an application does it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from arq import Worker, create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.constants import default_queue_name
from redis import Redis

from stack.parts.redis import spec as redis

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

COUNT = 1000
_NAME = "note"
_AT_ONCE = 50


def put(host: str, password: str, count: int = COUNT, *, queue: str = default_queue_name) -> None:
    """Queue jobs 0 to count - 1, each by one call of arq's `enqueue_job`. queue: one that no worker else takes from."""

    async def work() -> None:
        async with _pool(host, password, queue) as pool:
            for first in range(0, count, _AT_ONCE):
                some = range(first, min(first + _AT_ONCE, count))
                await asyncio.gather(*(pool.enqueue_job(_NAME, number, _job_id=f"{queue}-{number}") for number in some))
            assert await pool.zcard(queue) == count, "arq itself did not queue them all"

    asyncio.run(work())


def waiting(host: str, password: str, *, queue: str = default_queue_name) -> set[str]:
    """Return the ids of the jobs that wait."""
    with Redis(host, username=redis.APP_USER, password=password, decode_responses=True) as client:
        return set(cast("list[str]", client.zrange(queue, 0, -1)))


def run(host: str, password: str, *, queue: str = default_queue_name) -> Counter[int]:
    """Run what is queued with arq's worker until nothing is left; return how often each job ran."""
    ran: Counter[int] = Counter()

    async def note(_context: dict[str, Any], number: int) -> None:
        ran[number] += 1

    async def work() -> None:
        async with _pool(host, password, queue) as pool:
            functions = [func(cast("WorkerCoroutine", note), name=_NAME)]
            burst = Worker(
                functions,
                redis_pool=pool,
                queue_name=queue,
                burst=True,
                max_jobs=_AT_ONCE,
                poll_delay=0.05,
                handle_signals=False,
            )
            await burst.async_run()  # its own close() warns of a method that it should not use

    asyncio.run(work())
    return ran


@asynccontextmanager
async def _pool(host: str, password: str, queue: str) -> AsyncIterator[ArqRedis]:
    settings = RedisSettings(host=host, username=redis.APP_USER, password=password)
    pool = await create_pool(settings, default_queue_name=queue)
    try:
        yield pool
    finally:
        await pool.aclose(close_connection_pool=True)


def once(count: int = COUNT) -> Counter[int]:
    """Return what `run` returns when each job ran once."""
    return Counter(range(count))
