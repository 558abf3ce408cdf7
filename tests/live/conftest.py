"""A real stack of staging on a real engine, under a name and on ports of its own: it disturbs nothing that runs."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from operations import lifecycle
from operations.ports import own_ports
from operations.project import Workspace
from stack.settings import Environment, Published
from tests.live.traffic import Traffic


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs a real engine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session")
def new_workspace(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Workspace]]:
    """Makes workspaces with a name, a folder and ports of their own; what they made is gone afterwards."""
    made: list[Workspace] = []

    def make() -> Workspace:
        workspace = Workspace(
            environment="staging",
            stack=f"t{secrets.token_hex(3)}",
            home=tmp_path_factory.mktemp("workspace"),
            isolated=True,
            extra_config=own_ports(),
        )
        made.append(workspace)
        return workspace

    yield make
    for workspace in made:
        if workspace.stack_file.exists():
            lifecycle.destroy_data(workspace, interactive=False)
        shutil.rmtree(workspace.folder)


def unlimited(workspace: Workspace) -> Workspace:
    """The same workspace with an API that takes any number of reads.

    To the API all clients of a port that the engine publishes are one: the bridge's address.
    """
    reads = ("GET /projects", "GET /projects/{project_id}", "GET /jobs/{job_id}")
    environment = {"environment": {"RATE_LIMITS": json.dumps(dict.fromkeys(reads, 0))}}
    api = {**workspace.extra_config["samokoder:api"], **environment}
    return replace(workspace, extra_config={**workspace.extra_config, "samokoder:api": api})


@pytest.fixture(scope="session")
def stack(new_workspace: Callable[[], Workspace]) -> Workspace:
    """One stack that is up. A test that changes it puts it back."""
    workspace = unlimited(new_workspace())
    lifecycle.up(workspace, interactive=False)
    return workspace


@pytest.fixture(scope="session")
def traffic(stack: Workspace) -> Iterator[Traffic]:
    """Clients of the stack that is up, from the first test that wants them until somebody stops them."""
    running = Traffic(url(stack.settings(), "api"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def environment(stack: Workspace) -> Environment:
    """The settings of the stack that is up."""
    return stack.settings()


def url(environment: Environment, field: str) -> str:
    """Address of a part on the host."""
    part = getattr(environment.settings, field)
    assert isinstance(part, Published)
    return f"http://127.0.0.1:{part.port}"
