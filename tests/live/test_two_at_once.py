"""Two people type `make up` at the same moment, for one environment: in one clone, in two, and in two of one team."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import docker
import pytest

from bench.own_ports import own_ports
from operations.workspace import lock
from stack.common.names import ENVIRONMENT_LABEL
from tests.live import clones

pytestmark = pytest.mark.timeout(3600)

# What the second one reads, where it did not find the first one's work finished: nothing was changed by it.
REFUSALS = ("One at a time", "changed by another run meanwhile", "On the engine and not in this state")
MAKE_FAILED = 2
Make = Callable[[], Path]


@pytest.fixture
def environment(engine: docker.DockerClient) -> Iterator[str]:
    """A name of its own; what it has on the engine is gone afterwards."""
    name = f"t{secrets.token_hex(3)}"
    yield name
    clones.remove(engine, name)


@pytest.fixture
def make(environment: str, tmp_path: Path) -> Make:
    """Makes clones with one environment, all with the same settings and ports."""
    config = {**own_ports(), "samokoder:api": {"stableSeconds": 2}}
    made: list[Path] = []

    def one() -> Path:
        made.append(tmp_path / f"clone-{len(made)}" / "samokoder")
        clones.make(made[-1], environment, config)
        assert clones.run(made[-1], "./bootstrap").returncode == 0
        return made[-1]

    return one


def up_at_once(folders: Sequence[Path], **variables: str) -> list[int]:
    """Type `make up` in each at the same moment; return who came through. Whoever did not was refused, and says so.

    Two that meet at the lock in the same instant both give way, which a person sees and tries again.
    """
    for _ in range(3):
        ended = clones.at_once(folders, "make up", **variables)
        for status, said in ended:
            assert status in (0, MAKE_FAILED), said[-3000:]
            assert status == 0 or any(each in said for each in REFUSALS), f"no message to a person:\n{said[-3000:]}"
        if good := [number for number, (status, _) in enumerate(ended) if status == 0]:
            return good
    raise AssertionError("neither came through:\n" + "\n\n".join(said[-2000:] for _, said in ended))


def whole(folder: Path, environment: str, engine: docker.DockerClient) -> None:
    """The environment works, its clone knows all of it, and no lock is left."""
    clones.typed(folder, "make smoke ARGS='--wait 180'", ENV=environment)
    clones.typed(folder, "make drift", ENV=environment)
    clones.typed(folder, "make password NAME=grafana-admin", ENV=environment)
    assert not lock.holders(engine, environment), "nobody could change it any more"
    before = ids(engine, environment)
    clones.typed(folder, "make up", ENV=environment)
    assert ids(engine, environment) == before, "the next `up` has nothing to do"


def ids(engine: docker.DockerClient, environment: str) -> set[str]:
    """Its containers."""
    label: dict[str, str | list[str] | bool] = {"label": f"{ENVIRONMENT_LABEL}={environment}"}
    return {str(each.id) for each in engine.containers.list(all=True, filters=label, ignore_removed=True)}


def test_in_one_clone_the_very_first_time_and_again(environment: str, make: Make, engine: docker.DockerClient) -> None:
    clone = make()
    up_at_once([clone, clone], ENV=environment)
    whole(clone, environment, engine)
    before = ids(engine, environment)
    up_at_once([clone, clone], ENV=environment)
    assert ids(engine, environment) == before, "neither had anything to change"
    whole(clone, environment, engine)


def test_in_two_clones_that_know_nothing_of_each_other(
    environment: str, make: Make, engine: docker.DockerClient
) -> None:
    folders = [make(), make()]
    good = up_at_once(folders, ENV=environment)
    assert len(good) == 1, "two states cannot both own one environment"
    whole(folders[good[0]], environment, engine)
    before = ids(engine, environment)
    other = folders[1 - good[0]]
    refused = clones.typed(other, "make up", ENV=environment, status=MAKE_FAILED)
    assert "On the engine and not in this state" in refused, refused
    assert ids(engine, environment) == before, "a stranger's clone has replaced something"
    whole(folders[good[0]], environment, engine)


def test_in_two_clones_of_a_team(environment: str, make: Make, engine: docker.DockerClient, tmp_path: Path) -> None:
    shared = tmp_path / "state"
    shared.mkdir(mode=0o700)
    (tmp_path / "passphrase").write_text(secrets.token_urlsafe(32))
    variables = {
        "ENV": environment,
        "PULUMI_BACKEND_URL": f"file://{shared}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(tmp_path / "passphrase"),
    }

    def typed(folder: Path, line: str) -> str:
        return clones.typed(folder, line, status=0, **variables)

    folders = [make(), make()]
    up_at_once(folders, **variables)
    for folder in folders:
        before = ids(engine, environment)
        typed(folder, "make up")
        assert ids(engine, environment) == before, "both clones have the same state"
        typed(folder, "make drift")
    up_at_once(folders, **variables)
    typed(folders[0], "make smoke ARGS='--wait 180'")
    assert not lock.holders(engine, environment)
