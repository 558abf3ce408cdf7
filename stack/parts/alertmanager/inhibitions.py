"""Which alerts another one makes needless: the inhibition rules of alertmanager.yml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stack.monitoring.alerts import Alert, down_alert
from stack.parts.alertmanager.routing import TEST_ALERT, WATCHDOG, matcher
from stack.parts.api import spec as api
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.ingress import spec as ingress

# Of two alerts about the same thing the one that says more, what it makes needless, and by which labels it is the same.
_SAYS_MORE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("HostDiskAlmostFull", ("HostDiskLow", "HostDiskFillsSoon"), ("instance", "mountpoint")),
    ("HostMemoryExhausted", ("HostMemoryLow",), ("instance",)),
    ("PostgresConnectionsExhausted", ("PostgresConnectionsHigh",), ("service",)),
    ("TlsCertificateExpiresVerySoon", ("TlsCertificateExpiresSoon",), ("instance",)),
)
_GONE = "ContainerMissing"
_STORES_NOTHING = "PrometheusNotIngesting"
_UNHEALTHY = "ContainerUnhealthy"
# What else is noticed of a part that is down. None of them says that it is: the network may be, or one replica.
_NOTICED = frozenset({"ContainerUnhealthy", "ProbeFailed", "TargetDown"})
# Service of an alert about one replica, which is a part of its own.
_REPLICA = f"{api.JOB}-[0-9]+"
# Any of them keeps users out, and says more than a page that does not answer.
_KEEPS_USERS_OUT = frozenset({down_alert(api.JOB), down_alert(ingress.PART), "IngressNoReplica"})


def inhibitions(alerts: Iterable[Alert]) -> Iterator[dict[str, Any]]:
    """Yield the inhibition rules: an alert that explains others keeps them back.

    alerts: every alert that there is. The Watchdog and the test alert are kept back by nothing.
    """
    known = [alert for alert in alerts if alert.name not in {WATCHDOG, TEST_ALERT}]
    down = {alert.name for alert in known if alert.name == down_alert(alert.service)}
    noticed = _NOTICED | {alert.name for alert in known if alert.name.endswith("Down")} - down
    if _STORES_NOTHING in {alert.name for alert in known}:
        # What was measured is gone, so that whatever else is told then is false, and so is its end.
        yield {
            "source_matchers": [matcher("alertname", _STORES_NOTHING)],
            "target_matchers": [f'alertname!~"{"|".join(sorted((_STORES_NOTHING, TEST_ALERT, WATCHDOG)))}"'],
        }
    # `equal` takes a label that both lack for equal. Every alert has a service, and of one name all have the same
    # labels, so that is what is wanted here: the same alert, about the same thing. The kind is a backup's.
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
    # One alert says it. The other way round, PostgresDown would be kept back by the missing container, which is noticed
    # later: both would be sent, and an end that comes while an alert is kept back is never sent.
    if down:
        yield {
            "source_matchers": [matcher("alertname", *down)],
            "target_matchers": [matcher("alertname", _GONE, *noticed)],
            "equal": ["service"],
        }
    if out := _KEEPS_USERS_OUT & {alert.name for alert in known}:
        pages = matcher("service", blackbox_exporter.PUBLIC, ingress.PART)
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
        # Critical: a symptom may be, and must not be kept back by what wakes nobody.
        source = [matcher("alertname", *causes), matcher("service", part), matcher("severity", "critical")]
        symptoms = [alert for alert in known if part in alert.symptom_of and alert.name not in causes]
        if symptoms:
            names = {alert.name for alert in symptoms}
            yield {"source_matchers": source, "target_matchers": [matcher("alertname", *names)]}
        others = {alert.service for alert in symptoms} - {part}
        if others and down_alert(part) in down:
            # What shows such symptoms is not ready without it either, and says so when it is asked.
            others |= {_REPLICA} if api.JOB in others else set()
            targets = [matcher("alertname", _UNHEALTHY, "ProbeFailed"), matcher("service", *others)]
            yield {"source_matchers": [*source], "target_matchers": targets}
