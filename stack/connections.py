"""Who may be connected to the local PostgreSQL at once, and whether it takes so many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stack.mistakes import Mistake

if TYPE_CHECKING:
    from stack.settings import Api, Environment, Worker

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


def rules(environment: Environment) -> Iterator[Mistake]:
    """Yield a mistake where more may connect at once than the local PostgreSQL takes."""
    running = environment.running()
    if "postgres" not in running:
        return
    settings = environment.settings
    each, replicas = of_part(settings.api), settings.api.replicas
    sums = {f"api {replicas} x {each}": replicas * each, f"worker {of_part(settings.worker)}": of_part(settings.worker)}
    sums |= {f"{name.replace('_', '-')} {count}": count for name, count in _OTHERS.items() if name in running}
    sums |= {f"people {_PEOPLE}": _PEOPLE, f"reserved for the superuser {SUPERUSER_RESERVED}": SUPERUSER_RESERVED}
    needed, allowed = sum(sums.values()), settings.postgres.max_connections
    if needed > allowed:
        yield Mistake(
            _KEY,
            str(allowed),
            f"at least {needed}, all that may connect at once: {' + '.join(sums)}. With it "
            "samokoder:postgres.memoryMib: some 5 to 10 MiB for each. Or fewer replicas, or a smaller pool in the "
            "image, told by "
            "samokoder:api.databaseConnections and samokoder:worker.databaseConnections",
            f"{_KEY}: {-(-needed // 10) * 10}",
        )
