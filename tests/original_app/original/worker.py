"""The worker: arq's own, without metrics and without a port."""

from __future__ import annotations

from typing import Any, ClassVar

from arq.connections import RedisSettings

from original import settings


async def build(_context: dict[str, Any], name: str, text: str) -> None:
    """Write a project's file, for its owner alone."""
    file = settings.WORKSPACE / "projects" / f"{name}.txt"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)


async def startup(_context: dict[str, Any]) -> None:
    """Prepare the folders."""
    settings.prepare()


class WorkerSettings:
    """What arq reads."""

    functions: ClassVar = [build]
    on_startup = startup
    redis_settings = RedisSettings(host=settings.REDIS_HOST, port=settings.REDIS_PORT)
    health_check_interval = 5
