"""One line of a part's log as a person reads it: JSON as words, in one line, with nothing that moves a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from operations.engine.redaction import without_bot_token

_MESSAGE = ("event", "msg", "message")
_NOT_SHOWN = frozenset({"timestamp", "ts", "time", "level", "part", "logger", "stack_info"})
"""Fields that are left out: time, level and part are shown before the message, and few readers need the logger."""
_USUAL = frozenset({"info", "debug", ""})
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|[+-]\d\d:\d\d) ")
_PLAIN = re.compile(r"[^\s\"=]+")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a log."""

    part: str
    at: str
    """When the engine got the line, in UTC with all digits, so that lines sort by it; empty where that is unknown."""
    text: str
    """As the part wrote it."""

    @property
    def event(self) -> dict[str, Any] | None:
        """The line as JSON; None where it is other text, or nested so deeply that Python does not read it."""
        if not self.text.startswith("{"):
            return None
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def as_json(self) -> str:
        """Return it as one JSON object: `part`, `at`, and `event` (the part's own JSON) or `text`. Nothing is cut."""
        head = json.dumps({"part": self.part, "at": self.at})[:-1]
        # The part's own text is used as it is: parsed and serialized again, a number could change.
        return (
            f'{head}, "event": {self.text}}}'
            if self.event is not None
            else f'{head}, "text": {json.dumps(self.text)}}}'
        )

    def readable(self) -> str:
        """Return the moment to the second, in UTC, and the event in words."""
        at = f"{self.at[:10]} {self.at[11:19]}Z " if self.at else ""
        event = self.event
        try:
            said = self._as_text() if event is None else _in_words(event)
        except RecursionError:  # a stranger's request may decide what is in a line, and no line may hide the others
            said = self._as_text()
        return f"{at}{said}"

    def _as_text(self) -> str:
        return _shown(_COLOURS.sub("", self.text).replace("\t", "    "))


def of_frames(part: str, frames: Iterator[bytes]) -> Iterator[Line]:
    """Yield the lines of a log that the engine sends with timestamps, one frame for each piece that it stores.

    The engine stores a long line as several pieces, each with its own timestamp; the line gets that of the first piece.
    """
    stamp, line = b"", b""
    begun = False
    for frame in frames:
        rest = frame
        while rest:
            found = _STAMP.match(rest)
            if found and not begun:
                stamp = found[0]
            rest = rest[found.end() :] if found else rest
            piece, end, rest = rest.partition(b"\n")
            line += piece
            begun = not end
            if end:
                yield _line(part, stamp, line)
                stamp, line = b"", b""
    if begun:
        yield _line(part, stamp, line)


def _line(part: str, stamp: bytes, text: bytes) -> Line:
    said = without_bot_token(text.decode(errors="replace").rstrip("\r"))
    return Line(part=part, at=stamp.decode().strip(), text=said)


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` columns; a shortened text ends with `…`."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(0, width - 1)).rstrip()}…"


def _in_words(event: Mapping[str, Any]) -> str:
    message = next((key for key in _MESSAGE if event.get(key)), "")
    level = str(event.get("level") or "")
    words = [level.upper()] if level.lower() not in _USUAL else []
    words += [_shown(str(event[message]))] if message else []
    words += [f"{_shown(key)}={_value(value)}" for key, value in _flat(event) if key not in {message, *_NOT_SHOWN}]
    return " ".join(words)


def _flat(event: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name (`request.uri`) and value of an event's fields: single values first, then nested ones."""
    inside = []
    for key, value in event.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            inside.append((name, value))
        elif isinstance(value, list) and name == "exception":
            yield name, "; ".join(filter(None, map(_error, value)))
        elif value is not None:
            yield name, value
    for name, value in inside:
        yield from _flat(value, f"{name}.")


def _error(error: Any) -> str:
    """Return an error of structlog's tracebacks in a few words: its kind, its text, and where it was raised."""
    if not isinstance(error, Mapping):
        return str(error)
    frames = error.get("frames")
    last = frames[-1] if isinstance(frames, list) and frames and isinstance(frames[-1], Mapping) else {}
    where = f" ({last.get('filename')}:{last.get('lineno')})" if last else ""
    return f"{error.get('exc_type')}: {error.get('exc_value')}{where}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _shown(text) if _PLAIN.fullmatch(text) else _shown(json.dumps(text, ensure_ascii=False))


def _shown(text: str) -> str:
    """Return the text with every unprintable character escaped, because a log contains what strangers have sent."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
