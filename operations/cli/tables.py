"""What the commands show as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from host.table import Cell, show_table, widths_of
from operations.clone import typed
from operations.engine.part_status import NOT_AVAILABLE
from stack.common.references import short_name

if TYPE_CHECKING:
    from operations.audit.drift.difference import Difference as Drifted
    from operations.audit.rules import Broken
    from operations.data.backups import ListedBackup
    from operations.engine.part_status import PartStatus
    from operations.lifecycle.down import RemovableVolume
    from operations.rotation.plan import RotationRow
_WIDE = 120
_MOMENT = "%Y-%m-%d %H:%M:%S+00"


def show_status(console: Console, env: str, rows: Sequence[PartStatus]) -> None:
    """Print how each part is."""
    rows_of = []
    for row in rows:
        colour = "green" if row.ok else "yellow" if row.state == NOT_AVAILABLE else "red"
        health = row.health if row.state == "running" and row.health != "none" else row.state
        restarts = "" if row.uptime_seconds is None else str(row.restarts)
        rows_of.append(
            {
                "part": Text(row.part),
                "health": Text(health, colour),
                "url": Text(row.url),
                "up": Text(duration(row.uptime_seconds)),
                "restarts": Text(restarts),
                "image": Text(short_name(row.image)),
            }
        )
    # One block for each part would be longer than the screen, so columns without room are left out, and addresses are
    # printed below the table.
    least = ["part", "health", "up", "restarts"]
    choices = [["part", "health", "url", "up", "restarts"], least]
    if console.width >= _WIDE:
        choices.insert(0, [*choices[0], "image"])
    whole = {"health", "up"}
    for headings in choices:
        cells = [[row[heading] for heading in headings] for row in rows_of]
        if headings == least or widths_of(console.width, headings, cells, whole) is not None:
            break
    show_table(console, f"Samokoder, {env}", headings, cells, whole=whole)
    if headings == least:
        for row in rows:
            if row.url:
                console.print(Text(f"{row.part}: {row.url}"), soft_wrap=True)


def show_data(console: Console, env: str, volumes: Sequence[RemovableVolume]) -> None:
    """Print the volumes with an environment's data."""
    if not volumes:
        console.print(Text(f"This removes {env}; no volume with data is left."))
        return
    sizes = ("" if each.bytes is None else _size(each.bytes) for each in volumes)
    rows = [[each.name, size, each.origin or "in use"] for each, size in zip(volumes, sizes, strict=True)]
    title = f"This removes {env} with all its data"
    show_table(console, title, ["volume", "size", "what it is"], rows, whole={"size"})


def show_backups(console: Console, env: str, rows: Sequence[ListedBackup]) -> None:
    """Print the backups, and below them each range of moments that can be restored, to be copied from there."""
    now = datetime.now(UTC)
    cells: list[list[Cell]] = []
    for row in rows:
        colour = {"good": "green", "bad": "red"}.get(row.status, "yellow")
        age = duration(max(0, round((now - row.finished).total_seconds())))
        cells.append([row.id, row.kind, age, _size(row.bytes), Text(row.status, colour)])
    show_table(console, f"Backups of {env}", ["backup", "kind", "age", "size", "state"], cells, whole={"age", "size"})
    for row in rows:
        if row.note:
            console.print(Text(f"{row.id}: {row.note}"), soft_wrap=True)
    ranges = list(restorable(rows))
    if ranges:
        console.print("Can restore to any moment:")
    for since, until in ranges:
        console.print(Text(f"  from {since:{_MOMENT}} to {until.strftime(_MOMENT) if until else 'now'}"))
    if ranges:
        # A range that lasts until now has only its first moment in figures, and that one goes back the furthest.
        end = ranges[-1][1]
        words = f"restore TO='{end:{_MOMENT}}'" if end else "restore BACKUP=latest"
        console.print(Text(f"For the newest one: {typed(env, words)}"), soft_wrap=True)


def restorable(rows: Sequence[ListedBackup]) -> Iterator[tuple[datetime, datetime | None]]:
    """Yield the ranges of moments that one can go back to, the earliest first: whole seconds in UTC, within the range.

    The end is None for a range that lasts until now.
    """
    # The begin is rounded up and the end down, so that a copied moment is within the range.
    found = [
        (_up(begin), end.astimezone(UTC).replace(microsecond=0) if end else None)
        for row in rows
        for begin, end in row.ranges()
    ]
    ends = datetime.max.replace(tzinfo=UTC)
    since: datetime | None = None
    until: datetime | None = None
    for begin, end in sorted(found, key=lambda each: (each[0], each[1] or ends)):
        if end and end < begin:
            continue
        if since is None or begin > (until or ends):
            if since is not None:
                yield since, until
            since, until = begin, end
        elif until is not None:
            until = max(until, end) if end else None
    if since is not None:
        yield since, until


def _up(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return whole + timedelta(seconds=1) if moment.microsecond else whole


def show_drift(console: Console, env: str, findings: Sequence[Drifted], *, repairing: bool = False) -> None:
    """Print the differences, and what to type. repairing: the repair follows, so the command for it is left out."""
    rows = [[each.name, each.field, each.declared, each.found] for each in findings]
    show_table(console, f"Drift of {env}", ["where", "what", "declared", "found"], rows)
    if unknown := dict.fromkeys(each.repair for each in findings if each.unknown):
        console.print("Declared by nobody. Look at it first (`docker inspect NAME`); then it is taken away by:")
        for repair in unknown:
            console.print(Text(f"  {repair}"), soft_wrap=True)
    if not repairing and any(not each.unknown for each in findings):
        rest = "All else" if unknown else "All of it"
        console.print(Text(f"{rest} is made as declared by: {typed(env, 'drift ARGS=--repair')}"), soft_wrap=True)


def show_broken(console: Console, env: str, findings: Sequence[Broken], titles: dict[str, str]) -> None:
    """Print the rules that are broken. titles: what each rule says."""
    rows = [[each.part, each.rule, titles[each.rule], each.says] for each in findings]
    show_table(console, f"Hardening of {env}", ["part", "rule", "says", "found"], rows)


def show_rotations(console: Console, env: str, rows: Sequence[RotationRow]) -> None:
    """Print the generated secrets."""
    cells = [[row.secret, str(row.generation), row.phase, row.how] for row in rows]
    show_table(console, f"Secrets of {env}", ["secret", "generation", "phase", "how it is rotated"], cells)


def _size(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"


def duration(seconds: int | None) -> str:
    """Return a time of running as a person says it (`2 h`); empty for None."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
