"""The Docker Engine at an address: connect to it, and ask what it is."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import requests.exceptions

from host import ssh
from host.daemon_record import read_record
from host.errors import EngineError
from host.process_ids import is_that_process

DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"
"""Where Docker's package listens, and so where the product looks and where it starts an engine."""

CONTAINERD_SOCKETS = ("/run/docker/containerd/containerd.sock", "/run/containerd/containerd.sock")
"""containerd's socket with an engine that starts its own containerd, and with one that uses the system's."""

PING_TIMEOUT_SECONDS = 20
"""How long one question to an engine may take before it counts as not answering (an ssh hop needs some)."""
_CLOCKS_DIFFER_SECONDS = 30.0


_START_INTERVAL = (1, 44)


@dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What the rest of the program needs to know of the engine that it will use."""

    docker_host: str
    version: str
    api_version: str
    started_by_us: bool
    """True when this product started the engine without systemd, so that it may stop it too."""
    index_address: str
    """The registry index that the engine asks for images without a host name; empty where it has none."""
    registry_mirrors: tuple[str, ...]
    """Registries that the engine tries before the index."""
    memory_bytes: int
    cpus: int
    architecture: str
    """As the kernel calls it: `x86_64`, `aarch64`."""
    cgroup_version: str
    """`1` or `2`."""
    storage_driver: str
    data_root: str
    """The engine's own folder, on the engine's host."""
    containerd_socket: str | None
    """containerd's socket on the engine's host (cAdvisor reads it); None where it is not known."""
    clock_ahead_seconds: float
    """How far the clock of the engine's host is ahead of this machine's."""
    userns_remap: bool
    """Whether a user in a container has another id on the host."""

    @property
    def knows_start_interval(self) -> bool:
        """Tell whether its health checks may have a start interval (API 1.44)."""
        return tuple(map(int, self.api_version.split("."))) >= _START_INTERVAL

    @property
    def clocks_differ(self) -> str:
        """A warning where the clocks differ by more than an answer over a slow connection can explain; else empty."""
        if abs(self.clock_ahead_seconds) <= _CLOCKS_DIFFER_SECONDS:
            return ""
        return (
            f"The clocks differ: that of {self.docker_host} is {self.clock_ahead_seconds:+.0f} s against this "
            "machine's. Ages here, codes and certificates are off by that"
        )

    @property
    def other_users(self) -> str:
        """What to say of an engine with `userns-remap`, on which the stack does not run; else empty."""
        if not self.userns_remap:
            return ""
        return (
            "The engine gives the users of containers other ids on the host (userns-remap), and the stack does not run "
            "on it: cAdvisor may read neither the engine's socket nor its folder, so no container is measured. Take "
            '"userns-remap" out of /etc/docker/daemon.json on the engine\'s host, then `systemctl restart docker`. '
            "Containers, images and volumes that were made with it are not seen without it"
        )


def connect(docker_host: str, *, timeout: float | None = PING_TIMEOUT_SECONDS) -> docker.DockerClient:
    """Return a client for `docker_host` (unix, ssh, tcp; TLS as DOCKER_TLS_VERIFY / DOCKER_CERT_PATH say).

    `timeout` is seconds for one answer; None waits for ever, for calls that last as long as a build.
    Raises EngineError when nothing answers there.
    """
    remote: ssh.Login | None = None
    environment = {**os.environ, "DOCKER_HOST": docker_host}
    try:
        if docker_host.startswith("ssh://"):
            remote = ssh.login(docker_host)
            environment["DOCKER_HOST"] = f"unix://{remote.path}"
        if docker_host.startswith("unix://"):
            # The SDK does not close its socket where nothing answers, so a plain connection is tried first.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(timeout)
                probe.connect(docker_host.removeprefix("unix://"))
        client = docker.from_env(
            environment=environment,
            timeout=timeout,  # type: ignore[arg-type]  # None is what requests takes for "no limit"
        )
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise EngineError((remote and remote.why()) or _readable(error)) from error
    return client


def docker_command(docker_host: str) -> str:
    """Return what a person types to reach an engine: `docker`, or with `--host` where it is not the usual one."""
    return "docker" if docker_host == DEFAULT_DOCKER_HOST else f"docker --host {shlex.quote(docker_host)}"


def _readable(error: BaseException) -> str:
    """Return the innermost cause in one line: the SDK wraps `Permission denied` in four layers of words."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__


def info_of(host: str, *, record_file: Path) -> EngineInfo:
    """Return what the engine at an address says of itself. Raises EngineError when it does not answer."""
    client = connect(host)
    try:
        info: dict[str, Any] = client.info()
        version: dict[str, Any] = client.version()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise EngineError(_readable(error)) from error
    finally:
        client.close()
    record = read_record(record_file)
    return EngineInfo(
        docker_host=host,
        version=str(version["Version"]),
        api_version=str(version["ApiVersion"]),
        started_by_us=(
            record is not None
            and record["docker_host"] == host
            and is_that_process(record["pid"], record["start_time"])
        ),
        index_address=str(info.get("IndexServerAddress") or ""),
        registry_mirrors=tuple((info.get("RegistryConfig") or {}).get("Mirrors") or ()),
        memory_bytes=int(info.get("MemTotal") or 0),
        cpus=int(info.get("NCPU") or 0),
        architecture=str(info.get("Architecture") or ""),
        cgroup_version=str(info.get("CgroupVersion") or "1"),
        storage_driver=str(info.get("Driver") or ""),
        data_root=str(info.get("DockerRootDir") or "").rstrip("/"),
        containerd_socket=_containerd_socket(host, info),
        clock_ahead_seconds=_ahead(str(info.get("SystemTime") or "")),
        userns_remap=any(str(each).split(",")[0] == "name=userns" for each in info.get("SecurityOptions") or ()),
    )


def _ahead(system_time: str) -> float:
    """Return how far a clock is ahead of ours, in seconds; 0 for one that says nothing."""
    return (datetime.fromisoformat(system_time) - datetime.now(UTC)).total_seconds() if system_time else 0.0


def _containerd_socket(host: str, info: Mapping[str, Any]) -> str | None:
    stated = (info.get("Containerd") or {}).get("Address")  # Docker 28 and newer say it
    if not host.startswith("unix://"):
        return str(stated) if stated else None
    # An engine uses the system's containerd where that already runs, else it starts its own below its exec-root.
    for candidate in (stated, *CONTAINERD_SOCKETS):
        if candidate and Path(candidate).exists():
            return str(candidate)
    return None


def containerd_of_remote(client: docker.DockerClient) -> str | None:
    """Find containerd's socket on a host whose files cannot be seen; None where it is not found.

    The engine refuses to create a container that mounts a missing path, so a container is created for each path, from
    an empty image. The containers are never started; they and the image are removed.
    """
    answer = client.api.import_image_from_data(bytes(1024), changes=['CMD ["never-started"]'])
    image = str(json.loads(answer.strip().splitlines()[-1])["status"])
    try:
        for path in CONTAINERD_SOCKETS:
            mounts = [docker.types.Mount(path, path, type="bind", read_only=True)]
            with contextlib.suppress(docker.errors.APIError):
                client.containers.create(image, mounts=mounts, network_mode="none").remove()
                return path
    finally:
        client.images.remove(image)
    return None
