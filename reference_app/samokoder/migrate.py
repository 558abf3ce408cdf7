"""Bring the database's schema to this version's: `python -m samokoder.migrate`; exit status 0 once it is, or is newer.

A newer one is good too, since every step keeps the version before it working: an older image after a rollback.
"""

import asyncio
import sys
import time
from typing import Final

import sqlalchemy as sa
import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from samokoder.db import DATABASE_AWAY, make_engine, sqlstate
from samokoder.logs import set_up_logs
from samokoder.settings import settings_or_exit

#: How long the database may be away, or others hold a lock; then whoever started this may do so again.
PATIENCE_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 1.0
# All who ask for a table after us would wait behind us for its lock, readers too.
_LOCK_TIMEOUT: Final = "2s"
_LOCK_NOT_AVAILABLE: Final = "55P03"
# Any fixed number will do; the versions that made the tables at their start took the same.
_SCHEMA_LOCK: Final = 5_160_274_913

log = structlog.stdlib.get_logger(__name__)


def _upgrade(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "samokoder:migrations")
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    revision = script.get_current_head()
    before = MigrationContext.configure(connection).get_current_revision()
    if before and before not in {step.revision for step in script.walk_revisions()}:
        log.info("database is newer", revision=before)
        return
    log.info("migrating the database", before=before, revision=revision)
    command.upgrade(config, "head")
    log.info("database is migrated", revision=revision)


async def _migrate(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(sa.select(sa.func.set_config("lock_timeout", _LOCK_TIMEOUT, True)))
        # Those that start together take turns.
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        await connection.run_sync(_upgrade)


async def _main() -> int:
    engine, end = make_engine(settings_or_exit(), "migrate", command_seconds=None), time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            await _migrate(engine)
        except Exception as error:  # whatever a step does wrong, this ends with one line
            may_pass = isinstance(error, DATABASE_AWAY) or sqlstate(error) == _LOCK_NOT_AVAILABLE
            told = {"reason": type(error).__name__, "message": str(getattr(error, "orig", error))}
            if not may_pass or time.monotonic() > end:
                log.error("migration failed, nothing was changed", **told)  # noqa: TRY400 - a trace adds nothing
                return 1
            log.warning("migration waits for the database", **told)
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return 0
        finally:
            await engine.dispose()


if __name__ == "__main__":
    set_up_logs("migrate")
    sys.exit(asyncio.run(_main()))
