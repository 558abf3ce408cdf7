"""The metrics contract: the reference application exposes it, and alerts and dashboards ask for nothing else."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from operations.checks.image import exposition
from operations.documents.metrics import _questions, uses
from stack.catalogue import rule_groups
from stack.monitoring.metrics import Job, Kind, Metric
from stack.parts.api.metrics import METRICS, of_jobs
from stack.parts.backup.metrics import BACKUP_METRICS
from tests.described import dashboard_texts, specs
from tests.recording import ROOT, case_environment

sys.path.insert(0, str(ROOT / "reference_app"))  # the application is no package of this project

from samokoder import metrics as reference

CONTRACT = {metric.name: metric for metric in METRICS}

OURS = re.compile(r"\b(?:samokoder|worker|backup|wal)_\w+")
ENDS = re.compile(r"_(bucket|sum|count)$")


def exposed_by(registry: CollectorRegistry) -> dict[str, MetricWrapperBase]:
    """The metrics that one process of the reference application has: its part's, and those of both parts."""
    made = [metric for metric in vars(reference).values() if isinstance(metric, MetricWrapperBase)]
    in_process = {id(metric) for each in (registry, REGISTRY) for metric in each._collector_to_names}
    return {_exposed_name(metric): metric for metric in made if id(metric) in in_process}


def _exposed_name(metric: MetricWrapperBase) -> str:
    ends = {"counter": "_total", "info": "_info"}
    return str(metric._name) + ends.get(str(metric._type), "")


REFERENCE = [
    pytest.param(reference.API, [Job.API], id="api"),
    pytest.param(reference.WORKER, [Job.WORKER, Job.LLM], id="worker"),
]


@pytest.mark.parametrize(("registry", "jobs"), REFERENCE)
def test_the_reference_application_exposes_the_contract_and_nothing_beside_it(
    registry: CollectorRegistry, jobs: list[Job]
) -> None:
    there, wanted = set(exposed_by(registry)), {metric.name for metric in of_jobs(jobs)}

    assert wanted - there == set(), "the contract names it, but the reference application has no such metric"
    assert there - wanted == set(), "the reference application exposes it, but the contract does not name it"


@pytest.mark.parametrize(("registry", "jobs"), REFERENCE)
def test_its_metrics_have_the_contracts_types_labels_and_buckets(registry: CollectorRegistry, jobs: list[Job]) -> None:
    for name, metric in exposed_by(registry).items():
        wanted = CONTRACT[name]
        if metric._type == "info":
            continue  # its labels are known only once it is told them: below
        assert metric._type == wanted.type, name
        assert set(metric._labelnames) == set(wanted.labels), f"{name}: a label more or less is another contract"
        buckets = tuple(bound for bound in getattr(metric, "_upper_bounds", ()) if bound != float("inf"))
        assert buckets == wanted.buckets, name


@pytest.mark.parametrize("part", [reference.API, reference.WORKER])
def test_what_it_answers_is_what_the_check_takes_for_right(part: CollectorRegistry) -> None:
    reference.exposition(part, "staging")
    reference.make_llm_series("openai", "a-model")
    text = (generate_latest(REGISTRY) + generate_latest(part)).decode()
    kind = Kind.API if part is reference.API else Kind.WORKER

    found = exposition.compare(exposition.parse(text), kind)

    assert found == exposition.Comparison(missing=[], optional=[], wrong=[]), "the check would refuse our own image"
    labels = exposition.parse(text)["samokoder_build_info"].labels
    assert labels == frozenset(CONTRACT["samokoder_build_info"].labels), "what runs is told by these"


def expressions(environment_case: str) -> Iterator[str]:
    """Every expression of the alerts, the recording rules and the dashboards."""
    environment = case_environment(environment_case)
    yield from (rule.expression for group in rule_groups(environment, specs(environment)) for rule in group.rules)
    for text in dashboard_texts(environment).values():
        yield from _questions(json.loads(text))


def test_alerts_and_dashboards_ask_for_no_metric_of_the_application_that_the_contract_lacks() -> None:
    known = CONTRACT | {metric.name: metric for metric in BACKUP_METRICS}
    asked = {name for expression in expressions("staging") for name in OURS.findall(expression)}
    assert "samokoder_http_requests_total" in asked, "the expression no longer finds names"

    unknown = {name for name in asked if ENDS.sub("", name) not in known and name not in known}

    assert unknown == set(), "an image that keeps the contract would not have it"


def test_a_metric_is_required_when_an_alert_is_mute_without_it_and_only_then() -> None:
    every = [*METRICS, *BACKUP_METRICS]
    used = uses(case_environment("staging"), every)
    for metric in every:
        assert metric.required == bool(used[metric.name].alerts), f"{metric.name}: {used[metric.name].alerts}"


def test_every_metric_of_the_contract_is_looked_at_by_somebody() -> None:
    # Staging has no off-site copies, production has no parts that only trials have.
    both = [uses(case_environment(case), [*METRICS, *BACKUP_METRICS]) for case in ("staging", "prod")]
    for name in both[0]:
        used = any(found[name].alerts or found[name].dashboards for found in both)
        assert used, f"{name}: nobody needs to expose what nobody asks for"


def test_an_alert_on_a_recorded_series_counts_as_a_use_of_what_it_is_recorded_from() -> None:
    used = uses(case_environment("staging"), METRICS)["samokoder_http_requests_total"]
    assert "ApiErrorBudgetBurn" in used.alerts, "it asks for the recorded share of bad requests alone"


def test_a_metric_is_not_found_in_the_name_of_another() -> None:
    total = CONTRACT["samokoder_llm_requests_total"]
    seconds = CONTRACT["samokoder_llm_request_duration_seconds"]
    assert total.is_in('sum(rate(samokoder_llm_requests_total{job="worker"}[5m]))')
    assert not total.is_in("samokoder_llm_requests_total_of_another")
    assert seconds.is_in("rate(samokoder_llm_request_duration_seconds_bucket[5m])")
    assert not seconds.is_in("samokoder_llm_request_duration_seconds"), "a histogram has no series of its bare name"


def test_the_names_of_the_contract_are_unique_and_in_prometheus_form() -> None:
    every = [metric.name for metric in (*METRICS, *BACKUP_METRICS)]
    assert len(set(every)) == len(every)
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.type == "counter"), metric.name
        assert bool(metric.buckets) == (metric.type == "histogram"), metric.name


# What an image exposes


def text_of(*metrics: Metric, **changed: Any) -> str:
    """A `/metrics` page with one series of each metric. changed: `labels` or `type` of all of them."""
    lines = []
    for metric in metrics:
        kind, labels = changed.get("type", metric.type), changed.get("labels", metric.labels)
        pairs = ",".join(f'{label}="x"' for label in labels)
        lines.append(f"# TYPE {metric.name} {kind}")
        if kind != "histogram":
            lines.append(f"{metric.name}{{{pairs}}} 1")
            continue
        bounds = [f'{pairs},le="{bound}"' for bound in (*changed.get("buckets", metric.buckets), "+Inf")]
        lines += [f"{metric.name}_bucket{{{bound.lstrip(',')}}} 1" for bound in bounds]
        lines += [f"{metric.name}_sum{{{pairs}}} 1", f"{metric.name}_count{{{pairs}}} 1"]
    return "\n".join(lines) + "\n"


def compared(text: str, kind: Kind = Kind.API) -> exposition.Comparison:
    return exposition.compare(exposition.parse(text), kind)


API_METRICS = of_jobs([Job.API])
LLM_METRICS = of_jobs([Job.LLM])


def test_a_page_with_the_whole_contract_is_right() -> None:
    assert compared(text_of(*API_METRICS)) == exposition.Comparison(missing=[], optional=[], wrong=[])
    assert {family.name for family in text_string_to_metric_families(text_of(*API_METRICS))}, "it can be read"


def test_a_required_metric_that_is_missing_is_told_apart_from_an_optional_one() -> None:
    found = compared("# no metrics\n")
    assert "samokoder_http_requests_total" in found.missing
    assert found.optional == [
        "samokoder_jobs_submitted_total",
        "samokoder_jobs_not_queued_total",
        "samokoder_build_info",
    ]
    assert found.wrong == []


def test_a_metric_of_another_type_is_wrong() -> None:
    found = compared(text_of(CONTRACT["samokoder_projects_created_total"], type="gauge"))
    assert found.wrong == ["samokoder_projects_created_total is a gauge and not a counter"]


def test_a_metric_without_one_of_its_labels_is_wrong_and_one_with_more_is_not() -> None:
    metric = CONTRACT["samokoder_http_requests_total"]
    less = compared(text_of(metric, labels=("method", "status")))
    more = compared(text_of(metric, labels=(*metric.labels, "replica")))
    assert less.wrong == ["samokoder_http_requests_total lacks the label endpoint"]
    assert more.wrong == [], "no expression minds a label more"


def test_a_metric_without_a_series_yet_is_taken_by_its_type_alone() -> None:
    found = compared("# TYPE samokoder_http_requests_total counter\n")
    assert "samokoder_http_requests_total" not in found.missing, "its first series comes with the first request"
    assert found.wrong == []


def test_the_buckets_that_an_alert_counts_at_must_be_there() -> None:
    found = compared(text_of(CONTRACT["samokoder_http_request_duration_seconds"], buckets=(0.1, 1, 10)))
    assert len(found.wrong) == 1, "the alert on slow requests would be mute"
    assert "lacks the buckets 0.01," in found.wrong[0]
    assert "0.5" in found.wrong[0]


@pytest.mark.parametrize("kind", list(Kind))
def test_the_llms_metrics_are_asked_of_an_image_that_has_any_of_them(kind: Kind) -> None:
    assert not [name for name in compared("", kind).missing if "_llm_" in name], "it need not be the one that calls it"
    some = compared(text_of(LLM_METRICS[0]), kind)
    assert "samokoder_llm_cost_usd_total" in some.missing, "whoever calls the LLM tells what it costs"
    assert "samokoder_llm_tokens_consumed_total" in some.optional


def test_a_page_in_another_format_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        exposition.parse('{"requests": 1}\n')
