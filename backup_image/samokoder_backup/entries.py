"""All backups that there are: which of them can be restored, to which moments, and what is bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from samokoder_backup import barman, catalogue, copies, retention, state, wal
from samokoder_backup.catalogue import Base
from samokoder_backup.copies import Copy
from samokoder_backup.damage import Broken
from samokoder_backup.process import CannotError
from samokoder_backup.settings import Kind


@dataclass(frozen=True)
class Entry:
    """One backup of the list."""

    id: str
    kind: Kind
    finished: datetime
    bytes: int
    status: str
    """good; bad; unverified: nobody has looked yet; ahead: of a time to come, since the clock was ahead."""
    start: datetime | None
    """A base: the first moment that one can restore to."""
    to: datetime | None
    """The last one."""
    without: tuple[tuple[datetime, datetime], ...] = ()
    """Times between them that cannot be restored from it: PostgreSQL was on another history."""
    note: str = ""
    """What else a person has to know of it."""

    @property
    def counts(self) -> bool:
        """Whether it is a backup of its kind and of its time."""
        return self.status not in {"bad", "ahead"}

    def public(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        values = {key: each.isoformat() if isinstance(each, datetime) else each for key, each in asdict(self).items()}
        values["without"] = [{"from": start.isoformat(), "to": end.isoformat()} for start, end in self.without]
        return {("from" if key == "start" else key): value for key, value in values.items()}


def entries() -> list[Entry]:
    """Return all backups, the oldest first."""
    bad = known_bad()
    looked = {server: wal.look(server) for server in catalogue.servers()}
    # Once, and without a wait: each scrape of the figures asks for it.
    pauses = {server: catalogue.pauses(server, wait=False) for server in looked}
    found = [_entry(base, bad, looked.get(base.server), pauses.get(base.server, [])) for base in catalogue.bases()]
    for copy in copies.of_every_kind():
        status = "bad" if copy.id in bad else "ahead" if copy.ahead else "good"
        found.append(Entry(copy.id, copy.kind, copy.finished, copy.bytes, status, None, None))
    found += [
        Entry(each.id, each.kind, each.finished, each.bytes, "bad", None, None, note=_note(each, bad))
        for each in broken()
    ]
    return sorted(found, key=lambda entry: entry.finished)


def _note(each: Broken, bad: Mapping[str, str]) -> str:
    if each.kind != "base" or not each.ahead or not each.files:
        return ""
    if retention.keeps_wal(each, catalogue.bases(each.files[0].parents[1]), bad):
        return ""
    return "its name is of a time to come, so its log goes where no good base backup needs it"


def broken() -> list[Broken]:
    """Return all backups that cannot be read."""
    return [*catalogue.broken(), *(each for kind in copies.KINDS for each in copies.broken(kind))]


def known_bad() -> dict[str, str]:
    """Return what is bad, and why: what the last verification found, and what cannot be read now."""
    return {**state.bad(), **{each.id: each.why for each in broken()}}


def _entry(
    base: Base, bad: Mapping[str, str], looked: wal.Look | None, pauses: list[tuple[datetime, datetime]]
) -> Entry:
    try:
        start, to = base.end, chain(base, bad, looked).end
    except CannotError:
        return Entry(base.id, "base", base.end, base.bytes, "bad", None, None)
    status = "bad" if base.id in bad else "ahead" if base.ahead else "good" if base.noted.exists() else "unverified"
    without = tuple((max(begin, start), end) for begin, end in pauses if start < end and begin < to)
    return Entry(base.id, "base", base.end, base.bytes, status, start, to, without)


def chain(base: Base, bad: Mapping[str, str], looked: wal.Look | None = None) -> wal.Chain:
    """Follow the WAL of a base backup; raises CannotError where it does not reach the backup's own end."""
    prefix = f"{base.server.name}/"
    damaged = frozenset(name.removeprefix(prefix) for name in bad if name.startswith(prefix))
    found = wal.chain(base.server, base.begin_wal, base.segment_size, damaged, looked)
    if found is None or found.last < base.end_wal:
        needed = (found.missing or f"after {found.last}") if found else base.begin_wal
        raise CannotError(f"{base.id} cannot be restored: its WAL file {needed} is missing or bad")
    return found


def joined(base: Base) -> bool:
    """Tell whether WAL leads from a base backup to now without a gap."""
    try:
        return not chain(base, known_bad()).missing
    except CannotError:
        return False


def verify(thing: Base | Copy, bad: Mapping[str, str]) -> None:
    """Check a backup, and that it can be brought to a moment; raises BackupError that says what is wrong."""
    if isinstance(thing, Copy):
        copies.verify(thing)
    else:
        barman.verify(thing)
        chain(thing, bad)
