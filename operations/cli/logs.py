"""`samokoder logs`: what the parts of an environment have written, one line for each event.

The engine keeps the last lines of each container. With `--search` VictoriaLogs is asked, which also has older ones and
those of containers that are gone.
"""

from __future__ import annotations

import queue
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from operations.cli import common
from operations.cli.options import EnvironmentName
from operations.engine import log_lines
from operations.engine.log_lines import Line
from operations.errors import ProjectError

if TYPE_CHECKING:
    from docker.models.containers import Container

TAIL = 100
SEARCHED = 1000
"""Lines that a search shows at most, unless --tail says another number."""
_AGO = re.compile(r"(\d+)\s*(s|m|min|h|d)")
_REMOVED = (404, 409)
"""What the engine answers for a container that is gone, and for one that it is removing."""
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


def logs(
    part: Annotated[
        str, typer.Argument(help="Part, as in the table of `status`; `api`: all its replicas. Without one: all parts.")
    ] = "",
    env: EnvironmentName = "staging",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new lines come.")] = False,
    tail: Annotated[
        int | None,
        typer.Option(help=f"So many of the last lines of each part: {TAIL}, and with --since all.", min=0),
    ] = None,
    since: Annotated[str, typer.Option(help="From then on: 10m, 2h, 1d, or '2026-11-23 10:05:00+03'.")] = "",
    search: Annotated[
        str,
        typer.Option(
            help="Search the logs that are collected, also of containers that are gone: words, 'begin*', "
            "'\"a phrase\"', 'level:error'."
        ),
    ] = "",
    searched_part: Annotated[str, typer.Option("--part", help="As PART.")] = "",
    grep: Annotated[str, typer.Option(help="Only lines in which this regular expression is found.")] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, one object a line: part, at, event or text; nothing is cut.")
    ] = False,
) -> None:
    """Show the logs, one line for each event, in the order of time; times are UTC. A terminal cuts long lines."""
    from operations.workspace import known  # noqa: PLC0415 - the SDK takes its time

    wanted = _pattern(grep)
    begin = since_when(since)
    part = part or searched_part
    if search:
        if follow:
            raise typer.BadParameter("does not go with --search", param_hint="--follow")
        limit = SEARCHED if tail is None else tail
        _searched(env, search, part=part, since=begin, limit=limit, wanted=wanted, as_json=as_json)
        return
    if tail is None and not since:
        tail = TAIL
    workspace = common.workspace_of(env)
    environment = known.of(workspace)
    client = environment.client()
    try:
        found = known.containers_of(client, environment, part)
        show = _writer(found, as_json=as_json)
        # With --grep, `in_order` counts matching lines, and these may be before the log's last lines.
        last = None if grep and not follow else tail
        read = {
            name: _lines(name, container, follow=follow, tail=last, since=begin) for name, container in found.items()
        }
        chosen = {name: (line for line in lines if wanted(line)) for name, lines in read.items()}
        if follow:
            for line in together(chosen):
                show(line)
        else:
            for line in in_order(chosen, tail):
                show(line)
    finally:
        client.close()


def _searched(
    env: str,
    words: str,
    *,
    part: str,
    since: float | None,
    limit: int,
    wanted: Callable[[Line], bool],
    as_json: bool,
) -> None:
    """Show what VictoriaLogs finds. limit: so many lines at most, the newest."""
    from operations.engine import log_search, reach  # noqa: PLC0415 - they take their time
    from stack.spec.rotation import label  # noqa: PLC0415 - the same
    from stack.spec.secrets import LOGS_WEB  # noqa: PLC0415 - the same

    workspace = common.workspace_of(env)
    environment = workspace.settings()
    if why := log_search.off(environment):
        raise ProjectError(why)

    def password() -> str:
        return workspace.open_made().secrets()[label(LOGS_WEB)]

    with reach.opened(environment) as url:
        address = url(environment.settings.logs)
        lines = log_search.search(environment, address, words, part=part, since=since, limit=limit, password=password)
    show = _writer([line.part for line in lines], as_json=as_json)
    for line in filter(wanted, lines):
        show(line)
    if limit and len(lines) == limit:
        told = f"These are the newest {limit} lines, there may be more: --tail {10 * limit}, or a shorter --since"
        common.terminal(stderr=True).print(told, markup=False, soft_wrap=True)


def since_when(text: str, now: datetime | None = None) -> float | None:
    """Return the moment that somebody typed (`2h`, `2026-11-23 10:05:00+03`) in seconds since 1970; None for no text.

    Raises ProjectError that says what to type instead.
    """
    from operations.data.restore.request import moment  # noqa: PLC0415 - the settings take their time

    if not text:
        return None
    if ago := _AGO.fullmatch(text.strip()):
        return ((now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).timestamp()
    try:
        return datetime.fromisoformat(moment(text)).timestamp()
    except ProjectError as error:
        raise ProjectError(f"{str(error).replace('TO=', '')}, or how long ago: 10m, 2h, 1d.") from None


def in_order(logs: Mapping[str, Iterable[Line]], tail: int | None) -> Iterator[Line]:
    """Yield the lines of several logs in the order of time. tail: number of last lines of each log; None: all."""
    kept = (deque(lines, maxlen=tail) for lines in logs.values())
    yield from sorted(chain.from_iterable(kept), key=attrgetter("at"))


def together(logs: Mapping[str, Iterable[Line]]) -> Iterator[Line]:
    """Yield the lines of several logs as they come, until all have ended."""
    came: queue.SimpleQueue[Line | BaseException | None] = queue.SimpleQueue()

    def read(lines: Iterable[Line]) -> None:
        try:
            for line in lines:
                came.put(line)
        except Exception as error:
            came.put(error)
        came.put(None)

    # Daemon threads, so that Ctrl-C ends the command although a followed log never ends.
    for lines in logs.values():
        threading.Thread(target=read, args=(lines,), daemon=True).start()
    left = len(logs)
    while left:
        line = came.get()
        if isinstance(line, BaseException):
            raise line
        if line is None:
            left -= 1
        else:
            yield line


def _pattern(grep: str) -> Callable[[Line], bool]:
    """Return a function that tells whether a line matches, as it was written or as it is shown."""
    try:
        pattern = re.compile(grep)
    except re.error as error:
        raise typer.BadParameter(f"{grep!r} is not a regular expression: {error}", param_hint="--grep") from None
    return lambda line: not grep or bool(pattern.search(line.text) or pattern.search(line.readable()))


def _lines(name: str, container: Container, *, follow: bool, tail: int | None, since: float | None) -> Iterator[Line]:
    from docker.errors import APIError  # noqa: PLC0415 - the SDK takes its time

    last: Literal["all"] | int = "all" if tail is None else tail
    # A generator, so that a log is requested when its first line is needed: one log at a time, unless followed.
    try:
        frames = container.logs(stream=True, timestamps=True, follow=follow, tail=last, since=since)
        yield from log_lines.of_frames(name, frames)
    except APIError as error:
        if error.status_code not in _REMOVED:
            raise
        told = f"{name}: its container was replaced meanwhile, so its log is not whole. The new one's: the same again"
        common.terminal(stderr=True).print(told, markup=False, soft_wrap=True)


def _writer(parts: Iterable[str], *, as_json: bool) -> Callable[[Line], None]:
    """Return a function that writes a line: with its part's name where there are several, cut for a terminal."""
    different = {*parts}
    names = max(map(len, different)) if len(different) > 1 else 0
    from rich.console import Console  # noqa: PLC0415 - it takes its time

    width = Console().width if sys.stdout.isatty() else None

    def show(line: Line) -> None:
        text = line.as_json() if as_json else f"{line.part:{names}} | {line.readable()}" if names else line.readable()
        if width and not as_json:
            text = log_lines.cut(text, width)
        sys.stdout.buffer.write(text.encode(errors="replace") + b"\n")
        sys.stdout.buffer.flush()

    return show
