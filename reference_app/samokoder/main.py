"""The API: `uvicorn samokoder.main:app --host 0.0.0.0 --port 8000`."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID, uuid4, uuid5

import structlog
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from redis.exceptions import RedisError, WatchError
from sqlalchemy import false, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from samokoder import __version__, auth, metrics
from samokoder.backends import Backends, BackendsDep, SessionDep, make_queue
from samokoder.db import DATABASE_AWAY, Job, JobName, Project, State
from samokoder.logs import set_up_logs
from samokoder.rate_limit import within_limit
from samokoder.request_log import BODY_BYTES, PROBES, RequestLog, probe_answer, ready_answer
from samokoder.schemas import JobIn, JobOut, ProjectIn, ProjectMade, ProjectOut, ProjectWithNotes
from samokoder.settings import settings_or_exit

#: How often a stream looks at its job, and how many times: longer than all tries of a job, but not for ever.
LOOK_SECONDS: Final = 1.0
LOOKS: Final = 1800
#: By it the smoke test knows an application that it may have do a job (the contract in README).
SMOKE_JOB: Final = {"x-samokoder-smoke": True}
#: Of ids that are made from what a client sent; any fixed one will do.
_IDS: Final = UUID("6f0c3f0e-0d3d-4b0f-9f6e-2f8f3b7c5a11")
Row = TypeVar("Row", Project, Job)

log = structlog.stdlib.get_logger(__name__)
settings = settings_or_exit()
set_up_logs("api")
#: Headers; empty until this replica is told to stop.
_in_every_answer: Final[dict[str, str]] = {}


def _drain_on_sigterm(backends: Backends) -> None:
    """On SIGTERM tell whoever asks that this replica stops, and serve on until nobody sends it requests any more.

    Then, or at a second signal, streams end and uvicorn shuts down: it waits for every answer's end, a stream's too.
    """
    loop = asyncio.get_running_loop()
    shut_down: Any = signal.getsignal(signal.SIGTERM)  # uvicorn's, which started this

    def end(number: signal.Signals) -> None:
        backends.stopping.set()
        shut_down(number, None)

    def drain() -> None:
        seconds = 0 if _in_every_answer else settings.drain_seconds
        _in_every_answer["connection"] = "close"  # a client's next request finds another replica
        log.info("draining", seconds=seconds)
        loop.call_later(seconds, end, signal.SIGTERM)

    loop.add_signal_handler(signal.SIGTERM, drain)
    loop.add_signal_handler(signal.SIGINT, end, signal.SIGINT)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.backends = backends = Backends(settings, "api", make_queue(settings))
    _drain_on_sigterm(backends)
    log.info("started", version=__version__, environment=settings.environment)
    try:
        yield
    finally:
        await backends.close()
        log.info("stopped")


app = FastAPI(
    title="Samokoder reference service",
    version=__version__,
    lifespan=_lifespan,
    dependencies=[Depends(within_limit)],
)


@app.get("/")
async def about() -> dict[str, str]:
    """Say what this is."""
    return {"name": "Samokoder", "version": __version__, "environment": settings.environment}


@app.get("/health", responses={503: {"description": "it is told to stop; it answers all the same for a while"}})
async def health() -> JSONResponse:
    """Liveness: asks nobody, so that a database that is away does not get the API restarted."""
    return probe_answer("stopping" if _in_every_answer else "ok")


@app.get("/ready", responses={503: {"description": "a part that it needs is away"}})
async def ready(backends: BackendsDep) -> JSONResponse:
    """Readiness: really asks PostgreSQL and Redis, each for at most 2 seconds, both at once."""
    if _in_every_answer:
        return await health()
    return ready_answer(await backends.ready())


# Uptime monitors send HEAD; uvicorn sends the answer without its body.
for path, answer in (("/", about), ("/health", health), ("/ready", ready)):
    app.head(path, include_in_schema=False)(answer)


IdempotencyKey = Annotated[str | None, Header(min_length=8, max_length=100, description="of this one request")]


@app.post(
    "/projects",
    status_code=HTTPStatus.CREATED,
    openapi_extra=SMOKE_JOB,
    responses={401: {"description": "a token that is not a good one"}},
)
async def create_project(
    body: ProjectIn,
    owner: auth.AnybodyDep,
    session: SessionDep,
    backends: BackendsDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ProjectMade:
    """Store a new project, its notes encrypted, and its first job.

    Whoever was told of a failure, or of nothing, asks again with the same Idempotency-Key and the same body: both are
    there once. A project of somebody who is logged in goes with the account, and is in nobody else's list.
    """
    owner_id = owner.id if owner else None
    said = json.dumps([str(owner_id), idempotency_key, body.model_dump(mode="json")])
    project_id = uuid5(_IDS, said) if idempotency_key else uuid4()
    new = insert(Project).values(
        id=project_id, name=body.name, sealed_notes=backends.vault.seal(body.notes), owner_id=owner_id
    )
    made = await session.scalar(new.on_conflict_do_nothing(index_elements=[Project.id]).returning(Project))
    project = made or await _get(session, Project, project_id)
    job = None
    if body.job and made:
        job = _new_job(project, body.job, request, uuid5(project_id, "job"))
        session.add(job)
    elif body.job:
        job = await session.get(Job, uuid5(project_id, "job"))
    await session.commit()
    if job and job.state == State.QUEUED:
        try:
            await _queue(job, backends)
        except RedisError:
            if not idempotency_key:  # with a key it stays: the client asks again, or the worker's sweep finds it
                await session.delete(project)
                await session.commit()
            raise
    if made:
        metrics.PROJECTS_CREATED.inc()
    response.headers["location"] = f"/projects/{project.id}"
    shown = {"notes": body.notes, "job": JobOut.model_validate(job) if job else None}
    return ProjectMade.model_validate(ProjectOut.model_validate(project).model_dump() | shown)


@app.get("/projects", responses={401: {"description": "a token that is not a good one"}})
async def list_projects(
    user: auth.AnybodyDep, session: SessionDep, limit: Annotated[int, Query(ge=1, le=100)] = 50
) -> list[ProjectOut]:
    """List the newest projects, newest first, without their notes: those of nobody, and the caller's own."""
    shown = or_(Project.owner_id.is_(None), Project.owner_id == user.id if user else false())
    newest = select(Project).where(shown).order_by(Project.created_at.desc(), Project.id).limit(limit)
    return [ProjectOut.model_validate(project) for project in await session.scalars(newest)]


def _new_job(project: Project, body: JobIn, request: Request, job_id: UUID) -> Job:
    arguments = {**body.args.model_dump(), "request_id": request.state.request_id}
    return Job(id=job_id, project_id=project.id, name=body.name, arguments=arguments)


async def _queue(job: Job, backends: Backends) -> None:
    """Put a stored job into the queue, which takes each id once.

    arq says the same of a job that is there already and of a connection that ended meanwhile, so it is asked twice.
    """
    enqueue = partial(backends.queue.enqueue_job, str(job.name), **job.arguments, _job_id=str(job.id))
    try:
        queued = None
        with contextlib.suppress(WatchError):
            queued = await enqueue()
        if queued is None:
            await enqueue()
    except RedisError:
        metrics.JOBS_NOT_QUEUED.labels(job.name).inc()
        raise
    metrics.JOBS_SUBMITTED.labels(job.name).inc()


async def _get(session: AsyncSession, table: type[Row], key: UUID) -> Row:
    if (row := await session.get(table, key)) is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"no such {table.__name__.lower()}")
    return row


@app.get("/projects/{project_id}")
async def get_project(project_id: UUID, session: SessionDep, backends: BackendsDep) -> ProjectWithNotes:
    """Show one project."""
    project = await _get(session, Project, project_id)
    notes = backends.vault.open(project.sealed_notes)
    return ProjectWithNotes.model_validate(project).model_copy(update={"notes": notes})


@app.post("/projects/{project_id}/jobs", status_code=HTTPStatus.ACCEPTED)
async def submit_job(
    project_id: UUID, body: JobIn, session: SessionDep, backends: BackendsDep, request: Request, response: Response
) -> JobOut:
    """Have the worker do something for a project."""
    job = _new_job(await _get(session, Project, project_id), body, request, uuid4())
    session.add(job)
    await session.commit()
    try:
        await _queue(job, backends)
    except RedisError:
        await session.delete(job)  # the client hears that it was not accepted
        await session.commit()
        raise
    response.headers["location"] = f"/jobs/{job.id}"
    return JobOut.model_validate(job)


async def _job(job_id: UUID, backends: BackendsDep) -> JobOut:
    async with backends.sessions() as session:  # a stream holds no connection between two looks
        return JobOut.model_validate(await _get(session, Job, job_id))


JobDep = Annotated[JobOut, Depends(_job)]


@app.get("/jobs/{job_id}")
async def get_job(job: JobDep) -> JobOut:
    """Show how far a job is, and what came of it."""
    return job


@app.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def stream_job(job: JobDep, backends: BackendsDep) -> AsyncIterator[JobOut]:
    """Send the job as it is, and again at each change, until it is done or failed.

    A stream that ends earlier (this replica stops) is to be opened again, as browsers do by themselves.
    """
    shown = None
    for _ in range(LOOKS):
        if job != shown:
            yield (shown := job)
        if job.state in {State.DONE, State.FAILED}:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(backends.stopping.wait(), LOOK_SECONDS)
            return
        try:
            job = await _job(job.id, backends)
        except DATABASE_AWAY:
            continue
        except HTTPException:  # it was removed, with its project's account
            return


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    part = "queue" if isinstance(error, RedisError) else "database"
    log.warning("a part is away", away=part, reason=type(error).__name__)
    return JSONResponse({"detail": f"{part} unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "5"})


async def _gone(_request: Request, error: Exception) -> JSONResponse:
    log.info("what it belongs to was removed meanwhile", reason=str(getattr(error, "orig", error)).partition("\n")[0])
    return JSONResponse({"detail": "what it belongs to was removed meanwhile"}, HTTPStatus.CONFLICT)


async def _invalid(_request: Request, error: Exception) -> Response:
    """Say what is wrong without what was sent, which may be a password."""
    problems = error.errors() if isinstance(error, RequestValidationError) else ()
    shown = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in problems]
    # In ASCII: the name of a field that a client made up may be no text that UTF-8 can write.
    return Response(json.dumps({"detail": shown}), HTTPStatus.UNPROCESSABLE_ENTITY, media_type="application/json")


def _make_series() -> None:
    """Make the series of every endpoint; a status that some mistake brings appears with it."""
    for route in (*app.routes, *auth.router.routes):
        if isinstance(route, APIRoute) and route.path not in PROBES:
            statuses = {str(int(route.status_code or HTTPStatus.OK)), "404", "422", "429", "500", "503"}
            metrics.make_series(metrics.HTTP_REQUESTS, route.methods or (), [route.path], statuses)
            metrics.make_series(metrics.HTTP_SECONDS, route.methods or (), [route.path])
    metrics.make_series(metrics.HTTP_REQUESTS, ["GET"], ["unmatched"], ["404"])
    for key in settings.rate_limits:
        metrics.make_series(metrics.RATE_LIMIT_HITS, key.split()[1:], ["client"])
        metrics.make_series(metrics.RATE_LIMIT_UNAVAILABLE, key.split()[1:])
    metrics.make_series(metrics.JOBS_SUBMITTED, JobName)
    metrics.make_series(metrics.JOBS_NOT_QUEUED, JobName)


app.add_route("/metrics", metrics.exposition(metrics.API, settings.environment), include_in_schema=False)
app.include_router(auth.router)
for kind in (*DATABASE_AWAY, RedisError):
    app.add_exception_handler(kind, _unavailable)
app.add_exception_handler(IntegrityError, _gone)
app.add_exception_handler(RequestValidationError, _invalid)
app.add_middleware(RequestBodyLimitMiddleware, max_body_size=BODY_BYTES)
app.add_middleware(RequestLog, headers=_in_every_answer)
if settings.trusted_proxies:
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
_make_series()
