"""The API's database and queue, and how a route gets at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import structlog
from arq.connections import ArqRedis
from fastapi import Depends, Request
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from samokoder.db import PROBE, create_tables, make_engine
from samokoder.job_queue import make_queue
from samokoder.settings import Settings

log = structlog.stdlib.get_logger(__name__)


class Backends:
    """The database and the queue, for as long as the process lives."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
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
            await connection.execute(select(1), execution_options=PROBE)
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


BackendsDep = Annotated[Backends, Depends(_backends)]


async def _session(backends: BackendsDep) -> AsyncIterator[AsyncSession]:
    async with backends.sessions() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(_session)]
