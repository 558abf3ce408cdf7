"""What people do to `make up`: an odd path, a strict umask, the C locale, twice at once, Ctrl-C, others in the way."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import yaml

from operations import containers, lock
from operations.ports import own_ports
from stack.names import NetworkName
from stack.settings import Environment
from tests.live import clones

pytestmark = pytest.mark.timeout(1500)

ENVIRONMENT = "odd"
PATIENCE_SECONDS = 400.0
LOCALE = {"LANG": "C", "LC_ALL": "C", "ENV": ENVIRONMENT}
UMASK = 0o077
PAGE = f"somebodys-page-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def clone(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone that `git clone` has made under `umask 077`, with images of its own: nobody has built these before."""
    folder = tmp_path_factory.mktemp("odd") / "мой проект (копия)"
    clones.make(folder, ENVIRONMENT, own_ports())
    for image in ("reference_app", "backup_image"):
        (folder / image / "of-this-clone").write_text(str(folder))
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~UMASK)
    yield folder
    clones.remove(engine, ENVIRONMENT)


def begin_up(clone: Path) -> subprocess.Popen[str]:
    """Begin `make up` as a shell does, in a process group of its own, which Ctrl-C goes to."""
    return subprocess.Popen(
        ["make", "up"],
        cwd=clone,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", **LOCALE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        umask=UMASK,
    )


def up(clone: Path) -> tuple[int, str]:
    process = begin_up(clone)
    said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert "Traceback" not in said, said[-3000:]
    return process.returncode, said


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.2)


@contextmanager
def others(engine: docker.DockerClient, images: Environment, port: int) -> Iterator[None]:
    """Somebody's containers: one with the name of a part, one with the port of another."""
    image = images.image("python")
    made = [
        engine.containers.create(image, ["sleep", "infinity"], name=f"samokoder-{ENVIRONMENT}-redis"),
        engine.containers.run(
            image, ["sleep", "infinity"], name=PAGE, detach=True, ports={"80/tcp": ("127.0.0.1", port)}
        ),
    ]
    try:
        yield
    finally:
        for container in made:
            container.remove(force=True)


def test_what_others_hold_is_named_before_anything_is_made(
    clone: Path, engine: docker.DockerClient, local_images: Environment
) -> None:
    config = yaml.safe_load((clone / f"Pulumi.{ENVIRONMENT}.yaml").read_text())["config"]
    port = config["samokoder:prometheus"]["port"]
    with others(engine, local_images, port):
        status, said = up(clone)
        assert status != 0
        assert f"docker rm -f samokoder-{ENVIRONMENT}-redis" in said, said[-3000:]
        assert f"127.0.0.1:{port} (prometheus) is held by the container {PAGE}" in said
        assert not containers.of_environment(engine, ENVIRONMENT), "it was made half before it was refused"
        assert f"make up ENV={ENVIRONMENT}" in said, "what to type then"


def test_a_second_up_is_refused_and_one_that_was_interrupted_is_gone_on_with(
    clone: Path, engine: docker.DockerClient
) -> None:
    first = begin_up(clone)
    try:
        until(lambda: bool(list(lock.holders(engine, ENVIRONMENT))), first)
        status, said = up(clone)
        assert status != 0
        assert "`up` since" in said, said[-3000:]
        assert first.poll() is None, "the second one ended the first"
        until(lambda: bool(containers.of_environment(engine, ENVIRONMENT)), first)
    finally:
        os.killpg(first.pid, signal.SIGINT)
    said, _ = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode != 0
    assert "Traceback" not in said, said[-3000:]
    assert f"Go on with: make up ENV={ENVIRONMENT}" in said, said[-3000:]

    status, said = up(clone)
    assert status == 0, said[-5000:]
    assert clones.run(clone, "make", "status", **LOCALE).returncode == 0
    networks = [n.name for n in engine.networks.list(names=[f"samokoder-{ENVIRONMENT}-"])]
    assert len(networks) == len(NetworkName), f"the run that was interrupted has left one: {networks}"
    assert clones.run(clone, "make", "down", **LOCALE).returncode == 0
