"""A bucket on a machine of its own: an S3 server in a container, on whatever network of the engine it is put."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker.models.containers import Container

from stack.settings.environment import Environment
from tests.backup_image.s3_server import built

MACHINE = "bucket"
"""Its name on a network."""
PORT = 7070
OFFSITE = {"endpoint": f"http://{MACHINE}:{PORT}", "bucket": "copies"}
ACCESS, SECRET = f"TEST{secrets.token_hex(8).upper()}", secrets.token_hex(20)
KEYS = {"s3AccessKeyId": ACCESS, "s3SecretAccessKey": SECRET}


@contextmanager
def machine(engine: docker.DockerClient, images: Environment, *, address: str = "") -> Iterator[Container]:
    """Start it, on no network of a stack yet; gone afterwards. address: of the host, on which its port is published."""
    program = built()
    made: Container = engine.containers.create(
        images.image("postgres"),
        ["-c", f"mkdir -p /data/copies /meta && exec /versitygw --port=:{PORT} posix --sidecar=/meta /data"],
        entrypoint=["sh"],
        user="0:0",
        environment={"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET},
        cap_drop=["ALL"],
        ports={f"{PORT}/tcp": (address, None)} if address else {},  # type: ignore[dict-item]
    )
    try:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tar.gettarinfo(str(program), "versitygw")
            entry.mode, entry.uid, entry.gid = 0o755, 0, 0
            with program.open("rb") as file:
                tar.addfile(entry, file)
        made.put_archive("/", buffer.getvalue())
        made.start()
        yield made
    finally:
        made.remove(force=True, v=True)
