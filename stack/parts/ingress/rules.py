"""Alerts on the ingress: whether it answers, and with which errors. There are none on the team's own Traefik."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.common.names import API_PORT
from stack.monitoring.alerts import STORES, Alert, Group, Outlasts, Text, number, share, unless_down, unless_new_job
from stack.parts.ingress.caddyfile import COUNTED_HANDLER
from stack.parts.ingress.spec import PART
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service=PART, dashboard="samokoder-golden-signals")

# Every request of users once: each handler that it comes through counts it.
DURATION = "caddy_http_request_duration_seconds"
ANSWERS = f'job="{PART}",server=~"https?",handler="{COUNTED_HANDLER}"'
REPLICAS = f'caddy_reverse_proxy_upstreams_healthy{{upstream=~"api-[0-9]+:{API_PORT}"}}'


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules; none if no Caddy runs."""
    runs = PART in {part.part for part in parts}
    return Group(name="ingress", rules=[*_alerts(environment.settings.alerts)] if runs else [])


def _alerts(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="IngressDown",
        # The vector: of a job that is gone there is no `up` at all.
        expression=f'(sum(up{{job="{PART}"}}) or vector(0)) == 0' + unless_new_job(PART),
        # An `up` that replaces both has Prometheus there a minute before the ingress, which waits for the API.
        wait="150s",
        severity="critical",
        absence=True,
        outlasts=Outlasts.MISSING,
        summary=Text(en="the ingress is down", ru="входной прокси не работает"),
        description=Text(
            en="Prometheus cannot reach it, and most likely users cannot either: it is their only way in.",
            ru="Prometheus не может его опросить, и, скорее всего, пользователи тоже: другого входа нет.",
        ),
    )
    yield alert(
        name="IngressNoReplica",
        expression=f"max({REPLICAS}) == 0",
        # A minute longer than ApiDown: were it told first, both would be sent.
        wait="3m",
        severity="critical",
        symptom_of=STORES | {"api"},
        outlasts=Outlasts.PROBES,
        summary=Text(
            en="the ingress has no replica to send requests to", ru="входному прокси некому передавать запросы"
        ),
        description=Text(
            en="No replica of the API answers its health check in time: where they are slow, requests are late; "
            "where they are gone, requests wait for 30 s, then they end with 503.",
            ru="Ни одна реплика API не отвечает на проверку вовремя: если они медленны, запросы запаздывают; "
            "если их нет, запросы ждут 30 с и завершаются ответом 503.",
        ),
    )
    failed = f'sum(rate({DURATION}_count{{{ANSWERS},code=~"5.."}}[5m]))'
    yield alert(
        name="IngressErrorRateHigh",
        expression=f"{failed} / sum(rate({DURATION}_count{{{ANSWERS}}}[5m])) > {share(alerts.api_error_percent)}"
        + unless_down(STORES, "5m"),
        wait="5m",
        severity="warning",
        summary=Text(en="users get many errors", ru="пользователи получают много ошибок"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the ingress' answers of five minutes are 5xx; "
            f"the threshold is {number(alerts.api_error_percent)}%.",
            ru="{{ $value | humanizePercentage }} ответов входного прокси за пять минут — 5xx; "
            f"порог — {number(alerts.api_error_percent)}%.",
        ),
        symptom_of=STORES,
    )
