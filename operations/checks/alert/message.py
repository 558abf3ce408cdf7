"""The alert that is sent as a test: its labels and its texts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stack.parts.alertmanager.routing import TEST_ALERT
from stack.settings.environment import Environment

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


@dataclass(frozen=True)
class TestAlert:
    """One test alert."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    begins: datetime

    @classmethod
    def new(cls, environment: Environment, severity: str, begins: datetime) -> TestAlert:
        """Make a test alert with a new random id. begins: time on AlertManager's clock."""
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
        """Random id that distinguishes this test alert from others."""
        return self.labels["test_id"]

    def as_json(self, *, ends: datetime) -> list[dict[str, Any]]:
        """Return the alert as the body of a POST to AlertManager's API. ends: time at which the alert is over."""
        return [
            {
                "labels": dict(self.labels),
                "annotations": dict(self.annotations),
                "startsAt": self.begins.isoformat(),
                "endsAt": ends.isoformat(),
            }
        ]
