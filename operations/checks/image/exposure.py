"""What a team's own image exposes of the contract's metrics, and which alerts cannot fire where it lacks one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import docker
import docker.errors
from docker.models.containers import Container

from operations.checks.image import exposition
from operations.documents.metrics import uses
from operations.engine import containers
from operations.engine.bound import MIB, Bound, BoundError
from operations.engine.commands import execute_apart
from stack.catalogue import specs
from stack.monitoring.metrics import Job, Kind
from stack.parts.api.metrics import METRICS, of_jobs
from stack.settings.environment import Environment
from stack.spec.service import Scrape

_ASK_SECONDS = 10
_MOST_OF_A_PAGE = 8 * MIB
_OF_PYTHONS_CLIENT = "python_info"
"""Metric that prometheus_client exposes about itself. Other libraries, and prometheus_client in multiprocess mode,
expose no metric before its first series, so a metric that is missing after a start may only not have counted yet."""

_OF_LLM = frozenset(metric.name for metric in of_jobs([Job.LLM]))


def not_exposed(environment: Environment, missing: Iterable[str]) -> str:
    """Say which metrics are missing and which alerts cannot fire. missing: names of metrics of the contract."""
    names = sorted(missing)
    used = uses(environment, [metric for metric in METRICS if metric.name in names])
    mute = sorted({alert for each in used.values() for alert in each.alerts})
    return f"not exposed: {', '.join(names)}; mute without them: {', '.join(mute) or 'no alert'}"


class Shown(NamedTuple):
    """The contract's metrics that the team's own images expose, by kind."""

    metrics: Mapping[Kind, frozenset[str]]
    unknown: Mapping[Kind, str]
    """Kind -> why its metrics are not known."""


def shown(client: docker.DockerClient, environment: Environment) -> Shown:
    """Return the required metrics of the contract that all containers of each own image expose now.

    They are read from the containers' own pages, because Prometheus stores no metric without a series. They are not
    known where a container cannot be asked, or its library hides metrics that have not counted yet.
    """
    found: dict[Kind, frozenset[str]] = {}
    unknown: dict[Kind, str] = {}
    for kind in Kind:
        if getattr(environment.settings, kind.value).image is None:
            continue
        scrapes = [spec.scrape for spec in specs(environment) if spec.job == kind and isinstance(spec.scrape, Scrape)]
        if not scrapes:
            unknown[kind] = "it has no page of metrics"
            continue
        pages = [_page(each, scrapes[0], kind) for each in containers.of_fields(client, environment, [kind.value])]
        if whys := [page for page in pages if isinstance(page, str)]:
            unknown[kind] = whys[0]
        elif known := [page for page in pages if not isinstance(page, str)]:
            found[kind] = frozenset.intersection(*known)
        else:
            unknown[kind] = "none of its containers runs"
    return Shown(found, unknown)


class Gone(NamedTuple):
    """Metrics of a kind that were exposed and no longer are."""

    lost: frozenset[str]
    """Metrics of a group (those of the LLM, or all others) of which the image still exposes some."""
    unseen: frozenset[str]
    """Metrics of a group that is missing as a whole: its module may not be imported before the first job."""


def gone(before: frozenset[str], now: frozenset[str]) -> Gone:
    """Return the metrics that were exposed before and are not now."""
    missing = before - now
    lost = frozenset(name for name in missing if any((name in _OF_LLM) == (other in _OF_LLM) for other in now))
    return Gone(lost, missing - lost)


def _page(container: Container, scrape: Scrape, kind: Kind) -> frozenset[str] | str:
    """Return the required metrics on a container's page, or why they are not known."""
    address = f"http://127.0.0.1:{scrape.port}{scrape.path}"
    script = f"import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen('{address}', timeout=5).read())"
    bound = Bound(_ASK_SECONDS, _MOST_OF_A_PAGE)
    try:
        status, out, _ = execute_apart(container, ["python", "-c", script], bound=bound)
        exposed = exposition.parse(out.decode())
    except (docker.errors.APIError, BoundError, ValueError, OSError) as error:
        return f"its page of metrics cannot be read: {error}"
    if status != 0:
        return "`python` in the container cannot read its page of metrics"
    if _OF_PYTHONS_CLIENT not in exposed:
        return "its library does not show what it has not counted yet"
    required = {metric.name for metric in exposition.expected(exposed, kind) if metric.required}
    return frozenset(required & exposed.keys())
