"""Checks of the smoke test: whether Prometheus has every series that a rule or a dashboard reads.

An alert on a series that nothing exposes never fires, although every target is up and no rule has an error.
`stack.series` reads from the rules and dashboards which series they need.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from operations.checks.report import Check
from operations.errors import FailedError, UnavailableError
from stack import series
from stack.monitoring.metrics import Metric
from stack.parts.api.metrics import METRICS
from stack.parts.backup import rules as backups
from stack.parts.backup import spec as backup
from stack.parts.blackbox_exporter.spec import EXTERNAL, PUBLIC
from stack.parts.cadvisor import spec as cadvisor
from stack.parts.cadvisor.rules import UNSEEN_SECONDS, named
from stack.parts.grafana import spec as grafana
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.service import ServiceSpec

if TYPE_CHECKING:
    from operations.checks.smoke.asked import StackAsked

_NEW_SECONDS = 2 * UNSEEN_SECONDS
"""Seconds after its start in which a container may have no sample: first cAdvisor looks, then Prometheus scrapes."""
_SEEN_SECONDS = 3 * UNSEEN_SECONDS
"""Seconds without a sample after which a container counts as not seen: as many as ContainerMissing waits."""
_DOWN = (
    "up == 0 or pg_up == 0 or redis_up == 0 or probe_success == 0 or pg_scrape_collector_success == 0 "
    "or pg_exporter_last_scrape_error == 1 or redis_exporter_last_scrape_error == 1"
)
"""Faults that have a check or an alert of their own, and make series disappear."""
_SHOWN = 8


def may_be_missing(environment: Environment, parts: Iterable[ServiceSpec]) -> Mapping[str, str]:
    """Return pattern of a series' name -> why a healthy stack may lack the series. parts: every part that runs."""
    found = {pattern: why for spec in parts for pattern, why in spec.may_lack.items()}
    if grafana.PART in environment.absent:
        found[r"grafana_.*"] = "this host cannot get Grafana"
    return found


def every(asked: StackAsked) -> Iterator[Check]:
    """Yield the checks."""
    if cadvisor.PART in {spec.part for spec in asked.parts}:
        yield Check(name="series of containers", ask=lambda: _containers(asked))
    yield Check(name="series of rules", ask=lambda: _of_rules(asked))
    if grafana.PART in {spec.part for spec in asked.parts}:
        yield Check(name="series of dashboards", ask=lambda: _of_dashboards(asked))


def _containers(asked: StackAsked) -> str:
    """Check that cAdvisor sees each healthy container: of one that it does not see, only ContainerMissing can fire."""
    asked.need_target(asked.spec(cadvisor.PART))
    well = [spec.part for spec in asked.parts if spec.part in asked.rows and asked.rows[spec.part].ok]
    last = f"max by (name) (container_last_seen{{{named(asked.environment, well)}}})"
    found = {labels.get("name", "") for labels, _ in asked.samples(f"time() - {last} <= {_SEEN_SECONDS}")}
    missing = [part for part in well if f"{asked.environment.prefix}-{part}" not in found]
    if not missing:
        return f"cAdvisor sees all {len(well)}"
    told = f"cAdvisor does not see {', '.join(missing)}"
    if all((asked.rows[part].uptime_seconds or 0) < _NEW_SECONDS for part in missing):
        raise UnavailableError(f"{told} yet, which {'have' if len(missing) > 1 else 'has'} just started")
    raise FailedError(f"{told}: their alerts are mute (docs/runbooks/ContainerMissing.md)")


def _of_rules(asked: StackAsked) -> str:
    asked.need(prometheus.PART)
    read = series.of_rules(asked.environment, asked.parts)
    missing, count = _missing(asked, read)
    if missing:
        raise FailedError(f"nobody exposes {_told(missing, read)}: these alerts are mute")
    return f"all {count} that are asked for are there, of {len(read)} that rules read"


def _of_dashboards(asked: StackAsked) -> str:
    asked.need(prometheus.PART)
    files = asked.spec(grafana.PART).files
    texts = [text for name, text in files.items() if name.startswith("dashboards/") and isinstance(text, str)]
    read = series.of_dashboards(asked.environment, asked.parts, texts)
    rules = series.of_rules(asked.environment, asked.parts)
    missing, count = _missing(asked, {name: panels for name, panels in read.items() if name not in rules})
    if missing:
        # An empty panel fails no check: it hides no alert, and some panels show what not every host measures.
        raise UnavailableError(f"nobody exposes {_told(missing, read)}: these panels are empty")
    return f"all {count} that are asked for are there, of {len(read)} that panels read"


def _missing(asked: StackAsked, read: series.Readers) -> tuple[list[str], int]:
    """Return the names that Prometheus has no sample of, and how many it should have.

    Raises UnavailableError where something is missing while a part cannot be measured.
    """
    excused = list(may_be_missing(asked.environment, asked.parts))
    row = asked.rows.get(backup.PART)
    if row is None or (row.uptime_seconds or 0) < seconds(backups.FIRST):
        excused.append("(backup|wal)[_:].*")  # the first backup brings them
    # A team's own image may lack metrics of the contract; the check of that part judges the required ones.
    excused += [name for metric in METRICS for name in _names(metric)]
    # ALERTS has a series only for alerts that fire: in a healthy stack that is Watchdog, which may not have begun.
    excused.append("ALERTS.*")
    wanted = [name for name in read if not any(re.fullmatch(pattern, name) for pattern in excused)]
    # One query for both, so that no part recovers between two answers.
    found = asked.samples(f'count by (__name__) ({{__name__=~"{"|".join(wanted)}"}}) or {_DOWN}')
    there = {labels["__name__"] for labels, _ in found if labels.keys() == {"__name__"}}
    ill = [labels for labels, _ in found if labels.keys() != {"__name__"}]
    missing = [name for name in wanted if name not in there]
    if not all(name.startswith("probe") for name in missing):
        # A public address that does not answer, perhaps somebody else's, hides no series but those of its own probe.
        ill = [labels for labels in ill if labels.get("service") not in {PUBLIC, EXTERNAL}]
    down = sorted({labels.get("instance", "") for labels in ill})
    if missing and down:
        raise UnavailableError(f"{len(missing)} are missing while {', '.join(down)} cannot be measured")
    return missing, len(wanted)


def _names(metric: Metric) -> list[str]:
    ends = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
    return [metric.name + end for end in ends]


def _told(missing: list[str], read: series.Readers) -> str:
    told = [f"{name} ({', '.join(read[name][:3])})" for name in missing[:_SHOWN]]
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return f"{', '.join(told)}{more}"
