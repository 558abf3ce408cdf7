"""Redis' alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, Series, grows, pair, stays
from tests.render.rule_cases.stores import BROKEN, Store

AT = {"job": "redis-exporter", "instance": "redis-exporter:9121"}
EXPORTER = ",".join(f'{name}="{value}"' for name, value in AT.items())
CRITICAL = {"service": "redis", "severity": "critical"}
WARNING = {"service": "redis", "severity": "warning"}

# The time of the worker's last answer from the queue; what the API's limiter had to judge without Redis.
BEAT = 'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:9000"}'
WITHOUT = 'samokoder_rate_limit_unavailable_total{job="api",instance="api-1:8000",endpoint="/projects"}'
REQUESTS = 'samokoder_http_requests_total{job="api",instance="api-1:8000",endpoint="/projects",status="200"}'
STORE = Store(
    alert="RedisDown",
    summary="Redis is down",
    part="redis",
    metric="redis_up",
    exporter=AT,
    answered={BEAT: grows(60), WITHOUT: stays(7), REQUESTS: grows(60)},
    silent={BEAT: f"0+60x{BROKEN} {60 * BROKEN}+0x49"},
    without={
        "the worker alone has a connection": {BEAT: grows(60), WITHOUT: grows(5), REQUESTS: grows(7)},
        "no worker tells": {},
    },
    besides={"one answer was slow": {BEAT: grows(60), WITHOUT: f"7+0x{BROKEN + 17} 8+0x40", REQUESTS: grows(60)}},
)


def _is(**values: str) -> Series:
    return {f"redis_{name}{{{EXPORTER}}}": value for name, value in values.items()}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield from STORE.cases(environment, managed=environment.managed_redis)
    yield from _availability()
    yield from _limits()
    yield from _persistence()


def _availability() -> Iterator[Case]:
    error = f'redis_exporter_last_scrape_error{{{EXPORTER},err="NOPERM"}}'
    yield from pair(
        "RedisExporterErrors",
        titles=("while Redis is up", "while Redis is down: that is RedisDown"),
        fires={error: stays(1), **_is(up=stays(1))},
        silent={error: stays(1), **_is(up=stays(0))},
        minute=20,
        labels=WARNING | {"instance": AT["instance"]},
        summary="Redis is measured in part only",
        description="Redis answers, and its exporter fails all the same: alerts on its metrics may be silent.",
    )
    yield from pair(
        "RedisExporterErrors",
        titles=("its login alone is refused", "Redis answers nobody, which its own alert tells"),
        fires=STORE.refused() | STORE.answered,
        silent=STORE.refused() | STORE.silent,
        minute=30,
        labels=WARNING | {"instance": AT["instance"]},
        summary="Redis is measured in part only",
        description="Redis answers, and its exporter fails all the same: alerts on its metrics may be silent.",
    )
    yield from pair(
        "RedisRestarted",
        titles=("after two minutes away", "it runs on"),
        fires=_is(uptime_in_seconds="1000+60x10 _x2 30+60x20"),
        silent=_is(uptime_in_seconds="1000+60x30"),
        minute=15,
        labels=WARNING | AT | {"severity": "info"},
        summary="Redis was restarted",
        description="Restarts within ten minutes: 1; the last writes may be lost.",
    )


def _limits() -> Iterator[Case]:
    yield from pair(
        "RedisMemoryHigh",
        fires=_is(memory_used_bytes=stays(90), memory_max_bytes=stays(100)),
        silent=_is(memory_used_bytes=stays(85), memory_max_bytes=stays(100)),
        minute=8,
        labels=WARNING | AT,
        summary="Redis runs out of memory",
        description="90% of maxmemory are used, at 100% it refuses writes; the threshold is 85%.",
    )
    unlimited = _is(memory_used_bytes=stays(90), memory_max_bytes=stays(0))
    yield Case(alert="RedisMemoryHigh", title="no maxmemory", series=unlimited, minute=8)
    yield from pair(
        "RedisEvictingKeys",
        titles=("twelve a minute", "none any more"),
        fires=_is(evicted_keys_total=grows(12)),
        silent=_is(evicted_keys_total=stays(12)),
        minute=10,
        labels=CRITICAL | AT,
        summary="Redis throws keys away",
        description="Keys thrown away within five minutes: 60; jobs may be among them.",
    )
    yield from pair(
        "RedisRejectedConnections",
        titles=("three a minute", "none any more"),
        fires=_is(rejected_connections_total=grows(3)),
        silent=_is(rejected_connections_total=stays(3)),
        minute=10,
        labels=CRITICAL | AT,
        summary="Redis refuses connections",
        description="Refused within five minutes: 15; maxclients is reached.",
    )
    yield from pair(
        "RedisClientsHigh",
        fires=_is(connected_clients=stays(85), max_clients=stays(100)),
        silent=_is(connected_clients=stays(80), max_clients=stays(100)),
        minute=8,
        labels=WARNING | AT,
        summary="Redis runs out of connections",
        description="85% of maxclients are connected; the threshold is 80%.",
    )


def _persistence() -> Iterator[Case]:
    for title, series in (
        ("the snapshot failed", _is(rdb_last_bgsave_status=stays(0), aof_last_write_status=stays(1))),
        ("the append-only file failed", _is(rdb_last_bgsave_status=stays(1), aof_last_write_status=stays(0))),
    ):
        yield from pair(
            "RedisPersistenceFailing",
            titles=(title, "both succeeded"),
            fires=series,
            silent=dict.fromkeys(series, stays(1)),
            minute=8,
            labels=CRITICAL | AT,
            summary="Redis cannot write to its disk",
            description="The last snapshot or the last write to the append-only file failed: "
            "a restart would lose jobs.",
        )

    yield from pair(
        "RedisFileReadWithErrors",
        titles=("since a start 1,000 commands were refused", "none was"),
        fires=_is(unexpected_error_replies="0 1000x9"),
        silent=_is(unexpected_error_replies=stays(0)),
        minute=2,
        labels=CRITICAL | AT,
        summary="Redis refused commands of its own file",
        description="Commands of the append-only file that were refused: 1000; jobs may be missing.",
    )

    def snapshot(changes: int, title: str, fires: tuple[Fires, ...] = (), minute: int = 1560) -> Case:
        return Case(
            alert="RedisSnapshotOld",
            title=title,
            series=_is(rdb_last_save_timestamp_seconds=stays(0, 320), rdb_changes_since_last_save=stays(changes, 320)),
            minute=minute,
            fires=fires,
            interval="5m",
        )

    yield snapshot(
        5,
        "26 hours and five changes",
        (
            Fires(
                labels=WARNING | AT,
                summary="the snapshot of Redis is old",
                description="The last one is 1d 2h 0m 0s old, and there are changes since; the threshold is 24 h.",
            ),
        ),
    )
    yield snapshot(0, "nothing has changed since")
    yield snapshot(5, "23 hours", minute=1380)
