"""What an image answers: to a GET that another container sends, to its health check, and in its log."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import docker.errors

from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute
from stack.spec.service import LOG_FILES, LOG_MIB

if TYPE_CHECKING:
    from docker.models.containers import Container

_MOST_OF_A_CHECK = MIB

# The script prints `connected` on standard error, since an image may listen and never answer. /dev/tcp is a feature of
# Bash, which PostgreSQL's images have: their entry point is a Bash script.
ASK = (
    '{ exec 3<>"/dev/tcp/$0/$1"; } 2>/dev/null || exit 7; echo connected >&2; '
    'printf "GET %s HTTP/1.1\\r\\nHost: %s:%s\\r\\nAccept: */*\\r\\nConnection: close\\r\\n\\r\\n" "$2" "$0" "$1" >&3; '
    "exec cat <&3"
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a GET; `status` 0: there was a connection, but no answer over it."""

    status: int
    body: str = ""
    location: str = ""
    """Path that it redirects to."""


def parsed(raw: bytes) -> Answer:
    """Parse an HTTP answer. Status 0: the bytes are no HTTP answer."""

    class _Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    answer = HTTPResponse(_Socket())  # type: ignore[arg-type] # it calls no other method
    try:
        answer.begin()
        path = urlsplit(answer.getheader("Location") or "").path
        return Answer(status=answer.status, body=answer.read().decode(errors="replace"), location=path)
    except (HTTPException, OSError, ValueError):
        return Answer(status=0)


def tried(container: Container, command: Sequence[str], *, seconds: float) -> tuple[bool, str]:
    """Run a health command in a container; return whether it succeeds within these seconds, and a sentence about it.

    The sentence has the last line of its output, or why it was given up. An image may have any program of that name, so
    its time and its output are limited.
    """
    try:
        status, said = execute(container, command, bound=Bound(seconds, _MOST_OF_A_CHECK))
    except docker.errors.APIError as error:  # there is no such program, or the container has ended
        return False, f"the engine says: {error.explanation or error}"
    except BoundError as error:
        return False, str(error)
    lines = said.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return status == 0, f"it says: {last}" if last else ""


def log_of(container: Container) -> str:
    """Return all that a container has said, as far as the engine has kept it."""
    return container.logs().decode(errors="replace")


def may_be_cut(log: str) -> bool:
    """Tell whether the engine may have deleted the beginning of a log: it keeps LOG_FILES files of LOG_MIB each."""
    # In the engine's files a byte takes up to six (an escape in JSON), and each line also has its stream and its time.
    return 6 * len(log) + 100 * log.count("\n") >= (LOG_FILES - 1) * LOG_MIB * MIB
