"""AlertManager's API, as the test alert needs it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from host.progress import Reporter, Task
from operations.checks.alert.alert_report import Delivery, DeliveryState
from operations.checks.alert.counts import Counts, Watch, failed_attempts
from operations.checks.alert.message import TestAlert
from operations.clone import typed
from operations.errors import ProjectError
from stack.parts.alertmanager.routing import TEST_ALERT, TEST_RECEIVER, WATCHDOG
from stack.parts.alertmanager.rules import HEARTBEAT
from stack.settings.environment import Environment

_HEARTBEAT_WAY = "webhook"
# Prometheus sends a firing alert again once a minute (`--rules.alert.resend-delay`); two in a row may get lost.
_FRESH = timedelta(minutes=3)


@dataclass
class AlertManager:
    """AlertManager's API, as this test needs it."""

    client: httpx.Client
    environment: Environment
    every: float
    receiver: str = TEST_RECEIVER
    """Name of the receiver whose notifications are counted."""
    _ahead: timedelta = timedelta()
    """How far AlertManager's clock is ahead of ours: that clock decides whether an alert has ended."""

    def check(self, ways: Sequence[str]) -> None:
        """Raise ProjectError unless the receiver of test alerts has exactly these integrations.

        Another set means that AlertManager runs with an older configuration, or belongs to another environment.
        """
        there = self.counts().attempts.keys()
        if there == set(ways):
            return
        runs = f"sends test alerts by {', '.join(sorted(there))}" if there else "knows no test alert"
        raise ProjectError(
            f"AlertManager at {self.client.base_url} {runs}, but {self.environment.name} is configured for "
            f"{', '.join(ways)}: bring it up first ({typed(self.environment.name, 'up')})"
        )

    def without_watchdog(self, timeout: float, task: Task) -> str:
        """Wait for an alert that Prometheus has sent within `_FRESH`; return why there is none, or an empty text.

        Raises ProjectError where AlertManager belongs to another environment.
        """
        end = time.monotonic() + timeout
        while True:
            said = self._watchdog()
            task.detail = said
            if not said or time.monotonic() >= end:
                return said
            time.sleep(self.every)

    def _watchdog(self) -> str:
        found = self._alerts(f'alertname="{WATCHDOG}"')
        others = {alert["labels"].get("environment", "") for alert in found} - {self.environment.name}
        if others:
            raise ProjectError(
                f"AlertManager at {self.client.base_url} is that of {', '.join(map(repr, sorted(others)))}, "
                f"not of {self.environment.name!r}"
            )
        if not found:
            # Prometheus stops sending the Watchdog where every integration fails, but still sends other alerts.
            ours = self._alerts(f'environment="{self.environment.name}"')
            found = [each for each in ours if each["labels"]["alertname"] != TEST_ALERT]
        if not found:
            return f"neither the {WATCHDOG} nor another alert has arrived from Prometheus"
        age = self.now() - max(datetime.fromisoformat(alert["updatedAt"]) for alert in found)
        return "" if age <= _FRESH else f"the last alert arrived from Prometheus {age.total_seconds():.0f} s ago"

    def deliver(self, test: TestAlert, ways: Sequence[str], timeout: float, reporter: Reporter) -> list[Delivery]:
        """Send the alert, then its end; return for each integration whether it delivered both."""
        before = self.counts()
        # The alert carries its own end time, so that it ends even if this process dies before it sends the end.
        self._post(test, ends=test.begins + timedelta(seconds=timeout + 60))
        resolved = False
        try:
            told = f"Test alert {test.id}"
            firing = self._wait(before, ways, 1, timeout, reporter, told)
            why = self._unsent(test) if any(each.state is DeliveryState.NO_ANSWER for each in firing.values()) else ""
            self._resolve(test)
            resolved = True
            delivered = [way for way, each in firing.items() if each.state is DeliveryState.DELIVERED]
            ended = self._wait(before, delivered, 2, timeout, reporter, f"{told}: its end") if delivered else {}
        finally:
            if not resolved:
                with suppress(ProjectError):
                    self._resolve(test)
        return [_judged(firing[way], ended.get(way), why) for way in ways]

    def beat(self, timeout: float, reporter: Reporter) -> Delivery:
        """Wait for a heartbeat to the outside address; return whether it was delivered. timeout: in seconds."""
        heartbeat = replace(self, receiver=HEARTBEAT)
        before, why = heartbeat.counts(), ""
        if _HEARTBEAT_WAY not in before.attempts:
            why = f"AlertManager does not know it yet: {typed(self.environment.name, 'up')}"
        elif not self._alerts(f'alertname="{WATCHDOG}"'):
            why = f"the {WATCHDOG} is not sent: every way to people failed within the last 15 minutes"
        if why:
            return Delivery(integration=HEARTBEAT, state=DeliveryState.NO_ANSWER, reason=why)
        told = heartbeat._wait(before, [_HEARTBEAT_WAY], 1, timeout, reporter, "Heartbeat")  # noqa: SLF001
        return replace(told[_HEARTBEAT_WAY], integration=HEARTBEAT)

    def _wait(
        self, before: Counts, ways: Sequence[str], wanted: int, timeout: float, reporter: Reporter, told: str
    ) -> dict[str, Delivery]:
        watch = Watch(before, list(ways), wanted)
        end = time.monotonic() + timeout
        with reporter.task(told) as task:
            while True:
                task.detail = watch.look(now := self.counts())
                if not watch.pending or time.monotonic() >= end:
                    break
                time.sleep(self.every)
        for way in watch.pending:
            errors = now.errors(way, before)
            reason = f"{failed_attempts(errors)} within {timeout:.0f} s" if errors else ""
            watch.done[way] = Delivery(integration=way, state=DeliveryState.NO_ANSWER, reason=reason)
        return watch.done

    def _unsent(self, test: TestAlert) -> str:
        """Say why AlertManager does not send the alert, as far as it knows."""
        found = self._alerts(f'test_id="{test.id}"')
        if not found:
            return "AlertManager does not have the alert"
        status = found[0]["status"]
        if status["silencedBy"]:
            return f"it is silenced: {', '.join(status['silencedBy'])}"
        return f"it is {status['state']}" if status["state"] != "active" else ""

    def _resolve(self, test: TestAlert) -> None:
        self._post(test, ends=max(test.begins, self.now()))

    def _post(self, test: TestAlert, *, ends: datetime) -> None:
        self._ask("POST", "/api/v2/alerts", json=test.as_json(ends=ends))

    def _alerts(self, matcher: str) -> list[dict[str, Any]]:
        answer = self._ask("GET", "/api/v2/alerts", params={"filter": matcher})
        with self._understood():
            found = answer.json()
            if isinstance(found, list):
                return found
        raise self._somebody_else()

    def counts(self) -> Counts:
        """Return the metrics of the receiver."""
        text = self._ask("GET", "/metrics").text
        if "alertmanager_build_info" not in text:
            raise self._somebody_else()
        return Counts.parse(text, self.receiver)

    def now(self) -> datetime:
        """Time of AlertManager's clock."""
        return datetime.now(UTC) + self._ahead

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        url = self.client.base_url
        try:
            response = self.client.request(method, path, **what)
        except httpx.HTTPError as error:
            raise ProjectError(
                f"AlertManager of {self.environment.name} does not answer at {url} ({error or type(error).__name__}): "
                f"is it up? ({typed(self.environment.name, 'status')})"
            ) from None
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ProjectError(
                f"AlertManager at {url} refuses the password of {self.environment.name}: it is another environment's, "
                f"or of before a change ({typed(self.environment.name, 'up')})"
            )
        if response.is_error:
            raise ProjectError(f"{method} {url.join(path)}: {response.status_code} {response.text.strip()[:200]}")
        with suppress(KeyError, ValueError):
            self._ahead = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
        return response

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except ValueError:
            raise self._somebody_else() from None

    def _somebody_else(self) -> ProjectError:
        return ProjectError(f"What answers at {self.client.base_url} is not AlertManager")


def _judged(firing: Delivery, ended: Delivery | None, why: str) -> Delivery:
    """Combine the deliveries of the alert and of its end. why: why AlertManager does not send the alert, if known."""
    if firing.state is DeliveryState.NO_ANSWER and not firing.reason:
        return Delivery(integration=firing.integration, state=firing.state, reason=why)
    if ended and ended.state is not DeliveryState.DELIVERED:
        reason = f"the alert was delivered, its end was not ({ended.reason or ended.state.value})"
        return Delivery(integration=firing.integration, state=DeliveryState.FAILED, reason=reason)
    return firing
