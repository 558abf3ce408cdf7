"""Read from the log of Redis' last start whether Redis read all of its append-only file."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

from operations.engine import containers
from operations.errors import FailedError, ProjectError, UnavailableError
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis

_STARTS = "Redis is starting"
_READY = "Ready to accept connections"
_LONGEST_START = timedelta(minutes=10)
_WRONG = {
    "error to its AOF-loading-client": "it refused commands of the file, and what they wrote is missing",
    "incomplete MULTI/EXEC": "the file ended within a transaction, which was taken back",
    "short read while loading": "the file ended within a command, and that end was cut off",
}
"""Part of a line in Redis' log -> what it means."""


def read(workspace: Workspace, *, counted: str = "nothing is known") -> str:
    """Return that the last start read everything; raises FailedError and UnavailableError as `checks.Check` does.

    counted: what the smoke test found in a managed Redis' own counters.
    """
    environment = workspace.settings()
    if environment.managed_redis:
        raise UnavailableError(f"a managed Redis' log is its provider's; what it counts itself: {counted}")
    with contextlib.closing(workspace.client()) as client:
        try:
            container = containers.find(client, environment, redis.PART)
        except ProjectError as error:
            raise UnavailableError(str(error)) from None
        started = datetime.fromisoformat(container.attrs["State"]["StartedAt"]).astimezone(UTC).replace(tzinfo=None)
        return judge(container.logs(since=started, until=started + _LONGEST_START).decode(errors="replace"))


def judge(log: str) -> str:
    """Return that the start in a log read everything.

    Raises FailedError where a part of the file was not read, and UnavailableError where the log lacks a whole start.
    """
    _, begins, last = log.rpartition(_STARTS)
    start, ends, _ = last.partition(_READY)
    if not (begins and ends):
        raise UnavailableError("the log of its last start is not there, or not yet at its end")
    found = {meaning: start.count(piece) for piece, meaning in _WRONG.items() if piece in start}
    if found:
        told = "; ".join(f"{meaning} ({count} lines)" for meaning, count in found.items())
        raise FailedError(f"when Redis started: {told}. docs/runbooks/RedisFileReadWithErrors.md")
    return "Redis read all of its append-only file when it started last"
