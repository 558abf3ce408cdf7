"""One container of an image, and what has been seen of it so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from docker.models.containers import Container

from stack.common.names import APPLICATION_USER
from stack.parts.api import contract
from stack.spec.files import Template

T = TypeVar("T")
U = TypeVar("U")
OK, NOT_FOUND = 200, 404
_AT_ONCE = 4


def text(content: str | Template, values: Mapping[str, str]) -> str:
    """Return a file's content, with the secrets that it needs."""
    return content if isinstance(content, str) else content.render(*(values[need] for need in content.needs))


def writable(paths: Iterable[str]) -> dict[str, str]:
    """Return folders in memory that the application's user may write to: path -> options of the engine's tmpfs."""
    return contract.in_memory(paths, user=APPLICATION_USER, mib=64)


def at_once(does: Callable[[T], U], each: Iterable[T]) -> list[U]:
    """Call `does` with each, four at a time, because most of the time is spent waiting for the engine."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(does, each))


@dataclass
class Life:
    """One container of the image, and what has been seen of it so far."""

    container: Container
    began: float = field(default_factory=time.monotonic)
    """When it was started, by the monotonic clock."""
    exit_code: int | None = None
    """None: it runs."""
    problem: str = ""
    """Why the engine cannot start it."""
    listens: bool = False
    health: int = 0
    own_check: bool = False
    """Whether the health check that the stack gives it succeeds."""
    own_check_says: str = ""
    ready: int = 0
    """Status of /ready; 404 where the image has none."""
    portless: bool = False
    """Whether arq's own check succeeds in a worker, although nothing listens on its port."""
    seconds: float = 0
    """How long it took until it was up."""
    rests_until: float = 0
    """Moment of the monotonic clock until which nothing is asked of it."""

    def is_up(self, *, port: bool) -> bool:
        """Whether `make up` would count it as healthy and /ready, if it has one, answers 200; or it is `portless`."""
        asked = self.own_check and (not port or (self.health == OK and self.ready in (OK, NOT_FOUND)))
        return self.portless or asked
