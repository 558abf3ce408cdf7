"""Each kind of backup and the copy off-site: whether the newest good one is young enough."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.clone import typed
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from stack.parts.backup import rules as backups
from stack.parts.backup import spec as backup
from stack.settings.keys import key_of
from stack.settings.types import seconds as seconds_of


def backup_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield a check for each kind of backup, and one for the copy off-site where there is a bucket."""

    def off() -> str:
        raise NotConfiguredError(f"no backups are made: {key_of('backup', 'enabled')} is false")

    schedules = backup.kinds(asked.environment)
    if not schedules:
        yield Check(name="backup", ask=off)
    for kind, schedule in schedules.items():
        yield Check(name=f"backup {kind}", ask=partial(_kind, asked, kind, schedule))
    if asked.environment.offsite:
        yield Check(name="backup offsite", ask=partial(_offsite, asked))


def _kind(asked: StackAsked, kind: str, schedule: str) -> str:
    asked.need_target(asked.spec(backup.PART))
    if [value for _, value in asked.samples(f'backup_last_exit_code{{kind="{kind}"}}') if value]:
        raise FailedError(f"the last run failed ({_logs(asked)}); what was made before is kept")
    oldest, _ = backups.late_hours(asked.environment.settings.alerts, schedule)
    hours = _hours_old(asked, backups.age(kind), f"the schedule is {schedule}")
    if hours > oldest:
        raise FailedError(f"the newest good one is {hours:.1f} h old; by {schedule} {oldest} h are too many")
    return f"{hours:.1f} h old, the schedule is {schedule}"


def _offsite(asked: StackAsked) -> str:
    asked.need_target(asked.spec(backup.PART))
    if [value for _, value in asked.samples(backups.OFFSITE_FAILING) if value]:
        raise FailedError(f"the backups do not reach the bucket ({_logs(asked)}); it is tried again")
    oldest = asked.environment.settings.alerts.backup_offsite_hours
    hours = _hours_old(asked, backups.OFFSITE_AGE, "it follows the first backup")
    if hours > oldest:
        limit = key_of("alerts", "backup_offsite_hours")
        raise FailedError(f"the last whole copy is {hours:.1f} h old; {oldest:g} h are allowed ({limit})")
    return f"the last whole copy is {hours:.1f} h old"


def _hours_old(asked: StackAsked, age: str, when: str) -> float:
    """Return the age of the newest good one. age: the question for it; when: what makes the first one."""
    if ages := [value for _, value in asked.samples(age)]:
        return ages[0] / 3600
    up = asked.rows[backup.PART].uptime_seconds or 0
    if up < seconds_of(backups.FIRST):
        raise UnavailableError(f"none yet, {up} s after its start; {when}")
    raise FailedError(f"there is none, after {up / 3600:.1f} h")


def _logs(asked: StackAsked) -> str:
    return typed(asked.environment.name, f"logs PART={backup.PART}")
