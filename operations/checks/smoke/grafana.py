"""Grafana's login, datasource and dashboards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked
from operations.checks.smoke.user_account import good
from operations.errors import FailedError
from stack.parts.grafana import spec as grafana

_GRAFANA_USER = "admin"


def grafana_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks of Grafana."""

    def ask(path: str, **query: str) -> Any:
        asked.need(grafana.PART)
        base = asked.url(asked.environment.settings.grafana)
        auth = (_GRAFANA_USER, asked.passwords()["grafana-admin"])
        return good(asked.client.get(base + path, params=query, auth=auth), path).json()

    def login() -> str:
        return f"{ask('/api/user')['login']} is let in with the generated password"

    def datasource() -> str:
        health = ask(f"/api/datasources/uid/{grafana.DATASOURCE}/health")
        if health.get("status") != "OK":
            raise FailedError(f"Grafana says of Prometheus: {health.get('message', health)}")
        return str(health.get("message", "it answers"))

    def dashboards() -> str:
        found = {each["uid"] for each in ask("/api/search", type="dash-db", limit="5000")}
        wanted = {
            name.removeprefix("dashboards/").removesuffix(".json")
            for name in asked.spec(grafana.PART).files
            if name.startswith("dashboards/")
        }
        if missing := sorted(wanted - found):
            raise FailedError(f"missing: {', '.join(missing)}")
        return f"all {len(wanted)} are there"

    yield Check(name="grafana login", ask=login)
    yield Check(name="grafana datasource", ask=datasource)
    yield Check(name="grafana dashboards", ask=dashboards)
