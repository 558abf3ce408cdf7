"""What the worker looks for each minute: lost jobs and old ones, few at a time, without reading the whole table."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[..., Any]

#: One turn in an hour, which looks at `rows` jobs that were submitted an hour ago or earlier.
ONE_TURN = """\
import arq
import samokoder.worker.main as main
main.SWEEP_SECONDS, main.SWEEP_ROWS = 3600.0, {rows}
arq.run_worker(main.WorkerSettings)
"""
AGAIN = """\
import arq
import samokoder.worker.main as main
main.SWEEP_SECONDS, main.SWEEP_ROWS = 1.0, {rows}
arq.run_worker(main.WorkerSettings)
"""


@pytest.fixture
def project(setup: Setup) -> Iterator[uuid.UUID]:
    """A project for the jobs of one test; no other jobs are there."""
    key = uuid.uuid4()
    setup.postgres.ask(lambda c: c.execute("TRUNCATE jobs"))
    setup.postgres.ask(lambda c: c.execute("INSERT INTO projects (id, name) VALUES ($1, 'swept')", key))
    yield key
    setup.postgres.ask(lambda c: c.execute("DELETE FROM projects WHERE id = $1", key))


def _insert(setup: Setup, project: uuid.UUID, number: int, state: str, *, age: str, finished: str = "") -> None:
    """Insert so many jobs, each a second younger than the one before. age, finished: how long ago, as intervals."""
    finish = f"now() - interval '{finished}'" if finished else "NULL"
    statement = (
        "INSERT INTO jobs (id, project_id, name, arguments, state, created_at, finished_at) "
        f"SELECT gen_random_uuid(), $1, 'write_skeleton', '{{}}', $2, now() - interval '{age}' + n * interval '1 s', "
        f"{finish} FROM generate_series(1, $3::int) n"
    )
    setup.postgres.ask(lambda c: c.execute(statement, project, state, number))


def _states(setup: Setup, project: uuid.UUID) -> dict[str, int]:
    query = "SELECT state, count(*) AS number FROM jobs WHERE project_id = $1 GROUP BY state"
    rows = setup.postgres.ask(lambda c: c.fetch(query, project))
    return {row["state"]: row["number"] for row in rows}


def _worker(setup: Setup, program: str, rows: int, **environment: str) -> Service:
    worker = setup.worker(**environment)
    worker.stop(signal.SIGKILL)
    worker.log.unlink()
    worker.command = [sys.executable, "-c", program.format(rows=rows)]
    worker.start()
    worker.wait_until("/health")
    return worker


def test_a_turn_takes_a_few_lost_jobs_and_the_turns_together_take_all(
    setup: Setup, project: uuid.UUID, waiting: Waiting
) -> None:
    _insert(setup, project, 8, "queued", age="2 hours")
    one = _worker(setup, ONE_TURN, rows=3)
    waiting("the jobs of one turn", lambda: one.said().count('"job done"') == 3, one.said)
    one.stop()
    assert one.said().count('"lost job queued again"') == 3, "after a loss of Redis' data all would come at once"
    assert _states(setup, project) == {"done": 3, "queued": 5}
    more = _worker(setup, AGAIN, rows=3)
    waiting("all jobs", lambda: _states(setup, project) == {"done": 8}, more.said)
    assert more.said().count('"lost job queued again"') == 5, "each once"


def test_jobs_that_wait_in_the_queue_do_not_hide_a_lost_one_behind_them(
    setup: Setup, project: uuid.UUID, waiting: Waiting
) -> None:
    _insert(setup, project, 7, "queued", age="2 hours")
    ids = setup.postgres.ask(lambda c: c.fetch("SELECT id::text FROM jobs WHERE project_id = $1", project))
    # Entries of the future: no worker takes them, as those that wait for a busy LLM.
    words = [word for row in ids for word in ("99999999999999", row["id"])]
    assert setup.redis.cli("ZADD", "arq:queue", *words) == "7"
    try:
        _insert(setup, project, 1, "queued", age="1 hour")
        worker = _worker(setup, AGAIN, rows=3)
        waiting("the lost job", lambda: _states(setup, project) == {"done": 1, "queued": 7}, worker.said)
    finally:
        setup.redis.cli("ZREM", "arq:queue", *(row["id"] for row in ids))


@pytest.mark.parametrize(("days", "left"), [("30", 2), ("0", 5)])
def test_jobs_that_are_over_for_longer_than_the_setting_are_removed_and_no_others(
    setup: Setup, project: uuid.UUID, waiting: Waiting, days: str, left: int
) -> None:
    for state in ("done", "failed"):
        _insert(setup, project, 1, state, age="90 days", finished="29 days")
    _insert(setup, project, 3, "done", age="40 days", finished="31 days")
    worker = _worker(setup, AGAIN, rows=2, JOB_RETENTION_DAYS=days)
    _insert(setup, project, 1, "queued", age="40 days")  # a lost one, by which the turns are seen
    waiting("a turn", lambda: '"job done"' in worker.said(), worker.said)
    waiting("the old ones' end", lambda: sum(_states(setup, project).values()) == left + 1, worker.said)
    worker.stop()
    removed = [line for line in worker.said().splitlines() if "old jobs removed" in line]
    assert len(removed) == (2 if days != "0" else 0), "two at a time here, so that no turn holds up the others"
    assert _states(setup, project)["failed"] == 1


def test_a_turn_reads_the_indexes_and_not_the_table(setup: Setup, project: uuid.UUID, waiting: Waiting) -> None:
    _insert(setup, project, 30_000, "done", age="10 days", finished="1 day")
    _insert(setup, project, 1, "queued", age="2 hours")

    async def analyse(connection: asyncpg.Connection) -> None:
        await connection.execute("VACUUM ANALYZE jobs")

    setup.postgres.ask(analyse)
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'"
    used = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = $1"
    indexes = ("ix_jobs_open", "ix_jobs_finished_at")

    def number(query: str, *of: str) -> int:
        counted: int = setup.postgres.ask(lambda c: c.fetchval(query, *of))
        return counted

    whole, before = number(scans), {name: number(used, name) for name in indexes}
    worker = _worker(setup, ONE_TURN, rows=1000)
    waiting("the turn", lambda: '"job done"' in worker.said(), worker.said)
    worker.stop()  # a connection that ends tells its numbers
    waiting("use of the indexes", lambda: all(number(used, name) > before[name] for name in indexes))
    assert number(scans) == whole, "each minute of each worker, over all jobs ever"
