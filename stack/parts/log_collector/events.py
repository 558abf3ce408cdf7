"""What a line of a log tells: its fields where it is JSON, and which kind of trouble it is about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

TRACEBACK, PANIC, FATAL, LOGIN = "traceback", "panic", "fatal", "login"
POSTGRES = "postgres"

_BOT_TOKEN = re.compile(r"/bot\d+:[\w-]+")
# A client chooses the names of user and database before the severity, and so may put a severity of its own there: the
# server's own is the last one. A line that it did not begin has no moment.
_POSTGRES = re.compile(r"\d{4}-\d\d-\d\d \S+ [A-Z]+ \[\d+\] (?:\S+@\S+ )?(FATAL|PANIC):  (?!.*\b[A-Z]+\d?:  )(.*)")
# Whatever names somebody who guesses puts before it, also one of several lines.
_REFUSED = re.compile(r"FATAL:  (?:\S+ authentication failed for user|no pg_hba\.conf entry|pg_hba\.conf rejects)")
# What clients are told while PostgreSQL starts and stops is no fault of its own.
_USUAL = re.compile(r"the database system is |terminating .*due to (administrator command|idle-session timeout)")
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_OURS = frozenset(
    ("_time", "_msg", "_stream", "_stream_id", "environment", "part", "replica", "stream", "container", "cut")
)
_FIELDS = 32
_NAMES = 300
"""Names of fields that a part may have: the store holds each in memory, and lines can bring new ones without end."""
_ALWAYS = frozenset(("level", "event", "msg"))
_FIELD_CHARACTERS = 4096
_NESTED = 2


def without_bot_token(text: str) -> str:
    """Return `text` without the token in a URL of Telegram.

    AlertManager before 0.35 logs that URL when it cannot connect (prometheus/alertmanager#5254).
    """
    return _BOT_TOKEN.sub("/bot<telegramBotToken>", text)


def kinds(part: str) -> tuple[str, ...]:
    """Return the kinds of trouble that are looked for in the lines of a part."""
    return (TRACEBACK, PANIC, FATAL, LOGIN) if part == POSTGRES else (TRACEBACK,)


def kinds_of(part: str, text: str, event: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield which kinds of trouble a line tells of. event: the line as JSON."""
    if (event and event.get("exception")) or (event is None and "Traceback (most recent call last)" in text):
        yield TRACEBACK
    if part != POSTGRES:
        return
    if _REFUSED.search(text):
        yield LOGIN
    elif found := _POSTGRES.match(text):
        if found[1] == "PANIC":
            yield PANIC
        elif not _USUAL.match(found[2]):
            yield FATAL


def event_of(text: str) -> Mapping[str, Any] | None:
    """Return a line as JSON; None where it is other text."""
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def fields(event: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield single values of an event, nested ones with dotted names. No application can take a name of ours.

    What is left out, such as a list, is in the text of the line all the same.
    """
    waiting, count = [("", event)], 0
    while waiting:
        before, values = waiting.pop(0)
        for key, value in values.items():
            name = f"{before}{key}"
            if isinstance(value, dict) and before.count(".") < _NESTED:
                waiting.append((f"{name}.", value))
            elif isinstance(value, str | int | float) and _NAME.fullmatch(name) and name not in _OURS:
                count += 1
                yield name, str(value).lower() if isinstance(value, bool) else str(value)[:_FIELD_CHARACTERS]
            if count == _FIELDS:
                return


class FieldNames:
    """The names of fields that the parts have had since this program began."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def admit(self, part: str, found: Iterable[tuple[str, str]]) -> tuple[dict[str, str], int]:
        """Return the fields whose names the part may have, and how many others there are."""
        known, kept, others = self._known.setdefault(part, set()), dict[str, str](), 0
        for name, value in found:
            if name in known or name in _ALWAYS or len(known) < _NAMES:
                known.add(name)
                kept[name] = value
            else:
                others += 1
        return kept, others
