"""The metrics contract: what the API, the worker and whoever calls the LLM expose, by the names of the original.

Alerts and dashboards are made of these; `samokoder check-image` holds an image against them, docs/metrics.md lists
them with the alerts and dashboards that use each. Labels may be more than these, never less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds of the API's histogram of durations, in seconds."""


class Kind(StrEnum):
    """Parts that run a team's own image."""

    API = "api"
    WORKER = "worker"


class Job(StrEnum):
    """Who exposes a metric."""

    API = "api"
    WORKER = "worker"
    LLM = "whoever calls the LLM"
    """The worker of the reference application; of a team's own images it may be either."""
    BACKUP = "backup"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, as `/metrics` has it: a counter with `_total`, a histogram without `_bucket`."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    jobs: tuple[Job, ...]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    needs_buckets: bool = False
    """Whether an alert asks for one of the buckets, whichever the settings say: then an image needs them all."""
    required: bool
    """Whether an alert is mute without it. Of the LLM's: required of an image that has any of them."""

    def is_in(self, expression: str) -> bool:
        """Tell whether a PromQL expression asks for it."""
        return bool(_names_in(expression) & self._series())

    def _series(self) -> set[str]:
        return {self.name + end for end in ("_bucket", "_sum", "_count")} if self.type == "histogram" else {self.name}


def _names_in(expression: str) -> set[str]:
    """Return the words of an expression that can be a series; those of labels and functions do no harm."""
    word = "".join(letter if letter.isalnum() or letter in "_:" else " " for letter in expression)
    return set(word.split())


_API = (Job.API,)
_WORKER = (Job.WORKER,)
_BOTH = (Job.API, Job.WORKER)
_LLM = (Job.LLM,)
_BACKUP = (Job.BACKUP,)

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

# Of the backup server, which is an image of this clone: docs/backup-and-restore.md.
BACKUP_METRICS = (
    Metric(
        name="backup_last_success_timestamp_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds since 1970",
        labels=("kind",),
        meaning="End of the last backup that succeeded; 0 before the first.",
        required=True,
    ),
    Metric(
        name="backup_last_exit_code",
        type="gauge",
        jobs=_BACKUP,
        unit="exit code",
        labels=("kind",),
        meaning="How the last backup ended; 0 is well.",
        required=True,
    ),
    Metric(
        name="backup_size_bytes",
        type="gauge",
        jobs=_BACKUP,
        unit="bytes",
        labels=("kind",),
        meaning="Size of the last backup.",
        required=True,
    ),
    Metric(
        name="backup_last_duration_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds",
        labels=("kind",),
        meaning="How long the last backup took.",
        required=False,
    ),
    Metric(
        name="backup_retained",
        type="gauge",
        jobs=_BACKUP,
        unit="backups",
        labels=("kind",),
        meaning="Backups that are kept.",
        required=False,
    ),
    Metric(
        name="backup_verify_last_success_timestamp_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds since 1970",
        meaning="End of the last verification that found everything whole.",
        required=True,
    ),
    Metric(
        name="backup_verify_failed",
        type="gauge",
        jobs=_BACKUP,
        unit="backups, pieces of the log, dumps, copies",
        meaning="What is bad: found by the last verification, or not to be read now.",
        required=True,
    ),
    Metric(
        name="backup_stamps_ahead",
        type="gauge",
        jobs=_BACKUP,
        unit="backups, jobs",
        meaning="Those whose time stamp is of a time to come: the clock was ahead. They do not count.",
        required=True,
    ),
    Metric(
        name="backup_restore_test_last_success_timestamp_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds since 1970",
        meaning="End of the last restore for a trial that succeeded.",
        required=True,
    ),
    Metric(
        name="backup_restore_test_last_exit_code",
        type="gauge",
        jobs=_BACKUP,
        unit="exit code",
        meaning="How the last restore for a trial ended; 0 is well.",
        required=True,
    ),
    Metric(
        name="backup_restore_test_rpo_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds",
        meaning="Age of the newest change in what was restored: so much would have been lost.",
        required=False,
    ),
    Metric(
        name="backup_restore_test_rto_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds",
        meaning="How long the last restore for a trial took.",
        required=False,
    ),
    Metric(
        name="wal_archive_lag_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds",
        meaning="Since the last piece of the write-ahead log came; there is one for every heartbeat.",
        required=True,
    ),
    Metric(
        name="backup_wal_receiver_up",
        type="gauge",
        jobs=_BACKUP,
        unit="0 or 1",
        meaning="Whether the write-ahead log is received as it is written.",
        required=True,
    ),
    Metric(
        name="backup_slot_retained_bytes",
        type="gauge",
        jobs=_BACKUP,
        unit="bytes",
        meaning="Write-ahead log that PostgreSQL keeps for the backup server.",
        required=True,
    ),
    Metric(
        name="backup_slot_limit_bytes",
        type="gauge",
        jobs=_BACKUP,
        unit="bytes",
        meaning="What PostgreSQL keeps of it at most.",
        required=True,
    ),
    Metric(
        name="backup_volume_free_bytes",
        type="gauge",
        jobs=_BACKUP,
        unit="bytes",
        meaning="Free space where the backups are.",
        required=True,
    ),
    Metric(
        name="backup_volume_size_bytes",
        type="gauge",
        jobs=_BACKUP,
        unit="bytes",
        meaning="All space there.",
        required=True,
    ),
    Metric(
        name="backup_offsite_last_success_timestamp_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds since 1970",
        meaning="End of the last copy that reached the bucket; 0 before the first.",
        required=True,
    ),
    Metric(
        name="backup_offsite_last_exit_code",
        type="gauge",
        jobs=_BACKUP,
        unit="exit code",
        meaning="How the last copy to the bucket ended; 0 is well.",
        required=True,
    ),
    Metric(
        name="backup_offsite_last_check_success_timestamp_seconds",
        type="gauge",
        jobs=_BACKUP,
        unit="seconds since 1970",
        meaning="When the copy in the bucket was last looked at and found whole; 0 before the first time.",
        required=True,
    ),
    Metric(
        name="backup_offsite_last_check_damaged",
        type="gauge",
        jobs=_BACKUP,
        unit="0 or 1",
        meaning="Whether that copy was found damaged.",
        required=True,
    ),
    Metric(
        name="backup_offsite_enabled",
        type="gauge",
        jobs=_BACKUP,
        unit="0 or 1",
        meaning="Whether there is a bucket.",
        required=True,
    ),
)


def of_jobs(jobs: Iterable[Job]) -> list[Metric]:
    """Return the contract's metrics that these expose."""
    wanted = set(jobs)
    return [metric for metric in METRICS if wanted.intersection(metric.jobs)]
