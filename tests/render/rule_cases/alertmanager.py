"""AlertManager's alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Series, grows, pair, stays

AT = {"job": "alertmanager", "instance": "alertmanager:9093"}
SELF = ",".join(f'{name}="{value}"' for name, value in AT.items())
CRITICAL = {"service": "alertmanager", "severity": "critical"}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    reload = f"alertmanager_config_last_reload_successful{{{SELF}}}"
    yield from pair(
        "AlertmanagerConfigReloadFailed",
        titles=("it failed", "it failed once, then succeeded"),
        fires={reload: "1 0+0x40"},
        silent={reload: "1 0+0x10 1+0x40"},
        minute=20,
        labels=CRITICAL | AT,
        summary="AlertManager refuses its configuration",
        description="It goes on with the one before, and ends at the next start.",
    )

    def notifications(tried: float, failed: float) -> Series:
        # Two receivers send by Telegram, e-mail works, and the other integrations are not configured.
        beat = f'{SELF},integration="webhook",receiver_name="heartbeat"'
        way = f'{SELF},integration="telegram",receiver_name'
        return {
            f'alertmanager_notifications_total{{{way}="on-call"}}': grows(tried),
            f'alertmanager_notifications_total{{{way}="without-email"}}': grows(tried),
            f'alertmanager_notifications_failed_total{{{way}="on-call",reason="serverError"}}': grows(failed),
            f'alertmanager_notifications_failed_total{{{way}="without-email",reason="authError"}}': grows(failed),
            # Beats that nobody takes: who watches for them outside tells.
            f"alertmanager_notifications_total{{{beat}}}": grows(2),
            f"alertmanager_notifications_failed_total{{{beat}}}": grows(2),
            f'alertmanager_notifications_total{{{SELF},integration="email"}}': grows(5),
            f'alertmanager_notifications_failed_total{{{SELF},integration="email",reason="other"}}': stays(0),
            f'alertmanager_notifications_total{{{SELF},integration="slack"}}': stays(0),
            f'alertmanager_notifications_failed_total{{{SELF},integration="slack",reason="other"}}': stays(0),
        }

    yield from pair(
        "AlertmanagerNotificationsFailing",
        titles=("half of those by one way", "all are delivered"),
        fires=notifications(2, 1),
        silent=notifications(2, 0),
        minute=30,
        labels=CRITICAL | {"integration": "telegram"},
        summary="notifications by telegram fail",
        description="50% of the last 15 minutes' notifications were not delivered. "
        f"`make doctor ENV={environment.name}` says why, and the new id of a Telegram group that has one.",
    )

    def beats(failed: float) -> Series:
        way = f'{SELF},integration="webhook",receiver_name="heartbeat"'
        return {
            f"alertmanager_notifications_total{{{way}}}": grows(1),
            f'alertmanager_notifications_failed_total{{{way},reason="clientError"}}': grows(failed),
        }

    yield from pair(
        "HeartbeatFailing",
        titles=("nobody takes it", "all are taken"),
        fires=beats(1),
        silent=beats(0),
        minute=40,
        labels={"service": "alertmanager", "severity": "warning"},
        summary="the heartbeat reaches nobody",
        description="100% of the last 15 minutes' beats to `samokoder:heartbeatUrl` failed: nobody outside would "
        "notice that this machine is gone.",
    )
