"""The request for a restore: a moment, a backup, a volume that was set aside, or a repair of Redis' data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast

from operations.clone import typed
from operations.data.volume_names import BEFORE, IMPORTED
from operations.errors import ProjectError
from stack.common.names import PROJECT
from stack.parts.backup import workspace
from stack.settings.environment import Environment
from stack.settings.keys import key_of

LATEST, OFFSITE = "latest", "offsite"
Server = Literal["postgres", "redis", "backup", "workspace"]
Mend = Literal["read", "cut", "snapshot"]
"""How a copy of Redis' data is mended: `read` mends nothing; `repair_redis.sh` explains the others."""

DATA: Mapping[Server, str] = {
    "postgres": "/var/lib/postgresql/data",
    "redis": "/data",
    "backup": "/backups",
    "workspace": workspace.FOLDER,
}
"""Where each server's container mounts its data volume."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to restore. All empty: resume the restore that was begun."""

    to: str = ""
    """A moment of the database, in UTC."""
    backup: str = ""
    """A backup's id, or `latest`: everything that was backed up."""
    source: str = ""
    """`offsite`, or a volume that was set aside; empty: the backups of this machine."""
    mend: Mend | None = None
    """How Redis' present data is mended and put back; None: no repair."""

    @property
    def server(self) -> Server:
        """The server whose data is restored."""
        if self.whole:
            mark = BEFORE if BEFORE in self.source else IMPORTED
            return cast("Server", self.source.partition(mark)[0].rpartition("-")[2])
        if self.mend:
            return "redis"
        others: tuple[Server, ...] = ("redis", "workspace")
        return next((server for server in others if self.backup.startswith(f"{server}-")), "postgres")

    @property
    def whole(self) -> bool:
        """Whether a volume that was set aside or imported is put in place as it is."""
        return BEFORE in self.source or IMPORTED in self.source

    @property
    def words(self) -> list[str]:
        """The options of the backup program for this request."""
        if self.to:
            return ["--to", self.to]
        return ["--latest"] if self.backup == LATEST else ["--backup", self.backup]

    def __str__(self) -> str:
        """Return the request as a person would type it."""
        if self.mend:
            return f"a repair of Redis ({self.mend})"
        words = {"TO": self.to, "BACKUP": self.backup, "FROM": self.source}
        return " ".join(f"{name}={value!r}" for name, value in words.items() if value)


def wanted(environment: Environment, *, to: str = "", backup: str = "", source: str = "") -> Wanted:
    """Return the request that a person typed. Raises ProjectError that says what to type instead."""
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
    """Return a moment in UTC, as ISO 8601. Raises ProjectError for text that is no time or has no time zone."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ProjectError(f"{text!r} is not a valid time. Write it like this: TO='2026-11-23 10:05:00+03'") from None
    if at.tzinfo is None:
        raise ProjectError(f"{text!r} has no time zone. Write TO='{at}+00' if it is UTC, TO='{at}+03' in Moscow.")
    return at.astimezone(UTC).isoformat()


def refuse_request(environment: Environment, asked: Wanted, there: Sequence[str], *, importing: bool) -> None:
    """Raise ProjectError for a request that cannot work, before anything is done.

    there: the volumes that can be put in place. importing: whether an import makes the request.
    """
    if asked == Wanted():
        moment = typed(environment.name, "restore TO='2026-11-23 10:05:00+03'")
        raise ProjectError(
            f"No restore was cut off. Which moment, or which backup? {moment}, or BACKUP=latest; "
            f"`{typed(environment.name, 'backups')}` lists what there is."
        )
    if IMPORTED in asked.source and not importing:
        raise ProjectError(
            f"{asked.source} is what an import has copied, perhaps not to its end: that alone puts it in place, by "
            f"`{typed(environment.name, 'import-compose PROJECT=…')}`."
        )
    if asked.server == "workspace" and "workspace" in environment.absent:
        raise ProjectError(
            f"There is no workspace here to restore into: set {key_of('workspace', 'path')}, then "
            f"{typed(environment.name, 'up')}."
        )
    if asked.server in environment.absent:
        raise ProjectError(
            f"{asked.server} is a managed one here: its data is restored where it is managed, or from a dump "
            '(docs/backup-and-restore.md, "A managed database").'
        )
    if asked.source == OFFSITE and environment.offsite is None:
        raise ProjectError(
            f"No off-site copy is configured. Set {key_of('backup', 'offsite')} and its secrets as they were on the "
            f"machine that made it, {PROJECT}:backupEncryptionKey too; then `{typed(environment.name, 'up')}`, "
            "then this."
        )
    if asked.whole and asked.source not in there:
        raise ProjectError(f"There is no volume {asked.source}. There are: {', '.join(there) or 'none'}.")
