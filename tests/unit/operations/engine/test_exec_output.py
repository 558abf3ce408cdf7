"""What a program in a container says reaches us, however quickly it says it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from host.progress import Task
from operations.data import backups
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute, execute_apart
from operations.rotation import servers
from tests.serving import serving

HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(number: int, text: bytes) -> bytes:
    return struct.pack(">BxxxL", number, len(text)) + text


SAID = frame(1, b"one\n") + frame(2, b"two\n") + frame(1, b"three\n")


@contextmanager
def engine(path: Path, *pieces: bytes, on: bytes | None = None, ends: bool = True) -> Iterator[Any]:
    """A container of an engine that answers what it is asked to run with these pieces, each in one packet.

    on: what it says after them for ever; empty: nothing, and it does not close its output. ends: whether the engine
    ever knows how it ended.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                size = 0
                while head := self.rfile.readline().strip().lower():
                    size = int(head.partition(b":")[2]) if head.startswith(b"content-length") else size
                self.rfile.read(size)
                if b"/start" in line:
                    for piece in pieces:
                        self.connection.sendall(piece)
                        time.sleep(0.001)
                    with contextlib.suppress(OSError):  # nobody listens any more
                        while on:
                            self.connection.sendall(on)
                    if on is None:
                        self.connection.shutdown(socket.SHUT_WR)
                    self.rfile.read()  # closed with something unread, the other end would get an error
                    return
                body = b'{"Id": "it", "ExitCode": %s}' % (b"0" if ends else b"null")
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    made = socketserver.ThreadingUnixStreamServer(str(path), Handler)
    made.daemon_threads = True
    with serving(made):
        client = docker.APIClient(base_url=f"unix://{path}", version="1.41")
        yield SimpleNamespace(id="it", client=SimpleNamespace(api=client), reload=lambda: None, status="running")
        client.close()


PIECES = {
    "together with the head of the answer": (HEAD + SAID,),
    "after it": (HEAD, SAID),
    "byte by byte": (HEAD, *(bytes([each]) for each in SAID)),
    "with the head's last byte": (HEAD[:-1], HEAD[-1:] + SAID[:5], SAID[5:]),
}


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_all_that_a_command_says_is_read_in_whatever_pieces_it_comes(pieces: tuple[bytes, ...], tmp_path: Path) -> None:
    with engine(tmp_path / "s", *pieces) as container:
        assert execute(container, ["it"]) == (0, b"one\ntwo\nthree\n"), "it is lost, and the status is 0"
        assert execute_apart(container, ["it"]) == (0, b"one\nthree\n", b"two\n")
        task = Task("")
        assert backups.run_in_service(cast("Any", container), ["list"], task) == "one\nthree\n"
        assert task.detail == "two"
        assert servers._exec(container, ["it"], "in") == "one\ntwo\nthree\n", "a login that works is taken for refused"


def test_a_command_that_says_nothing_is_no_error(tmp_path: Path) -> None:
    with engine(tmp_path / "s", HEAD) as container:
        assert execute(container, ["true"]) == (0, b"")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "it is silent for ever": ({"on": b""}, "it does not end within 0.2 s"),
    "it says little for ever": ({"on": frame(1, b"")}, "it does not end within 0.2 s"),
    "it says much for ever": ({"on": frame(1, bytes(2**16))}, "it says more than 1 MiB"),
    "it closes its output and stays": ({"ends": False}, "it does not end within 0.2 s"),
}


@pytest.mark.parametrize("behaviour", HOSTILE)
def test_a_command_of_somebody_elses_image_is_waited_for_and_listened_to_no_longer_than_its_bound(
    behaviour: str, tmp_path: Path
) -> None:
    does, told = HOSTILE[behaviour]
    with engine(tmp_path / "s", HEAD, **does) as container, pytest.raises(BoundError, match=f"^{told}$"):
        execute(container, ["it"], bound=Bound(60 if "more" in told else 0.2, MIB))


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_a_bound_changes_nothing_of_a_command_that_keeps_it(pieces: tuple[bytes, ...], tmp_path: Path) -> None:
    with engine(tmp_path / "s", *pieces) as container:
        said = execute_apart(container, ["it"], bound=Bound(60, 14))
        assert said == (0, b"one\nthree\n", b"two\n"), "a bound that is just reached is kept"
