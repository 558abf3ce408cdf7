"""Make a backup on demand, list backups, run the drill: the backup container's program does each in that container."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from host.progress import Task
from operations.clone import typed
from operations.data.volume_names import set_aside
from operations.engine import containers
from operations.engine.commands import exec_status
from operations.engine.one_off import PROGRAM, check, read, streams
from operations.errors import ProjectError
from operations.workspace import known, lock
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container


PART, DRILL = "backup", "drill"
ANSWER_SECONDS = 120
"""Seconds to wait for one answer of the engine: it answers the removal of a volume of some GiB only at the end."""
Kind = Literal["all", "base", "dump", "redis", "workspace"]


@dataclass(frozen=True, kw_only=True)
class ListedBackup:
    """One backup as the backup container lists it."""

    id: str
    kind: str
    finished: datetime
    bytes: int
    status: str
    since: datetime | None
    """Of a base backup: the first moment that can be restored."""
    until: datetime | None
    """Of a base backup: the last moment that can be restored; None: now."""
    without: tuple[tuple[datetime, datetime], ...] = ()
    """Ranges between `since` and `until` that cannot be restored from this backup."""
    note: str = ""
    """What else a person has to know of it."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> ListedBackup:
        """Read one row of `samokoder-backup list --json`."""
        return cls(
            id=str(row["id"]),
            kind=str(row["kind"]),
            finished=datetime.fromisoformat(row["finished"]),
            bytes=int(row["bytes"]),
            status=str(row["status"]),
            since=datetime.fromisoformat(row["from"]) if row.get("from") else None,
            until=datetime.fromisoformat(row["to"]) if row.get("to") else None,
            without=tuple(
                (datetime.fromisoformat(each["from"]), datetime.fromisoformat(each["to"]))
                for each in row.get("without", ())
            ),
            note=str(row.get("note", "")),
        )

    def ranges(self) -> Iterator[tuple[datetime, datetime | None]]:
        """Yield the ranges of moments that can be restored from it, the earliest first; the end is None for now."""
        since = self.since
        for start, end in self.without:
            if since and since < start:
                yield since, start
            since = max(since, end) if since else None
        if since and (self.until is None or since <= self.until):
            yield since, self.until

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder backups --json`."""
        moments = {name: at.isoformat() if at else None for name, at in (("from", self.since), ("to", self.until))}
        return {
            "id": self.id,
            "kind": self.kind,
            "finished": self.finished.isoformat(),
            "bytes": self.bytes,
            "status": self.status,
            **moments,
            "without": [{"from": start.isoformat(), "to": end.isoformat()} for start, end in self.without],
            "note": self.note,
        }


def now(workspace: Workspace, kind: Kind) -> None:
    """Make a backup. Raises ProjectError when it fails; earlier backups stay."""
    with (
        lock.held(workspace, "backup"),
        _container(known.of(workspace)) as container,
        workspace.reporter.task(f"Backup ({kind})") as task,
    ):
        run_in_service(container, ["now", "--kind", kind], task)


def backups(workspace: Workspace) -> tuple[list[ListedBackup], list[str]]:
    """Return the backups, newest first, and the volumes with the data from before a restore.

    Raises ProjectError, which names these volumes too, where the backup container does not answer.
    """
    environment = known.of(workspace)
    with closing(environment.client(timeout=ANSWER_SECONDS)) as client:
        kept = set_aside(client, environment)
        try:
            container = _lister(client, environment)
            rows = json.loads(run_in_service(container, ["list", "--json"], Task("list")))
        except ProjectError as error:
            # They are what one looks for while a restore is cut off, and the backup container is stopped then.
            told = "".join(f"\nSet aside by a restore: {volume}" for volume in kept)
            raise ProjectError(f"{error}{told}") from error
    return sorted(map(ListedBackup.of, rows), key=lambda each: each.finished, reverse=True), kept


def _lister(client: docker.DockerClient, environment: known.Known) -> Container:
    """Return the backup container, or the drill, which reads the same backups, where a failed `up` made none."""
    there = containers.by_part(client, environment.name)
    return containers.find(client, environment, PART if PART in there or DRILL not in there else DRILL)


def drill(workspace: Workspace) -> dict[str, Any]:
    """Restore the newest backup without touching the data and return what was measured.

    Raises ProjectError when the restore fails.
    """
    with (
        lock.held(workspace, "drill"),
        _container(known.of(workspace)) as container,
        workspace.reporter.task("Restore drill") as task,
    ):
        return dict(json.loads(run_in_service(container, ["drill", "--json"], task)))


def run_in_service(container: Container, words: Sequence[str], task: Task) -> str:
    """Run the backup program in its container; return its standard output. `task` shows its progress.

    Raises ProjectError with the last lines that the program wrote. When this command is interrupted the program
    continues, because a finished backup is of more use than half of one.
    """
    api = cast("docker.DockerClient", container.client).api
    container.reload()
    if container.status != "running":
        name = container.labels.get(ENVIRONMENT_LABEL, "")
        raise ProjectError(
            f"The part {PART!r} does not run ({container.status}). After a restore that was cut off: "
            f"{typed(name, 'restore')}. Else: {typed(name, 'up')}"
        )
    made = api.exec_create(container.id, [PROGRAM, *words])
    with streams(api.exec_start(made["Id"], socket=True)) as chunks:
        out, err = read(chunks, task)
    check(words, exec_status(api, made["Id"]), err)
    return out


@contextmanager
def _container(environment: known.Known) -> Iterator[Container]:
    with closing(environment.client(timeout=ANSWER_SECONDS)) as client:
        yield containers.find(client, environment, PART)
