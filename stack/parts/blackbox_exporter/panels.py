"""Panels of the probes, on the dashboard of the monitoring."""

from __future__ import annotations

from stack.monitoring.boards import replicas
from stack.monitoring.panels import UP, Limit, Panel, Query, lines, series, states
from stack.monitoring.promql import ratio
from stack.parts.blackbox_exporter import rules as probes
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

PAGE = 'service=~"$service"'


def probes_now(environment: Environment) -> list[Panel]:
    """Describe the panels of which pages answer, and how fast."""
    alerts = environment.settings.alerts
    return [
        states(
            "Probes",
            "Whether each page answers as it should.",
            [Query(f"min by (service) (probe_success{{{PAGE}}})", "{{service}}")],
            UP,
            watched_by=["ProbeFailed"],
            bands=replicas(environment),
        ),
        series(
            "Duration of probes",
            "Time until a page has answered, mean of ten minutes.",
            "s",
            Query(f"max by (service) (avg_over_time(probe_duration_seconds{{{PAGE}}}[10m]))", "{{service}}"),
            limits=[Limit(alert="ProbeSlow", value=alerts.probe_seconds)],
        ),
        series(
            "Duration by phase",
            "Mean time that a probe spends in each of its phases.",
            "s",
            Query(f"avg by (phase) (probe_http_duration_seconds{{{PAGE}}})", "{{phase}}"),
            watched_by=["ProbeSlow"],
            stacked=True,
        ),
    ]


def pages(alerts: Alerts) -> list[Panel]:
    """Describe the panels of the pages' answers and certificates."""
    return [
        lines(
            "Answers",
            "HTTP status of each page at the last probe; 0: no answer.",
            f"max by (service, instance) (probe_http_status_code{{{PAGE}}})",
            {"service": "part", "instance": "page", "Value": "status"},
            watched_by=["ProbeFailed"],
        ),
        series(
            "Certificates",
            "Time until the first certificate of a page's chain expires. Only pages with TLS have one. An alert waits "
            "for its line in the next panel, too.",
            "s",
            Query(f"min by (service, instance) ({probes.LEFT})", "{{service}}"),
            limits=[
                Limit(alert="TlsCertificateExpiresSoon", value=alerts.tls_expires_days * 86400, below=True),
                Limit(
                    alert="TlsCertificateExpiresVerySoon",
                    value=alerts.tls_expires_very_soon_days * 86400,
                    severity="critical",
                    below=True,
                ),
            ],
            absent="no page with TLS",
        ),
        series(
            "Life of certificates",
            "How much of its life a certificate has left: Caddy renews it at a third. An alert waits for its line in "
            "the panel before, too.",
            "percentunit",
            Query(f"min by (service, instance) ({probes.LIFE_LEFT})", "{{service}}"),
            limits=[
                Limit(alert="TlsCertificateExpiresSoon", value=ratio(alerts.tls_expires_percent), below=True),
                Limit(
                    alert="TlsCertificateExpiresVerySoon",
                    value=ratio(alerts.tls_expires_very_soon_percent),
                    severity="critical",
                    below=True,
                ),
            ],
            absent="no page with TLS",
            top=1,
        ),
    ]
