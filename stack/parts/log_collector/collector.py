"""Read the engine's log files of one environment's containers and send each line to the store.

The engine's own files are the buffer: a position moves when the store has taken the lines, and a file that the engine
removes meanwhile stays open until it is read. A line is lost only where more of removed files is unread than the limit
says, or where the engine removes a file while this program is down.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL, service_of
from stack.parts.log_collector.counts import LogCounts
from stack.parts.log_collector.events import FieldNames, event_of, fields, kinds_of, without_bot_token
from stack.parts.log_collector.log_files import READ_BYTES, LogSource, Place

LINE_CHARACTERS = 100_000
"""A longer line is cut. With every character escaped in JSON it stays below the store's limit of a line, 1 MiB."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_BATCH_BYTES = 2 * 1024 * 1024
_PIECE_SECONDS = 3.0
_LONGEST_WAIT_SECONDS = 15.0
_LOOK_SECONDS = 1.0
_NEW_SECONDS = 600
"""The time that the alerts on lines look back."""


class RefusedError(Exception):
    """The store will never take this batch."""


Send = Callable[[bytes], None]
"""Give the store some lines of JSON. Raises OSError while it is away, RefusedError for lines that it never takes."""


class Collector:
    """Reads, sends, and keeps the positions. `turn` is called for ever; `stopping` ends one that waits for the store.

    buffer_bytes: how much of files that the engine has removed may be unread.
    """

    def __init__(self, *, folder: Path, positions: Path, environment: str, send: Send, buffer_bytes: int) -> None:
        self.counts, self.stopping = LogCounts(), threading.Event()
        self._folder, self._kept, self._environment = folder, positions, environment
        self._send, self._buffer_bytes = send, buffer_bytes
        self._sender = futures.ThreadPoolExecutor(1)
        self._sources: dict[str, LogSource] = {}
        self._others: set[str] = set()
        self._names = FieldNames()
        self._positions = _read_positions(positions)
        self._failing = self._keeps_failing = False
        self._new_after, self._starting = time.time() - _NEW_SECONDS, True

    def turn(self) -> bool:
        """Read what is new and send it. Return whether there is more at once."""
        begun = self.counts.alive = time.monotonic()
        self._look()
        rows, size, more = list[bytes](), 0, False
        # The first one is the last one the next time: a container that writes without end holds no other one back.
        for name in [*self._sources][1:] + [*self._sources][:1]:
            source = self._sources[name] = self._sources.pop(name)
            if size < _BATCH_BYTES:
                read, unread = self._read(source)
                source.history &= unread
                rows += read
                size += sum(map(len, read))
                more = more or unread
            else:
                more = True
        if rows and not self._deliver(b"".join(rows)):
            return False
        if not more:
            self.counts.caught_up, self.counts.first_read = begun, False
        self._keep()
        return more

    def _look(self) -> None:
        """Find new containers and files, and forget what is gone and read."""
        with os.scandir(self._folder) as entries:
            there = {entry.name for entry in entries}
        self._others &= there
        for name in there - self._others - self._sources.keys():
            self._meet(name)
        self._starting = False
        for source in self._sources.values():
            self.counts.values["gaps"] += source.open()
        self._hold()
        for name, source in [*self._sources.items()]:
            if name not in there and not source.files and not source.pieces:
                del self._sources[name]

    def _meet(self, name: str) -> None:
        """Read whose a container is. The engine writes this file before the container starts, and labels stay."""
        try:
            labels = json.loads((self._folder / name / "config.v2.json").read_bytes())["Config"]["Labels"] or {}
            part, environment = labels.get(PART_LABEL), labels.get(ENVIRONMENT_LABEL)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        if environment != self._environment or not isinstance(part, str):
            self._others.add(name)
            return
        source = LogSource(name, self._folder / name, *service_of(part))
        self.counts.known(source.part)
        source.open()
        place = self._positions.get(name)
        resumed = bool(place and source.resume(place))
        self.counts.values["gaps"] += bool(place and not resumed)
        source.history = not resumed and self._starting
        self._sources[name] = source

    def _hold(self) -> None:
        """Give up the oldest of the removed files that are unread, where there is too much of them."""
        held = [(file, source) for source in self._sources.values() for file in source.unread if file.removed()]
        left = sum(file.unread() for file, _ in held)
        for file, source in sorted(held, key=lambda item: os.fstat(item[0].descriptor).st_mtime):
            if left <= self._buffer_bytes:
                break
            left -= file.unread()
            self.counts.dropped["buffer"] += file.unread_lines()
            file.done = True
            source.pieces.clear()
        self.counts.held_bytes = left

    def _read(self, source: LogSource) -> tuple[list[bytes], bool]:
        """Return the next lines of a container as JSON for the store, and whether there are more."""
        rows, now = list[bytes](), time.monotonic()
        for file in source.unread:
            # Asked before the last look at its end: nobody writes to a file that has a newer one, or that is removed.
            over = file is not source.files[-1] or file.removed()
            data = file.read()
            if file.emptied:
                self.counts.values["gaps"] += 1
                _say(f"somebody has emptied the log file of {source.part}: what was written just before may be lost")
                file.emptied = False
            lines = data.split(b"\n")[:-1]
            if not lines and len(data) == READ_BYTES:
                # The engine cuts lines to 16 KiB, so this is no line of it.
                self.counts.dropped["unreadable"] += 1
                file.offset += len(data)
                return rows, True
            for line in lines:
                source.note(file)
                file.offset += len(line) + 1
                rows += self._row(source, line)
            if lines:
                source.note(file)
                source.quiet_since = now
                return rows, file.unread() > 0 or len(source.unread) > 1
            if not over:
                break
            self.counts.dropped["unreadable"] += bool(data)
            file.done = True
        if source.pieces and (not source.unread or now - source.quiet_since > _PIECE_SECONDS):
            rows += [self._finished(source, stream) for stream in [*source.pieces]]
            for file in source.unread[:1]:
                source.note(file)
        return rows, False

    def _row(self, source: LogSource, line: bytes) -> list[bytes]:
        """Return the JSON of a line of the engine's file: none where it is not one, or a piece of an unfinished one."""
        try:
            # A power cut leaves zeros.
            found = json.loads(line.strip(b"\0"))
            text, stream, moment = str(found["log"]), str(found["stream"]), str(found["time"])
        except (ValueError, KeyError, TypeError, RecursionError):
            moment = ""
        # The store answers 200 all the same, and leaves out a line whose moment it cannot read.
        if not _MOMENT.fullmatch(moment):
            self.counts.dropped["unreadable"] += 1
            return []
        begun, before, length = source.pieces.get(stream, (moment, "", 0))
        # The engine keeps a long line as pieces of 16 KiB, of which only the last one has an end.
        source.pieces[stream] = (begun, before + text[: LINE_CHARACTERS - len(before)], length + len(text))
        return [self._finished(source, stream)] if text.endswith("\n") else []

    def _finished(self, source: LogSource, stream: str) -> bytes:
        moment, text, length = source.pieces.pop(stream)
        text = without_bot_token(text.rstrip("\r\n"))
        event = event_of(text)
        row, others = self._names.admit(source.part, fields(event) if event else ())
        if others:
            if not self.counts.values["left_out_fields"]:
                _say(f"{source.part} has too many names of fields: new ones are in the text of its lines alone")
            self.counts.values["left_out_fields"] += others
        if length > LINE_CHARACTERS:
            self.counts.values["cut_lines"] += 1
            row["cut"] = str(length)
        # Without a text the store would write one of its own.
        row |= {"_time": moment, "_msg": text or " ", "environment": self._environment, "part": source.part}
        row |= {"replica": source.replica} if source.replica else {}
        row |= {"stream": stream, "container": source.container[:12]}
        self.counts.lines[source.part] += 1
        for kind in kinds_of(source.part, text, event):
            # An alert says "within ten minutes", and files have lines of months.
            if not source.history or _seconds(moment) > self._new_after:
                self.counts.matches[source.part, kind] += 1
        # Half of a pair of surrogates has no place in UTF-8.
        return json.dumps(row, ensure_ascii=False).encode(errors="replace") + b"\n"

    def _deliver(self, rows: bytes) -> bool:
        """Send a batch until the store has it. Return False where this program is to end before."""
        wait = 1.0
        while not self.stopping.is_set():
            self.counts.alive = time.monotonic()
            try:
                self._try(rows)
            except RefusedError as error:
                self.counts.dropped["refused"] += rows.count(b"\n")
                _say(f"the store refuses {len(rows)} bytes: {error}")
                return True
            except (OSError, http.client.HTTPException) as error:
                self.counts.values["store_errors"] += 1
                if not self._failing:
                    _say(f"the store takes no lines, they wait: {error!r}")
                self._failing = True
                left = wait
                while left > 0 and not self.stopping.wait(min(left, _LOOK_SECONDS)):
                    left -= _LOOK_SECONDS
                    self._look()
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            else:
                if self._failing:
                    _say("the store takes lines again")
                self._failing = False
                return True
        return False

    def _try(self, rows: bytes) -> None:
        """Send a batch, and go on looking meanwhile: files that the engine removes have to be open before."""
        answer = self._sender.submit(self._send, rows)
        while not futures.wait([answer], timeout=_LOOK_SECONDS).done:
            self._look()
        answer.result()

    def _keep(self) -> None:
        """Write down up to where the store has everything."""
        there = {entry.name for entry in os.scandir(self._folder)}
        places = {name: place for name, place in self._positions.items() if name in there}
        places |= {name: source.safe for name, source in self._sources.items() if name in there and source.safe}
        if places == self._positions:
            return
        unfinished = self._kept.with_suffix(".unfinished")
        try:
            with unfinished.open("w") as kept:
                json.dump({name: asdict(place) for name, place in places.items()}, kept)
                kept.flush()
                os.fsync(kept.fileno())
            unfinished.replace(self._kept)
        except OSError as error:
            # On a full disk: ended by it, this program would send the same lines again at each of its starts.
            if not self._keeps_failing:
                _say(f"positions are not written, so a restart sends lines twice: {error!r}")
            self._keeps_failing = True
            return
        self._keeps_failing = False
        self._positions = places


def _read_positions(path: Path) -> dict[str, Place]:
    try:
        return {name: Place(**place) for name, place in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _say(f"positions cannot be read, so lines that the store has are sent again: {error!r}")
        return {}


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):  # the store takes no such line
        return 0.0


def _say(text: str) -> None:
    print(text, flush=True)
