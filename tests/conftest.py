"""What all tests share. The recording engine is in `tests/recording.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import docker

    from stack.settings import Environment


def pytest_configure(config: pytest.Config) -> None:
    """Let one warning pass."""
    # The pinned Grafana SDK says so of its own class, at import; Grafana 13 reads the classic format all the same.
    config.addinivalue_line("filterwarnings", "ignore:Prefer using dashboardv2:DeprecationWarning")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The machine's engine; where there was none, one that is started here is stopped here."""
    import docker  # noqa: PLC0415 - half a second that the unit tests do not need

    from offline.progress import Reporter  # noqa: PLC0415
    from operations.engine import (  # noqa: PLC0415
        DEFAULT_DOCKER_HOST,
        EngineError,
        connect,
        ensure_engine,
        stop_engine,
    )

    reporter = Reporter()
    try:
        connect(DEFAULT_DOCKER_HOST).close()
        was_there = True
    except EngineError:
        was_there = False
    ensure_engine(DEFAULT_DOCKER_HOST, report=reporter.say)
    client = docker.DockerClient(base_url=DEFAULT_DOCKER_HOST, timeout=120)
    yield client
    client.close()
    if not was_there:
        stop_engine(report=reporter.say)


@pytest.fixture(scope="session")
def local_images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Staging, with images that are on the engine: pulled, or made here where no registry can be reached."""
    import docker  # noqa: PLC0415

    from operations.project import Workspace, third_party_images  # noqa: PLC0415

    workspace = Workspace(environment="staging", home=tmp_path_factory.mktemp("images"), isolated=True)
    workspace.prepare()
    environment = workspace.settings()
    for name in third_party_images(environment):
        reference = environment.image(name)  # type: ignore[arg-type]
        try:
            engine.images.get(reference)
        except docker.errors.ImageNotFound:
            engine.images.pull(reference)
    return environment
