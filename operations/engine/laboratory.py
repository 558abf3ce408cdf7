"""Run parts of the stack without Pulumi, for a check or a test, in a separate network that is removed at the end.

A part gets the container that `stack.resources.part.Part` makes from the same `ServiceSpec`. Everything has a label
with a token of this run, and the removal finds it by this label, so that an interruption leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network
from docker.types import LogConfig, Mount, Ulimit

from host.progress import Reporter
from offline.images.archive import Entry, tar_of
from operations.engine.one_off import HARDENED
from stack.common.names import CARRIER_ENTRYPOINT, NO_SEARCH_DOMAIN
from stack.spec.files import CARRIER_MOUNT, EXECUTABLE_MODE, MODE
from stack.spec.service import LOG_DRIVER, LOG_OPTIONS, ServiceSpec

LABEL = "samokoder.laboratory"
_NANO = 1_000_000_000


@dataclass
class Laboratory:
    """Makes containers in a separate network that cannot reach the Internet."""

    client: docker.DockerClient
    token: str
    network: Network
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def labels(self) -> dict[str, str]:
        """The label that identifies everything of this run."""
        return {LABEL: self.token}

    def start(self, image: str, files: Mapping[str, str], *, alias: str = "", **options: Any) -> Container:
        """Start a container with `files` (absolute paths) written into it. options: of the Docker SDK."""
        container = self._create(image, alias, options)
        container.put_archive("/", _tar(files))
        container.start()
        return container

    def run(
        self,
        spec: ServiceSpec,
        files: Mapping[str, str],
        *,
        alias: bool = True,
        data: str | None = None,
        **changed: Any,
    ) -> Container:
        """Make a part's container as `prepare` does, and start it."""
        container = self.prepare(spec, files, alias=alias, data=data, **changed)
        container.start()
        return container

    def prepare(
        self,
        spec: ServiceSpec,
        files: Mapping[str, str],
        *,
        alias: bool = True,
        data: str | None = None,
        **changed: Any,
    ) -> Container:
        """Make a part's container without starting it.

        files: the part's files with their secrets in them. alias: whether other containers reach it by its part's name.
        data: the volume for its data, which outlives the container; without it an anonymous volume, which is removed
        with the container. changed: options of the Docker SDK in place of the stack's.
        """
        mounts = []
        if files:
            mounts.append(Mount(spec.files_at, self._volume(spec.image, files), read_only=True))
        if spec.data:
            mounts.append(Mount(spec.data.path, data))
        options = container_options(spec) | {"mounts": mounts} | changed
        return self._create(spec.image, spec.part if alias else "", options)

    def _create(self, image: str, alias: str, options: Mapping[str, Any]) -> Container:
        name = str(self.network.name)
        endpoint = self.client.api.create_endpoint_config(aliases=[alias]) if alias else None
        container: Container = self.client.containers.create(
            image,
            network=name,
            networking_config={name: endpoint} if endpoint else None,
            labels=self.labels,
            **{"dns_search": [NO_SEARCH_DOMAIN], **options},
        )
        return container

    def _volume(self, image: str, files: Mapping[str, str]) -> str:
        """Fill a volume through a container that is never started, as `stack.spec.files` does.

        The part's own root file system is read-only.
        """
        name = f"samokoder-laboratory-{self.token}-{next(self._numbers)}"
        self.client.volumes.create(name, labels=self.labels)
        carrier = self.client.containers.create(
            image,
            entrypoint=[CARRIER_ENTRYPOINT],
            network_mode="none",
            labels=self.labels,
            mounts=[Mount(CARRIER_MOUNT, name)],
        )
        carrier.put_archive(CARRIER_MOUNT, _tar(files))
        carrier.remove(v=True)
        return name


@contextmanager
def opened(client: docker.DockerClient, reporter: Reporter | None = None) -> Iterator[Laboratory]:
    """Yield a laboratory; everything that it made is removed at the end, and on an error, Ctrl-C or SIGTERM.

    reporter: shows the removal, which may take seconds.
    """
    token = secrets.token_hex(4)
    with _ended_by_sigterm():
        try:
            network = client.networks.create(
                f"samokoder-laboratory-{token}", driver="bridge", internal=True, labels={LABEL: token}
            )
            yield Laboratory(client, token, network)
        finally:
            with _undisturbed(), reporter.task("Removing what was made for it") if reporter else nullcontext():
                _remove(client, token)


def container_options(spec: ServiceSpec) -> dict[str, Any]:
    """Return the Docker SDK's options for a part's container as the stack makes it, with limits and hardening."""
    memory = f"{spec.settings.memory_mib}m"
    return {
        # An empty entry point in a spec means that of the image, for which the SDK takes None.
        "entrypoint": list(spec.entrypoint) or None,
        "command": list(spec.command) or None,
        "user": spec.user,
        "hostname": spec.part,
        "dns_search": [NO_SEARCH_DOMAIN],
        "environment": dict(spec.environment),
        "tmpfs": dict(spec.tmpfs),
        **HARDENED,
        "cap_add": list(spec.capabilities),
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": round(spec.settings.cpus * _NANO),
        "shm_size": f"{spec.shm_mib}m",
        "ulimits": [
            Ulimit(name="nofile", soft=spec.open_files, hard=spec.open_files),
            Ulimit(name="nproc", soft=spec.processes, hard=spec.processes),
        ],
        "stop_signal": spec.stop_signal,
        "log_config": LogConfig(type=LOG_DRIVER, config=LOG_OPTIONS),
    }


def _remove(client: docker.DockerClient, token: str) -> None:
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={token}"}
    for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)
    for volume in client.volumes.list(filters=mine):
        volume.remove()
    for network in client.networks.list(filters=mine):
        network.remove()


def _tar(files: Mapping[str, str]) -> bytes:
    modes = {path: int(EXECUTABLE_MODE if path.endswith(".sh") else MODE, 8) for path in files}
    with tar_of(Entry(path, text.encode(), mode=modes[path]) for path, text in files.items()) as archive:
        return archive.read()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let a SIGTERM end the block like a Ctrl-C; by default it would end the process with nothing removed."""

    def end(_signal: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end) if _in_main_thread() else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals during the removal, which takes seconds: a second Ctrl-C would leave containers behind."""
    held = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, signal.SIG_IGN) for name in held] if _in_main_thread() else []
    try:
        yield
    finally:
        for name, handler in zip(held, before, strict=False):
            signal.signal(name, handler)
