"""`samokoder smoke`: whether a stack that is up does its work, checked from outside within seconds.

The checks follow from the parts: containers, pages, targets, rules and receivers are read from the same descriptions
and the same rendered files that `up` mounts. A part whose container is not healthy fails one check: the checks that
need the part are then not available.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

from operations.checks.report import (
    Check,
    Finding,
    Once,
    Report,
    Verdict,
    ask_all,
)
from operations.checks.smoke import needed_series, user_account
from operations.checks.smoke.alertmanager import alertmanager_checks
from operations.checks.smoke.asked import StackAsked, certificates
from operations.checks.smoke.backups import backup_checks
from operations.checks.smoke.entry import entry_checks
from operations.checks.smoke.grafana import grafana_checks
from operations.checks.smoke.logs import logs_checks
from operations.checks.smoke.metrics import metrics_checks
from operations.checks.smoke.pages import certificate_check, container_checks, page_checks
from operations.checks.smoke.prometheus import rule_checks, target_checks
from operations.checks.smoke.user_account import somebody
from operations.engine import reach
from operations.errors import ProjectError
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.settings.environment import Environment

_PAUSE_SECONDS = 2.0
_LIMIT_SECONDS = 65.0
"""Seconds that a limit of requests is waited for even past `wait`: the API's windows last a minute."""


def smoke(workspace: Workspace, *, seconds: float = 10, wait: float = 0) -> Report:
    """Check a stack that is up.

    seconds: how long each check may take. wait: how long to repeat while a check fails, or meets a limit of requests.
    With a `wait`, a limit is waited for to its end once, even past it: else a deploy passes without the check.
    It removes what it writes through the public entry, unless it is interrupted in between.
    Raises ProjectError where nothing of the stack runs, or its ports cannot be reached.
    """
    environment = workspace.settings()
    parts, end, account = specs(environment), time.monotonic() + wait, somebody()
    findings: list[Finding] = []
    last = wait <= 0
    with reach.opened(environment) as url, workspace.reporter.task(f"Smoke test of {environment.name}") as task:
        client = httpx.Client(timeout=seconds, trust_env=False, verify=certificates(environment.settings.ingress))
        with client:
            while True:
                rows = {row.part: row for row in live_status(workspace)}
                if not any(row.ok for row in rows.values()):
                    raise ProjectError(f"{environment.name} is not up: {workspace.typed('up')}")
                asked = StackAsked(environment, parts, rows, client, url, Once(_passwords(workspace)), seconds, account)
                findings = standing(findings, ask_all(list(every(asked)), seconds=seconds, task=task))
                left, limited = end - time.monotonic(), _limited(findings)
                failed = any(each.verdict is Verdict.FAILED for each in findings)
                if (left <= 0 and (failed or last)) or (not failed and limited is None):
                    return report_of(environment, findings)
                if failed or limited is None:
                    time.sleep(min(_PAUSE_SECONDS, left))
                    continue
                pause, last = min(limited, max(left, _LIMIT_SECONDS)), limited >= left
                workspace.reporter.say(f"{user_account.LIMITED}: asking again in {pause:.0f} s")
                time.sleep(pause)


def _limited(findings: Sequence[Finding]) -> float | None:
    """Return after how many seconds no check meets a limit of requests any more; None: none has met one."""
    # A check that met a limit of requests has not been made, and a deploy is not good without it.
    limited = [seconds for each in findings if (seconds := user_account.limited_seconds(each.why)) is not None]
    return max(_PAUSE_SECONDS, *limited) if limited else None


def standing(before: Sequence[Finding], now: Sequence[Finding]) -> list[Finding]:
    """Return the findings of a turn; a check that failed before and now meets the rate limit keeps its failure."""
    failed = {each.check: each for each in before if each.verdict is Verdict.FAILED}
    return [failed.get(each.check, each) if each.why.startswith(user_account.LIMITED) else each for each in now]


def report_of(environment: Environment, findings: Sequence[Finding]) -> Report:
    """Return the report of a smoke test."""
    about = {"environment": environment.name}
    return Report(title=f"Smoke test of {environment.name}", about=about, findings=findings)


def _passwords(workspace: Workspace) -> Callable[[], Mapping[str, str]]:
    return lambda: workspace.open_made().secrets()


def every(asked: StackAsked) -> Iterator[Check]:
    """Yield every check, in the order of the report."""
    first, second = (
        (container_checks, page_checks, certificate_check, entry_checks),
        (metrics_checks, target_checks, rule_checks, alertmanager_checks),
    )
    for kind in (*first, *second, needed_series.every, grafana_checks, logs_checks, backup_checks):
        yield from kind(asked)
