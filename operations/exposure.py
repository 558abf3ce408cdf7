"""What a team's own image exposes of the contract's metrics, and which alerts are mute where it lacks one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import docker
import docker.errors
from docker.models.containers import Container

from operations import containers, exposition
from operations.bound import MIB, Bound, BoundError
from operations.metrics_document import uses
from stack.app.metrics_contract import METRICS, Kind
from stack.platform import specs
from stack.service import Scrape
from stack.settings import Environment

_ASK_SECONDS = 10
_MOST_OF_A_PAGE = 8 * MIB
_OF_PYTHONS_CLIENT = "python_info"
"""What prometheus_client shows of itself. Other libraries, and this one across processes, show no metric without a
series: one that is away after a start may only not have counted yet."""


def not_exposed(environment: Environment, missing: Iterable[str]) -> str:
    """Say it in one sentence. missing: names of metrics of the contract."""
    names = sorted(missing)
    used = uses(environment, [metric for metric in METRICS if metric.name in names])
    mute = sorted({alert for each in used.values() for alert in each.alerts})
    return f"not exposed: {', '.join(names)}; mute without them: {', '.join(mute) or 'no alert'}"


def shown(client: docker.DockerClient, environment: Environment) -> dict[Kind, frozenset[str]]:
    """Return the required metrics of the contract that all containers of each own image show now, by kind.

    Read from their own pages: Prometheus has none that has no series yet. A kind is left out where a container cannot
    be asked, or does not say what it has not counted yet.
    """
    found: dict[Kind, frozenset[str]] = {}
    for kind in Kind:
        scrapes = [spec.scrape for spec in specs(environment) if spec.job == kind and isinstance(spec.scrape, Scrape)]
        if not scrapes or getattr(environment.settings, kind.value).image is None:
            continue
        pages = [_page(each, scrapes[0], kind) for each in containers.of_fields(client, environment, [kind.value])]
        known = [page for page in pages if page is not None]
        if known and len(known) == len(pages):
            found[kind] = frozenset.intersection(*known)
    return found


def lost(before: Mapping[Kind, frozenset[str]], now: Mapping[Kind, frozenset[str]]) -> dict[Kind, frozenset[str]]:
    """Return the metrics that were shown and no longer are, of the kinds that could be asked both times."""
    gone = {kind: names - now[kind] for kind, names in before.items() if kind in now}
    return {kind: names for kind, names in gone.items() if names}


def _page(container: Container, scrape: Scrape, kind: Kind) -> frozenset[str] | None:
    """Return the required metrics on a container's page; None where it cannot be had."""
    address = f"http://127.0.0.1:{scrape.port}{scrape.path}"
    script = f"import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen('{address}', timeout=5).read())"
    bound = Bound(_ASK_SECONDS, _MOST_OF_A_PAGE)
    try:
        status, out, _ = containers.execute_apart(container, ["python", "-c", script], bound=bound)
        exposed = exposition.parse(out.decode())
    except (docker.errors.APIError, BoundError, ValueError):
        return None
    if status != 0 or _OF_PYTHONS_CLIENT not in exposed:
        return None
    required = {metric.name for metric in exposition.expected(exposed, kind) if metric.required}
    return frozenset(required & exposed.keys())
