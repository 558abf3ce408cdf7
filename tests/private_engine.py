"""An engine of a test's own: nothing comes from the machine's and nothing is left on it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from host.cgroups import mount_cgroups
from host.daemon import DOCKERD, engine_at, install_what_is_missing, start_daemon, stop_recorded
from host.daemon_record import state_directory
from host.engine import EngineInfo
from host.errors import EngineError
from host.file_lock import exclusive
from host.packages import install_packages
from host.process import Say
from host.process_ids import live_process

ROOT = "folder of the engine"
_MAX_UNIX_SOCKET_PATH = 100  # the kernel's limit is 107 bytes


@dataclass(frozen=True, kw_only=True)
class PrivateEngine:
    """A second engine beside the system's: own folder, socket, bridge and addresses.

    Unless it is `apart`, it leaves the packet filter's Docker chains alone (`--iptables=false`): two engines that both
    write them delete each other's rules at start. Two rules of its own keep its networks apart; ports are published by
    docker-proxy, which is all that loopback needs. Its containers have no way out of the host.
    """

    root: Path
    """Holds everything of it: data, run-time state, socket, pid file. A short path: it holds sockets."""
    bridge: str = "sktest0"
    """Name of its bridge device, at most 15 characters, unique on the host."""
    pool: str = "10.213"
    """First two numbers of its /16; every network gets a /24, the bridge the first one."""
    dockerd: tuple[str, ...] = DOCKERD
    """The words that become its dockerd; its own arguments follow."""
    apart: bool = False
    """Whether these words put it into a network namespace of its own, where it writes its packet filter."""

    @property
    def socket(self) -> Path:
        """The engine's API socket."""
        return self.root / "docker.sock"

    @property
    def docker_host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.socket}"

    @property
    def pid_file(self) -> Path:
        """Where dockerd writes its process id."""
        return self.root / "docker.pid"

    @property
    def exec_root(self) -> Path:
        """Run-time state, with containerd's socket."""
        return self.root / "run"

    @property
    def subnet(self) -> str:
        """All its addresses."""
        return f"{self.pool}.0.0/16"


def start(private: PrivateEngine, *, report: Say, cache: Path | None = None) -> EngineInfo:
    """Start it, unless it answers already. Raises EngineError with the end of its log where it ends by itself."""
    if len(os.fsencode(private.socket)) > _MAX_UNIX_SOCKET_PATH:
        raise EngineError(f"The socket's path {private.socket} is too long for the kernel: choose a shorter folder.")
    with contextlib.suppress(EngineError):
        return _found(private)
    state = state_directory(cache)
    with exclusive(state / "lock", what="Docker Engine", report=report):
        install_what_is_missing(report)
        if shutil.which("ip") is None:
            install_packages(["iproute2"], report=report)
        mount_cgroups(report)
        if live_process(private.pid_file, "dockerd") is None:
            private.root.mkdir(parents=True, exist_ok=True)
            if not private.apart:
                _add_network(private)
        start_daemon(
            log=state / f"{private.bridge}.log",
            record=_record_file(private, state),
            report=report,
            docker_host=private.docker_host,
            pid_file=private.pid_file,
            containerd_pid_file=private.exec_root / "containerd/containerd.pid",
            command=(*private.dockerd, *_arguments(private)),
        )
        return _found(private)


def stop(private: PrivateEngine, *, report: Say, cache: Path | None = None) -> None:
    """Stop it, and remove its network and what it has mounted."""
    stop_recorded(_record_file(private, state_directory(cache)), report=report)
    _remove_network(private)
    _unmount_below(private.root)


def _record_file(private: PrivateEngine, state: Path) -> Path:
    return state / f"{private.bridge}.json"


def _found(private: PrivateEngine) -> EngineInfo:
    info = engine_at(private.docker_host)
    own = private.exec_root / "containerd/containerd.sock"
    return replace(info, containerd_socket=str(own)) if own.exists() else info


def _arguments(private: PrivateEngine) -> list[str]:
    data = private.root / "data"
    # An engine with pools of its own that finds networks of an earlier start removes docker0, the system's engine's
    # bridge, unless its containers may live on without it.
    again = (data / "network/files/local-kv.db").exists()
    beside = [
        f"--bridge={private.bridge}",
        f"--default-address-pool=base={private.subnet},size=24",
        *(["--live-restore"] if again else []),
        "--iptables=false",
        "--ip6tables=false",
        "--ip-masq=false",
    ]
    return [
        f"--host={private.docker_host}",
        f"--data-root={data}",
        f"--exec-root={private.exec_root}",
        f"--pidfile={private.pid_file}",
        *([] if private.apart else beside),
        # Where both engines share the system's containerd, each must see only its own containers there.
        f"--containerd-namespace=samokoder-{private.bridge}",
        f"--containerd-plugins-namespace=samokoder-{private.bridge}-plugins",
    ]


def _rules(private: PrivateEngine) -> list[list[str]]:
    """Return the two filter rules: bridged traffic inside one network passes, between networks it does not.

    The system's engine sets FORWARD's policy to DROP, and with br_netfilter that hits bridged frames too.
    """
    tag = ["-m", "comment", "--comment", f"samokoder {private.bridge}"]
    inside = ["-s", private.subnet, "-d", private.subnet]
    return [
        [*inside, "-m", "physdev", "--physdev-is-bridged", *tag, "-j", "ACCEPT"],
        [*inside, *tag, "-j", "DROP"],
    ]


def _add_network(private: PrivateEngine) -> None:
    _remove_network(private)
    commands = [
        ["ip", "link", "add", private.bridge, "type", "bridge"],
        ["ip", "address", "add", f"{private.pool}.0.1/24", "dev", private.bridge],
        ["ip", "link", "set", private.bridge, "up"],
        *(["iptables", "-w", "-I", "FORWARD", *rule] for rule in reversed(_rules(private))),
    ]
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            _remove_network(private)
            raise EngineError(f"Private engine: `{' '.join(command)}` failed: {result.stderr.strip()}")


def _remove_network(private: PrivateEngine) -> None:
    commands = [["iptables", "-w", "-D", "FORWARD", *rule] for rule in _rules(private)]
    for command in [*commands, ["ip", "link", "delete", private.bridge]]:
        subprocess.run(command, capture_output=True, check=False)  # absent is what we want


def _unmount_below(root: Path) -> None:
    """Unmount what a killed private engine has left below its folder, the innermost first."""
    for point in reversed(_mounts_below(root)):
        subprocess.run(["umount", point], capture_output=True, check=False)


def _mounts_below(root: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [point for line in lines if Path(point := line.split()[4]).is_relative_to(root)]


def _remove(data: Path) -> None:
    """Remove an engine's images and volumes, unless something is still mounted there: it may be somebody else's."""
    real = data.resolve()
    _unmount_below(real)
    if not _mounts_below(real):
        shutil.rmtree(real, ignore_errors=True)


@contextlib.contextmanager
def private_engine(
    pool: str, *, data: Path | None = None, dockerd: tuple[str, ...] = (), apart: bool = False
) -> Iterator[tuple[PrivateEngine, EngineInfo]]:
    """Start one; it is stopped and its folder gone afterwards.

    pool: of addresses, such as `10.214`: one engine's. data: folder for its images and volumes, which is made here and
    gone afterwards as well; the others lie below
    /run then, where cAdvisor looks for containerd. dockerd, apart: as of PrivateEngine; the word ROOT stands for its
    folder.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can start an engine of its own")
    # A short path: it holds sockets.
    with tempfile.TemporaryDirectory(prefix="sk", dir="/run" if data else None, ignore_cleanup_errors=True) as folder:
        if data:
            data.mkdir()
            (Path(folder) / "data").symlink_to(data)
        own = {"dockerd": tuple(folder if word == ROOT else word for word in dockerd)} if dockerd else {}
        private = PrivateEngine(root=Path(folder), bridge=f"sk{secrets.token_hex(4)}", pool=pool, apart=apart, **own)
        try:
            info = start(private, report=print)
            try:
                yield private, info
            finally:
                stop(private, report=print)
        finally:
            if data:
                _remove(data)
