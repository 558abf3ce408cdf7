"""What the checks of the smoke test ask: a stack's pages, and Prometheus' targets and samples."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import httpx

from operations.checks.report import Once
from operations.checks.smoke.user_account import good, somebody
from operations.engine import reach
from operations.engine.part_status import MISSING, NOT_AVAILABLE, PartStatus
from operations.errors import UnavailableError
from stack.monitoring import access
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.settings.ingress import IngressSettings
from stack.settings.keys import key_of
from stack.settings.part import Published
from stack.spec.rotation import label
from stack.spec.service import Scrape, ServiceSpec


class Target(NamedTuple):
    """A target of Prometheus: a part's page of metrics, or an address that the blackbox exporter probes."""

    job: str
    instance: str
    family: str = ""
    """IP version of the probe, where an address is probed by IPv4 and by IPv6 separately; else empty."""


@dataclass(frozen=True)
class StackAsked:
    """A stack that is up, with what the checks need to ask it."""

    environment: Environment
    parts: Sequence[ServiceSpec]
    rows: Mapping[str, PartStatus]
    """What the engine says of each part's container."""
    client: httpx.Client
    url: reach.Url
    passwords: Callable[[], Mapping[str, str]]
    """The generated secrets by name."""
    seconds: float = 10
    """How long each check may take."""
    somebody: Mapping[str, str] = field(default_factory=somebody)
    """The account that is made and removed. All turns use one, so a turn that fails to remove it adds no second."""

    def need(self, *parts: str) -> None:
        """Raise UnavailableError where a container is not healthy: its own check fails, and one failure is enough."""
        for part in parts:
            row = self.rows.get(part)
            if row and row.state == NOT_AVAILABLE:
                raise UnavailableError(f"this host cannot get an image of {part} ({key_of('unavailable')})")
            if row is None or not row.ok:
                raise UnavailableError(f"the container of {part} is {state_of(row)}")

    def spec(self, part: str) -> ServiceSpec:
        """Return the description of a part that runs."""
        return next(spec for spec in self.parts if spec.part == part)

    def need_target(self, spec: ServiceSpec) -> str:
        """Return the instance of a scraped part. Raises UnavailableError where Prometheus does not get its metrics."""
        assert isinstance(spec.scrape, Scrape), spec.part  # noqa: S101 - only scraped parts are asked
        self.need(prometheus.PART, spec.part)
        instance = f"{spec.part}:{spec.scrape.port}"
        target = self.targets().get(Target(spec.job, instance))
        if target is None or target["health"] != "up":
            raise UnavailableError("Prometheus does not get its metrics: its target is not up")
        return instance

    def get(self, part: str, path: str, **query: str) -> httpx.Response:
        """Ask a part's page, with its password where it has one. Raises FailedError unless it answers 200."""
        self.need(part)
        spec = self.spec(part)
        settings = spec.settings
        assert isinstance(settings, Published), part  # noqa: S101 - only published parts are asked
        base = settings.url if isinstance(settings, IngressSettings) and settings.domain else self.url(settings)
        return good(self.client.get(base + path, params=query, auth=self.login(part)), f"{base}{path}")

    def login(self, part: str) -> tuple[str, str] | None:
        """Return user and password for a part's pages; None where the pages need none."""
        secret = self.spec(part).web_password
        return (access.USER, self.passwords()[label(secret)]) if secret else None

    def prometheus(self, path: str, **query: str) -> Any:
        """Return the data of an answer of Prometheus' API."""
        return self.get(prometheus.PART, f"/api/v1/{path}", **query).json()["data"]

    @cached_property
    def targets(self) -> Once[Mapping[Target, Mapping[str, Any]]]:
        """Prometheus' targets."""

        def ask() -> Mapping[Target, Mapping[str, Any]]:
            found = self.prometheus("targets", state="active")["activeTargets"]
            family = blackbox_exporter.FAMILY
            return {
                Target(labels["job"], labels["instance"], labels.get(family, "")): each
                for each in found
                for labels in [each["labels"]]
            }

        return Once(ask)

    def samples(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and value of each series of an expression, as Prometheus has it now."""
        found = self.prometheus("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]


def state_of(row: PartStatus | None) -> str:
    """Say the state of a part's container. row: None where there is no container."""
    if row is None:
        return MISSING
    return f"running and {row.health}" if row.state == "running" else row.state


def certificates(settings: IngressSettings) -> ssl.SSLContext:
    """Return TLS settings that trust the system's certificate authorities, and the private one of the settings."""
    context = ssl.create_default_context()
    if settings.acme_root:
        context.load_verify_locations(cadata=settings.acme_root)
    return context
