"""The inhibition rules of alertmanager.yml: which alerts are not sent while another one explains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stack.monitoring.alerts import Alert, down_alert
from stack.parts.alertmanager.routing import TEST_ALERT, WATCHDOG, matcher
from stack.parts.api import spec as api
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.ingress import spec as ingress
from stack.parts.worker import spec as worker
from stack.settings.ingress import IngressSettings

# More severe alert, the milder alerts that it inhibits, and the labels that are equal if both are about the same thing.
_SAYS_MORE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("HostDiskAlmostFull", ("HostDiskLow", "HostDiskFillsSoon"), ("instance", "mountpoint")),
    ("HostMemoryExhausted", ("HostMemoryLow",), ("instance",)),
    # A silent managed store fails its exporter's scrapes.
    ("PostgresDown", ("TargetDown",), ("job",)),
    ("RedisDown", ("TargetDown",), ("job",)),
    ("PostgresConnectionsExhausted", ("PostgresConnectionsHigh",), ("service",)),
    ("TlsCertificateExpiresVerySoon", ("TlsCertificateExpiresSoon",), ("instance",)),
)
_GONE = "ContainerMissing"
_STORES_NOTHING = "PrometheusNotIngesting"
_UNHEALTHY = "ContainerUnhealthy"
# Other alerts that fire when a part is down. None of them proves it: the cause may be the network, or one replica.
_NOTICED = frozenset({"ContainerUnhealthy", "ProbeFailed", "TargetDown"})
# Service of an alert about one replica, which is a part of its own.
_REPLICA = f"{api.JOB}-[0-9]+"
# They answer that they are not ready without a part whose failure they have symptoms of. The ingress and the backup
# server have such symptoms as well, and answer their health checks and probes all the same.
_READY_BY_OTHERS = frozenset({api.JOB, worker.PART})
# Any of them keeps users out, and says more than a page that does not answer.
_KEEPS_USERS_OUT = frozenset({down_alert(api.JOB), down_alert(ingress.PART), "IngressNoReplica"})


def inhibitions(alerts: Iterable[Alert], ingress_settings: IngressSettings) -> Iterator[dict[str, Any]]:
    """Yield the inhibition rules: an alert inhibits the alerts that it explains.

    alerts: all alerts of the environment. Nothing inhibits the Watchdog and the test alert.
    """
    known = [alert for alert in alerts if alert.name not in {WATCHDOG, TEST_ALERT}]
    down = {alert.name for alert in known if alert.name == down_alert(alert.service)}
    noticed = _NOTICED | {alert.name for alert in known if alert.name.endswith("Down")} - down
    if _STORES_NOTHING in {alert.name for alert in known}:
        # Prometheus stores no samples then, so every other alert that starts or ends is false.
        yield {
            "source_matchers": [matcher("alertname", _STORES_NOTHING)],
            "target_matchers": [f'alertname!~"{"|".join(sorted((_STORES_NOTHING, TEST_ALERT, WATCHDOG)))}"'],
        }
    # `equal` also holds for a label that both alerts lack. All alerts have a service, and alerts of one name have the
    # same labels, so these four labels mean: the same alert about the same object. `kind` is the kind of a backup.
    yield {
        "source_matchers": [matcher("severity", "critical")],
        "target_matchers": ['severity=~"info|warning"', f'alertname!="{TEST_ALERT}"'],
        "equal": ["alertname", "service", "instance", "kind"],
    }
    for more, less, same in _SAYS_MORE:
        yield {
            "source_matchers": [matcher("alertname", more)],
            "target_matchers": [matcher("alertname", *less)],
            "equal": list(same),
        }
    # PostgresDown inhibits ContainerMissing and not the reverse, because ContainerMissing fires later: both would be
    # sent, and the end of PostgresDown would never be sent, because AlertManager drops it while the alert is inhibited.
    if down:
        yield {
            "source_matchers": [matcher("alertname", *down)],
            "target_matchers": [matcher("alertname", _GONE, *noticed)],
            "equal": ["service"],
        }
    if out := _KEEPS_USERS_OUT & {alert.name for alert in known}:
        # With a domain the ingress answers its own page by itself.
        pages = matcher("service", blackbox_exporter.PUBLIC, *([] if ingress_settings.domain else [ingress.PART]))
        yield {
            "source_matchers": [matcher("alertname", *out)],
            "target_matchers": [matcher("alertname", "ProbeFailed"), pages],
        }
    if down_alert(api.JOB) in down:
        yield {
            "source_matchers": [matcher("alertname", down_alert(api.JOB))],
            "target_matchers": [matcher("alertname", _GONE, *noticed), f'service=~"{_REPLICA}"'],
        }
    yield {
        "source_matchers": [matcher("alertname", _GONE)],
        "target_matchers": [matcher("alertname", *noticed)],
        "equal": ["service"],
    }
    for part in sorted(frozenset[str]().union(*(alert.symptom_of for alert in known))):
        causes = {_GONE, _UNHEALTHY} | ({down_alert(part)} & down)
        # Only critical causes: a symptom may be critical, and an alert that wakes nobody must not inhibit it.
        source = [matcher("alertname", *causes), matcher("service", part), matcher("severity", "critical")]
        symptoms = [alert for alert in known if part in alert.symptom_of and alert.name not in causes]
        if symptoms:
            names = {alert.name for alert in symptoms}
            yield {"source_matchers": source, "target_matchers": [matcher("alertname", *names)]}
        others = _READY_BY_OTHERS & {alert.service for alert in symptoms} - {part}
        if others and down_alert(part) in down:
            others |= {_REPLICA} if api.JOB in others else set()
            targets = [matcher("alertname", _UNHEALTHY, "ProbeFailed"), matcher("service", *others)]
            yield {"source_matchers": [*source], "target_matchers": targets}
