"""When a container is asked whether it is healthy, by an engine of today and by one of Debian 12."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operations.lifecycle.prepare import _of_engine
from operations.workspace.workspace import Workspace
from stack.common.names import PROJECT
from stack.parts.postgres import spec as postgres
from stack.resources.part import health_check
from stack.settings.reading import read_environment
from stack.spec.service import ServiceSpec
from tests.recording import wire_config
from tests.unit.offline.images.test_offline_images import engine_info

_TODAY = engine_info("")
_DEBIAN_12 = replace(_TODAY, version="20.10.24", api_version="1.41")


def described(**health: Any) -> ServiceSpec:
    config = {f"{PROJECT}:postgres": {"health": health}} if health else {}
    return postgres.spec(read_environment("staging", wire_config(config)))


def test_an_engine_of_today_asks_often_while_a_container_starts_and_seldom_later() -> None:
    before, asked = health_check(described(), start_interval=False), health_check(described(), start_interval=True)
    assert before.start_interval is None, "an engine that does not know it refuses the container"
    assert asked.start_interval == "1s", "`up` waits for the first answer"
    assert (before.interval, asked.interval) == ("5s", "10s"), "each question starts a process, day and night"
    assert (before.retries, asked.retries) == (6, 3), "unhealthy after as long as before"


@pytest.mark.parametrize("health", [{"intervalSeconds": 7}, {"retries": 5}])
def test_a_time_that_somebody_has_set_is_kept(health: dict[str, int]) -> None:
    before = health_check(described(**health), start_interval=False)
    asked = health_check(described(**health), start_interval=True)
    assert (asked.interval, asked.retries) == (before.interval, before.retries)


@pytest.mark.parametrize(("engine", "known"), [(_TODAY, True), (_DEBIAN_12, None)])
def test_up_asks_the_engine_whether_it_knows_a_start_interval(engine: Any, known: bool | None) -> None:
    assert _of_engine(Workspace(isolated=True), engine, ask=False).get(f"{PROJECT}:startInterval") is known, (
        "an engine before API 1.44 refuses each container that has one"
    )
