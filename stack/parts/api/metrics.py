"""The metrics contract: the metrics of the API, of the worker and of LLM calls, with the original's names.

Alerts and dashboards use these metrics; `samokoder check-image` checks that an image has them; docs/metrics.md lists
them with the alerts and dashboards that use each. A metric may have more labels than listed here, but not fewer.
"""

from __future__ import annotations

from collections.abc import Iterable

from stack.common.names import LATENCY_BUCKETS
from stack.monitoring.metrics import Job, Metric

_API = (Job.API,)
_WORKER = (Job.WORKER,)
_BOTH = (Job.API, Job.WORKER)
_LLM = (Job.LLM,)


METRICS = (
    Metric(
        name="samokoder_http_requests_total",
        type="counter",
        jobs=_API,
        unit="requests",
        labels=("method", "endpoint", "status"),
        meaning="Requests answered, without probes. `endpoint` is the route's template (`/projects/{project_id}`), "
        "`unmatched` without a route; `status` is the exact code.",
        required=True,
    ),
    Metric(
        name="samokoder_http_request_duration_seconds",
        type="histogram",
        jobs=_API,
        unit="seconds",
        labels=("method", "endpoint"),
        buckets=LATENCY_BUCKETS,
        needs_buckets=True,
        meaning="From a request's arrival to the end of its answer, of a stream to its beginning.",
        required=True,
    ),
    Metric(
        name="samokoder_http_requests_in_progress",
        type="gauge",
        jobs=_API,
        unit="requests",
        labels=("method",),
        meaning="Requests being answered.",
        required=True,
    ),
    Metric(
        name="samokoder_projects_created_total",
        type="counter",
        jobs=_API,
        unit="projects",
        meaning="Projects created.",
        required=True,
    ),
    Metric(
        name="samokoder_rate_limit_hits_total",
        type="counter",
        jobs=_API,
        unit="requests",
        labels=("endpoint", "limit_type"),
        meaning="Requests refused with 429. `limit_type`: `client`.",
        required=True,
    ),
    Metric(
        name="samokoder_rate_limit_unavailable_total",
        type="counter",
        jobs=_API,
        unit="requests",
        labels=("endpoint",),
        meaning="Requests judged while Redis was away.",
        required=True,
    ),
    Metric(
        name="samokoder_auth_attempts_total",
        type="counter",
        jobs=_API,
        unit="logins",
        labels=("result",),
        meaning="Logins that were tried. `result`: `success` or `failure`.",
        required=True,
    ),
    Metric(
        name="samokoder_jobs_submitted_total",
        type="counter",
        jobs=_API,
        unit="jobs",
        labels=("name",),
        meaning="Jobs put into the queue.",
        required=False,
    ),
    Metric(
        name="samokoder_jobs_not_queued_total",
        type="counter",
        jobs=_API,
        unit="jobs",
        labels=("name",),
        meaning="Jobs asked for while the queue was away.",
        required=False,
    ),
    Metric(
        name="samokoder_db_errors_total",
        type="counter",
        jobs=_BOTH,
        unit="errors",
        labels=("error_type",),
        meaning="Failed statements and connections. `error_type`: the exception's class, `OperationalError` and so on.",
        required=True,
    ),
    Metric(
        name="samokoder_db_query_duration_seconds",
        type="histogram",
        jobs=_BOTH,
        unit="seconds",
        labels=("operation",),
        buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        meaning="One statement. `operation`: `select`, `insert`, `update`, `delete` or `other`.",
        required=True,
    ),
    Metric(
        name="samokoder_build_info",
        type="gauge",
        jobs=_BOTH,
        unit="always 1",
        labels=("version", "environment"),
        meaning="What runs.",
        required=False,
    ),
    Metric(
        name="worker_heartbeat_timestamp_seconds",
        type="gauge",
        jobs=_WORKER,
        unit="seconds since 1970",
        meaning="The queue's last answer to this worker.",
        required=True,
    ),
    Metric(
        name="worker_queue_depth",
        type="gauge",
        jobs=_WORKER,
        unit="jobs",
        meaning="Jobs in the queue, waiting or running.",
        required=True,
    ),
    Metric(
        name="worker_queue_oldest_job_age_seconds",
        type="gauge",
        jobs=_WORKER,
        unit="seconds",
        meaning="Since the oldest job became due; 0 for no job.",
        required=True,
    ),
    Metric(
        name="worker_jobs_total",
        type="counter",
        jobs=_WORKER,
        unit="tries of jobs",
        labels=("status",),
        meaning="Tries that ended. `status`: `complete`, `retried` or `failed`.",
        required=True,
    ),
    Metric(
        name="samokoder_job_duration_seconds",
        type="histogram",
        jobs=_WORKER,
        unit="seconds",
        labels=("name",),
        buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
        meaning="One try of a job.",
        required=False,
    ),
    Metric(
        name="samokoder_llm_requests_total",
        type="counter",
        jobs=_LLM,
        unit="requests",
        labels=("provider", "model"),
        meaning="Requests answered, or failed for good.",
        required=True,
    ),
    Metric(
        name="samokoder_llm_request_errors_total",
        type="counter",
        jobs=_LLM,
        unit="requests",
        labels=("provider", "error_type"),
        meaning="Requests failed for good. `error_type`: `timeout`, `connection`, `rate_limited`, `server_error`, "
        "`client_error`, `circuit_open` or `bad_answer`.",
        required=True,
    ),
    Metric(
        name="samokoder_llm_request_duration_seconds",
        type="histogram",
        jobs=_LLM,
        unit="seconds",
        labels=("provider", "model"),
        buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120),
        meaning="One HTTP call, answered or not.",
        required=True,
    ),
    Metric(
        name="samokoder_llm_tokens_consumed_total",
        type="counter",
        jobs=_LLM,
        unit="tokens",
        labels=("provider", "model", "token_type"),
        meaning="Tokens used. `token_type`: `prompt` or `completion`.",
        required=False,
    ),
    Metric(
        name="samokoder_llm_cost_usd_total",
        type="counter",
        jobs=_LLM,
        unit="US dollars",
        labels=("provider", "model"),
        meaning="What the tokens cost.",
        required=True,
    ),
    Metric(
        name="samokoder_llm_requests_in_flight",
        type="gauge",
        jobs=_LLM,
        unit="calls",
        labels=("provider",),
        meaning="HTTP calls without an answer yet.",
        required=False,
    ),
    Metric(
        name="samokoder_llm_circuit_open",
        type="gauge",
        jobs=_LLM,
        unit="0 or 1",
        labels=("provider",),
        meaning="1 while the circuit breaker refuses.",
        required=True,
    ),
)


def of_jobs(jobs: Iterable[Job]) -> list[Metric]:
    """Return the contract's metrics that at least one of `jobs` exposes."""
    wanted = set(jobs)
    return [metric for metric in METRICS if wanted.intersection(metric.jobs)]
