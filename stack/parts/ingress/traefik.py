"""Labels by which a Traefik of the team's own finds the API and the frontend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stack.parts.ingress.caddyfile import has_frontend
from stack.parts.ingress.headers import BELIEVED_HEADERS, HSTS_SECONDS, SECURITY_HEADERS
from stack.settings.environment import Environment

_SLASH = "(/|%2f)"
"""In Traefik's rules, which leave a slash that is written so as it is. The application takes both for one."""
_TRAEFIKS_METRICS = rf"{_SLASH}+metrics({_SLASH}|\s|$)"


def external_networks(environment: Environment) -> tuple[str, ...]:
    """Return the network of the team's Traefik, where there is one."""
    traefik = environment.settings.ingress.traefik
    return (traefik.network,) if traefik and environment.settings.ingress.kind == "traefik" else ()


def traefik_labels(environment: Environment, service: str, port: int) -> Mapping[str, str]:
    """Return the labels by which the team's Traefik (3.4 or newer) finds a service; none where the ingress is our own.

    service: `api` or `frontend`; all replicas of one have the same labels, and Traefik takes them as one service.
    """
    settings = environment.settings.ingress
    traefik = settings.traefik
    if traefik is None or settings.kind != "traefik":
        return {}
    name = f"{environment.prefix}-{service}"
    api, prefix = service != "frontend", settings.strip_prefix
    within = f"({prefix.replace('/', _SLASH)}({_SLASH}.*)?)?" if prefix else ""
    known = [f"Host(`{settings.domain}`)", f"!PathRegexp(`(?is)^{within}{_TRAEFIKS_METRICS}`)"]
    shared = api and has_frontend(environment)
    # Router -> its rules, and what it does to a path. The middleware takes the prefix off whatever begins with its
    # letters (`/apimetrics`), so it is for the paths behind it alone.
    ways: dict[str, tuple[list[str], tuple[str, ...]]] = {
        name: ([*known, *([_one_of(settings.api_paths)] if shared else [])], ())
    }
    if api and prefix:
        ways[f"{name}-prefixed"] = ([*known, _one_of([prefix, f"{prefix}/*"])], ("strip",))
    middlewares = {
        "retry": {"retry.attempts": "5", "retry.initialinterval": "100ms"},
        "headers": {
            "headers.contenttypenosniff": "true",
            "headers.framedeny": "true",
            "headers.referrerpolicy": SECURITY_HEADERS["Referrer-Policy"],
            "headers.permissionspolicy": SECURITY_HEADERS["Permissions-Policy"],
            "headers.stsseconds": str(HSTS_SECONDS),
            # Empty: removed.
            "headers.customresponseheaders.Server": "",
            **{f"headers.customrequestheaders.{name}": "" for name in BELIEVED_HEADERS},
        },
        "limit": {"buffering.maxrequestbodybytes": str(settings.max_body_mib * 2**20)},
    }
    if api and prefix:
        middlewares["strip"] = {"stripprefix.prefixes": prefix}
    labels = {"traefik.enable": "true", "traefik.docker.network": traefik.network}
    # Traefik's limit of a request's size holds back every answer until it is whole (traefik/traefik#12869), and so an
    # event stream, too: only requests that have a body get it, by a router of their own.
    bodies = "(Method(`POST`) || Method(`PUT`) || Method(`PATCH`))"
    for way, (rules, strips) in ways.items():
        for router, rule, limits, priority in (
            (way, rules, (), 10),
            (f"{way}-uploads", [*rules, bodies], ("limit",), 20),
        ):
            values = {
                "rule": " && ".join(rule),
                "entrypoints": traefik.entrypoint,
                "service": name,
                "middlewares": ",".join(f"{name}-{used}" for used in (*limits, "headers", *strips, "retry")),
                # What is behind the prefix first, and the frontend last: its rule has every path.
                "priority": str(priority + api + len(strips)),
                **({"tls": "true", "tls.certresolver": traefik.cert_resolver} if traefik.cert_resolver else {}),
            }
            labels |= {f"traefik.http.routers.{router}.{key}": value for key, value in values.items()}
    for middleware, options in middlewares.items():
        labels |= {f"traefik.http.middlewares.{name}-{middleware}.{key}": value for key, value in options.items()}
    balancer = {"server.port": str(port)}
    if api:
        balancer |= {"healthcheck.path": "/health", "healthcheck.interval": "1s", "healthcheck.timeout": "2s"}
    return labels | {f"traefik.http.services.{name}.loadbalancer.{key}": value for key, value in balancer.items()}


def _one_of(paths: Sequence[str]) -> str:
    """Return Traefik's rule for any of some paths of ours."""
    return f"({' || '.join(_path_rule(path) for path in paths)})"


def _path_rule(path: str) -> str:
    """Return Traefik's rule for a path of ours, where a `*` at the end is any rest."""
    return f"PathPrefix(`{path[:-1]}`)" if path.endswith("*") else f"Path(`{path}`)"
