"""A clock that was set back: Barman names a base backup by the second, and one of that second is there already."""

from __future__ import annotations

import pytest

from tests.backup_image.conftest import Lab

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]

# As they lie there when the clock is set back by the time since they were made.
LAY = """
import shutil, time
from datetime import UTC, datetime, timedelta
from samokoder_backup.catalogue import bases
(base,) = bases()
now = datetime.now(UTC)
for seconds in range(15):
    name = f"{now + timedelta(seconds=seconds):%Y%m%dT%H%M%S}"
    shutil.copytree(base.folder, base.folder.with_name(name))
    shutil.copyfile(base.info, base.info.with_name(f"{name}-backup.info"))
    print(name)
"""


def test_a_base_backup_takes_the_name_of_no_other_of_its_second(lab: Lab) -> None:
    laid = lab.inside(LAY).split()
    assert {each["status"] for each in lab.list("base")} == {"good"}
    made = lab.backup("now", "--kind", "base").stderr
    there = {each["id"]: each["status"] for each in lab.list("base")}
    assert there.keys() >= set(laid), "Barman wrote over the description of one, which was removed as unfinished"
    assert set(there.values()) == {"good"}, f"the description of one is another's: {made}"
    assert len(there) == len(laid) + 2, "and a new one was made"
