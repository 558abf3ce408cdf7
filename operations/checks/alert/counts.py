"""AlertManager's own metrics of one receiver, and waiting for a success in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from operations.checks.alert.alert_report import Delivery, DeliveryState

_ATTEMPTS = "alertmanager_notification_requests_total"
_FAILED_ATTEMPTS = "alertmanager_notification_requests_failed_total"
_FAILED = "alertmanager_notifications_failed_total"


@dataclass(frozen=True)
class Counts:
    """AlertManager's metrics of one receiver, by integration."""

    attempts: Mapping[str, float]
    failed_attempts: Mapping[str, float]
    failed: Mapping[str, Mapping[str, float]]
    """Integration -> reason -> number of notifications that AlertManager gave up."""

    @classmethod
    def parse(cls, text: str, receiver: str) -> Counts:
        """Read AlertManager's page of metrics. receiver: whose notifications are counted."""
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

    def successes(self, way: str, before: Counts) -> int:
        """Successful attempts since `before`."""
        tried = self.attempts.get(way, 0) - before.attempts.get(way, 0)
        return round(tried - self.errors(way, before))

    def errors(self, way: str, before: Counts) -> int:
        """Failed attempts since `before`."""
        return round(self.failed_attempts.get(way, 0) - before.failed_attempts.get(way, 0))

    def given_up(self, way: str, before: Counts) -> list[str]:
        """Reasons for which AlertManager has given up since `before`."""
        old = before.failed.get(way, {})
        return sorted(reason for reason, value in self.failed.get(way, {}).items() if value > old.get(reason, 0))


@dataclass
class Watch:
    """Waits for successes, integration by integration.

    AlertManager counts an attempt first and its failure a moment later, so an attempt counts as a success only when the
    next look still shows no failure.
    """

    before: Counts
    pending: list[str]
    wanted: int
    once: set[str] = field(default_factory=set)
    done: dict[str, Delivery] = field(default_factory=dict)

    def look(self, now: Counts) -> str:
        """Compare the present counts with those before; return one line on the integrations still waited for."""
        said = []
        for way in list(self.pending):
            enough = now.successes(way, self.before) >= self.wanted
            if enough and way in self.once:
                self._done(way, DeliveryState.DELIVERED)
            elif reasons := now.given_up(way, self.before):
                errors = now.errors(way, self.before)
                self._done(
                    way,
                    DeliveryState.FAILED,
                    f"given up after {failed_attempts(errors)} (reason: {', '.join(reasons)})",
                )
            elif errors := now.errors(way, self.before):
                said.append(f"{way}: {failed_attempts(errors)}")
            else:
                said.append(f"{way}: no answer yet")
            self.once = self.once | {way} if enough else self.once - {way}
        return ", ".join(said)

    def _done(self, way: str, state: DeliveryState, reason: str = "") -> None:
        self.pending.remove(way)
        self.done[way] = Delivery(integration=way, state=state, reason=reason)


def failed_attempts(attempts: int) -> str:
    """Say how many attempts failed."""
    return f"{attempts} failed attempt" + "s" * (attempts != 1)
