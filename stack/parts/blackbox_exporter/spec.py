"""Blackbox exporter: it probes every page of the stack as a client, and the public addresses as a user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.settings.ingress import IngressSettings
from stack.spec import health
from stack.spec.files import Files, yaml_text
from stack.spec.service import Publish, Scrape, ServiceSpec

PART = "blackbox-exporter"
PORT = 9115
JOB = "probe"
PUBLIC = "public"
"""Label `service` of an address that leads to the own ingress, so that the probe passes through several parts."""
EXTERNAL = "external"
"""Label `service` of any other address: what is wrong there may have nothing to do with this stack."""
OPEN = "http_2xx"
GUARDED = "http_401"
"""Module for a page with a password: 401 counts as success. The exporter gets no password: it probes any address that a
client names, so any client could have the password sent to an address of its own.
"""
FAMILY = "family"
"""Label of a public address that is probed over IPv4 and over IPv6 separately, because one may fail while the other
works.
"""
SIX = "IPv6"
BY_FAMILY = {"IPv4": ("http_2xx_ipv4", "ip4"), SIX: ("http_2xx_ipv6", "ip6")}
"""Family -> the name of its module, and the exporter's name for the family."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the exporter."""
    settings = environment.settings.blackbox_exporter
    tls = any(url.startswith("https:") for url in (*settings.urls, *_domain(environment.settings.ingress)))
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:BlackboxExporter",
        image=environment.image("blackbox_exporter"),
        user="65534:65534",
        settings=settings,
        entrypoint=("/bin/blackbox_exporter",),
        command=("--config.file=/etc/samokoder/blackbox.yml", f"--web.listen-address=:{PORT}"),
        files=files(environment),
        publish=Publish.of(settings, PORT, "/-/healthy"),
        health_command=health.wget(PORT, "/-/healthy"),
        # `edge` for the published pages, and for the public addresses, which are outside.
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        may_lack={} if tls else {r"probe(_ssl|:tls)_.*": "no address with TLS is probed"},
    )


def files(environment: Environment) -> Files:
    """Return the modules."""
    return {"blackbox.yml": blackbox_yml(guarded=environment.basic_auth, families=by_family(environment))}


def blackbox_yml(*, guarded: bool, families: bool) -> str:
    """Render the modules. guarded: add the module for pages with a password. families: add one for each IP family."""
    modules = {OPEN: _module()} | ({GUARDED: _module(valid_status_codes=[401])} if guarded else {})
    if families:
        modules |= {
            module: _module(preferred_ip_protocol=protocol, ip_protocol_fallback=False)
            for module, protocol in BY_FAMILY.values()
        }
    return yaml_text({"modules": modules})


def _module(**expected: Any) -> dict[str, Any]:
    # All pages of the stack have IPv4; the exporter's default, IPv6 first, would make a probe wait in vain.
    http = {"preferred_ip_protocol": "ip4", "follow_redirects": True, **expected}
    return {"prober": "http", "timeout": "8s", "http": http}


def by_family(environment: Environment) -> bool:
    """Whether the service's own public address is probed over IPv4 and over IPv6 separately.

    Not if a Traefik or a trusted proxy is in front: the domain then points to that proxy, which may have one family.
    """
    ingress = environment.settings.ingress
    in_front = ingress.kind != "caddy" or bool(ingress.trusted_proxies)
    return environment.settings.network.ipv6 and bool(ingress.domain) and not in_front


def probe_jobs(environment: Environment, parts: Sequence[ServiceSpec]) -> Iterator[dict[str, Any]]:
    """Yield Prometheus' job that probes every page; none without the exporter. parts: all parts that run."""
    if PART not in {part.part for part in parts}:
        return
    pages = [
        {
            "targets": [f"http://{part.part}:{part.publish.container_port}{part.publish.path}"],
            "labels": {"service": part.part, "__param_module": GUARDED if part.web_password else OPEN},
        }
        for part in parts
        if part.publish
    ]
    ingress, urls = environment.settings.ingress, environment.settings.blackbox_exporter.urls
    own = [*_domain(ingress)]
    if by_family(environment):
        pages += [
            {"targets": own, "labels": {"service": PUBLIC, FAMILY: family, "__param_module": module}}
            for family, (module, _) in BY_FAMILY.items()
        ]
        urls = [url for url in urls if url not in own]
    else:
        urls = [*urls, *own]
    origins = {*_origins(ingress)}
    for service, leads_here in ((PUBLIC, True), (EXTERNAL, False)):
        # Without duplicates, because the domain may also be among the configured addresses.
        targets = list(dict.fromkeys(url for url in urls if (_origin(url) in origins) is leads_here))
        if targets:
            pages.append({"targets": targets, "labels": {"service": service, "__param_module": OPEN}})
    yield {
        "job_name": JOB,
        "metrics_path": "/probe",
        "sample_limit": 100,
        "static_configs": pages,
        "relabel_configs": [
            {"source_labels": ["__address__"], "target_label": "__param_target"},
            {"source_labels": ["__address__"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": f"{PART}:{PORT}"},
        ],
    }


def _domain(ingress: IngressSettings) -> Iterator[str]:
    """Yield the service's own public address if there is a domain; its probe also measures the certificate's expiry."""
    if ingress.domain:
        yield f"{ingress.url}/health"


def _origins(ingress: IngressSettings) -> Iterator[str]:
    """Yield how each address begins that leads to the own ingress, as far as the settings tell."""
    # The team's Traefik uses its own ports, and these are the usual ones.
    http, https = (80, 443) if ingress.kind == "traefik" else (ingress.port, ingress.https_port)
    for scheme, port, usual in (("http", http, 80), ("https", https, 443)):
        address = f"[{ingress.bind_address}]" if ":" in ingress.bind_address else ingress.bind_address
        for host in filter(None, (ingress.domain, address)):
            yield f"{scheme}://{host}:{port}"
            if port == usual:
                yield f"{scheme}://{host}"


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3]).lower()
