"""The worker's alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.settings.environment import Environment
from tests.render.rule_cases.model import HISTORY, Case, Fires, Series, grows, pair, stays

CRITICAL = {"service": "worker", "severity": "critical"}
WARNING = {"service": "worker", "severity": "warning"}

UP = 'up{job="worker",instance="worker:9000"}'
BEAT = 'worker_heartbeat_timestamp_seconds{job="worker",instance="worker:9000"}'
DEPTH = 'worker_queue_depth{job="worker",instance="worker:9000"}'
OLDEST = 'worker_queue_oldest_job_age_seconds{job="worker",instance="worker:9000"}'
# An image whose API has the worker's gauges as well and never sets them.
OF_THE_API = {
    'worker_queue_depth{job="api",instance="api:8000"}': stays(0),
    'worker_heartbeat_timestamp_seconds{job="api",instance="api:8000"}': stays(0),
}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    down = Fires(
        labels=CRITICAL, summary="the worker is down", description="Workers that Prometheus can reach: 0; jobs wait."
    )
    yield Case(alert="WorkerDown", title="the target is down", series={UP: "1 0+0x9"}, minute=4, fires=(down,))
    yield Case(alert="WorkerDown", title="there is no target", series=HISTORY, minute=20, fires=(down,))
    yield Case(alert="WorkerDown", title="a first up has not made it yet", series=HISTORY, minute=14)
    yield Case(alert="WorkerDown", title="it is up", series={UP: stays(1)}, minute=4)
    yield from pair(
        "WorkerHeartbeatStale",
        titles=("the last beat was at minute 5", "a beat a minute"),
        # Its value is the time of the beat, in seconds.
        fires={BEAT: "0+60x5 300+0x20", **OF_THE_API},
        silent={BEAT: "0+60x20", **OF_THE_API},
        minute=10,
        labels=CRITICAL | {"instance": "worker:9000"},
        summary="the worker hangs",
        description="worker:9000 had its last answer from the queue 5m 0s ago.",
    )
    yield from _queue()
    yield from pair(
        "WorkerJobFailureRatioHigh",
        fires=_jobs(complete=9, failed=1),
        silent=_jobs(complete=98, failed=2),
        minute=30,
        labels=WARNING,
        summary="jobs fail",
        description="10% of the jobs of the last 15 minutes failed; the threshold is 5%.",
    )
    yield Case(alert="WorkerJobFailureRatioHigh", title="no jobs", series=_jobs(complete=0, failed=0), minute=30)


def _jobs(*, complete: float, failed: float) -> Series:
    return {
        f'worker_jobs_total{{job="worker",instance="worker:9000",status="{status}"}}': grows(by)
        for status, by in (("complete", complete), ("failed", failed), ("retried", 0))
    }


def _queue() -> Iterator[Case]:
    yield from pair(
        "WorkerQueueStalled",
        titles=("three wait, none ends", "three wait, and one ends a minute"),
        fires={DEPTH: stays(3), **_jobs(complete=0, failed=0)},
        silent={DEPTH: stays(3), **_jobs(complete=1, failed=0)},
        minute=25,
        labels=CRITICAL,
        summary="no job ends",
        description="3 jobs are in the queue, and none has ended in ten minutes.",
    )
    yield Case(
        alert="WorkerQueueStalled",
        title="none waits",
        series={DEPTH: stays(0), **_jobs(complete=0, failed=0)},
        minute=25,
    )
    yield from pair(
        "WorkerQueueOldestJobTooOld",
        fires={OLDEST: stays(400)},
        silent={OLDEST: stays(300)},
        minute=8,
        labels=CRITICAL,
        summary="jobs wait too long",
        description="The oldest job has waited for 6m 40s; the threshold is 300 s.",
    )
    yield from pair(
        "WorkerQueueBacklogGrowing",
        titles=("ten more a minute", "many, but fewer and fewer"),
        fires={DEPTH: "0+10x60"},
        silent={DEPTH: "800-10x60"},
        minute=40,
        labels=WARNING,
        summary="the queue grows",
        description="400 jobs wait, and more come than end; the threshold is 100.",
    )
    yield Case(alert="WorkerQueueBacklogGrowing", title="few, and more", series={DEPTH: "0+1x60"}, minute=40)
