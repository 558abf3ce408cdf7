"""Alerts on the API: availability, error rate and latency, its users, and the database as it sees it.

The contract lists its metrics. If a team's image lacks a metric, the alerts that read it never fire.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from stack.monitoring.alerts import (
    STORES,
    Alert,
    Group,
    Outlasts,
    Recording,
    Severity,
    Text,
    number,
    share,
    unless_down,
    unless_new_job,
)
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.service import ServiceSpec

DASHBOARD = "samokoder-golden-signals"
OVERVIEW = "samokoder-overview"

alert = partial(Alert, service="api", dashboard=DASHBOARD)
# If one of these is down, the API answers 503, or late.

REQUESTS = 'samokoder_http_requests_total{job="api"}'
SECONDS = "samokoder_http_request_duration_seconds"


@dataclass(frozen=True, kw_only=True)
class Slo:
    """An objective for the API's requests, of which some are bad. `bad` and `all` are requests a second."""

    alert: str
    percent: float
    """So many of 100 requests are to be good."""
    series: str
    bad: Recording
    all: Recording
    critical: frozenset[float]
    """Burn rates whose alert is critical; the alerts of the other burn rates are warnings."""
    bad_ones: Text
    """The bad requests, after "12% of the requests of the last hour"."""

    def ratio(self, window: str) -> str:
        """Name of the series with the share of bad requests in a window."""
        return f"{self.series}:ratio_rate{window}"


@dataclass(frozen=True, kw_only=True)
class Burn:
    """Error budget that is used `rate` times too fast, over a long and a short window; the short one ends the alert."""

    rate: float
    long: str
    short: str
    wait: str
    window: Text


# The SRE workbook's: 2 % of a month's budget in an hour, 5 % in six, 10 % in a day or in three.
BURNS = (
    Burn(rate=14.4, long="1h", short="5m", wait="2m", window=Text(en="the last hour", ru="последний час")),
    Burn(rate=6, long="6h", short="30m", wait="15m", window=Text(en="the last six hours", ru="последние шесть часов")),
    Burn(rate=3, long="1d", short="2h", wait="1h", window=Text(en="the last day", ru="последние сутки")),
    Burn(rate=1, long="3d", short="6h", wait="3h", window=Text(en="the last three days", ru="последние трое суток")),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    alerts = environment.settings.alerts
    objectives = slos(alerts)
    return Group(
        name="api",
        rules=[
            *(rule for slo in objectives for rule in _recordings(slo)),
            *_availability(),
            *(rule for slo in objectives for rule in _burns(slo, environment)),
            *_signals(alerts),
            *_users(alerts),
            *_database(alerts),
        ],
    )


def slos(alerts: Alerts) -> tuple[Slo, Slo]:
    """Return the objectives: requests that do not fail, and requests that are answered fast."""
    # The client library writes the border of a bucket as a float: 1.0, never 1.
    fast = f'{SECONDS}_bucket{{job="api",le="{alerts.api_fast_seconds}"}}'
    fast_seconds = number(alerts.api_fast_seconds)
    return (
        Slo(
            alert="ApiErrorBudgetBurn",
            percent=alerts.api_availability_percent,
            series="api:http_errors",
            all=Recording(name="api:http_requests:rate5m", expression=f"sum(rate({REQUESTS}[5m]))"),
            bad=Recording(
                name="api:http_errors:rate5m",
                # There is no series for 5xx before the first one; with traffic and no error the result must be 0.
                expression='sum(rate(samokoder_http_requests_total{job="api",status=~"5.."}[5m])) '
                "or 0 * api:http_requests:rate5m",
            ),
            critical=frozenset({14.4, 6}),
            bad_ones=Text(en="ended with a 5xx", ru="закончились ошибкой 5xx"),
        ),
        Slo(
            alert="ApiLatencyBudgetBurn",
            percent=alerts.api_fast_percent,
            series="api:http_slow",
            all=Recording(name="api:http_timed:rate5m", expression=f'sum(rate({SECONDS}_count{{job="api"}}[5m]))'),
            bad=Recording(name="api:http_slow:rate5m", expression=f"api:http_timed:rate5m - sum(rate({fast}[5m]))"),
            critical=frozenset({14.4}),
            bad_ones=Text(en=f"took longer than {fast_seconds} s", ru=f"длились дольше {fast_seconds} с"),
        ),
    )


def _recordings(slo: Slo) -> Iterator[Recording]:
    yield slo.all
    yield slo.bad
    for window in WINDOWS:
        bad, everything = slo.bad.name, slo.all.name
        if window != "5m":
            # From the two recorded series, because three days of all the API's counters, every 15 s, are millions of
            # samples. Sums and not a mean of ratios, so that a request at night counts as much as one at noon.
            bad, everything = f"sum_over_time({bad}[{window}])", f"sum_over_time({everything}[{window}])"
        yield Recording(name=slo.ratio(window), expression=f"{bad} / ({everything} > 0)")


def _burns(slo: Slo, environment: Environment) -> Iterator[Alert]:
    # The recorded rate times the interval is the number of requests in it; the sum is the requests of the window.
    every = number(seconds(environment.settings.prometheus.scrape_interval))
    least = number(environment.settings.alerts.api_burn_requests)
    percent = number(slo.percent)
    budget = share(100 - Decimal(str(slo.percent)))
    for burn in BURNS:
        rate = number(burn.rate)
        severity: Severity = "critical" if burn.rate in slo.critical else "warning"
        yield alert(
            name=slo.alert,
            labels={"burn": f"{rate}x"},
            expression=f"{slo.ratio(burn.long)} > {rate} * {budget} and {slo.ratio(burn.short)} > {rate} * {budget} "
            f"and {every} * sum_over_time({slo.bad.name}[{burn.long}]) >= {least}"
            # A slow burn wakes nobody, and says truly what is left of the budget.
            + (unless_down(STORES, burn.short) if severity == "critical" else ""),
            wait=burn.wait,
            severity=severity,
            symptom_of=STORES,
            summary=Text(
                en=f"the API's requests miss the objective of {percent}% ({rate}x)",
                ru=f"запросы к API не выполняют цель {percent}% ({rate}x)",
            ),
            description=Text(
                en=f"{{{{ $value | humanizePercentage }}}} of the requests of {burn.window.en} {slo.bad_ones.en}: "
                f"the error budget burns at least {rate}x as fast as it may.",
                ru=f"{{{{ $value | humanizePercentage }}}} запросов за {burn.window.ru} {slo.bad_ones.ru}: "
                f"бюджет ошибок расходуется со скоростью не ниже {rate}x от допустимой.",
            ),
        )


def _availability() -> Iterator[Alert]:
    yield alert(
        name="ApiDown",
        # `vector(0)`, because a job without targets has no series `up`.
        expression='(sum(up{job="api"}) or vector(0)) == 0' + unless_new_job("api"),
        wait="2m",
        severity="critical",
        absence=True,
        outlasts=Outlasts.MISSING,
        summary=Text(en="the API is down", ru="API не работает"),
        description=Text(
            en='Replicas of the API that Prometheus can reach: {{ printf "%.0f" $value }}.',
            ru='Реплик API, доступных для опроса: {{ printf "%.0f" $value }}.',
        ),
    )
    yield alert(
        name="ApiReplicaDown",
        # The name of the replica's part, as in the alerts on its container.
        service='{{ reReplaceAll ":.*" "" $labels.instance }}',
        expression='up{job="api"} == 0 and on (job) sum by (job) (up{job="api"}) > 0',
        wait="5m",
        severity="warning",
        summary=Text(en="a replica of the API is down", ru="не работает одна из реплик API"),
        description=Text(
            en="{{ $labels.instance }} cannot be scraped, and others can: they carry its share.",
            ru="{{ $labels.instance }} не отвечает на опрос, остальные реплики отвечают и несут его нагрузку.",
        ),
    )


def _signals(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="ApiErrorRateHigh",
        expression=f"api:http_errors:ratio_rate5m > {share(alerts.api_error_percent)}{unless_down(STORES, '5m')}",
        wait="5m",
        severity="warning",
        symptom_of=STORES,
        summary=Text(en="the API answers with errors", ru="API отвечает ошибками"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the requests of the last five minutes ended with a 5xx; "
            f"the threshold is {number(alerts.api_error_percent)}%.",
            ru="{{ $value | humanizePercentage }} запросов за последние пять минут закончились ошибкой 5xx; "
            f"порог — {number(alerts.api_error_percent)}%.",
        ),
    )
    yield alert(
        name="ApiLatencyHigh",
        expression=f'histogram_quantile(0.95, sum by (le) (rate({SECONDS}_bucket{{job="api"}}[5m]))) '
        f"> {number(alerts.api_p95_seconds)}{unless_down(STORES, '5m')}",
        wait="10m",
        severity="warning",
        symptom_of=STORES,
        summary=Text(en="the API is slow", ru="API отвечает медленно"),
        description=Text(
            en='Five of 100 requests take longer than {{ printf "%.2f" $value }} s; '
            f"the threshold is {number(alerts.api_p95_seconds)} s.",
            ru='Пять запросов из 100 длятся дольше {{ printf "%.2f" $value }} с; '
            f"порог — {number(alerts.api_p95_seconds)} с.",
        ),
    )
    today, yesterday = f"sum(rate({REQUESTS}[15m]))", f"sum(rate({REQUESTS}[15m] offset 1d))"
    yield alert(
        name="ApiTrafficDrop",
        # `vector(0)`, because an API without a request since its start has no series.
        expression=f"({today} or vector(0)) < 0.1 * {yesterday} and {yesterday} > 0.1",
        wait="15m",
        severity="warning",
        absence=True,
        symptom_of=frozenset({"api"}),
        summary=Text(en="hardly any requests reach the API", ru="до API почти не доходят запросы"),
        description=Text(
            en='{{ printf "%.2f" $value }} requests a second: less than a tenth of what came at this time yesterday.',
            ru='{{ printf "%.2f" $value }} запросов в секунду: меньше десятой части вчерашних в это же время.',
        ),
    )
    yield alert(
        name="ApiRequestsPilingUp",
        expression=f'sum(samokoder_http_requests_in_progress{{job="api"}}) > {number(alerts.api_requests_in_progress)}',
        wait="5m",
        severity="warning",
        symptom_of=STORES,
        summary=Text(en="requests pile up in the API", ru="в API скапливаются запросы"),
        description=Text(
            en='{{ printf "%.0f" $value }} requests are being answered at once; '
            f"the threshold is {number(alerts.api_requests_in_progress)}.",
            ru='Одновременно обрабатывается запросов: {{ printf "%.0f" $value }}; '
            f"порог — {number(alerts.api_requests_in_progress)}.",
        ),
    )


def _users(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="RateLimitHitsHigh",
        expression='sum(rate(samokoder_rate_limit_hits_total{job="api"}[5m])) '
        f"> {number(alerts.rate_limit_hits_per_second)}",
        wait="5m",
        severity="info",
        dashboard=OVERVIEW,
        summary=Text(en="many requests are refused by the rate limit", ru="много запросов отклонено лимитом частоты"),
        description=Text(
            en='{{ printf "%.2f" $value }} answers 429 a second; '
            f"the threshold is {number(alerts.rate_limit_hits_per_second)}.",
            ru='{{ printf "%.2f" $value }} ответов 429 в секунду; '
            f"порог — {number(alerts.rate_limit_hits_per_second)}.",
        ),
    )
    yield alert(
        name="RateLimiterWithoutRedis",
        expression='sum(increase(samokoder_rate_limit_unavailable_total{job="api"}[5m])) > 0'
        + unless_down({"redis"}, "5m"),
        wait="5m",
        severity="warning",
        symptom_of=frozenset({"redis"}),
        dashboard=OVERVIEW,
        summary=Text(en="the rate limit works without Redis", ru="лимит частоты работает без Redis"),
        description=Text(
            en='{{ printf "%.0f" $value }} requests of the last five minutes were judged without Redis: '
            "no client's requests are counted over all replicas.",
            ru='Запросов, проверенных без Redis за пять минут: {{ printf "%.0f" $value }}; '
            "общего счёта запросов клиента по всем репликам нет.",
        ),
    )
    yield alert(
        name="AuthenticationFailureSpike",
        expression='sum(rate(samokoder_auth_attempts_total{job="api",result="failure"}[5m])) '
        f"> {number(alerts.auth_failures_per_second)}",
        wait="5m",
        severity="warning",
        summary=Text(en="many failed logins", ru="много неудачных попыток входа"),
        description=Text(
            en='{{ printf "%.2f" $value }} logins a second fail, which may be somebody who guesses passwords; '
            f"the threshold is {number(alerts.auth_failures_per_second)}.",
            ru='{{ printf "%.2f" $value }} неудачных попыток входа в секунду: возможно, подбирают пароли; '
            f"порог — {number(alerts.auth_failures_per_second)}.",
        ),
    )
    busy = number(alerts.projects_expected_above_requests_per_second)
    yield alert(
        name="NoProjectsCreated",
        expression=f'sum(rate({REQUESTS}[1h])) > {busy} and sum(increase(samokoder_projects_created_total{{job="api"}}'
        "[1h])) == 0",
        wait="2h",
        severity="warning",
        symptom_of=STORES | {"api"},
        dashboard=OVERVIEW,
        summary=Text(en="nobody creates projects", ru="никто не создаёт проекты"),
        description=Text(
            en='Not one project in an hour, although {{ printf "%.2f" $value }} requests a second arrive.',
            ru='Ни одного проекта за час, хотя приходит {{ printf "%.2f" $value }} запросов в секунду.',
        ),
    )


def _database(alerts: Alerts) -> Iterator[Alert]:
    """Yield the alerts on the database, as the API and the worker measure it."""
    yield alert(
        name="DatabaseErrors",
        expression=f"sum(rate(samokoder_db_errors_total[5m])) > {number(alerts.database_errors_per_second)}"
        + unless_down({"postgres"}, "5m"),
        wait="5m",
        severity="warning",
        symptom_of=frozenset({"postgres"}),
        summary=Text(en="statements at the database fail", ru="запросы к базе данных завершаются ошибкой"),
        description=Text(
            en='{{ printf "%.2f" $value }} errors a second in API and worker; '
            f"the threshold is {number(alerts.database_errors_per_second)}.",
            ru='{{ printf "%.2f" $value }} ошибок в секунду у API и обработчика заданий; '
            f"порог — {number(alerts.database_errors_per_second)}.",
        ),
    )
    yield alert(
        name="SlowDatabaseQueries",
        expression="histogram_quantile(0.95, sum by (le) (rate(samokoder_db_query_duration_seconds_bucket[5m]))) "
        f"> {number(alerts.database_query_p95_seconds)}{unless_down({'postgres'}, '5m')}",
        wait="10m",
        severity="warning",
        symptom_of=frozenset({"postgres"}),
        summary=Text(en="the database is slow", ru="база данных отвечает медленно"),
        description=Text(
            en='Five of 100 statements take longer than {{ printf "%.2f" $value }} s; '
            f"the threshold is {number(alerts.database_query_p95_seconds)} s.",
            ru='Пять запросов к базе из 100 длятся дольше {{ printf "%.2f" $value }} с; '
            f"порог — {number(alerts.database_query_p95_seconds)} с.",
        ),
    )
