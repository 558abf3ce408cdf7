"""Settings of the public entry."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stack.settings.part import Published
from stack.settings.types import Address, Cpus, MemoryMib, Model, Network, Port


class Traefik(Model):
    """A Traefik that the team runs; the labels of the stack's containers configure it."""

    network: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Docker network on which that Traefik listens; it must exist.",
        examples=["traefik"],
    )
    address: Address | Literal[""] = Field(
        "",
        description="That Traefik's fixed address on the network: its X-Forwarded-For alone is believed. Required.",
        examples=["172.30.0.2"],
    )
    entrypoint: str = Field("websecure", pattern=r"^[\w-]+$", description="Its entry point.", examples=["websecure"])
    cert_resolver: str = Field(
        "letsencrypt",
        pattern=r"^[\w-]*$",
        description="Its certificate resolver; empty: no TLS by us.",
        examples=["letsencrypt"],
    )


ApiPath = Annotated[str, Field(pattern=r"^/[\w./-]*\*?$")]


class IngressSettings(Published):
    """The public entry: a Caddy, or labels for the team's Traefik."""

    kind: Literal["caddy", "traefik"] = Field(
        "caddy",
        description="`caddy`: a Caddy of our own. `traefik`: no container, but labels for an existing Traefik.",
        examples=["traefik"],
    )
    domain: str = Field(
        "",
        pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+)?$",
        description="Public name of the service. With one, certificates are fetched and renewed by itself; port is 80 "
        "and bindAddress every address of the host unless set otherwise. Without one: HTTP on loopback.",
        examples=["samokoder.example.org"],
    )
    port: Port = Field(8000, description="Port for HTTP on the host; 80 with a domain.", examples=[8000])
    https_port: Port = Field(443, description="Port for HTTPS on the host; used with a domain.", examples=[443])
    email: str = Field(
        "",
        pattern=r"^(\S+@\S+)?$",
        description="Address that the certificate authority may write to.",
        examples=["admin@example.org"],
    )
    acme_directory: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="ACME directory of another certificate authority than Caddy's own choice.",
        examples=["https://ca.example.org/acme/directory"],
    )
    acme_root: str = Field(
        "",
        description="Root certificate in PEM under which acmeDirectory itself is served, where that is a private one.",
        examples=["-----BEGIN CERTIFICATE-----\n…"],
    )
    trusted_proxies: list[Network] = Field(
        default_factory=list,
        description="Addresses of the load balancer in front, as networks, whose X-Forwarded-For is believed. A client "
        "in such a network is not told from the balancer, so name its own addresses.",
        examples=[["10.0.3.7/32"]],
    )
    api_paths: list[ApiPath] = Field(
        default_factory=lambda: [
            "/projects*",
            "/jobs/*",
            "/auth/*",
            "/health",
            "/ready",
            "/docs*",
            "/redoc*",
            "/openapi.json",
        ],
        min_length=1,
        description="Paths of the API; all else goes to the frontend where there is one. A `*` at the end is any rest.",
        examples=[["/api/*", "/health"]],
    )
    strip_prefix: str = Field(
        "",
        pattern=r"^(/[\w-]+)*$",
        description="Prefix that users' requests for the API have and its own paths have not: with `/api`, the request "
        "/api/v1/projects reaches it as /v1/projects. Such paths are the API's, beside apiPaths. Behind it nobody "
        "reaches a path with a part `metrics`. Empty: none.",
        examples=["/api"],
    )
    max_body_mib: int = Field(
        10, ge=1, le=10240, description="A larger request is refused with 413, in MiB.", examples=[100]
    )
    traefik: Traefik | None = Field(
        None, description="The Traefik, where kind is `traefik`.", examples=[{"network": "traefik"}]
    )
    # A request that waits for a replica takes about 40 KiB: 3000 of them (30 s at 100/s) filled 128 MiB in a test.
    memory_mib: MemoryMib = Field(256, description="Memory limit in MiB.", examples=[256])
    cpus: Cpus = Field(0.5, description="CPU limit in cores.", examples=[1.0])

    @property
    def url(self) -> str:
        """Address of the service for a person: HTTPS if there is a domain."""
        if not self.domain:
            return super().url
        # httpsPort is Caddy's port; the team's Traefik uses its own ports.
        port = "" if self.kind == "traefik" or self.https_port == 443 else f":{self.https_port}"  # noqa: PLR2004 - HTTPS'
        return f"https://{self.domain}{port}"

    @model_validator(mode="before")
    @classmethod
    def _a_domain_is_public(cls, given: Any) -> Any:
        if not (isinstance(given, dict) and given.get("domain") and given.get("kind", "caddy") == "caddy"):
            return given
        public = {"port": 80, "bindAddress": "0.0.0.0", "bindReason": f"the public entry of {given['domain']}"}  # noqa: S104
        return {**public, **given}
