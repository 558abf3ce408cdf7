"""Which old images an `up` removes, and which stay: with a real registry, by its rules and through a whole stack."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import docker
import docker.errors
import pytest

from operations.engine import old_images
from operations.engine.part_status import NOT_AVAILABLE
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.live.conftest import with_config
from tests.recording import environment_of
from tests.registry import serve

pytestmark = [pytest.mark.live, pytest.mark.long, pytest.mark.timeout(600)]


@contextlib.contextmanager
def published(engine: docker.DockerClient, base: str, registry: str, count: int) -> Iterator[list[str]]:
    """Versions of an image in a registry, by their digests; on the engine only while somebody has pulled them."""
    references = []
    for number in range(count):
        container = engine.containers.create(base)
        try:
            image = container.commit(repository=f"{registry}/part", tag=str(number), changes=f"LABEL own={number}")
        finally:
            container.remove()
        for line in engine.images.push(f"{registry}/part", str(number), stream=True, decode=True):
            assert "error" not in line, line
        image.reload()
        references.append(f"{registry}/part:{number}@{image.attrs['RepoDigests'][0].partition('@')[2]}")
        engine.images.remove(f"{registry}/part:{number}")
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.images.remove(references[-1])
    try:
        yield references
    finally:
        for reference in references:
            with contextlib.suppress(docker.errors.ImageNotFound):
                engine.images.remove(str(engine.images.get(reference).id), force=True)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with serve(tmp_path / "registry") as address:
        yield address


def there(engine: docker.DockerClient, references: Sequence[str]) -> list[int]:
    """Numbers of those that the engine has."""
    return [number for number, each in enumerate(references) if old_images._image(engine, each) is not None]


def test_only_what_this_environment_brought_and_nobody_else_has_is_removed(
    engine: docker.DockerClient, local_images: Environment, registry: str
) -> None:
    name, other = (f"t{secrets.token_hex(3)}" for _ in range(2))
    said: list[str] = []

    def at(reference: str, environment: str = name, keep: int = 3) -> Environment:
        local = {each: local_images.image(each) for each in ("python", "postgres", "redis", "backup")}
        images = {**local, "nodeExporter": reference}
        return environment_of(environment, {"images": images, "keepImages": keep})

    def up(reference: str, environment: str = name, keep: int = 3) -> None:
        old_images.note(engine, at(reference, environment, keep), said.append)
        engine.images.pull(reference)
        old_images.tidy(engine, at(reference, environment, keep), said.append)

    with published(engine, local_images.image("node_exporter"), registry, 12) as versions:
        assert there(engine, versions) == [], "the test proves nothing: they are there"
        engine.images.pull(versions[0])
        try:
            for version in versions[:5]:
                up(version)
            assert there(engine, versions) == [0, 2, 3, 4], "version 0 was there before; the newest three stay"
            assert len(said) == 1, f"told in one line: {said}"
            assert "part:1" in said[0], "and which"

            used = engine.containers.create(versions[2])
            tagged = engine.images.get(versions[3])
            tagged.tag(f"{registry}/kept-by-a-person", "1")
            up(versions[4], other)
            for version in versions[5:8]:
                up(version)
            assert there(engine, versions) == [0, 2, 3, 4, 5, 6, 7], (
                "a stopped container, a person's tag, or another environment's history has lost its image"
            )
            used.remove()
            engine.images.remove(f"{registry}/kept-by-a-person:1")
            up(versions[6])
            assert there(engine, versions) == [0, 4, 5, 6, 7], "what was in use is looked at again"
            # Gone back: 7 is what one would go forward to, and 6 is the newest.
            up(versions[8])
            assert there(engine, versions) == [0, 4, 6, 7, 8], "by the order in which they ran"

            # Three that never came up, and one that does.
            for version in versions[9:12]:
                old_images.note(engine, at(version), said.append)
                engine.images.pull(version)
            up(versions[0])
            assert there(engine, versions) == [0, 4, 6, 8], "what ran last is gone, for images that never ran"

            up(versions[9], keep=0)
            up(versions[10], keep=0)
            up(versions[11], keep=0)
            assert there(engine, versions) == [0, 4, 6, 8, 9, 10, 11], "switched off, it removes all the same"
        finally:
            for environment in (name, other):
                old_images.forget(engine, at(versions[0], environment))
    assert not [each for each in engine.volumes.list() if name in each.name or other in each.name], "the note stays"


def test_a_note_that_cannot_be_read_removes_nothing(
    engine: docker.DockerClient, local_images: Environment, registry: str
) -> None:
    name, other = (f"t{secrets.token_hex(3)}" for _ in range(2))
    said: list[str] = []
    with published(engine, local_images.image("node_exporter"), registry, 4) as versions:
        environment = environment_of(name, {"images": {"nodeExporter": versions[0]}, "keepImages": 2})
        try:
            for version in versions[:3]:
                environment = environment_of(name, {"images": {"nodeExporter": version}, "keepImages": 2})
                old_images.note(engine, environment, said.append)
                engine.images.pull(version)
                if version != versions[2]:
                    old_images.tidy(engine, environment, said.append)
            foreign = engine.volumes.create(f"samokoder-{other}-images-1", labels={old_images.LABEL: other})
            try:
                old_images.tidy(engine, environment, said.append)
            finally:
                foreign.remove()
            assert there(engine, versions) == [0, 1, 2], "what another environment needs is not known"
            assert "left as they are" in said[-1]
            old_images.tidy(engine, environment, said.append)
            assert there(engine, versions) == [1, 2]
        finally:
            old_images.forget(engine, environment)


def test_an_up_removes_the_oldest_image_of_a_part_and_keeps_two_to_go_back_to(
    new_workspace: Callable[[], Workspace],
    engine: docker.DockerClient,
    local_images: Environment,
    registry: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = new_workspace()
    with published(engine, local_images.image("node_exporter"), registry, 3) as versions:
        try:
            for version in versions:
                workspace = with_config(base, {"samokoder:images": {"nodeExporter": version}})
                capsys.readouterr()
                workspace = replace(workspace, extra_config={**workspace.extra_config, "samokoder:keepImages": 2})
                rows = bring_up(workspace, interactive=False).parts
                assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
            assert there(engine, versions) == [1, 2], "disks fill up with images that nobody goes back to"
            said = capsys.readouterr()
            assert "Old images removed" in said.out + said.err, "and nobody is told"
        finally:
            destroy_data(base, interactive=False)
        assert not engine.volumes.list(filters={"label": f"{old_images.LABEL}={base.name}"}), "the note stays"
