"""Measures one environment of its own and prints a table; writes `bench/results.json`.

Every figure is set beside something measured in the same run, because seconds alone say more of the machine than of
the program: `up` beside Docker Compose with the same containers, a preview beside an empty program's, cAdvisor beside
itself with its defaults. Where the goal is a limit, it stands beside that. It measures and does not judge: the exit
status is 0 although a goal is not met.
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

from bench import compose, ingress, monitoring, report
from bench.llm import IN_FLIGHT, throughput
from bench.own_ports import own_ports
from bench.report import Measurement
from host.progress import Reporter
from operations.checks.smoke.smoke import smoke
from operations.engine import containers
from operations.lifecycle.down import destroy_data
from operations.lifecycle.prepare import prepare
from operations.lifecycle.up import bring_up
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace

RESULTS = Path(__file__).with_name("results.json")
RUNS = 5
# Each brings everything up twice and takes it away again.
COLD_RUNS = 2

UP_RATIO = 1.3
PREVIEW_RATIO = 1.5
MONITORING_MIB = 400.0
MONITORING_PERCENT = 10.0
SMOKE_SECONDS = 5.0
INGRESS_RATIO = 0.9
LLM_RATIO = 15.0


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
            rows = measure(workspace, reporter)
        finally:
            destroy_data(workspace, interactive=False)
    RESULTS.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    report.show(Console(), rows)


def measure(workspace: Workspace, reporter: Reporter) -> list[Measurement]:
    """Return a row for each measurement."""
    run = prepare(workspace)
    client = workspace.client()
    try:
        rows = [
            cold_up(client, workspace, reporter),
            preview(run),
            smoke_test(workspace),
            *idle(client, workspace, reporter),
            *one_part(client, workspace),
        ]
        cadvisor, defaults = monitoring.cadvisor(client, workspace, reporter)
        reporter.say("measuring the ingress")
        through, direct = ingress.measure(client, workspace, reporter)
    finally:
        client.close()
    reporter.say("measuring the LLM gateway")
    llm = throughput()
    return [
        *rows,
        Measurement(
            what="cAdvisor's CPU",
            measured=100 * cadvisor,
            beside="the same program with its defaults",
            beside_measured=100 * defaults,
            unit="% of a core",
        ),
        Measurement(
            what="requests through the ingress",
            measured=through.per_second,
            beside="the API directly",
            beside_measured=direct.per_second,
            unit="requests/s",
            at_least=INGRESS_RATIO,
        ),
        Measurement(
            what="99 of 100 of them within",
            measured=1000 * through.p99,
            beside="the API directly",
            beside_measured=1000 * direct.p99,
            unit="ms",
        ),
        Measurement(
            what=f"LLM, {IN_FLIGHT} in flight",
            measured=llm.asynchronous,
            beside="one after the other",
            beside_measured=llm.sequential,
            unit="requests/s",
            at_least=LLM_RATIO,
        ),
        Measurement(
            what="memory of that worker, at its most",
            measured=llm.memory_most,
            beside="before it asks",
            beside_measured=llm.memory_before,
            unit="MiB",
        ),
    ]


def cold_up(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> Measurement:
    """Time `up` where nothing of the environment is there but its images, and Docker Compose in turn with it."""
    # The first one makes the images, which is no part of a start.
    bring_up(workspace, interactive=False)
    composed, own = [], []
    for _ in range(COLD_RUNS):
        composed.append(compose.measure(client, workspace, reporter))
        destroy_data(workspace, interactive=False)
        own.append(seconds(lambda: bring_up(workspace, interactive=False)))
        reporter.say(f"up {own[-1]:.1f} s, Docker Compose {composed[-1].seconds:.1f} s")
    return Measurement(
        what="up from nothing, images there, to all healthy",
        measured=min(own),
        beside=composed[0].how,
        beside_measured=min(each.seconds for each in composed),
        at_most=UP_RATIO,
    )


def preview(run: PulumiRun) -> Measurement:
    """Time a preview that finds nothing to do."""
    return Measurement(
        what="preview without a change",
        measured=best(lambda: run.pulumi("preview", "--suppress-outputs", "--expect-no-changes", capture=True)),
        beside="preview of an empty program",
        beside_measured=empty_preview(run),
        at_most=PREVIEW_RATIO,
    )


def smoke_test(workspace: Workspace) -> Measurement:
    """Time the smoke test once: it registers an account, of which the API allows few in a minute."""
    begun = time.monotonic()
    said = smoke(workspace)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in said.counts.items())
    return Measurement(
        what=f"smoke test ({counts})",
        measured=time.monotonic() - begun,
        beside="its limit",
        beside_measured=SMOKE_SECONDS,
        at_most=1,
    )


def idle(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> list[Measurement]:
    """Measure what the monitoring takes while nobody uses the service."""
    used = monitoring.idle(client, workspace, reporter)
    environment = workspace.settings()
    count = len(monitoring.parts(environment))
    return [
        Measurement(
            what=f"memory of the {count} monitoring parts at idle",
            measured=used.mib,
            beside="their limit together",
            beside_measured=MONITORING_MIB,
            unit="MiB",
            at_most=1,
        ),
        Measurement(
            what=f"CPU of the {count} monitoring parts at idle",
            measured=100 * used.cpu,
            beside="their limit together",
            beside_measured=MONITORING_PERCENT,
            unit="% of a core",
            at_most=1,
        ),
        Measurement(
            what="active series at idle",
            measured=monitoring.active_series(workspace),
            beside="their budget",
            beside_measured=environment.settings.alerts.prometheus_series,
            unit="series",
            at_most=1,
        ),
    ]


def one_part(client: docker.DockerClient, workspace: Workspace) -> list[Measurement]:
    """Change one part: how long that takes, and which other containers are not the same ones after it."""
    part = "prometheus"
    before = containers.ids(client, workspace.name)
    key = f"samokoder:{part}"
    changed = {**workspace.extra_config, key: {**workspace.extra_config[key], "scrapeInterval": "20s"}}
    took = seconds(lambda: bring_up(replace(workspace, extra_config=changed), interactive=False))
    after = containers.ids(client, workspace.name)
    if before[part] == after[part]:
        raise RuntimeError(f"the change of {part} changed nothing: its container is the same")
    others = sorted(each for each in before if each != part and before[each] != after.get(each))
    return [
        Measurement(
            what=f"change of one part ({part})",
            measured=took,
            beside="the engine restarts that part",
            beside_measured=seconds(lambda: restart(client, workspace, part)),
        ),
        Measurement(
            what="other containers that it touched" + (f": {', '.join(others)}" if others else ""),
            measured=len(others),
            beside="containers there",
            beside_measured=len(before),
            unit="containers",
            at_most=0,
        ),
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def best(work: Callable[[], object]) -> float:
    """Shortest of some runs, in seconds: what disturbs a run only makes it longer."""
    return min(seconds(work) for _ in range(RUNS))


def restart(client: docker.DockerClient, workspace: Workspace, part: str) -> None:
    """Stop a part's container, start it, and wait until it is healthy."""
    container = containers.find(client, workspace.settings(), part)
    container.stop()
    container.start()

    def now() -> list[Container]:
        container.reload()
        return [container]

    compose.wait_healthy(now, 1)


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
