"""The container's program: `python -m stack.parts.log_collector`. It has the standard library alone."""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import http.server
import signal
import socket
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from stack.parts.log_collector.collector import Collector, RefusedError, Send
from stack.parts.log_collector.counts import LogCounts

_TURN_SECONDS = 1.0
_ALIVE_SECONDS = 90
_ANSWER_SECONDS = 20
_ASKED_SECONDS = 2
"""A connection may take so long, whatever is sent in it."""
_AT_ONCE = 4
_REFUSALS = (400, 413, 422)
"""What the store answers to a batch that it will never take."""
_INSERT = "/insert/jsonline?" + urlencode({"_stream_fields": "environment,part,replica", "_time_field": "_time"})


def sender(store: str, user: str, password: Path | None) -> Send:
    """Return a function that sends lines of JSON to VictoriaLogs at `store` (http://logs:9428)."""
    address = urlsplit(store)
    # Another type is answered with 200, and nothing is stored.
    headers = {"Content-Type": "application/stream+json"}
    if password:
        login = base64.b64encode(f"{user}:{password.read_text()}".encode()).decode()
        headers["Authorization"] = f"Basic {login}"

    def send(rows: bytes) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("POST", _INSERT, rows, headers)
            answer = connection.getresponse()
            said = answer.read(300).decode(errors="replace")
        finally:
            connection.close()
        if answer.status in _REFUSALS:
            raise RefusedError(said)
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise OSError(f"{answer.status} {said}")

    return send


class _Server(http.server.ThreadingHTTPServer):
    """Answers a few connections at once, each for a short time: others can neither take all memory nor hold it up."""

    def __init__(self, port: int, handler: type[http.server.BaseHTTPRequestHandler]) -> None:
        super().__init__(("", port), handler)
        self._free = threading.BoundedSemaphore(_AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        over = threading.Timer(_ASKED_SECONDS, _end, [request])
        over.daemon = True
        try:
            over.start()
            super().process_request_thread(request, client_address)
        finally:
            over.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent of a client that is gone: a traceback for each would raise an alert."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is over
        connection.shutdown(socket.SHUT_RDWR)


def served(counts: LogCounts, port: int) -> http.server.HTTPServer:
    """Serve `/metrics` and `/health`."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            late = time.monotonic() - counts.alive > _ALIVE_SECONDS
            status, text = HTTPStatus.NOT_FOUND, ""
            if self.path == "/metrics":
                status, text = HTTPStatus.OK, counts.text()
            elif self.path == "/health":
                status = HTTPStatus.SERVICE_UNAVAILABLE if late else HTTPStatus.OK
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Be silent."""

    server = _Server(port, Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> None:
    """Collect until a signal ends it."""
    parser = argparse.ArgumentParser()
    for name in ("environment", "store", "user"):
        parser.add_argument(f"--{name}", required=name != "user", default="")
    for name in ("folder", "positions", "password"):
        parser.add_argument(f"--{name}", type=Path, required=name != "password")
    for name in ("port", "buffer-mib"):
        parser.add_argument(f"--{name}", type=int, required=True)
    words = parser.parse_args()
    collector = Collector(
        folder=words.folder,
        positions=words.positions,
        environment=words.environment,
        send=sender(words.store, words.user, words.password),
        buffer_bytes=words.buffer_mib * 2**20,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _signal, _frame: collector.stopping.set())
    served(collector.counts, words.port)
    while not collector.stopping.is_set():
        if not collector.turn():
            collector.stopping.wait(_TURN_SECONDS)


if __name__ == "__main__":
    main()
