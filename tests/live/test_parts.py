"""What changes a single part of a stack that is up: a restart, a command in its container, images of the team's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from operations.delivery import image_deploy
from operations.engine import containers, session
from operations.engine.part_status import part_statuses
from operations.errors import ProjectError
from operations.lifecycle.restart import restart
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.parts.api import migrations
from stack.parts.api.reference import reference_image
from tests.live.conftest import own_images

if TYPE_CHECKING:
    import docker


def started(engine: docker.DockerClient, workspace: Workspace) -> dict[str, str]:
    rows = containers.of_environment(engine, workspace.name)
    return {each.labels["samokoder.part"]: each.attrs["State"]["StartedAt"] for each in rows}


@pytest.mark.parametrize(("part", "restarted"), [("api", {"api-1", "api-2"}), ("redis", {"redis"})])
def test_a_restart_starts_that_part_alone_and_makes_nothing_anew(
    stack: Workspace, engine: docker.DockerClient, part: str, restarted: set[str]
) -> None:
    before, ids = started(engine, stack), containers.ids(engine, stack.name)
    assert set(restart(stack, part)) == restarted
    after = started(engine, stack)
    assert {name for name in after if after[name] != before[name]} == restarted, "another part was stopped"
    assert containers.ids(engine, stack.name) == ids, "a container was made anew, which is what `up` is for"
    assert not [row.part for row in part_statuses(engine, stack.settings()) if row.counts_as_failed]


def test_a_command_runs_as_the_parts_own_user_and_ends_with_its_own_status(
    stack: Workspace, engine: docker.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    container = containers.find(engine, stack.settings(), "api-1")
    assert session.run(stack.settings().settings.docker_host, container, ["sh", "-c", "id -u; exit 7"]) == 7
    assert capfd.readouterr().out.strip() == "10001", "a command has more rights than the part"


def test_a_part_of_another_environment_is_not_found(stack: Workspace) -> None:
    other = Workspace(environment=stack.environment, stack=f"{stack.name}x", home=stack.home, isolated=True)
    with pytest.raises(ProjectError, match="is not up"):
        restart(other, "api")


@pytest.fixture
def own(stack: Workspace, engine: docker.DockerClient) -> Iterator[tuple[str, str]]:
    """Two images like the reference application's, by tags that no registry has; the stack is put back first."""
    with own_images(engine, reference_image(stack.settings()).name, f"{stack.name}-own", (2, 3)) as tags:
        yield tags[0], tags[1]
        bring_up(stack, interactive=False)


def test_own_images_are_deployed_by_their_tags_and_the_ones_before_come_back(
    stack: Workspace, engine: docker.DockerClient, own: tuple[str, str], tmp_path: Path
) -> None:
    def git(*words: str) -> None:
        author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *author, *words], cwd=tmp_path, check=True, capture_output=True)

    def running() -> set[str]:
        found = containers.of_fields(engine, stack.settings(), ["api", "worker"])
        return {each.attrs["Config"]["Image"] for each in found}

    shutil.copy(stack.committed_file, tmp_path)
    workspace = replace(stack, stack_files=tmp_path)
    git("init", "--quiet")
    for number, tag in enumerate(own, 2):
        git("add", "--all")
        git("commit", "--quiet", "--allow-empty", "--message", f"before {number}")
        deploy = image_deploy.plan(workspace, {"api": tag, "worker": tag}, migrations=migrations.REFERENCE)
        rows = deploy.run(None, interactive=False).parts
        assert not [row.part for row in rows if row.counts_as_failed]
        assert running() == {str(engine.images.get(tag).id)}, "a tag means another image tomorrow"
    back, earlier = image_deploy.back(workspace)
    assert "before 3" in earlier.told
    back.run(None, interactive=False)
    assert running() == {str(engine.images.get(own[0]).id)}
    assert image_deploy.Version.of(workspace.committed()) == earlier.version, "the file says what runs"
