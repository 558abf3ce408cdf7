"""An engine on another host, by the `ssh` program: with the keys, the agent and the ~/.ssh/config that a person has.

The Docker SDK has two ways of its own. One starts an ssh for every single request, and a command that asks twenty
things would log in twenty times; the other reads half of ~/.ssh/config. So there is one login, and the SDK speaks to a
socket here, each connection to which is one `docker system dial-stdio` over there, through that login.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

# Nobody can be asked for a password: Pulumi's provider logs in many times, in the background. A host that went away is
# noticed, for a stream of the engine may be silent for ever.
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_LOGIN_SECONDS = 30.0
_SAID_SECONDS = 2.0
_TURN_SECONDS = 0.02


def command(docker_host: str, *options: str) -> list[str]:
    """Return the words that run ssh to an engine's host (`ssh://user@host:22`), up to the command over there."""
    words = [word for option in _OPTIONS for word in ("-o", option)]
    return ["ssh", "-T", *words, *options, "--", f"ssh://{urlsplit(docker_host).netloc}"]


def address(docker_host: str) -> str:
    """Return who logs in where, as a person types it."""
    parts = urlsplit(docker_host)
    port = f"-p {parts.port} " if parts.port else ""
    return port + (f"{parts.username}@" if parts.username else "") + str(parts.hostname)


@cache
def bridge(docker_host: str) -> Bridge:
    """Return the way to an engine; it is there until this process ends. Raises ConnectionError where nobody gets in."""
    made = Bridge(docker_host)
    try:
        made.log_in()
    except BaseException:
        made.close()
        raise
    atexit.register(made.close)
    return made


class Bridge:
    """A socket that leads to the engine of another host."""

    def __init__(self, docker_host: str) -> None:
        # Only its owner may enter: who reaches the sockets reaches the engine.
        self._folder = Path(tempfile.mkdtemp(prefix="samokoder-"))
        self._host = docker_host
        self._through = ("-o", f"ControlPath={self._folder / 'login'}")
        self._said = (self._folder / "said").open("a+b")
        self._running: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)

    @property
    def path(self) -> str:
        """Of the socket."""
        return str(self._folder / "docker.sock")

    def log_in(self) -> None:
        """Log in, then listen. Raises ConnectionError with what ssh says."""
        # `cat` ends, and the login with it, when our end of its input does: however we end.
        words = [*command(self._host, "-o", "ControlMaster=yes", *self._through), "cat"]
        login = self._start(*words, reads=subprocess.PIPE)
        end = time.monotonic() + _LOGIN_SECONDS
        while not (self._folder / "login").exists():
            if login.poll() is not None:
                raise ConnectionError(self._last_words() or f"ssh ended with status {login.returncode}")
            if time.monotonic() > end:
                raise ConnectionError(f"no login within {_LOGIN_SECONDS:.0f} s")
            time.sleep(_TURN_SECONDS)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def why(self) -> str:
        """Return what the last connection said before it ended, empty where it goes on or said nothing."""
        end = time.monotonic() + _SAID_SECONDS
        while time.monotonic() < end and self._running[-1].poll() is None:
            time.sleep(_TURN_SECONDS)
        return self._last_words()

    def close(self) -> None:
        """End every connection, and the login last."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in reversed(self._running):
            process.terminate()
            process.wait()
            if process.stdin:
                process.stdin.close()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        path = urlsplit(self._host).path
        host = [f"--host=unix://{path}"] if path.strip("/") else []
        words = [*command(self._host, *self._through), "docker", *host, "system", "dial-stdio"]
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # it was closed
            with connection:
                self._running = [process for process in self._running if process.poll() is None]
                self._start(*words, reads=connection.fileno(), writes=connection.fileno())

    def _start(self, *words: str, reads: int, writes: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        # Not in our session: a Ctrl-C reaches us, and we may have something to tell the engine yet.
        process = subprocess.Popen(words, stdin=reads, stdout=writes, stderr=self._said, start_new_session=True)
        self._running.append(process)
        return process

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return " ".join(line.strip() for line in lines[-3:])
