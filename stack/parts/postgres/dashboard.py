"""PostgreSQL: connections, work, locks, memory, storage, statements."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice
from stack.monitoring.panels import UP, Limit, Panel, Query, figure, series
from stack.monitoring.promql import counted, ratio, total
from stack.parts.postgres import rules
from stack.parts.postgres.collations import METRIC
from stack.parts.postgres.exporter import STATEMENT
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-postgres"
SERVER = 'instance=~"$postgres"'
DATABASE = f'{SERVER},datname!~"template.*",datname=~"$datname"'
CLIENTS = f"{DATABASE},{rules.CLIENTS}"
# The expression that the alerts on connections compare.
CONNECTIONS_USED = f"{rules.USED} / {rules.ALLOWED}"


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    return board(
        environment,
        uid=UID,
        parts=("postgres", "postgres-roles", "postgres-exporter"),
        title="PostgreSQL",
        description="The database as its exporter sees it.",
        choices=[
            choice("postgres", "Exporter", "Exporters of PostgreSQL.", "label_values(pg_up, instance)"),
            choice(
                "datname",
                "Database",
                "Databases of the server, without the templates.",
                'label_values(pg_stat_database_xact_commit{datname!~"template.*"}, datname)',
            ),
        ],
        since="now-3h",
        figures=_now(alerts),
        beside=_by_state(),
        rows=[
            Row("Connections", _connections(alerts)),
            Row("Work", _work(), _conflicts()),
            Row("Memory and disk", _memory(alerts), [*_disk(), *_collations(environment)]),
            Row("Statements and tables", _statements(), _tables()),
            Row("Exporter", _exporter()),
        ],
    )


def connections_used(alerts: Alerts, question: str = CONNECTIONS_USED) -> Panel:
    """Return the graph of the used connections, which other dashboards show as well."""
    return series(
        "Connections, of those allowed",
        "Connections to PostgreSQL, of those that are not kept back for its superuser.",
        "percentunit",
        Query(question, "{{instance}}"),
        limits=_connection_limits(alerts),
        top=1,
    )


def _now(alerts: Alerts) -> list[Panel]:
    return [
        figure(
            "PostgreSQL",
            "Whether the exporter can ask the database.",
            "none",
            f"min(pg_up{{{SERVER}}})",
            limits=[Limit(alert="PostgresDown", value=1, severity="critical", below=True)],
            texts=UP,
        ),
        figure(
            "Running for",
            "Time since the server started.",
            "s",
            f"time() - max(pg_postmaster_start_time_seconds{{{SERVER}}})",
            watched_by=["PostgresRestarted"],
        ),
        figure(
            "Connections used",
            "Connections, of those that are not kept back for the superuser.",
            "percentunit",
            f"max({CONNECTIONS_USED} and on (instance) pg_up{{{SERVER}}})",
            limits=_connection_limits(alerts),
        ),
        figure(
            "Oldest transaction",
            "Age of the transaction that has been open for the longest time.",
            "s",
            f"max(pg_stat_activity_max_tx_duration{{{CLIENTS}}})",
            limits=[_transaction(alerts)],
        ),
        figure(
            "Found in memory",
            "Share of the blocks that were in memory when they were asked for, in the last half hour.",
            "percentunit",
            _cache_hits(window="30m"),
            limits=[_cache(alerts)],
            absent="no reads",
        ),
        figure("Size", "Size of the databases on disk.", "bytes", f"sum(pg_database_size_bytes{{{DATABASE}}})"),
    ]


def _by_state() -> Panel:
    return series(
        "Connections by state",
        "What the connections do; `idle in transaction` holds locks and does nothing.",
        "short",
        Query(f"sum by (state) (pg_stat_activity_count{{{CLIENTS}}})", "{{state}}"),
        stacked=True,
    )


def _connections(alerts: Alerts) -> list[Panel]:
    return [
        connections_used(alerts, f"{CONNECTIONS_USED} and on (instance) pg_up{{{SERVER}}}"),
        series(
            "Age of the oldest transaction",
            "A transaction that stays open keeps dead rows from being removed.",
            "s",
            Query(f"max by (datname) (pg_stat_activity_max_tx_duration{{{CLIENTS}}})", "{{datname}}"),
            limits=[_transaction(alerts)],
        ),
    ]


def _work() -> list[Panel]:
    return [
        series(
            "Transactions",
            "Transactions a second by how they ended.",
            "ops",
            Query(total("pg_stat_database_xact_commit", DATABASE, "datname"), "{{datname}} committed"),
            Query(total("pg_stat_database_xact_rollback", DATABASE, "datname"), "{{datname}} rolled back"),
        ),
        series(
            "Rollbacks",
            "Share of the transactions of the last ten minutes that were rolled back; sessions that only read may "
            "end so as well.",
            "percentunit",
            Query(
                f"{total('pg_stat_database_xact_rollback', DATABASE, 'datname', '10m')} / "
                f"(({total('pg_stat_database_xact_commit', DATABASE, 'datname', '10m')} + "
                f"{total('pg_stat_database_xact_rollback', DATABASE, 'datname', '10m')}) > 0)",
                "{{datname}}",
            ),
        ),
        series(
            "Rows",
            "Rows a second. Many more returned than fetched: tables are read as a whole.",
            "ops",
            *(
                Query(total(f"pg_stat_database_tup_{done}", DATABASE), done)
                for done in ("returned", "fetched", "inserted", "updated", "deleted")
            ),
        ),
    ]


def _conflicts() -> list[Panel]:
    return [
        series(
            "Locks",
            "Locks that are held or waited for, by kind.",
            "short",
            Query(f"sum by (mode) (pg_locks_count{{{DATABASE}}})", "{{mode}}"),
            stacked=True,
        ),
        series(
            "Sessions that wait for a lock",
            "Sessions that stand still until another one ends its transaction.",
            "short",
            Query(
                f'sum by (datname) (pg_stat_activity_count{{{DATABASE},wait_event_type="Lock"}}) '
                f"or 0 * sum by (datname) (pg_stat_activity_count{{{DATABASE}}})",
                "{{datname}}",
            ),
            limits=[Limit(alert="PostgresLocksWaiting", value=5)],
        ),
        series(
            "Deadlocks",
            "Deadlocks in ten minutes: PostgreSQL ended one of the two transactions.",
            "short",
            Query(counted("10m", "pg_stat_database_deadlocks", DATABASE, "datname"), "{{datname}}"),
            watched_by=["PostgresDeadlocks"],
        ),
        series(
            "Temporary files",
            "Bytes a second of sorts and joins that did not fit into work_mem.",
            "binBps",
            Query(total("pg_stat_database_temp_bytes", DATABASE, "datname"), "{{datname}}"),
        ),
    ]


def _memory(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Blocks found in memory",
            "Share of the blocks that were in shared_buffers when they were asked for, over half an hour.",
            "percentunit",
            Query(_cache_hits("datname", "30m"), "{{datname}}"),
            limits=[_cache(alerts)],
            top=1,
        ),
        series(
            "Blocks",
            "Blocks of 8 KiB a second, from memory and from disk.",
            "ops",
            Query(total("pg_stat_database_blks_hit", DATABASE), "memory"),
            Query(total("pg_stat_database_blks_read", DATABASE), "disk"),
        ),
        series(
            "Checkpoints",
            "Checkpoints in an hour. Requested ones: max_wal_size is too small for what is written.",
            "short",
            Query(counted("1h", "pg_stat_bgwriter_checkpoints_timed_total", SERVER), "timed"),
            Query(counted("1h", "pg_stat_bgwriter_checkpoints_req_total", SERVER), "requested"),
        ),
    ]


def _disk() -> list[Panel]:
    return [
        series(
            "Size of the databases",
            "Size on disk.",
            "bytes",
            Query(f"sum by (datname) (pg_database_size_bytes{{{DATABASE}}})", "{{datname}}"),
            watched_by=["PostgresDatabaseGrowingFast"],
            stacked=True,
        ),
        series(
            "Write-ahead log",
            "Size of pg_wal: it grows when its archive or a replication slot is stuck.",
            "bytes",
            Query(f"sum(pg_wal_size_bytes{{{SERVER}}})", "pg_wal"),
        ),
        series(
            "Age of transaction numbers",
            "Transactions since the oldest row was frozen. At 2.1 thousand million PostgreSQL stops writing.",
            "short",
            Query(f"max by (datname) (pg_database_wraparound_age_datfrozenxid_seconds{{{DATABASE}}})", "{{datname}}"),
            limits=[Limit(alert="PostgresXidWraparoundRisk", value=1e9, severity="critical")],
        ),
    ]


def _collations(environment: Environment) -> list[Panel]:
    if environment.managed_database:
        return []  # a managed server has no such metric
    return [
        series(
            "Text in another C library's order",
            "1: the C library of PostgreSQL's image is another one than that which put the indexes on text in order.",
            "none",
            Query(f"max by (datname) ({METRIC}{{{DATABASE}}})", "{{datname}}"),
            limits=[Limit(alert="PostgresCollationOutdated", value=1, severity="critical")],
            top=1,
        )
    ]


def _statements() -> list[Panel]:
    seconds = total("pg_stat_statements_seconds_total", DATABASE, "datname, queryid")
    calls = total("pg_stat_statements_calls_total", DATABASE, "datname, queryid")
    return [
        series(
            "Busiest statements",
            "The ten statements that took the most time: seconds a second. Of their text the beginning.",
            "none",
            Query(_with_text(seconds), "{{statement}}"),
        ),
        series(
            "Mean duration of the busiest statements",
            "Mean duration of the ten slowest statements that were run.",
            "s",
            Query(_with_text(f"{seconds} / ({calls} > 0)"), "{{statement}}"),
            watched_by=["SlowDatabaseQueries"],
        ),
        series(
            "Calls of statements",
            "The ten statements that were run most often, times a second.",
            "ops",
            Query(_with_text(calls), "{{statement}}"),
        ),
    ]


def _with_text(measured: str) -> str:
    """Return the ten largest series, each with the text of its statement; with the queryid if there is no text."""
    largest = f"topk(10, {measured})"
    texts = f"max by (queryid, statement) ({STATEMENT}{{{SERVER}}})"
    unknown = f"{largest} unless on (queryid) {texts}"
    return (
        f"{largest} * on (queryid) group_left (statement) {texts} "
        f'or label_replace({unknown}, "statement", "$1", "queryid", "(.+)")'
    )


def _tables() -> list[Panel]:
    data, indexes = (f"pg_stat_user_tables_{kind}_size_bytes{{{DATABASE}}}" for kind in ("table", "index"))
    return [
        series(
            "Largest tables",
            "Size of the ten largest tables and their indexes.",
            "bytes",
            Query(f"topk(10, sum by (datname, relname) ({data} + {indexes}))", "{{datname}} {{relname}}"),
        ),
        series(
            "Dead rows",
            "The ten tables with the most rows that autovacuum has not removed yet.",
            "short",
            Query(
                f"topk(10, sum by (datname, relname) (pg_stat_user_tables_n_dead_tup{{{DATABASE}}}))",
                "{{datname}} {{relname}}",
            ),
        ),
        series(
            "Reads of whole tables",
            "Rows a second that were read without an index, of the ten tables with the most.",
            "ops",
            Query(
                f"topk(10, {total('pg_stat_user_tables_seq_tup_read', DATABASE, 'datname, relname')})",
                "{{datname}} {{relname}}",
            ),
        ),
    ]


def _exporter() -> list[Panel]:
    return [
        series(
            "Duration of a scrape",
            "Time that each collector of the exporter needs.",
            "s",
            Query(f"max by (collector) (pg_scrape_collector_duration_seconds{{{SERVER}}})", "{{collector}}"),
        ),
        series(
            "Collectors that fail",
            "Collectors whose question to the database failed: their metrics are missing.",
            "short",
            Query(
                f"count(pg_scrape_collector_success{{{SERVER}}}) - sum(pg_scrape_collector_success{{{SERVER}}})",
                "failed",
            ),
            Query(f"sum(pg_exporter_last_scrape_error{{{SERVER}}})", "scrapes with an error"),
            limits=[Limit(alert="PostgresExporterErrors", value=1)],
        ),
    ]


def _cache_hits(by: str = "", window: str = "$__rate_interval") -> str:
    hit = total("pg_stat_database_blks_hit", DATABASE, by, window)
    read = total("pg_stat_database_blks_read", DATABASE, by, window)
    return f"{hit} / (({hit} + {read}) > 0)"


def _connection_limits(alerts: Alerts) -> list[Limit]:
    return [
        Limit(alert="PostgresConnectionsHigh", value=ratio(alerts.postgres_connections_percent)),
        Limit(alert="PostgresConnectionsExhausted", value=0.95, severity="critical"),
    ]


def _transaction(alerts: Alerts) -> Limit:
    return Limit(alert="PostgresLongTransaction", value=alerts.postgres_transaction_seconds)


def _cache(alerts: Alerts) -> Limit:
    return Limit(
        alert="PostgresCacheHitRatioLow", value=ratio(alerts.postgres_cache_hit_percent), severity="info", below=True
    )
