"""What watches the rest: Prometheus, AlertManager, and the probes."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice, replicas
from stack.monitoring.panels import PER_SECOND, UP, Limit, Panel, Query, figure, series, states
from stack.monitoring.promql import counted, or_zero, total
from stack.parts.alertmanager.panels import ALERTMANAGER, alerts_now, notifications
from stack.parts.blackbox_exporter.panels import pages, probes_now
from stack.parts.log_collector.panels import kept_and_told, on_their_way
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-monitoring"
PROMETHEUS = 'job="prometheus"'


BOTH = 'job=~"prometheus|alertmanager"'
RELOADED = {1: ("read", "green"), 0: ("refused", "red")}


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    return board(
        environment,
        uid=UID,
        parts=("prometheus", "alertmanager", "grafana", "blackbox-exporter", "logs", "log-collector"),
        title="Monitoring",
        description="Whether the monitoring itself works: what is scraped, stored, evaluated, sent and probed.",
        choices=[
            choice("job", "Target", "Jobs of Prometheus.", "label_values(up, job)"),
            choice("service", "Page", "Parts with a page that is probed.", "label_values(probe_success, service)"),
        ],
        since="now-3h",
        figures=_now(alerts),
        beside=_targets(environment),
        rows=[
            Row("Prometheus: scrapes", _given(), _scrapes()),
            Row("Prometheus: storage", _series(alerts), _storage()),
            Row("Prometheus: rules", _rules(), _process()),
            Row("From Prometheus to AlertManager", _handover()),
            Row("AlertManager", alerts_now(), notifications() if environment.alert_ways else []),
            Row("Probes", probes_now(environment), pages(environment.settings.alerts)),
            *([Row("Logs", on_their_way(), kept_and_told(environment))] if "logs" not in environment.absent else []),
        ],
    )


def _now(alerts: Alerts) -> list[Panel]:
    return [
        figure(
            "Targets down",
            "Targets that Prometheus gets no metrics from.",
            "short",
            "count(up) - sum(up)",
            limits=[Limit(alert="TargetDown", value=1)],
        ),
        figure(
            "Series",
            "Series in memory.",
            "short",
            f"sum(prometheus_tsdb_head_series{{{PROMETHEUS}}})",
            limits=[_series_limit(alerts)],
        ),
        figure(
            "Prometheus: config",
            "Whether Prometheus could read its configuration when it last tried.",
            "none",
            f"min(prometheus_config_last_reload_successful{{{PROMETHEUS}}})",
            limits=[Limit(alert="PrometheusConfigReloadFailed", value=1, severity="critical", below=True)],
            texts=RELOADED,
        ),
        figure(
            "AlertManager: config",
            "Whether AlertManager could read its configuration when it last tried.",
            "none",
            f"min(alertmanager_config_last_reload_successful{{{ALERTMANAGER}}})",
            limits=[Limit(alert="AlertmanagerConfigReloadFailed", value=1, severity="critical", below=True)],
            texts=RELOADED,
        ),
        figure(
            "Probes: config",
            "Whether the blackbox exporter could read its configuration when it last tried.",
            "none",
            "min(blackbox_exporter_config_last_reload_successful)",
            limits=[Limit(alert="BlackboxConfigReloadFailed", value=1, below=True)],
            texts=RELOADED,
        ),
        figure(
            "Failed notifications",
            "Attempts to send a notification that failed in the last hour.",
            "short",
            counted("1h", "alertmanager_notifications_failed_total", ALERTMANAGER),
            absent="no receiver",
            limits=[Limit(alert="AlertmanagerNotificationsFailing", value=1, severity="critical")],
            watched_by=["HeartbeatFailing"],
        ),
        figure(
            "Probes that fail",
            "Pages that do not answer as they should.",
            "short",
            "count(probe_success) - sum(probe_success)",
            limits=[Limit(alert="ProbeFailed", value=1, severity="critical")],
        ),
    ]


def _targets(environment: Environment) -> Panel:
    return states(
        "Targets",
        "Whether Prometheus gets metrics from each target.",
        [Query('min by (instance) (up{job!="probe",job=~"$job"})', "{{instance}}")],
        UP,
        watched_by=["TargetDown"],
        bands=replicas(environment),
    )


def _given() -> list[Panel]:
    return [
        series(
            "Duration of scrapes",
            "Time until a target has given all of its metrics.",
            "s",
            Query('max by (job) (scrape_duration_seconds{job=~"$job"})', "{{job}}"),
            watched_by=["TargetDown"],
        ),
        series(
            "Samples of a scrape",
            "Samples that each target gives. Over its limit, all of its samples are thrown away.",
            "short",
            Query('max by (job) (scrape_samples_post_metric_relabeling{job=~"$job"})', "{{job}}"),
            watched_by=["PrometheusSampleLimitHit"],
        ),
    ]


def _scrapes() -> list[Panel]:
    return [
        series(
            "Samples",
            "Samples a second that go into the storage.",
            PER_SECOND,
            Query(total("prometheus_tsdb_head_samples_appended_total", PROMETHEUS), "samples"),
            watched_by=["PrometheusNotIngesting"],
        ),
        series(
            "New series",
            "Series that were new in a scrape, in five minutes. Many, without end: a label with ever new values.",
            "short",
            Query('sum by (job) (sum_over_time(scrape_series_added{job=~"$job"}[5m]))', "{{job}}"),
            watched_by=["PrometheusTooManySeries"],
        ),
        series(
            "Scrapes that were thrown away",
            "Scrapes in five minutes that had too many samples, or samples that came twice, late or from the future.",
            "short",
            *(
                Query(counted("5m", f"prometheus_target_scrapes_{why}_total", PROMETHEUS), name)
                for why, name in (
                    ("exceeded_sample_limit", "too many samples"),
                    ("sample_duplicate_timestamp", "twice"),
                    ("sample_out_of_order", "out of order"),
                    ("sample_out_of_bounds", "out of bounds"),
                )
            ),
            watched_by=["PrometheusSampleLimitHit"],
        ),
    ]


def _series(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Series in memory",
            "Series that had a sample lately. Each one costs memory.",
            "short",
            Query(f"sum(prometheus_tsdb_head_series{{{PROMETHEUS}}})", "series"),
            limits=[_series_limit(alerts)],
            top=alerts.prometheus_series,
        ),
        series(
            "Series by target",
            "Samples of a scrape are its series: whose they are.",
            "short",
            Query('sum by (job) (scrape_samples_post_metric_relabeling{job=~"$job"})', "{{job}}"),
            stacked=True,
        ),
        series(
            "Series that come and go",
            "Series a second that were made and removed.",
            PER_SECOND,
            Query(total("prometheus_tsdb_head_series_created_total", PROMETHEUS), "made"),
            Query(total("prometheus_tsdb_head_series_removed_total", PROMETHEUS), "removed"),
        ),
    ]


def _storage() -> list[Panel]:
    return [
        series(
            "Storage",
            "Bytes on disk: blocks, the write-ahead log, chunks of the last hours, and what blocks may take.",
            "bytes",
            Query(f"sum(prometheus_tsdb_storage_blocks_bytes{{{PROMETHEUS}}})", "blocks"),
            Query(f"sum(prometheus_tsdb_wal_storage_size_bytes{{{PROMETHEUS}}})", "write-ahead log"),
            Query(f"sum(prometheus_tsdb_head_chunks_storage_size_bytes{{{PROMETHEUS}}})", "chunks"),
            Query(f"sum(prometheus_tsdb_retention_limit_bytes{{{PROMETHEUS}}})", "limit of blocks"),
        ),
        series(
            "Failures of the storage",
            "What failed in three hours: compactions, reloads of blocks, reading and writing the write-ahead log.",
            "short",
            *(
                Query(counted("3h", f"prometheus_tsdb_{what}_total", PROMETHEUS), name)
                for what, name in (
                    ("compactions_failed", "compactions"),
                    ("reloads_failures", "reloads"),
                    ("wal_corruptions", "log corrupted"),
                    ("wal_writes_failed", "log not written"),
                )
            ),
            watched_by=["PrometheusTsdbFailing"],
        ),
        series(
            "Oldest sample",
            "How far back the samples go.",
            "s",
            Query(f"time() - min(prometheus_tsdb_lowest_timestamp_seconds{{{PROMETHEUS}}})", "oldest sample"),
            Query(f"max(prometheus_tsdb_retention_limit_seconds{{{PROMETHEUS}}})", "limit"),
        ),
    ]


def _rules() -> list[Panel]:
    return [
        series(
            "Duration of the rules",
            "Time that the last evaluation of each group took, and the time between two evaluations.",
            "s",
            Query(
                f"max by (rule_group) (label_replace(prometheus_rule_group_last_duration_seconds{{{PROMETHEUS}}}, "
                '"rule_group", "$1", "rule_group", ".+;(.+)"))',
                "{{rule_group}}",
            ),
            watched_by=["PrometheusRuleGroupSlow"],
        ),
        series(
            "Rules that fail",
            "Evaluations that failed in five minutes, and rounds that were left out: the one before took too long.",
            "short",
            Query(counted("5m", "prometheus_rule_evaluation_failures_total", PROMETHEUS), "failed"),
            Query(counted("5m", "prometheus_rule_group_iterations_missed_total", PROMETHEUS), "left out"),
            watched_by=["PrometheusRuleFailures", "PrometheusRuleGroupSlow"],
        ),
        series(
            "Alerts in Prometheus",
            "Alerts that fire or wait, by severity; Watchdog is `none` and always fires.",
            "short",
            *(
                Query(or_zero(f'count(ALERTS{{severity="{each}"}})'), each)
                for each in ("critical", "warning", "info", "none")
            ),
            watched_by=["Watchdog"],
        ),
    ]


def _process() -> list[Panel]:
    return [
        series(
            "Memory",
            "Resident memory of Prometheus and AlertManager.",
            "bytes",
            Query(f"max by (job) (process_resident_memory_bytes{{{BOTH}}})", "{{job}}"),
        ),
        series(
            "CPU",
            "CPU that Prometheus and AlertManager use; 100 % is one core.",
            "percentunit",
            Query(total("process_cpu_seconds_total", BOTH, "job"), "{{job}}"),
            top=0.1,
        ),
        series(
            "Running for",
            "Time since Prometheus and AlertManager started.",
            "s",
            Query(f"time() - max by (job) (process_start_time_seconds{{{BOTH}}})", "{{job}}"),
            watched_by=["PrometheusRestarted"],
        ),
        series(
            "Duration of questions",
            "Time that 90 of 100 questions to Prometheus need inside of it, by step.",
            "s",
            Query(
                f'max by (slice) (prometheus_engine_query_duration_seconds{{{PROMETHEUS},quantile="0.9"}})', "{{slice}}"
            ),
        ),
    ]


def _handover() -> list[Panel]:
    errors, sent = (
        # Prometheus sends a firing alert again about once a minute, so a shorter window may be empty.
        total(f"prometheus_notifications_{kind}_total", PROMETHEUS, window="5m")
        for kind in ("errors", "sent")
    )
    return [
        series(
            "AlertManagers",
            "AlertManagers that Prometheus sends to.",
            "short",
            Query(f"max(prometheus_notifications_alertmanagers_discovered{{{PROMETHEUS}}})", "found"),
            limits=[Limit(alert="PrometheusNotConnectedToAlertmanager", value=1, severity="critical", below=True)],
        ),
        series(
            "Alerts that do not arrive",
            "Share of the alerts that AlertManager did not take.",
            "percentunit",
            Query(f"{errors} / (({errors} + {sent}) > 0)", "not taken"),
            limits=[Limit(alert="PrometheusErrorSendingAlerts", value=0.01)],
        ),
        series(
            "Alerts on their way",
            "Alerts a second that were sent and dropped, and those that wait.",
            "short",
            Query(sent, "sent"),
            Query(total("prometheus_notifications_dropped_total", PROMETHEUS), "dropped"),
            Query(f"sum(prometheus_notifications_queue_length{{{PROMETHEUS}}})", "waiting"),
            watched_by=["PrometheusErrorSendingAlerts"],
        ),
    ]


def _series_limit(alerts: Alerts) -> Limit:
    return Limit(alert="PrometheusTooManySeries", value=alerts.prometheus_series)
