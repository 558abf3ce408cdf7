"""How many requests a minute a client may make of an endpoint, counted in Redis for all replicas together."""

import asyncio
import ipaddress
import math
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import structlog
from fastapi import HTTPException, Request
from redis.exceptions import RedisError

from samokoder.backends import BackendsDep
from samokoder.metrics import RATE_LIMIT_HITS, RATE_LIMIT_UNAVAILABLE

WINDOW_SECONDS: Final = 60.0
#: A limiter that is slow must not be slower than what it protects.
ANSWER_SECONDS: Final = 0.5
#: Where guessing must not become free while Redis is away.
CLOSED: Final = frozenset({"POST /auth/login", "POST /auth/register"})
#: There it waits longer: where the processor is starved, Redis is slow and not away, and to refuse would be an outage.
CLOSED_ANSWER_SECONDS: Final = 8.0
#: So many wait at a time: each has a connection to Redis, and nobody limits them meanwhile.
_WAITING: Final = asyncio.Semaphore(50)

# A sorted set of the requests of the last window. All in one script: two replicas cannot both take the last place.
# The clock is Redis' own, since those of the replicas differ. Microseconds fit a Lua number exactly.
_TAKE: Final = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used = redis.call('ZCARD', KEYS[1])
local allowed = used < limit or redis.call('ZSCORE', KEYS[1], ARGV[3])
if allowed then
    used = used + redis.call('ZADD', KEYS[1], now, ARGV[3])
    redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
end
local next = math.max(0, used - limit)
local taken = redis.call('ZRANGE', KEYS[1], next, next, 'WITHSCORES')[2]
return {allowed and 1 or 0, math.max(0, limit - used), taken + window - now}
"""

log = structlog.stdlib.get_logger(__name__)


async def take(redis: Any, key: str, limit: int, window_seconds: float = WINDOW_SECONDS) -> tuple[bool, int, int]:
    """Take one of `limit` places in the sliding window of `key`, if one is free.

    Returns whether one was, how many still are, and the seconds until one more is than now.
    """
    window = int(window_seconds * 1_000_000)
    allowed, remaining, reset = await redis.eval(_TAKE, 1, f"rate:{key}", limit, window, uuid4().hex)
    return bool(allowed), remaining, math.ceil(reset / 1_000_000)


def client_of(request: Request) -> str:
    """Return whose requests count together: an IPv4 address, or the /64 that one IPv6 customer has all of."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


async def within_limit(request: Request, backends: BackendsDep) -> None:
    """Refuse the request with 429 where its client has made too many; tell it in headers how many it has left."""
    endpoint: str = request.scope["route"].path
    key = f"{request.method} {endpoint}"
    most = backends.settings.rate_limits.get(key, 0)
    if not most:
        return
    seconds, turn = (CLOSED_ANSWER_SECONDS, _WAITING) if key in CLOSED else (ANSWER_SECONDS, nullcontext())
    try:
        async with asyncio.timeout(seconds), turn:
            allowed, remaining, reset = await take(backends.queue, f"{key} {client_of(request)}", most)
    except (RedisError, OSError) as error:  # a timeout is an OSError
        RATE_LIMIT_UNAVAILABLE.labels(endpoint).inc()
        log.warning("rate limit not asked", reason=type(error).__name__)
        if key in CLOSED:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "rate limiter is away", {"retry-after": "5"}) from error
        return
    request.state.headers.update(
        {"ratelimit-limit": str(most), "ratelimit-remaining": str(remaining), "ratelimit-reset": str(reset)}
    )
    if not allowed:
        RATE_LIMIT_HITS.labels(endpoint, "client").inc()
        raise HTTPException(HTTPStatus.TOO_MANY_REQUESTS, "too many requests", {"retry-after": str(reset)})
