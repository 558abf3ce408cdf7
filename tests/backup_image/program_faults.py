"""Faults that the backup program had (issue 24), put back into the program of a small machine by `shifted.py`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from samokoder_backup import barman, clock, copies, jobs, present, restore, wal
from samokoder_backup.catalogue import Base
from samokoder_backup.entries import chain
from samokoder_backup.process import BackupError, CannotError
from samokoder_backup.settings import Kind, Settings


def counts_a_base_backup_that_is_bad() -> None:
    """4: it was only told that its verification has failed."""

    def reaching(bases: list[Base], moment: datetime, bad: Mapping[str, str]) -> tuple[Base, wal.Chain]:
        for base in reversed(bases):
            if base.end <= moment and (found := chain(base, bad)).end >= moment:
                return base, found
        raise CannotError(f"{moment.isoformat()} cannot be reached")

    def first_verification(settings: Settings, base: Base) -> None:
        del settings
        barman.verify(base)

    jobs._first_verification = first_verification
    restore._proven = lambda bases: bases[-1]
    restore._reaching = reaching


def ends_a_verification_at_what_cannot_be_read() -> None:
    """5: what comes after it was not verified."""

    def lacking(error: BaseException) -> bool:
        if not isinstance(error, BackupError):
            raise error
        return False

    setattr(jobs, "lacking", lacking)  # noqa: B010 - it is another module's


def removes_what_cannot_be_read() -> None:
    """5: a copy without a description that can be read was taken for one that was cut off."""

    def remove_leftovers(kind: Kind, folder: Path) -> None:
        described = {copy.path for copy in copies.copies(kind)} | set(folder.glob(f"{kind}-*.json"))
        for path in (*folder.glob(".*"), *folder.glob(f"{kind}-*")):
            if path not in described:
                path.unlink()

    copies._remove_leftovers = remove_leftovers


def takes_the_end_of_the_history_before_for_the_latest_moment() -> None:
    """6: while the new history had no base backup yet."""
    restore._of_newest_history = lambda *_: None
    present.refuse_older = lambda *_, **__: None  # it sees the same, a moment later


def believes_a_clock_that_was_ahead() -> None:
    """8: nothing was due until its time had come."""

    def ahead(stamp: float) -> bool:
        del stamp
        return False

    clock.ahead = ahead


def put_back(name: str) -> None:
    """Put one back, by its name."""
    globals()[name.strip()]()
