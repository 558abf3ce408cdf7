"""The API: `uvicorn samokoder.main:app --host 0.0.0.0 --port 8000`."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import structlog
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from samokoder import __version__, auth, metrics
from samokoder.backends import Backends, BackendsDep, SessionDep, make_queue
from samokoder.db import DATABASE_AWAY, Job, JobName, NotMigratedError, Project, State
from samokoder.logs import set_up_logs
from samokoder.rate_limit import within_limit
from samokoder.request_log import BODY_BYTES, PROBES, RequestLog, probe_answer
from samokoder.schemas import JobIn, JobOut, ProjectIn, ProjectOut, ProjectWithNotes
from samokoder.settings import settings_or_exit

READY_SECONDS: Final = 2.0
#: How often a stream looks at its job, and how many times: longer than all tries of a job, but not for ever.
LOOK_SECONDS: Final = 1.0
LOOKS: Final = 1800
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
    return {"name": "samokoder", "version": __version__, "environment": settings.environment}


@app.get("/health", responses={503: {"description": "it is told to stop; it answers all the same for a while"}})
async def health() -> JSONResponse:
    """Liveness: asks nobody, so that a database that is away does not get the API restarted."""
    return probe_answer("stopping" if _in_every_answer else "ok")


async def _verdict(ask: Callable[[], Awaitable[object]]) -> str:
    """Give "ok", or the kind of error (never its text, which may name hosts and users)."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await ask()
    except TimeoutError:
        return f"no answer within {READY_SECONDS:g} s"
    except NotMigratedError as error:
        return str(error)
    except (SQLAlchemyError, RedisError, OSError) as error:
        return f"failed: {type(error).__name__}"
    return "ok"


@app.get("/ready", responses={503: {"description": "a part that it needs is away"}})
async def ready(backends: BackendsDep) -> JSONResponse:
    """Readiness: really asks PostgreSQL and Redis, each for at most 2 seconds, both at once."""
    if _in_every_answer:
        return await health()
    database, redis = await asyncio.gather(_verdict(backends.ask_database), _verdict(backends.queue.ping))
    status = "ok" if database == redis == "ok" else "unavailable"
    return probe_answer(status, database=database, redis=redis)


@app.post("/projects", status_code=HTTPStatus.CREATED)
async def create_project(
    body: ProjectIn, session: SessionDep, backends: BackendsDep, response: Response
) -> ProjectWithNotes:
    """Store a new project, its notes encrypted."""
    project = Project(name=body.name, sealed_notes=backends.vault.seal(body.notes))
    session.add(project)
    await session.commit()
    metrics.PROJECTS_CREATED.inc()
    response.headers["location"] = f"/projects/{project.id}"
    return ProjectWithNotes.model_validate(project).model_copy(update={"notes": body.notes})


@app.get("/projects")
async def list_projects(session: SessionDep, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> list[ProjectOut]:
    """List the newest projects, newest first, without their notes."""
    newest = select(Project).order_by(Project.created_at.desc(), Project.id).limit(limit)
    return [ProjectOut.model_validate(project) for project in await session.scalars(newest)]


async def _get(session: AsyncSession, table: type[Row], key: UUID) -> Row:
    row = await session.get(table, key)
    if row is None:
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
    await _get(session, Project, project_id)
    arguments = {**body.args.model_dump(), "request_id": request.state.request_id}
    job = Job(project_id=project_id, name=body.name, arguments=arguments)
    session.add(job)
    await session.commit()
    try:
        await backends.queue.enqueue_job(body.name.value, **arguments, _job_id=str(job.id))
    except RedisError:
        metrics.JOBS_NOT_QUEUED.labels(body.name).inc()
        await session.delete(job)  # the client hears that it was not accepted
        await session.commit()
        raise
    metrics.JOBS_SUBMITTED.labels(body.name).inc()
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
            yield job
            shown = job
        if job.state in {State.DONE, State.FAILED}:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(backends.stopping.wait(), LOOK_SECONDS)
            return
        with contextlib.suppress(*DATABASE_AWAY):
            job = await _job(job.id, backends)


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    part = "queue" if isinstance(error, RedisError) else "database"
    log.warning("a part is away", away=part, reason=type(error).__name__)
    return JSONResponse({"detail": f"{part} unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "5"})


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
app.add_exception_handler(RequestValidationError, _invalid)
app.add_middleware(RequestBodyLimitMiddleware, max_body_size=BODY_BYTES)
app.add_middleware(RequestLog, headers=_in_every_answer)
if settings.trusted_proxies:
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
_make_series()
