"""AlertManager's receivers, and whether alerts arrive there."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from operations.checks.alert import send
from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.clone import typed
from operations.errors import FailedError
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.prometheus import spec as prometheus
from stack.spec.files import yaml_document


def alertmanager_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks of AlertManager."""

    def receivers() -> str:
        asked.need(alertmanager.PART)
        declared = _receivers(alertmanager.alertmanager_yml(asked.environment, []))
        there = _receivers(asked.get(alertmanager.PART, "/api/v2/status").json()["config"]["original"])
        if wrong := sorted(name for name in declared.keys() | there.keys() if declared.get(name) != there.get(name)):
            raise FailedError(f"not as declared: {', '.join(wrong)} ({typed(asked.environment.name, 'up')})")
        return f"as declared: {', '.join(sorted(there))}"

    def alerts() -> str:
        asked.need(alertmanager.PART, prometheus.PART)
        url, login = asked.url(asked.environment.settings.alertmanager), asked.login(alertmanager.PART)
        with httpx.Client(base_url=url, auth=login, timeout=asked.client.timeout, trust_env=False) as client:
            if broken := send.broken_before(asked.environment, client):
                raise FailedError(broken)
        return "alerts arrive from Prometheus"

    yield Check(name="alertmanager receivers", ask=receivers)
    yield Check(name="alertmanager gets alerts", ask=alerts)


def _receivers(config: str) -> dict[str, list[str]]:
    """Return receiver -> keys of its integrations (`telegram_configs`), from a configuration of AlertManager."""
    return {
        each["name"]: sorted(key for key in each if key.endswith("_configs"))
        for each in yaml_document(config)["receivers"]
    }
