"""Measures one environment of its own and prints a table; writes `bench/results.json`.

Every speed is set beside something measured in the same run, because seconds alone say more of the machine than of
the program: `up` beside the engine starting the same containers again, a preview beside an empty program's.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docker
from docker.models.containers import Container
from rich.console import Console
from rich.table import Table

from offline.progress import Reporter
from operations import containers, lifecycle
from operations.ports import own_ports
from operations.project import PulumiRun, Workspace

RESULTS = Path(__file__).with_name("results.json")
RUNS = 5


def main() -> None:
    """Run every measurement and show it."""
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(
            stack=f"b{secrets.token_hex(3)}", home=Path(folder), isolated=True, extra_config=own_ports()
        )
        try:
            results = measure(workspace, reporter)
        finally:
            lifecycle.destroy_data(workspace, interactive=False)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    table = Table("What", "Seconds", "Beside", "Seconds", "Ratio")
    for row in results:
        numbers = [f"{row[key]:.2f}" for key in ("seconds", "baseline_seconds", "ratio")]
        table.add_row(str(row["what"]), numbers[0], str(row["baseline"]), numbers[1], numbers[2])
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
    finally:
        client.close()
    return [
        row("up, images there, to all healthy", up, "the engine starts the same containers at once", engine),
        row("preview without a change", preview, "preview of an empty program", empty),
        row(f"change of one part (touched: {', '.join(touched)})", change, "the engine restarts that part", alone),
    ]


def row(what: str, measured: float, baseline: str, baseline_seconds: float) -> dict[str, object]:
    """One line of the table."""
    return {
        "what": what,
        "seconds": measured,
        "baseline": baseline,
        "baseline_seconds": baseline_seconds,
        "ratio": measured / baseline_seconds,
    }


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
