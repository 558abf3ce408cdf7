"""Rendered files, and containers of the real programs that read them.

A container here is made by a test, has no network but one of its own, and is removed by its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from operations.engine import laboratory
from operations.engine.commands import execute
from stack.settings.environment import Environment
from stack.spec.secrets import ALERTMANAGER_WEB, PROMETHEUS_WEB, bcrypt_of
from stack.spec.service import ServiceSpec
from tests.recording import environment_of, secret_value

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

# So long that only something that hangs ever meets it: no limit of time decides a test here.
PATIENCE_SECONDS = 180.0

# bcrypt of secret_value(name): a server that asks for a password checks it for real. Made once, by
# crypt.crypt(secret_value(name), crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)); Python 3.13 has no crypt any more.
BCRYPT = {
    bcrypt_of(PROMETHEUS_WEB): "$2b$04$KBXWBDj4A3hEPE5BznddVeWkcj1puIMhGEN/payfDKiB.a.Z7aOzK",
    bcrypt_of(ALERTMANAGER_WEB): "$2b$04$A/9oAqwaUxfOOyVS6/CTo.NxY0awAj4zEr6tkfc9d.i39UnNXI/3m",
}


@pytest.fixture(scope="session")
def environment(local_images: Environment) -> Environment:
    """Staging with images that are on the engine; Grafana's files among them, whether or not it can run here."""
    images = local_images.settings.images.model_dump(by_alias=True, exclude_none=True)
    return environment_of("staging", {"samokoder:images": images})


def contents(spec: ServiceSpec) -> dict[str, str]:
    """Return a part's files as they are mounted, made from secrets of these tests."""
    return {
        path: content if isinstance(content, str) else content.render(*(_secret(need) for need in content.needs))
        for path, content in spec.files.items()
    }


def _secret(name: str) -> str:
    return BCRYPT.get(name) or secret_value(name, 86 if "key" in name else 40)


class Laboratory(laboratory.Laboratory):
    """Makes containers in a network of their own."""

    def shell(self, image: str, files: Mapping[str, str], *, alias: str = "") -> Container:
        """Start a container that does nothing but have `files` (absolute paths) and the image's programs."""
        return self._nobodys(image, files, ["sleep", "infinity"], alias)

    def python(self, environment: Environment, code: str, *words: str, alias: str) -> Container:
        """Start a container that runs a program of Python and has no files. words: its arguments."""
        return self._nobodys(environment.image("python"), {}, ["python3", "-c", code, *words], alias)

    def _nobodys(self, image: str, files: Mapping[str, str], command: list[str], alias: str) -> Container:
        """Start a command as nobody, without capabilities."""
        return self.start(
            image,
            files,
            alias=alias,
            entrypoint=command[:1],
            command=command[1:],
            user="65534:65534",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges=true"],
            init=True,
        )

    def part(self, spec: ServiceSpec, *, replaced: Mapping[str, str] | None = None) -> Container:
        """Start a part as the stack does. replaced: files with another text than the rendered one."""
        return self.run(spec, contents(spec) | dict(replaced or {}))

    def healthy_part(self, spec: ServiceSpec, *, replaced: Mapping[str, str] | None = None) -> Container:
        """Start a part and wait until its own health command succeeds."""
        container = self.part(spec, replaced=replaced)
        wait_until(container, lambda: container.exec_run(list(spec.health_command)).exit_code == 0)
        return container


def wait_until(container: Container, ask: Callable[[], bool]) -> None:
    """Wait for a true answer; fail with the log where the container ends before."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        container.reload()
        if container.status != "running":
            pytest.fail(f"{container.image} ended:\n{container.logs().decode()}", pytrace=False)
        if ask():
            return
        time.sleep(0.1)
    pytest.fail(f"{container.image} hangs:\n{container.logs().decode()}", pytrace=False)


@pytest.fixture(scope="module", name="laboratory")
def a_laboratory(engine: docker.DockerClient) -> Iterator[Laboratory]:
    """A network without a way out, and all containers that a file's tests make in it; gone afterwards."""
    with laboratory.opened(engine) as made:
        yield Laboratory(made.client, made.token, made.network)


def address(container: Container) -> str:
    """Return the container's address in its one network, at which this machine reaches it."""
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def output(container: Container, *command: str) -> tuple[int, str]:
    """Run a program in a container; return how it ended and all that it said."""
    status, said = execute(container, command)
    return status, said.decode()
