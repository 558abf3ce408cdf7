"""The store of the logs, beside PostgreSQL on one disk."""

from __future__ import annotations

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
