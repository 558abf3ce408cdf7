"""The days of an environment, typed in a clone, on engines newer than Debian 12's, with each image store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from bench.own_ports import own_ports
from host.engine import connect
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from tests.live import clones
from tests.newer_engine import ENGINES, newer_engine
from tests.private_engine import PrivateEngine

ENVIRONMENT = "newer"
Typed = Callable[..., str]


def variables(engine: PrivateEngine) -> dict[str, Any]:
    """Return what is set in the shell: no container of these engines reaches a registry, so none is asked."""
    return {"ENV": ENVIRONMENT, "DOCKER_HOST": engine.docker_host, "OFFLINE": "1"}


@pytest.fixture(scope="module", params=ENGINES)
def engine_of_today(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    """The engine, which has no image yet."""
    engine = ENGINES[request.param]
    with newer_engine(tmp_path_factory.mktemp("newer"), engine, pool="10.218") as (private, info):
        assert info.knows_start_interval, info
        yield private


@pytest.fixture(scope="module")
def client(engine_of_today: PrivateEngine) -> Iterator[docker.DockerClient]:
    """A client of it."""
    with contextlib.closing(connect(engine_of_today.docker_host, timeout=60)) as client:
        yield client


@pytest.fixture(scope="module")
def clone(engine_of_today: PrivateEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose environment is for this engine alone."""
    del engine_of_today  # each has a clone of its own
    folder = tmp_path_factory.mktemp("clone") / "samokoder"
    clones.make(folder, ENVIRONMENT, {**own_ports(), "samokoder:api": {"stableSeconds": 2}})
    return folder


@pytest.fixture(scope="module")
def typed(engine_of_today: PrivateEngine, clone: Path) -> Typed:
    """Type a line in the clone; return what it prints. It ends with this status."""
    return partial(clones.typed, clone, **variables(engine_of_today))


def health_checks(client: docker.DockerClient) -> dict[str, dict[str, int]]:
    """Return part -> its health check, as the engine has it."""
    return {
        each.labels["samokoder.part"]: each.attrs["Config"]["Healthcheck"]
        for each in client.containers.list(filters={"label": f"samokoder.environment={ENVIRONMENT}"})
    }


def test_up_brings_everything_up_and_finds_nothing_to_do_again(
    typed: Typed, clone: Path, engine_of_today: PrivateEngine, client: docker.DockerClient
) -> None:
    typed("make up")
    checks = health_checks(client)
    slow = [part for part, check in checks.items() if check.get("StartInterval") != 10**9]
    assert checks
    assert not slow, f"`up` waits for their first answer: {slow}"
    again = clones.changes(clone, **variables(engine_of_today))
    assert again == [], "the provider reads back what it wrote, or each `up` replaces all"
    typed("make smoke ARGS='--wait 120'")
    assert "not configured" in typed("make doctor")


def test_nothing_runs_otherwise_than_declared(typed: Typed) -> None:
    typed("make drift")
    typed("make hardening")


def test_a_backup_is_restored(typed: Typed) -> None:
    typed("make psql SQL='CREATE TABLE kept (id int)' WRITE=1")
    typed("make backup")
    typed("make psql SQL='DROP TABLE kept' WRITE=1")
    typed("make drill")
    typed("make restore BACKUP=latest")
    assert "0 rows" in typed("make psql SQL='SELECT * FROM kept'"), "what the backup has is back"


def test_an_image_that_was_built_on_the_engine_is_deployed_by_its_id(typed: Typed, client: docker.DockerClient) -> None:
    labels = [f"{ENVIRONMENT_LABEL}={ENVIRONMENT}", f"{PART_LABEL}=worker"]
    (worker,) = client.containers.list(filters={"label": labels})
    image = client.images.get(str(worker.attrs["Image"]))
    # By a tag containerd's store does not tell what was built here from what was pulled last week.
    typed(f"make deploy WORKER={image.id} ARGS='--yes --no-check'")
    (deployed,) = client.containers.list(filters={"label": labels})
    assert deployed.attrs["Config"]["Image"] == image.id
    typed("make smoke ARGS='--wait 120'")


def test_a_password_is_rotated_and_all_comes_back_after_down(typed: Typed) -> None:
    typed("make rotate SECRET=redis-app ARGS=--retire-now")
    typed("make down ARGS=--yes")
    typed("make up")
    typed("make smoke ARGS='--wait 120'")
    assert "0 rows" in typed("make psql SQL='SELECT * FROM kept'"), "the volume stayed"
