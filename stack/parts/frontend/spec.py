"""The optional frontend: the team's own image, or the reference application's page."""

from __future__ import annotations

from stack.common.names import NetworkName
from stack.parts.api import contract
from stack.parts.api import spec as api
from stack.parts.api.reference import reference_image
from stack.parts.ingress import spec as ingress
from stack.parts.ingress.ports import INTERNAL_PORT
from stack.parts.ingress.traefik import external_networks, traefik_labels
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.service import TMP, NotScraped, Publish, ServiceSpec

PART = "frontend"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the frontend. Only called where one is configured."""
    settings = environment.settings.frontend
    port = settings.container_port
    own = settings.image is not None
    # Through the ingress, because it knows which replicas can serve; its internal port keeps the user's address.
    inside = f"{ingress.PART}:{INTERNAL_PORT}"
    entry = f"{api.JOB}:{api.PORT}" if external_networks(environment) else inside
    path = settings.health_path or ("/" if own else "/health")
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Frontend",
        image=settings.image or reference_image(environment).name,
        user=settings.user,
        settings=settings,
        command=() if own else ("uvicorn", "samokoder.frontend:app", "--host", "0.0.0.0", "--port", str(port)),  # noqa: S104 - inside the container
        environment={"API_URL": f"http://{entry}", **({} if own else contract.proxy_variables(environment))},
        tmpfs={**TMP, **contract.in_memory(settings.writable_paths, user=settings.user, mib=16)},
        publish=Publish.of(settings, port, path),
        health_command=health.wget(port, path) if own else health.python(port, path),
        networks=(NetworkName.EDGE, NetworkName.APP),
        external_networks=external_networks(environment),
        labels=traefik_labels(environment, PART, port),
        scrape=NotScraped(reason="a frontend's image has no metrics in the contract"),
        after=(environment.api_in_turn()[0],),
    )
