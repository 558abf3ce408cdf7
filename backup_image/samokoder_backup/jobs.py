"""What is done on a schedule or on demand; each under the lock, and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from samokoder_backup import apart, barman, catalogue, copies, entries, retention, state, wal
from samokoder_backup.catalogue import Base
from samokoder_backup.copies import Copy
from samokoder_backup.process import BackupError, lacking, say
from samokoder_backup.settings import Kind, Settings

_ALL = "whole"
"""Of what is known of verification: when all was verified."""


def backup(settings: Settings, kind: Kind) -> bool:
    """Make a backup of one kind, then remove what is too old.

    A base backup that came to its end while this one waited for the lock has all that this one would have: it is taken
    for it. After a restore the service and who restores both want the first one of the new history, and each is as
    large as the database.
    """
    before = {base.folder for base in catalogue.bases()}

    def work() -> Mapping[str, Any]:
        made: Base | Copy
        if kind == "base":
            if beside := _made_beside(settings, before):
                say(f"base: {beside.id} came to its end meanwhile, and is not made a second time")
                return {"bytes": beside.bytes, "id": beside.id}
            made = barman.take(settings, entries.known_bad())
            try:
                _first_verification(settings, made)
            finally:
                _retire(settings, kind)  # also where this one cannot be verified: the log would fill the disk
        else:
            make = {"dump": copies.dump, "redis": copies.redis, "workspace": copies.workspace}[kind]
            made = make(settings)
            _retire(settings, kind)
        say(f"{kind}: {made.id}, {made.bytes} bytes")
        return {"bytes": made.bytes, "id": made.id}

    return state.attempt(kind, work)


def _made_beside(settings: Settings, before: Collection[Path]) -> Base | None:
    """Return a good base backup of what PostgreSQL has now that was not there before; None where there is none."""
    bad = entries.known_bad()
    new = [base for base in catalogue.bases() if base.folder not in before and base.id not in bad and not base.ahead]
    verified = [base for base in new if base.noted.exists() and entries.joined(base)]
    return verified[-1] if verified and verified[-1].server == barman.current(settings) else None


def _first_verification(settings: Settings, base: Base) -> None:
    """Verify a base backup that was just made; raises BackupError, and what is bad is known from then on.

    So it counts no more: nothing is restored from it, nothing is removed for it, and another one is made.
    """
    try:
        _again(partial(barman.verify, base))
    except Exception as error:
        if lacking(error):
            raise BackupError(f"{base.id} was made, and could not be verified: {error}") from error
        bad = {**state.bad(), base.id: _why(error)}
        state.record("verify", {"bad": bad})
        gone = retention.thin(settings, base.server, bad)
        state.record("verify", {"bad": {name: why for name, why in bad.items() if name not in gone}})
        row = len(retention.failing(base.server, bad))
        seldom = f". {row} in a row are: the next one is made in a day, or by hand"
        raise BackupError(
            f"{base.id} was made, and is bad: {_why(error)}{seldom if row >= retention.KEPT_FAILING else ''}"
        ) from error


def _again(check: Callable[[], None]) -> None:
    """Check, and once more where something could not be read: a moment's error of a disk is no verdict."""
    try:
        check()
    except OSError as error:
        if lacking(error):
            raise
        check()


def _why(error: Exception) -> str:
    """Say what is wrong with something whose check has ended so."""
    return str(error) if isinstance(error, BackupError) else f"it cannot be read: {error!r}"


def _retire(settings: Settings, kind: Kind) -> None:
    """Remove what is too old, unless nobody knows what is bad: an older good one may be all that there is."""
    bad = entries.known_bad()
    if state.FORGOTTEN in bad or _ALL not in state.read().get("verify", {}):
        say("nothing old is removed until all was verified: nobody knows yet what is bad")
    elif kind == "base":
        retention.retire(settings, bad)
    else:
        copies.retire(settings, kind, set(bad))


def verify(only: str | None = None) -> bool:
    """Check one backup or all of them, with the archived WAL; what is bad is known by its name from then on.

    What cannot be read is bad. A check that lacked room, or was killed, is no verdict: what was known before stays.
    """

    def work() -> Mapping[str, Any]:
        before, unsure = state.bad(), dict[str, str]()
        broken = entries.broken()
        bad = {each.id: each.why for each in broken}
        if only is None:
            bad |= _damaged(before)
        else:
            bad |= {name: why for name, why in before.items() if name != only}
        things: list[Base | Copy] = [*catalogue.bases(), *copies.of_every_kind()]
        chosen = [thing for thing in things if only in {None, thing.id}]
        if not all(each.files for each in broken):
            # What is in a folder that cannot be listed was not looked at: what was known to be bad of it still is.
            seen = {*(thing.id for thing in things), *(each.name for each in catalogue.servers())}
            bad |= {name: why for name, why in before.items() if name.partition("/")[0] not in seen and name not in bad}
        if only and not chosen and only not in bad:
            raise BackupError(f"there is no backup {only}")
        for thing in chosen:
            try:
                _again(partial(entries.verify, thing, bad))
            except Exception as error:  # whatever it is, the others are still to be checked
                if lacking(error):
                    unsure[thing.id] = str(error)
                    bad |= {thing.id: before[thing.id]} if thing.id in before else {}
                else:
                    bad[thing.id] = _why(error)
        for name, why in bad.items():
            say(f"bad: {name}: {why}")
        not_checked = "; ".join(f"{name} could not be checked: {why}" for name, why in unsure.items())
        if not_checked:
            say(not_checked)
        whole = {_ALL: time.time()} if only is None else {}
        return {"bad": bad, "error": not_checked, "exit": 1 if bad or unsure else 0, **whole}

    return state.attempt("verify", work)


def _damaged(before: Mapping[str, str]) -> dict[str, str]:
    """Return what is bad of the histories beside their backups; also the WAL that was, where nobody can list it now."""
    bad: dict[str, str] = {}
    for server in catalogue.servers():
        found = wal.damaged(server)
        folders = {name for name, why in found.items() if why.startswith(wal.UNLISTED)}
        for name, why in before.items():
            of, _, file = name.partition("/")
            if of == server.name and wal.SEGMENT.match(file) and {"wals", file[:16]} & folders:
                found.setdefault(file, why)
        if why := catalogue.pauses_damage(server):
            found[catalogue.PAUSES] = why
        bad |= {f"{server.name}/{name}": why for name, why in found.items()}
    return bad


def drill() -> bool:
    """Let the part `drill` restore the newest backup and throw it away."""
    fields = {"backup", "rpo", "rto", "rows"}
    return state.attempt("drill", lambda: apart.ask("drill").model_dump(include=fields))
