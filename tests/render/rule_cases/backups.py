"""The backups' alerts."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, Series, pair, stays

AT = {"job": "backup", "instance": "backup:9188"}
SERVER = ",".join(f'{name}="{value}"' for name, value in AT.items())
CRITICAL = {"service": "backup", "severity": "critical"}
WARNING = {"service": "backup", "severity": "warning"}
NAMES = {
    "base": "the base backup of PostgreSQL",
    "dump": "the dump of PostgreSQL",
    "redis": "the copy of Redis",
}
# Kind -> (hours, its schedule) of the warning and of what is critical, with everybody's own schedules.
LATE = {"base": (26, 50, "15 2 * * *"), "dump": (26, 50, "15 3 * * *"), "redis": (3, 24, "0 * * * *")}
ALONE = {**LATE, "dump": (8, 24, "15 */6 * * *")}
"""Where there are no base backups."""
LONG_AGO = "1+0x1300"


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from _absent(backup.kinds(environment))
    for kind in backup.kinds(environment):
        yield from _too_old(kind, *(LATE if environment.physical_backups else ALONE)[kind])
    yield from _runs()
    yield from _archive()
    yield from _proof()
    yield from _offsite()


def _at(metric: str, values: str, labels: str = "") -> Series:
    return {f"{metric}{{{SERVER}{labels}}}": values}


def _absent(kinds: Collection[str]) -> Iterator[Case]:
    """Of each kind alone, while all others are there."""
    made = "backup_last_success_timestamp_seconds"
    stamps = {kind: (f'{made}{{{SERVER},kind="{kind}"}}', NAMES[kind]) for kind in kinds}
    stamps |= {
        kind: (f"backup_{metric}_last_success_timestamp_seconds{{{SERVER}}}", name)
        for kind, metric, name in (
            ("verification", "verify", "a verification of the backups"),
            ("drill", "restore_test", "a restore for a trial"),
            ("offsite", "offsite", "the off-site copy"),
        )
    }
    all_made = {stamp: LONG_AGO for stamp, _ in stamps.values()} | _at("backup_offsite_enabled", LONG_AGO)
    for kind, (stamp, name) in stamps.items():
        wait, minute, severity = {
            "verification": ("26h", 26 * 60 + 20, WARNING),
            "drill": ("2h", 140, WARNING),
        }.get(kind, ("2h", 140, CRITICAL))
        expected = Fires(
            labels=severity | {"kind": kind},
            summary=f"{name} is not there",
            description=f"In {wait} it has not succeeded once, or nobody tells of it.",
        )
        for title, values in (("never", "0+0x1300"), ("nobody tells", "_x1300")):
            yield Case(
                alert="BackupAbsent",
                title=f"{kind}: {title}",
                series=all_made | {stamp: values},
                minute=minute,
                interval="10m",
                fires=(expected,),
            )
    yield Case(
        alert="BackupAbsent",
        title="all are there, no bucket",
        series=all_made | _at("backup_offsite_enabled", "0+0x700") | {stamps["offsite"][0]: "0+0x700"},
        minute=1500,
        interval="10m",
    )


def _too_old(kind: str, warning: int, critical: int, schedule: str) -> Iterator[Case]:
    made = _at("backup_last_success_timestamp_seconds", LONG_AGO, f',kind="{kind}"')

    def at(hours: int, title: str, *fires: tuple[dict[str, str], int]) -> Case:
        return Case(
            alert="BackupTooOld",
            title=f"{kind}: {title}",
            # Made in the first second: so the time is its age.
            series=made,
            minute=hours * 60 + 10,
            interval="5m",
            fires=tuple(
                Fires(
                    labels=labels | AT | {"kind": kind},
                    summary=f"{NAMES[kind]} is too old",
                    description=f"The newest good one is {_age(hours)} old; the threshold is {threshold} h, "
                    f"the schedule {schedule}.",
                )
                for labels, threshold in fires
            ),
        )

    yield at(warning - 1, "in time")
    yield at(warning, "one is missing", (WARNING, warning))
    yield at(critical, "the next one too", (WARNING, warning), (CRITICAL, critical))
    yield Case(
        alert="BackupTooOld",
        title=f"{kind}: none was ever made, which is another alert's",
        series=_at("backup_last_success_timestamp_seconds", "0+0x700", f',kind="{kind}"'),
        minute=60 * 50,
        interval="5m",
    )


def _age(hours: int) -> str:
    """How promtool says hours, nine minutes and 59 seconds."""
    days, rest = divmod(hours, 24)
    return f"{days}d {rest}h 9m 59s" if days else f"{rest}h 9m 59s"


def _runs() -> Iterator[Case]:
    yield from pair(
        "BackupFailed",
        titles=("the last run failed", "it went well"),
        fires=_at("backup_last_exit_code", stays(1), ',kind="dump"'),
        silent=_at("backup_last_exit_code", stays(0), ',kind="dump"'),
        minute=10,
        labels=WARNING | AT | {"kind": "dump"},
        summary="the last dump backup failed",
        description="It ended with 1; those before it are kept.",
    )

    def sizes(before: int, now: int) -> Series:
        return _at("backup_size_bytes", f"{before}+0x170 {now}+0x10", ',kind="base"')

    mib = 2**20
    for title, series, fires in (
        (
            "to a third",
            sizes(90 * mib, 30 * mib),
            (
                Fires(
                    labels=WARNING | AT | {"kind": "base"},
                    summary="the base backup shrank",
                    description="It is 66.67% smaller than the median of seven days; the threshold is 50%.",
                ),
            ),
        ),
        ("by a third", sizes(90 * mib, 60 * mib), ()),
        ("of less than a MiB", sizes(mib // 2, mib // 10), ()),
    ):
        yield Case(alert="BackupShrank", title=title, series=series, minute=175 * 60, fires=fires, interval="1h")
    yield from pair(
        "BackupStampAhead",
        titles=("two are of a time to come", "none is"),
        fires=_at("backup_stamps_ahead", stays(2)),
        silent=_at("backup_stamps_ahead", stays(0)),
        minute=10,
        labels=WARNING | AT,
        summary="the clock was ahead as a backup was made",
        description="So many backups and jobs have a stamp of a time to come: 2. They do not count until then; "
        "new ones are made.",
    )
    yield from pair(
        "BackupVolumeAlmostFull",
        titles=("a tenth is free", "a fifth is"),
        fires=_at("backup_volume_free_bytes", stays(10)) | _at("backup_volume_size_bytes", stays(100)),
        silent=_at("backup_volume_free_bytes", stays(20)) | _at("backup_volume_size_bytes", stays(100)),
        minute=20,
        labels=WARNING | AT,
        summary="no room for backups soon",
        description="10% of their disk is free; the threshold is 15%.",
    )


def _archive() -> Iterator[Case]:
    yield from pair(
        "WalReceiverDown",
        titles=("it is down", "for a moment"),
        fires=_at("backup_wal_receiver_up", stays(0)),
        silent=_at("backup_wal_receiver_up", "1 0 1 0 1 0 1"),
        minute=5,
        labels=CRITICAL | AT,
        summary="the write-ahead log is not received",
        description="What is written now is on PostgreSQL's own disk alone.",
    )

    def behind(seconds: int, title: str, *fires: tuple[dict[str, str], int]) -> Case:
        return Case(
            alert="WalArchiveLagging",
            title=title,
            series=_at("wal_archive_lag_seconds", stays(seconds)),
            minute=10,
            fires=tuple(
                Fires(
                    labels=labels | AT,
                    summary="the backups are behind",
                    description=f"Without PostgreSQL's disk the last {seconds // 60}m {seconds % 60}s would be lost; "
                    f"the threshold is {threshold} s.",
                )
                for labels, threshold in fires
            ),
        )

    yield behind(59, "less than a minute")
    yield behind(61, "more than a minute", (WARNING, 60))
    yield behind(901, "more than a quarter of an hour", (WARNING, 60), (CRITICAL, 900))

    def slot(percent: int, title: str, *fires: dict[str, str]) -> Case:
        return Case(
            alert="BackupSlotGrowing",
            title=title,
            series=_at("backup_slot_retained_bytes", stays(percent)) | _at("backup_slot_limit_bytes", stays(100)),
            minute=10,
            fires=tuple(
                Fires(
                    labels=labels | AT,
                    summary="write-ahead log piles up for the backups",
                    description=f"{percent}% of what PostgreSQL keeps for them is used: at 100% it gives the slot up, "
                    "and the log has a gap.",
                )
                for labels in fires
            ),
        )

    yield slot(40, "two fifths")
    yield slot(60, "three fifths", WARNING)
    yield slot(90, "nearly all", WARNING, CRITICAL)


def _proof() -> Iterator[Case]:
    yield from pair(
        "BackupVerificationFailed",
        titles=("two are damaged", "all are whole"),
        fires=_at("backup_verify_failed", stays(2)),
        silent=_at("backup_verify_failed", stays(0)),
        minute=2,
        labels=CRITICAL | AT,
        summary="backups are damaged",
        description="Things found bad: 2; what they hold cannot be restored from them.",
    )
    yield from pair(
        "RestoreDrillFailed",
        titles=("it failed", "it went well"),
        fires=_at("backup_restore_test_last_exit_code", stays(1)),
        silent=_at("backup_restore_test_last_exit_code", stays(0)),
        minute=2,
        labels=CRITICAL | AT,
        summary="a backup cannot be restored",
        description="The last drill ended with 1: with the database lost, this is what you have.",
    )
    for alert, metric, summary, hours, description in (
        (
            "BackupVerificationTooOld",
            "backup_verify_last_success_timestamp_seconds",
            "the backups are not verified",
            26,
            "The last verification that found everything whole is 1d 2h 59m 59s old; the threshold is 26 h.",
        ),
        (
            "RestoreDrillTooOld",
            "backup_restore_test_last_success_timestamp_seconds",
            "no backup was restored for a long time",
            8 * 24,
            "The last drill that succeeded is 8d 0h 59m 59s old; the threshold is 8 d.",
        ),
    ):
        yield Case(
            alert=alert,
            title="the last one is long ago",
            series=_at(metric, LONG_AGO),
            minute=hours * 60 + 60,
            interval="30m",
            fires=(Fires(labels=WARNING | AT, summary=summary, description=description),),
        )
        yield Case(alert=alert, title="in time", series=_at(metric, LONG_AGO), minute=hours * 60 - 60, interval="30m")


def _offsite() -> Iterator[Case]:
    on, off = _at("backup_offsite_enabled", LONG_AGO), _at("backup_offsite_enabled", "0+0x700")
    yield from pair(
        "BackupOffsiteFailing",
        titles=("the last try failed", "no bucket is configured"),
        fires=on | _at("backup_offsite_last_exit_code", stays(1)),
        silent=off | _at("backup_offsite_last_exit_code", stays(1)),
        minute=40,
        labels=WARNING | AT,
        summary="backups do not reach the bucket",
        description="The last try ended with 1; it is tried again, and nothing here is touched.",
    )
    yield Case(
        alert="BackupOffsiteFailing",
        title="every other try succeeds",
        series=on | _at("backup_offsite_last_exit_code", " ".join(["0 0 1 1"] * 15)),
        minute=40,
    )
    metric, summary = "backup_offsite_last_success_timestamp_seconds", "the off-site copy is old"
    yield from pair(
        "BackupOffsiteStale",
        titles=("the last copy is seven hours old", "no bucket is configured"),
        fires=on | _at(metric, LONG_AGO),
        silent=off | _at(metric, LONG_AGO),
        minute=420,
        labels=CRITICAL | AT,
        summary=summary,
        description="With this machine the last 6h 59m 59s would be lost; the threshold is 6 h.",
    )
    yield Case(alert="BackupOffsiteStale", title="in time", series=on | _at(metric, LONG_AGO), minute=300)
