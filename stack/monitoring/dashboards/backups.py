"""Backups: how old, how large, whether they can be restored."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from stack.monitoring.dashboards.panels import Limit, Panel, Query, Row, board, choice, figure, series, states
from stack.settings import Environment

UID = "samokoder-backups"
KIND = 'kind=~"$kind"'
AGE = f"time() - max by (kind) (backup_last_success_timestamp_seconds{{{KIND}}})"
RESTORE_AGE = "time() - max(backup_restore_test_last_success_timestamp_seconds)"


def describe(environment: Environment) -> dashboard.Dashboard:
    """Describe the dashboard."""
    return board(
        environment,
        uid=UID,
        title="Backups",
        description="How old and how large the backups are, and whether they can be restored. There is no data until "
        "this environment has the part that makes backups.",
        choices=[
            choice("kind", "Kind", "Kinds of backups.", "label_values(backup_last_success_timestamp_seconds, kind)"),
        ],
        since="now-7d",
        rows=[Row("Now", _now()), Row("Backups", _backups()), Row("Restore and archive", _restore())],
    )


def _now() -> list[Panel]:
    return [
        figure(
            "Age of the oldest",
            "Time since the last backup that succeeded; of several kinds, the one that waits longest.",
            "s",
            f"max({AGE})",
            absent="no backups",
        ),
        figure(
            "Failed",
            "Kinds of backups whose last run failed.",
            "short",
            f"sum(max by (kind) (backup_last_exit_code{{{KIND}}} != bool 0))",
            limits=[Limit(value=1)],
            absent="no backups",
        ),
        figure(
            "Size",
            "Size of the last backup of each kind, together.",
            "bytes",
            f"sum(max by (kind) (backup_size_bytes{{{KIND}}}))",
            absent="no backups",
        ),
        figure(
            "Age of the restore test",
            "Time since a backup was last restored and looked at. A backup that was never restored is a hope.",
            "s",
            RESTORE_AGE,
            absent="never tested",
        ),
        figure(
            "Behind",
            "So much of the last changes is in no archive yet.",
            "s",
            "max(wal_archive_lag_seconds)",
            absent="no archive",
        ),
    ]


def _backups() -> list[Panel]:
    return [
        series("Age", "Time since the last backup that succeeded.", "s", Query(AGE, "{{kind}}")),
        states(
            "Last run",
            "How the last run of each kind ended.",
            [Query(f"max by (kind) (backup_last_exit_code{{{KIND}}} != bool 0)", "{{kind}}")],
            {0: ("ok", "green"), 1: ("failed", "red")},
        ),
        series(
            "Size of the backups",
            "Size of the last backup of each kind. Half of what it was: look into it.",
            "bytes",
            Query(f"max by (kind) (backup_size_bytes{{{KIND}}})", "{{kind}}"),
        ),
    ]


def _restore() -> list[Panel]:
    return [
        series(
            "Restore test",
            "Time since a backup was last restored and looked at.",
            "s",
            Query(RESTORE_AGE, "age"),
        ),
        series(
            "Archive of the write-ahead log",
            "Age of the oldest change that is in no archive yet: so much would be lost with the disk.",
            "s",
            Query("max(wal_archive_lag_seconds)", "behind"),
        ),
    ]
