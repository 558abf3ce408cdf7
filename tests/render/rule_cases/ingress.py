"""The ingress' alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import HISTORY, Case, Fires, Series, grows, pair, stays

CRITICAL = {"service": "ingress", "severity": "critical"}
WARNING = {"service": "ingress", "severity": "warning"}
UP = 'up{job="ingress",instance="ingress:9180"}'


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    summary = "the ingress is down"
    description = "Prometheus cannot reach it, and most likely users cannot either: it is their only way in."
    yield from pair(
        "IngressDown",
        titles=("it cannot be scraped", "it can"),
        fires={UP: "1 0+0x9"},
        silent={UP: stays(1)},
        minute=5,
        labels=CRITICAL,
        summary=summary,
        description=description,
    )
    yield Case(
        alert="IngressDown",
        title="it comes up two minutes after Prometheus, on a slow machine",
        series={UP: "0+0x2 1+0x9"},
        minute=2,
        fires=(),
    )
    yield Case(
        alert="IngressDown",
        title="there is no such target",
        series=HISTORY,
        minute=20,
        fires=(Fires(labels=CRITICAL, summary=summary, description=description),),
    )
    yield Case(alert="IngressDown", title="a first up has not made it yet", series=HISTORY, minute=14)
    yield from _replicas()
    yield from _errors()


def _replicas() -> Iterator[Case]:
    yield from pair(
        "IngressNoReplica",
        titles=("neither answers", "one of two answers"),
        # The proxies that requests take are in the metrics, too: by another name, and they know of no probe.
        fires=_healthy("0", "0") | {'caddy_reverse_proxy_upstreams_healthy{upstream="api-1.:8000"}': stays(1)},
        silent=_healthy("1", "0"),
        minute=5,
        labels=CRITICAL,
        summary="the ingress has no replica to send requests to",
        description="No replica of the API answers its health check in time: where they are slow, requests are late; "
        "where they are gone, requests wait for 30 s, then they end with 503.",
    )


def _healthy(*values: str) -> Series:
    return {
        f'caddy_reverse_proxy_upstreams_healthy{{job="ingress",upstream="api-{number}:8000"}}': f"{value}+0x10"
        for number, value in enumerate(values, 1)
    }


def _errors() -> Iterator[Case]:
    yield from pair(
        "IngressErrorRateHigh",
        fires=_answers({"200": 90, "502": 6, "503": 4}),
        silent=_answers({"200": 96, "503": 4}),
        minute=15,
        labels=WARNING,
        summary="users get many errors",
        description="10% of the ingress' answers of five minutes are 5xx; the threshold is 5%.",
    )
    yield Case(
        alert="IngressErrorRateHigh",
        title="of other handlers, and of what the parts of the stack ask each other",
        series=_answers({"200": 100})
        | _answers({"502": 100}, handler="reverse_proxy", server="srv0")
        | _answers({"502": 100}, server="internal"),
        minute=15,
    )


def _answers(by_code: dict[str, float], handler: str = "log_append", server: str = "http") -> Series:
    labels = f'job="ingress",server="{server}",handler="{handler}",method="GET"'
    return {
        f'caddy_http_request_duration_seconds_count{{{labels},code="{code}"}}': grows(by)
        for code, by in by_code.items()
    }
