"""Backups: age, size, lag, whether they are intact and can be restored, and the off-site copy."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice
from stack.monitoring.panels import UP, Limit, Panel, Query, figure, series, states
from stack.monitoring.promql import ratio
from stack.parts.backup import rules
from stack.parts.backup import spec as backup
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-backups"
KIND = 'kind=~"$kind"'
DONE = {0: ("ok", "green"), 1: ("failed", "red")}
TITLES = {"base": "Base backup", "dump": "Dump", "redis": "Copy of Redis", "workspace": "Copy of the workspace"}
DRILL_AGE = f"max({rules.DRILL_AGE})"


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    enabled = environment.settings.backup.enabled
    return board(
        environment,
        uid=UID,
        parts=("backup", "drill"),
        title="Backups",
        description="How old and how large the backups are, how far behind, and whether they can be restored.",
        choices=[
            choice("kind", "Kind", "Kinds of backups.", "label_values(backup_last_success_timestamp_seconds, kind)"),
        ]
        if enabled
        else [],
        since="now-2d",
        # Backups are made hourly or daily: the short time range of another dashboard would show nothing.
        keeps_time=False,
        figures=_now(environment) if enabled else [_none()],
        beside=_last_run(environment) if enabled else None,
        rows=_rows(environment) if enabled else [],
    )


def _rows(environment: Environment) -> list[Row]:
    alerts = environment.settings.alerts
    return [
        Row("Backups", _ages(environment), _runs(), _sizes(alerts)),
        *([Row("Write-ahead log", _log(alerts))] if environment.physical_backups else []),
        Row("Verified and restored", _proof(environment)),
        Row("Elsewhere, and room", _elsewhere(environment)),
    ]


def _none() -> Panel:
    return figure(
        "Backups",
        "Kinds of backups that there are.",
        "short",
        "count(backup_last_success_timestamp_seconds)",
        absent="none are made",
    )


def _now(environment: Environment) -> list[Panel]:
    alerts = environment.settings.alerts
    return [
        *(
            figure(
                f"{TITLES[kind]}: age",
                "Time since the last one that succeeded.",
                "s",
                f"max({rules.age(kind)})",
                limits=_late(alerts, schedule),
                watched_by=["BackupAbsent"],
                absent="none",
            )
            for kind, schedule in backup.kinds(environment).items()
        ),
        figure(
            "Failed",
            "Kinds of backups whose last run failed.",
            "short",
            f"sum(max by (kind) (backup_last_exit_code{{{KIND}}} != bool 0))",
            limits=[Limit(alert="BackupFailed", value=1)],
            absent="no backups",
        ),
        figure(
            "Damaged",
            "What the last verification found bad: backups, pieces of the write-ahead log, dumps, copies.",
            "short",
            "max(backup_verify_failed)",
            limits=[Limit(alert="BackupVerificationFailed", value=1, severity="critical")],
            absent="never verified",
        ),
        figure(
            "Restored",
            "Time since a backup was last restored and looked at. One that was never restored is a hope.",
            "s",
            DRILL_AGE,
            limits=[_drill(alerts)],
            absent="never",
        ),
    ]


def _ages(environment: Environment) -> list[Panel]:
    return [
        series(
            f"{TITLES[kind]}: time since",
            "Time since the last one that succeeded, and from where on that is too long for its schedule.",
            "s",
            Query(f"max({rules.age(kind)})", "age"),
            limits=_late(environment.settings.alerts, schedule),
        )
        for kind, schedule in backup.kinds(environment).items()
    ]


def _last_run(environment: Environment) -> Panel:
    return states(
        "Last run",
        "How the last run of each kind ended.",
        [Query(f"max by (kind) (backup_last_exit_code{{{KIND}}} != bool 0)", "{{kind}}")],
        DONE,
        watched_by=["BackupFailed"],
        bands=len(backup.kinds(environment)),
    )


def _runs() -> list[Panel]:
    return [
        series(
            "Duration",
            "How long the last run of each kind took.",
            "s",
            Query(f"max by (kind) (backup_last_duration_seconds{{{KIND}}})", "{{kind}}"),
        ),
        series(
            "Kept",
            "Backups that one can go back to.",
            "short",
            Query(f"max by (kind) (backup_retained{{{KIND}}})", "{{kind}}"),
        ),
    ]


def _sizes(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Size",
            "Size of the last backup of each kind.",
            "bytes",
            Query(f"max by (kind) (backup_size_bytes{{{KIND}}})", "{{kind}}"),
        ),
        series(
            "Smaller than usual",
            "How much smaller the last backup is than the median of seven days; below zero it is larger, "
            "-100 % where it is twice as large or more.",
            "percentunit",
            Query(
                f"clamp_min(max by (kind) ({_smaller()}), -1)",
                "{{kind}}",
            ),
            limits=[Limit(alert="BackupShrank", value=ratio(alerts.backup_shrank_percent))],
        ),
    ]


def _smaller() -> str:
    return rules.smaller(0).replace("backup_size_bytes", f"backup_size_bytes{{{KIND}}}")


def _log(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Behind",
            "Age of the oldest change that the backup server has not: so much would be lost with PostgreSQL's disk.",
            "s",
            Query("max(wal_archive_lag_seconds)", "behind"),
            limits=[
                Limit(alert="WalArchiveLagging", value=alerts.wal_lag_seconds),
                Limit(alert="WalArchiveLagging", value=rules.WAL_LAG_CRITICAL_SECONDS, severity="critical"),
            ],
        ),
        states(
            "Receiver",
            "Whether what PostgreSQL writes is received as it is written.",
            [Query("min(backup_wal_receiver_up)", "receiver")],
            UP,
            watched_by=["WalReceiverDown"],
        ),
        series(
            "Waits in PostgreSQL",
            "Write-ahead log that PostgreSQL keeps for the backup server, of what it keeps at most.",
            "percentunit",
            Query(f"max({rules.SLOT_USED})", "of the slot's bound"),
            limits=[
                Limit(alert="BackupSlotGrowing", value=ratio(alerts.backup_slot_percent)),
                Limit(alert="BackupSlotGrowing", value=rules.SLOT_CRITICAL, severity="critical"),
            ],
            top=1,
        ),
    ]


def _proof(environment: Environment) -> list[Panel]:
    alerts = environment.settings.alerts
    warning, _ = rules.late_hours(alerts, environment.settings.backup.verify_schedule)
    return [
        series(
            "Measured at the last restore",
            "What the restore for a trial found: how old the newest change in it was, and how long it took.",
            "s",
            Query("max(backup_restore_test_rpo_seconds)", "lost (RPO)"),
            Query("max(backup_restore_test_rto_seconds)", "took (RTO)"),
        ),
        states(
            "Restore for a trial",
            "How the last one ended.",
            [Query("max(backup_restore_test_last_exit_code != bool 0)", "restore")],
            DONE,
            watched_by=["RestoreDrillFailed"],
        ),
        series(
            "Time since a restore",
            "Since a backup was last restored and looked at.",
            "s",
            Query(DRILL_AGE, "age"),
            limits=[_drill(alerts)],
        ),
        series(
            "Time since verification",
            "Since everything was last read and compared with its checksums.",
            "s",
            Query(f"max({rules.VERIFIED_AGE})", "age"),
            limits=[Limit(alert="BackupVerificationTooOld", value=warning * 3600)],
        ),
        series(
            "Of a time to come",
            "Backups and jobs whose stamp is later than now: the clock was ahead. They do not count.",
            "short",
            Query("max(backup_stamps_ahead)", "stamps"),
            limits=[Limit(alert="BackupStampAhead", value=1)],
        ),
    ]


def _elsewhere(environment: Environment) -> list[Panel]:
    return [
        *(_offsite(environment.settings.alerts) if environment.offsite else [_no_offsite(environment.settings.alerts)]),
        _room(environment),
    ]


def _no_offsite(alerts: Alerts) -> Panel:
    return figure(
        "Off-site: age",
        "Time since the last copy reached a bucket elsewhere.",
        "s",
        f"max({rules.OFFSITE_AGE})",
        limits=[_stale(alerts)],
        watched_by=["BackupOffsiteFailing"],
        absent="no bucket is set",
    )


def _room(environment: Environment) -> Panel:
    free = environment.settings.alerts.backup_volume_free_percent
    return series(
        "Room for backups",
        "Free space where the backups are.",
        "percentunit",
        Query(f"min({rules.VOLUME_FREE})", "free"),
        limits=[Limit(alert="BackupVolumeAlmostFull", value=ratio(free), below=True)],
        top=1,
    )


def _offsite(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Off-site: time since",
            "Since the last copy reached the bucket: so much would be lost with this machine.",
            "s",
            Query(f"max({rules.OFFSITE_AGE})", "age"),
            limits=[_stale(alerts)],
        ),
        states(
            "Off-site: last try",
            "Whether the bucket took the last copy.",
            [Query("max(backup_offsite_last_exit_code != bool 0)", "bucket")],
            DONE,
            watched_by=["BackupOffsiteFailing"],
        ),
        series(
            "Off-site: copies",
            "How many the bucket holds, counted once a day. Each stays, but for `samokoder:backup.offsite.keepDays`.",
            "short",
            Query("max(backup_offsite_snapshots)", "copies"),
        ),
    ]


def _stale(alerts: Alerts) -> Limit:
    return Limit(alert="BackupOffsiteStale", value=alerts.backup_offsite_hours * 3600, severity="critical")


def _late(alerts: Alerts, schedule: str) -> list[Limit]:
    warning, critical = rules.late_hours(alerts, schedule)
    return [
        Limit(alert="BackupTooOld", value=warning * 3600),
        Limit(alert="BackupTooOld", value=critical * 3600, severity="critical"),
    ]


def _drill(alerts: Alerts) -> Limit:
    return Limit(alert="RestoreDrillTooOld", value=alerts.restore_drill_days * 86400)
