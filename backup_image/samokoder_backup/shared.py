"""The workspace, files that the API and the worker share: one container hands out copies of it, and this fetches them.

That container runs as their user, who alone may read all that they write, and writes one file there. It answers
whoever has its password, on a network that is not published. What ends in the middle is no copy: the answer is in
chunks, and the last one comes only after tar was content.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path

from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, UnsureError, say
from samokoder_backup.settings import Workspace

_PIECE = 2**20
_WORDS_BYTES = 500
_CHANGED = 1
"""Of tar: a file was written to while it was read. So it is with what is never stopped."""
_SILENT_SECONDS = 600.0
_LEAST_FREE = 512 * 2**20
"""So much the copy leaves on the disk, where the database's log comes too."""
_LOOK_SECONDS, _TURN_SECONDS = 60.0, 5.0
MARK = ".samokoder-workspace"
"""Keeps the volume from being empty: the engine gives an empty one the owner that an image has where it is mounted, and
the application could no longer write to it. A copy of the volume gets it last, so one without it is not whole."""
_OK, _REFUSED, _NOT_HERE, _ILL = 200, 403, 404, 503
_MARKERS = (".samokoder-restore", ".samokoder-copying")
"""Of an interrupted restore; the application may have a file of such a name too, which is its own user's. None is in a
copy: what is restored from it would look interrupted."""
_HALF = "the workspace is half replaced: a restore was cut off. Finish it, by `make restore ENV=…`\n"


def fetch(source: Workspace, path: Path) -> None:
    """Write a copy, a tar file. Raises BackupError; the file is then not whole."""
    connection = HTTPConnection(source.host, source.port, timeout=_SILENT_SECONDS)
    try:
        connection.request("GET", "/copy", headers={"Authorization": at.secret("workspace_password")})
        answer = connection.getresponse()
        if answer.status != _OK:
            said = answer.read(_WORDS_BYTES).decode(errors="replace").strip()
            raise BackupError(f"workspace: {source.host} answers {answer.status}: {said}")
        with path.open("wb") as file:
            while piece := answer.read(_PIECE):
                if shutil.disk_usage(path.parent).free < _LEAST_FREE + len(piece):
                    raise UnsureError(f"workspace: less than {_LEAST_FREE // 2**20} MiB would be left on the disk")
                file.write(piece)
    except (OSError, HTTPException) as error:
        raise BackupError(f"workspace: {source.host} gave no whole copy: {error!r}") from error
    finally:
        connection.close()


class Sizes:
    """How much there is, as it was found when somebody looked last; -1 before that."""

    def __init__(self) -> None:
        self.files = self.bytes = -1

    def look(self) -> None:
        """Count; what goes meanwhile does not count."""
        files = size = 0
        for entry in _entries(at.WORKSPACE):
            try:
                size += entry.stat(follow_symlinks=False).st_blocks * 512
            except OSError:
                continue
            files += 1
        self.files, self.bytes = files, size

    def text(self) -> str:
        """Return it as Prometheus reads it."""
        usage = shutil.disk_usage(at.WORKSPACE)
        figures = {
            "workspace_files": ("Files and folders in the workspace", self.files),
            "workspace_size_bytes": ("Disk that they take", self.bytes),
            "workspace_volume_free_bytes": ("Free space where they are", usage.free),
            "workspace_volume_size_bytes": ("All space there", usage.total),
        }
        return "".join(
            f"# HELP {name} {what}\n# TYPE {name} gauge\n{name} {value}\n"
            for name, (what, value) in figures.items()
            if value >= 0
        )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    folders: list[str | Path] = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("", at.WORKSPACE_PORT), _Handler)
        self.sizes, self.password = Sizes(), at.secret("workspace_password")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_SECONDS

    def do_GET(self) -> None:
        """Answer; only a copy needs the password."""
        match self.path:
            case "/copy" if self._may() and half_replaced():
                self._say(_ILL, _HALF)
            case "/copy" if self._may():
                self._copy()
            case "/copy":
                self._say(_REFUSED, "no\n")
            case "/metrics":
                self._say(_OK, self.server.sizes.text())
            case "/health" if half_replaced():
                self._say(_ILL, _HALF)
            case "/health":
                self._say(*((_OK, "ok\n") if marked() else (_ILL, "the workspace cannot be written to\n")))
            case _:
                self._say(_NOT_HERE, "not here\n")

    def _may(self) -> bool:
        given = self.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode(), self.server.password.encode())

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _copy(self) -> None:
        began = time.monotonic()
        self.send_response(_OK)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        if copy(self.wfile):
            self.wfile.write(b"0\r\n\r\n")
            say(f"a copy was fetched in {time.monotonic() - began:.1f} s")

    def log_message(self, *_words: object) -> None:
        """Say nothing of each request."""


def serve() -> int:
    """Hand out copies until SIGTERM."""
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda _number, _frame: stop.set())
    server = _Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    looked = -_LOOK_SECONDS
    while not stop.is_set():
        if not half_replaced():
            marked()
        if time.monotonic() - looked >= _LOOK_SECONDS:
            server.sizes.look()
            looked = time.monotonic()
        stop.wait(_TURN_SECONDS)
    server.shutdown()
    server.server_close()
    return 0


def half_replaced() -> bool:
    """Tell whether a restore was interrupted here."""
    for name in _MARKERS:
        with contextlib.suppress(OSError):
            if (at.WORKSPACE / name).lstat().st_uid != os.geteuid():
                return True
    return False


def _make_readable() -> None:
    """Let the owner of the files, whose user this is, read them all: one that it cannot read would stop every copy."""
    for entry in _entries(at.WORKSPACE):
        with contextlib.suppress(OSError):
            needed = stat.S_IRUSR | (stat.S_IXUSR if entry.is_dir(follow_symlinks=False) else 0)
            found = entry.stat(follow_symlinks=False)
            mode = stat.S_IMODE(found.st_mode)
            if entry.is_symlink() or found.st_uid != os.geteuid() or mode & needed == needed:
                continue
            Path(entry.path).chmod(mode | needed)
            say(f"{entry.path!r} could not be read: its mode was {mode:03o} and is {mode | needed:03o} now")


def marked() -> bool:
    """Make the mark where it is not there; tell whether it is, so that the volume is its user's."""
    path = at.WORKSPACE / MARK
    try:
        path.touch(mode=0o600)
    except OSError as error:
        say(f"{path}: {error.strerror}")
        return False
    return True


def copy(into: BufferedIOBase) -> bool:
    """Write the workspace as tar's output in HTTP's chunks; tell whether it is whole."""
    _make_readable()
    # Anchored: a file of such a name in a folder of the workspace is the application's.
    words = ["tar", "--create", "--sparse", "--anchored", *(f"--exclude=./{name}" for name in _MARKERS)]
    words += ["--file=-", f"--directory={at.WORKSPACE}", "."]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as tar:
        assert tar.stdout is not None  # noqa: S101 - asked for above
        try:
            while piece := tar.stdout.read(_PIECE):
                into.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        except OSError:
            tar.kill()
    if tar.returncode in (0, _CHANGED):
        return True
    say(f"tar ended with {tar.returncode}: this was no copy")
    return False
