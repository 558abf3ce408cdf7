"""Measures one environment of its own and prints a table; writes `bench/results.json`.

Every figure is set beside something measured in the same run, because seconds alone say more of the machine than of
the program: `up` beside the engine starting the same containers again, a preview beside an empty program's, cAdvisor
beside itself with its defaults, the series beside their budget.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.models.containers import Container
from rich.console import Console
from rich.table import Table

from bench import ingress
from bench.llm import IN_FLIGHT, throughput
from offline.progress import Reporter
from operations import containers, lifecycle
from operations.ports import free_ports, own_ports
from operations.project import PulumiRun, Workspace
from stack.settings import seconds as seconds_of

RESULTS = Path(__file__).with_name("results.json")
RUNS = 5
CADVISOR_SECONDS = 120.0


def main() -> None:
    """Run every measurement and show it."""
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(
            stack=f"b{secrets.token_hex(3)}",
            home=Path(folder),
            isolated=True,
            # A replica waits on purpose before the next one; that is no measure of the program.
            extra_config={**own_ports(), "samokoder:api": {"stableSeconds": 0}},
        )
        try:
            results = measure(workspace, reporter)
        finally:
            lifecycle.destroy_data(workspace, interactive=False)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("What", "Measured", "Beside", "Measured", "Ratio")
    for row in results:
        numbers = [f"{row[key]:.2f}" for key in ("measured", "baseline_measured", "ratio")]
        unit = row["unit"]
        table.add_row(
            str(row["what"]), f"{numbers[0]} {unit}", str(row["baseline"]), f"{numbers[1]} {unit}", numbers[2]
        )
    Console().print(table)


def measure(workspace: Workspace, reporter: Reporter) -> list[dict[str, object]]:
    """Return a row for each measurement."""
    run = workspace.prepare()
    client = workspace.client()
    try:
        # Twice: the first one builds the reference application's image, which is no part of a start.
        lifecycle.up(workspace, interactive=False)
        lifecycle.down(workspace, interactive=False)
        up = seconds(lambda: lifecycle.up(workspace, interactive=False))
        engine = seconds(lambda: restart(client, workspace))
        reporter.say(f"up {up:.1f} s, engine alone {engine:.1f} s")
        preview = best(lambda: run.pulumi("preview", "--suppress-outputs", "--expect-no-changes", capture=True))
        empty = empty_preview(run)
        before = containers.ids(client, workspace.name)
        own = dict(workspace.extra_config["samokoder:prometheus"])
        changed = {**workspace.extra_config, "samokoder:prometheus": {**own, "scrapeInterval": "20s"}}
        change = seconds(lambda: lifecycle.up(replace(workspace, extra_config=changed), interactive=False))
        after = containers.ids(client, workspace.name)
        touched = sorted(part for part in before if before[part] != after[part])
        alone = seconds(lambda: restart(client, workspace, only="prometheus"))
        reporter.say(f"measuring cAdvisor for {CADVISOR_SECONDS:.0f} s")
        cadvisor, defaults = cadvisor_cores(client, workspace)
        series = active_series(workspace)
        budget = workspace.settings().settings.alerts.prometheus_series
        reporter.say("measuring the ingress")
        through, direct = ingress.measure(client, workspace, reporter)
    finally:
        client.close()
    reporter.say("measuring the LLM gateway")
    llm = throughput()
    return [
        row("up, images there, to all healthy", up, "the engine starts the same containers at once", engine),
        row("preview without a change", preview, "preview of an empty program", empty),
        row(f"change of one part (touched: {', '.join(touched)})", change, "the engine restarts that part", alone),
        row("cAdvisor's CPU", 100 * cadvisor, "the same program with its defaults", 100 * defaults, "% of a core"),
        row("active series, nobody using it", series, "their budget", budget, "series"),
        row("requests through the ingress", through.per_second, "the API directly", direct.per_second, "requests/s"),
        row("99 of 100 of them within", 1000 * through.p99, "the API directly", 1000 * direct.p99, "ms"),
        row(f"LLM, {IN_FLIGHT} in flight", llm.asynchronous, "one after the other", llm.sequential, "requests/s"),
        row("memory of that worker, at its most", llm.memory_most, "before it asks", llm.memory_before, "MiB"),
    ]


def row(what: str, measured: float, baseline: str, baseline_measured: float, unit: str = "s") -> dict[str, object]:
    """One line of the table."""
    return {
        "what": what,
        "measured": measured,
        "unit": unit,
        "baseline": baseline,
        "baseline_measured": baseline_measured,
        "ratio": measured / baseline_measured,
    }


def cadvisor_cores(client: docker.DockerClient, workspace: Workspace) -> tuple[float, float]:
    """Cores that cAdvisor uses, and those that it uses with its default flags beside it in the same minutes.

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
        cap_drop=["ALL"],
        read_only=True,
        init=True,
        ports={"8080/tcp": ("127.0.0.1", port)},
    )
    try:
        scrape = seconds_of(environment.settings.prometheus.scrape_interval)
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/healthz").is_success)
        time.sleep(scrape)  # the first look at every container is no steady state
        used = [(_cpu_seconds(ours), _cpu_seconds(defaults))]
        begun = time.monotonic()
        while time.monotonic() - begun < CADVISOR_SECONDS:
            httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).raise_for_status()
            time.sleep(scrape)
        used.append((_cpu_seconds(ours), _cpu_seconds(defaults)))
        took = time.monotonic() - begun
    finally:
        defaults.remove(force=True)
    (ours_before, defaults_before), (ours_after, defaults_after) = used
    return (ours_after - ours_before) / took, (defaults_after - defaults_before) / took


def _cpu_seconds(container: Container) -> float:
    """CPU time of a container since its start, in seconds."""
    stats: Any = container.stats(stream=False)
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def active_series(workspace: Workspace) -> float:
    """Series in Prometheus' memory."""
    answer = httpx.get(
        f"http://127.0.0.1:{workspace.settings().settings.prometheus.port}/api/v1/query",
        params={"query": "prometheus_tsdb_head_series"},
        timeout=30,
    )
    return float(answer.json()["data"]["result"][0]["value"][1])


def wait_for(good: Callable[[], bool]) -> None:
    """Ask until the answer is good; a refused connection is none."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            if good():
                return
        time.sleep(0.2)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def best(work: Callable[[], object]) -> float:
    """Shortest of some runs, in seconds: what disturbs a run only makes it longer."""
    return min(seconds(work) for _ in range(RUNS))


def restart(client: docker.DockerClient, workspace: Workspace, only: str = "") -> None:
    """Stop the containers, start them all at once, and wait until each is healthy."""
    chosen = [
        container
        for container in containers.of_environment(client, workspace.name)
        if not only or container.labels["samokoder.part"] == only
    ]
    for container in chosen:
        container.stop()
    for container in chosen:
        container.start()
    while not all(_healthy(container) for container in chosen):
        time.sleep(0.2)


def _healthy(container: Container) -> bool:
    """Whether the engine says so now, and not when it was listed."""
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


def empty_preview(run: PulumiRun) -> float:
    """How long a preview of a Python program that only imports Pulumi takes, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "Pulumi.yaml").write_text("name: empty\nruntime: python\n")
        (project / "__main__.py").write_text("import pulumi\n")
        name = f"e{secrets.token_hex(3)}"
        variables = {**run.variables, "PULUMI_STACK": name}
        empty = replace(run, folder=project, variables=variables)
        empty.pulumi("stack", "init", name, capture=True)
        try:
            empty.pulumi("up", "--yes", "--skip-preview", capture=True)
            return best(lambda: empty.pulumi("preview", capture=True))
        finally:
            empty.pulumi("stack", "rm", "--yes", "--force", capture=True)


if __name__ == "__main__":
    main()
