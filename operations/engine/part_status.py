"""The status of each part of an environment, as the engine reports it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from operations.engine.containers import by_part
from stack.parts.grafana import spec as grafana
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.settings.part import Published

NOT_AVAILABLE = "not available"
MISSING = "missing"

_NO_TAG = "<none>:<none>"


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """The status of a part; `state` is `missing` without a container, `not available` where it has no image here."""

    part: str
    state: str
    health: str = ""
    image: str = ""
    url: str = ""
    uptime_seconds: int | None = None
    restarts: int = 0

    @property
    def ok(self) -> bool:
        """Whether it runs and its own health check passes."""
        return self.state == "running" and self.health == "healthy"

    @property
    def counts_as_failed(self) -> bool:
        """Whether the environment is incomplete because of this part; one without an image here does not count."""
        return not self.ok and self.state != NOT_AVAILABLE

    def as_json(self) -> dict[str, Any]:
        """Return it with the keys of `samokoder status --json`."""
        return {**asdict(self), "ok": self.ok}


def expected_parts(environment: Environment) -> dict[str, str]:
    """Return the parts that the environment should run, each with its address, empty where it publishes none."""
    return {
        part: settings.url if isinstance(settings, Published) else ""
        for field, settings in environment.running().items()
        for part in environment.parts_of(field)
    }


def unavailable_parts(environment: Environment) -> list[str]:
    """Return the parts whose image this host cannot get."""
    return [part for field in environment.settings.unavailable for part in environment.parts_of(field)]


def part_statuses(client: docker.DockerClient, environment: Environment) -> list[PartStatus]:
    """Return the status of every part that should run, of parts that are not available, and of any other container."""
    rows = statuses_of(client, environment.name, expected_parts(environment), unavailable_parts(environment))
    if _has_no_grafana(client, environment, rows):
        return [replace(row, state=NOT_AVAILABLE, url="") if row.part == grafana.PART else row for row in rows]
    return rows


def _has_no_grafana(client: docker.DockerClient, environment: Environment, rows: Sequence[PartStatus]) -> bool:
    """Tell whether Grafana is missing because it has no image here, in a clone that has not noted this yet.

    Without a registry the images of other parts are built on the machine (Prometheus runs from a local image then),
    but Grafana's cannot be built.
    """
    if (grafana.PART, MISSING) not in {(row.part, row.state) for row in rows} or environment.settings.images.prometheus:
        return False
    of_prometheus = by_part(client, environment.name).get(prometheus.PART)
    if of_prometheus is None or not str(of_prometheus.attrs["Config"]["Image"]).startswith("sha256:"):
        return False
    from offline.images.grafana import official_grafana  # noqa: PLC0415 - httpx: `status` must stay fast

    return official_grafana(client) is None


def statuses_of(
    client: docker.DockerClient, name: str, parts: Mapping[str, str], missing: Collection[str]
) -> list[PartStatus]:
    """Return the status of parts: as `part_statuses`, for parts as `expected_parts` returns them.

    missing: the parts that are not available.
    """
    found = by_part(client, name)
    tags = _tags(client)
    rows = []
    for part, url in parts.items():
        container = found.pop(part, None)
        there = container and status_of_container(part, container, url=url, tags=tags)
        rows.append(there or PartStatus(part=part, state=MISSING, url=url))
    for part in missing:
        found.pop(part, None)
        rows.append(PartStatus(part=part, state=NOT_AVAILABLE))
    rows += [status_of_container(part, container, tags=tags) for part, container in found.items()]
    return sorted(rows, key=lambda row: row.part)


def _tags(client: docker.DockerClient) -> dict[str, str]:
    """Return id -> tag of the engine's images: a local image is configured by its id, and its tag says what it is.

    The engine lists an image whose tag has moved to another image as `<none>:<none>`.
    """
    found = {}
    for image in client.api.images():
        tags = [str(tag) for tag in image.get("RepoTags") or () if tag != _NO_TAG]
        if tags:
            found[str(image["Id"])] = tags[0]
    return found


def status_of_container(
    part: str, container: Container, *, url: str = "", tags: Mapping[str, str] | None = None
) -> PartStatus:
    """Return the status of a part's container. tags: of the engine's images, by their ids."""
    state = container.attrs["State"]
    image = str(container.attrs["Config"]["Image"])
    uptime = None
    if state["Running"]:
        # Docker writes nanoseconds: Python's parser refuses them before 3.11, and truncates them since.
        started = datetime.fromisoformat(state["StartedAt"])
        uptime = max(0, round((datetime.now(tz=UTC) - started).total_seconds()))
    return PartStatus(
        part=part,
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", "none"),
        image=(tags or {}).get(image, image),
        url=url,
        uptime_seconds=uptime,
        restarts=int(container.attrs.get("RestartCount", 0)),
    )
