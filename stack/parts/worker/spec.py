"""The arq worker: takes jobs from Redis; the way out to the LLM providers is the network `edge`."""

from __future__ import annotations

from collections.abc import Sequence

from stack.common.names import NetworkName
from stack.parts.api import contract, migrations
from stack.parts.backup import workspace
from stack.parts.postgres import roles as postgres_roles
from stack.parts.redis import users as redis_users
from stack.settings.app import Worker as WorkerSettings
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
        # With its secrets: `arq --check` imports the image's own settings.
        health_command=contract.started(settings, *_health_command(settings)),
        networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=port)
        if port
        else NotScraped(reason="samokoder:worker.metricsPort is null: this image has no metrics"),
        # The API's first replica: a version that cannot serve must not take the worker.
        after=(postgres_roles.PART, redis_users.PART, workspace.PART, migrations.PART, environment.api_in_turn()[0]),
        # A job may take so long; then it is given back to the queue.
        stop_grace_seconds=60,
    )


def _health_command(settings: WorkerSettings) -> tuple[str, ...]:
    if settings.health_command:
        return tuple(settings.health_command)
    if settings.metrics_port:
        # A deploy waits until it reaches the database and Redis once. Later it is well while it lives: a database that
        # is away for a moment makes no worker sick. A team's own image has no /ready in the contract.
        if settings.image:
            return health.python(settings.metrics_port, "/health")
        return health.python(settings.metrics_port, "/ready", later="/health")
    return arq_check(settings.command or COMMAND) or (_ARQ, "--check", COMMAND[1])


def arq_check(command: Sequence[str]) -> tuple[str, ...]:
    """Return by what arq itself tells whether a worker with this command is well; nothing for another program's."""
    program, *words = command
    named = [word for word in words if not word.startswith("-")]
    return (program, "--check", named[0]) if program.rpartition("/")[2] == _ARQ and named else ()
