"""The four golden signals of the API: latency, traffic, errors, saturation."""

from __future__ import annotations

from decimal import Decimal

from stack.common.names import API_PORT
from stack.monitoring.alerts import number, share
from stack.monitoring.boards import Board, Row, board, choice
from stack.monitoring.panels import PER_SECOND, Limit, Panel, Query, figure, series
from stack.monitoring.promql import (
    CONTAINER_PART,
    cpu_held_back,
    cpu_of_limit,
    memory_of_limit,
    names_of,
    or_zero,
    quantile,
    ratio,
    total,
)
from stack.parts.api import rules as api
from stack.parts.ingress import rules as ingress
from stack.parts.postgres import dashboard as postgres
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-golden-signals"
API = 'job="api",instance=~"$replica"'
REQUESTS = "samokoder_http_requests_total"
DURATION = "samokoder_http_request_duration_seconds"
STATEMENTS = "samokoder_db_query_duration_seconds"


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    return board(
        environment,
        uid=UID,
        parts=("api", "ingress"),
        title="Golden signals",
        description="Whether the API answers, how fast, how often with an error, and how much more it can take.",
        choices=[choice("replica", "Replica", "Replicas of the API.", 'label_values(up{job="api"}, instance)')],
        since="now-3h",
        figures=_now(environment),
        beside=_by_status(),
        rows=[
            Row("Latency", _latency(alerts)),
            Row("Traffic", _traffic()),
            Row("Errors", _objectives(alerts), _errors(alerts)),
            Row("Saturation", _load(environment), _database(alerts)),
            *([Row("Entry", _entry(environment))] if "ingress" not in environment.absent else []),
        ],
    )


def _now(environment: Environment) -> list[Panel]:
    alerts = environment.settings.alerts
    errors, _ = api.slos(alerts)
    return [
        figure(
            "Replicas that answer",
            "Replicas of the API that Prometheus gets metrics from.",
            "short",
            # All replicas, because the thresholds are about the number of all replicas.
            or_zero('sum(up{job="api"})'),
            limits=[
                Limit(alert="ApiDown", value=1, severity="critical", below=True),
                *_fewer(environment, "ApiReplicaDown"),
            ],
            watched_by=["ApiReplicaDown"],
        ),
        figure("Requests", "Requests a second, without probes.", "reqps", total(REQUESTS, API)),
        figure(
            "Errors",
            "Share of the requests of the last five minutes that ended with a 5xx.",
            "percentunit",
            errors.ratio("5m"),
            limits=[_error_rate(alerts)],
            absent="no requests",
        ),
        figure(
            "95th percentile",
            "95 of 100 requests of the last five minutes were answered within this time.",
            "s",
            quantile(0.95, DURATION, API, window="5m"),
            limits=[_p95(alerts)],
            absent="no requests",
        ),
        figure(
            "Error budget left",
            f"Of the 5xx that the objective of {number(errors.percent)} % allows in three days, so many are left; "
            "-100 % where twice as many were used, or more.",
            "percentunit",
            f"clamp_min(1 - {_burn(errors, '3d')}, -1)",
            limits=[Limit(alert=errors.alert, value=0, below=True)],
            absent="no requests",
        ),
        figure(
            "In progress",
            "Requests that are being answered at this moment.",
            "short",
            f"sum(samokoder_http_requests_in_progress{{{API}}})",
            limits=[_in_progress(alerts)],
        ),
    ]


def _latency(alerts: Alerts) -> list[Panel]:
    _, slow = api.slos(alerts)
    return [
        series(
            "Latency",
            "Time within which 50, 95 and 99 of 100 requests are answered. The line is for the 95th percentile. "
            "Longer ones than the last bucket of the histogram, 10 s, count as that.",
            "s",
            *(Query(quantile(part, DURATION, API), f"p{part * 100:g}") for part in (0.5, 0.95, 0.99)),
            limits=[_p95(alerts)],
        ),
        series(
            "95th percentile by endpoint",
            "Time within which 95 of 100 requests to a route are answered.",
            "s",
            Query(quantile(0.95, DURATION, API, "endpoint"), "{{endpoint}}"),
            watched_by=["ApiLatencyHigh"],
        ),
        series(
            "Slow requests",
            f"Share of the requests that took longer than {number(alerts.api_fast_seconds)} s, over three windows. "
            f"Objective: {number(slow.percent)} % are faster.",
            "percentunit",
            *(Query(slow.ratio(window), window) for window in ("5m", "1h", "6h")),
            watched_by=[slow.alert],
        ),
    ]


def _by_status() -> Panel:
    return series(
        "Requests by status",
        "Requests a second by the class of their answer.",
        "reqps",
        Query(total(REQUESTS, f'{API},status=~"2.."'), "2xx"),
        *(Query(or_zero(total(REQUESTS, f'{API},status=~"{digit}.."')), f"{digit}xx") for digit in (3, 4, 5)),
        watched_by=["ApiTrafficDrop"],
        stacked=True,
    )


def _traffic() -> list[Panel]:
    return [
        series(
            "Requests by endpoint",
            "Requests a second by route; `unmatched` is what no route was found for.",
            "reqps",
            Query(total(REQUESTS, API, "endpoint"), "{{endpoint}}"),
            stacked=True,
        ),
        series(
            "Requests by replica",
            "Requests a second that each replica of the API answers.",
            "reqps",
            Query(total(REQUESTS, API, "instance"), "{{instance}}"),
            watched_by=["ApiReplicaDown"],
        ),
    ]


def _objectives(alerts: Alerts) -> list[Panel]:
    errors, slow = api.slos(alerts)
    return [
        series(
            "Error ratio",
            "Share of the requests that ended with a 5xx, over three windows. The line is for 5m.",
            "percentunit",
            *(Query(errors.ratio(window), window) for window in ("5m", "1h", "6h")),
            limits=[_error_rate(alerts)],
        ),
        _burn_rate(
            "Burn rate of the error budget",
            f"1: as many requests end with a 5xx as the objective of {number(errors.percent)} % allows.",
            errors,
        ),
        _burn_rate(
            "Burn rate of the latency budget",
            f"1: as many requests take longer than {number(alerts.api_fast_seconds)} s as the objective of "
            f"{number(slow.percent)} % allows.",
            slow,
        ),
    ]


def _errors(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Server errors by endpoint",
            "Answers 5xx a second by route.",
            "reqps",
            _answers("5.."),
            watched_by=["ApiErrorRateHigh", "ApiErrorBudgetBurn"],
        ),
        series(
            "Client errors by endpoint",
            "Answers 4xx a second by route: wrong requests, missing logins, rate limits.",
            "reqps",
            _answers("4.."),
            watched_by=["RateLimitHitsHigh", "AuthenticationFailureSpike"],
        ),
        series(
            "Database errors",
            "Errors of API and worker at the database a second, by the exception's class.",
            PER_SECOND,
            Query(total("samokoder_db_errors_total"), "all"),
            Query(total("samokoder_db_errors_total", by="job, error_type"), "{{job}} {{error_type}}"),
            limits=[Limit(alert="DatabaseErrors", value=alerts.database_errors_per_second)],
        ),
    ]


def _load(environment: Environment) -> list[Panel]:
    alerts = environment.settings.alerts
    containers = names_of(environment, "api")
    in_progress = f"samokoder_http_requests_in_progress{{{API}}}"
    return [
        series(
            "Requests in progress",
            "Requests that are being answered at the same time.",
            "short",
            Query(f"sum({in_progress})", "all"),
            Query(f"sum by (instance) ({in_progress})", "{{instance}}"),
            limits=[_in_progress(alerts)],
        ),
        series(
            "CPU of the API",
            "CPU that each replica uses, of its limit, and the share of time in which the limit held it back: "
            "the line is for that.",
            "percentunit",
            Query(_of_chosen(cpu_of_limit(containers)), "{{instance}}"),
            Query(_of_chosen(cpu_held_back(containers)), "{{instance}} held back"),
            limits=[Limit(alert="ContainerCpuThrottled", value=ratio(alerts.container_throttled_percent))],
            top=1,
        ),
        series(
            "Memory of the API",
            "Memory that each replica uses, of its limit; at it the kernel ends the process.",
            "percentunit",
            Query(_of_chosen(memory_of_limit(containers)), "{{instance}}"),
            limits=[Limit(alert="ContainerMemoryNearLimit", value=ratio(alerts.container_memory_percent))],
            top=1,
        ),
    ]


def _database(alerts: Alerts) -> list[Panel]:
    return [
        postgres.connections_used(alerts),
        series(
            "Duration of statements",
            "Time within which 95 of 100 statements of API and worker are done, as they see it.",
            "s",
            Query(quantile(0.95, STATEMENTS), "all"),
            Query(quantile(0.95, STATEMENTS, by="operation"), "{{operation}}"),
            limits=[Limit(alert="SlowDatabaseQueries", value=alerts.database_query_p95_seconds)],
        ),
        series(
            "Statements",
            "Statements of API and worker a second.",
            "ops",
            Query(total(f"{STATEMENTS}_count", by="job, operation"), "{{job}} {{operation}}"),
            stacked=True,
        ),
    ]


def _fewer(environment: Environment, alert: str = "") -> list[Limit]:
    """Return the threshold below which a replica is missing; none for a single replica. alert: the alert, if any."""
    replicas = environment.settings.api.replicas
    return [Limit(alert=alert, value=replicas, below=True)] if replicas > 1 else []


def _entry(environment: Environment) -> list[Panel]:
    """Describe the panels of the answers that users get from API, frontend and the ingress itself."""
    alerts = environment.settings.alerts
    count = f"{ingress.DURATION}_count"
    # There is no series for 5xx before the first one; with traffic and no error the share must be 0, not "no data".
    failed = f"""({total(count, f'{ingress.ANSWERS},code=~"5.."')} or 0 * {total(count, ingress.ANSWERS)})"""
    return [
        figure(
            "Replicas with traffic",
            "Replicas of the API whose last probe by the ingress was good.",
            "short",
            f"sum(max by (upstream) ({ingress.REPLICAS}))",
            limits=[Limit(alert="IngressNoReplica", value=1, severity="critical", below=True), *_fewer(environment)],
            watched_by=["IngressDown"],
        ),
        series(
            "Answers to users",
            "Answers of the ingress a second, by their status.",
            "reqps",
            *(
                Query(or_zero(total(count, f'{ingress.ANSWERS},code=~"{digit}.."')), f"{digit}xx")
                for digit in (2, 3, 4, 5)
            ),
            stacked=True,
        ),
        series(
            "Errors that users get",
            "Share of the answers that are 5xx, those of the ingress itself (no replica, no answer) among them.",
            "percentunit",
            Query(f"{failed} / {total(count, ingress.ANSWERS)}", "5xx"),
            limits=[Limit(alert="IngressErrorRateHigh", value=ratio(alerts.api_error_percent))],
        ),
        series(
            "95th percentile at the entry",
            "Time within which 95 of 100 answers begin and end, as the ingress sees them; streams among them.",
            "s",
            Query(quantile(0.95, ingress.DURATION, ingress.ANSWERS), "p95"),
        ),
    ]


def _of_chosen(by_part: str) -> str:
    """Limit an expression by part to the selected replicas, whose `instance` is the part's name and the port."""
    named = f'label_replace({by_part}, "instance", "$1:{API_PORT}", "{CONTAINER_PART}", "(.+)")'
    return f"{named} and on (instance) up{{{API}}}"


def _burn(slo: api.Slo, window: str) -> str:
    """Return the expression for the burn rate: how many times too fast the error budget is used."""
    return f"{slo.ratio(window)} / {share(100 - Decimal(str(slo.percent)))}"


def _burn_rate(title: str, description: str, slo: api.Slo) -> Panel:
    windows = "; ".join(f"{number(burn.rate)}: {burn.long} and {burn.short}" for burn in api.BURNS)
    return series(
        title,
        f"{description} An alert fires where two windows are above its line ({windows}).",
        "none",
        *(Query(_burn(slo, window), window) for window in api.WINDOWS),
        limits=[
            Limit(
                alert=slo.alert,
                value=burn.rate,
                severity="critical" if burn.rate in slo.critical else "warning",
            )
            for burn in api.BURNS
        ],
    )


def _answers(status: str) -> Query:
    """Return the query for answers with `status` by route; 0 for a route without such answers."""
    some = total(REQUESTS, f'{API},status=~"{status}"', "endpoint")
    return Query(f"{some} or 0 * {total(REQUESTS, API, 'endpoint')}", "{{endpoint}}")


def _error_rate(alerts: Alerts) -> Limit:
    return Limit(alert="ApiErrorRateHigh", value=ratio(alerts.api_error_percent))


def _p95(alerts: Alerts) -> Limit:
    return Limit(alert="ApiLatencyHigh", value=alerts.api_p95_seconds)


def _in_progress(alerts: Alerts) -> Limit:
    return Limit(alert="ApiRequestsPilingUp", value=alerts.api_requests_in_progress)
