"""The arq worker: takes jobs from Redis; the way out to the LLM providers is the network `edge`."""

from __future__ import annotations

from stack import health
from stack.app import contract, migrations, postgres_roles, redis_users
from stack.names import NetworkName
from stack.service import NotScraped, Scrape, ServiceSpec
from stack.settings import Environment

PART = "worker"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the worker."""
    settings = environment.settings.worker
    port = settings.metrics_port
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Worker",
        **contract.given(environment, settings),
        settings=settings,
        command=tuple(settings.command or ("arq", "samokoder.worker.main.WorkerSettings")),
        health_command=tuple(
            settings.health_command
            or (health.python(port, "/health") if port else ("arq", "--check", "samokoder.worker.main.WorkerSettings"))
        ),
        networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=port)
        if port
        else NotScraped(reason="samokoder:worker.metricsPort is null: this image has no metrics"),
        # The API's first replica: a version that cannot serve must not take the worker.
        after=(postgres_roles.PART, redis_users.PART, migrations.PART, environment.api_in_turn()[0]),
        # A job may take so long; then it is given back to the queue.
        stop_grace_seconds=60,
    )
