"""The worker: `arq samokoder.worker.main.WorkerSettings`, with a small HTTP side for probes and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import structlog
import uvicorn
from arq import Retry
from arq.connections import ArqRedis
from arq.constants import default_queue_name
from redis.exceptions import RedisError
from sqlalchemy import func, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from samokoder import metrics
from samokoder.db import DATABASE_AWAY, Job, JobName, Project, State, make_engine
from samokoder.job_queue import PATIENT_TRIES, make_queue
from samokoder.llm import Gateway, LlmError
from samokoder.logs import set_up_logs
from samokoder.settings import settings_or_exit

BEAT_SECONDS: Final = 5.0
STALE_SECONDS: Final = 30.0
JOB_SECONDS_MAX: Final = 300
MAX_TRIES: Final = 5

log = structlog.stdlib.get_logger(__name__)


def skeleton(name: str, language: str) -> str:
    """Write the first file of a project called `name` in `language` ("python" or "javascript")."""
    function = "_".join(["start", *re.findall(r"[a-z0-9]+", name.lower())])
    title = json.dumps(name)  # also a correct literal of both languages, whatever the name holds
    if language == "python":
        return f'TITLE = {title}\n\n\ndef {function}() -> str:\n    return f"{{TITLE}} starts here"\n'
    body = "  return `${TITLE} starts here`;\n"
    return f"const TITLE = {title};\n\nexport function {function}() {{\n{body}}}\n"


async def write_skeleton(ctx: dict[str, Any], *, language: str, request_id: str) -> None:
    """Write the skeleton of the job's project into its row."""
    await _work(ctx, JobName.WRITE_SKELETON, language, request_id)


async def generate_code(ctx: dict[str, Any], *, language: str, request_id: str) -> None:
    """Have the LLM write the code of the job's project into its row; without any key a skeleton, as the result says."""
    await _work(ctx, JobName.GENERATE_CODE, language, request_id)


async def _text(gateway: Gateway, job: JobName, name: str, language: str) -> tuple[str, str]:
    """Return what the job writes, and who wrote it."""
    if job is JobName.WRITE_SKELETON:
        return skeleton(name, language), "a skeleton"
    if not gateway.providers:
        return skeleton(name, language), "a skeleton, since no LLM key is configured"
    answer = await gateway.ask(f"Write one file of {language}. Answer with its code alone.", name)
    code = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1\n", answer.text.strip(), flags=re.DOTALL)
    return code.replace("\0", ""), f"by {answer.model} of {answer.provider} with {answer.tokens} tokens"


async def _work(ctx: dict[str, Any], kind: JobName, language: str, request_id: str) -> None:
    """Put the text into the project's row, and the outcome into the job's.

    Running it twice does no harm. A worker that has to go gives the job back; a database that is away is
    asked again, MAX_TRIES times in all; any other error ends the job as failed.
    """
    job_id = UUID(ctx["job_id"])
    sessions: async_sessionmaker[AsyncSession] = ctx["sessions"]

    async def mark(state: State, **values: object) -> None:
        async with sessions.begin() as session:
            await session.execute(
                update(Job).where(Job.id == job_id, Job.state != State.DONE).values(state=state, **values)
            )

    with (
        structlog.contextvars.bound_contextvars(request_id=request_id, job_id=str(job_id)),
        metrics.JOB_SECONDS.labels(kind).time(),
    ):
        try:
            async with asyncio.timeout(JOB_SECONDS_MAX):
                await mark(State.RUNNING)
                async with sessions() as session:
                    project_id = (await session.get_one(Job, job_id)).project_id
                    name = (await session.get_one(Project, project_id)).name
                text, by = await _text(ctx["gateway"], kind, name, language)  # holds no connection meanwhile
                async with sessions.begin() as session:
                    project = await session.get_one(Project, project_id, with_for_update={"key_share": True})
                    project.skeleton = text
                    digest = hashlib.sha256(text.encode()).hexdigest()
                    job = await session.get_one(Job, job_id)
                    job.result = f"{len(text.splitlines())} lines of {language}, sha256 {digest}, {by}"
                    job.state = State.DONE
                    job.finished_at = await session.scalar(func.now().select())
        except asyncio.CancelledError:
            metrics.WORKER_JOBS.labels("retried").inc()
            with contextlib.suppress(SQLAlchemyError, OSError):
                await mark(State.QUEUED)
            log.info("job given back")
            raise
        except DATABASE_AWAY as error:
            last = ctx["job_try"] >= MAX_TRIES
            metrics.WORKER_JOBS.labels("failed" if last else "retried").inc()
            log.warning("job could not reach the database", reason=type(error).__name__, last_try=last)
            with contextlib.suppress(*DATABASE_AWAY):
                await mark(State.FAILED if last else State.QUEUED)
            if last:
                raise
            raise Retry(defer=2 ** ctx["job_try"]) from error
        except Exception as error:
            metrics.WORKER_JOBS.labels("failed").inc()
            why = f"failed: {error if isinstance(error, LlmError) else type(error).__name__}"
            with contextlib.suppress(SQLAlchemyError, OSError):
                await mark(State.FAILED, result=why, finished_at=func.now())
            raise
        metrics.WORKER_JOBS.labels("complete").inc()
        log.info("job done")


async def _keep_beating(redis: ArqRedis) -> None:
    """Measure the queue every 5 s. The heartbeat moves only with an answer, so it vouches for Redis too."""
    while True:
        try:
            async with asyncio.timeout(BEAT_SECONDS):
                depth = await redis.zcard(default_queue_name)
                oldest = await redis.zrange(default_queue_name, 0, 0, withscores=True)
        except (RedisError, OSError) as error:
            log.warning("queue does not answer", reason=type(error).__name__)
        else:
            metrics.WORKER_QUEUE_DEPTH.set(depth)
            metrics.WORKER_QUEUE_OLDEST.set(max(0.0, time.time() - oldest[0][1] / 1000) if oldest else 0.0)
            metrics.WORKER_HEARTBEAT.set_to_current_time()
        await asyncio.sleep(BEAT_SECONDS)


async def _health(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _ready(_request: Request) -> JSONResponse:
    last_beat = metrics.WORKER.get_sample_value("worker_heartbeat_timestamp_seconds") or 0.0
    good = time.time() - last_beat < STALE_SECONDS
    return JSONResponse(
        {"status": "ok" if good else "unavailable", "redis": "ok" if good else "no answer"},
        HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
    )


class _Listener(uvicorn.Server):
    """The worker's HTTP side, in the worker's own loop: it cannot answer "healthy" while that hangs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to arq, which finishes its jobs first."""
        yield


async def _start(ctx: dict[str, Any]) -> None:
    engine = make_engine(settings, "worker")
    ctx["engine"] = engine
    ctx["sessions"] = async_sessionmaker(engine, expire_on_commit=False)
    ctx["gateway"] = Gateway(settings)
    metrics.make_series(metrics.JOB_SECONDS, JobName)
    exposition = metrics.exposition(metrics.WORKER, settings.environment)
    routes = [Route("/health", _health), Route("/ready", _ready), Route("/metrics", exposition)]
    every_address = "0.0.0.0"  # noqa: S104 - Prometheus comes from another container
    ctx["listener"] = listener = _Listener(
        uvicorn.Config(Starlette(routes=routes), host=every_address, port=settings.worker_port, log_config=None)
    )
    ctx["tasks"] = [asyncio.create_task(listener.serve()), asyncio.create_task(_keep_beating(ctx["redis"]))]
    log.info("started", environment=settings.environment, port=settings.worker_port)


async def _stop(ctx: dict[str, Any]) -> None:
    serving, beating = ctx["tasks"]
    beating.cancel()
    ctx["listener"].should_exit = True
    await asyncio.gather(serving, beating, return_exceptions=True)
    await ctx["gateway"].close()
    await ctx["engine"].dispose()
    log.info("stopped")


settings = settings_or_exit()
_handler = set_up_logs("worker")


def _as_json(record: logging.LogRecord) -> bool:
    _handler.handle(record)
    return False


# The arq command sets plain-text handlers after this import and clears ours, but it leaves filters alone.
for _name in ("arq.worker", "arq.connections", "arq.jobs"):
    logging.getLogger(_name).addFilter(_as_json)


class WorkerSettings:
    """What the `arq` command reads."""

    functions = (write_skeleton, generate_code)
    redis_pool = make_queue(settings, tries=PATIENT_TRIES)
    on_startup = _start
    on_shutdown = _stop
    max_jobs = settings.worker_jobs
    job_completion_wait = settings.worker_shutdown_seconds
    # Above our own limit: arq's would look like a shutdown to the job, which would give it back for ever.
    job_timeout = JOB_SECONDS_MAX + 30
    max_tries = MAX_TRIES
    keep_result = 0  # the result is in the database
    health_check_interval = 30
