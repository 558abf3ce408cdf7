"""Says what a long step is doing: live on a terminal, a plain line every few seconds elsewhere.

Everything in `offline` that may take longer than two seconds runs inside `Reporter.task`, so that neither a person nor
a CI log ever looks at a silent minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


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
        """What the step is and what it does just now, in one line."""
        return f"{self.title}: {self.detail}" if self.detail else self.title


class Reporter:
    """Shows any number of steps that run at the same time; safe to use from several threads."""

    def __init__(self, console: Console | None = None, *, every: float = 15.0) -> None:
        """`every`: seconds between two plain lines about the same running step."""
        self.console = console or Console(stderr=True)
        self._every = every
        self._lock = threading.Lock()
        self._live: Progress | None = None
        self._running = 0

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self.console.print(escape(text), soft_wrap=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Task]:
        """Show `title` with its running time until the block ends, then say how it ended and after how long."""
        task = Task(title)
        over = threading.Event()
        live = self.console.is_terminal
        if not live:
            self.say(f"{title} ...")
        beat = threading.Thread(target=self._show_live if live else self._say_now_and_then, args=(task, over))
        beat.daemon = True  # an interrupted program must not wait for its own progress display
        beat.start()
        try:
            yield task
        except BaseException:
            over.set()
            beat.join()
            self.say(f"{title}: stopped after {task.seconds()} s")
            raise
        over.set()
        beat.join()
        self.say(f"{title}: done in {task.seconds()} s")

    def _say_now_and_then(self, task: Task, over: threading.Event) -> None:
        while not over.wait(self._every):
            self.say(f"{task.line()} ({task.seconds()} s)")

    def _show_live(self, task: Task, over: threading.Event) -> None:
        row = self._add_row(task)
        while not over.wait(0.25):
            with self._lock:
                if self._live is not None:
                    self._live.update(row, description=escape(task.line()))
        self._remove_row(row)

    def _add_row(self, task: Task) -> TaskID:
        with self._lock:
            if self._live is None:
                self._live = Progress(
                    SpinnerColumn(),
                    TimeElapsedColumn(),
                    TextColumn("{task.description}"),
                    console=self.console,
                    transient=True,
                )
                self._live.start()
            self._running += 1
            return self._live.add_task(escape(task.line()), total=None)

    def _remove_row(self, row: TaskID) -> None:
        with self._lock:
            if self._live is None:
                return
            self._live.remove_task(row)
            self._running -= 1
            if self._running == 0:
                self._live.stop()
                self._live = None
