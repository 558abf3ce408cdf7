"""Reaches an engine on another host with the `ssh` program: with the user's keys, agent and ~/.ssh/config.

The Docker SDK has two ways of its own. Its first way starts ssh, and `docker` on that host, for every single request,
so that `status` would log in twenty times. Its second way reads only half of ~/.ssh/config. So a process logs in once,
and that login forwards a local socket to the engine's.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

# BatchMode: Pulumi's provider logs in many times in the background, where nobody can type a password. ServerAlive: a
# host that went away has to be noticed, although a stream of the engine may be silent for ever.
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_SOCKET = "/var/run/docker.sock"
# Pulumi's provider needs the `docker` program on that host. `cat` ends, and the login with it, when this process closes
# its end of the pipe, which happens however this process ends.
_REMAIN = "docker --version && exec cat"
_LOGIN_SECONDS = 30.0
_SAID_SECONDS = 2.0
_TURN_SECONDS = 0.02


def command(docker_host: str, *options: str) -> list[str]:
    """Return the words that run ssh to an engine's host (`ssh://user@host:22`), up to the command to run there."""
    words = [word for option in _OPTIONS for word in ("-o", option)]
    return ["ssh", "-T", *words, *options, "--", f"ssh://{urlsplit(docker_host).netloc}"]


def address(docker_host: str) -> str:
    """Return port, user and host, as a person types them after `ssh`."""
    parts = urlsplit(docker_host)
    port = f"-p {parts.port} " if parts.port else ""
    return port + (f"{parts.username}@" if parts.username else "") + str(parts.hostname)


@cache
def login(docker_host: str) -> Login:
    """Log in to an engine's host until this process ends. Raises ConnectionError with what ssh says."""
    made = Login(docker_host)
    try:
        made.wait()
    except BaseException:
        made.close()
        raise
    atexit.register(made.close)
    return made


class Login:
    """One ssh process, and the local socket that it forwards to the engine on the other host."""

    def __init__(self, docker_host: str) -> None:
        # Only the owner may enter the folder, because access to the socket is access to the engine.
        self._folder = Path(tempfile.mkdtemp(prefix="samokoder-"))
        self._said = (self._folder / "said").open("a+b")
        path = urlsplit(docker_host).path
        self._socket = path if path.strip("/") else _SOCKET
        # In its own session, so that Ctrl-C does not end ssh while this process still needs the engine.
        self._process = subprocess.Popen(
            [*command(docker_host, "-o", "ExitOnForwardFailure=yes", "-L", f"{self.path}:{self._socket}"), _REMAIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )

    @property
    def path(self) -> str:
        """Path of the local socket."""
        return str(self._folder / "docker.sock")

    def wait(self) -> None:
        """Wait until the socket is there. Raises ConnectionError with what ssh says."""
        end = time.monotonic() + _LOGIN_SECONDS
        while not Path(self.path).exists():
            if self._process.poll() is not None:
                raise ConnectionError(self._last_words() or f"ssh ended with status {self._process.returncode}")
            if time.monotonic() > end:
                raise ConnectionError(f"no login within {_LOGIN_SECONDS:.0f} s")
            time.sleep(_TURN_SECONDS)

    def why(self) -> str:
        """Return what ssh says of a connection that failed; empty: nothing."""
        end = time.monotonic() + _SAID_SECONDS
        while not (said := self._last_words()) and time.monotonic() < end:
            time.sleep(_TURN_SECONDS)
        if "open failed" in said:  # ssh says only that it could not open a channel
            return f"nothing answers at {self._socket} there, or who logs in may not use it"
        return said

    def close(self) -> None:
        """Log out."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return " ".join(line.strip() for line in lines[-3:]).rstrip(".")
