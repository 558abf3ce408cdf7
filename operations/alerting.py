"""The test alert, `samokoder test-alert`: whether what AlertManager sends reaches a person.

The alert goes the way of a real one: AlertManager's API, its route, the receiver that has every configured integration.
Whether it was delivered is read from AlertManager's own metrics, which count for that receiver alone
(`--enable-feature=receiver-name-in-metrics`). Two tests at the same moment count for each other.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from offline.progress import Reporter, Task
from operations import reach
from operations.project import Workspace, typed
from operations.stack_file import ProjectError
from stack.monitoring import access
from stack.monitoring.alertmanager import TEST_ALERT, TEST_RECEIVER, WATCHDOG, integrations
from stack.monitoring.rules.alertmanager import HEARTBEAT
from stack.outputs import REACH_SOMEBODY
from stack.rotation import label
from stack.secrets import ALERTMANAGER_WEB
from stack.settings import Environment, seconds

# Prometheus repeats a firing alert once a minute (`--rules.alert.resend-delay`); two of them may get lost.
_FRESH = timedelta(minutes=3)
_ATTEMPTS = "alertmanager_notification_requests_total"
_FAILED_ATTEMPTS = "alertmanager_notification_requests_failed_total"
_FAILED = "alertmanager_notifications_failed_total"
_HEARTBEAT_WAY = "webhook"

_TEXTS = {
    "en": {
        "summary": "this is a test: alerts of {environment} reach you",
        "description": "Somebody ran `samokoder test-alert` (test {test_id}). Nothing is wrong; there is nothing to "
        "do. The message that it is over follows.",
    },
    "ru": {
        "summary": "это проверка: оповещения окружения {environment} доходят до вас",
        "description": "Кто-то выполнил `samokoder test-alert` (проверка {test_id}). Всё в порядке, делать ничего не "
        "нужно. Следом придёт сообщение, что проверка закончилась.",
    },
}


class State(StrEnum):
    """How it went with one integration."""

    DELIVERED = "delivered"
    FAILED = "failed"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one integration did with the test alert."""

    integration: str
    state: State
    reason: str = ""

    @property
    def text(self) -> str:
        """State and reason for people."""
        return f"{self.state.value}: {self.reason}" if self.reason else self.state.value

    def as_json(self) -> dict[str, str]:
        """Return it for programs."""
        return {"integration": self.integration, "state": self.state.value, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a test alert."""

    environment: str
    test_id: str
    severity: str
    broken_before: str
    """Why AlertManager would not get a real alert; empty: Prometheus reaches it."""
    integrations: Sequence[Delivery]

    @property
    def ok(self) -> bool:
        """Whether a real alert would reach everybody whom it should."""
        return not self.broken_before and all(each.state is State.DELIVERED for each in self.integrations)

    @property
    def failure(self) -> str:
        """What a real alert would meet, in a sentence; empty when all is well."""
        missed = [each.integration for each in self.integrations if each.state is not State.DELIVERED]
        said = f"AlertManager gets no alerts: {self.broken_before}. " if self.broken_before else ""
        return (said + (f"Not delivered by {', '.join(missed)}." if missed else "")).rstrip()

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"Test alert {self.test_id} ({self.severity}) of {self.environment}"
        before = self.broken_before or "AlertManager gets its alerts"
        for name, said in (("prometheus", before), *((each.integration, each.text) for each in self.integrations)):
            yield f"  {name:<12}{said}"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "environment": self.environment,
            "testId": self.test_id,
            "severity": self.severity,
            "ok": self.ok,
            "prometheus": {"ok": not self.broken_before, "reason": self.broken_before},
            "integrations": [each.as_json() for each in self.integrations],
        }


def send_test_alert(
    workspace: Workspace, *, severity: str = "critical", timeout: float = 60.0, url: str = ""
) -> Report:
    """Send a test alert, wait until it and its end are delivered, and leave nothing behind.

    timeout: in seconds, for Prometheus' sign of life, the alert and its end each. url: AlertManager, where its
    published port is not reached from this machine.
    Raises ProjectError where nobody is to be told, or AlertManager is not there or not the one of this environment.
    """
    environment = workspace.settings()
    if not integrations(environment):
        raise ProjectError(f"alerts of {environment.name} go to nobody: {REACH_SOMEBODY}")
    password = ""
    if environment.basic_auth:
        password = workspace.open().secrets().get(label(ALERTMANAGER_WEB), "")
    auth = (access.USER, password) if password else None
    with (
        reach.part(environment, environment.settings.alertmanager, url) as address,
        # No proxy of this machine's environment: it would answer for its own loopback.
        httpx.Client(base_url=address, auth=auth, timeout=10, trust_env=False) as client,
    ):
        return run(environment, client, severity=severity, timeout=timeout, reporter=workspace.reporter)


def broken_before(environment: Environment, client: httpx.Client) -> str:
    """Return why the AlertManager that `client` speaks to would not get a real alert; empty: Prometheus reaches it.

    Raises ProjectError where it is none, or another environment's.
    """
    return _Alertmanager(client, environment, every=0).without_watchdog(0, Task("watchdog"))


def run(
    environment: Environment,
    client: httpx.Client,
    *,
    severity: str,
    timeout: float,
    reporter: Reporter,
    every: float = 0.5,
) -> Report:
    """Do what `send_test_alert` says at the AlertManager that `client` speaks to. every: seconds between two looks."""
    ways = list(integrations(environment))
    alertmanager = _Alertmanager(client, environment, every)
    alertmanager.check(ways)
    with reporter.task("Prometheus reaches AlertManager") as task:
        broken = alertmanager.without_watchdog(timeout, task)
    test = _Test.new(environment, severity, alertmanager.now())
    deliveries = alertmanager.deliver(test, ways, timeout, reporter)
    if "heartbeatUrl" in environment.configured_secrets:
        deliveries.append(alertmanager.beat(timeout, reporter))
    return Report(
        environment=environment.name,
        test_id=test.id,
        severity=severity,
        broken_before=broken,
        integrations=deliveries,
    )


@dataclass(frozen=True)
class _Test:
    """One test alert."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    begins: datetime

    @classmethod
    def new(cls, environment: Environment, severity: str, begins: datetime) -> _Test:
        test_id = secrets.token_hex(4)
        texts = _TEXTS[environment.settings.alertmanager.language]
        return cls(
            labels={
                "alertname": TEST_ALERT,
                "severity": severity,
                "environment": environment.name,
                "service": "test",
                "test_id": test_id,
            },
            annotations={
                **{name: text.format(environment=environment.name, test_id=test_id) for name, text in texts.items()},
                "dashboard_url": environment.settings.grafana.address,
            },
            begins=begins,
        )

    @property
    def id(self) -> str:
        return self.labels["test_id"]

    def as_json(self, *, ends: datetime) -> list[dict[str, Any]]:
        return [
            {
                "labels": dict(self.labels),
                "annotations": dict(self.annotations),
                "startsAt": self.begins.isoformat(),
                "endsAt": ends.isoformat(),
            }
        ]


@dataclass(frozen=True)
class _Counts:
    """AlertManager's metrics of one receiver, by integration."""

    attempts: Mapping[str, float]
    failed_attempts: Mapping[str, float]
    failed: Mapping[str, Mapping[str, float]]
    """By reason: notifications that AlertManager has given up."""

    @classmethod
    def parse(cls, text: str, receiver: str) -> _Counts:
        attempts: dict[str, float] = {}
        failed_attempts: dict[str, float] = {}
        failed: dict[str, dict[str, float]] = {}
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.labels.get("receiver_name") != receiver:
                continue
            way = sample.labels["integration"]
            if sample.name == _ATTEMPTS:
                attempts[way] = sample.value
            elif sample.name == _FAILED_ATTEMPTS:
                failed_attempts[way] = sample.value
            elif sample.name == _FAILED:
                failed.setdefault(way, {})[sample.labels["reason"]] = sample.value
        return cls(attempts, failed_attempts, failed)

    def successes(self, way: str, before: _Counts) -> int:
        """Successful attempts since `before`."""
        tried = self.attempts.get(way, 0) - before.attempts.get(way, 0)
        return round(tried - self.errors(way, before))

    def errors(self, way: str, before: _Counts) -> int:
        """Failed attempts since `before`."""
        return round(self.failed_attempts.get(way, 0) - before.failed_attempts.get(way, 0))

    def given_up(self, way: str, before: _Counts) -> list[str]:
        """Reasons for which AlertManager has given up since `before`."""
        old = before.failed.get(way, {})
        return sorted(reason for reason, value in self.failed.get(way, {}).items() if value > old.get(reason, 0))


@dataclass
class _Watch:
    """Waits for successes, integration by integration.

    AlertManager counts an attempt first and its failure a moment later, so a success is one that is still there at the
    next look.
    """

    before: _Counts
    pending: list[str]
    wanted: int
    once: set[str] = field(default_factory=set)
    done: dict[str, Delivery] = field(default_factory=dict)

    def look(self, now: _Counts) -> str:
        """Take in what is counted now; return what there is to tell of those that are waited for."""
        said = []
        for way in list(self.pending):
            enough = now.successes(way, self.before) >= self.wanted
            if enough and way in self.once:
                self._done(way, State.DELIVERED)
            elif reasons := now.given_up(way, self.before):
                errors = now.errors(way, self.before)
                self._done(way, State.FAILED, f"given up after {_failed(errors)} (reason: {', '.join(reasons)})")
            elif errors := now.errors(way, self.before):
                said.append(f"{way}: {_failed(errors)}")
            else:
                said.append(f"{way}: no answer yet")
            self.once = self.once | {way} if enough else self.once - {way}
        return ", ".join(said)

    def _done(self, way: str, state: State, reason: str = "") -> None:
        self.pending.remove(way)
        self.done[way] = Delivery(integration=way, state=state, reason=reason)


@dataclass
class _Alertmanager:
    """AlertManager's API, as this test needs it."""

    client: httpx.Client
    environment: Environment
    every: float
    receiver: str = TEST_RECEIVER
    """Whose notifications are counted."""
    _ahead: timedelta = timedelta()
    """How far its clock is ahead of ours: it judges by its own what is over."""

    def check(self, ways: Sequence[str]) -> None:
        """Raise ProjectError unless this is the environment's own AlertManager with the configuration of now."""
        there = self.counts().attempts.keys()
        if there == set(ways):
            return
        runs = f"sends test alerts by {', '.join(sorted(there))}" if there else "knows no test alert"
        raise ProjectError(
            f"AlertManager at {self.client.base_url} {runs}, but {self.environment.name} is configured for "
            f"{', '.join(ways)}: bring it up first ({typed(self.environment.name, 'up')})"
        )

    def without_watchdog(self, timeout: float, task: Task) -> str:
        """Wait for a fresh alert; return why there is none, or nothing. Raises ProjectError for another's."""
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
            # The Watchdog stops where the only way to people is dead, while other alerts still arrive.
            ours = self._alerts(f'environment="{self.environment.name}"')
            found = [each for each in ours if each["labels"]["alertname"] != TEST_ALERT]
        if not found:
            return f"neither the {WATCHDOG} nor another alert has arrived from Prometheus"
        age = self.now() - max(datetime.fromisoformat(alert["updatedAt"]) for alert in found)
        return "" if age <= _FRESH else f"the last alert arrived from Prometheus {age.total_seconds():.0f} s ago"

    def deliver(self, test: _Test, ways: Sequence[str], timeout: float, reporter: Reporter) -> list[Delivery]:
        """Send the alert and then its end; tell of each integration whether both were delivered."""
        before = self.counts()
        # Its end is given with it, so that it ends even where this process does not get to it.
        self._post(test, ends=test.begins + timedelta(seconds=timeout + 60))
        resolved = False
        try:
            told = f"Test alert {test.id}"
            firing = self._wait(before, ways, 1, timeout, reporter, told)
            why = self._unsent(test) if any(each.state is State.NO_ANSWER for each in firing.values()) else ""
            self._resolve(test)
            resolved = True
            delivered = [way for way, each in firing.items() if each.state is State.DELIVERED]
            ended = self._wait(before, delivered, 2, timeout, reporter, f"{told}: its end") if delivered else {}
        finally:
            if not resolved:
                with suppress(ProjectError):
                    self._resolve(test)
        return [_judged(firing[way], ended.get(way), why) for way in ways]

    def beat(self, timeout: float, reporter: Reporter) -> Delivery:
        """Wait for two intervals for a beat to whoever listens outside; tell whether it was taken."""
        timeout = max(timeout, 2 * seconds(self.environment.settings.alertmanager.heartbeat_interval))
        heartbeat = replace(self, receiver=HEARTBEAT)
        told = heartbeat._wait(heartbeat.counts(), [_HEARTBEAT_WAY], 1, timeout, reporter, "Heartbeat")  # noqa: SLF001
        return replace(told[_HEARTBEAT_WAY], integration=HEARTBEAT)

    def _wait(
        self, before: _Counts, ways: Sequence[str], wanted: int, timeout: float, reporter: Reporter, told: str
    ) -> dict[str, Delivery]:
        watch = _Watch(before, list(ways), wanted)
        end = time.monotonic() + timeout
        with reporter.task(told) as task:
            while True:
                task.detail = watch.look(now := self.counts())
                if not watch.pending or time.monotonic() >= end:
                    break
                time.sleep(self.every)
        for way in watch.pending:
            errors = now.errors(way, before)
            reason = f"{_failed(errors)} within {timeout:.0f} s" if errors else ""
            watch.done[way] = Delivery(integration=way, state=State.NO_ANSWER, reason=reason)
        return watch.done

    def _unsent(self, test: _Test) -> str:
        """Say why AlertManager does not send the alert, as far as it knows."""
        found = self._alerts(f'test_id="{test.id}"')
        if not found:
            return "AlertManager does not have the alert"
        status = found[0]["status"]
        if status["silencedBy"]:
            return f"it is silenced: {', '.join(status['silencedBy'])}"
        return f"it is {status['state']}" if status["state"] != "active" else ""

    def _resolve(self, test: _Test) -> None:
        self._post(test, ends=max(test.begins, self.now()))

    def _post(self, test: _Test, *, ends: datetime) -> None:
        self._ask("POST", "/api/v2/alerts", json=test.as_json(ends=ends))

    def _alerts(self, matcher: str) -> list[dict[str, Any]]:
        answer = self._ask("GET", "/api/v2/alerts", params={"filter": matcher})
        with self._understood():
            found = answer.json()
            if isinstance(found, list):
                return found
        raise self._somebody_else()

    def counts(self) -> _Counts:
        """Return the metrics of the receiver."""
        text = self._ask("GET", "/metrics").text
        if "alertmanager_build_info" not in text:
            raise self._somebody_else()
        return _Counts.parse(text, self.receiver)

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


def _failed(attempts: int) -> str:
    return f"{attempts} failed attempt" + "s" * (attempts != 1)


def _judged(firing: Delivery, ended: Delivery | None, why: str) -> Delivery:
    """Join what came of the alert and of its end. why: what AlertManager says of an alert that it does not send."""
    if firing.state is State.NO_ANSWER and not firing.reason:
        return Delivery(integration=firing.integration, state=firing.state, reason=why)
    if ended and ended.state is not State.DELIVERED:
        reason = f"the alert was delivered, its end was not ({ended.reason or ended.state.value})"
        return Delivery(integration=firing.integration, state=State.FAILED, reason=reason)
    return firing
