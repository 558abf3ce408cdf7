"""The way to Redis, for the API and for the worker."""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from samokoder.settings import Settings

CONNECT_SECONDS: Final = 2
ANSWER_SECONDS: Final = 4
#: With waits of 0.1 s, 0.2 s, ... 2 s: some 20 s in all, longer than Redis takes to restart.
PATIENT_TRIES: Final = 12


def make_queue(settings: Settings, *, tries: int = 0) -> ArqRedis:
    """Make the pool, which connects at first use and repeats what fails at most `tries` times.

    The API fails fast (0). arq ends at its first failed poll, so the worker gets PATIENT_TRIES.
    """
    return ArqRedis(
        host=settings.redis_host,
        port=settings.redis_port,
        username=settings.redis_username,
        password=settings.redis_password.get_secret_value(),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(ExponentialBackoff(cap=2, base=0.1), tries),
        # OSError is a refused connection: the client turns it into its own error only after the last try.
        retry_on_error=[RedisConnectionError, RedisTimeoutError, OSError],
        # No CLIENT SETINFO: Redis 7.0 does not know it, so a user's rules cannot allow it on all of Redis 7.
        lib_name=None,
        lib_version=None,
    )
