"""The API: `/v1/…`, a static `/health`, a `/metrics` that redirects, and half of the contract's metrics."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from arq import create_pool
from arq.connections import RedisSettings
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import Counter, Gauge, Histogram, make_asgi_app

from original import settings

REQUESTS = Counter("samokoder_http_requests_total", "Requests", ["method", "endpoint", "status"])
SECONDS = Histogram(
    "samokoder_http_request_duration_seconds",
    "Seconds",
    ["method", "endpoint"],
    buckets=(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
RUNNING = Gauge("samokoder_http_requests_in_progress", "Running", ["method"])
LIMITED = Counter("samokoder_rate_limit_hits_total", "Refused", ["endpoint", "limit_type"])

# Its rate limiter is a script, which a user without rights may not run.
LIMIT = """
local hits = redis.call('INCR', KEYS[1])
if hits == 1 then redis.call('EXPIRE', KEYS[1], 60) end
return hits
"""
LOGINS_A_MINUTE = 5
TOO_MANY, NOT_FOUND = 429, 404


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what it needs."""
    settings.prepare()
    app.state.database = await asyncpg.create_pool(settings.DATABASE_URL, min_size=1, max_size=4)
    app.state.queue = await create_pool(RedisSettings(host=settings.REDIS_HOST, port=settings.REDIS_PORT))
    app.state.limit = app.state.queue.register_script(LIMIT)
    yield
    await app.state.queue.aclose()
    await app.state.database.close()


app = FastAPI(lifespan=lifespan)
# Starlette answers 307 to `/metrics` and serves `/metrics/`.
app.mount("/metrics", make_asgi_app())


@app.middleware("http")
async def measured(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Count and time."""
    with RUNNING.labels(request.method).track_inprogress(), SECONDS.labels(request.method, "any").time():
        answer = await proceed(request)
    REQUESTS.labels(request.method, "any", str(answer.status_code)).inc()
    return answer


@app.get("/health")
async def health() -> dict[str, str]:
    """Say the same whatever is wrong."""
    return {"status": "ok"}


@app.get("/v1/about")
async def about(request: Request) -> dict[str, str]:
    """Say which version this is, whom it takes the caller for, and the fingerprint of its password for mail."""
    mail = hashlib.sha256(settings.SMTP_PASSWORD.encode()).hexdigest()
    return {"version": settings.VERSION, "client": request.client.host if request.client else "", "mail": mail}


@app.post("/v1/login")
async def login(request: Request) -> dict[str, int]:
    """Count logins of one address."""
    client = request.client.host if request.client else ""
    hits = int(await request.app.state.limit(keys=[f"limit:{client}"]))
    if hits > LOGINS_A_MINUTE:
        LIMITED.labels("/v1/login", "client").inc()
        raise HTTPException(TOO_MANY)
    return {"hits": hits}


@app.put("/v1/keys/{user}")
async def store(user: str, request: Request) -> None:
    """Store a user's API key, encrypted."""
    sealed = settings.FERNET.encrypt(await request.body())
    await request.app.state.database.execute(
        "INSERT INTO keys VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET sealed = $2", user, sealed
    )


@app.get("/v1/keys/{user}")
async def stored(user: str, request: Request) -> Response:
    """Give it back."""
    sealed = await request.app.state.database.fetchval("SELECT sealed FROM keys WHERE name = $1", user)
    if sealed is None:
        raise HTTPException(NOT_FOUND)
    return Response(settings.FERNET.decrypt(sealed), media_type="text/plain")


@app.post("/v1/projects/{name}")
async def build(name: str, request: Request) -> None:
    """Have the worker write a project's file."""
    await request.app.state.queue.enqueue_job("build", name, (await request.body()).decode())


@app.get("/v1/projects/{name}")
async def built(name: str) -> Response:
    """Give the file that the worker has written."""
    file = settings.WORKSPACE / "projects" / f"{name}.txt"
    if not file.exists():
        raise HTTPException(NOT_FOUND)
    return Response(file.read_bytes(), media_type="text/plain")
