"""Checks of the smoke test as a user: write and read through the public entry, and have the worker do a job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx

from operations.checks.report import Check, Once
from operations.checks.smoke import user_account
from operations.checks.smoke.asked import StackAsked
from operations.checks.smoke.user_account import LateError, Said
from operations.clone import typed
from operations.errors import FailedError, UnavailableError
from stack.parts.ingress import spec as ingress
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.parts.worker import spec as worker

_JOB_SHARE = 0.6
"""Share of a check's time that the job may take; the rest is for removing the account and the project."""

_DONE = 'worker_jobs_total{status="complete"}'
# The second half: the minute also has the jobs of the worker that a deploy has replaced, whose counter began anew.
_DOES_JOBS = f"increase({_DONE}[1m]) > 0 and {_DONE} > 0"
"""Jobs that the worker that runs now has done lately: four scrapes are in the minute, and two are enough."""


def entry_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks of the public entry and of a job."""
    said = Once(lambda: _as_user(asked))
    yield Check(name="public entry: write, read", ask=lambda: said().account())
    yield Check(name="job: queue, worker, database", ask=lambda: _job(asked, said))


def _as_user(asked: StackAsked) -> Said:
    settings = asked.environment.settings
    asked.need(*(part for part in (ingress.PART, postgres.PART, redis.PART) if part in asked.rows))
    if not any(row.ok for part, row in asked.rows.items() if part in asked.environment.parts_of("api")):
        raise UnavailableError("no replica of the API is well")
    public = settings.ingress.url if settings.ingress.domain else asked.url(settings.ingress)
    if settings.api.image:
        public += settings.ingress.strip_prefix
        user_account.need_mark(asked.client, public)
    row = asked.rows.get(worker.PART)
    work = bool(row and row.ok) and not _foreign_worker(asked)
    return user_account.write_and_read(
        asked.client, public, asked.somebody, seconds=_JOB_SHARE * asked.seconds, work=work
    )


def _foreign_worker(asked: StackAsked) -> bool:
    """Whether the worker's image is a team's own and the API's is not: then it is not known which jobs it does."""
    settings = asked.environment.settings
    return bool(settings.worker.image and not settings.api.image)


def _job(asked: StackAsked, said: Callable[[], Said]) -> str:
    asked.need(worker.PART)
    if _foreign_worker(asked):
        raise UnavailableError("not asked: the worker's image is the team's own, and the API's is not")
    try:
        job = said().job
    except UnavailableError as why:
        if str(why).startswith(user_account.LIMITED) and (busy := _busy(asked)):
            raise UnavailableError(busy) from None
        raise
    except Exception:  # the check of the public entry reports this error
        raise UnavailableError("nobody could ask for one: see the public entry") from None
    try:
        return job()
    except LateError as late:
        if busy := _busy(asked):
            raise UnavailableError(f"{late}; {busy}") from None
        raise FailedError(f"{late} ({_worker_log(asked)})") from None
    except FailedError as error:
        raise FailedError(f"{error} ({_worker_log(asked)})") from None


def _worker_log(asked: StackAsked) -> str:
    return typed(asked.environment.name, f"logs PART={worker.PART}")


def _busy(asked: StackAsked) -> str:
    """Say how many jobs wait for a worker that does jobs; empty where at most one waits, or none was done lately."""
    numbers = [0.0, 0.0]
    with contextlib.suppress(FailedError, UnavailableError, httpx.HTTPError):
        for number, expression in enumerate(("worker_queue_depth", _DOES_JOBS)):
            numbers[number] = max((value for _, value in asked.samples(expression)), default=0)
    waiting, done = numbers
    if waiting > 1 and done > 0:
        return f"{waiting:.0f} jobs are in the queue, and the worker has done {done:.0f} in the last minute"
    return ""
