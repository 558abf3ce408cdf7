"""Restart of a part of a stack that is up, and a command in its container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from operations import containers, parts, session
from operations.project import Workspace
from operations.stack_file import ProjectError

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
    assert set(parts.restart(stack, part)) == restarted
    after = started(engine, stack)
    assert {name for name in after if after[name] != before[name]} == restarted, "another part was stopped"
    assert containers.ids(engine, stack.name) == ids, "a container was made anew, which is what `up` is for"
    assert not [row.part for row in containers.status(engine, stack.settings()) if row.counts_as_failed]


def test_a_command_runs_as_the_parts_own_user_and_ends_with_its_own_status(
    stack: Workspace, engine: docker.DockerClient, capfd: pytest.CaptureFixture[str]
) -> None:
    container = containers.find(engine, stack.settings(), "api-1")
    assert session.run(stack, container, ["sh", "-c", "id -u; exit 7"]) == 7
    assert capfd.readouterr().out.strip() == "10001", "a command has more rights than the part"


def test_a_part_of_another_environment_is_not_found(stack: Workspace) -> None:
    other = Workspace(environment=stack.environment, stack=f"{stack.name}x", home=stack.home, isolated=True)
    with pytest.raises(ProjectError, match="There are: none"):
        parts.restart(other, "api")
