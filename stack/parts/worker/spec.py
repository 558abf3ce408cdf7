"""The arq worker: it takes jobs from Redis, and reaches the LLM providers through the network `edge`."""

from __future__ import annotations

from collections.abc import Sequence

from stack.common.names import NetworkName
from stack.parts.api import contract, migrations
from stack.parts.backup import workspace
from stack.parts.postgres import roles as postgres_roles
from stack.parts.redis import users as redis_users
from stack.settings.app import WorkerSettings
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import NotScraped, Scrape, ServiceSpec

PART = "worker"
_ARQ = "arq"
COMMAND = (_ARQ, "samokoder.worker.main.WorkerSettings")


def spec(environment: Environment) -> ServiceSpec:
    """Describe the worker."""
    settings = environment.settings.worker
    port = settings.metrics_port
    given = contract.given(environment, settings)
    given["environment"] = {"JOB_RETENTION_DAYS": str(settings.job_retention_days), **given["environment"]}
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Worker",
        **given,
        settings=settings,
        command=tuple(settings.command or COMMAND),
        # Started with its secrets, because `arq --check` imports the application's settings, which read them.
        health_command=contract.started(settings, *_health_command(settings)),
        networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=port)
        if port
        else NotScraped(reason="samokoder:worker.metricsPort is null: this image has no metrics"),
        # After the API's first replica, so that a version that cannot serve does not replace the worker.
        after=(postgres_roles.PART, redis_users.PART, workspace.PART, migrations.PART, environment.api_in_turn()[0]),
        # A running job gets this time to finish; then it goes back to the queue.
        stop_grace_seconds=60,
    )


def _health_command(settings: WorkerSettings) -> tuple[str, ...]:
    if settings.health_command:
        return tuple(settings.health_command)
    if settings.metrics_port:
        # A deploy waits until the worker has reached the database and Redis once. Then only /health counts, so a short
        # outage of the database does not make the worker unhealthy. The contract has no /ready for a team's own image.
        if settings.image:
            return health.python(settings.metrics_port, "/health")
        return health.python(settings.metrics_port, "/ready", later="/health")
    return arq_check(settings.command or COMMAND) or (_ARQ, "--check", COMMAND[1])


def arq_check(command: Sequence[str]) -> tuple[str, ...]:
    """Return arq's own health check for a worker with this command; empty if the command is not arq's."""
    program, *words = command
    named = [word for word in words if not word.startswith("-")]
    return (program, "--check", named[0]) if program.rpartition("/")[2] == _ARQ and named else ()
