"""How the costs grow with the replicas of the API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import docker

from bench import monitoring
from bench.report import Measurement
from host.progress import Reporter
from operations.engine import containers
from operations.lifecycle.prepare import prepare
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL

REPLICAS = (2, 4, 8, 16)
# Sixteen replicas with the usual limit would need more memory than small machines have.
_MEMORY_MIB = 192


@dataclass(frozen=True, kw_only=True)
class Point:
    """What so many replicas cost: seconds, MiB and series."""

    replicas: int
    up: float
    """From the size before to this one."""
    added: int
    preview: float
    deploy: float
    """Replaces every replica, one after the other."""
    mib: float
    series: float


def points(
    client: docker.DockerClient, workspace: Workspace, reporter: Reporter, until: float
) -> tuple[list[Point], str]:
    """Return a point for each size, and why the larger ones are missing; empty where none is.

    until: no size is begun after it, by the clock of `time.monotonic`. A size that fails ends the curve, not the bench.
    """
    found: list[Point] = []
    there = 0
    for replicas in REPLICAS:
        # The sizes double, and so do their times.
        last = 2 * (found[-1].up + found[-1].deploy + found[-1].preview) if found else 0.0
        if time.monotonic() + last > until:
            return found, f"{replicas} replicas were not begun: not enough time was left"
        try:
            found.append(_point(client, workspace, reporter, replicas, replicas - there))
        except Exception as error:
            return found, f"{replicas} replicas: {type(error).__name__}: {error}"
        there = replicas
    return found, ""


def _point(client: docker.DockerClient, workspace: Workspace, reporter: Reporter, replicas: int, added: int) -> Point:
    up = _timed(lambda: bring_up(_sized(workspace, replicas), interactive=False))
    run = prepare(_sized(workspace, replicas), images=False)
    preview = _timed(lambda: run.pulumi("preview", "--suppress-outputs", "--expect-no-changes", capture=True))
    # A variable that nobody reads replaces each replica, as a new version does.
    changed = _sized(workspace, replicas, {"BENCH": str(replicas)})
    deploy = _timed(lambda: bring_up(changed, interactive=False))
    wanted = monitoring.parts(workspace.settings())
    used = monitoring.usages(
        [each for each in containers.of_environment(client, workspace.name) if each.labels[PART_LABEL] in wanted]
    )
    point = Point(
        replicas=replicas,
        added=added,
        up=up,
        preview=preview,
        deploy=deploy,
        mib=sum(each.mib for each in used),
        series=monitoring.active_series(workspace),
    )
    reporter.say(f"{replicas} replicas: up {up:.1f} s, preview {preview:.1f} s, deploy {deploy:.1f} s")
    return point


def _sized(workspace: Workspace, replicas: int, variables: dict[str, str] | None = None) -> Workspace:
    api = {
        **workspace.extra_config.get("samokoder:api", {}),
        "replicas": replicas,
        "memoryMib": _MEMORY_MIB,
        **({"environment": variables} if variables else {}),
    }
    return replace(workspace, extra_config={**workspace.extra_config, "samokoder:api": api})


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def rows(found: Sequence[Point]) -> list[Measurement]:
    """Return the rows of the curve: each figure beside that of the smallest size; deploys for each replica.

    A deploy grows linearly where its ratio stays at 1. The others may grow with the replicas.
    """
    return list(_rows(found))


def _rows(found: Sequence[Point]) -> Iterator[Measurement]:
    if len(found) < 2:  # noqa: PLR2004 - the first point is what the others stand beside
        return
    first = found[0]
    for point in found[1:]:
        more = point.replicas - first.replicas
        told = f"with {point.replicas} replicas"
        beside = f"{first.replicas} replicas"
        for what, here, there, unit in (
            ("rolling deploy, a replica", point.deploy / point.replicas, first.deploy / first.replicas, "s"),
            ("preview", point.preview, first.preview, "s"),
            ("memory of the monitoring", point.mib, first.mib, "MiB"),
            ("series", point.series, first.series, "series"),
        ):
            yield Measurement(what=f"{what} {told}", measured=here, beside=beside, beside_measured=there, unit=unit)
        yield Measurement(
            what=f"up that adds {point.added}",
            measured=point.up,
            beside=f"a deploy of as many, at the pace of {beside}",
            beside_measured=first.deploy / first.replicas * point.added,
        )
        yield Measurement(
            what=f"series for a replica more, {told}",
            measured=(point.series - first.series) / more,
            beside=f"all with {beside}",
            beside_measured=first.series,
            unit="series",
        )
