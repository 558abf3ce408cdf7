"""The normal path: images pulled by digest from a registry that asks for a login.

It is real and listens on loopback. The login is what `samokoder ci prepare` makes of the variables of a job.
"""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import httpx
import pytest
import yaml
from pydantic.alias_generators import to_camel

from offline.toolchain import build
from operations import containers, delivery, lifecycle, runner
from operations.ports import free_ports
from operations.project import Workspace, third_party_images
from operations.stack_file import ProjectError

USER, PASSWORD = "deployer", "a long password: of a test"
LOGIN = {"username": USER, "password": PASSWORD}
HASHED = "$2b$05$Uckqr0muvlO9y1ghkvWs/OyRqY.JdoFqxcd42nB2XJtBewvRX96fe"
"""The password as a registry reads it, by bcrypt."""


@pytest.fixture(scope="module")
def registry(stack: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry that is empty at first, and gives nothing without a login."""
    program = build(["registry"], cache=stack.cache, progress=stack.reporter)["registry"] / "registry"
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_ports(1)[0]}"
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "samokoder", "path": str(folder / "htpasswd")}},
    }
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
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
        return httpx.get(f"http://{address}/v2/", timeout=5).status_code == httpx.codes.UNAUTHORIZED
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def pinned(stack: Workspace, engine: docker.DockerClient, registry: str) -> dict[str, str]:
    """The stack's images as `address/name:tag@sha256:…`, known to the engine by that name no more."""
    environment = stack.settings()
    references = {}
    for name in type(environment.settings.images).model_fields:
        local = getattr(environment.settings.images, name) or environment.image(name)  # type: ignore[arg-type]
        if name in environment.absent:
            continue
        image = engine.images.get(local)
        repository = f"{registry}/{name.replace('_', '-')}"
        image.tag(repository, "tested")
        for line in engine.images.push(repository, "tested", auth_config=LOGIN, stream=True, decode=True):
            assert "error" not in line, line
        image.reload()
        digest = next(d for d in image.attrs["RepoDigests"] if d.startswith(f"{repository}@"))
        references[name] = f"{repository}:tested@{digest.partition('@')[2]}"
        engine.images.remove(f"{repository}:tested")
    return references


@pytest.fixture(scope="module")
def pulled(pinned: dict[str, str], new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A stack whose images are all pulled by digest; gone when these tests are over."""
    workspace = new_workspace()
    images = {to_camel(name): reference for name, reference in pinned.items()}
    workspace = replace(workspace, extra_config={**workspace.extra_config, "samokoder:images": images})
    yield workspace
    if workspace.stack_file.exists():
        lifecycle.destroy_data(workspace, interactive=False)


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


@pytest.mark.parametrize("given", [{}, {"REGISTRY_PASSWORD": "another"}])
def test_a_registry_that_asks_for_a_login_is_named_before_anything_changes(
    pulled: Workspace, job: dict[str, str], monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", job["DOCKER_CONFIG"])
    if given:
        monkeypatch.setenv("DOCKER_CONFIG", runner.place({**job, **given})["DOCKER_CONFIG"])
    workspace = replace(pulled, variables={**pulled.variables, **({**job, **given} if given else {})})
    with pytest.raises(ProjectError, match=r"Missing or wrong: REGISTRY_.*/prometheus:tested") as caught:
        delivery.check_registry(workspace)
    assert "another" not in str(caught.value).partition("wrong:")[0], "a password is in no message"
    if given:
        with pytest.raises(ProjectError, match="cannot be pulled"):
            lifecycle.up(workspace, interactive=False)
        assert not pulled.stack_file.exists(), "nothing was begun"
    runner.remove(job)


@pytest.mark.usefixtures("logged_in")
def test_a_stack_of_images_pulled_by_digest_is_healthy_and_needs_no_second_change(
    pulled: Workspace, pinned: dict[str, str], engine: docker.DockerClient
) -> None:
    delivery.check_registry(pulled)
    rows = lifecycle.up(pulled, interactive=False).parts
    assert all(row.ok for row in rows if row.state != containers.NOT_AVAILABLE), rows
    run = pulled.open()
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    run.pulumi("refresh", "--yes", "--skip-preview", "--suppress-outputs", capture=True)
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    prometheus = containers.find(engine, pulled.settings(), "prometheus")
    assert prometheus.attrs["Config"]["Image"] == pinned["prometheus"], "it runs what was pinned, named so"
    assert third_party_images(pulled.settings()) in ([], ["grafana"]), "a configured image is not looked for elsewhere"


@pytest.mark.usefixtures("logged_in")
def test_an_image_that_cannot_be_pulled_takes_nothing_down(
    pulled: Workspace, pinned: dict[str, str], engine: docker.DockerClient
) -> None:
    before = containers.ids(engine, pulled.name)
    missing = f"{pinned['prometheus'].partition('@')[0]}@sha256:{'0' * 64}"
    images = {**pulled.extra_config["samokoder:images"], "prometheus": missing}
    broken = replace(pulled, extra_config={**pulled.extra_config, "samokoder:images": images})
    with pytest.raises(ProjectError, match="prometheus:tested cannot be pulled"):
        lifecycle.up(broken, interactive=False)
    assert containers.ids(engine, pulled.name) == before, (
        "the running container went before its successor's image was there"
    )
    rows = lifecycle.up(pulled, interactive=False).parts
    assert all(row.ok for row in rows if row.state != containers.NOT_AVAILABLE), rows


def test_no_login_stays_where_it_was_used(pulled: Workspace, job: dict[str, str]) -> None:
    assert not [path for path in Path(job["RUNNER_TEMP"]).rglob("*") if path.is_file()]
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for path in pulled.folder.rglob("*"):
        if path.is_file():
            held = path.read_text(encoding="utf-8", errors="ignore")
            assert PASSWORD not in held, f"{path}: whoever reads the state could push images"
            assert encoded not in held, f"{path}: as above"
