"""The containers' alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.described import specs
from tests.render.rule_cases.model import Case, Fires, Series, grows, pair, stays

# Seen every minute.
SEEN = "0+60x60"


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from _missing(environment)
    yield from _health(environment)
    yield from _limits(environment)


def _missing(environment: Environment) -> Iterator[Case]:
    parts = [spec.part for spec in specs(environment)]
    replicas = set(environment.parts_of("api"))

    def series(part: str, container: str = "1") -> str:
        return f'container_last_seen{{name="{environment.prefix}-{part}",id="/{container}"}}'

    # Its value is the time of the sample, in seconds.
    seen = {series(part): "0+60x20" for part in parts} | {'up{job="cadvisor",instance="cadvisor:8080"}': stays(1)}

    def missing(part: str) -> Fires:
        return Fires(
            labels={
                "name": f"{environment.prefix}-{part}",
                "service": part,
                "severity": "warning" if part in replicas else "critical",
            },
            summary=f"container of {part} is missing",
            description=f"cAdvisor does not see {environment.prefix}-{part} on the engine.",
        )

    def case(title: str, world: Series, minute: int, *fires: Fires) -> Case:
        return Case(alert="ContainerMissing", title=title, series=world, minute=minute, fires=fires)

    yield case("every container is there", seen, 20)
    for part in parts:
        never = {name: values for name, values in seen.items() if name != series(part)}
        yield case(f"{part} was never there", never, 20, missing(part))
        yield case(f"a first up has not made {part} yet", never, 14)
        yield case(f"{part} was last seen at minute 5", seen | {series(part): "0+60x5 300+0x15"}, 11, missing(part))
    yield case(
        "api-1 was replaced within a minute",
        seen | {series("api-1"): "0+60x5 300 _x14", series("api-1", "2"): "_x7 420+60x13"},
        9,
    )
    yield case(
        "what cAdvisor still says of the replaced one",
        seen | {series("api-1"): "0+60x5 300+0x14", series("api-1", "2"): "_x7 420+60x13"},
        15,
    )
    yield case(
        "another environment's api-1 is not there",
        seen | {f'container_last_seen{{name="{environment.prefix}-2-api-1",id="/other"}}': "0+0x20"},
        20,
    )
    yield case(
        "cAdvisor is gone: one alert says it",
        {'up{job="cadvisor",instance="cadvisor:8080"}': stays(0)},
        22,
        missing("cadvisor"),
    )


def _health(environment: Environment) -> Iterator[Case]:
    api, other = f'{{name="{environment.prefix}-api-1",id="/1"}}', f'{{name="{environment.prefix}-2-api-1",id="/2"}}'
    name = f"{environment.prefix}-api-1"
    labels = {"name": name, "service": "api-1", "severity": "critical"}
    seen = "container_last_seen"
    # Everything that speaks of one container speaks of none of the environment whose name begins with this one's.
    for alert, metric, values, minute, summary, description in (
        (
            "ContainerUnhealthy",
            "container_health_state",
            "1 0+0x59",
            7,
            f"{name} is unhealthy",
            "Its health check fails, or has not succeeded once since its start.",
        ),
        (
            "ContainerRestartLoop",
            "container_start_time_seconds",
            "100+0x2 300 _ 420 540 _ 660+0x30",
            10,
            f"{name} restarts again and again",
            "Restarts within 15 minutes: 4.",
        ),
        (
            "ContainerOomKilled",
            "container_oom_events_total",
            grows(1),
            15,
            f"the kernel killed a process of {name}",
            "Within ten minutes: 10; the container reached its memory limit.",
        ),
    ):
        yield from pair(
            alert,
            titles=("in this environment", "in another environment"),
            fires={metric + api: values, seen + api: SEEN},
            silent={metric + other: values, seen + other: SEEN},
            minute=minute,
            # A sick replica of several wakes nobody; one that ends again and again may take the others with it.
            labels=labels | ({"severity": "warning"} if alert == "ContainerUnhealthy" else {}),
            summary=summary,
            description=description,
        )
    health, started, killed = (
        metric + api
        for metric in ("container_health_state", "container_start_time_seconds", "container_oom_events_total")
    )
    for part in ["worker", *(part for part in ("postgres", "redis") if part not in environment.absent)]:
        yield Case(
            alert="ContainerUnhealthy",
            title=f"what there is only one of: {part}",
            series={f'container_health_state{{name="{environment.prefix}-{part}",id="/1"}}': "1 0+0x59"},
            minute=7,
            fires=(
                Fires(
                    labels={"name": f"{environment.prefix}-{part}", "service": part, "severity": "critical"},
                    summary=f"{environment.prefix}-{part} is unhealthy",
                    description="Its health check fails, or has not succeeded once since its start.",
                ),
            ),
        )
    yield Case(alert="ContainerUnhealthy", title="it starts", series={health: "0+0x3 1+0x15"}, minute=9)
    yield Case(alert="ContainerUnhealthy", title="without a health check", series={health: stays(-1)}, minute=9)
    there = {seen + api: SEEN}
    # It stays for 4 minutes after it is over, and at minute 18 it would still fire if nobody saw that it is.
    gone = {seen + api: "0+60x10 _x20"}
    yield Case(alert="ContainerRestartLoop", title="two restarts", series=there | {started: "1x5 2x5 3x9"}, minute=14)
    yield Case(
        alert="ContainerRestartLoop",
        title="another container took its place",
        series=gone | {started: "1 2 3 4 5x6 _x20"},
        minute=18,
    )
    yield Case(
        alert="ContainerOomKilled",
        title="another container took its place",
        series=gone | {killed: "0x6 1 2 3x1 _x20"},
        minute=18,
    )
    deployed = {f'container_start_time_seconds{{name="{name}",id="/{n}"}}': "_ " * n + f"{n}+0x20" for n in range(1, 5)}
    deployed |= {f'{seen}{{name="{name}",id="/{n}"}}': "_ " * n + f"{n * 60}+60x20" for n in range(1, 5)}
    yield Case(alert="ContainerRestartLoop", title="four deployments", series=deployed, minute=10)
    yield Case(alert="ContainerOomKilled", title="long ago", series=there | {killed: stays(3)}, minute=15)
    yield Case(
        alert="ContainerOomKilled",
        title="first seen after the kill: its blind spot, HostOomKill sees it",
        series=there | {killed: "_x2 1+0x20"},
        minute=6,
    )


def _limits(environment: Environment) -> Iterator[Case]:
    name = f"{environment.prefix}-worker"
    labels = {"name": name, "service": "worker", "severity": "warning"}
    where = f'{{name="{name}",id="/1"}}'

    def memory(used: int, limit: int, files: int = 3) -> Series:
        return {
            f"container_memory_working_set_bytes{where}": stays(used + files),
            f"container_memory_total_active_file_bytes{where}": stays(files),
            f"container_spec_memory_limit_bytes{where}": stays(limit),
        }

    yield from pair(
        "ContainerMemoryNearLimit",
        fires=memory(95, 100),
        silent=memory(90, 100),
        minute=8,
        labels=labels,
        summary=f"{name} is near its memory limit",
        description="It uses 95% of its limit, at 100% the kernel kills it; the threshold is 90%.",
    )
    yield Case(
        alert="ContainerMemoryNearLimit",
        title="full of files' pages, which the kernel gives back, as of a database that is read",
        series=memory(30, 100, files=70),
        minute=8,
    )
    yield Case(alert="ContainerMemoryNearLimit", title="no limit", series=memory(95, 0), minute=8)

    def processor(throttled: int) -> Series:
        return {
            f"container_cpu_cfs_throttled_periods_total{where}": grows(throttled),
            f"container_cpu_cfs_periods_total{where}": grows(100),
        }

    yield from pair(
        "ContainerCpuThrottled",
        fires=processor(50),
        silent=processor(25),
        minute=25,
        labels=labels,
        summary=f"{name} is held back by its CPU limit",
        description="In 50% of the periods it had to wait; the threshold is 25%.",
    )
    idle = dict.fromkeys(processor(0), stays(5))
    yield Case(alert="ContainerCpuThrottled", title="it does nothing", series=idle, minute=25)
