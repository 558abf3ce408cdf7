"""Alerts on AlertManager: whether it accepted its configuration, and whether its notifications are delivered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import ceil

from stack.common.names import typed
from stack.monitoring.alerts import Alert, Group, Text
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.service import ServiceSpec

HEARTBEAT = "heartbeat"
"""AlertManager's receiver that only the Watchdog is sent to."""

alert = partial(Alert, service="alertmanager", dashboard="samokoder-monitoring")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    return Group(name="alertmanager", rules=[*_alerts(environment)])


def beats_minutes(environment: Environment) -> int:
    """Return the minutes of the heartbeat that are judged together: four beats, and at least 15 minutes."""
    return max(15, ceil(seconds(environment.settings.alertmanager.heartbeat_interval) / 15))


def failing(matcher: str = "", minutes: int = 15) -> str:
    """Return the expression for the share of failed notifications of the last minutes, by integration.

    matcher: further matcher of the series. The heartbeat does not count, because it reaches no person, and the service
    outside that expects it notices when it stops.
    """
    matchers = ",".join(filter(None, ('job="alertmanager"', f'receiver_name!="{HEARTBEAT}"', matcher)))
    failed, tried = (
        f"sum by (integration) (rate(alertmanager_notifications_{kind}{{{matchers}}}[{minutes}m]))"
        for kind in ("failed_total", "total")
    )
    return f"{failed} / ({tried} > 0)"


def _alerts(environment: Environment) -> Iterator[Alert]:
    doctor = typed(environment.name, "doctor")
    yield alert(
        name="AlertmanagerConfigReloadFailed",
        expression='max_over_time(alertmanager_config_last_reload_successful{job="alertmanager"}[5m]) == 0',
        wait="10m",
        severity="critical",
        summary=Text(en="AlertManager refuses its configuration", ru="AlertManager не принимает конфигурацию"),
        description=Text(
            en="It goes on with the one before, and ends at the next start.",
            ru="Пока действует прежняя, а следующий запуск завершится ошибкой.",
        ),
    )
    yield alert(
        name="AlertmanagerNotificationsFailing",
        # The sum of all failure reasons, whose names changed in 0.34. The label `integration` routes this alert to the
        # other integrations.
        expression=f"{failing()} > 0.01",
        wait="5m",
        severity="critical",
        summary=Text(
            en="notifications by {{ $labels.integration }} fail",
            ru="уведомления через {{ $labels.integration }} не доходят",
        ),
        description=Text(
            en="{{ $value | humanizePercentage }} of the last 15 minutes' notifications were not delivered. "
            f"`{doctor}` says why, and the new id of a Telegram group that has one.",
            ru="Не доставлено {{ $value | humanizePercentage }} уведомлений за последние 15 минут. "
            f"`{doctor}` скажет, почему, и новый id группы Telegram, если он сменился.",
        ),
    )
    beats = f'job="alertmanager",receiver_name="{HEARTBEAT}"'
    # One lost beat of a slow heartbeat is no share to judge by.
    window = beats_minutes(environment)
    wait = max(10, window // 2)
    failed, tried = (
        f"sum (rate(alertmanager_notifications_{kind}{{{beats}}}[{window}m]))" for kind in ("failed_total", "total")
    )
    yield alert(
        name="HeartbeatFailing",
        # The service outside raises no alarm if it never got a heartbeat; a working integration can tell a person.
        expression=f"{failed} / ({tried} > 0) > 0.5",
        wait=f"{wait}m",
        severity="warning",
        summary=Text(en="the heartbeat reaches nobody", ru="сигнал жизни никто не получает"),
        description=Text(
            en="{{ $value | humanizePercentage }} of "
            f"the last {window} minutes' beats to `samokoder:heartbeatUrl` failed: "
            "nobody outside would notice that this machine is gone.",
            ru="Не принято {{ $value | humanizePercentage }} сигналов на `samokoder:heartbeatUrl` за последние "
            f"{window} минут: пропажу этой машины никто не заметит.",
        ),
    )
