"""All metrics, by the names of the original. Each process exposes those of its part, beside those of both.

A counter that is born at 1 has no increase then, so every series that can be known is made at the start.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from samokoder import __version__

HTTP_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
DB_OPERATIONS: Final = ("select", "insert", "update", "delete", "other")
API: Final = CollectorRegistry()
WORKER: Final = CollectorRegistry()
_API: Final[Any] = {"registry": API}
_WORKER: Final[Any] = {"registry": WORKER}
disable_created_metrics()  # type: ignore[no-untyped-call] # they double the series, and nothing reads them

BUILD = Info("samokoder_build", "Version and environment of the running service.")
DB_SECONDS = Histogram(
    "samokoder_db_query_duration_seconds",
    "Seconds that one statement took in the database, failed ones too.",
    ["operation"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
DB_ERRORS = Counter("samokoder_db_errors", "Failed statements and connections, by exception.", ["error_type"])

# The API's. "endpoint" is the route template, or "unmatched"; probes are not counted.
HTTP_REQUESTS = Counter(
    "samokoder_http_requests", "Requests answered, without probes.", ["method", "endpoint", "status"], **_API
)
HTTP_SECONDS = Histogram(
    "samokoder_http_request_duration_seconds",
    "Seconds from a request's arrival to the end of its answer, of a stream to its beginning.",
    ["method", "endpoint"],
    buckets=(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    **_API,
)
HTTP_IN_PROGRESS = Gauge("samokoder_http_requests_in_progress", "Requests being answered.", ["method"], **_API)
RATE_LIMIT_HITS = Counter("samokoder_rate_limit_hits", "Requests refused with 429.", ["endpoint", "limit_type"], **_API)
RATE_LIMIT_UNAVAILABLE = Counter(
    "samokoder_rate_limit_unavailable",
    "Requests judged without Redis: login and registration refused with 503, others let through.",
    ["endpoint"],
    **_API,
)
AUTH_ATTEMPTS = Counter("samokoder_auth_attempts", "Logins that were tried.", ["result"], **_API)
PROJECTS_CREATED = Counter("samokoder_projects_created", "Projects that this replica created.", **_API)
JOBS_SUBMITTED = Counter("samokoder_jobs_submitted", "Jobs that this replica queued.", ["name"], **_API)
JOBS_NOT_QUEUED = Counter(
    "samokoder_jobs_not_queued", "Jobs that a client asked for while the queue was away.", ["name"], **_API
)

# The worker's.
JOB_SECONDS = Histogram(
    "samokoder_job_duration_seconds",
    "Seconds that one try of a job ran in this worker.",
    ["name"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
    **_WORKER,
)
WORKER_HEARTBEAT = Gauge(
    "worker_heartbeat_timestamp_seconds", "Unix time of the queue's last answer to this worker.", **_WORKER
)
WORKER_QUEUE_DEPTH = Gauge("worker_queue_depth", "Jobs in the queue, waiting or running.", **_WORKER)
WORKER_QUEUE_OLDEST = Gauge(
    "worker_queue_oldest_job_age_seconds", "Seconds since the oldest job became due; 0 for no job.", **_WORKER
)
WORKER_JOBS = Counter("worker_jobs", "Tries of jobs that ended in this worker.", ["status"], **_WORKER)

# Of whoever calls the LLM: a request is retried, so it is one or more HTTP calls to one provider.
LLM_REQUESTS = Counter(
    "samokoder_llm_requests", "Requests answered, or failed for good.", ["provider", "model"], **_WORKER
)
LLM_ERRORS = Counter(
    "samokoder_llm_request_errors", "Requests failed for good, by last error.", ["provider", "error_type"], **_WORKER
)
LLM_SECONDS = Histogram(
    "samokoder_llm_request_duration_seconds",
    "Seconds of one HTTP call, answered or not.",
    ["provider", "model"],
    buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120),
    **_WORKER,
)
LLM_TOKENS = Counter(
    "samokoder_llm_tokens_consumed", "Tokens used, says the provider.", ["provider", "model", "token_type"], **_WORKER
)
LLM_COST = Counter(
    "samokoder_llm_cost_usd", "US dollars for the tokens, at the settings' prices.", ["provider", "model"], **_WORKER
)
LLM_IN_FLIGHT = Gauge("samokoder_llm_requests_in_flight", "HTTP calls without answer.", ["provider"], **_WORKER)
LLM_CIRCUIT_OPEN = Gauge(
    "samokoder_llm_circuit_open", "1 from the breaker's opening to the next answer.", ["provider"], **_WORKER
)


def make_series(metric: Counter | Gauge | Histogram, *labels: Iterable[str]) -> None:
    """Make the series of every combination of the values that each label can have."""
    for values in itertools.product(*labels):
        metric.labels(*values)


make_series(DB_SECONDS, DB_OPERATIONS)
make_series(DB_ERRORS, ["OperationalError", "InterfaceError", "DBAPIError", "IntegrityError", "ProgrammingError"])
make_series(DB_ERRORS, ["TimeoutError", "ConnectionRefusedError"])
make_series(HTTP_IN_PROGRESS, (*HTTP_METHODS, "other"))
make_series(AUTH_ATTEMPTS, ["success", "failure"])
make_series(WORKER_JOBS, ["complete", "retried", "failed"])


def make_llm_series(provider: str, model: str) -> None:
    """Make all series of one provider and its model."""
    for metric in (LLM_REQUESTS, LLM_SECONDS, LLM_COST):
        metric.labels(provider, model)
    make_series(LLM_TOKENS, [provider], [model], ["prompt", "completion"])
    make_series(LLM_ERRORS, [provider], ["timeout", "connection", "rate_limited", "server_error", "client_error"])
    make_series(LLM_ERRORS, [provider], ["circuit_open", "bad_answer"])
    make_series(LLM_IN_FLIGHT, [provider])
    make_series(LLM_CIRCUIT_OPEN, [provider])


def exposition(part: CollectorRegistry, environment: str) -> Callable[[Request], Awaitable[Response]]:
    """Make the endpoint that answers `/metrics` in the Prometheus text format."""
    BUILD.info({"version": __version__, "environment": environment})

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(part), media_type=CONTENT_TYPE_LATEST)

    return metrics
