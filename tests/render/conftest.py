"""Rendered files, and containers of the real programs that read them.

A container here is made by a test, has no network but one of its own, and is removed by its id.
"""

from __future__ import annotations

import io
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from stack.secrets import ALERTMANAGER_WEB, PROMETHEUS_WEB, bcrypt_of
from stack.service import ServiceSpec
from stack.settings import Environment
from tests.recording import environment_of, secret_value

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container
    from docker.models.networks import Network

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


@dataclass
class Laboratory:
    """Makes containers in a network of their own."""

    client: docker.DockerClient
    network: Network
    made: list[Container] = field(default_factory=list)

    def shell(self, image: str, files: Mapping[str, str], *, alias: str = "") -> Container:
        """Start a container that does nothing but have `files` (absolute paths) and the image's programs."""
        return self._start(image, files, entrypoint=["sleep"], command=["infinity"], user="65534:65534", alias=alias)

    def part(self, spec: ServiceSpec, *, replaced: Mapping[str, str] | None = None) -> Container:
        """Start a part as the stack does: image, user, command, variables, files, tmpfs, without capabilities.

        replaced: files with another text than the rendered one.
        """
        texts = contents(spec) | dict(replaced or {})
        return self._start(
            spec.image,
            {f"{spec.files_at}/{path}": text for path, text in texts.items()},
            # An empty one keeps the image's; the SDK takes None for that.
            entrypoint=list(spec.entrypoint) or None,
            command=list(spec.command) or None,
            user=spec.user,
            environment=dict(spec.environment),
            tmpfs=dict(spec.tmpfs),
            volumes=[spec.data.path] if spec.data else [],
            mem_limit=f"{spec.settings.memory_mib}m",
            shm_size=f"{spec.shm_mib}m",
            hostname=spec.part,
            alias=spec.part,
        )

    def healthy_part(self, spec: ServiceSpec, *, replaced: Mapping[str, str] | None = None) -> Container:
        """Start a part and wait until its own health command succeeds."""
        container = self.part(spec, replaced=replaced)
        wait_until(container, lambda: container.exec_run(list(spec.health_command)).exit_code == 0)
        return container

    def _start(self, image: str, files: Mapping[str, str], *, alias: str = "", **options: Any) -> Container:
        name = str(self.network.name)
        container: Container = self.client.containers.create(
            image,
            network=name,
            networking_config={name: self.client.api.create_endpoint_config(aliases=[alias])} if alias else None,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            init=True,
            **options,
        )
        self.made.append(container)
        container.put_archive("/", _tar(files))
        container.start()
        return container


def _tar(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = 0o555 if path.endswith(".sh") else 0o444
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


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


@pytest.fixture(scope="module")
def laboratory(engine: docker.DockerClient) -> Iterator[Laboratory]:
    """A network without a way out, and all containers that a file's tests make in it; gone afterwards."""
    network = engine.networks.create(f"samokoder-test-{secrets.token_hex(4)}", driver="bridge", internal=True)
    made = Laboratory(engine, network)
    yield made
    for container in made.made:
        container.remove(force=True, v=True)
    network.remove()


def output(container: Container, *command: str) -> tuple[int, str]:
    """Run a program in a container; return how it ended and all that it said."""
    result = container.exec_run(list(command))
    assert isinstance(result.exit_code, int)
    assert isinstance(result.output, bytes)
    return result.exit_code, result.output.decode()
