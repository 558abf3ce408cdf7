"""The `samokoder_*` and `worker_*` metrics. The HTTP ones are the Instrumentator's, as in the original."""

from __future__ import annotations

from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, Info, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from samokoder import __version__

BUILD: Final = Info("samokoder_build", "Version and environment of the running service.")

PROJECTS_CREATED: Final = Counter("samokoder_projects_created", "Projects created through this API replica.")
JOBS_SUBMITTED: Final = Counter("samokoder_jobs_submitted", "Jobs put into the queue by this replica.", ["name"])
JOBS_NOT_QUEUED: Final = Counter(
    "samokoder_jobs_not_queued", "Jobs that a client asked for while the queue was away.", ["name"]
)
JOB_SECONDS: Final = Histogram(
    "samokoder_job_duration_seconds",
    "Seconds that one try of a job ran in this worker.",
    ["name"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)

WORKER_HEARTBEAT: Final = Gauge(
    "worker_heartbeat_timestamp_seconds",
    "Unix time at which this worker's loop last had an answer from the queue.",
)
WORKER_QUEUE_DEPTH: Final = Gauge("worker_queue_depth", "Jobs in the queue, waiting or running.")
WORKER_QUEUE_OLDEST: Final = Gauge(
    "worker_queue_oldest_job_age_seconds",
    "Seconds since the oldest job in the queue became due; 0 for no job.",
)
WORKER_JOBS: Final = Counter("worker_jobs", "Tries of jobs that ended in this worker.", ["status"])


def set_build(environment: str) -> None:
    """Publish `samokoder_build_info`."""
    BUILD.info({"version": __version__, "environment": environment})


async def metrics(_request: Request) -> Response:
    """Answer `/metrics` in the Prometheus text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
