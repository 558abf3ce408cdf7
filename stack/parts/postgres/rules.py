"""PostgreSQL, local or managed, as its exporter sees it.

For postgres_exporter 0.19 and 0.20: the older one has a label `server` on some series, so what is compared is summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import ANSWERED_WITHIN, Alert, Group, Outlasts, Text, number, share, store_down
from stack.parts.postgres.collations import METRIC
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="postgres", dashboard="samokoder-postgres")

TEMPLATES = 'datname!~"template.*"'
# Autovacuum and the server's own processes use no client's connection, and their transactions may be long.
CLIENTS = 'backend_type="client backend"'
USED = f"sum by (instance) (pg_stat_activity_count{{{CLIENTS}}})"
ALLOWED = "(sum by (instance) (pg_settings_max_connections - pg_settings_superuser_reserved_connections) > 0)"

# A statement that fails is in both sums: more than half of all end well where the first is more than twice the other.
# What the server itself refuses (a wrong name in SQL, a duplicate) is an answer.
_AWAY = 'error_type=~"OperationalError|InterfaceError|TimeoutError|OSError|gaierror|.*Connection.*"'
_STATEMENTS, _ERRORS = (
    f"sum(increase(samokoder_db_{series}[{ANSWERED_WITHIN}]))"
    for series in ("query_duration_seconds_count", f"errors_total{{{_AWAY}}}")
)
ANSWERED = f"{_STATEMENTS} > 2 * ({_ERRORS} or vector(0))"


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    alerts = environment.settings.alerts
    rules = [*_availability(environment), *_connections(alerts), *_work(alerts), *_storage()]
    # The provider decides which C library a managed server has.
    return Group(name="postgres", rules=[*rules, *_collations()] if not environment.managed_database else rules)


def _availability(environment: Environment) -> Iterator[Alert]:
    down = store_down(
        environment, "pg_up", "postgres-exporter", answered=ANSWERED, managed=environment.managed_database
    )
    yield alert(
        name="PostgresDown",
        expression=down,
        wait="1m",
        severity="critical",
        absence=True,
        outlasts=Outlasts.MISSING,
        summary=Text(en="PostgreSQL is down", ru="PostgreSQL не работает"),
        description=Text(
            en="It does not answer its exporter: it is down, silent, out of reach, or refuses the exporter's login.",
            ru="Сервер не отвечает экспортеру: не работает, молчит, недоступен или не принимает пароль.",
        ),
    )
    yield alert(
        name="PostgresExporterErrors",
        expression="pg_scrape_collector_success == 0 "
        'or label_replace(pg_exporter_last_scrape_error == 1, "collector", "default", "", "") '
        f'or label_replace(pg_up == 0 and on () {ANSWERED}, "collector", "login", "", "")',
        wait="15m",
        severity="warning",
        symptom_of=frozenset({"postgres"}),
        summary=Text(en="PostgreSQL is measured in part only", ru="метрики PostgreSQL собираются не полностью"),
        description=Text(
            en="The collector {{ $labels.collector }} of the exporter fails: alerts on its metrics are silent.",
            ru="Сборщик {{ $labels.collector }} экспортера завершается ошибкой: оповещения по его метрикам молчат.",
        ),
    )
    yield alert(
        name="PostgresRestarted",
        expression="changes(pg_postmaster_start_time_seconds[10m]) > 0",
        wait="",
        severity="info",
        summary=Text(en="PostgreSQL was restarted", ru="PostgreSQL был перезапущен"),
        description=Text(
            en='Restarts within ten minutes: {{ printf "%.0f" $value }}; sessions ended, and its cache is cold.',
            ru='Перезапусков за десять минут: {{ printf "%.0f" $value }}; соединения оборвались, кэш пуст.',
        ),
    )


def _connections(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="PostgresConnectionsHigh",
        expression=f"{USED} / {ALLOWED} > {share(alerts.postgres_connections_percent)}",
        wait="10m",
        severity="warning",
        summary=Text(en="PostgreSQL runs out of connections", ru="в PostgreSQL заканчиваются соединения"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the connections are used; "
            f"the threshold is {number(alerts.postgres_connections_percent)}%.",
            ru="Занято {{ $value | humanizePercentage }} соединений; "
            f"порог — {number(alerts.postgres_connections_percent)}%.",
        ),
    )
    yield alert(
        name="PostgresConnectionsExhausted",
        expression=f"{USED} / {ALLOWED} > 0.95",
        wait="1m",
        severity="critical",
        summary=Text(en="PostgreSQL has no connections left", ru="в PostgreSQL не осталось соединений"),
        description=Text(
            en="{{ $value | humanizePercentage }} of the connections are used; at 100% the application is refused.",
            ru="Занято {{ $value | humanizePercentage }} соединений; при 100% приложение получит отказ.",
        ),
    )


def _work(alerts: Alerts) -> Iterator[Alert]:
    """Transactions, locks and the cache.

    No alert on rolled back transactions: SQLAlchemy ends each session that only reads with ROLLBACK, so the reference
    application at rest has 10 % of them.
    """
    yield alert(
        name="PostgresLongTransaction",
        expression=f"max by (instance, datname) (pg_stat_activity_max_tx_duration{{{CLIENTS}}}) "
        f"> {number(alerts.postgres_transaction_seconds)}",
        wait="2m",
        severity="warning",
        summary=Text(
            en="a transaction in {{ $labels.datname }} does not end", ru="долгая транзакция в {{ $labels.datname }}"
        ),
        description=Text(
            en="It has been open for {{ $value | humanizeDuration }}: it keeps its locks, and nothing newer is cleaned "
            f"up; the threshold is {number(alerts.postgres_transaction_seconds)} s.",
            ru="Открыта {{ $value | humanizeDuration }}: держит блокировки и не даёт убирать старые версии строк; "
            f"порог — {number(alerts.postgres_transaction_seconds)} с.",
        ),
    )
    yield alert(
        name="PostgresLocksWaiting",
        # pg_locks_count does not tell which sessions hold locks and which wait; their wait events do.
        expression='sum by (instance, datname) (pg_stat_activity_count{wait_event_type="Lock"}) > 5',
        wait="5m",
        severity="warning",
        summary=Text(
            en="sessions in {{ $labels.datname }} wait for locks", ru="сеансы в {{ $labels.datname }} ждут блокировок"
        ),
        description=Text(
            en='{{ printf "%.0f" $value }} sessions wait for another one to release a lock.',
            ru='Сеансов, которые ждут освобождения блокировки: {{ printf "%.0f" $value }}.',
        ),
    )
    yield alert(
        name="PostgresDeadlocks",
        expression=f"sum by (instance, datname) (increase(pg_stat_database_deadlocks{{{TEMPLATES}}}[10m])) > 0",
        wait="",
        severity="warning",
        summary=Text(en="deadlocks in {{ $labels.datname }}", ru="взаимные блокировки в {{ $labels.datname }}"),
        description=Text(
            en='Within ten minutes: {{ printf "%.0f" $value }}; each time PostgreSQL ended one of the transactions.',
            ru='За десять минут: {{ printf "%.0f" $value }}; каждый раз PostgreSQL прерывал одну из транзакций.',
        ),
    )
    hit, read = (f"rate(pg_stat_database_blks_{kind}{{{TEMPLATES}}}[30m])" for kind in ("hit", "read"))
    yield alert(
        name="PostgresCacheHitRatioLow",
        # Below a hundred blocks a second, reads from the disk do not slow anything down.
        expression=f"sum by (instance, datname) ({hit}) / (sum by (instance, datname) ({hit} + {read}) > 100) "
        f"< {share(alerts.postgres_cache_hit_percent)}",
        wait="30m",
        severity="info",
        summary=Text(
            en="{{ $labels.datname }} does not fit into memory", ru="{{ $labels.datname }} не помещается в память"
        ),
        description=Text(
            en="{{ $value | humanizePercentage }} of its blocks were found in memory; "
            f"the threshold is {number(alerts.postgres_cache_hit_percent)}%.",
            ru="В памяти нашлось {{ $value | humanizePercentage }} блоков; "
            f"порог — {number(alerts.postgres_cache_hit_percent)}%.",
        ),
    )


def _storage() -> Iterator[Alert]:
    yield alert(
        name="PostgresXidWraparoundRisk",
        # The name says seconds, but the exporter's query is age(datfrozenxid): transactions, of which there are 2^31.
        expression="max by (instance, datname) (pg_database_wraparound_age_datfrozenxid_seconds) > 1e9",
        wait="10m",
        severity="critical",
        summary=Text(
            en="{{ $labels.datname }} runs out of transaction ids",
            ru="в {{ $labels.datname }} заканчиваются номера транзакций",
        ),
        description=Text(
            en="{{ $value | humanize }} transactions since its oldest frozen row; at 2.1G PostgreSQL refuses writes.",
            ru="С самой старой замороженной строки прошло {{ $value | humanize }} транзакций; при 2.1G PostgreSQL "
            "откажется писать.",
        ),
    )
    size = f"pg_database_size_bytes{{{TEMPLATES}}}"
    yield alert(
        name="PostgresDatabaseGrowingFast",
        # Of a new or small database every day is a large share.
        expression=f"{size} - {size} offset 1d > {size} / 7 and {size} > 1073741824",
        wait="1h",
        severity="warning",
        summary=Text(en="{{ $labels.datname }} grows fast", ru="{{ $labels.datname }} быстро растёт"),
        description=Text(
            en="{{ $value | humanize1024 }}B more than a day ago: at this pace it doubles within a week.",
            ru="За сутки прибавилось {{ $value | humanize1024 }}B: при такой скорости база удвоится за неделю.",
        ),
    )


def _collations() -> Iterator[Alert]:
    yield alert(
        name="PostgresCollationOutdated",
        expression=f"max by (instance, datname) ({METRIC}) == 1",
        wait="5m",
        severity="critical",
        summary=Text(
            en="text of {{ $labels.datname }} is in the order of another C library",
            ru="текст в {{ $labels.datname }} упорядочен по другой библиотеке C",
        ),
        description=Text(
            en="The image of PostgreSQL has another glibc or ICU than the indexes were built with: a query may not "
            "find what is there, and a duplicate may get in.",
            ru="В образе PostgreSQL другая glibc или ICU, чем при построении индексов: запрос может не найти строку, "
            "которая есть, и может появиться дубль.",
        ),
    )
