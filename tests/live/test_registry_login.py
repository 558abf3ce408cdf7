"""What is said, and what is left, where a registry asks for a login: a real one, and a real engine that pulls."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from operations.delivery import commit_deploy, runner
from operations.engine import registry
from operations.engine.images import used_images
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from tests.registry import LOGIN, PASSWORD


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, registry: str) -> Iterator[str]:
    """An image of that registry by its digest, which the engine has not."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size = 16
        archive.addfile(member, io.BytesIO(secrets.token_bytes(16)))
    repository = f"{registry}/samokoder/api"
    engine.api.import_image_from_data(content.getvalue(), repository=repository, tag="2")
    for line in engine.images.push(repository, "2", auth_config=LOGIN, stream=True, decode=True):
        assert "error" not in line, line
    (digest,) = engine.images.get(f"{repository}:2").attrs["RepoDigests"]
    engine.images.remove(f"{repository}:2")
    reference = f"{repository}:2@{digest.partition('@')[2]}"
    yield reference
    for tag in (reference, digest):
        try:
            engine.images.remove(tag)
        except docker.errors.ImageNotFound:
            continue


@pytest.fixture
def workspace(image: str, engine: docker.DockerClient, tmp_path: Path) -> Workspace:
    """An environment with that image; nothing of it is brought up."""
    for there in (image, image.replace(":2@", "@")):
        try:
            engine.images.remove(there)
        except docker.errors.ImageNotFound:
            continue
    config = {"samokoder:api": {"image": image}}
    return Workspace(environment="staging", stack="tlogin", home=tmp_path, isolated=True, extra_config=config)


@pytest.mark.parametrize("given", [{}, {"REGISTRY_PASSWORD": "another one"}])
def test_who_has_no_login_or_a_wrong_one_is_told_what_is_missing(
    workspace: Workspace, job: dict[str, str], monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", job["DOCKER_CONFIG"])
    if given:
        monkeypatch.setenv("DOCKER_CONFIG", runner.place({**job, **given})["DOCKER_CONFIG"])
        workspace = replace(workspace, variables={**workspace.variables, **job})
    try:
        with pytest.raises(ProjectError, match=r"Missing or wrong: REGISTRY_.*\n  127.*/samokoder/api:2: ") as caught:
            commit_deploy.check_registry(workspace)
    finally:
        runner.remove(job)
    assert "another one" not in str(caught.value), "a password is in no message"


@pytest.mark.usefixtures("logged_in")
def test_with_a_login_the_image_is_pulled_before_pulumi_looks_for_it(
    workspace: Workspace, image: str, engine: docker.DockerClient
) -> None:
    commit_deploy.check_registry(workspace)
    said: list[str] = []
    environment = workspace.settings()
    assert image in used_images(environment)
    registry.pull(engine, [image], say=said.append)
    assert engine.images.get(image).attrs["RepoDigests"], "Pulumi's provider, which has no login, finds it there"
    assert "as deployer" in said[0]
    registry.pull(engine, [image], say=said.append)
    assert len(said) == 1, "what is there is not asked for again"


def test_a_pull_that_is_refused_says_which_image(
    workspace: Workspace, image: str, engine: docker.DockerClient, job: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del workspace  # has removed the image
    wrong = runner.place({**job, "REGISTRY_PASSWORD": "another one"})
    monkeypatch.setenv("DOCKER_CONFIG", wrong["DOCKER_CONFIG"])
    with pytest.raises(ProjectError, match=r"/samokoder/api:2 cannot be pulled") as caught:
        registry.pull(engine, [image], say=print)
    runner.remove(job)
    assert "another one" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_no_login_stays_on_the_runner(job: dict[str, str]) -> None:
    assert not [path for path in Path(job["RUNNER_TEMP"]).rglob("*") if path.is_file()]
