"""Its migrations: one table."""

from __future__ import annotations

import asyncio

import asyncpg

from original import settings


async def main() -> None:
    """Make what is not there."""
    connection = await asyncpg.connect(settings.DATABASE_URL)
    await connection.execute("CREATE TABLE IF NOT EXISTS keys (name text PRIMARY KEY, sealed bytea NOT NULL)")
    await connection.close()


asyncio.run(main())
