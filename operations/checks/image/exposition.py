"""What an image exposes as metrics, checked against the contract of `stack.parts.api.metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from stack.monitoring.metrics import Job, Kind, Metric
from stack.parts.api.metrics import of_jobs


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """A metric as an image exposes it."""

    type: str
    labels: frozenset[str] | None
    """Labels that every series has; None where there is no series yet."""
    buckets: frozenset[float] = frozenset()
    """Upper bounds of a histogram's buckets, without the infinite one."""


def parse(text: str) -> dict[str, Exposed]:
    """Parse Prometheus' text format into metrics by their name in the contract. Raises ValueError."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        each = [frozenset(sample.labels) - {"le", "quantile"} for sample in family.samples]
        bounds = {float(sample.labels["le"]) for sample in family.samples if "le" in sample.labels} - {math.inf}
        labels = frozenset.intersection(*each) if each else None
        found[name] = Exposed(type=family.type, labels=labels, buckets=frozenset(bounds))
    return found


def expected(exposed: Mapping[str, Exposed], kind: Kind) -> list[Metric]:
    """Return the contract's metrics for this image; those of the LLM only if the image exposes at least one of them."""
    calls_llm = any(metric.name in exposed for metric in of_jobs([Job.LLM]))
    return of_jobs([Job(kind.value), *([Job.LLM] if calls_llm else [])])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How an image's metrics differ from the contract's. missing, optional: names; wrong: sentences."""

    missing: list[str]
    optional: list[str]
    wrong: list[str]


def compare(exposed: Mapping[str, Exposed], kind: Kind) -> Comparison:
    """Compare metrics with the contract: names, types, and whether labels or buckets are missing."""
    found = Comparison(missing=[], optional=[], wrong=[])
    for metric in expected(exposed, kind):
        there = exposed.get(metric.name)
        if there is None:
            (found.missing if metric.required else found.optional).append(metric.name)
        elif there.type != metric.type:
            found.wrong.append(f"{metric.name} is a {there.type} and not a {metric.type}")
        elif there.labels is not None and (lacking := [name for name in metric.labels if name not in there.labels]):
            found.wrong.append(f"{metric.name} lacks the label {', '.join(lacking)}")
        elif metric.needs_buckets and there.buckets and (absent := set(metric.buckets) - there.buckets):
            found.wrong.append(f"{metric.name} lacks the buckets {', '.join(f'{bound:g}' for bound in sorted(absent))}")
    return found
