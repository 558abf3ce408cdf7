"""The tables, how to reach them, and how long each statement takes."""

import time
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy import JSON, DateTime, ForeignKey, Index, LargeBinary, String, Text, event, exc, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from samokoder.metrics import DB_ERRORS, DB_OPERATIONS, DB_SECONDS
from samokoder.settings import Settings

#: The newest step in `migrations`. Their numbers are compared as texts.
REVISION: Final = "0003"
CONNECT_SECONDS: Final = 15
#: For one of the pool's connections while all are in use: that is load, and no database that is away.
POOL_SECONDS: Final = 20
COMMAND_SECONDS: Final = 30

#: What says that the database is away, not that we asked it something wrong. A refused connection is an
#: OSError: SQLAlchemy does not wrap what asyncpg raises before there is a connection.
DATABASE_AWAY: Final = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, OSError)
# SQLSTATE classes of the same: connection lost, no connection left, shutting down or starting. SQLAlchemy has them as
# bare DBAPIError, as it has what asyncpg does not sort.
_AWAY_CLASSES: Final = ("08", "53", "57")
#: Execution options of a statement that only asks whether the database answers: it would make the others look fast.
PROBE: Final = {"probe": True}


class State(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobName(StrEnum):
    """What the worker can do."""

    WRITE_SKELETON = "write_skeleton"
    GENERATE_CODE = "generate_code"


class Base(DeclarativeBase):
    """Parent of the tables."""


class User(Base):
    """Who may log in."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Project(Base):
    """What a user wants written."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(100))
    skeleton: Mapped[str | None] = mapped_column(Text, default=None)
    sealed_notes: Mapped[bytes | None] = mapped_column(LargeBinary, default=None)
    #: Whose account it goes with; null where nobody was logged in.
    owner_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)

    __table_args__ = (Index("ix_projects_owner_id", "owner_id", postgresql_where=sa.text("owner_id IS NOT NULL")),)


#: Of a job that is not over. As a text, since PostgreSQL takes the index only where it sees the same condition.
OPEN: Final = sa.text("state IN ('queued', 'running')")


class Job(Base):
    """One piece of work for the worker; its id is the id in the queue too."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(50))
    #: What the queue's entry holds, which may be lost.
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON, server_default="{}")
    state: Mapped[str] = mapped_column(String(10), default=State.QUEUED)
    result: Mapped[str | None] = mapped_column(Text, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    #: Of the last try; null before the first, and where a version without this column ran it.
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)

    __table_args__ = (
        Index("ix_jobs_open", "created_at", "id", postgresql_where=OPEN),
        Index("ix_jobs_finished_at", "finished_at", postgresql_where=sa.text("finished_at IS NOT NULL")),
    )


class _CountedPool(sa.AsyncAdaptedQueuePool):
    """Counts the connections that could not be opened: what fails before there is one is no event of the engine."""

    def connect(self) -> sa.PoolProxiedConnection:
        try:
            return super().connect()
        except (exc.TimeoutError, OSError) as error:
            DB_ERRORS.labels(type(error).__name__).inc()
            raise


def make_engine(settings: Settings, part: str, *, command_seconds: float | None = COMMAND_SECONDS) -> AsyncEngine:
    """Make the connection pool: at most 10 connections, seen in PostgreSQL as `samokoder-<part>`.

    command_seconds: how long a statement may take; None: any time.
    """
    engine = create_async_engine(
        settings.samokoder_database_url.get_secret_value(),
        poolclass=_CountedPool,
        pool_size=5,
        max_overflow=5,
        pool_timeout=POOL_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text goes to the log, and a parameter may be a password's hash
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": command_seconds,
            "server_settings": {"application_name": f"samokoder-{part}"},
        },
    )
    _measure(engine.sync_engine)
    return engine


def sqlstate(error: BaseException) -> str:
    """Return PostgreSQL's code of an error of SQLAlchemy, empty where it has none."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _measure(engine: sa.Engine) -> None:
    def observe(connection: sa.Connection | None, statement: str | None) -> None:
        if connection is not None and (began := connection.info.pop("began", None)) is not None:
            first = (statement or "").partition(" ")[0].lower()
            DB_SECONDS.labels(first if first in DB_OPERATIONS else "other").observe(time.perf_counter() - began)

    @event.listens_for(engine, "before_cursor_execute")
    def begin(connection: sa.Connection, _c: Any, _s: Any, _p: Any, context: sa.ExecutionContext, _many: bool) -> None:
        if not context.execution_options.get("probe"):
            connection.info["began"] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def end(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        observe(connection, statement)

    @event.listens_for(engine, "handle_error", retval=True)
    def fail(context: sa.ExceptionContext) -> Exception | None:
        """Count the error; return what is raised in its place, if anything is."""
        away, error = None, context.sqlalchemy_exception or context.original_exception
        if isinstance(error, exc.DBAPIError) and sqlstate(error).startswith(_AWAY_CLASSES):
            error = away = exc.OperationalError(error.statement, None, context.original_exception)
        if isinstance(error, Exception):  # a cancelled request is no error of the database
            DB_ERRORS.labels(type(error).__name__).inc()
            observe(context.connection, context.statement)
        return away


class NotMigratedError(Exception):
    """The database's schema is older than this version's."""


async def require_schema(connection: AsyncConnection) -> None:
    """Raise NotMigratedError unless the schema is this version's or a newer one's, which works for it too."""
    # Asked for before it is read: a table that is not there would count as an error of the database.
    if await connection.scalar(select(func.to_regclass("alembic_version").is_not(None)), execution_options=PROBE):
        found = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"), execution_options=PROBE)
        if found is not None and found >= REVISION:
            return
    raise NotMigratedError("not migrated yet")
