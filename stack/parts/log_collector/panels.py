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
            "Lines in 15 minutes that were dropped, and files that the engine removed before they were read.",
            "short",
            Query(counted("15m", rules.DROPPED, "", "reason"), "{{reason}}"),
            Query(counted("15m", rules.GAPS), "files"),
            watched_by=["LogLinesDropped"],
        ),
    ]


def kept_and_told(environment: Environment) -> list[Panel]:
    """Describe the panels of the store, and of the trouble that lines tell of."""
    alerts = environment.settings.alerts
    kinds = [Query(rules.found(TRACEBACK), "{{part}}: tracebacks")]
    watched = ["LogTracebacks"]
    if not environment.managed_database:
        for kind, name in ((PANIC, "PANIC"), (FATAL, "FATAL"), (LOGIN, "refused logins")):
            kinds.append(Query(f"sum({rules.found(kind)})", name))
        watched += ["PostgresPanicLogged", "PostgresFatalLogged", "PostgresLoginsRefused"]
    return [
        series(
            "Trouble in the logs",
            "Lines in ten minutes that tell of trouble.",
            "short",
            *kinds,
            limits=[Limit(value=alerts.log_tracebacks)],
            watched_by=watched,
        ),
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
