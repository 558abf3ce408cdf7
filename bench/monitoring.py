"""What the monitoring itself costs, as the engine counts it: all of it at idle, and cAdvisor beside its defaults."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
import httpx
from docker.models.containers import Container

from host.ports import free_ports
from host.progress import Reporter
from operations.engine import containers
from operations.engine.one_off import HARDENED
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.common.names import PART_LABEL
from stack.settings.environment import Environment
from stack.settings.types import seconds as seconds_of

IDLE_SECONDS = 90.0
_COMPONENT = "samokoder:monitoring:"
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a container has used at one moment, or some together between two: MiB; cores' seconds, or cores."""

    mib: float
    cpu: float
    at: float = 0.0
    """Seconds since 1970, by the engine's clock."""


def parts(environment: Environment) -> list[str]:
    """Return the parts that are there for the monitoring alone, as far as the environment runs them."""
    return [spec.part for spec in specs(environment) if spec.component.startswith(_COMPONENT)]


def idle(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> Usage:
    """Return memory (at its most at the two ends) and cores of the monitoring together, while nobody uses it."""
    wanted = parts(workspace.settings())
    chosen = [each for each in containers.of_environment(client, workspace.name) if each.labels[PART_LABEL] in wanted]
    with reporter.task(f"Monitoring at idle for {IDLE_SECONDS:.0f} s"):
        before = usages(chosen)
        time.sleep(IDLE_SECONDS)
        after = usages(chosen)
    return together(before, after)


def usages(chosen: Sequence[Container]) -> list[Usage]:
    """Ask the engine for what each container uses, all at once: each answer takes it a second."""
    with ThreadPoolExecutor(max_workers=max(1, len(chosen))) as pool:
        return list(pool.map(lambda each: usage(each.stats(stream=False)), chosen))


def usage(stats: Mapping[str, Any]) -> Usage:
    """Read one answer. Memory is counted as `docker stats` does: without files' pages that can be dropped."""
    memory = stats["memory_stats"]
    details = memory.get("stats") or {}
    # The first is of cgroup v1, the second of v2.
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Usage(
        mib=max(0, memory["usage"] - inactive) / _MIB,
        cpu=stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        at=datetime.fromisoformat(stats["read"]).timestamp(),
    )


def together(before: Sequence[Usage], after: Sequence[Usage]) -> Usage:
    """Return what several containers used between two moments, each by its own two: MiB and cores."""
    pairs = list(zip(before, after, strict=True))
    return Usage(
        mib=sum(max(first.mib, last.mib) for first, last in pairs),
        cpu=sum((last.cpu - first.cpu) / (last.at - first.at) for first, last in pairs),
    )


def cadvisor(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> tuple[float, float]:
    """Return cores that cAdvisor uses, and those that it uses with its default flags beside it in the same minutes.

    The default one is scraped as often as Prometheus scrapes ours.
    """
    environment = workspace.settings()
    ours = containers.find(client, environment, "cadvisor")
    host = ours.attrs["HostConfig"]
    socket = environment.settings.cadvisor.containerd_socket
    (port,) = free_ports(1)
    defaults: Container = client.containers.run(
        str(ours.attrs["Image"]),
        ["--logtostderr", f"--containerd={socket}"],
        entrypoint=["/usr/bin/cadvisor"],
        detach=True,
        user="0:0",
        volumes=host["Binds"],
        **HARDENED,
        ports={"8080/tcp": ("127.0.0.1", port)},
    )
    try:
        with reporter.task(f"cAdvisor beside one with its defaults for {IDLE_SECONDS:.0f} s"):
            scrape = seconds_of(environment.settings.prometheus.scrape_interval)
            _wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz").is_success)
            time.sleep(scrape)  # the first look at every container is no steady state
            before, begun = usages([ours, defaults]), time.monotonic()
            while time.monotonic() - begun < IDLE_SECONDS:
                httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).raise_for_status()
                time.sleep(scrape)
            after = usages([ours, defaults])
    finally:
        defaults.remove(force=True)
    used = [together([first], [last]).cpu for first, last in zip(before, after, strict=True)]
    return used[0], used[1]


def active_series(workspace: Workspace) -> float:
    """Return how many series are in Prometheus' memory."""
    answer = httpx.get(
        f"http://127.0.0.1:{workspace.settings().settings.prometheus.port}/api/v1/query",
        params={"query": "prometheus_tsdb_head_series"},
        timeout=30,
    )
    return float(answer.json()["data"]["result"][0]["value"][1])


def _wait_for(good: Callable[[], bool]) -> None:
    """Ask until the answer is good; a refused connection is none."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            if good():
                return
        time.sleep(0.2)
