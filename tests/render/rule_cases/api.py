"""The API's alerts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stack.parts.api.rules import BURNS, slos
from stack.settings.environment import Environment
from tests.render.rule_cases.model import HISTORY, Case, Fires, Series, grows, pair, stays

SERVICE = {"service": "api"}
REQUESTS = "samokoder_http_requests_total"
DURATION = "samokoder_http_request_duration_seconds"
# Four hours, of which half of the evaluations are enough.
MINUTE = 240
SAMPLES = 120


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from _availability()
    yield from _error_budget(environment)
    yield from _quiet_hours(environment)
    yield from _latency_budget(environment)
    yield from _signals()
    yield from _users()
    yield from _database()


def _up(*states: str) -> Series:
    return {f'up{{job="api",instance="api-{number}:8000"}}': state for number, state in enumerate(states, 1)}


def _availability() -> Iterator[Case]:
    down = Fires(
        labels=SERVICE | {"severity": "critical"},
        summary="the API is down",
        description="Replicas of the API that Prometheus can reach: 0.",
    )
    yield Case(
        alert="ApiDown", title="both replicas are down", series=_up("1 0+0x9", "0+0x10"), minute=4, fires=(down,)
    )
    yield Case(alert="ApiDown", title="there is no target", series=HISTORY, minute=20, fires=(down,))
    for title, never in (("waits for a slow pull", {}), ("is not well yet", _up(stays(0), stays(0)))):
        yield Case(alert="ApiDown", title=f"on a first up it {title}", series=HISTORY | never, minute=14)
        yield Case(alert="ApiDown", title=f"it {title}, and never is", series=HISTORY | never, minute=20, fires=(down,))
    yield Case(
        alert="ApiDown",
        title="on a first up it was there, and ends",
        series=HISTORY | _up("_x3 1 0+0x9"),
        minute=8,
        fires=(down,),
    )
    yield Case(
        alert="ApiDown",
        title="it was down before the host was off for two hours, and is after that",
        series=dict.fromkeys(HISTORY, "1+0x30 _x120 1+0x10") | _up("0+0x30 _x120 0+0x10"),
        minute=156,
        fires=(down,),
    )
    yield Case(alert="ApiDown", title="one of two replicas is down", series=_up(stays(0), stays(1)), minute=10)
    yield Case(alert="ApiDown", title="one scrape was missed", series=_up("1 0 1+0x8"), minute=4)
    yield from pair(
        "ApiReplicaDown",
        titles=("one of two", "both: that is ApiDown"),
        fires=_up(stays(0), stays(1)),
        silent=_up(stays(0), stays(0)),
        minute=8,
        labels={"service": "api-1", "severity": "warning", "job": "api", "instance": "api-1:8000"},
        summary="a replica of the API is down",
        description="api-1:8000 cannot be scraped, and others can: they carry its share.",
    )


def _traffic(good: str, bad: str = "") -> Series:
    """Return two replicas with an answered request each; `bad` are the errors of one of them."""
    series = {
        f'{REQUESTS}{{job="api",instance="api-{replica}:8000",method="GET",endpoint="/projects",status="200"}}': good
        for replica in (1, 2)
    }
    error = f'{REQUESTS}{{job="api",instance="api-1:8000",method="POST",endpoint="/projects",status="503"}}'
    return series | ({error: bad} if bad else {})


def _burns(environment: Environment, alert: str, shares: dict[str, str], bad: str) -> tuple[Fires, ...]:
    """Return what fires. shares: burn -> the share of bad requests in its long window."""
    (slo,) = [slo for slo in slos(environment.settings.alerts) if slo.alert == alert]
    return tuple(
        Fires(
            labels=SERVICE
            | {"severity": "critical" if burn.rate in slo.critical else "warning", "burn": f"{burn.rate:g}x"},
            summary=f"the API's requests miss the objective of {slo.percent:g}% ({burn.rate:g}x)",
            description=f"{shares[f'{burn.rate:g}x']} of the requests of {burn.window.en} {bad}: "
            f"the error budget burns at least {burn.rate:g}x as fast as it may.",
        )
        for burn in BURNS
        if f"{burn.rate:g}x" in shares
    )


def _error_budget(environment: Environment) -> Iterator[Case]:
    def case(title: str, series: Series, minute: int = MINUTE, **shares: str) -> Case:
        burning = {name.removeprefix("x").replace("_", ".") + "x": share for name, share in shares.items()}
        fires = _burns(environment, "ApiErrorBudgetBurn", burning, "ended with a 5xx")
        return Case(alert="ApiErrorBudgetBurn", title=title, series=series, minute=minute, fires=fires, interval="2m")

    def busy(a_minute: float) -> str:
        # The rules count with the settings' 15 s between two evaluations, and here there are two minutes.
        return grows(20 * a_minute, SAMPLES)

    # 95 good ones in all to 5 bad ones.
    good = busy(47.5)
    yield case("5 of 100 fail", _traffic(good, busy(5)), x14_4="5%", x6="5%", x3="5%", x1="5%")
    yield case("1 of 100 fails", _traffic(busy(49.5), busy(1)), x6="1%", x3="1%", x1="1%")
    yield case("4 of 1000 fail", _traffic(busy(49.8), busy(0.4)), x3="0.4%", x1="0.4%")
    yield case("2 of 1000 fail", _traffic(busy(49.9), busy(0.2)), x1="0.2%")
    yield case("5 of 10000 fail", _traffic(busy(49.975), busy(0.05)))
    yield case("no request has failed yet", _traffic(good))
    yield case("no requests", _traffic(stays(7, SAMPLES), stays(7, SAMPLES)))
    yield case("20 bad minutes that are over", _traffic(grows(47.5), "0+5x10 50+0x20"), minute=54)


def while_exporters_are_refused() -> dict[str, Any]:
    """Return a test of all rules: from minute 10 on the API fails and both exporters are refused, as documents tell."""
    minutes, begin = 90, 10
    refused = f"1+0x{begin - 1} 0+0x{minutes}"
    database = "samokoder_db_query_duration_seconds_count"
    series = {
        'pg_up{job="postgres-exporter",instance="postgres-exporter:9187"}': refused,
        'redis_up{job="redis-exporter",instance="redis-exporter:9121"}': refused,
        'up{job="postgres-exporter",instance="postgres-exporter:9187"}': stays(1, minutes),
        'up{job="redis-exporter",instance="redis-exporter:9121"}': stays(1, minutes),
        'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:9000"}': grows(60, minutes),
        f'{database}{{job="api",instance="api-1:8000",operation="select"}}': grows(60, minutes),
        **_traffic(grows(60, minutes), f"0+0x{begin} 60+60x{minutes}"),
    }

    def told(alert: str, minute: int, *, fires: bool) -> dict[str, Any]:
        asked = f'count(ALERTS{{{alert},severity="critical",alertstate="firing"}})'
        samples = [{"labels": "{}", "value": 1}] if fires else []
        return {"expr": asked, "eval_time": f"{minute}m", "exp_samples": samples}

    fast, slow = (f'alertname="ApiErrorBudgetBurn",burn="{rate}"' for rate in ("14.4x", "6x"))
    return {
        "name": "the API is ill while the exporters alone are refused",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            *(told(f'alertname="{down}"', begin + 5, fires=True) for down in ("PostgresDown", "RedisDown")),
            *(told(f'alertname="{down}"', begin + 14, fires=False) for down in ("PostgresDown", "RedisDown")),
            told(fast, begin + 16, fires=False),
            told(fast, begin + 20, fires=True),
            told(slow, begin + 50, fires=False),
            told(slow, begin + 60, fires=True),
        ],
    }


def _quiet_hours(environment: Environment) -> Iterator[Case]:
    """Yield what a few requests an hour do: one that fails wakes nobody, and if all fail somebody is woken."""

    def case(title: str, series: Series, **shares: str) -> Case:
        burning = {name.removeprefix("x").replace("_", ".") + "x": share for name, share in shares.items()}
        fires = _burns(environment, "ApiErrorBudgetBurn", burning, "ended with a 5xx")
        return Case(alert="ApiErrorBudgetBurn", title=title, series=series, minute=90, fires=fires, interval="15s")

    # 30 an hour, of two replicas.
    thin, none = grows(0.0625, 400), stays(0, 400)
    yield case("one of 30 fails in a quiet hour", _traffic(thin, "0x340 1x60"))
    yield case("all 30 of a quiet hour fail", _traffic(none, grows(0.125, 400)), x14_4="100%", x6="100%", x3="100%")


def _answers(count: float, fast: float, samples: int = SAMPLES) -> Series:
    """Return so many requests a minute, of which `fast` took less than half a second and the rest three to five."""
    buckets = {"0.25": 0.0, "0.5": fast, "1.0": fast, "2.5": fast, "5.0": count, "+Inf": count}
    labels = 'job="api",instance="api-1:8000",method="GET",endpoint="/projects"'
    return {f'{DURATION}_bucket{{{labels},le="{le}"}}': grows(each, samples) for le, each in buckets.items()} | {
        f"{DURATION}_count{{{labels}}}": grows(count, samples)
    }


def _latency_budget(environment: Environment) -> Iterator[Case]:
    def case(title: str, series: Series, *burning: str, share: str = "") -> Case:
        fires = _burns(environment, "ApiLatencyBudgetBurn", dict.fromkeys(burning, share), "took longer than 0.5 s")
        return Case(alert="ApiLatencyBudgetBurn", title=title, series=series, minute=MINUTE, fires=fires, interval="2m")

    yield case("20 of 100 are slow", _answers(100, 80), "14.4x", "6x", "3x", "1x", share="20%")
    yield case("2 of 100 are slow", _answers(100, 98), "1x", share="2%")
    yield case("5 of 1000 are slow", _answers(100, 99.5))
    yield case("no requests", _answers(0, 0))
    other = {name: values for name, values in _answers(100, 80).items() if 'le="0.5"' not in name}
    yield case("an image with other buckets", other)


def _signals() -> Iterator[Case]:
    yield from pair(
        "ApiErrorRateHigh",
        fires=_traffic(grows(45), grows(10)),
        silent=_traffic(grows(48), grows(4)),
        minute=10,
        labels=SERVICE | {"severity": "warning"},
        summary="the API answers with errors",
        description="10% of the requests of the last five minutes ended with a 5xx; the threshold is 5%.",
    )
    yield from pair(
        "ApiLatencyHigh",
        fires=_answers(100, 50, 60),
        silent=_answers(100, 96, 60),
        minute=20,
        labels=SERVICE | {"severity": "warning"},
        summary="the API is slow",
        description="Five of 100 requests take longer than 4.75 s; the threshold is 2 s.",
    )
    yield Case(alert="ApiLatencyHigh", title="no requests", series=_answers(0, 0, 60), minute=20)

    # At minute 1500 it is a day after minute 60.
    def traffic(series: Series, title: str, fires: tuple[Fires, ...] = ()) -> Case:
        return Case(alert="ApiTrafficDrop", title=title, series=series, minute=1500, fires=fires, interval="5m")

    def dropped(rate: str) -> tuple[Fires, ...]:
        return (
            Fires(
                labels=SERVICE | {"severity": "warning"},
                summary="hardly any requests reach the API",
                description=f"{rate} requests a second: less than a tenth of what came at this time yesterday.",
            ),
        )

    # 300 in five minutes are one a second, from each of two replicas.
    yield traffic(_traffic("0+300x144 43200+6x200"), "2 of 100 are left", dropped("0.04"))
    yield traffic(_traffic("0+300x144 _x200"), "a new API that nobody has asked yet", dropped("0.00"))
    yield traffic(_traffic("0+300x144 43200+60x200"), "a fifth is left")
    yield traffic(_traffic("0+15x144 2160+0x200"), "there was hardly any yesterday")
    yield traffic(_traffic("_x144 0+3x200"), "there was no API yesterday")
    yield from pair(
        "ApiRequestsPilingUp",
        fires={
            f'samokoder_http_requests_in_progress{{job="api",instance="{i}",method="GET"}}': stays(60) for i in "ab"
        },
        silent={
            f'samokoder_http_requests_in_progress{{job="api",instance="{i}",method="GET"}}': stays(50) for i in "ab"
        },
        minute=8,
        labels=SERVICE | {"severity": "warning"},
        summary="requests pile up in the API",
        description="120 requests are being answered at once; the threshold is 100.",
    )


def _users() -> Iterator[Case]:
    def hits(by: float) -> Series:
        labels = 'job="api",endpoint="/projects",limit_type="client"'
        return {f'samokoder_rate_limit_hits_total{{{labels},instance="{i}"}}': grows(by) for i in "ab"}

    yield from pair(
        "RateLimitHitsHigh",
        titles=("in all", "in all"),
        fires=hits(360),
        silent=hits(300),
        minute=12,
        labels=SERVICE | {"severity": "info"},
        summary="many requests are refused by the rate limit",
        description="12.00 answers 429 a second; the threshold is 10.",
    )
    unavailable = 'samokoder_rate_limit_unavailable_total{job="api",endpoint="/projects"}'
    yield from pair(
        "RateLimiterWithoutRedis",
        titles=("six a minute", "once"),
        fires={unavailable: grows(6)},
        silent={unavailable: "0x5 6+0x60"},
        minute=14,
        labels=SERVICE | {"severity": "warning"},
        summary="the rate limit works without Redis",
        description="30 requests of the last five minutes were judged without Redis: "
        "no client's requests are counted over all replicas.",
    )
    yield from pair(
        "AuthenticationFailureSpike",
        titles=("fail", "succeed"),
        fires={'samokoder_auth_attempts_total{job="api",result="failure"}': grows(900)},
        silent={'samokoder_auth_attempts_total{job="api",result="success"}': grows(900)},
        minute=12,
        labels=SERVICE | {"severity": "warning"},
        summary="many failed logins",
        description="15.00 logins a second fail, which may be somebody who guesses passwords; the threshold is 10.",
    )
    projects = 'samokoder_projects_created_total{job="api",instance="api-1:8000"}'
    # Two replicas and two minutes: a request a second.
    busy = _traffic(grows(60, SAMPLES))

    def case(title: str, series: Series, *fires: Fires) -> Case:
        return Case(
            alert="NoProjectsCreated", title=title, series=series, minute=MINUTE - 40, fires=fires, interval="2m"
        )

    yield case(
        "none for hours",
        busy | {projects: stays(7, SAMPLES)},
        Fires(
            labels=SERVICE | {"severity": "warning"},
            summary="nobody creates projects",
            description="Not one project in an hour, although 1.00 requests a second arrive.",
        ),
    )
    yield case("one in an hour and a half", busy | {projects: "0x22 1x44 2x44 3x44"})
    yield case("hardly any requests", _traffic(grows(1, SAMPLES)) | {projects: stays(7, SAMPLES)})
    yield case("an image that does not count them", busy)


def _database() -> Iterator[Case]:
    def errors(by: float) -> Series:
        return {
            f'samokoder_db_errors_total{{job="{job}",error_type="OperationalError"}}': grows(by)
            for job in ("api", "worker")
        }

    yield from pair(
        "DatabaseErrors",
        titles=("of both in all", "of both in all"),
        fires=errors(45),
        silent=errors(30),
        minute=12,
        labels=SERVICE | {"severity": "warning"},
        summary="statements at the database fail",
        description="1.50 errors a second in API and worker; the threshold is 1.",
    )

    def statements(slow: float) -> Series:
        buckets = {"0.5": 100 - slow, "1.0": 100 - slow, "2.5": 100.0, "+Inf": 100.0}
        name = "samokoder_db_query_duration_seconds_bucket"
        return {f'{name}{{job="api",operation="select",le="{le}"}}': grows(each) for le, each in buckets.items()}

    yield from pair(
        "SlowDatabaseQueries",
        fires=statements(20),
        silent=statements(4),
        minute=20,
        labels=SERVICE | {"severity": "warning"},
        summary="the database is slow",
        description="Five of 100 statements take longer than 2.12 s; the threshold is 1 s.",
    )
