"""The logs: whether lines of this environment can be searched, and whether new ones come."""

from __future__ import annotations

import json
from collections.abc import Iterator

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.clone import typed
from operations.errors import FailedError, UnavailableError
from stack.parts.log_collector import rules
from stack.parts.log_collector import spec as log_collector
from stack.parts.logs import rules as store
from stack.parts.logs import spec as logs

_SOON_SECONDS = 60


def logs_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the check, where the logs are collected."""
    if logs.PART in {spec.part for spec in asked.parts}:
        yield Check(name="logs", ask=lambda: _searched(asked))


def _searched(asked: StackAsked) -> str:
    asked.need_target(asked.spec(log_collector.PART))
    query = f'{{environment="{asked.environment.name}"}} _time:1d | stats count() lines, count_uniq(part) parts'
    found = json.loads(asked.get(logs.PART, "/select/logsql/query", query=query).text or "{}")
    lines = int(found.get("lines", 0))
    behind = [value for _, value in asked.samples(f"max({rules.BEHIND})")]
    why = typed(asked.environment.name, f"logs PART={log_collector.PART}")
    young = (asked.rows[log_collector.PART].uptime_seconds or 0) < _SOON_SECONDS
    if young and (not lines or not behind):
        raise UnavailableError("the collector has just started")
    if any(value for _, value in asked.samples(store.READ_ONLY)):
        free = logs.free_mib(asked.environment)
        raise FailedError(
            f"VictoriaLogs takes no lines: it needs {free} MiB of its disk free, which it leaves to PostgreSQL's log "
            "and others. Make room (docs/runbooks/LogStoreFull.md); "
            f"`{typed(asked.environment.name, 'doctor')}` says how much there is and what may be needed"
        )
    if not lines:
        raise FailedError(f"no line of this environment was stored within a day: {why}")
    if not behind or behind[0] > _SOON_SECONDS:
        if behind and any(value for _, value in asked.samples(rules.FIRST_READ)):
            raise UnavailableError(f"the collector still reads what was there before it; {lines} lines are stored")
        since = f"{behind[0]:.0f} s" if behind else "nobody knows how long"
        raise FailedError(f"new lines have not been stored for {since}: {why}")
    return f"{lines} lines of {found['parts']} parts within a day"
