"""A stand-in for a Docker engine: the part of its HTTP API that checks ask, on a socket, with nothing behind it."""

from __future__ import annotations

import json
import socketserver
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.serving import serving


@dataclass
class FakeEngine:
    """What an engine answers."""

    version: str = "24.0.7"
    info: dict[str, Any] = field(default_factory=dict)
    containers: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    images: set[str] = field(default_factory=set)
    volumes: dict[str, int] = field(default_factory=dict)
    """Name of each volume -> bytes in it."""
    api_version: str = "1.41"
    registry: set[str] = field(default_factory=set)
    """Images that the registry has; what is not there is refused as by a name that cannot be resolved."""

    def answer(self, path: str, query: str) -> tuple[int, Any]:  # noqa: PLR0911 - one for each question
        path = unquote(path.partition("/v1.")[2].partition("/")[2]) if path.startswith("/v1.") else path.lstrip("/")
        if path in ("version", "_ping"):
            return 200, {"Version": self.version, "ApiVersion": self.api_version}
        if path == "system/df":
            return 200, self._disk_usage(query)
        if path == "info":
            usual = {"MemTotal": 16 * 2**30, "NCPU": 4, "MemoryLimit": True, "CpuCfsQuota": True}
            return 200, {**usual, "DockerRootDir": "/", "IndexServerAddress": "http://127.0.0.1:9/", **self.info}
        if path == "networks":
            return 200, self.networks
        if path == "containers/json":
            own = "label" in query
            return 200, [each for each in self.containers if not own or each.get("Labels")]
        if path.startswith("containers/"):
            return 200, next(each["Whole"] for each in self.containers if each["Id"] == path.split("/")[1])
        if path == "images/json":
            return 200, []
        name = path.removeprefix("images/").removeprefix("distribution/").removesuffix("/json")
        if path.startswith("images/"):
            return (200, {"Id": name}) if name in self.images else (404, {"message": f"No such image: {name}"})
        if name in self.registry:
            return 200, {"Descriptor": {"digest": "sha256:" + "0" * 64}, "Platforms": []}
        return 500, {"message": "lookup registry: no such host"}

    def _disk_usage(self, query: str) -> dict[str, Any]:
        """As moby's own types say it (api/types/system and api/types/volume); from API 1.52 on in a new form."""
        each = [
            {"Name": name, "Driver": "local", "UsageData": {"RefCount": 1, "Size": size}}
            for name, size in self.volumes.items()
        ]
        if tuple(map(int, self.api_version.split("."))) < (1, 52):
            return {"LayersSize": 0, "Images": [], "Containers": [], "BuildCache": [], "Volumes": each}
        summary = {"ActiveCount": len(each), "TotalCount": len(each), "TotalSize": sum(self.volumes.values())}
        return {"VolumeUsage": {**summary, **({"Items": each} if "verbose=1" in query else {})}}


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 100

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("engine", 0)  # the handler expects the address of a client


@contextmanager
def engine_at(fake: FakeEngine) -> Iterator[str]:
    """An engine on a socket; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, answer = fake.answer(url.path, url.query)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with tempfile.TemporaryDirectory() as folder, serving(_UnixServer(f"{folder}/docker.sock", Handler)):
        yield f"unix://{folder}/docker.sock"
