"""Backups on demand, the list of what there is, and the drill: the backup container's own program, run in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from offline.progress import Task
from operations import containers, known, lock
from operations.project import Workspace, typed
from operations.stack_file import ProjectError
from stack.names import ENVIRONMENT_LABEL, NO_NEW_PRIVILEGES, NO_SEARCH_DOMAIN

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

PART = "backup"
PROGRAM = "samokoder-backup"
ANSWER_SECONDS = 120
"""For one answer of the engine: it removes a volume of some GiB while it is asked."""
Kind = Literal["all", "base", "dump", "redis", "workspace"]
Chunks = Iterable[tuple[bytes | None, bytes | None]]

_REFUSED = 2
_LAST_LINES = 5


@dataclass(frozen=True, kw_only=True)
class Backup:
    """One backup as the backup container lists it."""

    id: str
    kind: str
    finished: datetime
    bytes: int
    status: str
    since: datetime | None
    """Of a base: the first moment that can be restored to."""
    until: datetime | None
    """The last one; empty: up to now."""
    without: tuple[tuple[datetime, datetime], ...] = ()
    """Times between them that cannot be restored from it."""

    @classmethod
    def of(cls, row: dict[str, Any]) -> Backup:
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
        }


def now(workspace: Workspace, kind: Kind) -> None:
    """Make a backup. Raises ProjectError when it fails; what was there before is there still."""
    with (
        lock.held(workspace, "backup"),
        _container(known.of(workspace)) as container,
        workspace.reporter.task(f"Backup ({kind})") as task,
    ):
        run(container, ["now", "--kind", kind], task)


def backups(workspace: Workspace) -> tuple[list[Backup], list[str]]:
    """Return the backups, newest first, and the volumes with the data from before a restore."""
    environment = known.of(workspace)
    with _container(environment) as container:
        rows = json.loads(run(container, ["list", "--json"], Task("list")))
        kept = set_aside(cast("docker.DockerClient", container.client), environment)
    return sorted(map(Backup.of, rows), key=lambda each: each.finished, reverse=True), kept


def drill(workspace: Workspace) -> dict[str, Any]:
    """Restore the newest backup beside everything and return what was measured. Raises ProjectError when it fails."""
    with (
        lock.held(workspace, "drill"),
        _container(known.of(workspace)) as container,
        workspace.reporter.task("Restore drill") as task,
    ):
        return dict(json.loads(run(container, ["drill", "--json"], task)))


BEFORE = "-before-restore-"
"""In the name of a volume that was set aside: `samokoder-staging-postgres-before-restore-20261123T100500Z`."""
IMPORTED = "-from-compose-"
"""In the name of a volume that an import has made ready to be put in the place of the data."""

RESTORED = "-restored-"
"""In the name of one that a restore fills, and that is gone once that has come to its end."""
STAMP = "%Y%m%dT%H%M%SZ"
"""At the end of both: when the restore was begun."""


def made_by_restores(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores and imports have made and not removed, the newest last."""
    # The whole name, and a server is one word: `staging` must not be given what belongs to `staging-2`.
    ours = re.compile(rf"{re.escape(environment.prefix)}-[a-z]+({BEFORE}|{RESTORED}|{IMPORTED})\d{{8}}T\d{{6}}Z")
    found = (str(volume.name) for volume in client.volumes.list(filters={"name": f"{environment.prefix}-"}))
    return sorted(filter(ours.fullmatch, found), key=begun)


def set_aside(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores have set aside, the newest last."""
    return [name for name in made_by_restores(client, environment) if BEFORE in name]


def begun(volume: str) -> datetime:
    """Say when the restore was begun that has made a volume."""
    return datetime.strptime(volume.rpartition("-")[2], STAMP).replace(tzinfo=UTC)


def run(container: Container, words: Sequence[str], task: Task) -> str:
    """Run the backup program in its container; return its standard output. `task` shows its progress.

    Raises ProjectError with what it said last. It goes on when we are interrupted: a backup is better finished.
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
    with _streams(api.exec_start(made["Id"], socket=True)) as chunks:
        out, err = read(chunks, task)
    check(words, containers.exec_status(api, made["Id"]), err)
    return out


def run_once(
    client: docker.DockerClient,
    image: str,
    command: Sequence[str],
    *,
    task: Task,
    check: Callable[[int, Sequence[str]], None],
    **options: Any,
) -> str:
    """Run a command in a container of its own, which is removed, and return its standard output.

    It has no network, unless an option says otherwise, and can change nothing but what is mounted in it. `task` shows
    its progress. check: gets its exit status and what it said, and raises. options: of the SDK's `containers.create`.
    """
    container: Container = client.containers.create(
        image,
        list(command[1:]),
        entrypoint=[command[0]],
        read_only=True,
        init=True,
        cap_drop=["ALL"],
        security_opt=[NO_NEW_PRIVILEGES],
        healthcheck={"test": ["NONE"]},
        **{"network_mode": "none", "dns_search": [NO_SEARCH_DOMAIN], **options},
    )
    try:
        with attached(container) as chunks:
            container.start()
            out, err = read(chunks, task)
        check(container.wait()["StatusCode"], err)
    finally:
        container.remove(force=True, v=True)
    return out


def attached(container: Container) -> AbstractContextManager[Chunks]:
    """Give both streams of a container that is about to start, so that no line is missed."""
    return _streams(container.attach_socket(params={"stdout": 1, "stderr": 1, "stream": 1}))


@contextmanager
def _streams(socket: Any) -> Iterator[Chunks]:
    try:
        yield ((text, None) if number == 1 else (None, text) for number, text in containers.frames(socket))
    finally:
        # Where the SDK reads the streams itself it leaves the open socket in a circle with its answer, to the garbage
        # collector.
        socket._response.close()  # noqa: SLF001 - there is no other way to it


def read(chunks: Chunks, task: Task) -> tuple[str, list[str]]:
    """Read both streams to their end; each whole line of standard error is what the task does just now."""
    out, rest, lines = b"", b"", list[str]()
    for said, told in chunks:
        out += said or b""
        *whole, rest = (rest + (told or b"")).split(b"\n")
        lines += [text for line in whole if (text := line.decode(errors="replace").strip())]
        if lines:
            task.detail = lines[-1]
    if rest.strip():
        lines.append(rest.decode(errors="replace").strip())
    return out.decode(errors="replace"), lines


def check(words: Sequence[str], status: int, told: Sequence[str]) -> None:
    """Raise ProjectError unless a run of the backup program has ended well."""
    if status == _REFUSED:
        raise ProjectError(told[-1] if told else f"`{PROGRAM} {' '.join(words)}` refuses.")
    if status:
        said = "\n".join(told[-_LAST_LINES:]) or "(it said nothing)"
        raise ProjectError(f"`{PROGRAM} {' '.join(words)}` failed ({status}):\n{said}")


@contextmanager
def _container(environment: known.Known) -> Iterator[Container]:
    client = environment.client(timeout=ANSWER_SECONDS)
    try:
        yield containers.find(client, environment, PART)
    finally:
        client.close()
