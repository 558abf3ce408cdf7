"""Run a command in a container, and return its output and its exit status."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import docker
import docker.errors
from docker.models.containers import Container

from operations.engine.bound import Bound
from operations.errors import ProjectError

_ENDS_SECONDS = 60
_OUT, _ERR = 1, 2
_HEAD = struct.Struct(">BxxxL")
Frame = tuple[int, bytes]
"""A piece of a program's output: 1 for standard output or 2 for standard error, and the text."""


def execute(
    container: Container, command: Sequence[str], *, bound: Bound | None = None, **options: Any
) -> tuple[int, bytes]:
    """Run a command in a container to its end; return its exit status and its output.

    The SDK's `exec_run` is not used, because it may return no status (see `exec_status`) or lose output (see `frames`).
    options: of the SDK's `exec_create`. Raises BoundError at the limit; the command then keeps running, because the
    engine cannot end a command in a container.
    """
    status, said = _execute(container, command, options, bound)
    return status, b"".join(text for _, text in said)


def execute_apart(
    container: Container, command: Sequence[str], *, bound: Bound | None = None
) -> tuple[int, bytes, bytes]:
    """Run a command as `execute` does; return its exit status, its standard output and its standard error."""
    status, said = _execute(container, command, {}, bound)
    out, err = (b"".join(text for number, text in said if number == wanted) for wanted in (_OUT, _ERR))
    return status, out, err


def _execute(
    container: Container, command: Sequence[str], options: Mapping[str, Any], bound: Bound | None
) -> tuple[int, list[Frame]]:
    api = cast("docker.DockerClient", container.client).api
    session = api.exec_create(container.id, list(command), **options)["Id"]
    stream: Any = api.exec_start(session, socket=True)
    try:
        said = list(frames(stream, bound))
    finally:
        stream._response.close()  # noqa: SLF001 - there is no other way to it
    return exec_status(api, session, bound), said


def frames(stream: Any, bound: Bound | None = None) -> Iterator[Frame]:
    """Yield the output of a program from a socket of the SDK (`exec_start`, `attach_socket`) until the program ends it.

    The SDK's own reader is not used: it reads the socket below the buffer with which it has read the head of the HTTP
    answer. It loses the output that came together with that head, which is all output of a quick command, and the
    status is then 0. Raises BoundError.
    """
    socket = getattr(stream, "_sock", stream)
    reader = stream._response.raw._fp.fp  # noqa: SLF001 - there is no other way to it
    socket.settimeout(bound.left() if bound else None)  # a program may be silent for long
    try:
        while len(head := reader.read(_HEAD.size)) == _HEAD.size:
            number, size = _HEAD.unpack(head)
            if bound:
                bound.take(size)
            yield number, reader.read(size)
            if bound:
                socket.settimeout(bound.left())
    except TimeoutError:
        if bound is None:
            raise
        raise bound.late() from None


def exec_status(api: docker.APIClient, session: str, bound: Bound | None = None) -> int:
    """Return the exit status of a command in a container whose output has ended.

    The engine ends the output when the command closes it, and knows the status a moment later: until then the status is
    null, which a caller would take for a success or a failure. Raises BoundError, and ProjectError where the command
    does not end within 60 s.
    """
    end = time.monotonic() + _ENDS_SECONDS
    while (status := api.exec_inspect(session)["ExitCode"]) is None:
        if bound:
            bound.left()
        if time.monotonic() > end:
            raise ProjectError(f"a command in a container has closed its output and still runs after {_ENDS_SECONDS} s")
        time.sleep(0.05)
    return int(status)
