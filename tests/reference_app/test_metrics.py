"""The metrics that alerts and dashboards are made of: every name from the first scrape, and true."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.reference_app.conftest import Service, Setup

Waiting = Callable[[str, Callable[[], object]], object]

HTTP_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
DB_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
LLM_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120)

BOTH = {
    "samokoder_build_info": {"version", "environment"},
    "samokoder_db_errors_total": {"error_type"},
    "samokoder_db_query_duration_seconds_bucket": {"operation", "le"},
}
API = BOTH | {
    "samokoder_http_requests_total": {"method", "endpoint", "status"},
    "samokoder_http_request_duration_seconds_bucket": {"method", "endpoint", "le"},
    "samokoder_http_requests_in_progress": {"method"},
    "samokoder_projects_created_total": set(),
    "samokoder_rate_limit_hits_total": {"endpoint", "limit_type"},
    "samokoder_rate_limit_unavailable_total": {"endpoint"},
    "samokoder_auth_attempts_total": {"result"},
    "samokoder_jobs_submitted_total": {"name"},
    "samokoder_jobs_not_queued_total": {"name"},
}
WORKER = BOTH | {
    "worker_heartbeat_timestamp_seconds": set(),
    "worker_queue_depth": set(),
    "worker_queue_oldest_job_age_seconds": set(),
    "worker_jobs_total": {"status"},
    "samokoder_job_duration_seconds_bucket": {"name", "le"},
    "samokoder_llm_requests_total": {"provider", "model"},
    "samokoder_llm_request_errors_total": {"provider", "error_type"},
    "samokoder_llm_request_duration_seconds_bucket": {"provider", "model", "le"},
    "samokoder_llm_tokens_consumed_total": {"provider", "model", "token_type"},
    "samokoder_llm_cost_usd_total": {"provider", "model"},
    "samokoder_llm_requests_in_flight": {"provider"},
    "samokoder_llm_circuit_open": {"provider"},
}


def _samples(service: Service) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        assert family.documentation, f"{family.name} must say what it is"
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def _ours(samples: dict[str, list[dict[str, str]]]) -> set[str]:
    """Names of the service's own metrics, a histogram by its buckets."""
    return {
        name for name in samples if name.startswith(("samokoder_", "worker_")) and not name.endswith(("_sum", "_count"))
    }


@pytest.mark.parametrize(("part", "expected"), [("api", API), ("worker", WORKER)])
def test_every_metric_of_a_part_is_there_from_the_first_scrape_and_no_other(
    setup: Setup, part: str, expected: dict[str, set[str]]
) -> None:
    service: Service = getattr(setup, part)()
    service.wait_until("/health")
    samples = _samples(service)
    for name, labels in expected.items():
        assert name in samples, f"{name}: an alert on a series that is not there is blind"
        assert all(set(found) == labels for found in samples[name]), f"{name} has {samples[name][0].keys()}"
    assert _ours(samples) == expected.keys(), "a metric of the other part would be 0 here for ever"
    assert not any(name.endswith("_created") and "projects" not in name for name in samples), "twice the series"


def test_buckets_and_label_values_are_those_that_the_rules_ask_for(api: Service, worker: Service) -> None:
    at_api, at_worker = _samples(api), _samples(worker)

    def values(samples: dict[str, list[dict[str, str]]], name: str, label: str) -> list[str]:
        return list(dict.fromkeys(found[label] for found in samples[name]))

    for samples, name, buckets in (
        (at_api, "samokoder_http_request_duration_seconds", HTTP_BUCKETS),
        (at_api, "samokoder_db_query_duration_seconds", DB_BUCKETS),
        (at_worker, "samokoder_llm_request_duration_seconds", LLM_BUCKETS),
    ):
        assert values(samples, f"{name}_bucket", "le") == [*(str(float(bucket)) for bucket in buckets), "+Inf"]
    operations = {"select", "insert", "update", "delete", "other"}
    assert set(values(at_api, "samokoder_db_query_duration_seconds_bucket", "operation")) == operations
    assert {"success", "failure"} == set(values(at_api, "samokoder_auth_attempts_total", "result"))
    assert "OperationalError" in values(at_worker, "samokoder_db_errors_total", "error_type")
    assert set(values(at_worker, "samokoder_llm_request_errors_total", "error_type")) == {
        *("timeout", "connection", "rate_limited", "server_error", "client_error", "circuit_open", "bad_answer"),
    }
    assert values(at_worker, "samokoder_llm_requests_total", "provider") == ["none"], (
        "without a provider the names are there all the same"
    )


def test_http_metrics_count_by_route_and_leave_probes_out(api: Service) -> None:
    route = 'endpoint="/projects/{project_id}",method="GET"'
    series = f'samokoder_http_requests_total{{{route},status="404"}}'
    count = f"samokoder_http_request_duration_seconds_count{{{route}}}"
    before = api.metric(series), api.metric(count)
    assert None not in before, "a counter that is born at 1 has no increase then"
    api.get(f"/projects/{uuid.uuid4()}")
    api.get("/health")
    api.get("/ready")
    text = api.get("/metrics").text
    assert (api.metric(series), api.metric(count)) == (before[0] + 1, before[1] + 1), "one series a route, not an id"  # type: ignore[operator]
    for probe in ("/health", "/ready", "/metrics"):
        assert f'endpoint="{probe}"' not in text, "probes would dilute the error and latency ratios"
    assert api.metric('samokoder_http_requests_in_progress{method="GET"}') == 0, "nobody is being answered now"
    assert 'samokoder_build_info{environment="test",version="0.1.0"} 1.0' in text


def test_what_a_client_makes_up_becomes_no_series(api: Service) -> None:
    for path in ("/wp-login.php", f"/{uuid.uuid4()}", "/projects/x/y"):
        assert api.get(path).status_code == 404
    for method in ("PURGE", "PROPFIND"):
        httpx.request(method, f"{api.url}/projects")
    httpx.delete(f"{api.url}/projects")
    labels = _samples(api)["samokoder_http_requests_total"]
    endpoints = {found["endpoint"] for found in labels}
    assert "unmatched" in endpoints
    assert not any("wp-login" in endpoint or "/x" in endpoint for endpoint in endpoints), (
        "memory for every made up path"
    )
    assert {found["method"] for found in labels} <= {"GET", "POST", "DELETE", "other"}, "and for every made up method"
    refused = 'samokoder_http_requests_total{endpoint="/projects",method="DELETE",status="405"}'
    assert api.metric(refused) is not None, "a route that knows no such method is a route all the same"


def test_routes_of_an_included_router_are_named_in_full(api: Service) -> None:
    series = 'samokoder_http_requests_total{endpoint="/auth/me",method="GET",status="401"}'
    before = api.metric(series) or 0
    assert api.get("/auth/me").status_code == 401
    assert api.metric(series) == before + 1


def test_statements_are_timed_by_what_they_do_and_readiness_is_not_among_them(api: Service) -> None:
    def count(operation: str) -> float:
        found = api.metric(f'samokoder_db_query_duration_seconds_count{{operation="{operation}"}}')
        assert found is not None
        return found

    before = count("select"), count("insert")
    for _ in range(3):
        assert api.get("/ready").status_code == 200
    assert (count("select"), count("insert")) == before, "the probe's quick statement would hide slow ones"
    api.post("/projects", json={"name": "x"})
    api.get("/projects")
    assert (count("select"), count("insert")) == (before[0] + 1, before[1] + 1)


def test_errors_of_the_database_are_counted_by_class_whoever_meets_them(setup: Setup, waiting: Waiting) -> None:
    api = setup.api()
    api.wait_until("/ready")

    def errors() -> dict[str, float]:
        lines = [line for line in api.get("/metrics").text.splitlines() if line.startswith("samokoder_db_errors_total")]
        return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}

    api.get("/projects")
    assert sum(errors().values()) == 0, errors()
    setup.postgres.stop(signal.SIGINT)
    try:
        waiting("503", lambda: api.get("/projects").status_code == 503)
        refused = errors().get("ConnectionRefusedError", 0)
        waiting("503", lambda: api.get("/projects").status_code == 503)
        assert errors()["ConnectionRefusedError"] > refused, f"each refused connection is an error: {errors()}"
    finally:
        setup.postgres.start()
    waiting("ready again", lambda: api.get("/ready").status_code == 200)


def test_a_statement_that_the_database_refuses_is_an_error_and_is_timed(setup: Setup) -> None:
    api = setup.api()
    api.wait_until("/ready")
    setup.postgres.ask(lambda c: c.execute("ALTER TABLE projects RENAME TO hidden"))
    try:
        assert api.get("/projects").status_code == 500
    finally:
        setup.postgres.ask(lambda c: c.execute("ALTER TABLE hidden RENAME TO projects"))
    assert api.metric('samokoder_db_errors_total{error_type="ProgrammingError"}') == 1
    assert api.metric('samokoder_http_requests_total{endpoint="/projects",method="GET",status="500"}') == 1
    assert api.metric('samokoder_db_query_duration_seconds_count{operation="select"}') != 0, (
        "a failed one takes time too"
    )
