"""Whether the logs reach their store, and what they tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import STORES, Alert, Group, Text, number, unless_down
from stack.parts.log_collector.events import FATAL, LOGIN, PANIC, POSTGRES, TRACEBACK
from stack.parts.log_collector.spec import PART
from stack.parts.logs import rules as store
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

BEHIND = "log_collector_behind_seconds"
BEHIND_SECONDS = 300
DROPPED, GAPS, MATCHES = "log_collector_dropped_lines_total", "log_collector_gaps_total", "log_collector_matches_total"
FIRST_READ = "max(log_collector_first_read) * (sum(increase(log_collector_lines_total[2m])) > bool 0)"
"""1 while the store takes what was there before the collector's start: at its first start, 30 MB of each container."""

alert = partial(Alert, service=PART, dashboard="samokoder-monitoring")


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules: none where the logs are not collected."""
    if "log_collector" in environment.absent:
        return Group(name="log-collector", rules=[])
    alerts = environment.settings.alerts
    of_postgres = [] if environment.managed_database else list(_of_postgres(alerts))
    return Group(name="log-collector", rules=[_behind(), _dropped(), _tracebacks(alerts), *of_postgres])


def found(kind: str) -> str:
    """Return how many lines of a kind of trouble were written within ten minutes, by part."""
    return f'sum by (part) (increase({MATCHES}{{kind="{kind}"}}[10m]))'


def _behind() -> Alert:
    return alert(
        name="LogsDelayed",
        expression=f"max by (job) ({BEHIND}) > {BEHIND_SECONDS}",
        wait="5m",
        severity="warning",
        summary=Text(en="new logs cannot be searched", ru="новые логи не попадают в поиск"),
        description=Text(
            en="For {{ $value | humanizeDuration }} VictoriaLogs has not got all lines; they wait, and docker logs has "
            "them.",
            ru="VictoriaLogs уже {{ $value | humanizeDuration }} получает не все строки; они ждут, docker logs их "
            "показывает.",
        ),
    )


def _dropped() -> Alert:
    return alert(
        name="LogLinesDropped",
        # A gap is a file that the engine removed while nobody read it: how many lines it had, nobody knows.
        expression=f"max by (job) (sum by (job) (increase({DROPPED}[15m])) + sum by (job) (increase({GAPS}[15m])) "
        f"or sum by (job) (increase({store.LEFT_OUT}[15m]))) > 0",
        wait="",
        severity="warning",
        summary=Text(en="log lines are lost", ru="строки логов теряются"),
        description=Text(
            en='Lines, or files of unknown length, within 15 minutes: {{ printf "%.0f" $value }}.',
            ru='Строк или файлов неизвестной длины за 15 минут: {{ printf "%.0f" $value }}.',
        ),
    )


def _tracebacks(alerts: Alerts) -> Alert:
    return alert(
        name="LogTracebacks",
        # Without a store nearly every request ends in one: its own alert comes first, and says more.
        expression=f"{found(TRACEBACK)} > {number(alerts.log_tracebacks)}{unless_down(STORES, '10m')}",
        wait="3m",
        severity="warning",
        service="{{ $labels.part }}",
        symptom_of=STORES,
        summary=Text(en="{{ $labels.part }} logs tracebacks", ru="{{ $labels.part }}: в логах трассировки ошибок"),
        description=Text(
            en='Within ten minutes: {{ printf "%.0f" $value }}; '
            f"the threshold is {number(alerts.log_tracebacks)}. An error that no code of it expects.",
            ru='За десять минут: {{ printf "%.0f" $value }}; '
            f"порог — {number(alerts.log_tracebacks)}. Это ошибка, которой код не ждёт.",
        ),
    )


def _of_postgres(alerts: Alerts) -> Iterator[Alert]:
    yield alert(
        name="PostgresPanicLogged",
        expression=f"{found(PANIC)} > 0",
        wait="",
        severity="critical",
        service=POSTGRES,
        summary=Text(en="PostgreSQL logged a PANIC", ru="в логе PostgreSQL — PANIC"),
        description=Text(
            en="Every session was ended, and the server started anew; its disk or its files may be damaged.",
            ru="Все сеансы прерваны, сервер запущен заново; возможно, повреждены диск или файлы.",
        ),
    )
    yield alert(
        name="PostgresFatalLogged",
        expression=f"{found(FATAL)} > {number(alerts.postgres_fatal_lines)}{unless_down({POSTGRES}, '10m')}",
        wait="3m",
        severity="warning",
        symptom_of=frozenset({POSTGRES}),
        service=POSTGRES,
        summary=Text(en="PostgreSQL ends sessions with FATAL", ru="PostgreSQL завершает сеансы с FATAL"),
        description=Text(
            en='Lines within ten minutes: {{ printf "%.0f" $value }}; '
            f"the threshold is {number(alerts.postgres_fatal_lines)}. Refused logins are not counted.",
            ru='Строк за десять минут: {{ printf "%.0f" $value }}; '
            f"порог — {number(alerts.postgres_fatal_lines)}. Отказы во входе не считаются.",
        ),
    )
    yield alert(
        name="PostgresLoginsRefused",
        expression=f"{found(LOGIN)} > {number(alerts.postgres_refused_logins)}",
        wait="",
        severity="warning",
        service=POSTGRES,
        summary=Text(en="PostgreSQL refuses logins", ru="PostgreSQL отказывает во входе"),
        description=Text(
            en='Within ten minutes: {{ printf "%.0f" $value }}; '
            f"the threshold is {number(alerts.postgres_refused_logins)}. A wrong password, or somebody who guesses.",
            ru='За десять минут: {{ printf "%.0f" $value }}; '
            f"порог — {number(alerts.postgres_refused_logins)}. Неверный пароль, или кто-то подбирает.",
        ),
    )
