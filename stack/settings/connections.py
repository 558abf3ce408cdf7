"""How many connections all clients may open to the local PostgreSQL at once, and whether `maxConnections` allows it."""

from __future__ import annotations

from collections.abc import Iterator

from stack.common.mistakes import Mistake
from stack.settings.app import ApiSettings, WorkerSettings
from stack.settings.environment import Environment

REFERENCE_POOL = 10
"""Connections that a process of the reference application opens at most (`reference_app/samokoder/db.py`)."""
SQLALCHEMY_POOL = 15
"""SQLAlchemy's default pool: 5 connections, and 10 more under load."""
SUPERUSER_RESERVED = 3
"""PostgreSQL's default of `superuser_reserved_connections`, which postgresql.conf does not set."""
_OTHERS = {"migrations": 1, "postgres_roles": 1, "postgres_exporter": 3, "backup": 5}
"""Field of the settings -> connections at most. WAL streaming does not count: it uses `max_wal_senders`."""
_PEOPLE = 3
"""Connections for `make psql`, `make smoke`, and a restart during which old and new connections overlap."""
_KEY = "samokoder:postgres.maxConnections"


def of_part(part: ApiSettings | WorkerSettings) -> int:
    """Return the most connections that one container of the API or the worker opens."""
    return part.database_connections or (SQLALCHEMY_POOL if part.image else REFERENCE_POOL)


def _sums(environment: Environment) -> dict[str, int]:
    """Return client, with its number as a text -> most connections at once; empty without a local PostgreSQL."""
    running, settings = environment.running(), environment.settings
    if "postgres" not in running:
        return {}
    each, replicas = of_part(settings.api), settings.api.replicas
    sums = {f"api {replicas} x {each}": replicas * each, f"worker {of_part(settings.worker)}": of_part(settings.worker)}
    sums |= {f"{name.replace('_', '-')} {count}": count for name, count in _OTHERS.items() if name in running}
    return sums | {f"people {_PEOPLE}": _PEOPLE, f"reserved for the superuser {SUPERUSER_RESERVED}": SUPERUSER_RESERVED}


def _supposed(environment: Environment) -> bool:
    """Whether the size of an image's pool is only a guess, on which a configuration must not be refused."""
    parts = (environment.settings.api, environment.settings.worker)
    return any(part.image and not part.database_connections for part in parts)


def rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake if clients may open more connections than the local PostgreSQL allows."""
    sums, allowed = _sums(environment), environment.settings.postgres.max_connections
    if (needed := sum(sums.values())) > allowed and not _supposed(environment):
        yield Mistake(
            _KEY,
            str(allowed),
            f"at least {needed}, all that may connect at once: {' + '.join(sums)}. With it "
            "samokoder:postgres.memoryMib: some 5 to 10 MiB for each. Or fewer replicas, or a smaller pool in the "
            "image, told by "
            "samokoder:api.databaseConnections and samokoder:worker.databaseConnections",
            f"{_KEY}: {-(-needed // 10) * 10}",
        )


def warnings(environment: Environment) -> Iterator[str]:
    """Yield a warning if an image whose pool is not configured may open more connections than PostgreSQL allows."""
    sums, allowed = _sums(environment), environment.settings.postgres.max_connections
    if (needed := sum(sums.values())) > allowed and _supposed(environment):
        yield (
            f"{_KEY} is {allowed}, and {needed} may connect at once, if the image has SQLAlchemy's usual pool of "
            f"{SQLALCHEMY_POOL}: {' + '.join(sums)}. Say what its pool is by samokoder:api.databaseConnections and "
            "samokoder:worker.databaseConnections, or let more connect."
        )
