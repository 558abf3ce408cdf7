"""The two tables, and how to reach them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import DateTime, ForeignKey, String, Text, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from samokoder.settings import Settings

# Any fixed number will do; it is the same in every replica.
_SCHEMA_LOCK: Final = 5_160_274_913
CONNECT_SECONDS: Final = 5
COMMAND_SECONDS: Final = 30

#: What says that the database is away, not that we asked it something wrong. A refused connection is an
#: OSError: SQLAlchemy does not wrap what asyncpg raises before there is a connection.
DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeoutError, OSError)


class State(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Base(DeclarativeBase):
    """Parent of the tables."""


class Project(Base):
    """What a user wants written."""

    __tablename__ = "projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(100))
    skeleton: Mapped[str | None] = mapped_column(Text, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)


class Job(Base):
    """One piece of work for the worker; its id is the id in the queue too."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(50))
    state: Mapped[str] = mapped_column(String(10), default=State.QUEUED)
    result: Mapped[str | None] = mapped_column(Text, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)


def make_engine(settings: Settings, part: str) -> AsyncEngine:
    """Make the connection pool: at most 10 connections, seen in PostgreSQL as `samokoder-<part>`."""
    return create_async_engine(
        settings.samokoder_database_url.get_secret_value(),
        pool_size=5,
        max_overflow=5,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": COMMAND_SECONDS,
            "server_settings": {"application_name": f"samokoder-{part}"},
        },
    )


async def create_tables(engine: AsyncEngine) -> None:
    """Create what is missing, under a lock: replicas that start together would both find it missing."""
    async with engine.begin() as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        await connection.run_sync(Base.metadata.create_all)
