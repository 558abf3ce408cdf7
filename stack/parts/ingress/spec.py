"""The public entry: Caddy in front of the API's replicas and the frontend, or labels for an existing Traefik."""

from __future__ import annotations

from dataclasses import replace

from stack.common.names import NetworkName
from stack.parts.ingress.caddyfile import ACME_ROOT, DATA, caddyfile
from stack.parts.ingress.ports import HTTP_PORT, HTTPS_PORT, METRICS_PORT
from stack.settings import ipv6
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "ingress"


def spec(environment: Environment) -> ServiceSpec:
    """Describe Caddy."""
    settings = environment.settings.ingress
    http = Publish.of(settings, HTTP_PORT, "/health")
    https = Publish(container_port=HTTPS_PORT, host_port=settings.https_port, address=settings.bind_address)
    also: tuple[Publish, ...] = (https,) if settings.domain else ()
    if six := ipv6.bound_beside(settings, environment.settings.network):
        # Directly after the IPv4 port, because the engine reports ports sorted by container port, then in given order.
        also = (replace(http, address=six), *(port for one in also for port in (one, replace(one, address=six))))
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Ingress",
        image=environment.image("caddy"),
        user="10002:10002",
        settings=settings,
        command=("caddy", "run", "--config", "/etc/samokoder/Caddyfile", "--adapter", "caddyfile"),
        files=files(environment),
        # A new volume gets owner and mode of the folder that it is mounted on. The image's /data belongs to root; every
        # user can write to its /var/tmp (1777, from Alpine's alpine-baselayout), where Caddy makes a folder with 0700.
        data=DataVolume(name="caddy", path=DATA),
        publish=http,
        also_publish=also,
        health_command=health.wget(METRICS_PORT, "/health"),
        networks=(NetworkName.EDGE, NetworkName.APP, NetworkName.MONITORING),
        scrape=Scrape(port=METRICS_PORT),
        capabilities=("CAP_NET_BIND_SERVICE",),
        # After the first replica, because the single API of older versions publishes this port until it is replaced.
        after=(environment.api_in_turn()[0],),
    )


def files(environment: Environment) -> Files:
    """Return the Caddyfile, and the root certificate of a private certificate authority."""
    root = environment.settings.ingress.acme_root
    return {"Caddyfile": caddyfile(environment), **({ACME_ROOT: root} if root else {})}
