"""The environment's containers, as cAdvisor sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Severity, Text, down_alert, number, share
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.service import ServiceSpec

CADVISOR = "cadvisor"
UNSEEN_SECONDS = 60
"""A container that cAdvisor has not seen for longer is missing."""

alert = partial(Alert, dashboard="samokoder-containers")


def group(environment: Environment, parts: Sequence[ServiceSpec], waits: Mapping[str, str]) -> Group:
    """Return the rules. waits: how long each alert of the application waits, by its name."""
    jobs = Counter(part.job for part in parts if part.job)
    # A lost replica is a warning, for the others carry its share; the job's own alert fires when all are lost.
    severities: dict[str, Severity] = {
        part.part: "warning" if jobs[part.job] > 1 else "critical" for part in sorted(parts, key=lambda part: part.part)
    }
    kept_back_by = {part.part: down_alert(part.job or part.part) for part in parts}
    missing = (
        _missing(part, f"{environment.prefix}-{part}", severity, _missing_wait(waits.get(kept_back_by[part], "1m")))
        for part, severity in severities.items()
    )
    # The parts by name: `staging-.+` would match the containers of an environment called staging-2 as well.
    ours = named(environment, severities)
    part = f'{{{{ reReplaceAll "^{environment.prefix}-" "" $labels.name }}}}'
    unhealthy = (
        _unhealthy(named(environment, names), part, severity)
        for severity in sorted(set(severities.values()))
        if (names := [name for name, has in severities.items() if has == severity])
    )
    return Group(name="containers", rules=[*missing, *unhealthy, *_alerts(environment.settings.alerts, ours, part)])


def named(environment: Environment, parts: Iterable[str]) -> str:
    """Return the selector of some parts' containers."""
    return f'name=~"{environment.prefix}-({"|".join(parts)})"'


def _missing_wait(down: str) -> str:
    """Return how long a container is missing before that is told. down: so long waits what keeps it back.

    A minute longer: with the minute that it is unseen before, that is more than three scrapes, by which the two may
    notice at other times. Were it told first, both would be sent, and its end never: it is kept back then.
    """
    wait = round(seconds(down)) + 60
    return f"{wait}s" if wait % 60 else f"{wait // 60}m"


def _missing(part: str, name: str, severity: Severity, wait: str) -> Alert:
    seen = f'container_last_seen{{name="{name}"}}'
    expression = f"absent({seen}) or time() - max by (name) ({seen}) > {UNSEEN_SECONDS}"
    if part != CADVISOR:
        # Without cAdvisor there is no data on any container: TargetDown and its own ContainerMissing fire alone.
        expression = f'({expression}) unless on () up{{job="{CADVISOR}"}} == 0'
    return alert(
        name="ContainerMissing",
        expression=expression,
        wait=wait,
        severity=severity,
        service=part,
        summary=Text(en=f"container of {part} is missing", ru=f"нет контейнера {part}"),
        description=Text(
            en=f"cAdvisor does not see {name} on the engine.", ru=f"cAdvisor не видит {name} на Docker-хосте."
        ),
    )


def _unhealthy(ours: str, part: str, severity: Severity) -> Alert:
    return alert(
        name="ContainerUnhealthy",
        # 1 is healthy, 0 unhealthy or starting, -1 without a health check.
        expression=f"max by (name) (container_health_state{{{ours}}}) == 0",
        wait="5m",
        severity=severity,
        service=part,
        summary=Text(en="{{ $labels.name }} is unhealthy", ru="{{ $labels.name }}: проверка здоровья не проходит"),
        description=Text(
            en="Its health check fails, or has not succeeded once since its start.",
            ru="Проверка завершается ошибкой или с момента запуска ни разу не прошла.",
        ),
    )


def _alerts(alerts: Alerts, ours: str, part: str) -> Iterator[Alert]:
    """Yield the alerts that one rule has for all. ours: selects the containers; part: makes a part of the name."""
    # cAdvisor's samples have times of their own, so Prometheus never marks a series as ended: for a quarter of an hour
    # a window would still speak of a container that was replaced, which is how a loop is mended. Longer than the
    # engine's longest pause between two starts, a minute.
    there = f"and on (id) time() - container_last_seen{{{ours}}} < 120"
    yield alert(
        name="ContainerRestartLoop",
        # One that was replaced is another container and another series: a deployment is no restart.
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
        # Blind where cAdvisor sees the container for the first time after the kill, and when it is replaced: the
        # series is then born at 1, or gone. HostOomKill sees every kill.
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
        expression=f"max by (name) (container_memory_working_set_bytes{{{ours}}} "
        f"/ (container_spec_memory_limit_bytes{{{ours}}} > 0)) > {share(alerts.container_memory_percent)}",
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
