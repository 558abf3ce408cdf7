"""Find a Docker Engine, or bring one up on a Debian or Ubuntu host, and stop only what was started here.

An engine that already answers is always used as it is. One is installed and started only on the local default
socket, as root, from the host's own package sources; everywhere else the message says what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import docker
import docker.errors
import docker.types
import requests.exceptions

from operations import ssh
from operations.basics import EngineError as EngineError  # noqa: PLC0414 - many import it from here

Report = Callable[[str], None]

DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"
"""Where Docker's package listens, and so where the product looks and where it starts an engine."""

CONTAINERD_SOCKETS = ("/run/docker/containerd/containerd.sock", "/run/containerd/containerd.sock")
"""Of an engine that runs its own containerd, and of one that uses the system's."""

PROGRESS_SECONDS = 2.0
"""So often somebody who waits is told how far it is."""

ALIVE_SECONDS = 30.0
"""So often a line says that something long is still at it."""

PING_TIMEOUT_SECONDS = 20
"""How long one question to an engine may take before it counts as not answering (an ssh hop needs some)."""

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_ERROR_TAIL_LINES = 15
_LOCK_POLL_SECONDS = 0.2
_CLOCKS_DIFFER_SECONDS = 30.0
_STAT_START_TIME = 19  # field 22 of /proc/PID/stat, counted from the state that follows the name

# What dockerd sees of the caller's environment: never a passphrase or a token that happens to be set there.
_DAEMON_ENVIRONMENT = (
    "PATH",
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


_START_INTERVAL = (1, 44)
DOCKERD = ("dockerd", "--storage-driver=overlay2")
_PID_FILE = Path("/var/run/docker.pid")
_CONTAINERD_PID_FILE = Path("/var/run/docker/containerd/containerd.pid")


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

    @property
    def knows_start_interval(self) -> bool:
        """Tell whether its health checks may have a start interval (API 1.44)."""
        return tuple(map(int, self.api_version.split("."))) >= _START_INTERVAL

    @property
    def clocks_differ(self) -> str:
        """What to say where the two clocks differ by more than an answer over a slow line takes; else empty."""
        if abs(self.clock_ahead_seconds) <= _CLOCKS_DIFFER_SECONDS:
            return ""
        return (
            f"The clocks differ: that of {self.docker_host} is {self.clock_ahead_seconds:+.0f} s against this "
            "machine's. Ages here, codes and certificates are off by that"
        )


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return the product's cache folder, shared by all clones: $SAMOKODER_CACHE, else in the user's cache."""
    env = os.environ if environment is None else environment
    if own := env.get("SAMOKODER_CACHE"):
        return Path(own)
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "samokoder"


@contextlib.contextmanager
def exclusive(path: Path, *, what: str, report: Report) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another run that holds it and saying so.

    The kernel frees it when its holder dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        if not _locked(handle):
            report(f"{what}: another run is at it, waiting for it")
            while not _locked(handle):
                time.sleep(_LOCK_POLL_SECONDS)
        yield


def _locked(handle: TextIO) -> bool:
    """Take the lock of an open file unless somebody has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    waiting: Callable[[float, str], None],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a command and return what it printed (both streams).

    Every two seconds `waiting` is told how many seconds it takes so far and its last line of output. Raises
    EngineError with the end of the output when the command fails or is not there.
    """
    lines: list[str] = []
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise EngineError(f"{what}: the program {command[0]} is not there.") from error

    def read() -> None:
        lines.extend(line.rstrip() for line in process.stdout or ())

    reader = threading.Thread(target=read, daemon=True)
    with process:
        reader.start()
        try:
            while True:
                try:
                    process.wait(timeout=PROGRESS_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    last = next((line for line in reversed(lines) if line.strip()), "")
                    waiting(time.monotonic() - started, last[:90])
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=PROGRESS_SECONDS)
            process.kill()  # some (unshare) do not heed the polite signal
            raise
        reader.join()
    if process.returncode != 0:
        tail = "\n".join(f"    {line}" for line in lines[-_ERROR_TAIL_LINES:])
        raise EngineError(f"{what}: {Path(command[0]).name} ended with status {process.returncode}.\n{tail}")
    return "\n".join(lines)


def _run(command: Sequence[str | Path], what: str, report: Report, env: Mapping[str, str] | None = None) -> None:
    said = 0.0

    def waiting(seconds: float, _last: str) -> None:
        nonlocal said
        if seconds - said >= ALIVE_SECONDS:
            said = seconds
            report(f"{what} ({seconds:.0f} s)")

    report(f"{what} ...")
    run(command, what=what, waiting=waiting, env=env)


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
            # The SDK forgets to close a socket that nobody answers; a plain question before it costs nothing.
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


def look(docker_host: str, *, cache: Path | None = None) -> EngineInfo:
    """Return the engine that answers at `docker_host`. Raises EngineError when none does; nothing is started."""
    return _ask(docker_host, record_file=_record_file(_state_directory(cache)))


def docker_command(docker_host: str) -> str:
    """Return what a person types to reach an engine: `docker`, or with `--host` where it is not the usual one."""
    return "docker" if docker_host == DEFAULT_DOCKER_HOST else f"docker --host {shlex.quote(docker_host)}"


def ensure_engine(docker_host: str = DEFAULT_DOCKER_HOST, *, report: Report, cache: Path | None = None) -> EngineInfo:
    """Return the engine at `docker_host`, bringing one up where that can be done without asking.

    Raises EngineError with what to do when there is no engine and none can be started. Progress goes to `report`, line
    by line.
    """
    state = _state_directory(cache)
    record_file = _record_file(state)
    if not docker_host.startswith("unix://"):
        report(f"Docker Engine: {docker_host}")  # a host that is away is silent for as long as a connection may take
    try:
        return _ask(docker_host, record_file=record_file)
    except EngineError as error:
        reason = str(error)
    refuse_unless_startable(docker_host, reason=reason)

    with exclusive(state / "lock", what="Docker Engine", report=report):
        with contextlib.suppress(EngineError):
            return _ask(docker_host, record_file=record_file)  # another run has brought it up meanwhile
        report(f"No Docker Engine answers at {docker_host}: bringing one up")
        install_what_is_missing(report)
        with contextlib.suppress(EngineError):
            return _ask(docker_host, record_file=record_file)  # the package has started it
        if systemd_runs():
            _run(["systemctl", "start", "docker"], "Starting Docker by systemd", report)
            return _ask(docker_host, record_file=record_file)
        mount_cgroups(report)
        start_daemon(log=state / "dockerd.log", record_file=record_file, report=report)
        return _ask(docker_host, record_file=record_file)


def stop_engine(*, report: Report, cache: Path | None = None) -> bool:
    """Stop the engine that `ensure_engine` started without systemd; return whether there was one.

    Its containers are stopped by it first. Any other engine is left alone.
    """
    return stop_recorded(_record_file(_state_directory(cache)), report=report)


def stop_recorded(record_file: Path, *, report: Report) -> bool:
    """Stop the dockerd that `start_daemon` has recorded, and remove the record; return whether it was there.

    The recorded process must still be that very dockerd (same id, same start time).
    """
    record = _read_record(record_file)
    stopped = False
    if record is not None and _is_that_process(record["pid"], record["start_time"]):
        os.kill(record["pid"], signal.SIGTERM)
        began = said = time.monotonic()
        while _is_that_process(record["pid"], record["start_time"]):
            if time.monotonic() - said >= ALIVE_SECONDS:
                said = time.monotonic()
                report(f"Docker Engine is stopping its containers ({said - began:.0f} s)")
            time.sleep(0.1)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record["pid"], os.WNOHANG)
        stopped = True
    record_file.unlink(missing_ok=True)
    return stopped


def _state_directory(cache: Path | None) -> Path:
    directory = (cache or cache_directory()) / "engine"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _record_file(state: Path) -> Path:
    return state / "system.json"


def _readable(error: BaseException) -> str:
    """Return the innermost cause in one line: the SDK wraps `Permission denied` in four layers of words."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__


def _ask(host: str, *, record_file: Path) -> EngineInfo:
    client = connect(host)
    try:
        info: dict[str, Any] = client.info()
        version: dict[str, Any] = client.version()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise EngineError(_readable(error)) from error
    finally:
        client.close()
    record = _read_record(record_file)
    return EngineInfo(
        docker_host=host,
        version=str(version["Version"]),
        api_version=str(version["ApiVersion"]),
        started_by_us=(
            record is not None
            and record["docker_host"] == host
            and _is_that_process(record["pid"], record["start_time"])
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
    )


def _ahead(system_time: str) -> float:
    """Return how far a clock is ahead of ours, in seconds; 0 for one that says nothing."""
    return (datetime.fromisoformat(system_time) - datetime.now(UTC)).total_seconds() if system_time else 0.0


def _containerd_socket(host: str, info: Mapping[str, Any]) -> str | None:
    stated = (info.get("Containerd") or {}).get("Address")  # Docker 28 and newer say it
    if not host.startswith("unix://"):
        return str(stated) if stated else None
    # An engine uses the system's containerd where that runs before it, else its own below its exec-root.
    for candidate in (stated, *CONTAINERD_SOCKETS):
        if candidate and Path(candidate).exists():
            return str(candidate)
    return None


def containerd_of_remote(client: docker.DockerClient) -> str | None:
    """Find containerd's socket on a host whose files cannot be seen: the engine refuses to mount what is not there.

    An empty image and a container that is never started are made for it, and removed.
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


def refuse_unless_startable(host: str, *, reason: str) -> None:
    """Raise EngineError with what to do, unless this host may get an engine started on that socket."""
    problem = f"No Docker Engine answers at {host}: {reason}."
    if host.startswith("ssh://"):
        raise EngineError(
            f"{problem}\nThis must work without a question (a key that the agent has, a host that ssh knows, a user "
            f"who may use Docker there): ssh {ssh.address(host)} docker version"
        )
    if not host.startswith("unix://"):
        raise EngineError(f"{problem}\nStart Docker on that host, or check the address and the certificates.")
    path = Path(host.removeprefix("unix://"))
    if path not in (Path("/var/run/docker.sock"), Path("/run/docker.sock")):
        raise EngineError(
            f"{problem}\nAn engine is started only at {DEFAULT_DOCKER_HOST}: start the one behind this socket, "
            "or unset DOCKER_HOST."
        )
    if "permission denied" in reason.lower():
        raise EngineError(f"{problem}\nRun this as root, or add yourself to the group `docker` and log in again.")
    if os.geteuid() != 0:
        raise EngineError(
            f"{problem}\nStart Docker (`sudo systemctl start docker`), or install it, or run this as root."
        )
    if shutil.which("dockerd") is None and shutil.which("apt-get") is None:
        raise EngineError(
            f"{problem}\nDocker is not installed, and only Debian and Ubuntu hosts get it from here: install "
            "Docker Engine 20.10 or newer by your system's packages and start it."
        )


def install_what_is_missing(report: Report) -> None:
    """Install what an engine needs and this host has not."""
    wanted = {"dockerd": "docker.io", "iptables": "iptables"}
    if Path("/sys/kernel/security/apparmor").exists():
        wanted["apparmor_parser"] = "apparmor"  # the kernel enforces it, so the engine must load its profile
    packages = [package for program, package in wanted.items() if shutil.which(program) is None]
    # From Debian 13 on, docker.io only recommends it, and without it the engine trusts no registry.
    if not _CERTIFICATES.exists():
        packages.append("ca-certificates")
    if packages:
        install_packages(packages, report=report)
    # There the command that the runbooks use is a package of its own. Asked here: the package lists are new now.
    if shutil.which("docker") is None and _debian_has("docker-cli"):
        install_packages(["docker-cli"], report=report)


def _debian_has(package: str) -> bool:
    """Tell whether the host's package sources have a package of their own by this name (a virtual one is none)."""
    if shutil.which("apt-cache") is None:
        return False
    answer = subprocess.run(["apt-cache", "show", "--quiet=2", package], capture_output=True, check=False)
    return answer.returncode == 0


def install_packages(packages: Sequence[str], *, report: Report) -> None:
    """Install packages from the host's own Debian or Ubuntu sources. Raises EngineError when that fails."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise EngineError(f"Missing: {', '.join(packages)}. Install them by your system's packages.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], "Reading the package lists", report, environment)
    # Waits for another apt at work (a fresh cloud host runs its own) instead of failing on its lock.
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=-1"]
    _run([*install, *packages], f"Installing {', '.join(packages)}", report, environment)


def systemd_runs() -> bool:
    """Tell whether systemd starts this machine's services."""
    return Path("/run/systemd/system").is_dir()  # what sd_booted(3) looks at


def missing_cgroup_mounts(mountinfo: str, proc_cgroups: str) -> list[tuple[str, ...]]:
    """Return the mount commands that give an engine its cgroups, from two files of /proc; none if all is there.

    A host with the unified hierarchy (v2) at /sys/fs/cgroup needs nothing. With nothing there, v2 is asked
    for first; the caller falls back to v1. With v1 there, each enabled controller that is mounted nowhere is
    added.
    """
    mounted: set[str] = set()
    top = ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        kind, _, options = right.split(" ", 2)
        if point == "/sys/fs/cgroup":
            top = kind
        if kind == "cgroup":
            mounted.update(options.split(","))
    if top == "cgroup2":
        return []
    if not top and not mounted:
        return [("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")]
    rows = [line.split() for line in proc_cgroups.splitlines() if line and not line.startswith("#")]
    wanted = [name for name, _, _, enabled in rows if enabled == "1" and name not in mounted]
    return [("mount", "-t", "cgroup", "-o", name, "none", f"/sys/fs/cgroup/{name}") for name in wanted]


def mount_cgroups(report: Report) -> None:
    """Mount the control groups that are missing."""

    def commands() -> list[tuple[str, ...]]:
        return missing_cgroup_mounts(
            Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
            Path("/proc/cgroups").read_text(encoding="utf-8"),
        )

    def mount(command: Sequence[str]) -> bool:
        Path(command[-1]).mkdir(parents=True, exist_ok=True)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    todo = commands()
    if todo and "cgroup2" in todo[0]:
        report("Mounting the control groups")
        controllers = Path("/sys/fs/cgroup/cgroup.controllers")
        if mount(todo[0]) and "memory" in controllers.read_text(encoding="utf-8").split():
            return
        # v2 is there without its controllers: the kernel holds them for v1.
        subprocess.run(["umount", "/sys/fs/cgroup"], capture_output=True, check=False)
        mount(("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/sys/fs/cgroup"))
        todo = commands()
    for command in todo:
        if not mount(command):
            report(f"The control group {Path(command[-1]).name} could not be mounted; going on without it")


def start_daemon(
    *,
    log: Path,
    record_file: Path,
    report: Report,
    docker_host: str = DEFAULT_DOCKER_HOST,
    pid_file: Path = _PID_FILE,
    containerd_pid_file: Path = _CONTAINERD_PID_FILE,
    command: Sequence[str] = DOCKERD,
) -> None:
    """Start a dockerd, record it in `record_file`, and wait until it answers.

    docker_host, pid_file, containerd_pid_file: its socket and its files. command: its program and words.
    Raises EngineError with the end of its log where it ends by itself.
    """
    if (running := live_process(pid_file, "dockerd")) is not None:
        report(f"dockerd {running} is there but does not answer yet")
        _wait_until_it_answers(running, docker_host, log, report)
        return
    # A number that meanwhile belongs to another process, or to a zombie, stops dockerd; so does containerd's.
    pid_file.unlink(missing_ok=True)
    if live_process(containerd_pid_file, "containerd") is None:
        containerd_pid_file.unlink(missing_ok=True)
    report(f"Starting dockerd (log: {log})")
    pid = os.posix_spawn(
        shutil.which("env") or "/usr/bin/env",
        # It must not keep the caller's folder busy. `env` execs, so the pid is dockerd's.
        ["env", "--chdir=/", *command],
        {name: os.environ[name] for name in _DAEMON_ENVIRONMENT if name in os.environ},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,  # a Ctrl-C at the terminal must not reach the engine
    )
    record = {"pid": pid, "start_time": start_time(pid), "docker_host": docker_host}
    record_file.write_text(json.dumps(record), encoding="utf-8")
    _wait_until_it_answers(pid, docker_host, log, report)


def _wait_until_it_answers(pid: int, host: str, log: Path, report: Report) -> None:
    """Wait as long as the daemon lives: on a host with many containers its start takes minutes."""
    began = said = time.monotonic()
    while True:
        with contextlib.suppress(EngineError):
            # It listens before it answers, so a question of usual patience would be silent for too long.
            connect(host, timeout=PROGRESS_SECONDS).close()
            return
        if start_time(pid) is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            tail = "\n".join(f"    {line}" for line in lines[-_ERROR_TAIL_LINES:])
            raise EngineError(f"dockerd ended by itself. The end of its log ({log}):\n{tail}")
        if time.monotonic() - said >= ALIVE_SECONDS:
            said = time.monotonic()
            report(f"Waiting for dockerd to answer ({said - began:.0f} s)")
        time.sleep(0.1)


def live_process(pid_file: Path, name: str) -> int | None:
    """Return the id in the pid file when a live process of that name really has it."""
    try:
        pid = int(pid_file.read_text(encoding="utf-8").strip() or "0")
        found = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return pid if found == name and start_time(pid) is not None else None


def start_time(pid: int) -> str | None:
    """Return the kernel's start time of a live process, which with the id is its identity; None for a dead one."""
    try:
        # The name stands in brackets and may hold anything, so count from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[_STAT_START_TIME]


def _is_that_process(pid: int, started: str | None) -> bool:
    return started is not None and start_time(pid) == started


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"pid", "start_time", "docker_host"} <= record.keys() else None
