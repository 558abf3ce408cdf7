"""The logs when there are far too many: nothing else suffers, and what is lost is counted and told."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from operations.engine import containers
from operations.engine.commands import execute
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.parts.log_collector import spec as log_collector
from stack.parts.logs import spec as logs
from stack.settings.environment import Environment
from tests.live.conftest import prometheus, url, with_config
from tests.live.test_log_search import mark, stored, until, write
from tests.small_disk import small_disk_of_root

pytestmark = pytest.mark.deploy

SECONDS, A_SECOND = 60, 10_000
WRITTEN = SECONDS * A_SECOND
SLOT_MIB = 256
FREE_MIB = logs.FREE_MIB + SLOT_MIB
DISK_MIB = FREE_MIB + 400
BUFFER_MIB = 10
# What the worker itself writes in the meantime, and is dropped with the flood.
OTHERS = 5_000
# A busy machine may take its time, as long as all is there in the end.
PATIENCE_SECONDS = 900
FLOOD = """
import os, sys, time
mark, seconds = sys.argv[1], int(sys.argv[2])
out, begun, number = os.open('/proc/1/fd/1', os.O_WRONLY), time.monotonic(), 0
for tenth in range(seconds * 10):
    for _ in range(40):
        # Below 4096 bytes at once, so that lines of others come between whole ones.
        rows = [f'{mark} {number + each:07d} {"x" * 100}' for each in range(25)]
        os.write(out, ('\\n'.join(rows) + '\\n').encode())
        number += 25
    time.sleep(max(0, begun + (tenth + 1) / 10 - time.monotonic()))
print(number)
"""


@pytest.fixture(scope="module")
def disk() -> Iterator[Path | None]:
    """A small file system for the logs."""
    with small_disk_of_root(DISK_MIB, owner=65534) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def loaded(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, disk: Path | None
) -> Iterator[Workspace]:
    """A stack that keeps few logs and lets few wait."""
    workspace = with_config(
        new_workspace(),
        {
            "samokoder:logs": {"retentionSize": "10MB"},
            "samokoder:logCollector": {"bufferMib": BUFFER_MIB},
            "samokoder:backup": {"maxSlotWalMib": SLOT_MIB},
        },
    )
    if disk:
        how = {"type": "none", "o": "bind", "device": str(disk)}
        engine.volumes.create(f"samokoder-{workspace.name}-{logs.PART}-data", driver="local", driver_opts=how)
    bring_up(workspace, interactive=False)
    environment = workspace.settings()
    until(lambda: sample(environment, "min(up)") == 1, PATIENCE_SECONDS)
    yield workspace
    destroy_data(workspace, interactive=False)


@pytest.fixture
def world(loaded: Workspace) -> Environment:
    """Its settings."""
    return loaded.settings()


def sample(environment: Environment, query: str) -> float | None:
    found = prometheus(environment, "query", query=query)["result"]
    return float(found[0]["value"][1]) if found else None


def fires(environment: Environment, alert: str) -> bool:
    return sample(environment, f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})') is not None


def counters(engine: docker.DockerClient, environment: Environment) -> dict[str, float]:
    """What the collector counts, summed over its labels."""
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9190/metrics').read().decode())"
    status, said = execute(containers.find(engine, environment, log_collector.PART), ["python", "-c", asked])
    assert status == 0, said
    found: dict[str, float] = {}
    for line in said.decode().splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0].removeprefix("log_collector_")
            found[name] = found.get(name, 0) + float(value)
    return found


def started(engine: docker.DockerClient, environment: Environment) -> dict[str, Any]:
    """When each container was started last: another moment is a restart."""
    found = containers.of_environment(engine, environment.name)
    return {str(each.name): each.attrs["State"]["StartedAt"] for each in found}


def flooded(engine: docker.DockerClient, environment: Environment, text: str) -> list[str]:
    """Have the worker write as fast as is said, while somebody uses the API. Return which answers were bad."""
    worker, bad = containers.find(engine, environment, "worker"), list[str]()
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(execute, worker, ["python", "-c", FLOOD, text, str(SECONDS)])
        while not flood.done():
            try:
                answer = httpx.get(f"{url(environment, 'ingress')}/health", timeout=20, trust_env=False)
                bad += [] if answer.status_code == 200 else [answer.text[:100]]
            except httpx.HTTPError as error:
                bad.append(repr(error))
            time.sleep(0.5)
    status, said = flood.result()
    assert (status, said.decode().strip()) == (0, str(WRITTEN)), said[-300:]
    return bad


def found(environment: Environment, text: str) -> tuple[int, int]:
    """How many lines of the flood are in the store, and how many different ones."""
    (row,) = stored(environment, f"{text} | stats count() lines, count_uniq_hash(_msg) different")
    return int(row["lines"]), int(row["different"])


def settled(engine: docker.DockerClient, environment: Environment, text: str) -> int:
    """Wait until all is read that will be; return how many lines of the flood the store has, each one once."""
    until(lambda: counters(engine, environment)["behind_seconds"] < 10, PATIENCE_SECONDS)
    before = -1
    # The store shows within seconds what it has taken.
    while before != (lines := found(environment, text)[0]):
        before = lines
        time.sleep(10)
    lines, different = found(environment, text)
    assert lines == different, "lines came twice"
    return lines


def healthy(container: Container) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


def test_ten_thousand_lines_a_second_harm_nothing_else(
    loaded: Workspace, engine: docker.DockerClient, world: Environment
) -> None:
    before, begun, text, quiet = counters(engine, world), started(engine, world), mark(), mark()
    with ThreadPoolExecutor(1) as pool:
        flood = pool.submit(flooded, engine, world, text)
        time.sleep(SECONDS / 2)
        write(engine, world, "api-1", quiet)
        until(lambda: stored(world, quiet), PATIENCE_SECONDS)
        assert flood.result() == [], "the application suffered"
    lines, after = settled(engine, world, text), counters(engine, world)
    lost = after["dropped_lines_total"] - before["dropped_lines_total"]
    if after["gaps_total"] == before["gaps_total"]:
        assert WRITTEN - lines <= lost <= WRITTEN - lines + OTHERS, "lines were lost that nobody counted"
    if lost or after["gaps_total"] > before["gaps_total"]:
        until(lambda: fires(world, "LogLinesDropped"), 120)
    else:
        assert not fires(world, "LogLinesDropped")
    assert started(engine, world) == begun, "a part was restarted"
    assert all(
        healthy(each) for each in containers.of_environment(engine, world.name) if "Health" in each.attrs["State"]
    )


def test_what_does_not_fit_while_the_store_is_away_is_counted_line_by_line_and_told(
    loaded: Workspace, engine: docker.DockerClient, world: Environment
) -> None:
    before, text = counters(engine, world), mark()
    store = containers.find(engine, world, logs.PART)
    store.stop()
    try:
        assert flooded(engine, world, text) == [], "the application waits for its log"
        held = counters(engine, world)["held_bytes"]
        assert held <= BUFFER_MIB * 2**20, f"{held / 2**20:.0f} MiB of removed files are held on the engine's disk"
    finally:
        store.start()
    until(lambda: healthy(store), PATIENCE_SECONDS)
    lines, after = settled(engine, world, text), counters(engine, world)
    assert lines < WRITTEN, "all of it fitted, which proves nothing"
    assert after["gaps_total"] == before["gaps_total"], "files went that the collector had never opened"
    lost = after["dropped_lines_total"] - before["dropped_lines_total"]
    assert WRITTEN - lines <= lost <= WRITTEN - lines + OTHERS, "lines were lost that nobody counted"
    until(lambda: fires(world, "LogLinesDropped"), 120)


def test_beyond_the_limit_by_size_the_oldest_days_go_and_new_lines_come(
    loaded: Workspace, engine: docker.DockerClient, world: Environment
) -> None:
    def put(days: int, texts: list[str]) -> None:
        moment = (datetime.now(UTC) - timedelta(days=days)).isoformat()
        rows = [{"_time": moment, "_msg": each, "environment": world.name, "part": "old"} for each in texts]
        answer = httpx.post(
            f"{url(world, 'logs')}/insert/jsonline?_stream_fields=environment,part&_time_field=_time",
            content="".join(json.dumps(row) + "\n" for row in rows),
            headers={"Content-Type": "application/stream+json"},
            timeout=120,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text

    old, yesterday, new = mark(), mark(), mark()
    # Nothing makes random text smaller than half.
    put(3, [f"{old} {secrets.token_hex(5_000)}" for _ in range(4_000)])
    put(1, [yesterday])
    until(lambda: not stored(world, f"{old} | limit 1"), PATIENCE_SECONDS)
    assert stored(world, yesterday), "the last two days stay"
    write(engine, world, "worker", new)
    until(lambda: stored(world, new), 60)


def test_a_full_volume_leaves_room_for_the_others_and_loses_nothing_until_there_is_room_again(
    loaded: Workspace, engine: docker.DockerClient, world: Environment, disk: Path | None
) -> None:
    if disk is None:
        pytest.skip("only root can mount the small disk")

    def read_only() -> bool:
        said = httpx.get(f"{url(world, 'logs')}/metrics", timeout=30, trust_env=False).text
        return any(line.startswith("vl_storage_is_read_only") and line.endswith(" 1") for line in said.splitlines())

    filler, text = disk / "filler", mark()
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - (FREE_MIB - 8) * 2**20)
    try:
        until(read_only, 60)
        write(engine, world, "worker", text)
        health = httpx.get(f"{url(world, 'ingress')}/health", timeout=10, trust_env=False)
        assert health.status_code == 200, "the application waits for its log"
        until(lambda: fires(world, "LogStoreFull"), 300)
        assert not stored(world, text)
        assert shutil.disk_usage(disk).free > (FREE_MIB - 64) * 2**20, "PostgreSQL on the same disk needs it"
    finally:
        filler.unlink()
    until(lambda: not read_only(), 60)
    until(lambda: stored(world, text), 120)
    assert len(stored(world, text)) == 1
