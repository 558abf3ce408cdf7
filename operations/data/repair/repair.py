"""`samokoder repair`: what can be repaired, and which module repairs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from operations.data.repair import collations
from operations.data.repair.redis import opened_redis
from operations.data.restore.actions import Up
from operations.errors import ProjectError
from operations.network import engine_rules
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis

WHAT = (redis.PART, collations.WHAT, engine_rules.WHAT)
"""What can be repaired."""


class Repair(Protocol):
    """Something that is wrong, and what is done about it."""

    @property
    def question(self) -> str:
        """What the person is asked."""

    def lines(self) -> Iterator[str]:
        """Say what is wrong and what would be done."""

    def run(self) -> str:
        """Do it, and return what was done. Raises ProjectError."""


@contextmanager
def opened(workspace: Workspace, what: str, *, up: Up) -> Iterator[Repair]:
    """Hold the environment's lock, and yield what is wrong. Nothing is stopped or changed until `run`.

    up: for the restore that repairs Redis. Raises ProjectError where nothing is damaged, and where nothing can be
    done.
    """
    if what not in WHAT:
        raise ProjectError(
            f"Only {', '.join(WHAT)} can be repaired, not {what!r}. PostgreSQL: "
            f"{workspace.typed('restore BACKUP=latest')}"
        )
    ways: Mapping[str, Callable[[Workspace], AbstractContextManager[Repair]]] = {
        redis.PART: partial(opened_redis, up=up),
        collations.WHAT: collations.opened,
        engine_rules.WHAT: engine_rules.opened,
    }
    with ways[what](workspace) as found:
        yield found
