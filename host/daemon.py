"""Find a Docker Engine, or bring one up on a Debian or Ubuntu host, and stop only what was started here.

An engine that already answers is always used as it is. One is installed and started only on the local default
socket, as root, from the host's own package sources; everywhere else the message says what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from host import ssh
from host.cgroups import mount_cgroups
from host.daemon_record import read_record, record_file, state_directory
from host.engine import DEFAULT_DOCKER_HOST, EngineInfo, connect, info_of
from host.errors import EngineError
from host.file_lock import exclusive
from host.packages import debian_has, install_packages
from host.process import ALIVE_SECONDS, ERROR_TAIL_LINES, PROGRESS_SECONDS, Say, run_and_say
from host.process_ids import is_that_process, live_process, start_time

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# The caller's variables that dockerd gets: a passphrase or a token among the others must not reach it.
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
DOCKERD = ("dockerd", "--storage-driver=overlay2")
_PID_FILE = Path("/var/run/docker.pid")
_CONTAINERD_PID_FILE = Path("/var/run/docker/containerd/containerd.pid")


def engine_at(docker_host: str, *, cache: Path | None = None) -> EngineInfo:
    """Return the engine that answers at `docker_host`. Raises EngineError when none does; nothing is started."""
    return info_of(docker_host, record_file=record_file(cache))


def ensure_engine(docker_host: str = DEFAULT_DOCKER_HOST, *, report: Say, cache: Path | None = None) -> EngineInfo:
    """Return the engine at `docker_host`, bringing one up where that can be done without asking.

    Raises EngineError with what to do when there is no engine and none can be started. Progress goes to `report`, line
    by line.
    """
    state, record = state_directory(cache), record_file(cache)
    if not docker_host.startswith("unix://"):
        report(f"Docker Engine: {docker_host}")  # said first, as a host that is away is silent until the timeout
    try:
        return info_of(docker_host, record_file=record)
    except EngineError as error:
        reason = str(error)
    refuse_unless_startable(docker_host, reason=reason)

    with exclusive(state / "lock", what="Docker Engine", report=report):
        with contextlib.suppress(EngineError):
            return info_of(docker_host, record_file=record)  # another run has brought it up meanwhile
        report(f"No Docker Engine answers at {docker_host}: bringing one up")
        install_what_is_missing(report)
        with contextlib.suppress(EngineError):
            return info_of(docker_host, record_file=record)  # the package has started it
        if systemd_runs():
            run_and_say(["systemctl", "start", "docker"], "Starting Docker by systemd", report)
            return info_of(docker_host, record_file=record)
        mount_cgroups(report)
        start_daemon(log=state / "dockerd.log", record=record, report=report)
        return info_of(docker_host, record_file=record)


def stop_engine(*, report: Say, cache: Path | None = None) -> bool:
    """Stop the engine that `ensure_engine` started without systemd; return whether there was one.

    dockerd first stops its containers. Any other engine is left alone.
    """
    return stop_recorded(record_file(cache), report=report)


def stop_recorded(file: Path, *, report: Say) -> bool:
    """Stop the dockerd that `start_daemon` has recorded, and remove the record; return whether it was there.

    The recorded process must still be that very dockerd (same id, same start time).
    """
    record = read_record(file)
    stopped = False
    if record is not None and is_that_process(record["pid"], record["start_time"]):
        os.kill(record["pid"], signal.SIGTERM)
        began = said = time.monotonic()
        while is_that_process(record["pid"], record["start_time"]):
            if time.monotonic() - said >= ALIVE_SECONDS:
                said = time.monotonic()
                report(f"Docker Engine is stopping its containers ({said - began:.0f} s)")
            time.sleep(0.1)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(record["pid"], os.WNOHANG)
        stopped = True
    file.unlink(missing_ok=True)
    return stopped


def refuse_unless_startable(host: str, *, reason: str) -> None:
    """Raise EngineError with what to do, unless an engine may be started on that socket. reason: why none answers."""
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


def install_what_is_missing(report: Say) -> None:
    """Install the packages that an engine needs and this host lacks."""
    wanted = {"dockerd": "docker.io", "iptables": "iptables"}
    if Path("/sys/kernel/security/apparmor").exists():
        wanted["apparmor_parser"] = "apparmor"  # the kernel enforces it, so the engine must load its profile
    packages = [package for program, package in wanted.items() if shutil.which(program) is None]
    # From Debian 13 on, docker.io only recommends ca-certificates, and without them the engine trusts no registry.
    if not _CERTIFICATES.exists():
        packages.append("ca-certificates")
    if packages:
        install_packages(packages, report=report)
    # From Debian 13 on the `docker` command, which the runbooks use, has its own package. This comes last, since the
    # installation before it updates the package lists.
    if shutil.which("docker") is None and debian_has("docker-cli"):
        install_packages(["docker-cli"], report=report)


def systemd_runs() -> bool:
    """Tell whether systemd starts this machine's services."""
    return Path("/run/systemd/system").is_dir()  # what sd_booted(3) looks at


def start_daemon(
    *,
    log: Path,
    record: Path,
    report: Say,
    docker_host: str = DEFAULT_DOCKER_HOST,
    pid_file: Path = _PID_FILE,
    containerd_pid_file: Path = _CONTAINERD_PID_FILE,
    command: Sequence[str] = DOCKERD,
) -> None:
    """Start a dockerd, record it in `record`, and wait until it answers.

    docker_host, pid_file, containerd_pid_file: its socket and its files. command: its program and words.
    Raises EngineError with the end of dockerd's log where dockerd ends.
    """
    if (running := live_process(pid_file, "dockerd")) is not None:
        report(f"dockerd {running} is there but does not answer yet")
        _wait_until_it_answers(running, docker_host, log, report)
        return
    # dockerd does not start while its pid file, or containerd's, has the id of an unrelated process or of a zombie.
    pid_file.unlink(missing_ok=True)
    if live_process(containerd_pid_file, "containerd") is None:
        containerd_pid_file.unlink(missing_ok=True)
    report(f"Starting dockerd (log: {log})")
    pid = os.posix_spawn(
        shutil.which("env") or "/usr/bin/env",
        # dockerd must not keep the caller's folder busy. `env` replaces itself with dockerd, so the pid is dockerd's.
        ["env", "--chdir=/", *command],
        {name: os.environ[name] for name in _DAEMON_ENVIRONMENT if name in os.environ},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,  # a Ctrl-C at the terminal must not reach the engine
    )
    noted = {"pid": pid, "start_time": start_time(pid), "docker_host": docker_host}
    record.write_text(json.dumps(noted), encoding="utf-8")
    _wait_until_it_answers(pid, docker_host, log, report)


def _wait_until_it_answers(pid: int, host: str, log: Path, report: Say) -> None:
    """Wait as long as the daemon lives: on a host with many containers its start takes minutes."""
    began = said = time.monotonic()
    while True:
        with contextlib.suppress(EngineError):
            # dockerd listens before it answers, so with the usual timeout nothing would be reported for too long.
            connect(host, timeout=PROGRESS_SECONDS).close()
            return
        if start_time(pid) is None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
            tail = "\n".join(f"    {line}" for line in lines[-ERROR_TAIL_LINES:])
            raise EngineError(f"dockerd ended by itself. The end of its log ({log}):\n{tail}")
        if time.monotonic() - said >= ALIVE_SECONDS:
            said = time.monotonic()
            report(f"Waiting for dockerd to answer ({said - began:.0f} s)")
        time.sleep(0.1)
