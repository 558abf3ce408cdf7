"""The worker: `arq samokoder.worker.main.WorkerSettings`, with a small HTTP side for probes and metrics."""

import asyncio
import contextlib
import functools
import hashlib
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import arq
import structlog
import uvicorn
from arq.connections import ArqRedis
from arq.constants import default_queue_name
from redis.exceptions import RedisError
from sqlalchemy import Update, delete, func, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql.functions import now
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from samokoder import metrics
from samokoder.backends import PATIENT_TRIES, Backends, make_queue
from samokoder.db import DATABASE_AWAY, OPEN, Job, JobName, NotMigratedError, Project, State
from samokoder.llm import Gateway, LlmError
from samokoder.logs import set_up_logs
from samokoder.request_log import probe_answer, ready_answer
from samokoder.settings import settings_or_exit

BEAT_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 60.0
#: Of the database's rows that a turn of the sweep looks at, and that it removes.
SWEEP_ROWS: Final = 1000
WRITE_AGAIN_SECONDS: Final = 1.0
JOB_SECONDS_MAX: Final = 300
#: No try of a job is that old: it has ended, or its worker has.
LOST_SECONDS: Final = JOB_SECONDS_MAX + 60
MAX_TRIES: Final = 5
#: A provider that asks us to wait for longer is asked after that all the same.
DEFER_SECONDS_MAX: Final = 600

log = structlog.stdlib.get_logger(__name__)
settings = settings_or_exit()
_handler = set_up_logs("worker")


def skeleton(name: str, language: str) -> str:
    """Write the first file of a project called `name` in `language` ("python" or "javascript")."""
    function = "_".join(["start", *re.findall(r"[a-z0-9]+", name.lower())])
    title = json.dumps(name)  # also a correct literal of both languages, whatever the name holds
    if language == "python":
        return f'TITLE = {title}\n\n\ndef {function}() -> str:\n    return f"{{TITLE}} starts here"\n'
    body = "  return `${TITLE} starts here`;\n"
    return f"const TITLE = {title};\n\nexport function {function}() {{\n{body}}}\n"


async def _text(gateway: Gateway, job: JobName, name: str, language: str, begun: float) -> tuple[str, str]:
    """Return what the job writes, and who wrote it. begun: when the job was, as for `Gateway.ask`."""
    if job is JobName.WRITE_SKELETON:
        return skeleton(name, language), "a skeleton"
    if not gateway.providers:
        return skeleton(name, language), "a skeleton, since no LLM key is configured"
    answer = await gateway.ask(f"Write one file of {language}. Answer with its code alone.", name, begun)
    code = re.sub(r"^```\w*\n(.*?)\n?```$", r"\1\n", answer.text.strip(), flags=re.DOTALL)
    return code.replace("\0", ""), f"by {answer.model} of {answer.provider} with {answer.tokens} tokens"


async def _patiently(write: Callable[[], Awaitable[None]]) -> None:
    """Write what has been paid for; again while the database is away."""
    while True:
        try:
            return await write()
        except DATABASE_AWAY as error:
            log.warning("job waits to write its result", reason=type(error).__name__)
        await asyncio.sleep(WRITE_AGAIN_SECONDS)


async def _work(job_name: JobName, ctx: dict[str, Any], *, language: str = "python", request_id: str = "") -> None:
    """Put the text into the project's row, and the outcome into the job's.

    Running it twice does no harm. A worker that has to go gives the job back; a database that is away is
    asked again, MAX_TRIES times in all, and so is an LLM that is busy or left alone for a while; any other error ends
    the job as failed. What an LLM was paid for is not asked for again: its writing alone is repeated.
    """
    job_id, begun = UUID(ctx["job_id"]), time.monotonic()
    sessions = ctx["backends"].sessions

    async def mark(state: State, *before: Update, **values: object) -> None:
        job = update(Job).where(Job.id == job_id, Job.state != State.DONE).values(state=state, **values)
        async with sessions.begin() as session:
            for statement in (*before, job):
                await session.execute(statement)

    with (
        structlog.contextvars.bound_contextvars(request_id=request_id, job_id=str(job_id)),
        metrics.JOB_SECONDS.labels(job_name).time(),
    ):
        try:
            # Only the database can hold a job up until then: the LLM's limit is lower, and also begins here.
            async with asyncio.timeout(JOB_SECONDS_MAX):
                await mark(State.RUNNING, started_at=now())
                async with sessions() as session:
                    whose = select(Project.id, Project.name, Job.state).join(Job).where(Job.id == job_id)
                    found = (await session.execute(whose)).one_or_none()
                if found is None:
                    log.info("job was removed, with its project")
                    return
                project_id, name, state = found
                if state == State.DONE:  # by a worker that could not tell the queue any more
                    log.info("job was done already")
                    return
                # Holds no connection meanwhile.
                text, by = await _text(ctx["gateway"], job_name, name, language, begun)
                digest = hashlib.sha256(text.encode()).hexdigest()
                result = f"{len(text.splitlines())} lines of {language}, sha256 {digest}, {by}"
                written = update(Project).where(Project.id == project_id).values(skeleton=text)
                done = functools.partial(mark, State.DONE, written, result=result, finished_at=now())
                await _patiently(done)
        except BaseException as error:
            away, told_to_go = isinstance(error, DATABASE_AWAY), isinstance(error, asyncio.CancelledError)
            later = error.again_seconds if isinstance(error, LlmError) else None
            again = told_to_go or ((away or later is not None) and ctx["job_try"] < MAX_TRIES)
            metrics.WORKER_JOBS.labels("retried" if again else "failed").inc()
            why = f"failed: {error if isinstance(error, LlmError) else type(error).__name__}"
            if away:
                log.warning("job could not reach the database", reason=type(error).__name__, last_try=not again)
            with contextlib.suppress(SQLAlchemyError, OSError):
                await (mark(State.QUEUED) if again else mark(State.FAILED, result=why, finished_at=now()))
            if told_to_go:
                log.info("job given back")
            elif again:
                raise arq.Retry(defer=min(DEFER_SECONDS_MAX, max(2 ** ctx["job_try"], later or 0))) from error
            raise
        metrics.WORKER_JOBS.labels("complete").inc()
        log.info("job done")


async def _for_ever(every_seconds: float, work: Callable[[], Awaitable[None]], failed: str) -> None:
    """Do it again and again; when Redis or the database is away, next time is good enough."""
    while True:
        try:
            async with asyncio.timeout(every_seconds):
                await work()
        except (RedisError, SQLAlchemyError, OSError, NotMigratedError) as error:
            log.warning(failed, reason=type(error).__name__)
        await asyncio.sleep(every_seconds)


async def _beat(redis: ArqRedis) -> None:
    """Measure the queue. The heartbeat moves only with an answer, so it vouches for Redis too."""
    depth = await redis.zcard(default_queue_name)
    oldest = await redis.zrange(default_queue_name, 0, 0, withscores=True)
    metrics.WORKER_QUEUE_DEPTH.set(depth)
    metrics.WORKER_QUEUE_OLDEST.set(max(0.0, time.time() - oldest[0][1] / 1000) if oldest else 0.0)
    metrics.WORKER_HEARTBEAT.set_to_current_time()


@dataclass
class Sweep:
    """Up to which job, by time and id, the turns have looked; nothing: from the oldest one on."""

    after: tuple[datetime, UUID] | None = None


async def _sweep(sweep: Sweep, backends: Backends) -> None:
    """Put the jobs into the queue again that only the database still knows, and remove those that are over for long.

    One turn looks at SWEEP_ROWS jobs at most, the next one goes on from there. Several workers may sweep.
    """
    await backends.ask_database()
    started = select(Job.created_at, Job.id).where(OPEN, Job.created_at < now() - timedelta(seconds=SWEEP_SECONDS))
    if sweep.after:
        started = started.where(tuple_(Job.created_at, Job.id) > sweep.after)
    async with backends.sessions() as session:
        rows = (await session.execute(started.order_by(Job.created_at, Job.id).limit(SWEEP_ROWS))).all()
    sweep.after = (rows[-1].created_at, rows[-1].id) if len(rows) == SWEEP_ROWS else None
    async with backends.queue.pipeline(transaction=False) as asked:
        for row in rows:
            asked.zscore(default_queue_name, str(row.id))
        queued = await asked.execute()
    await _mend([row.id for row, score in zip(rows, queued, strict=True) if score is None], backends)
    await _prune(backends)


async def _mend(lost: list[UUID], backends: Backends) -> None:
    """Queue what waits and is not in the queue: Redis has lost its data. It takes each id once.

    Of one that was running, nobody can say whether it was what ended its worker (out of memory), so it is failed.
    Redis was asked before: what has left the queue since then is no longer "queued" or "running".
    """
    began = func.coalesce(Job.started_at, Job.created_at)
    runs = (Job.state == State.RUNNING) & (began < now() - timedelta(seconds=LOST_SECONDS))
    async with backends.sessions.begin() as session:
        jobs = await session.scalars(select(Job).where(Job.id.in_(lost), (Job.state == State.QUEUED) | runs))
        for job in jobs:
            words = {"job_id": str(job.id), "request_id": job.arguments.get("request_id")}
            if job.state == State.RUNNING:
                job.state, job.result, job.finished_at = State.FAILED, "failed: its worker was lost", datetime.now(UTC)
                metrics.WORKER_JOBS.labels("failed").inc()
                log.error("lost job failed", **words)
            elif await backends.queue.enqueue_job(job.name, **job.arguments, _job_id=str(job.id)):
                log.warning("lost job queued again", **words)


async def _prune(backends: Backends) -> None:
    """Remove jobs that were over before `job_retention_days`; what they wrote is in their projects."""
    if days := backends.settings.job_retention_days:
        over = select(Job.id).where(Job.finished_at < now() - timedelta(days=days)).order_by(Job.finished_at)
        turn = over.limit(SWEEP_ROWS).with_for_update(skip_locked=True)
        async with backends.sessions.begin() as session:
            gone = (await session.execute(delete(Job).where(Job.id.in_(turn)).returning(Job.id))).all()
        if gone:
            log.info("old jobs removed", jobs=len(gone), days=days)


async def _health(_request: Request) -> JSONResponse:
    return probe_answer("ok")


async def _ready(request: Request) -> JSONResponse:
    backends: Backends = request.app.state.backends
    return ready_answer(await backends.ready())


class _Listener(uvicorn.Server):
    """The worker's HTTP side, in the worker's own loop: it cannot answer "healthy" while that hangs."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to arq, which finishes its jobs first."""
        yield


async def _start(ctx: dict[str, Any]) -> None:
    ctx["backends"] = backends = Backends(settings, "worker", ctx["redis"])
    ctx["gateway"] = Gateway(settings)
    metrics.make_series(metrics.JOB_SECONDS, JobName)
    exposition = metrics.exposition(metrics.WORKER, settings.environment)
    http = Starlette(routes=[Route("/health", _health), Route("/ready", _ready), Route("/metrics", exposition)])
    http.state.backends = backends
    ctx["listener"] = listener = _Listener(
        uvicorn.Config(http, host="0.0.0.0", port=settings.worker_port, log_config=None)  # noqa: S104 - Prometheus asks
    )

    beating = _for_ever(BEAT_SECONDS, functools.partial(_beat, backends.queue), "queue does not answer")
    sweeping = _for_ever(SWEEP_SECONDS, functools.partial(_sweep, Sweep(), backends), "lost jobs not looked for")
    ctx["tasks"] = [asyncio.create_task(task) for task in (beating, sweeping, listener.serve())]
    log.info("started", environment=settings.environment, port=settings.worker_port)


async def _stop(ctx: dict[str, Any]) -> None:
    for task in ctx["tasks"][:-1]:
        task.cancel()
    ctx["listener"].should_exit = True
    await asyncio.gather(*ctx["tasks"], return_exceptions=True)
    await ctx["gateway"].close()
    await ctx["backends"].close()
    log.info("stopped")


def _as_json(record: logging.LogRecord) -> bool:
    _handler.handle(record)
    return False


# The arq command sets plain-text handlers after this import and clears ours, but it leaves filters alone.
for _name in ("arq.worker", "arq.connections", "arq.jobs"):
    logging.getLogger(_name).addFilter(_as_json)


class WorkerSettings:
    """What the `arq` command reads."""

    functions = tuple(arq.func(cast("Any", functools.partial(_work, name)), name=name) for name in JobName)
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
