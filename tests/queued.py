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

from stack.app import redis

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

COUNT = 1000
_NAME = "note"
_AT_ONCE = 50


def put(host: str, password: str, count: int = COUNT) -> None:
    """Queue jobs 0 to count - 1, each by one call of arq's `enqueue_job`."""

    async def work() -> None:
        async with _pool(host, password) as pool:
            for first in range(0, count, _AT_ONCE):
                some = range(first, min(first + _AT_ONCE, count))
                await asyncio.gather(*(pool.enqueue_job(_NAME, number, _job_id=f"job-{number}") for number in some))
            assert await pool.zcard(default_queue_name) == count, "arq itself did not queue them all"

    asyncio.run(work())


def run(host: str, password: str) -> Counter[int]:
    """Run what is queued with arq's worker until nothing is left; return how often each job ran."""
    ran: Counter[int] = Counter()

    async def note(_context: dict[str, Any], number: int) -> None:
        ran[number] += 1

    async def work() -> None:
        async with _pool(host, password) as pool:
            functions = [func(cast("WorkerCoroutine", note), name=_NAME)]
            burst = Worker(
                functions, redis_pool=pool, burst=True, max_jobs=_AT_ONCE, poll_delay=0.05, handle_signals=False
            )
            await burst.async_run()  # its own close() warns of a method that it should not use

    asyncio.run(work())
    return ran


@asynccontextmanager
async def _pool(host: str, password: str) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(RedisSettings(host=host, username=redis.APP_USER, password=password))
    try:
        yield pool
    finally:
        await pool.aclose(close_connection_pool=True)


def once(count: int = COUNT) -> Counter[int]:
    """Return what `run` returns when each job ran once."""
    return Counter(range(count))
