"""Each kind of backup: whether its newest good one is young enough."""

from __future__ import annotations

from collections.abc import Iterator

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.clone import typed
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from stack.parts.backup import rules as backups
from stack.parts.backup import spec as backup
from stack.settings.keys import key_of
from stack.settings.types import seconds as seconds_of


def backup_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield a check for each kind of backup."""

    def off() -> str:
        raise NotConfiguredError(f"no backups are made: {key_of('backup', 'enabled')} is false")

    schedules = backup.kinds(asked.environment)
    if not schedules:
        yield Check(name="backup", ask=off)
    for kind, schedule in schedules.items():

        def ask(kind: str = kind, schedule: str = schedule) -> str:
            asked.need_target(asked.spec(backup.PART))
            if [value for _, value in asked.samples(f'backup_last_exit_code{{kind="{kind}"}}') if value]:
                logs = typed(asked.environment.name, "logs PART=backup")
                raise FailedError(f"the last run failed ({logs}); what was made before is kept")
            oldest, _ = backups.late_hours(asked.environment.settings.alerts, schedule)
            ages = [value for _, value in asked.samples(backups.age(kind))]
            if not ages:
                up = asked.rows[backup.PART].uptime_seconds or 0
                if up < seconds_of(backups.FIRST):
                    raise UnavailableError(f"none yet, {up} s after its start; the schedule is {schedule}")
                raise FailedError(f"there is none, after {up / 3600:.1f} h")
            hours = ages[0] / 3600
            if hours > oldest:
                raise FailedError(f"the newest good one is {hours:.1f} h old; by {schedule} {oldest} h are too many")
            return f"{hours:.1f} h old, the schedule is {schedule}"

        yield Check(name=f"backup {kind}", ask=ask)
