"""The machine of an engine loses its power while 1,000 jobs wait: dockerd, containerd and all containers end at once.

What a disk had not written yet is gone with it, or half there: a test takes it away, for a kill alone leaves it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.engine import connect
from host.progress import Task
from operations.data.restore import mending
from operations.engine import laboratory as parts
from stack.settings.environment import Environment
from tests import private_engine as private_engines
from tests import queued
from tests.private_engine import PrivateEngine, private_engine
from tests.render.conftest import Laboratory
from tests.render.redis_part import Kept, begin, described, kept_redis

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.live

FILE = "appendonlydir/appendonly.aof.1.incr.aof"


@dataclass
class Machine:
    """An engine of its own, with Redis' image."""

    private: PrivateEngine

    def processes(self) -> set[int]:
        """Return dockerd, containerd, the containers' shims, and whatever these have started."""
        children: dict[int, list[int]] = {}
        found = set[int]()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
                parent = re.search(r"^PPid:\t(\d+)$", (folder / "status").read_text(), re.MULTILINE)
                children.setdefault(int(parent[1]) if parent else 0, []).append(int(folder.name))
                if f"{self.private.root}/" in words and re.match(r"[^\0]*(dockerd|containerd|docker-proxy)", words):
                    found.add(int(folder.name))
        reached = list(found)
        while reached:
            more = children.get(reached.pop(), [])
            reached += [process for process in more if process not in found]
            found.update(more)
        return found

    def loses_its_power(self) -> None:
        """End all of it; first each is stopped, so that none sees another end and acts on it."""
        processes = self.processes()
        assert len(processes) >= 5, f"dockerd, containerd, a shim, an init and Redis: {processes}"
        for what in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, what)
        # A machine that starts has none of the mounts and bridges of before.
        private_engines.stop(self.private, report=print)

    def starts(self) -> None:
        private_engines.start(self.private, report=print)


@pytest.fixture(scope="module")
def machine(engine: docker.DockerClient, environment: Environment) -> Iterator[Machine]:
    with (
        private_engine("10.217") as (private, _),
        contextlib.closing(connect(private.docker_host)) as client,
    ):
        image = engine.images.get(described(environment).image)
        (loaded,) = client.images.load(b"".join(image.save(named=True)))
        assert loaded.id == image.id
        yield Machine(private)


@pytest.fixture(name="laboratory")
def on_the_machine(machine: Machine) -> Iterator[Laboratory]:
    with (
        contextlib.closing(connect(machine.private.docker_host)) as client,
        parts.opened(client) as made,
    ):
        yield Laboratory(made.client, made.token, made.network)


@pytest.fixture
def kept(laboratory: Laboratory, environment: Environment) -> Iterator[Kept]:
    with kept_redis(laboratory, environment) as made:
        yield made


def cut(machine: Machine, kept: Kept, *, lost: int = 0, zeros: int = 0) -> None:
    """Cut the power. lost: bytes of the append-only file that were not on the disk; zeros: that are there instead."""
    machine.loses_its_power()
    file = machine.private.root / "data" / "volumes" / kept.volume / "_data" / FILE
    os.truncate(file, file.stat().st_size - lost)
    with file.open("ab") as handle:
        handle.write(bytes(zeros))
    machine.starts()
    kept.container.reload()
    assert kept.container.status == "exited", "it was running when the power was cut"


def test_a_power_cut_loses_no_job_and_each_runs_once(machine: Machine, kept: Kept) -> None:
    before = begin(kept)
    cut(machine, kept)
    kept.container.start()
    kept.ready()
    kept.holds(before)


def test_a_torn_end_costs_the_last_command_whole_and_no_other(machine: Machine, kept: Kept) -> None:
    before = begin(kept)
    queued.put(kept.host, kept.password, count=1, queue="last")
    kept.settle()
    cut(machine, kept, lost=9)
    kept.container.start()
    kept.ready()
    now = kept.seen()
    gone = before.keys() - now.keys()
    assert not gone, f"what was written before the last command: {gone}"
    assert queued.waiting(kept.host, kept.password, queue="last") == set(), "half of a transaction was kept"
    assert queued.run(kept.host, kept.password) == queued.once(), "a job was lost, or ran twice"


def test_zeros_behind_the_end_are_cut_off_by_a_repair_and_no_job_is_lost(machine: Machine, kept: Kept) -> None:
    before = begin(kept)
    cut(machine, kept, zeros=8192)
    kept.container.start()
    assert kept.container.wait(timeout=120)["StatusCode"] != 0, "this Redis cuts zeros off by itself: change the docs"
    volume = kept.laboratory.client.volumes.create(f"{kept.volume}-mended", labels=kept.laboratory.labels)
    said = mending.mend(kept.container, "cut", kept.volume, into=str(volume.name), task=Task(""))
    assert (said["bytes"], said["commands"]) == ("8192", "0"), said
    kept.container.remove()
    kept.volume = str(volume.name)
    kept.start()
    kept.holds(before)
