"""An engine whose folder is not /var/lib/docker, as with `data-root` in daemon.json: cAdvisor sees its containers."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest
from docker.models.containers import Container

from host.cache import cache_directory
from host.engine import DEFAULT_DOCKER_HOST, EngineInfo, connect
from host.progress import Reporter
from offline.images.ensure import ensure_images
from operations.engine.commands import execute
from operations.lifecycle.prepare import _of_engine
from operations.workspace.workspace import Workspace
from stack.parts.cadvisor import spec as cadvisor
from stack.settings.environment import Environment
from tests.private_engine import PrivateEngine, private_engine

_WATCHED = "watched-by-cadvisor"


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[PrivateEngine, EngineInfo]]:
    """An engine with a folder of its own."""
    with private_engine("10.215") as made:
        yield made


@pytest.fixture(scope="module")
def client(elsewhere: tuple[PrivateEngine, EngineInfo]) -> Iterator[docker.DockerClient]:
    """A client of it; cAdvisor's image is there, handed over by the machine's own engine."""
    made = ensure_images(["cadvisor"], cache=cache_directory(), docker_host=DEFAULT_DOCKER_HOST, progress=Reporter())
    with (
        contextlib.closing(connect(elsewhere[0].docker_host, timeout=60)) as client,
        contextlib.closing(connect(DEFAULT_DOCKER_HOST, timeout=60)) as system,
    ):
        (image,) = client.images.load(b"".join(system.images.get(made.ids["cadvisor"]).save()))
        image.tag("cadvisor-of-the-test")
        client.containers.run("cadvisor-of-the-test", name=_WATCHED, entrypoint=["sleep", "600"], detach=True)
        yield client


def of_engine(private: PrivateEngine, info: EngineInfo) -> Environment:
    """The environment as `up` would describe it for this engine."""
    workspace = Workspace(isolated=True, home=private.root / "home")
    # Its containerd's socket is not where an engine of a host has it; the folder alone is looked at here.
    found = _of_engine(workspace, replace(info, containerd_socket=None), ask=False)
    return replace(workspace, extra_config=found).settings()


def names_seen(client: docker.DockerClient, private: PrivateEngine, environment: Environment) -> set[str]:
    """Run cAdvisor as its description says, and return the containers that it has metrics of after a while."""
    described = cadvisor.spec(environment)
    mounts = {mount.host: {"bind": mount.container, "mode": "ro"} for mount in described.host_paths}
    # The machine's own engine has its sockets in /run; those of this one are in its folder.
    mounts[str(private.root)] = {"bind": "/private", "mode": "ro"}
    sockets = ["--docker=unix:///private/docker.sock", "--containerd=/private/run/containerd/containerd.sock"]
    words = [word for word in described.command if not word.startswith("--containerd=")]
    one = client.containers.run(
        "cadvisor-of-the-test",
        entrypoint=list(described.entrypoint),
        command=[*words, *sockets, f"--containerd-namespace=samokoder-{private.bridge}"],
        user=described.user,
        volumes=mounts,
        cap_drop=["ALL"],
        read_only=True,
        detach=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (page := _pages(one)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert page, one.logs()
        time.sleep(5)  # it looks at what is there once it serves
        return set(re.findall(r'container_last_seen\{[^}]*\bname="([^"]+)"', _pages(one)))
    finally:
        one.remove(force=True)


def _pages(one: Container) -> str:
    code, said = execute(one, ["wget", "-q", "-O", "-", f"http://127.0.0.1:{cadvisor.PORT}/metrics"])
    return said.decode() if code == 0 else ""


def test_cadvisor_sees_the_containers_of_an_engine_whose_folder_is_elsewhere(
    elsewhere: tuple[PrivateEngine, EngineInfo], client: docker.DockerClient
) -> None:
    private, info = elsewhere
    assert info.data_root == str(private.root / "data")
    environment = of_engine(private, info)
    assert environment.settings.cadvisor.data_root == info.data_root, "`up` takes the folder from the engine"
    assert _WATCHED in names_seen(client, private, environment), "ContainerMissing would fire for every part"


def test_without_the_right_folder_it_knows_none_by_its_name(
    elsewhere: tuple[PrivateEngine, EngineInfo], client: docker.DockerClient
) -> None:
    private, _ = elsewhere
    usual = Workspace(isolated=True, home=private.root / "home").settings()
    # What it hears of them by containerd has ids for names, and no label of a part.
    assert _WATCHED not in names_seen(client, private, usual), "the test above would pass whatever is mounted"
