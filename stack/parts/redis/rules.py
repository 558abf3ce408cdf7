"""Redis, local or managed, as its exporter sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import (
    ANSWERED_WITHIN,
    Alert,
    Group,
    Outlasts,
    Text,
    number,
    share,
    store_down,
    unseen_seconds,
)
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

alert = partial(Alert, service="redis", dashboard="samokoder-redis")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    alerts = environment.settings.alerts
    # The provider is responsible for the files and replicas of a managed Redis.
    files = [] if environment.managed_redis else [_snapshot_old(alerts), _file_read_with_errors()]
    return Group(name="redis", rules=[*_availability(environment), *_limits(alerts), *_persistence(), *files])


def _answered(environment: Environment) -> str:
    """Return an expression that has a value while Redis answers the worker, and the API's limiter gets answers too."""
    beat = f'time() - max(worker_heartbeat_timestamp_seconds{{job="worker"}}) < {number(unseen_seconds(environment))}'
    # A share, because the limiter counts one slow answer as none too.
    without, requests = (
        f"sum(increase({name}[{ANSWERED_WITHIN}]))"
        for name in ("samokoder_rate_limit_unavailable_total", 'samokoder_http_requests_total{job="api"}')
    )
    without = f"{without} > 0.5 * {requests}"
    return f"({beat} unless on () {without})"


def _availability(environment: Environment) -> Iterator[Alert]:
    answered = _answered(environment)
    down = store_down(environment, "redis_up", "redis-exporter", answered=answered, managed=environment.managed_redis)
    yield alert(
        name="RedisDown",
        expression=down,
        wait="1m",
        severity="critical",
        absence=True,
        outlasts=Outlasts.MISSING,
        summary=Text(en="Redis is down", ru="Redis не работает"),
        description=Text(
            en="It does not answer its exporter: it is down, silent, out of reach, or refuses the exporter's login.",
            ru="Сервер не отвечает экспортеру: не работает, молчит, недоступен или не принимает пароль.",
        ),
    )
    yield alert(
        name="RedisExporterErrors",
        expression="max by (instance) (redis_exporter_last_scrape_error) == 1 and on (instance) redis_up == 1 "
        f"or max by (instance) (redis_up == bool 0) == 1 and on () {answered}",
        wait="15m",
        severity="warning",
        summary=Text(en="Redis is measured in part only", ru="метрики Redis собираются не полностью"),
        description=Text(
            en="Redis answers, and its exporter fails all the same: alerts on its metrics may be silent.",
            ru="Redis отвечает, но экспортер завершается ошибкой: оповещения по его метрикам могут молчать.",
        ),
    )
    yield alert(
        name="RedisRestarted",
        # Not redis_start_time_seconds: the exporter computes it from two clocks, so it may change by a second.
        expression="resets(redis_uptime_in_seconds[10m]) > 0",
        wait="",
        severity="info",
        summary=Text(en="Redis was restarted", ru="Redis был перезапущен"),
        description=Text(
            en='Restarts within ten minutes: {{ printf "%.0f" $value }}; the last writes may be lost.',
            ru='Перезапусков за десять минут: {{ printf "%.0f" $value }}; последние записи могли потеряться.',
        ),
    )


def _limits(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="RedisMemoryHigh",
        # Without maxmemory the metric is 0; then ContainerMemoryNearLimit is the alert.
        expression=f"redis_memory_used_bytes / (redis_memory_max_bytes > 0) > {share(alerts.redis_memory_percent)}",
        wait="5m",
        severity="warning",
        summary=Text(en="Redis runs out of memory", ru="в Redis заканчивается память"),
        description=Text(
            en="{{ $value | humanizePercentage }} of maxmemory are used, at 100% it refuses writes; "
            f"the threshold is {number(alerts.redis_memory_percent)}%.",
            ru="Занято {{ $value | humanizePercentage }} от maxmemory, при 100% запись будет отклонена; "
            f"порог — {number(alerts.redis_memory_percent)}%.",
        ),
    )
    yield alert(
        name="RedisEvictingKeys",
        expression="increase(redis_evicted_keys_total[5m]) > 0",
        wait="",
        severity="critical",
        summary=Text(en="Redis throws keys away", ru="Redis вытесняет ключи"),
        description=Text(
            en='Keys thrown away within five minutes: {{ printf "%.0f" $value }}; jobs may be among them.',
            ru='Вытеснено ключей за пять минут: {{ printf "%.0f" $value }}; среди них могут быть задания.',
        ),
    )
    yield alert(
        name="RedisRejectedConnections",
        expression="increase(redis_rejected_connections_total[5m]) > 0",
        wait="",
        severity="critical",
        summary=Text(en="Redis refuses connections", ru="Redis отклоняет соединения"),
        description=Text(
            en='Refused within five minutes: {{ printf "%.0f" $value }}; maxclients is reached.',
            ru='Отклонено за пять минут: {{ printf "%.0f" $value }}; достигнут предел maxclients.',
        ),
    )
    yield alert(
        name="RedisClientsHigh",
        # redis_max_clients comes from INFO; redis_config_maxclients comes from CONFIG, which a managed Redis refuses.
        expression="redis_connected_clients / (redis_max_clients > 0) > 0.8",
        wait="5m",
        severity="warning",
        summary=Text(en="Redis runs out of connections", ru="в Redis заканчиваются соединения"),
        description=Text(
            en="{{ $value | humanizePercentage }} of maxclients are connected; the threshold is 80%.",
            ru="Подключено {{ $value | humanizePercentage }} от maxclients; порог — 80%.",
        ),
    )


def _persistence() -> Iterator[Alert]:
    yield alert(
        name="RedisPersistenceFailing",
        expression="redis_rdb_last_bgsave_status == 0 or redis_aof_last_write_status == 0",
        wait="5m",
        severity="critical",
        summary=Text(en="Redis cannot write to its disk", ru="Redis не может записать данные на диск"),
        description=Text(
            en="The last snapshot or the last write to the append-only file failed: a restart would lose jobs.",
            ru="Последний снимок или запись в файл AOF завершились ошибкой: при перезапуске задания потеряются.",
        ),
    )


def _file_read_with_errors() -> Alert:
    return alert(
        name="RedisFileReadWithErrors",
        # From INFO: errors while the server reads its append-only file, or replicates; counted since its start.
        expression="redis_unexpected_error_replies > 0",
        wait="",
        severity="critical",
        summary=Text(en="Redis refused commands of its own file", ru="Redis отклонил команды из собственного файла"),
        description=Text(
            en='Commands of the append-only file that were refused: {{ printf "%.0f" $value }}; jobs may be missing.',
            ru='Отклонено команд из файла AOF: {{ printf "%.0f" $value }}; заданий может не хватать.',
        ),
    )


def _snapshot_old(alerts: Alerts) -> Alert:
    age = "time() - redis_rdb_last_save_timestamp_seconds"
    hours = number(alerts.redis_snapshot_hours)
    return alert(
        name="RedisSnapshotOld",
        expression=f"{age} > {hours} * 3600 and redis_rdb_changes_since_last_save > 0",
        wait="1h",
        severity="warning",
        summary=Text(en="the snapshot of Redis is old", ru="снимок Redis устарел"),
        description=Text(
            en="The last one is {{ $value | humanizeDuration }} old, and there are changes since; "
            f"the threshold is {hours} h.",
            ru=f"Последнему {{{{ $value | humanizeDuration }}}}, и с тех пор есть изменения; порог — {hours} ч.",
        ),
    )
