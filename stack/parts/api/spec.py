"""The API: replicas behind the ingress, each on port 8000 with `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator

from stack.common.names import API_PORT, NetworkName
from stack.parts.api import contract, migrations
from stack.parts.backup import workspace
from stack.parts.ingress.caddyfile import settled_seconds
from stack.parts.ingress.traefik import external_networks, traefik_labels
from stack.parts.postgres import roles as postgres_roles
from stack.parts.redis import users as redis_users
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import Scrape, ServiceSpec

JOB = "api"
PORT = API_PORT
COMMAND = ("uvicorn", "samokoder.main:app", "--host", "0.0.0.0", "--port", str(PORT))  # noqa: S104 - inside the container


def specs(environment: Environment) -> Iterator[ServiceSpec]:
    """Describe the replicas. Each replica waits for the one before it, so that a deploy replaces one at a time."""
    settings = environment.settings.api
    path = settings.health_path or ("/health" if settings.image else "/ready")
    # Traefik ignores containers that Docker reports as unhealthy: with /ready, a short outage of Redis would leave it
    # without replicas, and it would answer 404. So there /ready is checked only during a deploy, and /health later.
    later = "/health" if path == "/ready" and environment.settings.ingress.kind == "traefik" else ""
    # A deploy replaces the next replica when this one is healthy, which must be after the ingress has found it healthy.
    stable = settled_seconds(environment) if settings.replicas > 1 else settings.stable_seconds
    before: str | None = None
    for part in environment.api_in_turn():
        yield ServiceSpec(
            part=part,
            component="samokoder:app:Api",
            **contract.given(environment, settings),
            settings=settings,
            command=tuple(settings.command or COMMAND),
            health_command=health.python(PORT, path, stable_seconds=stable, later=later),
            networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.DATA, NetworkName.MONITORING),
            external_networks=external_networks(environment),
            aliases=(JOB,),
            labels=traefik_labels(environment, JOB, PORT),
            scrape=Scrape(port=PORT, job=JOB),
            after=(before,) if before else (postgres_roles.PART, redis_users.PART, workspace.PART, migrations.PART),
            # Longer than the reference application needs to drain and to finish its running requests.
            stop_grace_seconds=45,
            # Before there were replicas, the only API was the part `api`, on the host port that the ingress has now.
            formerly=JOB if part == environment.parts_of("api")[0] else "",
        )
        before = part
