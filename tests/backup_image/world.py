"""A small machine: PostgreSQL, Redis and the backup program over folders that stand for volumes, in one container.

The real restore, import, journal and lock run on it, with their own scripts; only the engine's containers are processes
here. So a whole restore takes seconds, and hundreds of orders of events can be tried.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from docker.errors import NotFound

from operations.clone import ROOT
from operations.data import volume_names
from operations.data.compose import import_compose
from operations.data.repair import collations
from operations.data.restore import restore, unfinished
from operations.data.restore.actions import never
from operations.engine import one_off
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.parts.postgres import spec as postgres
from stack.parts.postgres.collations import OUTDATED
from stack.parts.redis import users as redis_users
from stack.settings.data import Offsite
from stack.settings.environment import Environment

DATABASE, SUPERUSER, PASSWORD = "samokoder", "postgres", "only of a test"
PORT, REDIS_PORT = 5432, 6379
SCRATCH = "/world/scratch"
OFFSITE = "/world/conf/offsite"
"""Of the backup program: the settings with a bucket, which `shifted.py` lets be a folder of the machine."""
CLOCK = "/world/conf/postgres-clock"
FAKED = "/faketime"
"""Where libfaketime is, on a machine whose PostgreSQL may have another clock."""
SOCKETS = "/world/sockets"


RECEIVED = """\
for _ in $(seq 3000); do
    for file in $1/barman/main-*/streaming/$3* $1/barman/main-*/wals/*/$3; do
        if [ -e $file ] && zcat -f $file | cmp -s -n $4 - $2; then exit 0; fi
    done
    sleep 0.1
done
echo 'nobody receives the log' >&2
exit 1
"""


class Agent:
    """The container, and how it is asked."""

    def __init__(self, image: str, name: str, *more: str, program: Path = ROOT / "backup_image") -> None:
        """Start it. more: options of `docker run`. program: the folder with the backup program."""
        here = Path(__file__).parent
        words = [
            "--rm",
            "--interactive",
            "--network=none",
            "--user=999:999",
            "--cap-drop=ALL",
            "--shm-size=256m",
            "--init",
        ]
        words += ["--tmpfs=/world:uid=999,gid=999,size=6g,exec", "--tmpfs=/tmp:mode=1777", "--env=PYTHONPATH=/app"]
        words += [f"--volume={program}:/app:ro", f"--volume={here}:/test:ro", "--entrypoint=python3"]
        # The program is read from this tree: compiled once, and not at each of its runs.
        words += ["--env=PYTHONDONTWRITEBYTECODE=", "--env=PYTHONPYCACHEPREFIX=/tmp/compiled"]
        self.name = name
        self.process = subprocess.Popen(
            ["docker", "run", f"--name={name}", *words, *more, image, "-u", "/test/agent.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._buffer, self._ids = b"", itertools.count()

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Ask for one thing; what a process that was killed has asked for is passed over."""
        assert self.process.stdin
        assert self.process.stdout
        number = f"{os.getpid()}-{next(self._ids)}"
        os.write(self.process.stdin.fileno(), json.dumps({"id": number, "do": do, **more}).encode() + b"\n")
        while True:
            while b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                with contextlib.suppress(ValueError):  # the rest of one that was read by half
                    answer: dict[str, Any] = json.loads(line)
                    if answer["id"] == number:
                        return answer
            read = os.read(self.process.stdout.fileno(), 1 << 20)
            if not read:
                raise ConnectionError("the container has ended")  # no sign of a lost write
            self._buffer += read

    def run(self, *command: str, stdin: str = "", check: bool = True, **environment: str) -> dict[str, Any]:
        done = self.ask("run", command=command, stdin=stdin, environment=environment)
        assert not check or done["status"] == 0, f"{' '.join(command)[:300]}: {done['out']}{done['err']}"
        return done

    def sh(self, script: str, *words: str, check: bool = True) -> str:
        return str(self.run("sh", "-euc", script, "sh", *words, check=check)["out"])

    @cached_property
    def clock(self) -> bool:
        """Whether PostgreSQL may have another clock: the library is there, and loads in the image."""
        year = 'LD_PRELOAD="$1" FAKETIME="$2" date +%Y 2> /dev/null'
        now, later = (self.sh(year, f"{FAKED}/libfaketime.so.1", ahead) for ahead in ("+0", "+400d"))
        return now != later

    def close(self) -> None:
        subprocess.run(["docker", "kill", self.name], capture_output=True, check=False)
        self.process.communicate()


@dataclass
class Cut:
    """The call at which the process that restores is killed: before it, in its middle or after it. `at` 0: never.

    `up`: nobody is killed; before that call somebody else brings the environment up. `hand`: somebody starts PostgreSQL
    alone, past the lock, and writes. `fails`: nobody is killed; the call ends with an error in its middle, as on a disk
    that is full.
    """

    at: int = 0
    how: str = "before"
    seconds: float = 0.0
    after: str = ""
    """The step of a restore or an import after whose end the calls are counted; empty: from the beginning."""

    def now(self, how: str) -> bool:
        if how == "before":
            self.at -= 1
        return self.at == 0 and self.how == how


@dataclass
class Volumes:
    """The SDK's volumes: folders, and locks, which are files on this side."""

    world: World

    def _locks(self) -> dict[str, dict[str, str]]:
        return {path.name: json.loads(path.read_text()) for path in self.world.locks.iterdir()}

    def list(self, *, filters: Mapping[str, str] | None = None) -> list[SimpleNamespace]:
        labels = self._locks()
        if filters and "label" in filters:
            name, _, value = filters["label"].partition("=")
            found = {each: has for each, has in labels.items() if has.get(name) == value}
            return [SimpleNamespace(name=each, attrs={"Labels": has}) for each, has in found.items()]
        return [SimpleNamespace(name=each) for each in (*self.world.volumes(), *labels)]

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        if labels:
            (self.world.locks / name).write_text(json.dumps(labels))
        else:
            self.world.agent.run("mkdir", "-p", "-m", "0700", self.world.path(name))

    def get(self, name: str) -> SimpleNamespace:
        if (lock := self.world.locks / name).exists():
            return SimpleNamespace(remove=lock.unlink)
        if name not in self.world.volumes():
            raise NotFound(name)
        return SimpleNamespace(remove=lambda: self.world.agent.run("rm", "-rf", self.world.path(name)))


@dataclass(frozen=True, kw_only=True)
class Here(Workspace):
    """A workspace whose engine is the small machine."""

    world: Any = None

    def settings(self, *, on_this_machine: bool = True) -> Environment:
        found = super().settings(on_this_machine=on_this_machine)
        bucket = Offsite(endpoint="https://s3.example.org", bucket="copies", prefix="", region="us-east-1")
        backup = found.settings.backup.model_copy(update={"offsite": bucket})
        return found.model_copy(update={"settings": found.settings.model_copy(update={"backup": backup})})

    def client(self, *, timeout: float = 0) -> Any:
        del timeout
        # Of a run that was killed: what it had asked for goes on.
        left = SimpleNamespace(name="what was asked for", remove=lambda **_: self.world.agent.ask("kill"))
        label = f"{one_off.RESTORE}={self.environment}"
        containers = SimpleNamespace(list=lambda filters, **_: [left] if filters == {"label": label} else [])
        return SimpleNamespace(volumes=Volumes(self.world), containers=containers, close=lambda: None)


@dataclass
class World:
    """One machine from its beginning to its end."""

    agent: Agent
    folder: Path
    """On this side: the journal, and the locks."""
    root: str
    """In the container."""
    ahead: float = 0.0
    """Seconds that the clock of the backup program, and of who restores, is ahead."""
    cut: Cut = field(default_factory=Cut)
    settings: str = "/world/conf/backup"
    """Of the backup program: a folder in the container."""

    def __post_init__(self) -> None:
        self.locks.mkdir(parents=True)
        self.workspace = Here(environment="staging", home=self.folder / "home", isolated=True, world=self)
        self.environment: Environment = self.workspace.settings()

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def path(self, volume: str) -> str:
        return f"{self.root}/{'old' if volume.startswith('old_') else 'volumes'}/{volume}"

    def volumes(self) -> list[str]:
        return self.agent.sh(f"ls {self.root}/volumes {self.root}/old | grep -v : || :").split()

    def data(self, server: str) -> str:
        return self.path(self.environment.data_volume(server))

    # What runs

    def running(self, name: str) -> bool:
        return bool(self.agent.ask("alive", name=name)["status"])

    def serves(self) -> bool:
        return all(map(self.running, ("postgres", "redis", "backup")))

    def stop(self, name: str) -> None:
        numbers = {"postgres": signal.SIGINT, "redis": signal.SIGTERM, "backup": signal.SIGTERM}
        self.agent.ask("stop", name=name, signal=int(numbers[name]))
        if name == "backup":
            self.agent.ask("stop", name="drill", signal=int(signal.SIGKILL))

    def start(self, name: str) -> None:
        """Start a server as its container does: never on half of its data."""
        if self.running(name):
            return
        self.agent.ask("stop", name=name, signal=int(signal.SIGKILL))
        self._begin(name)
        data = self.data(name)
        program = ["python3", "/test/shifted.py", data, self.settings, str(self.ahead)]
        command = {
            "postgres": [*self._clock(), *postgres_command(data, PORT, "/world/conf")],
            "redis": redis_command(data, REDIS_PORT),
            "backup": [*program, "run"],
        }[name]
        if name == "backup":
            # A part of its own in a stack.
            self.agent.ask("stop", name="drill", signal=int(signal.SIGKILL))
            self.agent.ask("start", name="drill", command=[*program, "serve-drill"])
        self.agent.ask("start", name=name, command=command)
        ready: dict[str, Callable[[], bool]] = {
            "postgres": lambda: self._says_yes("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(PORT)),
            "redis": lambda: self._says_yes("redis-cli", "-p", str(REDIS_PORT), "ping"),
            "backup": lambda: bool(self.agent.ask("answers", port=9188)["status"]),
        }
        end = time.monotonic() + 300
        while not ready[name]():
            if not self.running(name) or time.monotonic() > end:
                log = self.agent.sh(f"tail -n 15 /world/{name}.log")
                raise ProjectError(f"{name} does not start: {log}")
            time.sleep(0.1)
        if name == "redis":
            made = redis_users.users_commands(app=[PASSWORD], exporter=PASSWORD, backup=PASSWORD).splitlines()
            # The default user stays: the test asks as that one.
            self.redis(stdin="".join(f"{line}\n" for line in made if line.startswith("ACL SETUSER samokoder_")))

    def _clock(self) -> list[str]:
        """What lets PostgreSQL have a clock of its own, which can be set while it runs."""
        if not self.agent.clock:
            return []
        how = {"LD_PRELOAD": f"{FAKED}/libfaketime.so.1", "FAKETIME_TIMESTAMP_FILE": CLOCK, "FAKETIME_NO_CACHE": "1"}
        how |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        return ["env", *(f"{name}={value}" for name, value in how.items())]

    def set_postgres_clock(self, ahead: float) -> None:
        self.agent.run("tee", CLOCK, stdin=f"{ahead:+.0f}")

    def _says_yes(self, *command: str) -> bool:
        return int(self.agent.run(*command, check=False)["status"]) == 0

    def _begin(self, name: str) -> None:
        """What its image does before the server itself."""
        data = self.data(name)
        if self.lost(name):
            raise ProjectError(f"The volume {data} is gone: make restore BACKUP=latest, or make up EMPTY={name}")
        if self.agent.run("test", "-e", f"{data}/.samokoder-copying", check=False)["status"] == 0:
            raise ProjectError(f"{name} does not start: {self.agent.sh('cat $1/.samokoder-copying', data)}")
        if name == "postgres" and not self.agent.sh("ls -A $1", data):
            self.begin_postgres(data)  # as its image does

    def lost(self, server: str) -> bool:
        return self.environment.data_volume(server) not in self.volumes()

    def up(self, *, empty: bool = False) -> None:
        """What `make up` does where all containers are there. empty: `EMPTY=postgres`."""
        with lock.held(self.workspace, "up"):
            unfinished.refuse_half_replaced(self.workspace)
            unfinished.give_own_password(self.workspace)
            self.start_all(empty=empty)

    def start_all(self, *, empty: bool = False) -> None:
        if empty and self.lost("postgres"):
            self.begin_postgres(self.data("postgres"))
        self.start("postgres")
        # The keeper of the roles comes in by the superuser's password, and all others wait for it.
        words = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(PORT), "-U", SUPERUSER, "-d", "postgres"]
        kept = self.agent.run(*words, "-f", "/world/conf/roles.sql", check=False, PGPASSWORD=PASSWORD)
        if kept["status"]:
            raise ProjectError(f"postgres-roles is not healthy: {kept['err']}")
        for name in ("redis", "backup"):
            self.start(name)

    def up_elsewhere(self) -> None:
        """Let a second person bring it up in another clone, and somebody write, while this process restores."""
        other = replace(self.workspace, home=self.folder / "elsewhere")
        name = f"elsewhere-{os.getpid()}"
        try:
            with lock.held(other, "up"):
                unfinished.refuse_half_replaced(other)
                self.start_all()
                self.sql(f"INSERT INTO public.writes VALUES ('{name}')")
        except ProjectError:
            return
        (self.folder / name).touch()

    def start_by_hand(self) -> None:
        """Let somebody start PostgreSQL's container alone, and write: no lock keeps anybody from it."""
        name = f"elsewhere-{os.getpid()}-by-hand"
        try:
            self.start("postgres")
        except ProjectError:
            return
        self.sql(f"INSERT INTO public.writes VALUES ('{name}')")
        (self.folder / name).touch()

    def written_elsewhere(self) -> set[str]:
        """The rows that were acknowledged to somebody whom another clone let write."""
        return {path.name for path in self.folder.glob("elsewhere-*")}

    def begin_postgres(self, folder: str) -> None:
        """Make a new cluster with the roles and the schema of this stack, and leave it stopped."""
        words = ["--data-checksums", "--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--no-sync"]
        self.agent.run("initdb", f"--pgdata={folder}", *words)
        self.agent.ask("stop", name="postgres", signal=int(signal.SIGKILL))
        self.agent.ask("start", name="postgres", command=postgres_command(folder, PORT, "/world/conf"))
        self.agent.sh("until pg_isready -q -h $1; do sleep 0.1; done", SOCKETS)
        admin = ["psql", "-XAtq", "-h", SOCKETS, "-U", SUPERUSER, "-v", "ON_ERROR_STOP=1"]
        self.agent.run(*admin, "-d", "postgres", "-c", f"CREATE DATABASE {DATABASE}")
        self.agent.run(*admin, "-d", "postgres", "-f", "/world/conf/roles.sql")
        self.agent.run(*admin, "-d", "postgres", "-c", f"ALTER ROLE {SUPERUSER} PASSWORD '{PASSWORD}'")
        table = f"SET ROLE {postgres.APP_ROLE}; CREATE TABLE public.writes (name text PRIMARY KEY)"
        self.agent.run(*admin, "-d", DATABASE, stdin=table)
        self.stop("postgres")

    # What is asked

    def sql(self, text: str) -> str:
        words = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(PORT), "-U", SUPERUSER, "-d", DATABASE]
        return str(self.agent.run(*words, "-v", "ON_ERROR_STOP=1", stdin=text, PGPASSWORD=PASSWORD)["out"]).strip()

    def redis(self, *words: str, stdin: str = "") -> str:
        return str(self.agent.run("redis-cli", "-e", "-p", str(REDIS_PORT), *words, stdin=stdin)["out"]).strip()

    def rows(self) -> set[str]:
        return set(self.sql("SELECT name FROM public.writes").split())

    def keys(self) -> set[str]:
        return set(self.redis("--scan", "--pattern", "w*").split())

    def received(self) -> None:
        """Wait until the backup server has each byte of the log of now; PostgreSQL hears of it only after seconds."""
        lsn = "pg_current_wal_flush_lsn()"
        segment, offset = self.sql(f"SELECT * FROM pg_walfile_name_offset({lsn})").split("|")
        self.agent.sh(RECEIVED, self.data("backup"), f"{self.data('postgres')}/pg_wal/{segment}", segment, offset)

    def moment(self) -> datetime:
        """A moment of now that the list of backups shows: the log goes on after it, and the backup server has that."""
        # Of a new cluster the log is received from its first base backup on, which has what was before.
        end = time.monotonic() + 300
        while self.sql("SELECT count(*) FROM pg_replication_slots WHERE active") != "1":
            assert time.monotonic() < end, "nobody is about to receive the log"
            time.sleep(0.1)
        at = datetime.fromtimestamp(float(self.sql("SELECT extract(epoch FROM clock_timestamp())")), UTC)
        self.sql("SELECT pg_logical_emit_message(true, 'test', 'goes on')")
        self.received()
        return at

    def program(self, *words: str, store: str = "", check: bool = True) -> dict[str, Any]:
        """Run the backup program as in its container."""
        store = store or self.data("backup")
        shifted = ["python3", "/test/shifted.py", store, self.settings_for(words), str(self.ahead)]
        return self.agent.run(*shifted, *words, check=check)

    def settings_for(self, words: Sequence[str]) -> str:
        """The folder with the program's settings: the service itself copies nothing off-site."""
        return OFFSITE if words[:1] in (("offsite",), ["offsite"]) else self.settings

    def copy_off_site(self) -> dict[str, Any]:
        """Copy all backups into the bucket, as the service does where it has one."""
        bucket = f"{self.root}/bucket"
        if self.agent.run("test", "-d", bucket, check=False)["status"]:
            self.agent.run("restic", "--no-cache", "-r", bucket, "-p", f"{OFFSITE}/encryption_key", "init")
        return self.program("offsite", "sync", "--adopt", check=False)

    def is_so(self, day: str, *, so: bool) -> None:
        """Let something be so on this machine that `shifted.py` knows: `no-base`, `bad-disk`."""
        self.agent.sh('if [ "$2" = True ]; then touch $1; else rm -f $1; fi', f"{self.root}/{day}", str(so))

    def restart_backup(self) -> None:
        if self.running("backup"):
            self.stop("backup")
            self.start("backup")

    def listed(self, store: str = "") -> list[dict[str, Any]]:
        return list(json.loads(self.program("list", "--json", store=store)["out"]))

    # What is in a folder that no server runs on

    def rows_in(self, folder: str) -> set[str]:
        """The rows in a data folder, which stays as it is; nothing where it is not whole."""
        return set(self.asked_in(folder, "SELECT name FROM public.writes"))

    def asked_in(self, folder: str, query: str) -> list[str]:
        """The one column of a query on a data folder, which stays as it is; nothing where it is not whole."""
        self.agent.sh(
            """\
            rm -rf $2
            [ -e $1/PG_VERSION ] && [ ! -e $1/.samokoder-copying ] || exit 0
            cp -a $1 $2
            chmod 0700 $2
            rm -f $2/postmaster.pid
            : > $2/postgresql.conf
            : > $2/postgresql.auto.conf
            """,
            folder,
            SCRATCH,
        )
        if self.agent.run("test", "-e", f"{SCRATCH}/PG_VERSION", check=False)["status"]:
            return []
        single = ["postgres", "--single", "-D", SCRATCH, "-c", "max_connections=50", DATABASE]
        said = self.agent.run(*single, stdin=f"{query}\n")
        assert "ERROR" not in said["err"] + said["out"], said
        return [line.split('"')[1] for line in said["out"].splitlines() if ' = "' in line]

    def keys_in(self, folder: str) -> set[str]:
        """The keys in a data folder of Redis, which stays as it is."""
        self.agent.sh(f"rm -rf {SCRATCH}; cp -a $1 {SCRATCH}", folder)
        script = """\
        [ ! -e $1/.samokoder-copying ] || exit 0
        redis-server --port 0 --unixsocket /tmp/look.sock --dir $1 --appendonly yes --save '' > /tmp/look.log 2>&1 &
        until redis-cli -s /tmp/look.sock ping 2> /dev/null | grep -qx PONG; do kill -0 $! || exit 0; sleep 0.05; done
        redis-cli -s /tmp/look.sock --scan --pattern 'w*'
        redis-cli -s /tmp/look.sock shutdown nosave || :
        wait $! || :
        """
        return set(self.agent.sh(script, SCRATCH).split())

    # What a person types, in a process of its own that can be killed

    def typed(self, call: Callable[[], object], cut: Cut | None = None) -> tuple[str, str]:
        """Do it; return `done`, `refused` or `killed`, and what was said."""
        answer = self.folder / "answer"
        answer.unlink(missing_ok=True)
        self.cut = cut or Cut()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # xdist has a thread, which holds nothing of ours
            child = os.fork()
        if child == 0:
            try:
                said = ("done", str(call()))
            except ProjectError as error:
                said = ("refused", str(error))
            except BaseException:
                said = ("failed", traceback.format_exc())
            answer.write_text(json.dumps(said))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        self.cut = Cut()
        if os.WIFSIGNALED(status):
            return "killed", ""
        came, said = json.loads(answer.read_text())
        assert came != "failed", said
        return str(came), str(said)

    def restore(self, cut: Cut | None = None, **words: str) -> tuple[str, str]:
        return self.typed(lambda: restore.restore(self.workspace, up=never, **words), cut)

    def restore_elsewhere(self, **words: str) -> tuple[str, str]:
        """Let a second person restore in another clone."""
        other = replace(self.workspace, home=self.folder / "elsewhere")
        return self.typed(lambda: restore.restore(other, up=never, **words))

    def damage_redis(self, tail: str) -> None:
        """Kill Redis, and let bytes stand behind the end of its append-only file, as after a power cut."""
        self.agent.ask("stop", name="redis", signal=int(signal.SIGKILL))
        script = """\
        last=$(sed -n 's/^file \\(.*\\) seq [0-9]* type i.*/\\1/p' $1/appendonlydir/appendonly.aof.manifest | tail -n 1)
        if [ "$2" = zeros ]; then head -c 512 /dev/zero; else head -c 512 /dev/urandom; fi >> $1/appendonlydir/$last
        """
        self.agent.sh(script, self.data("redis"), tail)

    def repair_redis(self, cut: Cut | None = None) -> tuple[str, str]:
        """What `make repair PART=redis` does once the person has said yes."""
        return self.typed(lambda: restore.mend(self.workspace, "cut", never), cut)

    def repair_collations(self, cut: Cut | None = None) -> tuple[str, str]:
        """What `make repair PART=collations` does, in the engine's place."""

        def do() -> str:
            with lock.held(self.workspace, "repair") as locked:
                unfinished.refuse_touched(locked)
                asked = [f"PGHOST={SOCKETS}", f"PGUSER={SUPERUSER}", f"PGOPTIONS={postgres.PINNED_OPTIONS}"]
                done = self.call(["env", *asked, "sh", "-c", collations.script(collations._REPAIR), "sh", OUTDATED])
                if done["status"]:
                    raise ProjectError(done["err"])
            return "built anew"

        return self.typed(do, cut)

    def import_old(self, cut: Cut | None = None) -> tuple[str, str]:
        def do() -> str:
            with import_compose.opened(self.workspace, "old", {}, up=never) as importing:
                return import_compose.run_import(importing)

        return self.typed(do, cut)

    def _done_steps(self) -> set[str]:
        """The steps that the journals of a restore and of an import have noted."""
        there = (path for path in lock.unfinished(self.workspace.folder, self.workspace.name) if path.exists())
        return {step for path in there for step in json.loads(path.read_text(encoding="utf-8"))["done"]}

    def call(self, command: Sequence[str]) -> dict[str, Any]:
        """Run one command of a restore or an import, or be killed at it."""
        if self.cut.after in self._done_steps():
            self.cut.after = ""
        if self.cut.after:
            return self.agent.run(*command, check=False)
        if self.cut.now("before"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.cut.now("up"):
            self.cut = Cut()
            self.up_elsewhere()
        if self.cut.now("hand"):
            self.cut = Cut()
            self.start_by_hand()
        during, fails = self.cut.now("during"), self.cut.now("fails")
        if during or fails:
            asked = {"id": "nobody", "do": "run", "command": list(command), "stdin": "", "environment": {}}
            assert self.agent.process.stdin
            os.write(self.agent.process.stdin.fileno(), json.dumps(asked).encode() + b"\n")
            time.sleep(self.cut.seconds)
            if fails:
                self.agent.ask("kill")
                raise ProjectError("no space left on device")
            os.kill(os.getpid(), signal.SIGKILL)
        done = self.agent.run(*command, check=False)
        if self.cut.now("after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def postgres_command(data: str, port: int, conf: str) -> list[str]:
    """The server as the stack runs it."""
    words = ["postgres", "-D", data, "-k", SOCKETS, "-p", str(port)]
    for name in ("config_file=postgresql.conf", "hba_file=pg_hba.conf", "ident_file=pg_ident.conf"):
        words += ["-c", name.replace("=", f"={conf}/")]
    return words


def redis_command(data: str, port: int) -> list[str]:
    words = ["redis-server", "--port", str(port), "--dir", data, "--appendonly", "yes", "--save", ""]
    words += ["--repl-diskless-sync-delay", "0"]  # it waits five seconds for a second replica, at each copy
    return [*words, "--protected-mode", "no", "--appendfsync", "everysec"]


def volumes_of(world: World, mark: str) -> list[str]:
    """The volumes with a mark in their names, of this environment."""
    found = volume_names.made_by_restores(world.workspace.client(), world.environment)
    return [name for name in found if mark in name]
