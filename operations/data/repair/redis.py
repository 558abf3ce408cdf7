"""Repair of Redis' data where Redis does not start.

The repair removes the end of the file that Redis cannot read, or takes an older copy. It first tries each way on a
copy, which Redis itself reads, so that the person knows what is kept and what is lost before anything is stopped or
changed. The repair then runs as a restore: it stops Redis, mends a copy of its data, sets the present data aside and
replaces it. If the repair is interrupted, `make restore` resumes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from operations.data import backups
from operations.data.repair import redis_log
from operations.data.restore import on_engine, restore, unfinished
from operations.data.restore.actions import Up
from operations.data.restore.request import Mend
from operations.engine import containers, healthy
from operations.errors import FailedError, ProjectError, UnavailableError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.parts.redis import spec as redis

if TYPE_CHECKING:
    from operations.data.backups import ListedBackup


_WAYS: Mapping[Mend | None, str] = {
    "cut": "cut off what cannot be read",
    "snapshot": "take the snapshot of the same volume, and give up the append-only file",
}


@dataclass(frozen=True, kw_only=True)
class RedisRepair:
    """One way to get data that Redis can read."""

    mend: Mend | None = None
    """As in `Wanted`; None: a copy in the backups is restored."""
    backup: str = ""
    kept: datetime | None
    """Everything written until then is kept; None: the files do not say when it was written."""
    keys: int | None = None
    lost: str
    """What is known of what is lost."""

    def __str__(self) -> str:
        """Return what this way does, keeps and loses."""
        what = _WAYS.get(self.mend, f"restore the copy {self.backup} of the backups")
        keys = "" if self.keys is None else f" {self.keys} keys are kept."
        return f"{what}.{keys} {self.lost}"


@dataclass(frozen=True, kw_only=True)
class DamagedRedis:
    """What is wrong with Redis' data, and the ways to repair it."""

    workspace: Workspace
    up: Up
    wrong: str
    """Why Redis does not read its data."""
    ways: tuple[RedisRepair, ...]
    """The way that loses least is first."""
    refused: tuple[str, ...]
    """Ways that do not work, and why."""
    question: str = "Do it? What is there is set aside"

    def lines(self) -> Iterator[str]:
        """Yield what is wrong and what `run` would do, for the person who decides."""
        yield f"Redis does not read its data: {self.wrong}"
        yield from self.refused
        for number, way in enumerate(self.ways):
            yield f"{'Not taken' if number else 'This is done'}: {way}"
        if len(self.ways) > 1 and self.ways[0].kept is None:
            yield "No moments are noted in the file (an older version wrote it): which way loses least is yours to say."

    def run(self) -> str:
        """Repair by the first way; return what was done. The present data is set aside."""
        way = self.ways[0]
        if way.mend:
            done = restore.mend(self.workspace, way.mend, self.up)
        else:
            done = restore.restore(self.workspace, up=self.up, backup=way.backup)
        try:
            read = redis_log.read(self.workspace)
        except (FailedError, UnavailableError) as error:
            raise ProjectError(f"{done}\nBut {error}") from error
        return f"{done}\n{read}."


@contextmanager
def opened_redis(workspace: Workspace, up: Up) -> Iterator[DamagedRedis]:
    """Hold the environment's lock, and yield what is wrong with Redis' data. Raises as `repair.opened` does."""
    environment = workspace.settings()
    if redis.PART in environment.absent:
        raise ProjectError("Redis is a managed one here: its data is repaired where it is managed.")
    with lock.held(workspace, "repair") as locked:
        unfinished.refuse_touched(locked)
        with on_engine.engine_of(environment, locked) as hands:
            container = containers.find(hands.client, environment, redis.PART)
            if healthy.health(container) == "healthy":
                raise ProjectError("Redis runs and is healthy: there is nothing to repair.")
            _, wrong = _try(hands, "read")
            if not wrong:
                raise ProjectError(
                    "Redis reads all of its data: nothing is damaged, and nothing was changed. Why it is not healthy: "
                    f"{workspace.typed(f'logs PART={redis.PART}')}, docs/runbooks/RedisDown.md"
                )
            found = _ways(locked, hands, wrong, up)
        yield found


def _try(hands: on_engine.EngineRestore, mend: Mend) -> tuple[dict[str, str], str]:
    """Mend a copy in one way; return the report of the script, or the reason why that failed."""
    try:
        return hands.mend(mend), ""
    except ProjectError as error:
        return {}, str(error)


def _ways(workspace: Workspace, hands: on_engine.EngineRestore, wrong: str, up: Up) -> DamagedRedis:
    ways, refused = list[RedisRepair](), list[str]()
    useless: Mapping[Mend, str] = {"cut": "Nothing can be cut off", "snapshot": "There is no way by a snapshot"}
    for mend, title in useless.items():
        said, why = _try(hands, mend)
        if why:
            refused.append(f"{title}: {why}")
            continue
        kept = _moment(said["kept"])
        lost = _lost(said, kept) if mend == "cut" else _since(kept)
        ways.append(RedisRepair(mend=mend, kept=kept, keys=int(said["keys"]), lost=lost))
    try:
        if copy := _newest(workspace):
            ways.append(RedisRepair(backup=copy.id, kept=copy.finished, lost=_since(copy.finished)))
        else:
            refused.append("There is no good copy of Redis in the backups.")
    except ProjectError as error:
        refused.append(f"The backups cannot be listed: {error}")
    if not ways:
        raise ProjectError("\n".join((f"Redis does not read its data: {wrong}", *refused)))
    # A cut of a file without times comes first, because it loses only the end of that file.
    ways.sort(key=lambda way: way.kept or datetime.max.replace(tzinfo=UTC), reverse=True)
    return DamagedRedis(workspace=workspace, up=up, wrong=wrong, ways=tuple(ways), refused=tuple(refused))


def _newest(workspace: Workspace) -> ListedBackup | None:
    rows, _ = backups.backups(workspace)
    return next((row for row in rows if row.kind == redis.PART and row.status == "good"), None)


def _moment(seconds: str) -> datetime | None:
    return datetime.fromtimestamp(int(seconds), UTC) if seconds else None


def _since(kept: datetime | None) -> str:
    return f"Lost is what was written after {kept:%Y-%m-%d %H:%M:%S} UTC."


def _lost(said: dict[str, str], kept: datetime | None) -> str:
    """Say what a cut loses, in commands and seconds, as far as it is known."""
    size, commands, written = int(said["bytes"]), int(said["commands"]), _moment(said["written"])
    anew = "The damaged list of its files is made anew. " if "list" in said else ""
    if said["refused"] != "0":
        anew += f"Redis refuses {said['refused']} of the commands before that, which are lost too. "
    if not size:
        return f"{anew}No command is lost that is in a file."
    if not commands:
        return f"{anew}Lost are {size} bytes, in which no command begins."
    when = f"the file was last written to at {written:%Y-%m-%d %H:%M:%S} UTC"
    if kept and written:
        seconds = max(0, round((written - kept).total_seconds()))
        when = f"written in the {seconds} s after {kept:%Y-%m-%d %H:%M:%S} UTC"
    return f"{anew}Lost are {size} bytes with the beginnings of {commands} commands, {when}."
