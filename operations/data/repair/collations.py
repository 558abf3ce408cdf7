"""Collations of PostgreSQL: the check of `doctor`, and `samokoder repair collations`.

The import and the repair rebuild the same indexes with the same script (`collations.sh`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from operations.data.restore import unfinished
from operations.engine import containers
from operations.engine.commands import execute
from operations.engine.healthy import health
from operations.errors import FailedError, ProjectError, UnavailableError
from operations.workspace import lock
from operations.workspace.psql import psql_command
from operations.workspace.workspace import Workspace
from stack.parts.postgres import spec as postgres
from stack.parts.postgres.collations import OUTDATED

if TYPE_CHECKING:
    from docker.models.containers import Container

WHAT = "collations"
_REPAIR = """\
set -eu
question=$1
ask() { psql -XAtq --set=ON_ERROR_STOP=1 "$@" < /dev/null || exit 1; }
mend_collations
"""
_SHOWN_LINES = 6


def script(rest: str) -> str:
    """Return a script that defines `mend_collations`, followed by `rest`, which calls it."""
    return Path(__file__).with_name("collations.sh").read_text(encoding="utf-8") + rest


def read(workspace: Workspace) -> str:
    """Return that all text is in order; raises FailedError and UnavailableError as `checks.Check` does."""
    environment = workspace.settings()
    if environment.managed_database:
        raise UnavailableError("a managed database's C library is its provider's")
    with contextlib.closing(workspace.client()) as client:
        try:
            server = containers.find(client, environment, postgres.PART)
            words = psql_command(environment, OUTDATED, monitoring=True)
            wrong = _outdated(server, words)
        except ProjectError as error:
            raise UnavailableError(str(error)) from None
    if wrong:
        raise FailedError(
            f"text of {', '.join(wrong)} is in the order of another C library: indexes may not find what is there "
            f"({workspace.typed(f'repair PART={WHAT}')}, docs/runbooks/PostgresCollationOutdated.md)"
        )
    return "the text of every database is in the order of this C library"


@dataclass(frozen=True, kw_only=True)
class OutdatedCollations:
    """The databases whose text is in the order of another C library, and their repair."""

    workspace: Workspace
    server: Container
    databases: tuple[str, ...]
    question: str = "Do it?"

    def lines(self) -> Iterator[str]:
        """Yield what is wrong and what `run` would do, for the person who decides."""
        yield f"In the order of another C library: {', '.join(self.databases)}"
        yield (
            "This is done: their indexes on text are built anew, one after the other, and the versions of now are "
            "noted. Nobody writes to a table while one of its indexes is built"
        )

    def run(self) -> str:
        """Rebuild the indexes; return what was done. Raises ProjectError. After a failure it can be run again."""
        settings = self.workspace.settings().settings.postgres
        variables = {"PGUSER": settings.superuser, "PGOPTIONS": postgres.PINNED_OPTIONS}
        words = ["sh", "-c", script(_REPAIR), "sh", OUTDATED]
        with self.workspace.reporter.task("Build indexes anew"):
            status, said = execute(self.server, words, environment=variables)
        if status:
            last = "\n".join(said.decode(errors="replace").strip().splitlines()[-_SHOWN_LINES:])
            raise ProjectError(
                f"Not all indexes could be built, and no version was noted for that database:\n{last}\n"
                f"Nothing is lost. What to do: docs/runbooks/PostgresCollationOutdated.md, then again "
                f"{self.workspace.typed(f'repair PART={WHAT}')}"
            )
        return f"Indexes were built anew in {', '.join(self.databases)}, and the versions of now are noted."


@contextmanager
def opened(workspace: Workspace) -> Iterator[OutdatedCollations]:
    """Hold the environment's lock, and yield what is wrong. Nothing is changed until `Found.run`.

    Raises ProjectError where nothing is wrong, and where PostgreSQL is unhealthy or does not answer.
    """
    environment = workspace.settings()
    if environment.managed_database:
        raise ProjectError("The database is managed: its collations are repaired where it is managed.")
    with lock.held(workspace, "repair") as locked:
        unfinished.refuse_touched(locked)
        with contextlib.closing(locked.client()) as client:
            server = containers.find(client, environment, postgres.PART)
            if health(server) != "healthy":
                raise ProjectError(f"PostgreSQL is not healthy: {workspace.typed('logs PART=postgres')}")
            databases = _outdated(server, psql_command(environment, OUTDATED, monitoring=True))
            if not databases:
                raise ProjectError(
                    "The text of every database is in the order of this C library: there is nothing to repair."
                )
            yield OutdatedCollations(workspace=locked, server=server, databases=databases)


def _outdated(server: Container, question: list[str]) -> tuple[str, ...]:
    status, said = execute(server, [*question, "--tuples-only", "--no-align"])
    if status:
        raise ProjectError(f"PostgreSQL does not answer: {said.decode(errors='replace').strip()[-300:]}")
    rows = (line.rpartition("|") for line in said.decode().splitlines())
    return tuple(name for name, _, outdated in rows if outdated == "1")
