"""A real PostgreSQL, a real Redis and the real backup image in a network of their own, as the stack runs them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import pytest

from stack.parts.backup import spec as backup
from stack.parts.postgres import roles as postgres_roles
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from tests.planted import SUPERUSER_PSQL

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "backup_image"))  # the image's program is no package of this project

PATIENCE_SECONDS = 300.0
DATABASE = "samokoder"
SUPERUSER = "postgres"
DATA = "/var/lib/postgresql/data"

Value = TypeVar("Value")


def docker(*words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, input=stdin)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
    return done


def wait_for(what: str, ask: Callable[[], Value | None], said: Callable[[], str] = str) -> Value:
    """Give the first true answer of `ask`; a refused connection or a failing command is none."""
    end = time.monotonic() + PATIENCE_SECONDS
    error: Exception | None = None
    while time.monotonic() < end:
        try:
            if answer := ask():
                return answer
        except (OSError, AssertionError, psycopg2.Error) as failure:
            error = failure
        time.sleep(0.2)
    pytest.fail(f"no sign of {what} ({error}):\n{said()}")


@pytest.fixture(scope="session")
def backup_image(local_images: Environment) -> str:
    """The image, built where the engine lacks it.

    What Pulumi has built meanwhile keeps its name: under another image of that name, a stack that runs would drift.
    """
    built = backup.image(local_images)
    if docker("images", "--quiet", built.name).stdout.strip():
        return built.name
    for base in built.bases:
        if base.local:
            docker("tag", base.local, base.reference)
    words = [f"--build-arg={name}={value}" for name, value in built.arguments.items()]
    docker("build", "--quiet", *words, "--tag", built.name, str(built.context))
    return built.name


@dataclass
class Lab:
    """One environment: its network, its volumes, its containers. What it made is removed by name."""

    images: Environment
    image: str
    folder: Path
    name: str = field(default_factory=lambda: f"samokoder-test-{secrets.token_hex(4)}")
    passwords: dict[str, str] = field(default_factory=lambda: {each: secrets.token_hex(16) for each in ("p", "r", "s")})
    volumes: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)

    def volume(self, what: str, *options: str) -> str:
        name = f"{self.name}-{what}"
        docker("volume", "create", *options, name)
        self.volumes.append(name)
        return name

    def run(self, what: str, *words: str) -> str:
        name = f"{self.name}-{what}"
        docker("rm", "--force", "--volumes", name, check=False)
        docker("run", "--detach", "--name", name, "--user=999:999", "--cap-drop=ALL", *words)
        self.containers.append(name)
        return name

    # PostgreSQL

    def start_postgres(self, volume: str) -> None:
        conf = self.folder / "postgres"
        conf.mkdir(exist_ok=True)
        (conf / "postgresql.conf").write_text(postgres.postgresql_conf(256, 50, 256))
        (conf / "pg_hba.conf").write_text(postgres.pg_hba_conf(DATABASE, SUPERUSER))
        (conf / "pg_ident.conf").write_text(postgres.pg_ident_conf(SUPERUSER))
        (conf / "superuser_password").write_text(self.passwords["s"])
        self.run(
            "postgres",
            *(f"--network={self.name}", "--network-alias=postgres", "--stop-signal=SIGINT", "--shm-size=128m"),
            *(f"--volume={volume}:{DATA}", f"--volume={conf}:/etc/samokoder:ro"),
            *("--tmpfs=/var/run/postgresql:uid=999,gid=999,mode=0775", f"--env=POSTGRES_DB={DATABASE}"),
            *("--env=POSTGRES_PASSWORD_FILE=/etc/samokoder/superuser_password",),
            "--env=POSTGRES_INITDB_ARGS=--data-checksums --auth-host=scram-sha-256 --auth-local=peer",
            *(self.images.image("postgres"), "postgres", "-c", "config_file=/etc/samokoder/postgresql.conf"),
            *("-c", "hba_file=/etc/samokoder/pg_hba.conf", "-c", "ident_file=/etc/samokoder/pg_ident.conf"),
        )
        wait_for(
            "PostgreSQL",
            lambda: (
                docker("exec", f"{self.name}-postgres", "pg_isready", "-h", "127.0.0.1", check=False).returncode == 0
            ),
            lambda: self.logs("postgres"),
        )
        verifier = postgres_roles.scram_verifier(self.passwords["p"], "salt")
        roles = postgres_roles.roles_sql(
            DATABASE, app={postgres.APP_ROLE: verifier}, exporter=verifier, backup=verifier, replication=True
        )
        self.sql(roles, database="postgres")

    def sql(self, text: str, *, database: str = DATABASE) -> str:
        words = (*SUPERUSER_PSQL, "--no-psqlrc", "--quiet", "-At", "--set=ON_ERROR_STOP=1")
        return docker("exec", "-i", f"{self.name}-postgres", *words, f"--dbname={database}", stdin=text).stdout.strip()

    def connect(self) -> Any:
        """Connect as the application does, from here: a commit that returns was acknowledged to a client."""
        connection = psycopg2.connect(
            host=self.address("postgres"),
            user=postgres.APP_ROLE,
            dbname=DATABASE,
            password=self.passwords["p"],
            connect_timeout=5,
        )
        connection.autocommit = True
        return connection

    def address(self, what: str) -> str:
        """Return the address of a container, at which this machine reaches it."""
        inspected = json.loads(docker("inspect", f"{self.name}-{what}").stdout)[0]
        return str(inspected["NetworkSettings"]["Networks"][self.name]["IPAddress"])

    # Redis

    def start_redis(self, volume: str) -> None:
        self.run(
            "redis",
            *(f"--network={self.name}", "--network-alias=redis", f"--volume={volume}:/data"),
            *(
                self.images.image("redis"),
                "redis-server",
                "--appendonly",
                "yes",
                "--save",
                "",
                "--protected-mode",
                "no",
            ),
        )
        commands = redis_users.users_commands(
            app=[self.passwords["r"]], exporter=self.passwords["r"], backup=self.passwords["r"], login=True
        )
        wait_for("Redis", lambda: self.redis("ping") == "PONG", lambda: self.logs("redis"))
        for line in commands.splitlines():
            # Not `default`, as which the tests ask.
            if line.startswith("ACL SETUSER samokoder_"):
                assert self.redis(*line.split()) == "OK"

    def redis(self, *words: str) -> str:
        return docker("exec", f"{self.name}-redis", "redis-cli", *words).stdout.strip()

    # The backup server

    def start_backup(self, volume: str, **changes: object) -> None:
        conf = self.folder / "backup"
        conf.mkdir(exist_ok=True)
        never = "0 0 1 1 *"
        document = {
            "postgres": {
                "host": "postgres",
                "port": 5432,
                "database": DATABASE,
                "user": postgres.BACKUP_ROLE,
                "sslmode": "disable",
            },
            "superuser": SUPERUSER,
            "session_options": postgres.PINNED_OPTIONS,
            "physical": True,
            "slot": postgres.BACKUP_ROLE,
            "redis": {"host": "redis", "port": 6379, "user": redis.BACKUP_USER, "tls": False},
            "schedules": dict.fromkeys(("base", "dump", "redis", "workspace", "verify", "drill"), never),
            "recovery_window_days": 7,
            "dumps": {"latest": 4, "daily": 7, "weekly": 4, "monthly": 6},
            "redis_copies": 48,
            "workspace": None,
            "workspace_copies": 7,
            "max_slot_wal_mib": 256,
            "offsite": None,
            **changes,
        }
        (conf / "backup.json").write_text(json.dumps(document))
        (conf / "postgres_password").write_text(self.passwords["p"])
        (conf / "redis_password").write_text(self.passwords["r"])
        self.start_drill(volume)
        drill = f"--volume={self.name}-drill:/drill:ro"
        self.run("backup", f"--network={self.name}", drill, *self.like_the_stack(volume), self.image, "run")

    def start_drill(self, volume: str) -> None:
        """Start the part that does drills: beside the settings it has no file, as in the stack."""
        if (scratch := f"{self.name}-drill") not in self.volumes:
            self.volume("drill")
        conf = self.folder / "drill"
        conf.mkdir(exist_ok=True)
        shutil.copyfile(self.folder / "backup" / "backup.json", conf / "backup.json")
        mounts = [f"--volume={scratch}:/drill", *self.like_the_stack(volume, "ro", conf=conf, memory="384m")]
        self.run("drill", "--network=none", "--restart=unless-stopped", *mounts, self.image, "serve-drill")

    def like_the_stack(
        self, volume: str, mode: str = "rw", *, conf: Path | None = None, memory: str = "512m"
    ) -> list[str]:
        return [
            *("--init", "--read-only", "--security-opt=no-new-privileges"),
            *(f"--memory={memory}", f"--memory-swap={memory}"),
            *("--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m", f"--volume={volume}:/backups:{mode}"),
            f"--volume={conf or self.folder / 'backup'}:/etc/samokoder:ro",
        ]

    def backup(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", f"{self.name}-backup", "samokoder-backup", *words, check=check)

    def inside(self, program: str) -> str:
        """Run a piece of Python in the backup server's container."""
        return docker("exec", f"{self.name}-backup", "python", "-c", program).stdout.strip()

    def list(self, kind: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.backup("list", "--json").stdout)
        return [entry for entry in found if kind in {"", entry["kind"]}]

    def metrics(self) -> dict[str, float]:
        program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9188/metrics').read().decode())"
        lines = [line for line in self.inside(program).splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def first_backups(self) -> None:
        """Wait for the backups that the service makes by itself when there are none, and the drill that follows."""
        wait_for(
            "the first backups",
            lambda: {entry["kind"] for entry in self.list() if entry["status"] == "good"} == {"base", "dump", "redis"},
            lambda: self.logs("backup"),
        )
        drilled = "backup_restore_test_last_success_timestamp_seconds"
        wait_for("the first drill", lambda: self.metrics().get(drilled), lambda: self.logs("backup"))

    def restore(
        self, volume: str, into: str, *words: str, where: str = DATA, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Restore in a container without network, as operations do; the backups are read-only in it."""
        name = f"{self.name}-restore"
        docker("rm", "--force", "--volumes", name, check=False)
        words = (*words, *(("--into", where) if "--into" not in words else ()))
        mounts = [*self.like_the_stack(volume, "ro"), f"--volume={into}:{where}"]
        return docker("run", f"--name={name}", "--network=none", *mounts, self.image, "restore", *words, check=check)

    def logs(self, what: str) -> str:
        done = docker("logs", "--tail=60", f"{self.name}-{what}", check=False)
        return done.stdout + done.stderr

    def kill(self, what: str) -> None:
        docker("kill", "--signal=KILL", f"{self.name}-{what}")

    def remove(self, what: str) -> None:
        docker("rm", "--force", "--volumes", f"{self.name}-{what}", check=False)

    @contextlib.contextmanager
    def target(self) -> Iterator[str]:
        """Make an empty volume to restore into; it and what restored into it are gone afterwards."""
        name = self.volume(f"target-{time.monotonic_ns()}")
        yield name
        for what in ("restore", "restored"):
            self.remove(what)
        self.drop_volume(name)

    def drop_volume(self, name: str) -> None:
        docker("volume", "rm", name)
        self.volumes.remove(name)

    def close(self) -> None:
        for name in {*self.containers, f"{self.name}-restore"}:
            docker("rm", "--force", "--volumes", name, check=False)
        for name in self.volumes:
            docker("volume", "rm", name, check=False)
        docker("network", "rm", self.name, check=False)


@pytest.fixture(scope="session")
def new_lab(local_images: Environment, backup_image: str) -> Iterator[Callable[[], Lab]]:
    """Makes environments, which are gone afterwards."""
    made: list[Lab] = []
    with tempfile.TemporaryDirectory(prefix="samokoder-test-") as folder:
        Path(folder).chmod(0o755)

        def make() -> Lab:
            own = Path(folder) / str(len(made))
            own.mkdir()
            lab = Lab(local_images, backup_image, own)
            made.append(lab)
            docker("network", "create", lab.name)
            return lab

        yield make
        for lab in made:
            if os.environ.get("KEEP_LAB") != "1":
                lab.close()


@pytest.fixture(scope="module")
def lab(new_lab: Callable[[], Lab]) -> Lab:
    """An environment that is backed up already, for the tests that leave it as it was."""
    lab = new_lab()
    lab.start_postgres(lab.volume("postgres"))
    lab.start_redis(lab.volume("redis"))
    lab.sql(
        "SET ROLE samokoder_app; CREATE TABLE marks (name text PRIMARY KEY, at timestamptz DEFAULT clock_timestamp());"
        "CREATE TABLE bulk AS SELECT n, md5(n::text) AS text FROM generate_series(1, 200000) AS n;"
    )
    lab.redis("set", "arq:one", "1")
    lab.redis("set", "rate:two", "2")
    lab.start_backup(lab.volume("backup"))
    lab.first_backups()
    return lab


def moment(text: str) -> str:
    """A moment as PostgreSQL writes it, with its offset in a form that the program reads."""
    return re.sub(r"([+-]\d\d)$", r"\1:00", text)
