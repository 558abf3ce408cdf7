"""The environment's containers, as cAdvisor sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from stack.monitoring.alerts import (
    NEW_FOR,
    STORES,
    Alert,
    Group,
    Outlasts,
    Severity,
    Text,
    down_alert,
    number,
    share,
    unless_new,
)
from stack.monitoring.promql import memory
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.service import ServiceSpec

CADVISOR = "cadvisor"
UNSEEN_SECONDS = 60
"""A container that cAdvisor has not seen for longer is missing."""

alert = partial(Alert, dashboard="samokoder-containers")


def group(environment: Environment, parts: Sequence[ServiceSpec], waits: Mapping[str, str]) -> Group:
    """Return the rules. waits: name of each alert of the application -> its `for`."""
    jobs = Counter(part.job for part in parts if part.job)
    # A lost replica is only a warning, because the others serve its share; the job's own alert fires if all are lost.
    severities: dict[str, Severity] = {
        part.part: "warning" if jobs[part.job] > 1 else "critical" for part in sorted(parts, key=lambda part: part.part)
    }
    kept_back_by = {part.part: down_alert(part.job or part.part) for part in parts}
    missing = (
        _missing(part, f"{environment.prefix}-{part}", severity, _missing_wait(waits.get(kept_back_by[part], "1m")))
        for part, severity in severities.items()
    )
    # The parts are listed by name, because `staging-.+` also matches the containers of an environment called staging-2.
    ours = named(environment, severities)
    part = f'{{{{ reReplaceAll "^{environment.prefix}-" "" $labels.name }}}}'
    unhealthy = [
        _unhealthy(named(environment, names), part, severity, Outlasts.PROBES)
        for severity in sorted(set(severities.values()))
        if (names := [name for name, has in severities.items() if has == severity and name not in STORES])
    ]
    # A rule for each, because Prometheus wants the labels of two rules of one alert to differ.
    unhealthy += [
        _unhealthy(named(environment, [store]), store, severities[store], Outlasts.DEPENDENTS)
        for store in sorted(STORES & severities.keys())
    ]
    return Group(name="containers", rules=[*missing, *unhealthy, *_alerts(environment.settings.alerts, ours, part)])


def named(environment: Environment, parts: Iterable[str]) -> str:
    """Return the selector of some parts' containers."""
    return f'name=~"{environment.prefix}-({"|".join(parts)})"'


def _missing_wait(down: str) -> str:
    """Return the `for` of ContainerMissing: a minute more than that of the alert that inhibits it. down: that `for`.

    With UNSEEN_SECONDS this is more than three scrapes, by which the two alerts may start at different times. If
    ContainerMissing fired first, both would be sent, and its end never, because it would be inhibited by then.
    """
    wait = round(seconds(down)) + 60
    return f"{wait}s" if wait % 60 else f"{wait // 60}m"


def _missing(part: str, name: str, severity: Severity, wait: str) -> Alert:
    seen = f'container_last_seen{{name="{name}"}}'
    expression = f"(absent({seen}) or time() - max by (name) ({seen}) > {UNSEEN_SECONDS})"
    if part != CADVISOR:
        # Without cAdvisor there is no data on any container: only TargetDown and cAdvisor's ContainerMissing may fire.
        expression += f' unless on () up{{job="{CADVISOR}"}} == 0'
    expression += unless_new(f"present_over_time({seen}[{NEW_FOR}])")
    return alert(
        name="ContainerMissing",
        expression=expression,
        wait=wait,
        severity=severity,
        absence=True,
        service=part,
        outlasts=Outlasts.UNHEALTHY,
        summary=Text(en=f"container of {part} is missing", ru=f"нет контейнера {part}"),
        description=Text(
            en=f"cAdvisor does not see {name} on the engine.", ru=f"cAdvisor не видит {name} на Docker-хосте."
        ),
    )


def _unhealthy(ours: str, part: str, severity: Severity, outlasts: Outlasts) -> Alert:
    return alert(
        name="ContainerUnhealthy",
        # 1 is healthy, 0 unhealthy or starting, -1 without a health check.
        expression=f"max by (name) (container_health_state{{{ours}}}) == 0",
        wait="5m",
        severity=severity,
        service=part,
        outlasts=outlasts,
        summary=Text(en="{{ $labels.name }} is unhealthy", ru="{{ $labels.name }}: проверка здоровья не проходит"),
        description=Text(
            en="Its health check fails, or has not succeeded once since its start.",
            ru="Проверка завершается ошибкой или с момента запуска ни разу не прошла.",
        ),
    )


def _alerts(alerts: Alerts, ours: str, part: str) -> Iterator[Alert]:
    """Yield the alerts of which one rule serves all containers. ours: selector. part: template of the part's name."""
    # cAdvisor's samples have their own timestamps, so Prometheus writes no staleness markers: without this filter, a
    # window of 15 minutes would still include a container whose restart loop was ended by replacing it. 120 s is longer
    # than the engine's longest pause between two restarts, a minute.
    there = f"and on (id) time() - container_last_seen{{{ours}}} < 120"
    yield alert(
        name="ContainerRestartLoop",
        # A replaced container is a new series, so a deployment does not count as a restart.
        expression=f"sum by (name) (changes(container_start_time_seconds{{{ours}}}[15m]) {there}) > 2",
        wait="",
        severity="critical",
        service=part,
        summary=Text(
            en="{{ $labels.name }} restarts again and again", ru="{{ $labels.name }} постоянно перезапускается"
        ),
        description=Text(
            en='Restarts within 15 minutes: {{ printf "%.0f" $value }}.',
            ru='Перезапусков за 15 минут: {{ printf "%.0f" $value }}.',
        ),
    )
    yield alert(
        name="ContainerOomKilled",
        # Misses a kill if cAdvisor first sees the container after it (the series starts at 1), or if the container is
        # replaced (the series ends). HostOomKill sees every kill.
        expression=f"sum by (name) (increase(container_oom_events_total{{{ours}}}[10m]) {there}) > 0",
        wait="",
        severity="critical",
        service=part,
        summary=Text(
            en="the kernel killed a process of {{ $labels.name }}", ru="ядро завершило процесс в {{ $labels.name }}"
        ),
        description=Text(
            en='Within ten minutes: {{ printf "%.0f" $value }}; the container reached its memory limit.',
            ru='За десять минут: {{ printf "%.0f" $value }}; контейнер достиг своего лимита памяти.',
        ),
    )
    yield alert(
        name="ContainerMemoryNearLimit",
        expression=f"max by (name) ({memory(ours)} / (container_spec_memory_limit_bytes{{{ours}}} > 0)) "
        f"> {share(alerts.container_memory_percent)}",
        wait="5m",
        severity="warning",
        service=part,
        summary=Text(
            en="{{ $labels.name }} is near its memory limit", ru="{{ $labels.name }}: память почти достигла лимита"
        ),
        description=Text(
            en="It uses {{ $value | humanizePercentage }} of its limit, at 100% the kernel kills it; "
            f"the threshold is {number(alerts.container_memory_percent)}%.",
            ru="Занято {{ $value | humanizePercentage }} от лимита, при 100% ядро завершит процесс; "
            f"порог — {number(alerts.container_memory_percent)}%.",
        ),
    )
    yield alert(
        name="ContainerCpuThrottled",
        expression=f"sum by (name) (rate(container_cpu_cfs_throttled_periods_total{{{ours}}}[5m])) "
        f"/ (sum by (name) (rate(container_cpu_cfs_periods_total{{{ours}}}[5m])) > 0) "
        f"> {share(alerts.container_throttled_percent)}",
        wait="15m",
        severity="warning",
        service=part,
        summary=Text(
            en="{{ $labels.name }} is held back by its CPU limit", ru="{{ $labels.name }} упирается в лимит процессора"
        ),
        description=Text(
            en="In {{ $value | humanizePercentage }} of the periods it had to wait; "
            f"the threshold is {number(alerts.container_throttled_percent)}%.",
            ru="Ждал процессора в {{ $value | humanizePercentage }} периодов; "
            f"порог — {number(alerts.container_throttled_percent)}%.",
        ),
    )
