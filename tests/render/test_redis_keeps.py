"""What the application has written to Redis is there after whatever befalls Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.data.compose import import_on_engine
from operations.data.repair import redis_log
from operations.errors import FailedError
from stack.settings.environment import Environment
from tests import queued
from tests.render.conftest import Laboratory, contents
from tests.render.redis_part import SECOND_SECRET, Kept, begin, described, keep_users, kept_redis

pytestmark = pytest.mark.live

IMPORT = Path(import_on_engine.__file__).with_name("import_redis.sh")


@pytest.fixture
def kept(laboratory: Laboratory, environment: Environment) -> Iterator[Kept]:
    with kept_redis(laboratory, environment) as made:
        yield made


def cleanly(kept: Kept) -> None:
    kept.container.restart()
    kept.ready()


def rotated(kept: Kept) -> None:
    """Another password, then a SIGKILL."""
    keep_users(kept.laboratory, kept.environment, generation=2).remove(force=True)
    kept.password = SECOND_SECRET
    kept.kill()


def imported(kept: Kept) -> None:
    """Open its volume as the import from Compose opens the copy of one, and start over that."""
    kept.container.stop()
    kept.container.remove()
    spec = described(kept.environment)
    said = kept.laboratory.client.containers.run(
        spec.image,
        [IMPORT.read_text(encoding="utf-8"), "sh", "/data", "yes", str(2**30)],
        entrypoint=["sh", "-c"],
        user=spec.user,
        network_mode="none",
        volumes={kept.volume: {"bind": "/data"}},
        remove=True,
    )
    assert b"2 databases with keys" in said, said
    kept.start()


WAYS = {
    "an import": imported,
    "a clean restart": cleanly,
    "SIGKILL": Kept.kill,
    "a new container": Kept.replace,
    "a rotation": rotated,
}


@pytest.mark.parametrize("way", WAYS)
def test_all_that_the_application_wrote_is_there_and_each_job_runs_once_after(kept: Kept, way: str) -> None:
    before = begin(kept)
    WAYS[way](kept)
    kept.holds(before)


@pytest.mark.parametrize(
    "forgotten", [False, True], ids=["as it ran", "after a restart had forgotten its transactions"]
)
def test_an_upgrade_brings_back_all_that_the_file_of_the_old_version_holds(kept: Kept, forgotten: bool) -> None:
    before = begin(kept, old=True)
    if forgotten:
        kept.kill()
    kept.replace()
    kept.holds(before)


def test_a_file_that_is_read_with_errors_is_told(kept: Kept) -> None:
    begin(kept, old=True)
    kept.kill()
    if "AOF-loading-client" not in kept.container.logs().decode():
        pytest.skip("this Redis no longer asks for rights when it reads its file (redis/redis#14545)")
    with kept.client() as client:
        refused = client.info("stats")["unexpected_error_replies"]
    assert refused >= queued.COUNT, "the alert RedisFileReadWithErrors and `make smoke` go by this number"
    with pytest.raises(FailedError, match="refused commands of the file"):
        redis_log.judge(kept.container.logs().decode())


def test_an_upgrade_that_is_killed_wherever_it_is_loses_nothing(kept: Kept) -> None:
    before = begin(kept, old=True)
    kept.container.stop()
    kept.container.remove()
    spec = described(kept.environment)
    kept.container = kept.laboratory.run(spec, contents(spec), data=kept.volume)
    for hundredths in range(0, 60, 4):
        time.sleep(hundredths / 100)
        kept.container.kill()
        kept.container.wait()
        kept.container.start()
    kept.ready()
    kept.holds(before)


def test_a_way_back_to_the_old_version_by_the_snapshot_loses_nothing(kept: Kept) -> None:
    before = begin(kept)
    kept.container.stop()
    kept.container.remove()
    kept.shell("mv /data/appendonlydir /data/appendonlydir.before")
    kept.start(old=True)
    kept.holds(before)
