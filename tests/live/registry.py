"""A container registry on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from offline.progress import Reporter
from offline.toolchain import build
from operations.engine import cache_directory
from operations.ports import free_ports


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a registry that is empty at first and keeps its data in `folder`; its address."""
    program = build(["registry"], cache=cache_directory(), progress=Reporter())["registry"] / "registry"
    folder.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
        try:
            while not _answers(address):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/v2/", timeout=5).is_success
    except httpx.TransportError:
        return False
