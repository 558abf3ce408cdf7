"""What an image answers to a GET that another container sends."""

from __future__ import annotations

import io
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from urllib.parse import urlsplit

# Says on standard error that there is a connection, since an image may listen and never answer. /dev/tcp is Bash's own;
# PostgreSQL's images have Bash, for their entry point is written in it.
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
    """Parse an HTTP answer. One that is none has status 0."""

    class _Socket:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    answer = HTTPResponse(_Socket())  # type: ignore[arg-type] # all that it asks of a socket
    try:
        answer.begin()
        path = urlsplit(answer.getheader("Location") or "").path
        return Answer(status=answer.status, body=answer.read().decode(errors="replace"), location=path)
    except (HTTPException, OSError, ValueError):
        return Answer(status=0)
