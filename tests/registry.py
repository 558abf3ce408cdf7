"""A real registry on loopback, with a login or without one, and a job of CI that has one."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from host.cache import cache_directory
from host.ports import free_ports
from host.progress import Reporter
from offline.toolchain import build
from operations.delivery import runner

USER, PASSWORD = "deployer", "a long password: of a test"
LOGIN = {"username": USER, "password": PASSWORD}
HASHED = "$2b$05$Uckqr0muvlO9y1ghkvWs/OyRqY.JdoFqxcd42nB2XJtBewvRX96fe"
"""The password as a registry reads it, by bcrypt."""


@contextlib.contextmanager
def serve(folder: Path, *, login: bool = False) -> Iterator[str]:
    """Serve a registry that is empty at first and keeps its data in `folder`; its address.

    login: it gives nothing without one.
    """
    program = build(["registry"], cache=cache_directory(), progress=Reporter())["registry"] / "registry"
    folder.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    config: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
    }
    if login:
        config["auth"] = {"htpasswd": {"realm": "samokoder", "path": str(folder / "htpasswd")}}
        (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
        try:
            while not _answers(address, httpx.codes.UNAUTHORIZED if login else httpx.codes.OK):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait()


def _answers(address: str, status: int) -> bool:
    try:
        return httpx.get(f"http://{address}/v2/", timeout=5).status_code == status
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry that is empty at first, and gives nothing without a login."""
    with serve(tmp_path_factory.mktemp("registry"), login=True) as address:
        yield address


@pytest.fixture(scope="module")
def job(registry: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a job that has a login."""
    temporary = str(tmp_path_factory.mktemp("runner"))
    login = {"REGISTRY_SERVER": registry, "REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD}
    return {"RUNNER_TEMP": temporary, "DOCKER_CONFIG": str(Path(temporary) / "none"), **login}


@pytest.fixture
def logged_in(job: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `samokoder ci prepare` leaves for the steps after it, and `ci clean` removes."""
    for name, value in runner.place(job).items():
        monkeypatch.setenv(name, value)
    yield
    runner.remove(job)
