"""Parse a schedule in the syntax of crontab(5), in UTC: reject invalid ones and compute the longest pause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import pairwise

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY = 24 * 60
# Nine years contain two 29ths of February, so the pause of a schedule that runs only on that day can be measured.
_FIRST, _DAYS = date(2023, 1, 1), 9 * 366


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule. `text` is the same schedule with names in place of numbers for the days of the week.

    Some programs count the days of the week from Sunday, some from Monday, but all read the names alike. Some combine a
    day of the month and a day of the week with "and", some with "or", so a schedule with both is refused.
    """

    text: str
    longest_pause_hours: float


@cache  # every backup rule and panel parses the same few schedules, and each parse walks through nine years of days
def parse(text: str) -> Schedule:
    """Parse `minute hour day month weekday`. Raises ValueError, whose text says what is needed."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"five fields in UTC, minute hour day month weekday; here are {len(fields)}")
    fields[4] = ",".join(str(WEEKDAYS.index(day)) if day in WEEKDAYS else day for day in fields[4].lower().split(","))
    values = [frozenset(_numbers(field, *known)) for field, known in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    if "*" not in (fields[2], fields[4]):
        raise ValueError("either a day of the month or a day of the week, and * for the other")
    weekdays = frozenset(day % len(WEEKDAYS) for day in weekdays)
    found = [
        number
        for number in range(_DAYS)
        if (day := _FIRST + timedelta(days=number)).month in months
        and day.day in days
        and day.isoweekday() % len(WEEKDAYS) in weekdays
    ]
    if not found:
        raise ValueError("a day that comes: there is none in any of its months")
    times = sorted(60 * hour + minute for hour in hours for minute in minutes)
    over_night = max(later - day for day, later in pairwise(found)) * _DAY + times[0] - times[-1]
    pause = max([over_night, *(later - time for time, later in pairwise(times))])
    if fields[4] != "*":
        fields[4] = ",".join(WEEKDAYS[day] for day in sorted(weekdays))
    return Schedule(text=" ".join(fields), longest_pause_hours=pause / 60)


def _numbers(field: str, name: str, lowest: int, highest: int) -> Iterator[int]:
    """Yield what a field matches: `*`, `5`, `1-5`, `*/10`, and lists of them."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = (str(lowest), "-", str(highest)) if span == "*" else span.partition("-")
        last = last if dash else first
        if step and not dash:
            raise ValueError(f"a range before the step of the {name}, like 0-30/10; not {part!r}")
        if not all(number.isascii() and number.isdecimal() for number in (first, last, step or "1")):
            raise ValueError(f"numbers, and * , - / between them, for the {name}; not {part!r}")
        if not lowest <= int(first) <= int(last) <= highest or int(step or "1") < 1:
            raise ValueError(f"from {lowest} to {highest} for the {name}; not {part!r}")
        yield from range(int(first), int(last) + 1, int(step or "1"))
