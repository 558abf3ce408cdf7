"""Makes small machines (`world.py`), and lets the real restores and imports work on them."""

from __future__ import annotations

import itertools
import json
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from operations.data import volume_names
from operations.data.compose import import_compose, import_on_engine, old_volumes
from operations.data.restore import mending, on_engine
from operations.data.restore.actions import PRESENT, Up
from operations.data.restore.request import DATA, Mend, Server
from operations.data.volume_names import STAMP
from operations.engine import one_off
from operations.errors import ProjectError
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis_part
from stack.settings.environment import Environment
from tests.backup_image.world import (
    DATABASE,
    OFFSITE,
    PASSWORD,
    PORT,
    REDIS_PORT,
    SOCKETS,
    SUPERUSER,
    Agent,
    Here,
    World,
    postgres_command,
    redis_command,
)

NEVER = "0 0 1 1 *"
REFUSED = "PostgreSQL gives no base backup today"
"""What `shifted.py` lets the program say while it is so."""


class Hands(on_engine.EngineRestore):
    """A restore's own engine: its commands run in the one container, and its parts are processes."""

    def __init__(self, world: World) -> None:
        super().__init__(world.workspace.client(), world.environment, world.workspace.reporter, lambda: None)
        self.world = world

    def data_of(self, server: Server) -> str:
        return self.environment.data_volume(server)

    def there(self, name: str) -> bool:
        return True  # a machine has all of its servers, running or not

    def bring_up(self, server: Server) -> bool:
        self.world.call(["true"])
        lost = self.world.lost(server)
        if lost:
            self.world.start_all(empty=True)
            self.world.call(["true"])
        return lost

    def stamp(self) -> str:
        there = volume_names.made_by_restores(self.client, self.environment)
        now = datetime.now(UTC) + timedelta(seconds=self.world.ahead)
        while any(volume.endswith(f"{now:{STAMP}}") for volume in there):
            now += timedelta(seconds=1)
        return f"{now:{STAMP}}"

    def _once(self, command: Sequence[str], volumes: Mapping[str, tuple[str, bool]], **_: Any) -> str:
        return once(self.world, command, volumes, partial(one_off.check, command[1:]))

    def mend(self, way: Mend, into: str = "") -> dict[str, str]:
        script = Path(mending.__file__).with_name("repair_redis.sh").read_text(encoding="utf-8")
        volumes, folder = {"/from": (self.data_of("redis"), True), DATA["redis"]: (into, False)}, DATA["redis"]
        said = once(self.world, ["sh", "-c", script, "sh", "/from", folder, way], volumes, mending._check)
        return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)

    def _server(self, fields: Sequence[str], do: Callable[[str], None]) -> None:
        for name in fields:
            if name in ("postgres", "redis", "backup"):
                self.world.call(["true"])
                do(name)

    def stop(self, fields: Sequence[str]) -> tuple[str, ...]:
        ran = list[str]()

        def stop(name: str) -> None:
            # After the call of `_server`, in which somebody may have started it.
            ran.extend([name] if self.world.running(name) else [])
            self.world.stop(name)

        self._server(fields, stop)
        return tuple(ran)

    def start(self, fields: Sequence[str]) -> None:
        if "postgres_roles" in fields:
            words = ["-XAtq", "-h", SOCKETS, "-U", SUPERUSER, "-d", "postgres", "-f", "/world/conf/roles.sql"]
            self.world.agent.run("psql", *words)
        self._server(fields, self.world.start)

    def own_password(self) -> None:
        self.world.call(["true"])
        text = f"ALTER ROLE {SUPERUSER} PASSWORD '{PASSWORD}'"
        self.world.agent.run("psql", "-XAtq", "-h", SOCKETS, "-U", SUPERUSER, "-d", "postgres", "-c", text)

    def new_backup(self) -> None:
        self.world.call(["true"])
        end = time.monotonic() + 300
        while (done := self.world.program("now", "--kind", "base", check=False))["status"]:
            if time.monotonic() > end or REFUSED in done["err"]:
                raise ProjectError(f"no backup of what was restored: {done['err']}")
            time.sleep(1)


class OldStack(import_on_engine.EngineImport):
    """An import's own engine, in the same way."""

    def __init__(self, client: Any, environment: Environment, workspace: Here, up: Up) -> None:
        super().__init__(client, environment, workspace, up)
        self.world: World = workspace.world

    def volumes(self, project: str) -> list[str]:
        return [name for name in self.world.volumes() if name.startswith(f"{project}_")]

    def projects(self) -> list[str]:
        return ["old"]

    def users(self, volume: str) -> list[str]:
        return []

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        program = Path(old_volumes.__file__).read_text(encoding="utf-8")
        found = json.loads(self.world.call(["python3", "-c", program, f"{self.world.root}/old"])["out"])
        return {name: found[name] for name in volumes}

    def _once(
        self, title: str, part: str, command: Sequence[str], volumes: Mapping[str, tuple[str, bool]], **_: Any
    ) -> str:
        return once(self.world, command, volumes, partial(import_on_engine._check, title))


def once(
    world: World,
    command: Sequence[str],
    volumes: Mapping[str, tuple[str, bool]],
    check: Callable[[int, list[str]], None],
) -> str:
    """Run what would be a container's command; its mounts are the volumes' folders, which an engine makes."""
    paths = {mount: world.path(volume) for mount, (volume, _) in volumes.items()}
    for folder in paths.values():
        world.agent.run("mkdir", "-p", "-m", "0700", folder)
    if command[0] == one_off.PROGRAM:
        store, words = paths[DATA["backup"]], [paths.get(word, word) for word in command[1:]]
        present = f"PRESENT={paths.get(PRESENT, '/nothing')}"
        shifted = ["python3", "/test/shifted.py", store, world.settings_for(words), str(world.ahead)]
        command = ["env", present, *shifted, *words]
    else:
        mounts = sorted(paths, key=len, reverse=True)
        for mount in mounts:
            command = [paths[mount] + word.removeprefix(mount) if in_mount(word, mount) else word for word in command]
    done = world.call(command)
    check(done["status"], [line for line in done["err"].splitlines() if line.strip()])
    return str(done["out"])


def in_mount(word: str, mount: str) -> bool:
    return word == mount or word.startswith(f"{mount}/")


def patch(monkeypatch: Any) -> None:
    """Let restores and imports of a small machine work on it."""

    @contextmanager
    def engine(_: Environment, workspace: Here, _up: object = None) -> Iterator[Hands]:
        yield Hands(workspace.world)

    monkeypatch.setattr(on_engine, "engine_of", engine)
    monkeypatch.setattr(import_compose, "EngineImport", OldStack)


@dataclass
class Machines:
    """Makes small machines that have run for a while: their first backups are there."""

    agent: Agent
    folder: Path
    first: dict[str, str] = field(default_factory=dict)
    """The dump and the copy of Redis that each of them begins with, and of which kind they are."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def prepare(self) -> None:
        """Make what each of them begins with."""
        agent = self.agent
        verifier = postgres_roles.scram_verifier(PASSWORD, "salt")
        app = {postgres.APP_ROLE: verifier}
        # A machine of a test has little memory to give, and many of these.
        conf = postgres.postgresql_conf(256, 50, 256).replace("shared_preload_libraries = 'pg_stat_statements'", "")
        files = {
            "postgresql.conf": f"{conf}\nfsync = off\nmin_wal_size = 32MB\n",
            "pg_hba.conf": f"local all all trust\n{postgres.pg_hba_conf(DATABASE, SUPERUSER)}",
            "pg_ident.conf": postgres.pg_ident_conf(SUPERUSER),
            "roles.sql": postgres_roles.roles_sql(
                DATABASE, app=app, exporter=verifier, backup=verifier, replication=True
            ),
        }
        for folder, copies in (("backup", NEVER), ("each-minute", "* * * * *")):
            files |= {
                f"{folder}/backup.json": json.dumps(backup_settings(copies)),
                f"{folder}/postgres_password": PASSWORD,
                f"{folder}/redis_password": PASSWORD,
            }
        bucket = {"endpoint": "http://127.0.0.1", "bucket": "copies", "prefix": "", "region": "", "sync_minutes": 5}
        files["offsite/backup.json"] = json.dumps(backup_settings(NEVER) | {"offsite": bucket | {"keep_days": 0}})
        secret = ("postgres_password", "redis_password", "encryption_key", "offsite_access_key_id")
        files |= {f"offsite/{name}": PASSWORD for name in (*secret, "offsite_secret_access_key")}
        agent.sh("mkdir -p /world/conf/backup /world/conf/each-minute $1 $2", SOCKETS, OFFSITE)
        for name, text in files.items():
            agent.run("tee", f"/world/conf/{name}", stdin=text)
        world = World(agent, self.folder / "first", "/world/first")
        world.set_postgres_clock(0.0)
        agent.sh("mkdir -p $1/volumes $1/old", world.root)
        for server in ("redis", "backup"):
            agent.sh("mkdir -p $1", world.data(server))
        for folder in (world.data("postgres"), world.path("old_postgres_data")):
            world.begin_postgres(folder)
            agent.ask("start", name="postgres", command=postgres_command(folder, PORT, "/world/conf"))
            agent.sh("until pg_isready -q -h $1; do sleep 0.1; done", SOCKETS)
            if folder == world.data("postgres"):
                world.start("redis")
                world.redis("set", "wfirst", "1")
                world.sql("INSERT INTO public.writes VALUES ('first')")
                world.start("backup")
                self._first_backups(world)
                for name in ("redis", "postgres", "backup"):
                    world.stop(name)
            else:
                world.sql("INSERT INTO public.writes VALUES ('old-first')")
                world.stop("postgres")
        old = world.path("old_redis_data")
        agent.sh("mkdir -p $1", old)
        self.in_old_redis(old, "set", "wold-first", "1")

    def in_old_redis(self, folder: str, *words: str) -> None:
        """Write to the old stack's Redis, which is stopped again."""
        self.agent.ask("start", name="old", command=redis_command(folder, REDIS_PORT + 1))
        self.agent.sh(f"until redis-cli -p {REDIS_PORT + 1} ping > /dev/null 2>&1; do sleep 0.05; done")
        self.agent.run("redis-cli", "-p", str(REDIS_PORT + 1), *words)
        self.agent.ask("stop", name="old", signal=int(signal.SIGTERM))

    def _first_backups(self, world: World) -> None:
        end = time.monotonic() + 1200
        while {each["kind"] for each in world.listed() if each["status"] == "good"} != {"base", "dump", "redis"}:
            assert time.monotonic() < end, self.agent.sh("tail -n 30 /world/backup.log")
            time.sleep(1)
        self.first = {each["id"]: each["kind"] for each in world.listed() if each["kind"] != "base"}
        while "drill" not in self.agent.sh("cat $1/state.json", world.data("backup")):
            assert time.monotonic() < end, self.agent.sh("tail -n 30 /world/backup.log")
            time.sleep(1)

    def new(self) -> World:
        """Make one, and bring it up."""
        number = next(self._numbers)
        world = World(self.agent, self.folder / str(number), f"/world/{number}")
        self.agent.sh("cp -a /world/first $1", world.root)
        world.set_postgres_clock(0.0)
        world.up()
        return world

    def end(self, world: World) -> None:
        for name in ("postgres", "redis", "backup", "drill"):
            self.agent.ask("stop", name=name, signal=int(signal.SIGKILL))
        self.agent.ask("kill")
        self.agent.sh("rm -rf $1 /world/*.log /dev/shm/PostgreSQL.* /dev/shm/*faketime*", world.root)
        shutil.rmtree(world.folder)


@contextmanager
def one_machine(image: str, folder: Path, *options: str) -> Iterator[World]:
    """Make one machine by itself, whose restores and imports are the real ones. options: of `docker run`."""
    agent = Agent(image, f"samokoder-test-{secrets.token_hex(4)}", *options)
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            patch(monkeypatch)
            machines = Machines(agent, folder)
            machines.prepare()
            yield machines.new()
    finally:
        agent.close()


def backup_settings(copies: str) -> dict[str, Any]:
    """Settings of a backup server that does nothing by its schedule, but for copies of Redis."""
    here = {"host": "127.0.0.1", "user": postgres.BACKUP_ROLE}
    return {
        "postgres": {**here, "port": PORT, "database": DATABASE, "sslmode": "disable"},
        "superuser": SUPERUSER,
        "session_options": postgres.PINNED_OPTIONS,
        "physical": True,
        "slot": postgres.BACKUP_ROLE,
        "redis": {"host": "127.0.0.1", "port": REDIS_PORT, "user": redis_part.BACKUP_USER, "tls": False},
        "workspace": None,
        "schedules": dict.fromkeys(("base", "dump", "workspace", "verify", "drill"), NEVER) | {"redis": copies},
        "recovery_window_days": 7,
        "dumps": {"latest": 4, "daily": 7, "weekly": 4, "monthly": 6},
        "redis_copies": 48,
        "workspace_copies": 7,
        "max_slot_wal_mib": 256,
        "offsite": None,
    }
