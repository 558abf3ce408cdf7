"""A stand-in for the internet: registries and download sites under their own names, with TLS, by a proxy."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PATIENCE_SECONDS = 600


@dataclass
class Sites:
    """Where the proxy is, whom to trust, and what was asked for."""

    proxy: str
    certificates: Path
    """The system's authorities and the one of the stand-in."""
    asked: list[str] = field(default_factory=list)
    """Hosts of connections that were answered here, one for each connection."""

    @property
    def variables(self) -> dict[str, str]:
        """What a program's environment needs to go by the proxy and to trust it."""
        trust = dict.fromkeys(
            ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), str(self.certificates)
        )
        local = "127.0.0.1,localhost"
        return {
            **trust,
            "HTTPS_PROXY": self.proxy,
            "https_proxy": self.proxy,
            "NO_PROXY": local,
            "no_proxy": local,
        }


@contextlib.contextmanager
def sites(folder: Path, hosts: Mapping[str, tuple[str, int]]) -> Iterator[Sites]:
    """Answer for `hosts` (name -> address of a plain HTTP server); every other host is reached as it is."""
    certify(folder, [f"DNS:{host}" for host in hosts])
    (folder / "bundle.pem").write_bytes(SYSTEM_CERTIFICATES.read_bytes() + (folder / "ca.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "site.pem", folder / "site.key")

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            host, _, port = self.rfile.readline().split()[1].decode().rpartition(":")
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(OSError), socket.create_connection(hosts.get(host, (host, int(port)))) as target:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                if host in hosts:
                    found.asked.append(host)
                    with context.wrap_socket(self.connection, server_side=True) as client:
                        _pass_on(client, target)
                else:
                    _pass_on(self.connection, target)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 100

    with Server(("127.0.0.1", 0), Proxy) as server:
        found = Sites(f"http://127.0.0.1:{server.server_address[1]}", folder / "bundle.pem")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


def _pass_on(client: socket.socket, target: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    other = {client: target, target: client}
    while True:
        # What TLS has decrypted already is not in the socket any more.
        waiting = isinstance(client, ssl.SSLSocket) and client.pending()
        ready = [client] if waiting else select.select([client, target], [], [], _PATIENCE_SECONDS)[0]
        if not ready:
            return
        for one in ready:
            data = one.recv(65536)
            if not data:
                return
            other[one].sendall(data)


def certify(folder: Path, names: list[str]) -> None:
    """Make an authority, `ca.pem`, and its certificate for `names` (`DNS:…`, `IP:…`): `site.pem` and `site.key`."""
    (folder / "names").write_text(f"subjectAltName={','.join(names)}\nbasicConstraints=CA:FALSE\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch"]
    for words in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=stand-in"],
        ["req", "-new", *key, "-keyout", "site.key", "-out", "site.csr", "-subj", "/CN=site"],
        [
            *("x509", "-req", "-in", "site.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-out", "site.pem", "-extfile", "names"),
        ],
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
