"""The result of a test alert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class DeliveryState(StrEnum):
    """Whether one integration delivered the test alert."""

    DELIVERED = "delivered"
    FAILED = "failed"
    NO_ANSWER = "no answer"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one integration did with the test alert."""

    integration: str
    state: DeliveryState
    reason: str = ""

    @property
    def text(self) -> str:
        """State and reason for people."""
        return f"{self.state.value}: {self.reason}" if self.reason else self.state.value

    def as_json(self) -> dict[str, str]:
        """Return the delivery as a JSON object."""
        return {"integration": self.integration, "state": self.state.value, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class AlertReport:
    """The result of a test alert."""

    environment: str
    test_id: str
    severity: str
    broken_before: str
    """Why Prometheus' alerts do not reach AlertManager; empty: they do."""
    integrations: Sequence[Delivery]

    @property
    def ok(self) -> bool:
        """Whether every configured integration would deliver a real alert."""
        return not self.broken_before and all(each.state is DeliveryState.DELIVERED for each in self.integrations)

    @property
    def failure(self) -> str:
        """Why a real alert would not be delivered, in one or two sentences; empty: it would."""
        missed = [each.integration for each in self.integrations if each.state is not DeliveryState.DELIVERED]
        said = f"AlertManager gets no alerts: {self.broken_before}. " if self.broken_before else ""
        return (said + (f"Not delivered by {', '.join(missed)}." if missed else "")).rstrip()

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report that a person reads."""
        yield f"Test alert {self.test_id} ({self.severity}) of {self.environment}"
        before = self.broken_before or "AlertManager gets its alerts"
        for name, said in (("prometheus", before), *((each.integration, each.text) for each in self.integrations)):
            yield f"  {name:<12}{said}"

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "environment": self.environment,
            "testId": self.test_id,
            "severity": self.severity,
            "ok": self.ok,
            "prometheus": {"ok": not self.broken_before, "reason": self.broken_before},
            "integrations": [each.as_json() for each in self.integrations],
        }
