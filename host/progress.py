"""Says what long steps are doing: one live line each on a terminal, few plain lines elsewhere.

Everything that may take longer than two seconds runs inside `Reporter.task`. Where it is known beforehand what will be
made, `Reporter.plan` tells how far the whole is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

ALIVE_SECONDS = 30.0
"""Seconds without a line after which a plain line says what is being done."""


@dataclass
class Task:
    """One running step. `detail` may be set from the thread that does the work."""

    title: str
    detail: str = ""
    started: float = field(default_factory=time.monotonic)

    def seconds(self) -> int:
        """Whole seconds since the step began."""
        return round(time.monotonic() - self.started)

    def line(self) -> str:
        """What the step is, what it does just now and for how long, in one line."""
        said = f"{self.title}: {self.detail}" if self.detail else self.title
        return f"{said} ({duration(self.seconds())})"


@dataclass
class _Plan:
    """The steps that will run, with the seconds that each takes; and which of them are done."""

    seconds: Mapping[str, float]
    together: float
    """Seconds that all steps take together: less than their sum, because several run at a time."""
    started: float = field(default_factory=time.monotonic)
    done: set[str] = field(default_factory=set)

    def left(self, running: list[Task]) -> float:
        """Return how many seconds are left, by what is done and by how long that took on this machine."""
        whole = sum(self.seconds.values()) or 1.0
        # A step that takes longer than expected counts as 90 % done until it ends.
        parts = {task.title: min(task.seconds(), 0.9 * self.seconds.get(task.title, 0)) for task in running}
        behind = (sum(self.seconds[name] for name in self.done) + sum(parts.values())) / whole
        expected = behind * self.together
        # The pace of this machine is measured only after a tenth of the expected time.
        pace = (time.monotonic() - self.started) / expected if expected >= self.together / 10 else 1.0
        return (1 - behind) * self.together * max(pace, 0.2)

    def line(self, running: list[Task]) -> str:
        """How far the whole is, in one line."""
        if len(self.done) == len(self.seconds):
            return f"{len(self.done)} of {len(self.seconds)}"
        return f"{len(self.done)} of {len(self.seconds)}, {about(self.left(running))} left"


class Reporter:
    """Shows any number of steps that run at the same time; safe to use from several threads."""

    def __init__(self, console: Console | None = None, *, every: float = ALIVE_SECONDS) -> None:
        """`every`: seconds without a line after which a plain one says what is running."""
        self.console = console or Console(stderr=True)
        self._every = every
        self._lock = threading.RLock()
        self._tasks: list[Task] = []
        self._plan: _Plan | None = None
        self._live: Live | None = None
        self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._said = time.monotonic()
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    @contextmanager
    def plan(self, seconds: Mapping[str, float], *, together: float) -> Iterator[None]:
        """Tell how far the whole is while the block runs.

        seconds: title of each `task` that will come -> seconds that it takes on two idle cores. together: seconds that
        all of them take there.
        """
        self._plan = _Plan(seconds, together)
        try:
            yield
        finally:
            self._plan = None

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        """Show `title` with its running time until the block ends, then say how it ended and after how long."""
        task = Task(title)
        self._begin(task)
        try:
            yield task
        except BaseException:
            self._end(task, "stopped after")
            raise
        self._end(task, "done in")

    def _begin(self, task: Task) -> None:
        with self._lock:
            self._tasks.append(task)
            if self.console.is_terminal:
                if self._live is None:
                    self._live = Live(_Screen(self), console=self.console, transient=True, refresh_per_second=4)
                    self._live.start()
                return
            self.say(f"{task.title} ...")
            if len(self._tasks) == 1:
                # A daemon: an interrupted program must not wait for its own progress display.
                threading.Thread(target=self._say_now_and_then, daemon=True).start()

    def _end(self, task: Task, how: str) -> None:
        with self._lock:
            self._tasks.remove(task)
            said = f"{task.title}: {how} {duration(task.seconds())}"
            if self._plan and task.title in self._plan.seconds and how == "done in":
                self._plan.done.add(task.title)
                said = f"{said}; {self._plan.line(self._tasks)}"
            live = self._live
            if not self._tasks and live is not None:
                self._live = None
                live.stop()
            self.say(said)

    def _say_now_and_then(self) -> None:
        while self._tasks:
            time.sleep(min(self._every, 0.25))
            with self._lock:
                if self._tasks and time.monotonic() - self._said >= self._every:
                    told = "; ".join(task.line() for task in self._tasks)
                    self.say(f"{self._plan.line(self._tasks)}: {told}" if self._plan else told)

    def lines(self) -> list[str]:
        """Return what a terminal shows now: how far the whole is, and each running step."""
        tasks = list(self._tasks)
        return [*([self._plan.line(tasks)] if self._plan else []), *(f"  {task.line()}" for task in tasks)]


class _Screen:
    """What a terminal shows of a reporter at any moment."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        lines = self._reporter.lines()
        self._spinner.update(text=Text(lines[0].strip() if lines else "", no_wrap=True, overflow="ellipsis"))
        return Group(self._spinner, *(Text(line, no_wrap=True, overflow="ellipsis") for line in lines[1:]))


def duration(seconds: float) -> str:
    """Return seconds as a person reads them: `45 s`, `3 min 05 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"  # noqa: PLR2004 - of a minute


def about(seconds: float) -> str:
    """Return roughly how long: `about 4 minutes`, `less than a minute`."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes} minute{'s' if minutes > 1 else ''}"
