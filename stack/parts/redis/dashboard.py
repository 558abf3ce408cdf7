"""Redis: memory, commands, keys, clients, persistence."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice
from stack.monitoring.panels import PER_SECOND, UP, Limit, Panel, Query, figure, series, states
from stack.monitoring.promql import ratio, total
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-redis"
SERVER = 'instance=~"$redis"'
MEMORY_USED = f"redis_memory_used_bytes{{{SERVER}}} / (redis_memory_max_bytes{{{SERVER}}} > 0)"
CLIENTS_USED = f"redis_connected_clients{{{SERVER}}} / (redis_max_clients{{{SERVER}}} > 0)"
HITS = total("redis_keyspace_hits_total", SERVER, window="30m")
MISSES = total("redis_keyspace_misses_total", SERVER, window="30m")
SNAPSHOT_AGE = f"time() - max(redis_rdb_last_save_timestamp_seconds{{{SERVER}}})"
OK = {1: ("ok", "green"), 0: ("failed", "red")}


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    return board(
        environment,
        uid=UID,
        parts=("redis", "redis-users", "redis-exporter"),
        title="Redis",
        description="Redis as its exporter sees it: it holds the queue of jobs and the counters of the rate limit.",
        choices=[choice("redis", "Exporter", "Exporters of Redis.", "label_values(redis_up, instance)")],
        since="now-3h",
        figures=_now(environment),
        beside=_of_maxmemory(alerts),
        rows=[
            Row("Memory and keys", _memory(), _keys()),
            Row("Commands", _commands()),
            Row("Clients", _clients()),
            Row("Disk", _disk(environment)),
            Row("Exporter", _exporter()),
        ],
    )


def _now(environment: Environment) -> list[Panel]:
    return [
        figure(
            "Redis",
            "Whether the exporter can ask Redis.",
            "none",
            f"min(redis_up{{{SERVER}}})",
            limits=[Limit(alert="RedisDown", value=1, severity="critical", below=True)],
            texts=UP,
        ),
        figure(
            "Running for",
            "Time since it started.",
            "s",
            f"min(redis_uptime_in_seconds{{{SERVER}}})",
            watched_by=["RedisRestarted"],
        ),
        figure(
            "Memory used",
            "Memory of what Redis allows itself. At all of it, it refuses to write, and no job can be queued.",
            "percentunit",
            f"max({MEMORY_USED})",
            limits=[_memory_limit(environment.settings.alerts)],
        ),
        figure(
            "Clients",
            "Connections, of those that are allowed.",
            "percentunit",
            f"max({CLIENTS_USED})",
            limits=[_clients_limit()],
        ),
        figure(
            "Keys found",
            "Share of the reads of the last half hour that found their key.",
            "percentunit",
            f"{HITS} / (({HITS} + {MISSES}) > 0)",
            absent="no reads",
        ),
        figure(
            "Age of the snapshot",
            "Time since the last snapshot on disk.",
            "s",
            SNAPSHOT_AGE,
            limits=_snapshot_limits(environment),
        ),
    ]


def _of_maxmemory(alerts: Alerts) -> Panel:
    return series(
        "Memory, of maxmemory",
        "At all of it Redis refuses to write (noeviction): no job can be queued.",
        "percentunit",
        Query(MEMORY_USED, "{{instance}}"),
        limits=[_memory_limit(alerts)],
        top=1,
    )


def _memory() -> list[Panel]:
    return [
        series(
            "Memory",
            "What the data needs, what the process has from the kernel, and maxmemory.",
            "bytes",
            Query(f"sum(redis_memory_used_bytes{{{SERVER}}})", "used"),
            Query(f"sum(redis_memory_used_rss_bytes{{{SERVER}}})", "resident"),
            Query(f"sum(redis_memory_max_bytes{{{SERVER}}})", "maxmemory"),
        ),
        series(
            "Fragmentation",
            "Resident memory, of what the data needs. Far above 1.5: memory that nothing uses; below 1: swapped out. "
            "With little data it is large and means nothing.",
            "none",
            Query(f"max(redis_mem_fragmentation_ratio{{{SERVER}}})", "resident / used"),
        ),
    ]


def _keys() -> list[Panel]:
    return [
        series(
            "Keys",
            "Keys in all databases, and those that have an end.",
            "short",
            Query(f"sum(redis_db_keys{{{SERVER}}})", "all"),
            Query(f"sum(redis_db_keys_expiring{{{SERVER}}})", "with an end"),
        ),
        series(
            "Keys that went",
            "Keys a second whose end came, and keys that were evicted because memory was short: a job may be lost.",
            PER_SECOND,
            Query(total("redis_expired_keys_total", SERVER), "expired"),
            Query(total("redis_evicted_keys_total", SERVER), "evicted"),
            watched_by=["RedisEvictingKeys"],
        ),
        series(
            "Reads of keys",
            "Reads a second that found their key, and that did not.",
            "ops",
            Query(total("redis_keyspace_hits_total", SERVER), "found"),
            Query(total("redis_keyspace_misses_total", SERVER), "not found"),
        ),
    ]


def _commands() -> list[Panel]:
    seconds = total("redis_commands_duration_seconds_total", SERVER, "cmd")
    calls = total("redis_commands_total", SERVER, "cmd")
    return [
        series(
            "Commands",
            "Commands a second, of the ten most frequent kinds.",
            "ops",
            Query(f"topk(10, {calls})", "{{cmd}}"),
        ),
        series(
            "Duration of commands",
            "Mean time of a command, of the ten slowest kinds.",
            "s",
            Query(f"topk(10, {seconds} / ({calls} > 0))", "{{cmd}}"),
        ),
        series(
            "Failed and slow commands",
            "Commands a second that failed or were refused, and the length of the log of slow ones.",
            "short",
            Query(total("redis_commands_failed_calls_total", SERVER), "failed"),
            Query(total("redis_commands_rejected_calls_total", SERVER), "refused"),
            Query(f"sum(redis_slowlog_length{{{SERVER}}})", "in the slow log"),
        ),
    ]


def _clients() -> list[Panel]:
    return [
        series(
            "Connections",
            "Clients, and those of them that wait for a key.",
            "short",
            Query(f"sum(redis_connected_clients{{{SERVER}}})", "connected"),
            Query(f"sum(redis_blocked_clients{{{SERVER}}})", "waiting"),
        ),
        series(
            "Connections, of maxclients",
            "Clients, of those that are allowed. Beyond, connections are refused.",
            "percentunit",
            Query(CLIENTS_USED, "{{instance}}"),
            limits=[_clients_limit()],
            top=1,
        ),
        series(
            "New connections",
            "Connections a second that were accepted, and that were refused because there were too many.",
            PER_SECOND,
            Query(total("redis_connections_received_total", SERVER), "accepted"),
            Query(total("redis_rejected_connections_total", SERVER), "refused"),
            watched_by=["RedisRejectedConnections"],
        ),
        series(
            "Network",
            "Bytes a second from and to the clients.",
            "binBps",
            Query(total("redis_net_input_bytes_total", SERVER), "received"),
            Query(total("redis_net_output_bytes_total", SERVER), "sent"),
        ),
    ]


def _disk(environment: Environment) -> list[Panel]:
    return [
        states(
            "Writes to disk",
            "How the last snapshot and the last write of the append-only file ended.",
            [
                Query(f"min(redis_rdb_last_bgsave_status{{{SERVER}}})", "snapshot"),
                Query(f"min(redis_aof_last_write_status{{{SERVER}}})", "append-only file"),
            ],
            OK,
            watched_by=["RedisPersistenceFailing"],
        ),
        series(
            "Age of the last snapshot",
            "Time since the last snapshot. The alert wants changes since then as well.",
            "s",
            Query(SNAPSHOT_AGE, "age"),
            limits=_snapshot_limits(environment),
        ),
        series(
            "Changes since the last snapshot",
            "Writes that are not in the snapshot yet; the append-only file has them.",
            "short",
            Query(f"sum(redis_rdb_changes_since_last_save{{{SERVER}}})", "changes"),
        ),
        series(
            "Append-only file",
            "Size on disk.",
            "bytes",
            Query(f"sum(redis_aof_current_size_bytes{{{SERVER}}})", "now"),
            Query(f"sum(redis_aof_base_size_bytes{{{SERVER}}})", "after the last rewrite"),
        ),
        series(
            "Refused from the append-only file",
            "Commands of the file that Redis refused when it started. What they wrote is missing.",
            "short",
            Query(f"max(redis_unexpected_error_replies{{{SERVER}}})", "commands"),
            watched_by=[] if environment.managed_redis else ["RedisFileReadWithErrors"],
        ),
    ]


def _exporter() -> list[Panel]:
    return [
        series(
            "Duration of a scrape",
            "Time that the exporter needs for its questions.",
            "s",
            Query(f"max(redis_exporter_last_scrape_duration_seconds{{{SERVER}}})", "scrape"),
        ),
        states(
            "Scrapes",
            "Whether the exporter got an answer to all of its questions.",
            [Query(f"max(redis_exporter_last_scrape_error{{{SERVER}}})", "exporter")],
            {0: ("ok", "green"), 1: ("failed", "red")},
            watched_by=["RedisExporterErrors"],
        ),
    ]


def _memory_limit(alerts: Alerts) -> Limit:
    return Limit(alert="RedisMemoryHigh", value=ratio(alerts.redis_memory_percent))


def _clients_limit() -> Limit:
    return Limit(alert="RedisClientsHigh", value=0.8)


def _snapshot_limits(environment: Environment) -> list[Limit]:
    """Return the threshold of RedisSnapshotOld; none for a managed Redis, whose provider makes the snapshots."""
    hours = environment.settings.alerts.redis_snapshot_hours
    return [] if environment.managed_redis else [Limit(alert="RedisSnapshotOld", value=hours * 3600)]
