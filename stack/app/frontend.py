"""The optional frontend: the team's own image."""

from __future__ import annotations

from stack import health
from stack.app import api
from stack.names import NetworkName
from stack.service import NotScraped, Publish, ServiceSpec
from stack.settings import Environment

PART = "frontend"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the frontend. Only called where one is configured."""
    settings = environment.settings.frontend
    if settings.image is None:
        raise ValueError("there is no frontend without samokoder:frontend.image")
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Frontend",
        image=settings.image,
        user=settings.user,
        settings=settings,
        environment={"API_URL": f"http://{api.PART}:{api.PORT}"},
        publish=Publish.of(settings, settings.container_port, settings.health_path),
        health_command=health.wget(settings.container_port, settings.health_path),
        networks=(NetworkName.EDGE, NetworkName.APP),
        scrape=NotScraped(reason="a frontend's image has no metrics in the contract"),
        after=(api.PART,),
    )
