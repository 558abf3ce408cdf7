"""The API: `uvicorn samokoder.main:app --host 0.0.0.0 --port 8000`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Final, Literal, TypeVar, get_args
from uuid import UUID

import structlog
from arq.connections import ArqRedis
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from samokoder import __version__
from samokoder.db import DATABASE_AWAY, Job, Project, create_tables, make_engine
from samokoder.job_queue import make_queue
from samokoder.logs import set_up_logs
from samokoder.metrics import JOBS_NOT_QUEUED, JOBS_SUBMITTED, PROJECTS_CREATED, metrics, set_build
from samokoder.request_log import PROBES, RequestLog
from samokoder.settings import Settings, settings_or_exit

READY_SECONDS: Final = 2.0
JobName = Literal["write_skeleton"]
Row = TypeVar("Row", Project, Job)

log = structlog.stdlib.get_logger(__name__)


class ProjectIn(BaseModel):
    """What a client sends to create a project."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=100, examples=["Recipe book"])


class ProjectOut(BaseModel):
    """A project as it is stored."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    skeleton: str | None = Field(description="what the worker wrote; null before its first job is done")
    created_at: datetime


class JobArgs(BaseModel):
    """Arguments of `write_skeleton`."""

    model_config = ConfigDict(extra="forbid")

    language: Literal["python", "javascript"] = "python"


class JobIn(BaseModel):
    """What a client sends to have work done."""

    model_config = ConfigDict(extra="forbid")

    name: JobName = "write_skeleton"
    args: JobArgs = JobArgs()


class JobOut(BaseModel):
    """A job as it is stored."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    project_id: UUID
    name: str
    state: str = Field(description="queued, running, done or failed")
    result: str | None = Field(description="what came of it, or why it failed")
    created_at: datetime
    finished_at: datetime | None


class Backends:
    """The database and the queue, for as long as the process lives."""

    def __init__(self, settings: Settings) -> None:
        self.engine: AsyncEngine = make_engine(settings, "api")
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.queue: ArqRedis = make_queue(settings)
        self.has_tables = asyncio.Event()

    async def create_tables_when_possible(self) -> None:
        """Create the tables, as soon as the database answers: the API may well be up before it."""
        while not self.has_tables.is_set():
            try:
                await create_tables(self.engine)
            except (SQLAlchemyError, OSError) as error:
                log.warning("tables not created yet", reason=type(error).__name__)
                await asyncio.sleep(1)
            else:
                self.has_tables.set()

    async def ask_database(self) -> None:
        """Raise unless PostgreSQL answers and the tables are there."""
        async with self.engine.connect() as connection:
            await connection.execute(select(1))
        if not self.has_tables.is_set():
            raise RuntimeError("tables not created yet")

    async def ask_redis(self) -> None:
        """Raise unless Redis answers a PING."""
        await self.queue.ping()

    async def close(self) -> None:
        """Give every connection back."""
        await self.queue.aclose(close_connection_pool=True)
        await self.engine.dispose()


def _backends(request: Request) -> Backends:
    backends: Backends = request.app.state.backends
    return backends


async def _session(backends: Annotated[Backends, Depends(_backends)]) -> AsyncIterator[AsyncSession]:
    async with backends.sessions() as session:
        yield session


BackendsDep = Annotated[Backends, Depends(_backends)]
SessionDep = Annotated[AsyncSession, Depends(_session)]


async def _verdict(ask: Callable[[], Awaitable[None]]) -> str:
    """Give "ok", or the kind of error (never its text, which may name hosts and users)."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            await ask()
    except TimeoutError:
        return f"no answer within {READY_SECONDS:g} s"
    except RuntimeError as error:
        return str(error)
    except (SQLAlchemyError, RedisError, OSError) as error:
        return f"failed: {type(error).__name__}"
    return "ok"


def _add_routes(app: FastAPI, settings: Settings) -> None:
    @app.get("/")
    async def about() -> dict[str, str]:
        """Say what this is."""
        return {"name": "samokoder", "version": __version__, "environment": settings.environment}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Liveness: asks nobody, so that a database that is away does not get the API restarted."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "a part that it needs is away"}})
    async def ready(backends: BackendsDep) -> JSONResponse:
        """Readiness: really asks PostgreSQL and Redis, each for at most 2 seconds, both at once."""
        database, redis = await asyncio.gather(_verdict(backends.ask_database), _verdict(backends.ask_redis))
        good = database == redis == "ok"
        return JSONResponse(
            {"status": "ok" if good else "unavailable", "database": database, "redis": redis},
            HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    app.add_route("/metrics", metrics, include_in_schema=False)

    @app.post("/projects", status_code=HTTPStatus.CREATED)
    async def create_project(body: ProjectIn, session: SessionDep, response: Response) -> ProjectOut:
        """Store a new project."""
        project = Project(name=body.name)
        session.add(project)
        await session.commit()
        PROJECTS_CREATED.inc()
        response.headers["location"] = f"/projects/{project.id}"
        return ProjectOut.model_validate(project)

    @app.get("/projects")
    async def list_projects(session: SessionDep, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> list[ProjectOut]:
        """List the newest projects, newest first."""
        newest = select(Project).order_by(Project.created_at.desc(), Project.id).limit(limit)
        return [ProjectOut.model_validate(project) for project in await session.scalars(newest)]

    @app.get("/projects/{project_id}")
    async def get_project(project_id: UUID, session: SessionDep) -> ProjectOut:
        """Show one project."""
        return ProjectOut.model_validate(await _get(session, Project, project_id))

    @app.post("/projects/{project_id}/jobs", status_code=HTTPStatus.ACCEPTED)
    async def submit_job(
        project_id: UUID,
        body: JobIn,
        session: SessionDep,
        backends: BackendsDep,
        request: Request,
        response: Response,
    ) -> JobOut:
        """Have the worker do something for a project."""
        await _get(session, Project, project_id)
        job = Job(project_id=project_id, name=body.name)
        session.add(job)
        await session.commit()
        try:
            await backends.queue.enqueue_job(
                body.name, **body.args.model_dump(), request_id=request.state.request_id, _job_id=str(job.id)
            )
        except RedisError:
            JOBS_NOT_QUEUED.labels(body.name).inc()
            await session.delete(job)  # nobody would ever take it up
            await session.commit()
            raise
        JOBS_SUBMITTED.labels(body.name).inc()
        response.headers["location"] = f"/jobs/{job.id}"
        return JobOut.model_validate(job)

    @app.get("/jobs/{job_id}")
    async def get_job(job_id: UUID, session: SessionDep) -> JobOut:
        """Show how far a job is, and what came of it."""
        return JobOut.model_validate(await _get(session, Job, job_id))


async def _get(session: AsyncSession, table: type[Row], key: UUID) -> Row:
    row = await session.get(table, key)
    if row is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"no such {table.__name__.lower()}")
    return row


async def _unavailable(_request: Request, error: Exception) -> JSONResponse:
    part = "queue" if isinstance(error, RedisError) else "database"
    log.warning("a part is away", away=part, reason=type(error).__name__)
    return JSONResponse({"detail": f"{part} unavailable"}, HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "5"})


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is connected before its lifespan begins."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        backends = Backends(settings)
        app.state.backends = backends
        tables = asyncio.create_task(backends.create_tables_when_possible())
        log.info("started", version=__version__, environment=settings.environment)
        try:
            yield
        finally:
            tables.cancel()
            await backends.close()
            log.info("stopped")

    app = FastAPI(title="Samokoder reference service", version=__version__, lifespan=lifespan)
    set_build(settings.environment)
    for name in get_args(JobName):
        JOBS_SUBMITTED.labels(name)
        JOBS_NOT_QUEUED.labels(name)
    _add_routes(app, settings)
    for kind in (*DATABASE_AWAY, RedisError):
        app.add_exception_handler(kind, _unavailable)
    Instrumentator(excluded_handlers=[f"^{path}$" for path in sorted(PROBES)]).instrument(app)
    app.add_middleware(RequestLog)
    return app


settings = settings_or_exit()
set_up_logs("api")
app = create_app(settings)
