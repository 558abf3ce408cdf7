"""The normal path: images pulled by digest from a registry that asks for a login.

It is real and listens on loopback. The login is what `samokoder ci prepare` makes of the variables of a job.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from pydantic.alias_generators import to_camel

from operations.delivery import commit_deploy
from operations.engine import containers
from operations.engine.images import third_party_images
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from tests.registry import LOGIN, PASSWORD, USER


@pytest.fixture(scope="module")
def pinned(stack: Workspace, engine: docker.DockerClient, registry: str) -> dict[str, str]:
    """The stack's images as `address/name:tag@sha256:…`, known to the engine by that name no more."""
    environment = stack.settings()
    references = {}
    for name in type(environment.settings.images).model_fields:
        local = getattr(environment.settings.images, name) or environment.image(name)
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
        destroy_data(workspace, interactive=False)


@pytest.mark.usefixtures("logged_in")
def test_a_stack_of_images_pulled_by_digest_is_healthy_and_needs_no_second_change(
    pulled: Workspace, pinned: dict[str, str], engine: docker.DockerClient
) -> None:
    commit_deploy.check_registry(pulled)
    rows = bring_up(pulled, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
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
        bring_up(broken, interactive=False)
    assert containers.ids(engine, pulled.name) == before, (
        "the running container went before its successor's image was there"
    )
    rows = bring_up(pulled, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows


def test_no_login_stays_where_it_was_used(pulled: Workspace, job: dict[str, str]) -> None:
    assert not [path for path in Path(job["RUNNER_TEMP"]).rglob("*") if path.is_file()]
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for path in pulled.folder.rglob("*"):
        if path.is_file():
            held = path.read_text(encoding="utf-8", errors="ignore")
            assert PASSWORD not in held, f"{path}: whoever reads the state could push images"
            assert encoded not in held, f"{path}: as above"
