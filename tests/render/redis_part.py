"""Redis and the keeper of its users, as the stack makes them, for tests of both."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis import Redis

from operations.data.repair import redis_log
from stack.catalogue import specs
from stack.parts.redis import spec as redis
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.settings.rotation import Phase, Rotating, Rotation
from stack.spec.service import ServiceSpec
from tests.recording import secret_value
from tests.render.conftest import Laboratory, address, contents, output, wait_until
from tests.written import Application

if TYPE_CHECKING:
    from docker.models.containers import Container

APP_SECRET = secret_value("redis_app")
SECOND_SECRET = secret_value("redis_app_b")
KEEPER_SECRET = secret_value("redis_keeper")


def described(environment: Environment, part: str = "redis") -> ServiceSpec:
    (spec,) = [spec for spec in specs(environment) if spec.part == part]
    return spec


def keep_users(
    laboratory: Laboratory, environment: Environment, *, generation: int = 1, phase: Phase = ""
) -> Container:
    """Run the keeper of a generation and a phase until it is healthy."""
    changed = {"rotation": Rotation(redis_app=generation), "rotating": Rotating(redis_app=phase)}
    environment = environment.model_copy(update={"settings": environment.settings.model_copy(update=changed)})
    return laboratory.healthy_part(described(environment, redis_users.PART))


# As rendered until 29 November 2026: Redis read its append-only file with the rights of this `default`.
OLD_DEFAULT = "user default on nopass resetkeys resetchannels -@all +ping\n"


@dataclass
class Kept:
    """Redis over a volume that outlives its container, with its users."""

    laboratory: Laboratory
    environment: Environment
    volume: str
    password: str = APP_SECRET
    container: Container = field(init=False)

    def start(self, *, old: bool = False) -> None:
        """Start a new container over the volume. old: of a version whose `default` may say ping alone."""
        spec = described(self.environment)
        files = contents(spec)
        if old:
            keeper = redis.seed_acl(KEEPER_SECRET).splitlines(keepends=True)[1:]
            files["seed.acl"] = OLD_DEFAULT + "".join(keeper)
        self.container = self.laboratory.run(spec, files, data=self.volume)
        self.ready()

    def ready(self) -> None:
        health = described(self.environment).health_command
        wait_until(self.container, lambda: output(self.container, *health)[0] == 0)

    def replace(self, *, old: bool = False) -> None:
        """Stop it, and put a new container in its place."""
        self.container.stop()
        self.container.remove()
        self.start(old=old)

    def kill(self) -> None:
        self.container.kill()
        self.container.wait()
        self.container.start()
        self.ready()

    def shell(self, script: str) -> str:
        """Run a script in a container of its own, beside the server's, over its volume; return what it prints."""
        spec = described(self.environment)
        said: bytes = self.laboratory.client.containers.run(
            spec.image,
            ["-c", script],
            entrypoint="sh",
            user=spec.user,
            network_mode="none",
            volumes={self.volume: {"bind": "/data"}},
            remove=True,
        )
        return said.decode(errors="replace")

    @property
    def host(self) -> str:
        return address(self.container)

    @property
    def application(self) -> Application:
        return Application(host=self.host, password=self.password)

    def client(self, database: int = 0) -> Redis:
        return self.application.client(database)

    def write(self) -> dict[str, object]:
        return self.application.write()

    def seen(self) -> dict[str, object]:
        return self.application.seen()

    def settle(self) -> None:
        self.application.settle()

    def holds(self, before: dict[str, object]) -> None:
        """Check that all is there as before, that each queued job runs once, and that the log says so too."""
        self.application.holds(before)
        assert "read all" in redis_log.judge(self.container.logs().decode())


@contextmanager
def kept_redis(laboratory: Laboratory, environment: Environment) -> Iterator[Kept]:
    """Give Redis over an empty volume, which is gone afterwards."""
    volume = laboratory.client.volumes.create(
        f"samokoder-laboratory-{laboratory.token}-{secrets.token_hex(3)}", labels=laboratory.labels
    )
    made = Kept(laboratory, environment, str(volume.name))
    yield made
    made.container.remove(force=True)
    laboratory.client.volumes.get(made.volume).remove()


def begin(kept: Kept, *, old: bool = False) -> dict[str, object]:
    """Start Redis, its users, write, and wait until the file has it."""
    kept.start(old=old)
    keep_users(kept.laboratory, kept.environment).remove(force=True)
    before = kept.write()
    kept.settle()
    return before
