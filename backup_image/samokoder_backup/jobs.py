"""What is done on a schedule or on demand; each under the lock, and recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samokoder_backup import barman, copies, restore, state, wal
from samokoder_backup import drill as drills
from samokoder_backup.process import BackupError, say
from samokoder_backup.settings import Kind, Settings


def backup(settings: Settings, kind: Kind) -> bool:
    """Make a backup of one kind, then remove what is too old."""

    def work() -> Mapping[str, Any]:
        if kind == "base":
            base = barman.take(settings)
            size, made = base.bytes, base.id
            barman.retire(settings, state.bad())
        else:
            copy = copies.dump(settings) if kind == "dump" else copies.redis(settings)
            size, made = copy.bytes, copy.id
            copies.retire(settings, kind, set(state.bad()))
        say(f"{kind}: {made}, {size} bytes")
        return {"bytes": size, "id": made}

    return state.attempt(kind, work)


def verify(only: str | None = None) -> bool:
    """Check one backup or all of them, with the archived WAL; what is bad is known by its name from then on."""

    def work() -> Mapping[str, Any]:
        if only is None:
            servers = barman.servers()
            bad = {f"{each.name}/{name}": why for each in servers for name, why in wal.damaged(each).items()}
        else:
            bad = {name: why for name, why in state.bad().items() if name != only}
        things: list[barman.Base | copies.Copy] = [*barman.bases(), *copies.of_every_kind()]
        chosen = [thing for thing in things if only in {None, thing.id}]
        if only and not chosen:
            raise BackupError(f"there is no backup {only}")
        for thing in chosen:
            try:
                restore.verify(thing, bad)
            except BackupError as error:
                bad[thing.id] = str(error)
        for name, why in bad.items():
            say(f"bad: {name}: {why}")
        return {"bad": bad, "exit": 1 if bad else 0}

    return state.attempt("verify", work)


def drill(settings: Settings) -> bool:
    """Restore the newest backup and throw it away."""
    return state.attempt("drill", lambda: drills.drill(settings))
