"""A real PostgreSQL, a real Redis and the real processes of the reference service, on free loopback ports."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest

from stack.settings.environment import Environment

REPOSITORY = Path(__file__).parents[2]
APPLICATION = REPOSITORY / "reference_app"
sys.path.insert(0, str(APPLICATION))  # some tests look at one part of it alone

from samokoder.settings import RATE_LIMITS  # noqa: E402

#: So long that only something that hangs ever meets it: no limit of time decides a test here.
PATIENCE_SECONDS = 300.0

#: Who the servers run as in their images.
SERVER_USER = 999

#: All that the service's Redis user may do: what arq 0.28 and this service send, and nothing else.
REDIS_USER_RULES = (
    "resetchannels resetkeys ~arq:* ~rate:* -@all +ping "
    "+info +dbsize +watch +unwatch +multi +exec +discard +exists +get +set +psetex +setex +incrby +expire "
    "+pexpire +del +zadd +zrem +zcard +zscore +zincrby +zrange +zrangebyscore +eval +time +zremrangebyscore"
)
#: What the image sets beside its paths: without it a forged header would count when it comes from loopback.
IMAGE_ENVIRONMENT = dict(re.findall(r"(UVICORN_\w+)=(\S+)", (APPLICATION / "Dockerfile").read_text()))
#: The tests ask more than a client may; those of the limits set their own.
NO_LIMITS = json.dumps(dict.fromkeys(RATE_LIMITS, 0))

Value = TypeVar("Value")


def wait_for(what: str, ask: Callable[[], Value | None], said: Callable[[], str] = str) -> Value:
    """Give the first true answer of `ask`; connections that are refused meanwhile are no answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if answer := ask():
                return answer
        except (httpx.TransportError, OSError):
            pass
        time.sleep(0.05)
    pytest.fail(f"no sign of {what}; what it said:\n{said()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def program(name: str) -> str:
    """Find a program of this clone's environment, or of the system."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    assert found, f"{name} is not here"
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs a real engine: its servers run in containers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@dataclass(frozen=True)
class InContainer:
    """How to run a server's program from the stack's own image: on the host's loopback, as a non-root user.

    `docker run` stays in the foreground and hands signals on, so that it is stopped like any process.
    """

    image: str
    folder: Path

    def command(self, *words: str, name: str = "") -> list[str]:
        return [
            *(
                program("docker"),
                "run",
                "--rm",
                *([f"--name={name}"] if name else []),
                "--init",
                "--network=host",
                f"--user={SERVER_USER}:{SERVER_USER}",
            ),
            *("--cap-drop=ALL", "--env=LC_ALL=C.UTF-8", "--env=REDISCLI_AUTH", f"--volume={self.folder}:{self.folder}"),
            *(f"--entrypoint={words[0]}", self.image, *words[1:]),
        ]


@dataclass
class Part:
    """One process that the tests started; `stop` ends that one only."""

    command: list[str]
    log: Path
    environment: Mapping[str, str]
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                cwd=self.folder,
            )

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "start() was not called"
        return self.process

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and give the exit status, which is negative for a process that a signal ended."""
        if self.running.poll() is None:
            self.running.send_signal(how)
        try:
            return self.running.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            self.running.wait()
            raise

    def alive(self) -> bool:
        """True; a process that has ended ends the test at once, with its words."""
        if self.running.poll() is not None:
            pytest.fail(f"{self.command[0]} ended with {self.running.returncode}:\n{self.said()}")
        return True

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass
class Service(Part):
    """The API or the worker, with its HTTP side."""

    port: int = 0
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE_SECONDS, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=PATIENCE_SECONDS, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return httpx.delete(f"{self.url}{path}", timeout=PATIENCE_SECONDS, **more)

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """Make a client that comes from one address of loopback, of which there are many."""
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=PATIENCE_SECONDS)

    def ended(self) -> int:
        """Wait for its end; give its exit status."""
        return self.running.wait(PATIENCE_SECONDS)

    def wait_until(self, path: str) -> None:
        def ask() -> bool:
            return self.alive() and self.get(path).status_code == 200

        wait_for(f"200 from {path}", ask, self.said)

    def metric(self, series: str) -> float | None:
        """Read one series, written as in the text format, e.g. `worker_jobs_total{status="failed"}`."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(f"{series} "):
                return float(line.rsplit(" ", 1)[1])
        return None


class Postgres(Part):
    port: int
    application_password: str
    superuser_password: str

    @property
    def application_url(self) -> str:
        return f"postgresql+asyncpg://app:{self.application_password}@127.0.0.1:{self.port}/app"

    def ask(self, work: Callable[[asyncpg.Connection], Awaitable[Value]], *, superuser: bool = False) -> Value:
        async def connected() -> Value:
            connection = await asyncpg.connect(
                host="127.0.0.1",
                port=self.port,
                user="postgres" if superuser else "app",
                password=self.superuser_password if superuser else self.application_password,
                database="postgres" if superuser else "app",
            )
            try:
                return await work(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())

    def start(self) -> None:
        super().start()

        def answers() -> bool:
            try:
                return self.ask(lambda connection: connection.fetchval("SELECT true"), superuser=True) is True
            except asyncpg.PostgresError:
                return False

        wait_for("PostgreSQL", lambda: self.alive() and answers(), self.said)


class Redis(Part):
    port: int
    application_password: str
    administrator_password: str
    client: InContainer
    name: str

    def hang(self) -> None:
        """From now on connections are accepted and nothing answers."""
        subprocess.run([program("docker"), "pause", self.name], check=True, capture_output=True)

    def go_on(self) -> None:
        subprocess.run([program("docker"), "unpause", self.name], check=True, capture_output=True)

    def cli(self, *words: str, administrator: bool = True) -> str:
        user = "admin" if administrator else "app"
        password = self.administrator_password if administrator else self.application_password
        done = subprocess.run(
            self.client.command("redis-cli", "-p", str(self.port), "--user", user, "--no-auth-warning", *words),
            env={**os.environ, "REDISCLI_AUTH": password},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr.strip()

    def start(self) -> None:
        super().start()
        wait_for("Redis", lambda: self.alive() and self.cli("ping") == "PONG", self.said)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the servers' user owns: pytest's own is closed to everybody else."""
    folder = Path(tempfile.mkdtemp(prefix="samokoder-test-"))
    os.chown(folder, SERVER_USER, SERVER_USER)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path, local_images: Environment) -> Iterator[Postgres]:
    server = InContainer(local_images.image("postgres"), server_folder)
    data, environment = server_folder / "postgres", {"PATH": os.environ["PATH"]}
    passwords = server_folder / "superuser"
    superuser_password = secrets.token_hex(16)
    passwords.write_text(superuser_password)
    passwords.chmod(0o644)
    initialise = server.command(
        *("initdb", f"--pgdata={data}", "--username=postgres", f"--pwfile={passwords}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"),
    )
    setup = Part(initialise, server_folder / "initdb.log", environment)
    setup.start()
    assert setup.running.wait(PATIENCE_SECONDS) == 0, setup.said()
    port = free_port()
    part = Postgres(
        server.command("postgres", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(server_folder), "-F"),
        server_folder / "postgres.log",
        environment,
    )
    part.port, part.superuser_password, part.application_password = (
        port,
        superuser_password,
        secrets.token_hex(16),
    )
    part.start()

    async def prepare(connection: asyncpg.Connection) -> None:
        await connection.execute(f"CREATE ROLE app LOGIN NOSUPERUSER PASSWORD '{part.application_password}'")
        await connection.execute("CREATE DATABASE app OWNER app")

    part.ask(prepare, superuser=True)
    yield part
    part.stop(signal.SIGINT)  # PostgreSQL's "fast": it does not wait for clients


@pytest.fixture(scope="session")
def redis(server_folder: Path, local_images: Environment) -> Iterator[Redis]:
    server = InContainer(local_images.image("redis"), server_folder)
    users = server_folder / "users.acl"
    port, password, administrator = free_port(), secrets.token_hex(16), secrets.token_hex(16)
    users.write_text(
        f"user default off\nuser admin on >{administrator} ~* &* +@all\nuser app on >{password} {REDIS_USER_RULES}\n"
    )
    users.chmod(0o644)
    name = f"samokoder-test-{secrets.token_hex(4)}"
    part = Redis(
        server.command(
            *("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(server_folder)),
            *("--appendonly", "yes", "--save", "", "--maxmemory", "64mb", "--maxmemory-policy", "noeviction"),
            *("--aclfile", str(users)),
            name=name,
        ),
        server_folder / "redis.log",
        {"PATH": os.environ["PATH"]},
    )
    part.client, part.name = server, name
    part.port, part.application_password, part.administrator_password = port, password, administrator
    part.start()
    yield part
    part.stop()


@dataclass
class Setup:
    """Makes the service's processes, the way a container would: settings in variables, secrets in files."""

    postgres: Postgres
    redis: Redis
    folder: Path
    secrets: dict[str, str]
    started: list[Service] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        folder = self.folder / "secrets"
        folder.mkdir(exist_ok=True)
        for name, value in self.secrets.items():
            (folder / name).write_text(value)
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(APPLICATION),
            **IMAGE_ENVIRONMENT,
            "ENVIRONMENT": "test",
            # Draining has its own tests; in all others nobody comes while the API stops.
            "DRAIN_SECONDS": "0",
            "RATE_LIMITS": NO_LIMITS,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis.port),
            "REDIS_USERNAME": "app",
            "SECRETS_DIR": str(folder),
            **more,
        }

    def _make(self, kind: str, command: list[str], port: int, environment: dict[str, str]) -> Service:
        log = self.folder / f"{kind}-{len(self.started)}.log"
        service = Service(command, log, environment, folder=self.folder, port=port)
        self.started.append(service)
        service.start()
        return service

    def api(self, **environment: str) -> Service:
        """Start the API; it may not be ready yet."""
        port = free_port()
        command = [program("uvicorn"), "samokoder.main:app", "--host", "127.0.0.1", "--port", str(port)]
        return self._make("api", command, port, self.environment(**environment))

    def migrate(self) -> Service:
        """Start the migration of the database; it may take its time."""
        return self._make("migrate", [sys.executable, "-m", "samokoder.migrate"], 0, self.environment())

    def worker(self, **environment: str) -> Service:
        """Start the worker; it may not be ready yet."""
        port = free_port()
        command = [program("arq"), "samokoder.worker.main.WorkerSettings"]
        return self._make("worker", command, port, self.environment(WORKER_PORT=str(port), **environment))

    def frontend(self, api_url: str, **environment: str) -> Service:
        """Start the page, which gets no secret; it may not answer yet."""
        port = free_port()
        command = [program("uvicorn"), "samokoder.frontend:app", "--host", "127.0.0.1", "--port", str(port)]
        kept = {key: value for key, value in self.environment().items() if key.startswith(("P", "UVICORN"))}
        return self._make("frontend", command, port, {**kept, "API_URL": api_url, **environment})


def _setup(postgres: Postgres, redis: Redis, folder: Path) -> Iterator[Setup]:
    values = {
        "samokoder_database_url": postgres.application_url,
        "redis_password": redis.application_password,
        "secret_key": secrets.token_urlsafe(64),
        "app_secret_key": secrets.token_urlsafe(64),
    }
    setup = Setup(postgres, redis, folder, values)
    yield setup
    for service in setup.started:
        service.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def migrated(postgres: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Postgres:
    """PostgreSQL with the schema in it, as the stack has it before it starts the others."""
    for setup in _setup(postgres, redis, tmp_path_factory.mktemp("migrated")):
        migration = setup.migrate()
        assert migration.ended() == 0, migration.said()
    return postgres


@pytest.fixture
def setup(migrated: Postgres, redis: Redis, tmp_path: Path) -> Iterator[Setup]:
    """Processes for one test, ended after it."""
    yield from _setup(migrated, redis, tmp_path)


@pytest.fixture(scope="module")
def running(
    migrated: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Service]]:
    """An API and a worker that answer, for the tests of a file that leave them as they are.

    Not of the session: other files stop the servers, and in which order files come is not fixed.
    """
    for setup in _setup(migrated, redis, tmp_path_factory.mktemp("running")):
        api, worker = setup.api(), setup.worker()
        api.wait_until("/ready")
        worker.wait_until("/ready")
        yield api, worker


@pytest.fixture(scope="module")
def api(running: tuple[Service, Service]) -> Service:
    return running[0]


@pytest.fixture(scope="module")
def worker(running: tuple[Service, Service]) -> Service:
    return running[1]


@pytest.fixture
def alone(worker: Service) -> Iterator[None]:
    """Holds the shared worker, so that the test's own gets the jobs."""
    worker.running.send_signal(signal.SIGSTOP)
    yield
    worker.running.send_signal(signal.SIGCONT)


@pytest.fixture
def waiting() -> Callable[[str, Callable[[], object]], object]:
    """`wait_for`, for the tests: they cannot import from here without a package of tests."""
    return wait_for
