"""A volume that was set aside is put back twice: a moment between is what it was, or is not shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.backup_image.holds import within
from tests.backup_image.machines import one_machine
from tests.backup_image.orders import PATIENCE_SECONDS
from tests.backup_image.world import World, volumes_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(2400)]


@pytest.fixture
def world(backup_image: str, tmp_path: Path) -> Iterator[World]:
    with one_machine(backup_image, tmp_path) as world:
        yield world


def test_a_moment_between_two_undos_of_one_restore_is_reached_as_it_was(world: World) -> None:
    assert world.restore(to=str(world.moment()))[0] == "done"
    (aside,) = volumes_of(world, "-before-restore-")
    at: dict[str, datetime] = {}
    world.is_so("no-base", so=True)
    for name in ("one", "two"):
        came, said = world.restore(source=aside)
        assert came == "refused", said
        assert "PostgreSQL gives no base backup today" in said, "all but the last step is done"
        world.sql(f"INSERT INTO public.writes VALUES ('{name}')")
        at[name] = world.moment()
    world.is_so("no-base", so=False)
    assert world.restore()[0] == "done"
    end = time.monotonic() + PATIENCE_SECONDS
    while not within(at["one"], shown := [each for each in world.listed() if each["from"]]):
        assert time.monotonic() < end, shown
        time.sleep(1)
    done = world.program("restore", "--to", at["one"].isoformat(), "--into", "/world/reached", check=False)
    assert done["status"] == 0, done["err"]
    assert "one" in world.rows_in("/world/reached"), "the list shows this moment, and a restore of it silently lacks it"
    assert {"first", "two"} <= world.rows()
