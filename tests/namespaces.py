"""A host and its neighbour as two network namespaces, with an engine of its own in the host's.

The engine writes its packet filter there: nobody else's rules are in sight.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import docker

from host.engine import connect
from host.errors import EngineError
from host.packages import install_packages
from tests.newer_engine import in_its_own

HOST, NEIGHBOUR = "10.77.0.1", "10.77.0.2"
HOST_SIX, NEIGHBOUR_SIX = "2001:db8:77::1", "2001:db8:77::2"
METADATA = "169.254.169.254"
_PATIENCE_SECONDS = 60


def run(*words: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, input=given)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done


@dataclass
class Namespace:
    """A network namespace that is gone at the end."""

    name: str = field(default_factory=lambda: f"samokoder-{secrets.token_hex(3)}")

    @property
    def enter(self) -> tuple[str, ...]:
        # Not `ip netns exec`: that mounts another /sys, in which the engine finds no control groups.
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(*self.enter, *words, check=check)

    def given(self, text: str, *words: str) -> None:
        """Run a program that reads this."""
        run(*self.enter, *words, given=text)

    def reaches(self, address: str, port: int) -> bool:
        """Tell whether something accepts a connection there."""
        program = f"import socket; socket.create_connection(('{address}', {port}), 3)"
        return self.run(sys.executable, "-c", program, check=False).returncode == 0


@dataclass
class Pair:
    """Both, joined by a cable: the neighbour knows a route to the host's containers, and is the cloud's metadata."""

    folder: Path
    host: Namespace = field(default_factory=Namespace)
    neighbour: Namespace = field(default_factory=Namespace)
    usr: Path | None = None
    """That of another Debian, whose engine it is; None: this machine's."""
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def _command(self) -> list[str]:
        words = [
            *(f"--host={self.socket}", f"--data-root={self.folder}/data"),
            *(f"--exec-root={self.folder}/run", f"--pidfile={self.folder}/pid", "--storage-driver=overlay2"),
        ]
        if self.usr:
            return [*self.host.enter, *in_its_own(self.usr, self._own_run()), *words]
        names = (f"--containerd-namespace={self.host.name}", f"--containerd-plugins-namespace={self.host.name}-p")
        return [*self.host.enter, "dockerd", *words, *names]

    def _own_run(self) -> str:
        """Return a new folder for its /run."""
        return tempfile.mkdtemp(prefix="r", dir=self.folder)

    def start(self) -> docker.DockerClient:
        """Start the engine, or start it again."""
        with (self.folder / "log").open("ab") as log:
            self.daemon = subprocess.Popen(self._command(), stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with contextlib.suppress(EngineError):
                return connect(self.socket, timeout=60)
            lives = self.daemon.poll() is None
            assert lives, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < end, "the engine does not answer"
            time.sleep(0.2)

    def get_ipv6(self) -> None:
        """Give both an address by IPv6, and each a way to what is behind the other."""
        link = self.host.name[-6:]
        for side, end, address in ((self.host, f"h{link}", HOST_SIX), (self.neighbour, f"n{link}", NEIGHBOUR_SIX)):
            side.run("ip", "-6", "address", "add", f"{address}/64", "dev", end, "nodad")
        self.host.run("ip", "-6", "route", "add", "default", "via", NEIGHBOUR_SIX)
        self.neighbour.run("ip", "-6", "route", "add", "fc00::/7", "via", HOST_SIX)

    @contextlib.contextmanager
    def serving(self, command: list[str]) -> Iterator[None]:
        """Run a program meanwhile."""
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    def stop(self) -> None:
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(60)


@contextlib.contextmanager
def pair(usr: Path | None = None) -> Iterator[Pair]:
    """Make both; they are gone afterwards, with the engine of `Pair.start`."""
    if shutil.which("ip") is None:
        install_packages(["iproute2"], report=print)
    with tempfile.TemporaryDirectory(prefix="sk-", dir="/tmp") as folder:  # short: sockets are in it
        made = Pair(Path(folder), usr=usr)
        serving = contextlib.ExitStack()
        try:
            for each in (made.host, made.neighbour):
                run("ip", "netns", "add", each.name)
                each.run("ip", "link", "set", "lo", "up")
            link = made.host.name[-6:]
            ends = ("name", f"h{link}", "netns", made.host.name, "type", "veth")
            run("ip", "link", "add", *ends, "peer", "name", f"n{link}", "netns", made.neighbour.name)
            for each, end, address in ((made.host, f"h{link}", HOST), (made.neighbour, f"n{link}", NEIGHBOUR)):
                each.run("ip", "address", "add", f"{address}/24", "dev", end)
                each.run("ip", "link", "set", end, "up")
            made.neighbour.run("ip", "route", "add", "172.16.0.0/12", "via", HOST)
            made.neighbour.run("ip", "address", "add", f"{METADATA}/32", "dev", "lo")
            made.host.run("ip", "route", "add", f"{METADATA}/32", "via", NEIGHBOUR)
            for port in (80, 53):
                words = [*made.neighbour.enter, sys.executable, "-m", "http.server", str(port)]
                serving.enter_context(made.serving(words))
            yield made
        finally:
            serving.close()
            made.stop()
            for each in (made.host, made.neighbour):
                run("ip", "netns", "delete", each.name, check=False)
            for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                if Path(point := line.split()[4]).is_relative_to(folder) and os.path.ismount(point):
                    run("umount", point, check=False)
