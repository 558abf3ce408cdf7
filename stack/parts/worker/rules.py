"""Alerts on the worker and its queue in Redis, from the worker's own metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Outlasts, Text, number, share, unless_down, unless_new_job
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="worker", dashboard="samokoder-overview")

# The worker's queue is in Redis, and its jobs write to PostgreSQL.
NEEDS = frozenset({"postgres", "redis"})


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules; none for an image without metrics, for which there are only the alerts on its container."""
    measured = environment.settings.worker.metrics_port is not None
    return Group(name="worker", rules=[*_alerts(environment.settings.alerts)] if measured else [])


def _alerts(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="WorkerDown",
        expression='(sum(up{job="worker"}) or vector(0)) == 0' + unless_new_job("worker"),
        wait="2m",
        severity="critical",
        absence=True,
        outlasts=Outlasts.MISSING,
        summary=Text(en="the worker is down", ru="обработчик заданий не работает"),
        description=Text(
            en='Workers that Prometheus can reach: {{ printf "%.0f" $value }}; jobs wait.',
            ru='Обработчиков, доступных для опроса: {{ printf "%.0f" $value }}; задания ждут.',
        ),
    )
    yield alert(
        name="WorkerHeartbeatStale",
        expression='time() - max by (instance) (worker_heartbeat_timestamp_seconds{job="worker"}) > 120',
        wait="1m",
        severity="critical",
        absence=True,
        symptom_of=frozenset({"redis"}),
        summary=Text(en="the worker hangs", ru="обработчик заданий завис"),
        description=Text(
            en="{{ $labels.instance }} had its last answer from the queue {{ $value | humanizeDuration }} ago.",
            ru="{{ $labels.instance }}: последний ответ очереди был {{ $value | humanizeDuration }} назад.",
        ),
    )
    yield alert(
        name="WorkerQueueStalled",
        expression='max(worker_queue_depth{job="worker"}) > 0 '
        'and (sum(rate(worker_jobs_total{job="worker"}[10m])) or vector(0)) == 0',
        wait="10m",
        severity="critical",
        symptom_of=NEEDS | {"worker"},
        summary=Text(en="no job ends", ru="задания не выполняются"),
        description=Text(
            en='{{ printf "%.0f" $value }} jobs are in the queue, and none has ended in ten minutes.',
            ru='Заданий в очереди: {{ printf "%.0f" $value }}, и за десять минут не завершилось ни одно.',
        ),
    )
    yield alert(
        name="WorkerQueueOldestJobTooOld",
        expression='max(worker_queue_oldest_job_age_seconds{job="worker"}) '
        f"> {number(alerts.worker_oldest_job_seconds)}",
        wait="5m",
        severity="critical",
        symptom_of=NEEDS | {"worker"},
        summary=Text(en="jobs wait too long", ru="задания ждут слишком долго"),
        description=Text(
            en="The oldest job has waited for {{ $value | humanizeDuration }}; "
            f"the threshold is {number(alerts.worker_oldest_job_seconds)} s.",
            ru="Самое старое задание ждёт {{ $value | humanizeDuration }}; "
            f"порог — {number(alerts.worker_oldest_job_seconds)} с.",
        ),
    )
    yield alert(
        name="WorkerQueueBacklogGrowing",
        expression=f'max(worker_queue_depth{{job="worker"}}) > {number(alerts.worker_queue_jobs)} '
        'and max(deriv(worker_queue_depth{job="worker"}[15m])) > 0',
        wait="10m",
        severity="warning",
        symptom_of=NEEDS | {"worker"},
        summary=Text(en="the queue grows", ru="очередь растёт"),
        description=Text(
            en='{{ printf "%.0f" $value }} jobs wait, and more come than end; '
            f"the threshold is {number(alerts.worker_queue_jobs)}.",
            ru='Ждёт заданий: {{ printf "%.0f" $value }}, и приходит больше, чем завершается; '
            f"порог — {number(alerts.worker_queue_jobs)}.",
        ),
    )
    yield alert(
        name="WorkerJobFailureRatioHigh",
        expression='sum(rate(worker_jobs_total{job="worker",status="failed"}[15m])) '
        '/ (sum(rate(worker_jobs_total{job="worker"}[15m])) > 0) '
        f"> {share(alerts.worker_failed_percent)}{unless_down(NEEDS, '15m')}",
        wait="10m",
        severity="warning",
        symptom_of=NEEDS,
        summary=Text(en="jobs fail", ru="задания завершаются ошибкой"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the jobs of the last 15 minutes failed; "
            f"the threshold is {number(alerts.worker_failed_percent)}%.",
            ru="{{ $value | humanizePercentage }} заданий за последние 15 минут завершились ошибкой; "
            f"порог — {number(alerts.worker_failed_percent)}%.",
        ),
    )
