"""Alerts on backups, from the backup server's metrics: made, intact, restored as a test, and copied off-site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import ceil

from stack.common import cron
from stack.monitoring.alerts import Alert, Group, Recording, Severity, Text, number, share
from stack.parts.backup import spec as backup
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service=backup.PART, dashboard="samokoder-backups")

# A backup is critically late after a day at the earliest, so an hour of missed copies wakes nobody at night.
_CRITICAL_HOURS = 24.0
WAL_LAG_CRITICAL_SECONDS = 900.0
SLOT_CRITICAL = 0.8
FIRST = "2h"
"""Time after the start of a new stack within which the first backup of each kind must exist."""

MEDIAN = Recording(
    name="backup:size_bytes:median7d",
    # One sample an hour, because a week of all samples would be forty thousand to sort.
    expression="quantile_over_time(0.5, backup_size_bytes[7d:1h])",
)


def smaller(least: int) -> str:
    """Return the expression for how much smaller the last backup is than the median of seven days, as a share.

    least: bytes; a kind whose median is not larger than that has no result.
    """
    return f"1 - backup_size_bytes / ({MEDIAN.name} > {least})"


SLOT_USED = "backup_slot_retained_bytes / (backup_slot_limit_bytes > 0)"
VOLUME_FREE = "backup_volume_free_bytes / (backup_volume_size_bytes > 0)"
# Before the first success the metric is 0 or absent; `> 0` leaves that case to BackupAbsent.
VERIFIED_AGE = "time() - (backup_verify_last_success_timestamp_seconds > 0)"
DRILL_AGE = "time() - (backup_restore_test_last_success_timestamp_seconds > 0)"
OFFSITE_AGE = "time() - (backup_offsite_last_success_timestamp_seconds > 0)"
_OFFSITE = "backup_offsite_enabled == 1"
_OFFSITE_FAILS = "30m"
OFFSITE_FAILING = f"min_over_time(backup_offsite_last_exit_code[{_OFFSITE_FAILS}])"
"""The exit code that no copy of this time was better than: a bucket that is away for a minute is no failure."""

_NAMES: Mapping[str, Text] = {
    "base": Text(en="the base backup of PostgreSQL", ru="базовая копия PostgreSQL"),
    "dump": Text(en="the dump of PostgreSQL", ru="дамп PostgreSQL"),
    "redis": Text(en="the copy of Redis", ru="копия Redis"),
    "workspace": Text(en="the copy of the workspace", ru="копия рабочих файлов"),
}


def age(kind: str) -> str:
    """Return the expression for the age of the newest good backup of a kind, in seconds."""
    return f'time() - (backup_last_success_timestamp_seconds{{kind="{kind}"}} > 0)'


def late_hours(alerts: Alerts, schedule: str) -> tuple[float, float]:
    """Return the ages in hours at which the newest backup of a schedule is too old: for a warning, and for critical."""
    pause = cron.parse(schedule).longest_pause_hours
    warning = round(pause + alerts.backup_late_hours, 2)
    return warning, max(round(2 * pause + alerts.backup_late_hours, 2), _CRITICAL_HOURS)


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules; none where no backups are made."""
    if not environment.settings.backup.enabled:
        return Group(name="backups", rules=[])
    alerts = environment.settings.alerts
    kinds = backup.kinds(environment)
    return Group(
        name="backups",
        rules=[
            MEDIAN,
            *(rule for kind, schedule in kinds.items() for rule in _kind(alerts, kind, schedule)),
            *_runs(alerts),
            *(_archive(alerts) if environment.physical_backups else ()),
            *_proof(environment),
            *_offsite(alerts),
        ],
    )


def _kind(alerts: Alerts, kind: str, schedule: str) -> Iterator[Alert]:
    name = _NAMES[kind]
    yield _absent(kind, name, f'absent(backup_last_success_timestamp_seconds{{kind="{kind}"}} > 0)', FIRST, "critical")
    warning, critical = late_hours(alerts, schedule)
    limits: tuple[tuple[float, Severity], ...] = ((warning, "warning"), (critical, "critical"))
    for hours, severity in limits:
        yield alert(
            name="BackupTooOld",
            expression=f"{age(kind)} > {number(hours)} * 3600",
            wait="5m",
            severity=severity,
            labels={"kind": kind},
            summary=Text(en=f"{name.en} is too old", ru=f"слишком давно: {name.ru}"),
            description=Text(
                en="The newest good one is {{ $value | humanizeDuration }} old; "
                f"the threshold is {number(hours)} h, the schedule {schedule}.",
                ru="Последней удачной {{ $value | humanizeDuration }}; "
                f"порог — {number(hours)} ч, расписание {schedule}.",
            ),
        )


def _absent(kind: str, name: Text, expression: str, wait: str, severity: Severity) -> Alert:
    """Return the alert on a success that never happened. It uses `absent`, because no sample exists to be too old."""
    return alert(
        name="BackupAbsent",
        expression=expression,
        wait=wait,
        severity=severity,
        absence=True,
        labels={"kind": kind},
        summary=Text(en=f"{name.en} is not there", ru=f"ни разу не удалось: {name.ru}"),
        description=Text(
            en=f"In {wait} it has not succeeded once, or nobody tells of it.",
            ru=f"За {wait} ни разу не удалось, или об этом никто не сообщает.",
        ),
    )


def _runs(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="BackupFailed",
        expression="backup_last_exit_code != 0",
        wait="5m",
        severity="warning",
        summary=Text(
            en="the last {{ $labels.kind }} backup failed", ru="последняя копия {{ $labels.kind }} не удалась"
        ),
        description=Text(
            en='It ended with {{ printf "%.0f" $value }}; those before it are kept.',
            ru='Код завершения — {{ printf "%.0f" $value }}; прежние копии сохранены.',
        ),
    )
    yield alert(
        name="BackupShrank",
        # The size of backups below a MiB changes by half for no reason.
        expression=f"{smaller(2**20)} > {share(alerts.backup_shrank_percent)}",
        wait="5m",
        severity="warning",
        summary=Text(en="the {{ $labels.kind }} backup shrank", ru="копия {{ $labels.kind }} уменьшилась"),
        description=Text(
            en="It is {{ $value | humanizePercentage }} smaller than the median of seven days; "
            f"the threshold is {number(alerts.backup_shrank_percent)}%.",
            ru="Она на {{ $value | humanizePercentage }} меньше медианы за семь дней; "
            f"порог — {number(alerts.backup_shrank_percent)}%.",
        ),
    )
    yield alert(
        name="BackupStampAhead",
        expression="backup_stamps_ahead > 0",
        wait="5m",
        severity="warning",
        summary=Text(en="the clock was ahead as a backup was made", ru="копия сделана, когда часы спешили"),
        description=Text(
            en='So many backups and jobs have a stamp of a time to come: {{ printf "%.0f" $value }}. They do not count '
            "until then; new ones are made.",
            ru='Копий и проверок с отметкой времени из будущего: {{ printf "%.0f" $value }}. До того времени они не '
            "считаются; новые делаются.",
        ),
    )
    yield alert(
        name="BackupVolumeAlmostFull",
        expression=f"{VOLUME_FREE} < {share(alerts.backup_volume_free_percent)}",
        wait="15m",
        severity="warning",
        summary=Text(en="no room for backups soon", ru="скоро не хватит места для копий"),
        description=Text(
            en="{{ $value | humanizePercentage }} of their disk is free; "
            f"the threshold is {number(alerts.backup_volume_free_percent)}%.",
            ru="На их диске свободно {{ $value | humanizePercentage }}; "
            f"порог — {number(alerts.backup_volume_free_percent)}%.",
        ),
    )


def _archive(alerts: Alerts) -> Iterator[Alert]:
    """Yield the alerts on WAL streaming to the backup server."""
    yield alert(
        name="WalReceiverDown",
        expression="backup_wal_receiver_up == 0",
        wait="2m",
        severity="critical",
        symptom_of=frozenset({"postgres"}),
        summary=Text(en="the write-ahead log is not received", ru="журнал транзакций не принимается"),
        description=Text(
            en="What is written now is on PostgreSQL's own disk alone.",
            ru="Всё, что пишется сейчас, есть только на диске самого PostgreSQL.",
        ),
    )
    lag = Text(en="the backups are behind", ru="копии отстают")
    lags: tuple[tuple[float, Severity], ...] = (
        (alerts.wal_lag_seconds, "warning"),
        (WAL_LAG_CRITICAL_SECONDS, "critical"),
    )
    for limit, severity in lags:
        yield alert(
            name="WalArchiveLagging",
            expression=f"wal_archive_lag_seconds > {number(limit)}",
            wait="5m",
            severity=severity,
            symptom_of=frozenset({"postgres"}),
            summary=lag,
            description=Text(
                en="Without PostgreSQL's disk the last {{ $value | humanizeDuration }} would be lost; "
                f"the threshold is {number(limit)} s.",
                ru="Без диска PostgreSQL пропало бы последнее: {{ $value | humanizeDuration }}; "
                f"порог — {number(limit)} с.",
            ),
        )
    slot = Text(en="write-ahead log piles up for the backups", ru="журнал транзакций копится для копий")
    used: tuple[tuple[str, Severity], ...] = (
        (share(alerts.backup_slot_percent), "warning"),
        (number(SLOT_CRITICAL), "critical"),
    )
    for part, severity in used:
        yield alert(
            name="BackupSlotGrowing",
            expression=f"{SLOT_USED} > {part}",
            wait="5m",
            severity=severity,
            summary=slot,
            description=Text(
                en="{{ $value | humanizePercentage }} of what PostgreSQL keeps for them is used: at 100% it gives the "
                "slot up, and the log has a gap.",
                ru="Занято {{ $value | humanizePercentage }} того, что PostgreSQL для них хранит: при 100% слот будет "
                "сброшен, и в журнале появится разрыв.",
            ),
        )


def _proof(environment: Environment) -> Iterator[Alert]:
    """Yield the alerts on the verification of backups and on the restore drills."""
    alerts = environment.settings.alerts
    yield alert(
        name="BackupVerificationFailed",
        expression="backup_verify_failed > 0",
        wait="",
        severity="critical",
        summary=Text(en="backups are damaged", ru="копии повреждены"),
        description=Text(
            en='Things found bad: {{ printf "%.0f" $value }}; what they hold cannot be restored from them.',
            ru='Повреждённых частей: {{ printf "%.0f" $value }}; восстановить из них данные нельзя.',
        ),
    )
    hours, _ = late_hours(alerts, environment.settings.backup.verify_schedule)
    yield alert(
        name="BackupVerificationTooOld",
        expression=f"{VERIFIED_AGE} > {number(hours)} * 3600",
        wait="5m",
        severity="warning",
        summary=Text(en="the backups are not verified", ru="копии не проверяются"),
        description=Text(
            en="The last verification that found everything whole is {{ $value | humanizeDuration }} old; "
            f"the threshold is {number(hours)} h.",
            ru="Последней проверке, которая нашла всё целым, {{ $value | humanizeDuration }}; "
            f"порог — {number(hours)} ч.",
        ),
    )
    yield alert(
        name="RestoreDrillFailed",
        expression="backup_restore_test_last_exit_code != 0",
        wait="",
        severity="critical",
        summary=Text(en="a backup cannot be restored", ru="копия не восстанавливается"),
        description=Text(
            en='The last drill ended with {{ printf "%.0f" $value }}: with the database lost, this is what you have.',
            ru='Последняя учебная проба: код {{ printf "%.0f" $value }}; если база пропадёт, другого нет.',
        ),
    )
    days = number(alerts.restore_drill_days)
    yield alert(
        name="RestoreDrillTooOld",
        expression=f"{DRILL_AGE} > {days} * 86400",
        wait="5m",
        severity="warning",
        summary=Text(en="no backup was restored for a long time", ru="копии давно не восстанавливали"),
        description=Text(
            en=f"The last drill that succeeded is {{{{ $value | humanizeDuration }}}} old; the threshold is {days} d.",
            ru=f"Последней удачной пробе {{{{ $value | humanizeDuration }}}}; порог — {days} д.",
        ),
    )
    # The first verification follows its schedule; the first drill follows the first backup.
    for kind, metric, name, wait in (
        ("verification", "verify", Text(en="a verification of the backups", ru="проверка копий"), f"{ceil(hours)}h"),
        ("drill", "restore_test", Text(en="a restore for a trial", ru="учебное восстановление"), "2h"),
    ):
        yield _absent(kind, name, f"absent(backup_{metric}_last_success_timestamp_seconds > 0)", wait, "warning")


def _offsite(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="BackupOffsiteFailing",
        expression=f"backup_offsite_last_exit_code != 0 and on (instance) {_OFFSITE}",
        wait=_OFFSITE_FAILS,
        severity="warning",
        summary=Text(en="backups do not reach the bucket", ru="копии не доходят до хранилища"),
        description=Text(
            en='The last try ended with {{ printf "%.0f" $value }}; it is tried again, and nothing here is touched.',
            ru='Последняя попытка: код {{ printf "%.0f" $value }}; попытки продолжаются, копии здесь целы.',
        ),
    )
    hours = number(alerts.backup_offsite_hours)
    yield alert(
        name="BackupOffsiteStale",
        expression=f"{OFFSITE_AGE} > {hours} * 3600 and on (instance) {_OFFSITE}",
        wait="5m",
        severity="critical",
        summary=Text(en="the off-site copy is old", ru="копия в хранилище устарела"),
        description=Text(
            en="With this machine the last {{ $value | humanizeDuration }} would be lost; "
            f"the threshold is {hours} h.",
            ru=f"Без этой машины пропало бы последнее: {{{{ $value | humanizeDuration }}}}; порог — {hours} ч.",
        ),
    )
    name = Text(en="the off-site copy", ru="копия в хранилище")
    expression = f"absent(backup_offsite_last_success_timestamp_seconds > 0) and on () {_OFFSITE}"
    yield _absent("offsite", name, expression, "2h", "critical")
