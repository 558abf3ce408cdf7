"""Measures one environment of its own and prints a table; writes `bench/results.json` after each step.

Every figure is set beside something measured in the same run, because seconds alone say more of the machine than of
the program: `up` beside Docker Compose with the same containers, a preview beside the same resources declared flat,
cAdvisor beside itself with its defaults. Where the goal is a limit, it stands beside that. It measures and does not
judge: the exit status is 0 although a goal is not met. What cannot be measured is named, and the rest goes on.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import docker
from docker.models.containers import Container
from rich.console import Console

from bench import compose, critical_path, flat, ingress, monitoring, report, scale
from bench.llm import IN_FLIGHT, throughput
from bench.own_ports import own_ports
from bench.report import Measurement, Results, Sample
from host.progress import Reporter
from operations.checks.smoke.smoke import smoke
from operations.engine import containers
from operations.lifecycle.down import destroy_data
from operations.lifecycle.prepare import prepare
from operations.lifecycle.up import bring_up
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.catalogue import specs

RESULTS = Path(__file__).with_name("results.json")
LIMIT_SECONDS = 25 * 60.0
RUNS = 5

UP_RATIO = 1.15
PREVIEW_RATIO = 1.3
ONE_PART_SECONDS = 8.0
MONITORING_MIB = 400.0
MONITORING_PERCENT = 10.0
SMOKE_SECONDS = 5.0
INGRESS_RATIO = 0.95
INGRESS_P99_MS = 5.0
LLM_RATIO = 15.0


def main() -> None:
    """Run every measurement and show what there is, also after one that failed or an interruption."""
    reporter = Reporter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(
            stack=f"b{secrets.token_hex(3)}",
            home=Path(folder),
            isolated=True,
            # A replica waits on purpose before the next one; that is no measure of the program.
            extra_config={**own_ports(), "samokoder:api": {"stableSeconds": 0}},
        )
        results = Results(
            file=RESULTS,
            say=reporter.say,
            seconds=LIMIT_SECONDS,
            mend=lambda: bring_up(workspace, interactive=False),
        )
        # Nobody takes the figures of an earlier run for this one's.
        results.write()
        try:
            measure(workspace, reporter, results)
        finally:
            try:
                destroy_data(workspace, interactive=False)
            finally:
                report.show(Console(), results)


def measure(workspace: Workspace, reporter: Reporter, results: Results) -> None:
    """Take every measurement, those first that the others need least time for."""
    # The first one makes the images, which is no part of a start. Without it there is nothing to measure.
    bring_up(workspace, interactive=False)
    run = prepare(workspace)
    client = workspace.client()
    try:
        results.step("up", lambda: cold_up(client, workspace, reporter))
        results.step("the preview", lambda: preview(run))
        results.step("the smoke test", lambda: smoke_test(workspace))
        results.step("the monitoring at idle", lambda: idle(client, workspace, reporter))
        results.step("a change of one part", lambda: one_part(client, workspace))
        results.step("cAdvisor", lambda: cadvisor(client, workspace, reporter))
        results.step("the ingress", lambda: through_ingress(client, workspace, reporter))
        results.step("the LLM gateway", llm)
        results.step("the curve of replicas", lambda: curve(client, workspace, reporter, results))
    finally:
        client.close()


def cold_up(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> list[Measurement]:
    """Time `up` where nothing of the environment is there but its images, and Docker Compose in turn with it."""
    composed, own = [], []
    after = {spec.part: spec.after for spec in specs(workspace.settings())}
    path: list[critical_path.PathStep] = []
    for _ in range(RUNS):
        composed.append(compose.measure(client, workspace, reporter))
        destroy_data(workspace, interactive=False)
        with critical_path.watched(client, workspace.name) as watch:
            begun = time.time()
            own.append(seconds(lambda: bring_up(workspace, interactive=False)))
        if own[-1] == min(own):
            # What disturbs a run only makes it longer.
            path = watch.path(after, begun)
        reporter.say(f"up {own[-1]:.1f} s, Docker Compose {composed[-1].seconds:.1f} s")
    return [
        Measurement(
            what="up from nothing, images there, to all healthy",
            measured=Sample.of(own),
            beside=composed[0].how,
            beside_measured=Sample.of([each.seconds for each in composed]),
            at_most=UP_RATIO,
        ),
        *(
            Measurement(
                what=f"critical path {number}: {step}",
                measured=step.until_started + step.until_healthy,
                beside="the shortest up",
                beside_measured=min(own),
            )
            for number, step in enumerate(path, 1)
        ),
    ]


def preview(run: PulumiRun) -> list[Measurement]:
    """Time a preview that finds nothing to do, in turn with the same resources flat and with an empty program."""
    with flat_program(run) as (floor, count), empty_program(run) as empty:
        turns = [[seconds(partial(without_change, each)) for each in (run, floor, empty)] for _ in range(RUNS)]
    own, flatly, nothing = map(Sample.of, zip(*turns, strict=True))
    return [
        Measurement(
            what="preview without a change",
            measured=own,
            beside=f"the same {count} resources, flat",
            beside_measured=flatly,
            at_most=PREVIEW_RATIO,
        ),
        Measurement(
            what="the same preview", measured=own, beside="preview of an empty program", beside_measured=nothing
        ),
    ]


def without_change(run: PulumiRun) -> None:
    """Preview. Raises PulumiFailedError where anything would change, because that measures something else."""
    run.pulumi("preview", "--suppress-outputs", "--expect-no-changes", capture=True)


def smoke_test(workspace: Workspace) -> list[Measurement]:
    """Time the smoke test once: it registers an account, of which the API allows few in a minute."""
    begun = time.monotonic()
    said = smoke(workspace)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in said.counts.items())
    return [
        Measurement(
            what=f"smoke test ({counts})",
            measured=time.monotonic() - begun,
            beside="its limit",
            beside_measured=SMOKE_SECONDS,
            at_most=1,
        )
    ]


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
    key = f"samokoder:{part}"
    count = len(containers.ids(client, workspace.name))
    took: list[float] = []
    restarted: list[float] = []
    others: set[str] = set()
    # In turn, so that each run changes something; the last one leaves what the next measurements expect.
    for interval in ("20s", None) * (RUNS // 2 + 1):
        before = containers.ids(client, workspace.name)
        part_config = {**workspace.extra_config[key], **({"scrapeInterval": interval} if interval else {})}
        changed = replace(workspace, extra_config={**workspace.extra_config, key: part_config})
        took.append(seconds(partial(bring_up, changed, interactive=False)))
        after = containers.ids(client, workspace.name)
        if before[part] == after[part]:
            raise RuntimeError(f"the change of {part} changed nothing: its container is the same")
        others |= {each for each in before if each != part and before[each] != after.get(each)}
        restarted.append(seconds(lambda: restart(client, workspace, part)))
    return [
        Measurement(
            what=f"change of one part ({part})",
            measured=Sample.of(took),
            beside="its limit",
            beside_measured=ONE_PART_SECONDS,
            at_most=1,
        ),
        Measurement(
            what="the same change",
            measured=Sample.of(took),
            beside="the engine restarts that part",
            beside_measured=Sample.of(restarted),
        ),
        Measurement(
            what="other containers that it touched" + (f": {', '.join(sorted(others))}" if others else ""),
            measured=len(others),
            beside="containers there",
            beside_measured=count,
            unit="containers",
            at_most=0,
        ),
    ]


def cadvisor(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> list[Measurement]:
    """Measure cAdvisor beside itself with its defaults."""
    ours, defaults = monitoring.cadvisor(client, workspace, reporter)
    return [
        Measurement(
            what="cAdvisor's CPU",
            measured=100 * ours,
            beside="the same program with its defaults",
            beside_measured=100 * defaults,
            unit="% of a core",
        )
    ]


def through_ingress(client: docker.DockerClient, workspace: Workspace, reporter: Reporter) -> list[Measurement]:
    """Measure what the ingress costs."""
    through, direct = ingress.measure(client, workspace, reporter)
    p99 = [[1000 * each.p99 for each in speeds] for speeds in (through, direct)]
    # In one turn both met the same machine.
    later = [mine - its for mine, its in zip(*p99, strict=True)]
    return [
        Measurement(
            what="requests through the ingress",
            measured=Sample.of([each.per_second for each in through]),
            beside="the API directly",
            beside_measured=Sample.of([each.per_second for each in direct]),
            unit="requests/s",
            at_least=INGRESS_RATIO,
        ),
        Measurement(
            what="99 of 100 of them within",
            measured=Sample.of(p99[0]),
            beside="the API directly",
            beside_measured=Sample.of(p99[1]),
            unit="ms",
        ),
        Measurement(
            what="99 of 100 of them later than directly by",
            measured=Sample.of(later),
            beside="their limit",
            beside_measured=INGRESS_P99_MS,
            unit="ms",
            at_most=1,
        ),
    ]


def llm() -> list[Measurement]:
    """Measure the LLM gateway."""
    measured = throughput()
    return [
        Measurement(
            what=f"LLM, {IN_FLIGHT} in flight",
            measured=measured.asynchronous,
            beside="one after the other",
            beside_measured=measured.sequential,
            unit="requests/s",
            at_least=LLM_RATIO,
        ),
        Measurement(
            what="memory of that worker, at its most",
            measured=measured.memory_most,
            beside="before it asks",
            beside_measured=measured.memory_before,
            unit="MiB",
        ),
    ]


def curve(
    client: docker.DockerClient, workspace: Workspace, reporter: Reporter, results: Results
) -> Sequence[Measurement]:
    """Measure 2, 4, 8 and 16 replicas, as far as the time lasts."""
    points, why = scale.points(client, workspace, reporter, time.monotonic() + results.left)
    if why:
        results.failed["the whole curve"] = why
    return scale.rows(points)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, in seconds."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def restart(client: docker.DockerClient, workspace: Workspace, part: str) -> None:
    """Stop a part's container, start it, and wait until it is healthy."""
    container = containers.find(client, workspace.settings(), part)
    container.stop()
    container.start()

    def now() -> list[Container]:
        container.reload()
        return [container]

    compose.wait_healthy(now, 1)


@contextmanager
def empty_program(run: PulumiRun) -> Iterator[PulumiRun]:
    """Give a stack of a Python program that only imports Pulumi, and forget it again."""
    # In a folder that only we can read: `flat_program` puts the environment's secrets there.
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "Pulumi.yaml").write_text(f"name: {flat.PROJECT}\nruntime: python\n", encoding="utf-8")
        (project / "__main__.py").write_text("import pulumi\n", encoding="utf-8")
        name = f"e{secrets.token_hex(3)}"
        made = replace(run, stack=name, folder=project, variables={**run.variables, "PULUMI_STACK": name})
        made.pulumi("stack", "init", name, capture=True)
        try:
            made.pulumi("up", "--yes", "--skip-preview", capture=True)
            yield made
        finally:
            # Only from the state: what the flat program has in it belongs to the environment.
            made.pulumi("stack", "rm", "--yes", "--force", capture=True)


@contextmanager
def flat_program(run: PulumiRun) -> Iterator[tuple[PulumiRun, int]]:
    """Give a stack of a program that declares the environment's resources flat, and how many they are."""
    deployment = run.in_plain()
    with empty_program(run) as floor:
        own = json.loads(floor.pulumi("stack", "export", capture=True).stdout)["deployment"]
        count = flat.write_program(deployment, floor.folder)
        file = floor.folder / "state.json"
        file.write_text(json.dumps(flat.state(deployment, floor.stack, own)), encoding="utf-8")
        floor.pulumi("stack", "import", "--file", str(file), capture=True)
        yield floor, count


if __name__ == "__main__":
    main()
