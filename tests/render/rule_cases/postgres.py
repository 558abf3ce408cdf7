"""PostgreSQL's alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, Series, grows, pair, stays
from tests.render.rule_cases.stores import BROKEN, Store

AT = {"job": "postgres-exporter", "instance": "postgres-exporter:9187"}
EXPORTER = ",".join(f'{name}="{value}"' for name, value in AT.items())
INSTANCE = {"instance": AT["instance"]}
DATABASE = INSTANCE | {"datname": "samokoder"}
CRITICAL = {"service": "postgres", "severity": "critical"}
WARNING = {"service": "postgres", "severity": "warning"}
INFO = {"service": "postgres", "severity": "info"}


def _application(statements: str, errors: str, error: str = "OperationalError") -> Series:
    """Return what API and worker measure of the database: statements that ended, and what failed."""
    return {
        'samokoder_db_query_duration_seconds_count{job="api",instance="api-1:8000",operation="select"}': statements,
        f'samokoder_db_errors_total{{job="api",instance="api-1:8000",error_type="{error}"}}': errors,
    }


STORE = Store(
    alert="PostgresDown",
    summary="PostgreSQL is down",
    part="postgres",
    metric="pg_up",
    exporter=AT,
    # What a user types twice fails, in a database that is well.
    answered=_application(grows(60), grows(40), "IntegrityError"),
    silent=_application(f"0+60x{BROKEN} {60 * BROKEN}+0x49", f"0+0x{BROKEN} 10+10x49"),
    without={
        "it has hardly a connection left": _application(grows(10), grows(60), "TimeoutError"),
        "all statements but one of 101 fail": _application(grows(101), grows(100)),
        "nobody asks it": {},
    },
    besides={"its SQL is wrong": _application(grows(101), grows(100), "ProgrammingError")},
)


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from STORE.cases(environment, managed=environment.managed_database)
    yield from _availability()
    yield from _connections()
    yield from _work()
    yield from _storage()
    if not environment.managed_database:
        yield from _collations()


def _availability() -> Iterator[Case]:
    collector = f'pg_scrape_collector_success{{{EXPORTER},collector="stat_statements"}}'
    yield from pair(
        "PostgresExporterErrors",
        titles=("a collector fails", "it succeeds"),
        fires={collector: stays(0)},
        silent={collector: stays(1), f"pg_exporter_last_scrape_error{{{EXPORTER}}}": stays(0)},
        minute=20,
        labels=WARNING | AT | {"collector": "stat_statements"},
        summary="PostgreSQL is measured in part only",
        description="The collector stat_statements of the exporter fails: alerts on its metrics are silent.",
    )
    yield Case(
        alert="PostgresExporterErrors",
        title="what is not in collectors fails",
        series={f"pg_exporter_last_scrape_error{{{EXPORTER}}}": stays(1)},
        minute=20,
        fires=(
            Fires(
                labels=WARNING | AT | {"collector": "default"},
                summary="PostgreSQL is measured in part only",
                description="The collector default of the exporter fails: alerts on its metrics are silent.",
            ),
        ),
    )
    yield from pair(
        "PostgresExporterErrors",
        titles=("its login alone is refused", "PostgreSQL answers nobody, which its own alert tells"),
        fires=STORE.refused() | STORE.answered,
        silent=STORE.refused() | STORE.silent,
        minute=30,
        labels=WARNING | AT | {"collector": "login"},
        summary="PostgreSQL is measured in part only",
        description="The collector login of the exporter fails: alerts on its metrics are silent.",
    )
    start = f"pg_postmaster_start_time_seconds{{{EXPORTER}}}"
    yield from pair(
        "PostgresRestarted",
        titles=("after two minutes away", "it runs on"),
        fires={start: "100+0x10 _x2 820+0x20"},
        silent={start: stays(100)},
        minute=15,
        labels=INFO | AT,
        summary="PostgreSQL was restarted",
        description="Restarts within ten minutes: 1; sessions ended, and its cache is cold.",
    )


def _connections() -> Iterator[Case]:
    def sessions(used: int, server: str) -> Series:
        # 0.19 has the server in the labels, 0.20 has not. Autovacuum takes none of the connections.
        where = f'{EXPORTER},datname="samokoder"{server}'
        return {
            f'pg_stat_activity_count{{{where},state="idle",backend_type="client backend"}}': stays(used - 7),
            f'pg_stat_activity_count{{{where},state="active",backend_type="client backend"}}': stays(7),
            f'pg_stat_activity_count{{{where},state="active",backend_type="autovacuum worker"}}': stays(90),
            f"pg_settings_max_connections{{{EXPORTER}{server}}}": stays(103),
            f"pg_settings_superuser_reserved_connections{{{EXPORTER}{server}}}": stays(3),
        }

    for alert, used, few, minute, labels, summary, description in (
        (
            "PostgresConnectionsHigh",
            85,
            80,
            12,
            WARNING,
            "PostgreSQL runs out of connections",
            "85% of the connections are used; the threshold is 80%.",
        ),
        (
            "PostgresConnectionsExhausted",
            97,
            95,
            4,
            CRITICAL,
            "PostgreSQL has no connections left",
            "97% of the connections are used; at 100% the application is refused.",
        ),
    ):
        for version, server in (("0.19", ',server="postgres:5432"'), ("0.20", "")):
            yield from pair(
                alert,
                titles=(f"with postgres_exporter {version}", f"with postgres_exporter {version}"),
                fires=sessions(used, server),
                silent=sessions(few, server),
                minute=minute,
                labels=labels | INSTANCE,
                summary=summary,
                description=description,
            )


def _work() -> Iterator[Case]:
    def transaction(seconds: int, backend: str) -> Series:
        labels = f'{EXPORTER},datname="samokoder",state="active",backend_type="{backend}"'
        return {f"pg_stat_activity_max_tx_duration{{{labels}}}": stays(seconds)}

    yield from pair(
        "PostgresLongTransaction",
        titles=("of the application", "autovacuum may take its time"),
        fires=transaction(700, "client backend"),
        silent=transaction(7000, "autovacuum worker"),
        minute=4,
        labels=WARNING | DATABASE,
        summary="a transaction in samokoder does not end",
        description="It has been open for 11m 40s: it keeps its locks, and nothing newer is cleaned up; "
        "the threshold is 600 s.",
    )

    def waiting(sessions: int, kind: str) -> Series:
        labels = f'{EXPORTER},datname="samokoder",state="active",backend_type="client backend",wait_event_type="{kind}"'
        return {
            f'pg_stat_activity_count{{{labels},wait_event="transactionid"}}': stays(sessions),
            f'pg_stat_activity_count{{{labels},wait_event="tuple"}}': stays(1),
        }

    yield from pair(
        "PostgresLocksWaiting",
        titles=("seven", "sessions that wait for their client"),
        fires=waiting(6, "Lock"),
        silent=waiting(60, "Client"),
        minute=8,
        labels=WARNING | DATABASE,
        summary="sessions in samokoder wait for locks",
        description="7 sessions wait for another one to release a lock.",
    )
    yield Case(alert="PostgresLocksWaiting", title="a few", series=waiting(4, "Lock"), minute=8)
    deadlocks = f'pg_stat_database_deadlocks{{{EXPORTER},datid="16384",datname="samokoder"}}'
    yield from pair(
        "PostgresDeadlocks",
        titles=("two just now", "two long ago"),
        fires={deadlocks: "0x5 2x60"},
        silent={deadlocks: stays(2)},
        minute=6,
        labels=WARNING | DATABASE,
        summary="deadlocks in samokoder",
        description="Within ten minutes: 2; each time PostgreSQL ended one of the transactions.",
    )

    def blocks(hit: int, read: int) -> Series:
        labels = f'{EXPORTER},datid="16384",datname="samokoder"'
        return {
            f"pg_stat_database_blks_hit{{{labels}}}": grows(hit * 60, 90),
            f"pg_stat_database_blks_read{{{labels}}}": grows(read * 60, 90),
        }

    yield from pair(
        "PostgresCacheHitRatioLow",
        titles=("a fifth is read from the disk", "two of a hundred are"),
        fires=blocks(160, 40),
        silent=blocks(196, 4),
        minute=70,
        labels=INFO | DATABASE,
        summary="samokoder does not fit into memory",
        description="80% of its blocks were found in memory; the threshold is 95%.",
    )
    yield Case(alert="PostgresCacheHitRatioLow", title="hardly any work", series=blocks(5, 5), minute=70)


def _storage() -> Iterator[Case]:
    age = f'pg_database_wraparound_age_datfrozenxid_seconds{{{EXPORTER},datname="samokoder"}}'
    yield from pair(
        "PostgresXidWraparoundRisk",
        fires={age: stays(1200000000)},
        silent={age: stays(200000000)},
        minute=12,
        labels=CRITICAL | DATABASE,
        summary="samokoder runs out of transaction ids",
        description="1.2G transactions since its oldest frozen row; at 2.1G PostgreSQL refuses writes.",
    )
    size = f'pg_database_size_bytes{{{EXPORTER},datname="samokoder"}}'
    gib = 2**30

    def grown(start: int, by: int, title: str, fires: tuple[Fires, ...] = ()) -> Case:
        series = {size: f"{start}+{by}x320"}
        return Case(
            alert="PostgresDatabaseGrowingFast", title=title, series=series, minute=1560, fires=fires, interval="5m"
        )

    yield grown(
        2 * gib,
        gib // 256,
        "1.1 GiB a day to two",
        (
            Fires(
                labels=WARNING | AT | {"datname": "samokoder"},
                summary="samokoder grows fast",
                description="1.125GiB more than a day ago: at this pace it doubles within a week.",
            ),
        ),
    )
    yield grown(2 * gib, gib // 2560, "a tenth of that")
    yield grown(0, gib // 2560, "a small one")


def _collations() -> Iterator[Case]:
    metric = f'pg_collation_outdated{{{EXPORTER},datname="samokoder"}}'
    yield from pair(
        "PostgresCollationOutdated",
        titles=("the C library has another version than the indexes", "it is the same"),
        fires={metric: stays(1)},
        silent={metric: stays(0)},
        minute=10,
        labels=CRITICAL | DATABASE,
        summary="text of samokoder is in the order of another C library",
        description="The image of PostgreSQL has another glibc or ICU than the indexes were built with: a query may "
        "not find what is there, and a duplicate may get in.",
    )
