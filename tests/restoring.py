"""A restore's engine and its workspace as plain values: each call can be the one at which the process ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from docker.errors import NotFound

from operations.data.restore import on_engine, restore
from operations.data.restore.actions import never
from operations.data.restore.journal import Journal
from operations.data.restore.request import DATA, Server, Wanted
from operations.data.restore.steps import Restore, Restored
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.stack_file import stand_in
from stack.settings.environment import Environment
from stack.settings.reading import read_environment
from tests.recording import wire_config

STAMP = "20261123T100500Z"
UNRELEASED = "not released: "
OFFSITE = {"samokoder:backup": {"offsite": {"endpoint": "https://s3.example.org", "bucket": "backups"}}}
SECRETS = ("samokoder:s3AccessKeyId", "samokoder:s3SecretAccessKey")
USERS = {
    "postgres": {"postgres_roles", "migrations", "api", "worker", "postgres_exporter", "backup", "drill"},
    "redis": {"redis_users", "api", "worker", "redis_exporter"},
    "workspace": {"api", "worker"},
    "backup": {"drill"},
}


@cache
def environment(*, offsite: bool = False) -> Environment:
    if not offsite:
        return read_environment("staging", {})
    secret = {key: stand_in(key) for key in SECRETS}
    return read_environment("staging", wire_config({**OFFSITE, **secret}), frozenset(secret))


class CutOffError(BaseException):
    """What ends us at any moment, as a Ctrl-C or a machine without power does."""


@dataclass
class FakeEngine:
    """Volumes as texts, and which parts run. `cut`: the call, or the middle of one, at which we end."""

    volumes: dict[str, str] = field(
        default_factory=lambda: {
            "samokoder-staging-postgres-data": "old rows",
            "samokoder-staging-redis-data": "old keys",
            "samokoder-staging-workspace-data": "old files",
            "samokoder-staging-backup-data": "backups",
        }
    )
    running: set[str] = field(
        default_factory=lambda: {"postgres", "redis", "workspace", *USERS["postgres"], *USERS["redis"]}
    )
    done: list[str] = field(default_factory=list)
    compared: list[tuple[str, str]] = field(default_factory=list)
    """Runs of the backup program that were given what PostgreSQL has now, and in which volume."""
    cut: int = -1
    free: int = 10**9
    refuses: str = ""
    key: str = "of before"
    removed: bool = False
    """Whether the containers are."""
    unmade: set[str] = field(default_factory=set)
    """Parts without a container, because an `up` has failed before them."""

    def _now(self) -> None:
        self.cut -= 1
        if self.cut == 0:
            raise CutOffError

    def data_of(self, server: Server) -> str:
        return f"samokoder-staging-{server}-data"

    def bring_up(self, server: Server) -> bool:
        self._now()
        if self.data_of(server) in self.volumes and server not in self.unmade:
            return False
        if server in self.unmade:
            self.done.append("up")
            self.volumes[self.data_of(server)] += " and what was written then"
            self.unmade = set()
        else:
            self.done.append(f"up with an empty {server}")
            self.volumes[self.data_of(server)] = "empty"
        self._now()
        self.running |= {server, *USERS[server]}
        return True

    def complete(self) -> None:
        self._now()
        if self.unmade:
            assert "postgres" in self.running or "postgres_roles" not in self.unmade, "`up` would fail again"
            self.done.append("up")
            self.running |= self.unmade
            self.unmade = set()

    def there(self, server: Server) -> bool:
        self._now()
        return not self.removed

    def make(self, volume: str) -> None:
        self._now()
        self.volumes.setdefault(volume, "")

    def program(self, *words: str, store: str, into: str = "", present: str = "", online: bool = False) -> None:
        self._now()
        self.done.append(" ".join(words))
        self.compared += [(words[0], present)] if present else []
        if self.refuses and self.refuses in words:
            raise ProjectError("refused")
        if words[:2] == ("offsite", "pull"):
            assert online, "a bucket is outside"
            if self.volumes[store]:
                raise ProjectError("/backups has backups in it already")
            self.volumes[store] = "half"
            self._now()
            self.volumes[store] = "backups of elsewhere"
            self._now()
        elif words[0] == "restore":
            assert not online, "a restore is alone"
            assert self.volumes[into] == "", "a folder with something in it is refused"
            self.volumes[into] = "half"
            self._now()
            rows = f" with {self.volumes.get(self.data_of('postgres'), '')}" if store == self.data_of("backup") else ""
            latest = rows if "--latest" in words else ""  # the log has what was written until now
            self.volumes[into] = f"{' '.join(words[1:-2])} out of {self.volumes[store]}{latest}"

    def mend(self, way: str, into: str = "") -> dict[str, str]:
        self._now()
        if self.refuses == way:
            raise ProjectError(f"not by {way}")
        if into:
            assert not self.running & {"redis", *USERS["redis"]}, "somebody writes while the data is copied"
            assert self.volumes[into] == "", "a folder with something in it is refused"
            self.volumes[into] = "half"
            self._now()
            self.volumes[into] = f"{self.volumes[self.data_of('redis')]} mended by {way}"
        return {}

    def sizes(self, volume: str) -> tuple[int, int]:
        self._now()
        return len(self.volumes.get(volume, "")), self.free

    def stamp(self) -> str:
        taken = {name.rpartition("-")[2] for name in self.volumes}
        return next(each for n in range(60) if (each := STAMP.replace("00Z", f"{n:02}Z")) not in taken)

    def whole(self, volume: str, server: Server) -> bool:
        """Of every server as `WHOLE` says it, which a test compares."""
        self._now()
        text = self.volumes.get(volume, "")
        return text not in {"", "half"} and not text.startswith(UNRELEASED)

    def write(self, text: str) -> None:
        """What an application that runs is told is kept."""
        assert {"postgres", "api"} <= self.running, "nobody would have acknowledged it"
        self.volumes[self.data_of("postgres")] += f", {text}"

    def up(self) -> None:
        """What `make up` does while no data is half replaced."""
        self.running |= {"postgres", "redis", "workspace", *USERS["postgres"], *USERS["redis"]}

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        self._now()
        if "-data" in target or "-before-" in target:
            server = target.split("-")[2]
            assert not self.running & {server, *USERS[server]}, "somebody writes while the data is copied"
        if whole and self.volumes.get(source, "") in {"", "half"}:
            raise ProjectError(f"{source} is not whole")
        self.volumes[target] = "half"
        self._now()
        self.volumes[target] = (UNRELEASED if whole else "") + self.volumes[source]

    def release(self, volume: str) -> None:
        self._now()
        if volume in self.volumes:
            self.volumes[volume] = self.volumes[volume].removeprefix(UNRELEASED)
            self._now()

    def stop(self, fields: Sequence[str]) -> tuple[str, ...]:
        self._now()
        ran = tuple(name for name in fields if name in self.running)
        self.done += [f"stop {name}" for name in ran]
        self.running -= set(fields)
        return ran

    def start(self, fields: Sequence[str]) -> None:
        self._now()
        for name in (each for each in fields if each not in self.unmade):
            if name in DATA:
                text = self.volumes[self.data_of(cast("Server", name))]
                assert text != "half", "it would serve half of its data"
                assert not text.startswith(UNRELEASED), "it does not start on it"
            if name == "postgres_roles":
                assert self.key == "of this stack", "the keeper would not get in"
            self.done.append(f"start {name}")
            self.running.add(name)

    def own_password(self) -> None:
        self._now()
        assert "postgres" in self.running
        self.key = "of this stack"

    def new_backup(self) -> None:
        self._now()
        assert "backup" in self.running, "it has no container"
        self.done.append("a new backup")

    def remove(self, volume: str) -> None:
        self._now()
        assert "-restored-" in volume, "nothing but what was made on the way is ever removed"
        self.volumes.pop(volume, None)


def restoring(engine: FakeEngine, path: Path, asked: Wanted) -> Restore:
    """The restore that a command would go on with, or begin."""
    journal = Journal.read(path) or Journal(wanted=asked, stamp=STAMP)
    journal.write(path)
    return Restore(environment(), engine, journal, path, lambda _: None)


ASKED = {
    "a moment": Wanted(to="2026-11-23T07:05:00+00:00"),
    "the latest": Wanted(backup="latest"),
    "a dump": Wanted(backup="dump-20261123T031500Z"),
    "redis": Wanted(backup="redis-20261123T030000Z"),
    "the workspace": Wanted(backup="workspace-20261123T040000Z"),
    "a repair": Wanted(mend="cut"),
    "off-site": Wanted(backup="latest", source="offsite"),
    "redis off-site": Wanted(backup="redis-20261123T030000Z", source="offsite"),
    "what was set aside": Wanted(source="samokoder-staging-postgres-before-restore-20261122T000000Z"),
    "files that were set aside": Wanted(source="samokoder-staging-workspace-before-restore-20261122T000000Z"),
    "backups that were set aside": Wanted(source="samokoder-staging-backup-before-restore-20261122T000000Z"),
}


@dataclass
class Volumes:
    """The SDK's volumes, of an engine; those with labels are locks."""

    given: Given
    labelled: dict[str, dict[str, str]] = field(default_factory=dict)

    def list(self, *, filters: dict[str, str] | None = None) -> list[SimpleNamespace]:
        if filters and "label" in filters:
            name, _, value = filters["label"].partition("=")
            found = {each: labels for each, labels in self.labelled.items() if labels.get(name) == value}
            return [SimpleNamespace(name=each, attrs={"Labels": labels}) for each, labels in found.items()]
        return [SimpleNamespace(name=each) for each in (*self.given.engine.volumes, *self.labelled)]

    def create(self, name: str, labels: dict[str, str]) -> None:
        self.labelled[name] = labels

    def get(self, name: str) -> SimpleNamespace:
        if name not in self.labelled:
            raise NotFound(name)
        return SimpleNamespace(remove=lambda: self.labelled.pop(name))


@dataclass
class Given:
    """A workspace in a folder of its own, with a fake engine."""

    engine: FakeEngine
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    name: str = "staging"
    said: list[str] = field(default_factory=list)
    client: Any = None
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def reporter(self) -> Any:
        return SimpleNamespace(say=self.said.append)

    def typed(self, words: str) -> str:
        return f"make {words}"

    def settings(self) -> Environment:
        return environment(offsite=bool(self.config))

    def restore(self, **asked: str) -> Restored:
        return restore.restore(cast("Any", self), up=never, **asked)

    def put_by_an_import(self, source: str = "") -> Restored:
        return restore.put_imported(cast("Any", self), source, never, lambda: None)


def on_a_fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, processes: bool = False) -> Given:
    """A workspace whose engine is the fake one. processes: whether a Pulumi is looked for among this machine's.

    A lock that is taken over reads all of them, which takes longer than all else of a restore here.
    """
    made = Given(FakeEngine(), tmp_path)
    client = SimpleNamespace(
        volumes=Volumes(made),
        containers=SimpleNamespace(list=lambda **_: []),
        close=lambda: None,
    )

    def fake(given_client: object, *_: object) -> FakeEngine:
        made.engine.client = given_client  # type: ignore[attr-defined]
        return made.engine

    made.client = lambda **_: client
    monkeypatch.setattr(on_engine, "EngineRestore", fake)
    if not processes:
        monkeypatch.setattr(lock, "pulumi_of", lambda *_: [])
    return made
