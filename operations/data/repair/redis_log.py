"""What Redis said when it started last: whether it read all of its append-only file."""

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
"""Piece of a line of Redis' -> what it means."""


def read(workspace: Workspace, *, counted: str = "nothing is known") -> str:
    """Return what there is to say of the last start; raises FailedError and UnavailableError as `checks.Check` does.

    counted: what the smoke test has found that a managed Redis counts.
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
    """Judge the log of a start. Raises FailedError where something of the file is missing, UnavailableError."""
    _, begins, last = log.rpartition(_STARTS)
    start, ends, _ = last.partition(_READY)
    if not (begins and ends):
        raise UnavailableError("the log of its last start is not there, or not yet at its end")
    found = {meaning: start.count(piece) for piece, meaning in _WRONG.items() if piece in start}
    if found:
        told = "; ".join(f"{meaning} ({count} lines)" for meaning, count in found.items())
        raise FailedError(f"when Redis started: {told}. docs/runbooks/RedisFileReadWithErrors.md")
    return "Redis read all of its append-only file when it started last"
