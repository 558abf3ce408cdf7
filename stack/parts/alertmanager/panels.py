"""AlertManager's panels, on the dashboard of the monitoring."""

from __future__ import annotations

from stack.monitoring.panels import PER_SECOND, Limit, Panel, Query, series
from stack.monitoring.promql import counted, quantile, total

ALERTMANAGER = 'job="alertmanager"'


def alerts_now() -> list[Panel]:
    """Describe the panels of AlertManager's alerts and silences."""
    return [
        series(
            "Alerts in AlertManager",
            "What AlertManager knows: active alerts are sent, suppressed ones are silenced or explained by another.",
            "short",
            Query(f"sum by (state) (alertmanager_alerts{{{ALERTMANAGER}}})", "{{state}}"),
            stacked=True,
        ),
        series(
            "Alerts received",
            "Alerts a second from Prometheus, and those that AlertManager did not understand.",
            PER_SECOND,
            Query(total("alertmanager_alerts_received_total", ALERTMANAGER, "status"), "{{status}}"),
            Query(total("alertmanager_alerts_invalid_total", ALERTMANAGER), "invalid"),
        ),
        series(
            "Silences",
            "Silences by state.",
            "short",
            Query(f"sum by (state) (alertmanager_silences{{{ALERTMANAGER}}})", "{{state}}"),
        ),
    ]


def notifications() -> list[Panel]:
    """Describe the panels of notifications that were sent or failed."""
    failed, tried = (
        total(f"alertmanager_notifications_{kind}", ALERTMANAGER, "integration", "15m")
        for kind in ("failed_total", "total")
    )
    attempts = counted("15m", "alertmanager_notifications_total", ALERTMANAGER, "integration, receiver_name")
    return [
        series(
            "Notifications",
            "Attempts to send in 15 minutes, by integration and receiver. Without a receiver there is nothing to see.",
            "short",
            Query(attempts, "{{receiver_name}} {{integration}}"),
        ),
        series(
            "Notifications that fail",
            "Share of the attempts of the last 15 minutes that failed; 0 as well where there was none.",
            "percentunit",
            Query(f"{failed} / ({tried} > 0) or 0 * {tried}", "{{integration}}"),
            limits=[Limit(alert="AlertmanagerNotificationsFailing", value=0.01, severity="critical")],
        ),
        series(
            "Duration of sending",
            "Time within which 95 of 100 notifications of the last 15 minutes were sent.",
            "s",
            Query(
                quantile(0.95, "alertmanager_notification_latency_seconds", ALERTMANAGER, "integration", "15m"),
                "{{integration}}",
            ),
        ),
    ]
