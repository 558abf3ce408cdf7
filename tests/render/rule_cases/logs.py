"""The alerts on the store of the logs, on what collects them, and on what they tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, grows, pair, stays

STORE, COLLECTOR = 'job="logs",instance="logs:9428"', 'job="log-collector",instance="log-collector:9190"'
OF_STORE = {"job": "logs", "service": "logs"}
OF_COLLECTOR = {"job": "log-collector", "service": "log-collector", "severity": "warning"}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from _store(environment)
    yield from _collector()
    yield from _told()


def _store(environment: Environment) -> Iterator[Case]:
    # With PostgreSQL of our own, what its log may grow to while the backup server is away.
    free = 1024 if environment.managed_database else 5120
    read_only = f'vl_storage_is_read_only{{{STORE},path="/var/tmp/logs"}}'
    yield from pair(
        "LogStoreFull",
        fires={read_only: stays(1)},
        silent={read_only: stays(0)},
        minute=5,
        labels=OF_STORE | {"severity": "warning"},
        summary="VictoriaLogs takes no lines any more",
        description=f"Less than {free} MiB of its disk are free. New lines wait in the collector's buffer, then they "
        "are dropped.",
    )
    data = f'vl_data_size_bytes{{{STORE},type="storage"}}'
    index = f'vl_data_size_bytes{{{STORE},type="indexdb"}}'
    yield from pair(
        "LogsKeptTooShort",
        titles=("data and index together are near the limit", "the data alone is below it"),
        fires={data: stays(1.9e9, 120), index: stays(5e7, 120)},
        silent={data: stays(1.7e9, 120), index: stays(5e7, 120)},
        minute=90,
        labels=OF_STORE | {"severity": "info"},
        summary="the oldest logs go before their time",
        description="They take 97.5% of samokoder:logs.retentionSize; beyond it the oldest day goes, whatever "
        "retentionTime says.",
    )


def _collector() -> Iterator[Case]:
    behind = f"log_collector_behind_seconds{{{COLLECTOR}}}"
    yield from pair(
        "LogsDelayed",
        titles=("the store is away", "it was away for a minute"),
        fires={behind: grows(60)},
        silent={behind: "0 60 120 1+0x60"},
        minute=12,
        labels=OF_COLLECTOR,
        summary="new logs cannot be searched",
        description="For 12m 0s VictoriaLogs has not got all lines; they wait, and docker logs has them.",
    )
    dropped = f'log_collector_dropped_lines_total{{{COLLECTOR},reason="buffer"}}'
    gaps = f"log_collector_gaps_total{{{COLLECTOR}}}"
    lost = Fires(
        labels=OF_COLLECTOR,
        summary="log lines are lost",
        description="Lines, or files of unknown length, within 15 minutes: 15.",
    )
    one = {"gaps": gaps, "lines": dropped}
    for what, series in one.items():
        other = {each: stays(0) for each in one.values() if each != series}
        yield Case(alert="LogLinesDropped", title=what, series={series: grows(1), **other}, minute=30, fires=(lost,))
    left_out = f'vl_rows_dropped_total{{{STORE},reason="too_big_timestamp"}}'
    too_old = f'vl_rows_dropped_total{{{STORE},reason="too_small_timestamp"}}'
    zero = dict.fromkeys(one.values(), stays(0))
    yield Case(
        alert="LogLinesDropped",
        title="the store leaves lines out",
        series=zero | {left_out: grows(1)},
        minute=30,
        fires=(replace(lost, labels=OF_COLLECTOR | {"job": "logs"}),),
    )
    quiet = dict.fromkeys((*one.values(), left_out), stays(7)) | {too_old: grows(1)}
    yield Case(alert="LogLinesDropped", title="none but those beyond the retention", series=quiet, minute=30)


def _told() -> Iterator[Case]:
    def lines(part: str, kind: str) -> str:
        return f'log_collector_matches_total{{{COLLECTOR},part="{part}",kind="{kind}"}}'

    yield from pair(
        "LogTracebacks",
        titles=("one a minute", "one in three minutes"),
        fires={lines("api", "traceback"): grows(1)},
        silent={lines("api", "traceback"): grows(0.3)},
        minute=30,
        labels={"part": "api", "service": "api", "severity": "warning"},
        summary="api logs tracebacks",
        description="Within ten minutes: 10; the threshold is 5. An error that no code of it expects.",
    )
    postgres = {"part": "postgres", "service": "postgres"}
    yield from pair(
        "PostgresPanicLogged",
        titles=("one", "none"),
        fires={lines("postgres", "panic"): "0x20 1x60"},
        silent={lines("postgres", "panic"): stays(1)},
        minute=25,
        labels=postgres | {"severity": "critical"},
        summary="PostgreSQL logged a PANIC",
        description="Every session was ended, and the server started anew; its disk or its files may be damaged.",
    )
    yield from pair(
        "PostgresFatalLogged",
        titles=("one a minute", "only refused logins"),
        fires={lines("postgres", "fatal"): grows(1)},
        silent={lines("postgres", "fatal"): stays(0), lines("postgres", "login"): grows(9)},
        minute=30,
        labels=postgres | {"severity": "warning"},
        summary="PostgreSQL ends sessions with FATAL",
        description="Lines within ten minutes: 10; the threshold is 5. Refused logins are not counted.",
    )
    yield from pair(
        "PostgresLoginsRefused",
        titles=("two a minute", "a typing error now and then"),
        fires={lines("postgres", "login"): grows(2)},
        silent={lines("postgres", "login"): grows(0.5)},
        minute=30,
        labels=postgres | {"severity": "warning"},
        summary="PostgreSQL refuses logins",
        description="Within ten minutes: 20; the threshold is 10. A wrong password, or somebody who guesses.",
    )
