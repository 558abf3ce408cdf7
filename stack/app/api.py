"""The API: port 8000, `/health`, `/ready`, `/metrics`."""

from __future__ import annotations

from stack import health
from stack.app import contract, postgres_roles, redis
from stack.names import NetworkName
from stack.service import Publish, Scrape, ServiceSpec
from stack.settings import Environment

PART = "api"
PORT = 8000


def spec(environment: Environment) -> ServiceSpec:
    """Describe the API."""
    settings = environment.settings.api
    path = settings.health_path or ("/health" if settings.image else "/ready")
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Api",
        image=contract.application_image(environment, settings),
        user=contract.USER,
        settings=settings,
        command=tuple(settings.command or ("uvicorn", "samokoder.main:app", "--host", "0.0.0.0", "--port", str(PORT))),  # noqa: S104 - inside the container
        environment=contract.environment_variables(environment, settings),
        secret_environment=contract.secret_variables(environment, settings),
        files=contract.files(environment, settings),
        files_at=contract.SECRETS,
        publish=Publish.of(settings, PORT, path),
        health_command=health.python(PORT, path),
        networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        after=(postgres_roles.PART, redis.PART),
    )
