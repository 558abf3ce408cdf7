"""What moves by itself is never tested from a cache: the images of Debian packages, made from today's archive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.engine import connect
from host.progress import Reporter
from offline.images.builder import Builder
from offline.images.ensure import OfflineImages, ensure_images
from offline.images.recipes import RECIPES
from tests.private_engine import PrivateEngine, private_engine

pytestmark = pytest.mark.archive

OF_PACKAGES = [name for name, recipe in RECIPES.items() if recipe.packages]


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    """An engine of its own, so that no image comes from the machine's and none is left on it."""
    with private_engine("10.214") as (private, _):
        yield private


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(engine: PrivateEngine, cache: Path) -> OfflineImages:
    return ensure_images(OF_PACKAGES, cache=cache, docker_host=engine.docker_host, progress=Reporter())


def test_every_image_of_debian_packages_is_made(made: OfflineImages) -> None:
    assert set(made.ids) == set(OF_PACKAGES), "a point release of Debian must not end a newcomer's first command"


@pytest.mark.usefixtures("made")
def test_no_update_of_debian_is_missing_in_the_base(cache: Path, engine: PrivateEngine) -> None:
    status = next((cache / "images").glob("debian-*.status"))
    with contextlib.closing(connect(engine.docker_host)) as client:
        builder = Builder(client=client, cache=cache, progress=Reporter())
        missing = builder._sources().fetch(["dist-upgrade"], status=status, what="Updates")
    assert [deb.name for deb in missing] == [], "an image with known holes must not be made"


def test_no_service_starts_while_a_package_is_installed(made: OfflineImages, engine: PrivateEngine) -> None:
    asks = ["sh", "-c", "/usr/sbin/policy-rc.d; echo $?"]
    with contextlib.closing(connect(engine.docker_host)) as client:
        said = client.containers.run(made.ids["redis"], entrypoint=asks, network_mode="none", remove=True)
    assert said.strip() == b"101", "a package would start its server in the middle of a build"
