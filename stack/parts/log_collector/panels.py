"""Panels of the logs, on the dashboard of the monitoring."""

from __future__ import annotations

from stack.monitoring.panels import PER_SECOND, Limit, Panel, Query, series
from stack.monitoring.promql import counted, total
from stack.parts.log_collector import rules
from stack.parts.log_collector.events import FATAL, LOGIN, PANIC, TRACEBACK
from stack.parts.logs import rules as store
from stack.settings.environment import Environment


def on_their_way() -> list[Panel]:
    """Describe the panels of what is collected, and of what waits or is lost."""
    return [
        series(
            "Lines of logs",
            "Lines a second that the collector has read, by part.",
            PER_SECOND,
            Query(total("log_collector_lines_total", "", "part"), "{{part}}"),
            stacked=True,
        ),
        series(
            "Logs that wait",
            "Time since VictoriaLogs last had all lines.",
            "s",
            Query(f"max({rules.BEHIND})", "behind"),
            limits=[Limit(alert="LogsDelayed", value=rules.BEHIND_SECONDS)],
        ),
        series(
            "Lines that are lost",
            "Lines in 15 minutes that were dropped, or left out by the store; files that were removed unread.",
            "short",
            Query(counted("15m", rules.DROPPED, "", "reason"), "{{reason}}"),
            Query(counted("15m", rules.GAPS), "files"),
            Query(f"sum(round(increase({store.LEFT_OUT}[15m])))", "by the store"),
            watched_by=["LogLinesDropped"],
        ),
    ]


def kept_and_told(environment: Environment) -> list[Panel]:
    """Describe the panels of the store, and of the trouble that lines tell of."""
    return [
        *_told(environment),
        series(
            "Disk of the logs",
            "What VictoriaLogs keeps of what it may keep, on disk.",
            "percentunit",
            Query(store.kept(environment), "kept"),
            limits=[Limit(alert="LogsKeptTooShort", value=store.FULL_RATIO, severity="info")],
            top=1,
        ),
        series(
            "Logs are refused",
            "1 while VictoriaLogs takes no lines because its disk is full.",
            "short",
            Query(store.READ_ONLY, "full"),
            limits=[Limit(alert="LogStoreFull", value=1)],
        ),
    ]


def _told(environment: Environment) -> list[Panel]:
    alerts = environment.settings.alerts
    found = [
        series(
            "Tracebacks in the logs",
            "Tracebacks that each part has logged in ten minutes.",
            "short",
            Query(f"round({rules.found(TRACEBACK)})", "{{part}}"),
            limits=[Limit(alert="LogTracebacks", value=alerts.log_tracebacks)],
        )
    ]
    if environment.managed_database:
        return found
    return [
        *found,
        series(
            "FATAL in PostgreSQL's log",
            "Sessions that PostgreSQL has ended or refused in ten minutes, without wrong passwords; PANIC: crashes.",
            "short",
            Query(f"sum(round({rules.found(FATAL)}))", "FATAL"),
            Query(f"sum(round({rules.found(PANIC)}))", "PANIC"),
            limits=[Limit(alert="PostgresFatalLogged", value=alerts.postgres_fatal_lines)],
            watched_by=["PostgresPanicLogged"],
        ),
        series(
            "Logins that PostgreSQL refuses",
            "Logins with a wrong password, or from where none is allowed, in ten minutes.",
            "short",
            Query(f"sum(round({rules.found(LOGIN)}))", "refused"),
            limits=[Limit(alert="PostgresLoginsRefused", value=alerts.postgres_refused_logins)],
        ),
    ]
