"""The store of the logs, beside PostgreSQL on one disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stack.parts.logs import spec as logs
from stack.parts.postgres import spec as postgres
from tests.recording import environment_of


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({}, 5120),
        ({"backup": {"maxSlotWalMib": 256}}, 1280),
        ({"backup": {"enabled": False}}, 1024),
    ],
)
def test_the_logs_leave_room_for_all_that_postgresql_may_keep(values: dict[str, Any], free: int) -> None:
    environment = environment_of("staging", values)
    assert f"-storage.minFreeDiskSpaceBytes={free}MiB" in logs.spec(environment).command
    kept = postgres.files(environment)["postgresql.conf"]
    assert isinstance(kept, str)
    assert "max_wal_size = 1GB" in kept, "this is in the room too"


@pytest.mark.parametrize("passwords", ["never", "always"])
def test_nobody_has_the_key_with_which_stored_days_are_taken_away(passwords: str) -> None:
    words = logs.spec(environment_of("staging", {"basicAuth": passwords})).command
    keys = [word.partition("=file://")[2] for word in words if "AuthKey=" in word]
    assert len(keys) == 2
    assert len({Path(key).read_text() for key in keys * 2}) == 4, "each look finds another key, with no secret anywhere"
