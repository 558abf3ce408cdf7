"""Labels with which the team's Traefik finds the API and the frontend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stack.parts.ingress.caddyfile import has_frontend
from stack.parts.ingress.headers import BELIEVED_HEADERS, HSTS_SECONDS, SECURITY_HEADERS
from stack.settings.environment import Environment

_SLASH = "(/|%2f)"
"""Pattern of a slash in Traefik's rules: Traefik does not decode %2f, but the application treats it as a slash."""
_TRAEFIKS_METRICS = rf"{_SLASH}+metrics({_SLASH}|\s|$)"


def external_networks(environment: Environment) -> tuple[str, ...]:
    """Return the network of the team's Traefik; empty without one."""
    traefik = environment.settings.ingress.traefik
    return (traefik.network,) if traefik and environment.settings.ingress.kind == "traefik" else ()


def traefik_labels(environment: Environment, service: str, port: int) -> Mapping[str, str]:
    """Return the labels with which the team's Traefik (3.4 or newer) finds a service; none if the ingress is Caddy.

    service: `api` or `frontend`; all replicas have the same labels, so Traefik treats them as one service.
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
    # Router -> its rules, and its middlewares that change the path. Only the router of the prefix has `strip`, because
    # that middleware strips the prefix from any path that begins with its letters, also from `/apimetrics`.
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
            # Traefik removes a header whose value is empty.
            "headers.customresponseheaders.Server": "",
            **{f"headers.customrequestheaders.{name}": "" for name in BELIEVED_HEADERS},
        },
        "limit": {"buffering.maxrequestbodybytes": str(settings.max_body_mib * 2**20)},
    }
    if api and prefix:
        middlewares["strip"] = {"stripprefix.prefixes": prefix}
    labels = {"traefik.enable": "true", "traefik.docker.network": traefik.network}
    # With a limit of the request's size, Traefik buffers every answer until it is complete (traefik/traefik#12869),
    # event streams too. So a separate router has the limit, only for methods with a body.
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
                # The router of the prefix comes first, and the frontend's last, because its rule matches every path.
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
    """Return Traefik's rule that matches any of `paths`."""
    return f"({' || '.join(_path_rule(path) for path in paths)})"


def _path_rule(path: str) -> str:
    """Return Traefik's rule for a path of our settings, in which a `*` at the end matches any rest."""
    return f"PathPrefix(`{path[:-1]}`)" if path.endswith("*") else f"Path(`{path}`)"
