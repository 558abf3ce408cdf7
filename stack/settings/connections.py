"""Who may be connected to the local PostgreSQL at once, and whether it takes so many."""

from __future__ import annotations

from collections.abc import Iterator

from stack.common.mistakes import Mistake
from stack.settings.app import Api, Worker
from stack.settings.environment import Environment

REFERENCE_POOL = 10
"""What a process of the reference application opens at most (`reference_app/samokoder/db.py`)."""
SQLALCHEMY_POOL = 15
"""SQLAlchemy's default: 5, and 10 more under load."""
SUPERUSER_RESERVED = 3
"""PostgreSQL's default of `superuser_reserved_connections`, which is not set."""
_OTHERS = {"migrations": 1, "postgres_roles": 1, "postgres_exporter": 3, "backup": 5}
"""Field of the settings -> connections at most. The stream of the write-ahead log has places of its own."""
_PEOPLE = 3
"""`make psql`, `make smoke`, a restart that overlaps."""
_KEY = "samokoder:postgres.maxConnections"


def of_part(part: Api | Worker) -> int:
    """Return how many connections one container of the API or the worker opens at most."""
    return part.database_connections or (SQLALCHEMY_POOL if part.image else REFERENCE_POOL)


def _sums(environment: Environment) -> dict[str, int]:
    """Return who may connect -> how many connections at once; empty where there is no local PostgreSQL."""
    running, settings = environment.running(), environment.settings
    if "postgres" not in running:
        return {}
    each, replicas = of_part(settings.api), settings.api.replicas
    sums = {f"api {replicas} x {each}": replicas * each, f"worker {of_part(settings.worker)}": of_part(settings.worker)}
    sums |= {f"{name.replace('_', '-')} {count}": count for name, count in _OTHERS.items() if name in running}
    return sums | {f"people {_PEOPLE}": _PEOPLE, f"reserved for the superuser {SUPERUSER_RESERVED}": SUPERUSER_RESERVED}


def _supposed(environment: Environment) -> bool:
    """Whether the pool of an image is supposed, and not told: no reason to refuse what may run well."""
    parts = (environment.settings.api, environment.settings.worker)
    return any(part.image and not part.database_connections for part in parts)


def rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake where more may connect at once than the local PostgreSQL takes."""
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
    """Yield what a person must know where an image, whose pool is not told, may open more than PostgreSQL takes."""
    sums, allowed = _sums(environment), environment.settings.postgres.max_connections
    if (needed := sum(sums.values())) > allowed and _supposed(environment):
        yield (
            f"{_KEY} is {allowed}, and {needed} may connect at once, if the image has SQLAlchemy's usual pool of "
            f"{SQLALCHEMY_POOL}: {' + '.join(sums)}. Say what its pool is by samokoder:api.databaseConnections and "
            "samokoder:worker.databaseConnections, or let more connect."
        )
