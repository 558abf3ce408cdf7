"""A real S3 server on loopback, and a proxy before it that spoils what passes through."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import httpx

from host.cache import cache_directory
from host.ports import free_ports
from host.progress import Reporter
from offline.toolchain import build

BUCKET = "copies"
REGION = "eu-test-1"
PATIENCE_SECONDS = 60.0

#: What restic needs to add something, besides reading the bucket's list.
ADDING = ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")


def built() -> Path:
    """Give the program, built from its Go module where nobody here has done that yet."""
    return build(["versitygw"], cache=cache_directory(), progress=Reporter())["versitygw"] / "versitygw"


@dataclass
class S3Server:
    """The versitygw program over a folder, with one bucket and one user, who may what `allow` says.

    `metadata` is for a file system without extended attributes. The user's rights are a bucket policy, as on AWS.
    """

    program: Path
    folder: Path
    metadata: Path | None = None
    access_key: str = field(default_factory=lambda: f"USER{secrets.token_hex(8).upper()}")
    # All that such a key may hold, on any server: it goes through three file formats.
    secret_key: str = field(default_factory=lambda: f'/+=#;"\\{secrets.token_hex(16)}')
    port: int = field(default_factory=lambda: free_ports(1)[0])
    listens: str = "127.0.0.1"
    """Address of this machine; empty for all of them."""
    _administrator: str = field(default_factory=lambda: f"ROOT{secrets.token_hex(8).upper()}")
    _password: str = field(default_factory=lambda: secrets.token_hex(16))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> Path:
        """The bucket: every object is a file there."""
        return self.folder / "data" / BUCKET

    def named(self, part: str) -> list[Path]:
        """The objects below one of the repository's folders."""
        return sorted(path for path in self.objects.glob(f"**/{part}/**/*") if path.is_file())

    def start(self) -> Self:
        for name in ("data", "iam"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        account = {"access": self.access_key, "secret": self.secret_key, "role": "user"}
        (self.folder / "iam" / "users.json").write_text(json.dumps({"accessAccounts": {self.access_key: account}}))
        sidecar = [f"--sidecar={self.metadata}"] if self.metadata else []
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(
                        str(self.program),
                        f"--port={self.listens}:{self.port}",
                        f"--region={REGION}",
                        "--health=/health",
                    ),
                    *(f"--iam-dir={self.folder / 'iam'}", "posix", *sidecar, str(self.folder / "data")),
                ],
                env={"PATH": os.defpath, "ROOT_ACCESS_KEY": self._administrator, "ROOT_SECRET_KEY": self._password},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "no answer from the S3 server"
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.endpoint}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def make_bucket(self) -> None:
        self._administrate("PUT", f"/{BUCKET}")

    def allow(self, **rights: tuple[str, ...]) -> None:
        """Give the user these rights alone: for a part of the bucket's names ("all", "locks"), what may be done."""
        bucket = f"arn:aws:s3:::{BUCKET}"
        patterns = {"all": f"{bucket}/*", "locks": f"{bucket}/*/locks/*"}
        statements = [(actions, patterns[part]) for part, actions in rights.items()]
        statements.append((("s3:ListBucket", "s3:GetBucketLocation"), bucket))
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": [self.access_key]},
                    "Action": list(actions),
                    "Resource": [resource],
                }
                for actions, resource in statements
            ],
        }
        if rights:
            self._administrate("PUT", f"/{BUCKET}", "policy=", json.dumps(policy).encode())
        else:
            self._administrate("DELETE", f"/{BUCKET}", "policy=")

    def _administrate(self, method: str, path: str, query: str = "", body: bytes = b"") -> None:
        """Send one request, signed as AWS describes it (version 4)."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        content = hashlib.sha256(body).hexdigest()
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": content, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{content}"
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        key = f"AWS4{self._password}".encode()
        for word in scope.split("/"):
            key = hmac.digest(key, word.encode(), "sha256")
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._administrator}/{scope}, SignedHeaders={names}, "
            f"Signature={hmac.new(key, text.encode(), 'sha256').hexdigest()}"
        )
        url = f"{self.endpoint}{path}{'?' if query else ''}{query}"
        answer = httpx.request(method, url, content=body, headers=headers, timeout=PATIENCE_SECONDS)
        assert answer.is_success, answer.text

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the proxy does to one request: answer it itself, cut it off after some bytes, hold it, or let it crawl."""

    answer: str = ""
    cut_after: int | None = None
    hang: bool = False
    bytes_per_second: int | None = None


@dataclass
class FaultyProxy:
    """Hands each connection on to the server. The server closes it after a request, so one is the other.

    `judge` gets the method and the path of each request and says what is to be done to it.
    """

    target: int
    judge: Callable[[str, str], Fault | None] = lambda _method, _path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        # The kernel would take six megabytes more in advance on this side, which no other machine's does for us.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self._listener.settimeout(0.1)
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._handle, args=[client], daemon=True).start()
        self._listener.close()

    def stop(self) -> None:
        self._over.set()

    def _handle(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE_SECONDS)
        with client:
            try:
                self._one_request(client)
            except OSError:
                _reset(client)

    def _one_request(self, client: socket.socket) -> None:
        head = client.recv(65536)
        if not head:
            return
        method, path = head.split(b" ", 2)[:2]
        self.requests.append((method.decode(), path.decode()))
        fault = self.judge(*self.requests[-1]) or Fault()
        if fault.hang:
            self._over.wait()
        elif fault.answer:
            body = f"<Error><Code>InternalError</Code><Message>{fault.answer}</Message></Error>"
            # With the rest of the request unread, the client would get a reset in place of the answer.
            client.sendall(
                f"HTTP/1.1 {fault.answer}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
                f"Connection: close\r\n\r\n{body}".encode()
            )
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        else:
            with socket.create_connection(("127.0.0.1", self.target), timeout=PATIENCE_SECONDS) as server:
                back = threading.Thread(target=_relay, args=[server, client, Fault()], daemon=True)
                back.start()
                server.sendall(head)
                _relay(client, server, fault)
                back.join()


def _relay(source: socket.socket, sink: socket.socket, fault: Fault) -> None:
    """Hand all on from one to the other, as the fault wants it."""
    passed = 0
    try:
        while chunk := source.recv(16384):
            passed += len(chunk)
            if fault.cut_after is not None and passed > fault.cut_after:
                _reset(source)
                _reset(sink)
                return
            if fault.bytes_per_second:
                time.sleep(len(chunk) / fault.bytes_per_second)
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _reset(sink)


def _reset(connection: socket.socket) -> None:
    """Break a connection off, as a network or a server that fails does; closing it would be a proper end."""
    with suppress(OSError):  # it is closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def faulty_proxy(server: S3Server) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(server.port)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
