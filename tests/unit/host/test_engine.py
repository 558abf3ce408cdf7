from __future__ import annotations

import json
import os
import shutil
import signal
import socketserver
import stat
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from host import daemon, engine, process, process_ids
from host.cache import cache_directory
from host.cgroups import missing_cgroup_mounts
from host.daemon import ensure_engine, stop_engine
from host.errors import EngineError
from host.file_lock import exclusive
from host.process import run
from host.process_ids import live_process
from tests.serving import serving

INFO = {
    "IndexServerAddress": "https://index.example/v1/",
    "RegistryConfig": {"Mirrors": ["https://mirror.example/"]},
    "MemTotal": 8 * 2**30,
    "NCPU": 4,
    "Architecture": "x86_64",
    "CgroupVersion": "2",
    "Driver": "overlay2",
    "DockerRootDir": "/var/lib/docker",
}


class _Engine(BaseHTTPRequestHandler):
    """Answers the three questions that the product asks any engine, on one connection as it does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name is http.server's
        answers: dict[str, Any] = {"info": INFO, "version": {"Version": "28.5.1", "ApiVersion": "1.44"}}
        body = json.dumps(answers.get(self.path.rpartition("/")[2], {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"  # a unix socket's peer has no address to print

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Be silent."""


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "engine.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), _Engine)
    server.daemon_threads = True
    with serving(server):
        yield f"unix://{path}"


def unheard(_seconds: float, _last: str) -> None:
    """Hear of progress that does not matter here."""


def unheard_line(_line: str) -> None:
    """Hear of nothing."""


def program(folder: Path, name: str, text: str) -> Path:
    """Put an executable shell script called `name` into `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_engine_that_answers_is_used_as_it_is(answering: str, tmp_path: Path) -> None:
    said: list[str] = []
    info = ensure_engine(answering, report=said.append, cache=tmp_path)
    assert (info.version, info.api_version, info.cpus) == ("28.5.1", "1.44", 4)
    assert info.memory_bytes == 8 * 2**30, "settings compare the containers' limits with it"
    assert info.index_address == "https://index.example/v1/", "the offline path is chosen by asking this address"
    assert info.registry_mirrors == ("https://mirror.example/",)
    assert not info.started_by_us, "an engine that was there before must never be stopped"
    assert said == [], "nothing was done, so nothing is said"


def test_a_remote_host_without_an_engine_is_named_and_never_touched(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"No Docker Engine answers at tcp://127\.0\.0\.1:1: .*refused") as error:
        ensure_engine("tcp://127.0.0.1:1", report=unheard_line, cache=tmp_path)
    assert "Start Docker on that host" in str(error.value), "the message must say what to do"


@pytest.fixture
def over_there(answering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` that leads its socket to the answering engine; the file has a line for each login, with its words."""
    logins = tmp_path / "logins"
    script = (
        f'echo "$@" >> {logins}\n'
        "for word; do case $word in *docker.sock:*) here=${word%%:*};; esac; done\n"
        f'ln -s {answering.removeprefix("unix://")} "$here"\nexec cat'
    )
    program(tmp_path / "bin", "ssh", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return logins


def test_an_engine_on_another_host_is_asked_through_one_login(over_there: Path, tmp_path: Path) -> None:
    said: list[str] = []
    host = f"ssh://deploy@host-{os.getpid()}.example.org:2222"
    info = ensure_engine(host, report=said.append, cache=tmp_path)
    assert (info.docker_host, info.version, info.cpus) == (host, "28.5.1", 4), "the socket between is nobody's business"
    assert info.containerd_socket is None, "a file of this host says nothing of that one"
    assert said == [f"Docker Engine: {host}"], "a host that is away would be silent for as long as a login may take"
    engine.connect(host).close()
    (login,) = over_there.read_text().splitlines()
    assert f" -- ssh://deploy@host-{os.getpid()}.example.org:2222 docker --version" in login, "twenty would be too many"
    assert ":/var/run/docker.sock -- " in login
    assert "BatchMode=yes" in login, "nobody can be asked in the background"


def test_a_socket_of_that_host_can_be_named(over_there: Path) -> None:
    engine.connect(f"ssh://me@{os.getpid()}.example.org/run/user/1000/docker.sock").close()
    assert f":/run/user/1000/docker.sock -- ssh://me@{os.getpid()}.example.org docker" in over_there.read_text()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'me@host: Permission denied (publickey).' >&2; exit 255", r"Permission denied \(publickey\)\."),
        ("echo 'Host key verification failed.' >&2; exit 255", "Host key verification failed"),
        ("echo 'sh: 1: docker: not found' >&2; exit 127", "docker: not found"),
        ("exit 1", "ssh ended with status 1"),
    ],
)
def test_a_login_that_fails_says_why_and_what_must_work(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "ssh", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    host = f"ssh://me@{tmp_path.name.replace('_', '-')}.example.org:2222"
    with pytest.raises(EngineError, match=said) as error:
        ensure_engine(host, report=unheard_line, cache=tmp_path)
    assert f"ssh -p 2222 me@{tmp_path.name.replace('_', '-')}.example.org docker version" in str(error.value)


def test_how_far_another_clock_is_ahead_is_known() -> None:
    assert engine._ahead("2999-01-01T00:00:00.123456789Z") > 10**9
    assert engine._ahead("2000-01-01T03:00:00.1+03:00") < -(10**8)
    assert engine._ahead("") == 0, "an engine that does not say it is not out of step"


def test_no_engine_is_started_behind_a_foreign_socket(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="unset DOCKER_HOST"):
        ensure_engine(f"unix://{tmp_path}/user.sock", report=pytest.fail, cache=tmp_path)


def test_a_user_who_may_not_ask_the_engine_is_told_of_the_group() -> None:
    with pytest.raises(EngineError, match="group `docker`"):
        daemon.refuse_unless_startable(engine.DEFAULT_DOCKER_HOST, reason="Permission denied")


def test_without_root_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError, match="run this as root"):
        daemon.refuse_unless_startable(engine.DEFAULT_DOCKER_HOST, reason="no such file")


UNIFIED = "25 1 0:22 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
TMPFS = "25 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
MEMORY = "26 25 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
CPU = "27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
CONTROLLERS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\n"
CONTROLLERS += "memory\t2\t1\t1\npids\t0\t1\t1\nhugetlb\t0\t1\t0\n"


@pytest.mark.parametrize(
    ("mountinfo", "expected"),
    [
        (UNIFIED, []),
        ("20 1 8:1 / / rw - ext4 /dev/vda rw\n", [("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")]),
        (TMPFS + MEMORY + CPU, [("mount", "-t", "cgroup", "-o", "pids", "none", "/sys/fs/cgroup/pids")]),
    ],
    ids=["unified", "nothing", "partly"],
)
def test_exactly_the_missing_control_groups_are_mounted(mountinfo: str, expected: list[tuple[str, ...]]) -> None:
    assert missing_cgroup_mounts(mountinfo, CONTROLLERS) == expected, "a disabled controller is not asked for"


def test_a_pid_file_is_believed_only_when_that_program_has_the_number(tmp_path: Path) -> None:
    pid_file = tmp_path / "docker.pid"
    assert live_process(pid_file, "dockerd") is None, "no file"
    pid_file.write_text("not a number")
    assert live_process(pid_file, "dockerd") is None
    pid_file.write_text(str(os.getpid()))
    assert live_process(pid_file, "dockerd") is None, "the number belongs to another program: the file is stale"
    own_name = Path("/proc/self/comm").read_text().strip()
    assert live_process(pid_file, own_name) == os.getpid()


def test_a_zombie_does_not_count_as_a_running_engine(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "0"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet reaped
        (tmp_path / "pid").write_text(str(process.pid))
        assert live_process(tmp_path / "pid", "sleep") is None, "its number would stop dockerd for ever"


@pytest.mark.parametrize("same", [True, False], ids=["that-process", "another-with-its-number"])
def test_only_the_recorded_process_is_stopped(tmp_path: Path, *, same: bool) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        start_time = process_ids.start_time(process.pid) if same else "1"
        record = {"pid": process.pid, "start_time": start_time, "docker_host": engine.DEFAULT_DOCKER_HOST}
        (tmp_path / "engine").mkdir()
        (tmp_path / "engine/system.json").write_text(json.dumps(record))
        try:
            assert stop_engine(report=lambda _line: None, cache=tmp_path) is same
            # Reaped by stop_engine, so the exact status is gone; a live process has none at all.
            assert (process.poll() is not None) is same, "a number that went to another process must be left alone"
            assert not (tmp_path / "engine/system.json").exists(), "a stale record is not asked twice"
        finally:
            process.kill()


def test_stopping_when_nothing_was_started_does_nothing(tmp_path: Path) -> None:
    assert stop_engine(report=pytest.fail, cache=tmp_path) is False


def test_a_daemon_that_ends_by_itself_is_reported_with_its_log_and_sees_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    program(tools, "dockerd", f'env >{tmp_path}/seen; echo "no space left on device"; exit 1')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "hunter2-hunter2")

    with pytest.raises(EngineError, match="no space left on device"):
        daemon.start_daemon(
            log=tmp_path / "dockerd.log",
            record=tmp_path / "record.json",
            report=unheard_line,
            docker_host=f"unix://{tmp_path}/docker.sock",
            pid_file=tmp_path / "docker.pid",
            containerd_pid_file=tmp_path / "containerd.pid",
        )

    assert "hunter2" not in (tmp_path / "seen").read_text(), "the daemon's environment outlives the command"


def test_a_failed_command_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(EngineError, match=r"Trying: sh ended with status 3\.\n(    \d+\n)+    the reason$") as error:
        run(["sh", "-c", "seq 100; echo the reason >&2; exit 3"], what="Trying", waiting=unheard)
    assert "\n    5\n" not in str(error.value), "the beginning of a long log hides the reason"


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match="no-such-program is not there"):
        run(["no-such-program"], what="Trying", waiting=unheard)


def test_a_long_command_is_never_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRESS_SECONDS", 0.02)
    heard: list[str] = []

    def waiting(_seconds: float, last: str) -> None:
        heard.append(last)
        if last == "half":
            (tmp_path / "go-on").touch()  # the command waits for this, so it ends only because we were told

    script = f"echo half; until [ -e {tmp_path}/go-on ]; do sleep 0.01; done; echo whole"
    assert run(["sh", "-c", script], what="Trying", waiting=waiting) == "half\nwhole"
    assert "half" in heard


def test_an_interrupted_command_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRESS_SECONDS", 0.02)
    pid_file = tmp_path / "pid"

    def interrupt(_seconds: float, _last: str) -> None:
        if pid_file.exists() and pid_file.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", f"echo $$ >{pid_file}; exec sleep 1000"], what="Trying", waiting=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIG_DFL)


def test_two_runs_at_once_wait_for_each_other_and_say_so(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / "lock", what="Images", report=said.append):
            order.append("second")

    with exclusive(tmp_path / "lock", what="Images", report=pytest.fail):
        other = threading.Thread(target=second)
        other.start()
        while not said:
            other.join(timeout=0.01)
            assert other.is_alive(), "the second must wait for the first"
        order.append("first")
    other.join()
    assert order == ["first", "second"]
    assert "another run" in said[0], "a silent wait looks like a hang"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SAMOKODER_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, Path("/own")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/samokoder")),
        ({"XDG_CACHE_HOME": ""}, Path.home() / ".cache/samokoder"),
    ],
)
def test_the_cache_lies_where_the_user_says(environment: dict[str, str], expected: Path) -> None:
    assert cache_directory(environment) == expected


@pytest.mark.parametrize(
    ("there", "of_debian", "installed"),
    [
        (("dockerd", "iptables", "docker"), (), [["ca-certificates"]]),
        (("iptables",), (), [["docker.io", "ca-certificates"]]),
        (("iptables",), ("docker-cli",), [["docker.io", "ca-certificates"], ["docker-cli"]]),
        (("iptables", "docker"), ("docker-cli",), [["docker.io", "ca-certificates"]]),
    ],
    ids=["Docker is there", "Debian 12", "Debian 13", "another docker command"],
)
def test_a_host_gets_the_engine_with_the_command_of_the_runbooks_and_the_certificates(
    there: tuple[str, ...],
    of_debian: tuple[str, ...],
    installed: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[str]] = []
    programs = {*there, "ip", "apparmor_parser"}
    monkeypatch.setattr(daemon, "_CERTIFICATES", tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(daemon, "debian_has", lambda package: package in of_debian)
    monkeypatch.setattr(daemon, "install_packages", lambda packages, **_report: calls.append(list(packages)))
    daemon.install_what_is_missing(lambda _line: None)
    assert calls == installed, "on Debian 13 no runbook's `docker` works and no pull is trusted without them"
