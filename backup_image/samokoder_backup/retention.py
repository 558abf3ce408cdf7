"""Which base backups go, and with which of them the WAL goes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from samokoder_backup import barman, catalogue, wal
from samokoder_backup.catalogue import Base, bases
from samokoder_backup.damage import Broken
from samokoder_backup.process import say
from samokoder_backup.settings import Settings

KEPT_FAILING = 2
"""How many of the base backups in a row that were bad from the beginning stay: the reason may be a lasting one."""


def failing(server: Path, bad: Collection[str]) -> list[Base]:
    """Return the newest base backups of a history that were bad from the beginning, one after the other, oldest first.

    Empty where the newest one is good, or nobody has looked yet.
    """
    found = list[Base]()
    for base in reversed(bases(server)):
        if base.noted.exists() or base.id not in bad:
            break
        found.insert(0, base)
    return found


def thin(settings: Settings, server: Path, bad: Collection[str]) -> list[str]:
    """Remove base backups that were never good, but for the newest ones of a row; return their ids.

    Where each one fails for the same reason they would fill the disk. None that was ever good goes for one.
    """
    going = failing(server, bad)[:-KEPT_FAILING]
    for base in going:
        say(f"removing {base.id}, which was never good, as {KEPT_FAILING} after it")
        _remove(settings, base, bad)
    return [base.id for base in going]


def retire(settings: Settings, bad: Collection[str]) -> None:
    """Remove what is older than the recovery window needs: never one that no newer good one takes the place of.

    bad: what is known to be bad. It takes no other's place, and goes when a good one of its age would.
    """
    start = datetime.now(UTC) - timedelta(days=settings.recovery_window_days)
    good = [base for base in bases() if base.id not in bad and base.noted.exists()]
    reaching = [base for base in good if base.end < start]
    if not reaching:
        return
    received = barman.current(settings)
    for server in catalogue.servers():
        last = _last(server)
        over = server != received and last < start
        # A history goes on where the restore after it was undone: no base backup of another one reaches its moments.
        those = reaching if over else [base for base in reaching if base.server == server]
        if those:
            _remove_before(settings, server, those[-1], bad, whole=over and last < those[-1].end)
        if over and not catalogue.holds_any(server):
            shutil.rmtree(server)


def _last(server: Path) -> datetime:
    """Return the last moment that a history has; one that cannot be listed may have each."""
    with contextlib.suppress(OSError, OverflowError, ValueError):
        return datetime.fromtimestamp(wal.received(server), UTC)
    return datetime.max.replace(tzinfo=UTC)


def _remove_before(settings: Settings, server: Path, newer: Base, bad: Collection[str], *, whole: bool) -> None:
    """Remove what is older than a base backup. whole: all of the history is, also what has a name of a time to come."""
    # First, since the WAL stays while one that cannot be read may need it.
    for each in catalogue.broken(server):
        if each.files and (each.finished < newer.end or (whole and each.ahead)):
            say(f"removing {each.id}, which cannot be read, with the others of its time")
            catalogue.remove_broken(each)
    # By the log it is older: it reaches nothing more, and its name would keep WAL until its time has come. It goes
    # before the others, so that the WAL goes with them.
    ahead = [base for base in bases(server) if base.ahead and (whole or _began_before(base, newer))]
    for base in (*ahead, *(base for base in bases(server) if base.end < newer.end)):
        _remove(settings, base, bad)


def _began_before(base: Base, newer: Base) -> bool:
    """Tell whether a base backup is of an earlier place in the log; of two histories nobody can tell."""
    return base.server == newer.server and base.begin_wal < newer.begin_wal


def _remove(settings: Settings, base: Base, bad: Collection[str]) -> None:
    with_wal = _is_wal_free(base, bad)
    catalogue.begin_removal(base)
    if with_wal:
        barman.barman(settings, "delete", base.server.name, base.id, what=f"removing {base.id}")
    catalogue.end_removal(base)


def _is_wal_free(base: Base, bad: Collection[str]) -> bool:
    """Tell whether nothing that stays needs the WAL that Barman removes with a base backup: all before its next one.

    Barman goes by what it sees and by the names. It does not see one that was put out of its sight, which may be good
    but for one byte; and the names are not in the order of the WAL where a clock was ahead. What stays here of the WAL
    goes with a later base backup.
    """
    others = [each for each in bases(base.server) if each.id != base.id]
    if catalogue.is_apart(base) or any(keeps_wal(each, others, bad) for each in catalogue.broken(base.server)):
        return False
    seen = [each for each in others if each.id > base.id and not catalogue.is_apart(each)]
    end = min(seen, key=lambda each: each.id).begin_wal if seen else base.begin_wal
    return all(each.begin_wal >= end for each in others)


def keeps_wal(each: Broken, others: Sequence[Base], bad: Collection[str]) -> bool:
    """Tell whether one that cannot be read keeps all WAL, since it may be mended. others: those that can be read.

    One with a name of a time to come would keep it until then, and the disk would fill up: once a good one takes its
    place it has the WAL that the others keep, as one has that can be read.
    """
    good = any(base.noted.exists() and base.id not in bad and not base.ahead for base in others)
    return not (each.ahead and good)
