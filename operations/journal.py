"""What a restore is asked for, and how far it has come.

The journal is a file beside the state. What follows depends on what has become of the data, and on what is typed:

- Nothing is replaced yet. `make restore` goes on, but what was stopped may have run and written since: it is set aside
  again, and for `latest` and a repair the copy is made again. Words begin anew; a fetched off-site copy stays for
  another moment of it, and is fetched again for `latest`.
- Half replaced. `make restore` finishes it, for there is nothing whole to go back to. So do the same words, and those
  that put back what was set aside; any others are refused.
- Replaced, and not all started or backed up. `make restore` does the rest. Words begin anew.

What was made on the way is looked at before it is relied on: a volume that is gone or not whole is made again. A whole
copy that was set aside is never written to again. Nothing here touches the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from operations.backups import BEFORE, IMPORTED
from operations.clone import typed
from operations.errors import ProjectError
from operations.workspace import stack_file
from stack.backup import workspace
from stack.settings import Environment

LATEST, OFFSITE = "latest", "offsite"
FETCH = "fetch"
"""The step that fetches the off-site copy."""
Server = Literal["postgres", "redis", "backup", "workspace"]
Mend = Literal["read", "cut", "snapshot"]
"""How a copy of Redis' data is mended: not at all, or as `repair_redis.sh` says."""

DATA: Mapping[Server, str] = {
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "backup": "/backups",
    "workspace": workspace.FOLDER,
}
"""Where each server's container mounts its data volume."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be restored. All empty: whatever was begun."""

    to: str = ""
    """A moment of the database, in UTC."""
    backup: str = ""
    """A backup's id, or `latest`: all that there is."""
    source: str = ""
    """`offsite`, or a volume that was set aside; empty: the backups of this machine."""
    mend: Mend | None = None
    """What is there is put back, mended: of Redis alone."""

    @property
    def server(self) -> Server:
        """Whose data is replaced at the end."""
        if self.whole:
            mark = BEFORE if BEFORE in self.source else IMPORTED
            return cast("Server", self.source.partition(mark)[0].rpartition("-")[2])
        if self.mend:
            return "redis"
        others: tuple[Server, ...] = ("redis", "workspace")
        return next((server for server in others if self.backup.startswith(f"{server}-")), "postgres")

    @property
    def whole(self) -> bool:
        """Whether it is a volume that is put into its place as it is."""
        return BEFORE in self.source or IMPORTED in self.source

    @property
    def words(self) -> list[str]:
        """How the backup program is told."""
        if self.to:
            return ["--to", self.to]
        return ["--latest"] if self.backup == LATEST else ["--backup", self.backup]

    def __str__(self) -> str:
        """Say it as a person would type it."""
        if self.mend:
            return f"a repair of Redis ({self.mend})"
        words = {"TO": self.to, "BACKUP": self.backup, "FROM": self.source}
        return " ".join(f"{name}={value!r}" for name, value in words.items() if value)


def wanted(environment: Environment, *, to: str = "", backup: str = "", source: str = "") -> Wanted:
    """Read what somebody typed. Raises ProjectError that says what to type instead."""
    if to and backup:
        raise ProjectError("Either a moment (TO=…) or a backup (BACKUP=…), not both.")
    if source and source != OFFSITE:
        if not any(
            source.startswith(f"{environment.prefix}-{server}{mark}") for server in DATA for mark in (BEFORE, IMPORTED)
        ):
            raise ProjectError(
                f"FROM is {OFFSITE!r} or the name of a volume that a restore has set aside, not {source!r}. "
                f"`{typed(environment.name, 'backups')}` lists them."
            )
        if to or backup:
            raise ProjectError("A volume that was set aside is put back as it is: no TO or BACKUP with it.")
    if source == OFFSITE and not (to or backup):
        backup = LATEST
    return Wanted(to=moment(to) if to else "", backup=backup, source=source)


def moment(text: str) -> str:
    """Return a moment in UTC. Raises ProjectError for one that could mean two, or none."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ProjectError(f"{text!r} is not a valid time. Write it like this: TO='2026-11-23 10:05:00+03'") from None
    if at.tzinfo is None:
        raise ProjectError(f"{text!r} has no time zone. Write TO='{at}+00' if it is UTC, TO='{at}+03' in Moscow.")
    return at.astimezone(UTC).isoformat()


@dataclass(frozen=True, kw_only=True)
class Journal:
    """How far a restore has come."""

    wanted: Wanted
    stamp: str
    """In the names of its volumes: when it was begun."""
    done: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    """Volumes that what was there is copied into, in this order; of one server more than one where it went on."""
    kept: tuple[str, ...] = ()
    """Those of `aside` whose copy came to its end. Nothing writes to one again, also where the original was damaged."""
    stopped: bool = False
    """Whether something was stopped for it."""
    lost: bool = False
    """Whether the data volume was not there: what is in one that came since is not what is to be restored."""
    touched: bool = False
    """Whether a data volume's content has begun to be replaced."""
    copied: tuple[str, ...] = ()
    """Servers whose replacement is all there, and was not let go before that was noted: it is not set aside."""
    before: str = ""
    """The volume with what was there before, where that is not the last of `aside`.

    An earlier version noted no `copied`: where it was cut off, what is there may be the replacement. It is set aside
    too, so that no write is lost, and is nothing to go back to.
    """

    @property
    def servers(self) -> tuple[Server, ...]:
        """Whose data volumes get another content; the one that was asked for is the last."""
        asked = self.wanted
        return ("backup", asked.server) if asked.source == OFFSITE else (asked.server,)

    @property
    def half(self) -> bool:
        """Whether a data volume may have half of its content: the restore has to be finished then."""
        return self.touched and not self.replaced

    @property
    def way_back(self) -> str:
        """The volume to put back for an undo. There is one once the data is touched."""
        return self.before or self.aside[-1]

    @property
    def imports(self) -> bool:
        """Whether an import does it: that alone knows what comes next."""
        return IMPORTED in self.wanted.source

    def again(self, environment: str) -> str:
        """Say what to type to go on. environment: its name."""
        return (
            f"the same `{typed(environment, 'import-compose PROJECT=…')}` again"
            if self.imports
            else typed(environment, "restore")
        )

    def unfinished(self, environment: str) -> str:
        """Say what a person must know of one that is half done. environment: its name."""
        again = self.again(environment)
        return f"A restore ({self.wanted}) was cut off while it replaced the data. Finish it first: {again}"

    @property
    def replaced(self) -> bool:
        """Whether every data volume has its new content, whole."""
        return f"put-{self.wanted.server}" in self.done

    def after_words(self, asked: Wanted, environment: str) -> Journal | None:
        """Return what goes on after these words; None where they begin anew. environment: its name.

        Raises ProjectError where the data is half replaced, and they ask for something else.
        """
        if asked == Wanted():
            return self
        if self.half:
            if asked == self.wanted:
                return self
            if asked.source in self.aside and self.servers == (asked.server,):
                # What was to come may be gone for good. It was set aside whole, and nothing has been added since.
                return replace(self, wanted=asked, copied=())
            raise ProjectError(f"{self.unfinished(environment)}. Then this one.")
        if (
            FETCH in self.done
            and not self.replaced
            and asked.source == self.wanted.source == OFFSITE
            and asked.server == self.wanted.server
            and asked.backup != LATEST
        ):
            return replace(self, wanted=asked, done=(FETCH,), aside=())
        return None

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Return the journal of a restore that has not come to its end."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        lists = {name: tuple(raw.get(name, ())) for name in ("done", "aside", "kept", "copied")}
        return cls(**raw | lists | {"wanted": Wanted(**raw["wanted"])})

    def write(self, path: Path) -> None:
        """Note it."""
        stack_file.write(path, json.dumps(asdict(self), indent=2))
