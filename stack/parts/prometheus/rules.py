"""Prometheus itself and what it scrapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Outlasts, Text, nothing_stored, number, unless_new_job
from stack.parts.alertmanager import rules as alertmanager
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

DASHBOARD = "samokoder-monitoring"
# These jobs have their own alerts, which count replicas.
OWN_ALERT = {"api", "worker"}

alert = partial(Alert, service="prometheus", dashboard=DASHBOARD)


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    return Group(
        name="prometheus",
        rules=[
            _watchdog(environment),
            *_targets(parts),
            *_rules(),
            *_storage(environment),
            *_load(environment.settings.alerts),
            *_notifications(),
        ],
    )


def _watchdog(environment: Environment) -> Alert:
    expression = "vector(1)"
    # Nothing else can tell that every way is dead: the heart stops, and who watches it from outside tells. A way that
    # was not tried has no share, and may work. The window is longer than two beats: an end between two is not noticed.
    minutes = alertmanager.beats_minutes(environment)
    if dead := [alertmanager.failing(f'integration="{way}"', minutes) + " > 0.5" for way in environment.alert_ways]:
        expression += f" unless on () ({' and on () '.join(dead)})"
    return alert(
        name="Watchdog",
        expression=expression,
        wait="",
        severity="none",
        # A heart must not go on beating after it should stop.
        outlasts=None,
        summary=Text(en="the chain of alerts works", ru="цепочка оповещений работает"),
        description=Text(
            en="Always firing: when it stops arriving, nothing else would arrive either.",
            ru="Срабатывает всегда: если перестанет приходить, не придёт и ничего другого.",
        ),
    )


def _targets(parts: Sequence[ServiceSpec]) -> Iterator[Alert]:
    for job in sorted({part.job for part in parts if part.job} - OWN_ALERT):
        yield Alert(
            name="TargetDown",
            # `absent`, because a job that vanished from the configuration has no `up` that could be 0.
            expression=f'(up{{job="{job}"}} == 0 or absent(up{{job="{job}"}}))' + unless_new_job(job),
            wait="5m",
            severity="warning",
            service=job,
            absence=True,
            summary=Text(en=f"{job} cannot be scraped", ru=f"{job}: метрики не собираются"),
            description=Text(
                en=f"Prometheus gets no metrics from {job}: it is down, or out of reach.",
                ru=f"Prometheus не получает метрик от {job}: он не работает или недоступен.",
            ),
            dashboard=DASHBOARD,
        )


def _rules() -> Iterator[Alert]:
    yield alert(
        name="PrometheusConfigReloadFailed",
        expression='max_over_time(prometheus_config_last_reload_successful{job="prometheus"}[5m]) == 0',
        wait="10m",
        severity="critical",
        summary=Text(en="Prometheus refuses its configuration", ru="Prometheus не принимает конфигурацию"),
        description=Text(
            en="It goes on with the one before, and ends at the next start.",
            ru="Пока действует прежняя, а следующий запуск завершится ошибкой.",
        ),
    )
    yield alert(
        name="PrometheusRuleFailures",
        expression="sum by (rule_group) "
        '(increase(prometheus_rule_evaluation_failures_total{job="prometheus"}[5m])) > 0',
        wait="15m",
        severity="critical",
        summary=Text(en="rules cannot be evaluated", ru="правила не вычисляются"),
        description=Text(
            en='Failures within five minutes in {{ $labels.rule_group }}: {{ printf "%.0f" $value }}; '
            "alerts may be missing.",
            ru='Ошибок за пять минут в группе {{ $labels.rule_group }}: {{ printf "%.0f" $value }}; '
            "часть оповещений может не сработать.",
        ),
    )
    yield alert(
        name="PrometheusRuleGroupSlow",
        expression="sum by (rule_group) "
        '(increase(prometheus_rule_group_iterations_missed_total{job="prometheus"}[5m])) > 0',
        wait="10m",
        severity="warning",
        summary=Text(en="rules take too long", ru="правила вычисляются слишком долго"),
        description=Text(
            en='Evaluations left out within five minutes in {{ $labels.rule_group }}: {{ printf "%.0f" $value }}.',
            ru='Пропущено вычислений группы {{ $labels.rule_group }} за пять минут: {{ printf "%.0f" $value }}.',
        ),
    )


def _storage(environment: Environment) -> Iterator[Alert]:
    stores_nothing = Text(en="Prometheus stores nothing", ru="Prometheus не сохраняет измерения")
    unseen = Text(
        en="No new sample is stored, so no other alert sees what happens now.",
        ru="Новые измерения не сохраняются, поэтому остальные оповещения не видят, что происходит сейчас.",
    )
    # Two minutes after the last sample: this one inhibits the ends of all alerts, which nobody sees any more. It stays
    # longer than they do: `for` of what still burns begins anew, and its end must not be sent meanwhile.
    yield alert(
        name="PrometheusNotIngesting",
        labels={"series": "gone"},
        # With a full disk the counter of the next rule is not stored either, so its rate would be empty.
        expression=nothing_stored(environment),
        wait="1m",
        severity="critical",
        outlasts=Outlasts.EVERYTHING,
        summary=stores_nothing,
        description=unseen,
    )
    yield alert(
        name="PrometheusNotIngesting",
        expression='sum without (type) (rate(prometheus_tsdb_head_samples_appended_total{job="prometheus"}[5m])) <= 0',
        wait="10m",
        severity="critical",
        outlasts=Outlasts.EVERYTHING,
        summary=stores_nothing,
        description=unseen,
    )
    # After a clock that was set back every series refuses what is older than its newest sample, and the other rules see
    # the first pass of that time. Two minutes are left out for clocks that are corrected a little.
    yield alert(
        name="PrometheusNotIngesting",
        labels={"series": "ahead"},
        expression="max(present_over_time(up[1d] offset -1d2m))",
        wait="1m",
        severity="critical",
        outlasts=Outlasts.EVERYTHING,
        summary=stores_nothing,
        description=unseen,
    )
    failures = ("compactions_failed", "reloads_failures", "wal_corruptions", "wal_writes_failed")
    yield alert(
        name="PrometheusTsdbFailing",
        expression=" or ".join(f'increase(prometheus_tsdb_{it}_total{{job="prometheus"}}[3h]) > 0' for it in failures),
        wait="15m",
        severity="warning",
        summary=Text(en="Prometheus cannot keep its data", ru="Prometheus не может хранить данные"),
        description=Text(
            en='Errors within three hours while it wrote or read its blocks or its log: {{ printf "%.0f" $value }}.',
            ru='Ошибок за три часа при записи или чтении блоков и журнала: {{ printf "%.0f" $value }}.',
        ),
    )


def _load(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="PrometheusSampleLimitHit",
        expression='increase(prometheus_target_scrapes_exceeded_sample_limit_total{job="prometheus"}[5m]) > 0',
        wait="5m",
        severity="warning",
        summary=Text(en="a target has too many series", ru="у цели слишком много рядов"),
        description=Text(
            en='Scrapes thrown away within five minutes because of the sample limit: {{ printf "%.0f" $value }}.',
            ru='Опросов, отброшенных за пять минут из-за предела измерений: {{ printf "%.0f" $value }}.',
        ),
    )
    yield alert(
        name="PrometheusTooManySeries",
        expression=f'prometheus_tsdb_head_series{{job="prometheus"}} > {number(alerts.prometheus_series)}',
        wait="15m",
        severity="warning",
        summary=Text(en="Prometheus has too many series", ru="в Prometheus слишком много рядов"),
        description=Text(
            en='{{ printf "%.0f" $value }} series are in memory; '
            f"the threshold is {number(alerts.prometheus_series)}.",
            ru=f'Рядов в памяти: {{{{ printf "%.0f" $value }}}}; порог — {number(alerts.prometheus_series)}.',
        ),
    )
    yield alert(
        name="PrometheusRestarted",
        expression='changes(process_start_time_seconds{job="prometheus"}[10m]) > 0',
        wait="",
        severity="info",
        summary=Text(en="Prometheus was restarted", ru="Prometheus был перезапущен"),
        description=Text(
            en='Restarts within ten minutes: {{ printf "%.0f" $value }}; nothing was measured meanwhile.',
            ru='Перезапусков за десять минут: {{ printf "%.0f" $value }}; в это время ничего не измерялось.',
        ),
    )


def _notifications() -> Iterator[Alert]:
    yield alert(
        name="PrometheusNotConnectedToAlertmanager",
        expression='max_over_time(prometheus_notifications_alertmanagers_discovered{job="prometheus"}[5m]) < 1',
        wait="10m",
        severity="critical",
        summary=Text(en="Prometheus knows no AlertManager", ru="Prometheus не знает ни одного AlertManager"),
        description=Text(
            en='In its configuration: {{ printf "%.0f" $value }}; no alert leaves it.',
            ru='Настроено: {{ printf "%.0f" $value }}; ни одно оповещение не уходит.',
        ),
    )
    errors, sent = (
        f'rate(prometheus_notifications_{kind}_total{{job="prometheus"}}[5m])' for kind in ("errors", "sent")
    )
    yield alert(
        name="PrometheusErrorSendingAlerts",
        # `sent` counts only delivered alerts: divided by `sent` only, there would be no result when nothing arrives.
        expression=f"sum by (alertmanager) ({errors}) / (sum by (alertmanager) ({errors} + {sent}) > 0) > 0.01",
        wait="15m",
        severity="warning",
        symptom_of=frozenset({"alertmanager"}),
        summary=Text(en="alerts do not reach AlertManager", ru="оповещения не доходят до AlertManager"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the alerts for {{ $labels.alertmanager }} were lost.",
            ru="Потеряно {{ $value | humanizePercentage }} оповещений для {{ $labels.alertmanager }}.",
        ),
    )
