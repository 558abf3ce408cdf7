"""The Caddyfile: routes, headers, and which replica gets requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from stack.common.names import API_PORT
from stack.parts.ingress.headers import BELIEVED_HEADERS, HSTS_SECONDS, SECURITY_HEADERS
from stack.parts.ingress.ports import HTTP_PORT, HTTPS_PORT, INTERNAL_PORT, METRICS_PORT, PROBES_PORT
from stack.settings.environment import Environment
from stack.settings.ingress import Ingress

FAILED_PROBES = 3
"""A replica with so many failed probes within the last seconds gets no request."""
_SLOW_SECONDS = 2
"""A replica is slow that takes longer for its health."""
_SLOW_FORGOTTEN_SECONDS = 10
"""So soon it is let in again: should two be left out for each other's sake, nobody waits longer than a request may."""
_LEAST_SETTLED_SECONDS = FAILED_PROBES + _SLOW_SECONDS + 3
COUNTED_HANDLER = "log_append"
"""Label `handler` of Caddy's metrics: every handler counts what comes through it, this one each request once."""

DATA = "/var/tmp"  # noqa: S108 - a path in the container; see spec()
ACME_ROOT = "acme-root.pem"
_METRICS = r"/metrics([/\s]|$)"
"""The API's metrics and what is below them, also with a line's end behind: Starlette takes that for the same path."""


_OWN_METRICS = "^/metrics/?$"
_FORWARDED_FOR = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
"""Headers by which a proxy says that it asks for somebody else."""


# Never text/event-stream: a compressor holds back what a client waits for.
_COMPRESSED = (
    "application/javascript*",
    "application/json*",
    "application/problem+json*",
    "image/svg+xml*",
    "text/css*",
    "text/html*",
    "text/javascript*",
    "text/plain*",
)


def caddyfile(environment: Environment) -> str:
    """Render Caddy's configuration."""
    return "\n\n".join([_options(environment), *_snippets(environment), *_sites(environment)]) + "\n"


def _options(environment: Environment) -> str:
    settings = environment.settings.ingress
    certificates = (
        f"email {settings.email}" if settings.email else "",
        f"acme_ca {settings.acme_directory}" if settings.acme_directory else "",
        f"acme_ca_root /etc/samokoder/{ACME_ROOT}" if settings.acme_root else "",
    )
    return _block(
        "",
        "admin off",
        "persist_config off",
        "grace_period 10s",
        "metrics",
        f"storage file_system {DATA}/caddy",
        f"http_port {HTTP_PORT}",
        f"https_port {HTTPS_PORT}",
        # Not Caddy's own redirect: it does not know the port of the host.
        f"auto_https {'disable_redirects' if settings.domain else 'off'}",
        *filter(None, certificates),
        # Errors are logged with the request, too.
        _log("log"),
        *(_server(*server) for server in _servers(environment)),
    )


def _servers(environment: Environment) -> Iterator[tuple[int, str, Sequence[str]]]:
    """Yield port, name in the metrics, and the proxies whose X-Forwarded-For is believed."""
    settings = environment.settings.ingress
    yield HTTP_PORT, "http", settings.trusted_proxies
    if settings.domain:
        yield HTTPS_PORT, "https", settings.trusted_proxies
    if has_frontend(environment):
        yield INTERNAL_PORT, "internal", ("private_ranges",)


def _server(port: int, name: str, trusted: Sequence[str]) -> str:
    return _block(
        f"servers :{port}",
        f"name {name}",
        # No HTTP/3: it needs a UDP port, and clients would be told Caddy's own instead of the host's.
        f"protocols {'h1 h2' if port == HTTPS_PORT else 'h1'}",
        "max_header_size 64KiB",
        # None for the body: Go's covers the whole exchange, and would cut a stream that lasts longer.
        _block("timeouts", "read_header 10s", "idle 2m"),
        *([f"trusted_proxies static {' '.join(trusted)}"] if trusted else []),
        # Of a list, the last one that no trusted proxy has: who may write the first one chooses his address. The
        # frontend gives one address alone, which may be a private one, as those of an office are.
        *(["trusted_proxies_strict"] if trusted and port != INTERNAL_PORT else []),
    )


def _log(head: str) -> str:
    """Log as JSON, without any header and without the query: a secret in there may have any name."""
    fields = _block("fields", "request>headers delete", r"request>uri regexp \?.* ?REDACTED", "resp_headers delete")
    return _block(head, "output stdout", _block("format filter", "wrap json", fields))


def _snippets(environment: Environment) -> Iterator[str]:
    settings = environment.settings.ingress
    defaults = {**SECURITY_HEADERS, "X-Request-Id": "{http.request.header.X-Request-Id}"}
    yield _block(
        "(headers)",
        # `?`: what the application sets itself stays. One directive for all would set none where there is one of them.
        *(f'header ?{name} "{value}"' for name, value in defaults.items()),
        "header -Server",
        "header -Via",
    )
    yield _block(
        "(app)",
        _log("log"),
        "log_skip /health",
        "log_append request_id {http.request.header.X-Request-Id}",
        "log_append user_agent {http.request.header.User-Agent}",
        r"@unnamed not header_regexp X-Request-Id ^[\w.-]{1,64}$",
        "request_header @unnamed X-Request-Id {http.request.uuid}",
        *(f"request_header -{name}" for name in BELIEVED_HEADERS),
        # Uptime monitors ask by HEAD, which an application has for no path unless it says so. The answer has no body.
        _block("@asked", "method HEAD", f"path {' '.join(_asked_paths(settings))}"),
        "method @asked GET",
        "import headers",
        _block("request_body", f"max_size {settings.max_body_mib}MiB"),
        _block(
            "encode zstd gzip",
            _block("match", *(f"header Content-Type {content_type}" for content_type in _COMPRESSED)),
        ),
        # Caddy compares the path decoded and cleaned: //metrics, /./metrics and /%6detrics are this one.
        f"@metrics path_regexp (?i)^{_METRICS}",
        _block("handle @metrics", "error 404"),
        _block(
            "handle_errors",
            "import headers",
            "header Content-Type application/json",
            'respond `{"detail":"{http.error.status_text}"}` {http.error.status_code}',
        ),
    )


def _asked_paths(settings: Ingress) -> list[str]:
    """Return the paths that monitors outside ask: the first page, and the API's health, behind its prefix too."""
    prefix = settings.strip_prefix
    return ["/", "/health", *([f"{prefix}/health"] if prefix else [])]


def _routes(environment: Environment) -> Iterator[str]:
    settings = environment.settings
    yield from _stripped(environment)
    if has_frontend(environment):
        yield f"@api path {' '.join(settings.ingress.api_paths)}"
        yield _block("handle @api", _api(environment))
        yield _block("handle", _proxy(f"frontend:{settings.frontend.container_port}"))
    else:
        yield _block("handle", _api(environment))


def _own_metrics(environment: Environment) -> Iterator[str]:
    """Yield the route of the API's metrics for who asks on this machine: one replica's, as they are.

    Only where the ingress is on loopback, and nobody in front of it is known. In production somebody always is: what
    nginx sends by default (`Host: 127.0.0.1:8000`, and for whom in no header) cannot be told from a request of this
    machine's own. A page in a browser that took a name of its own for this address, and most proxies, can be told: they
    have another Host, or say for whom they ask.
    """
    settings = environment.settings.ingress
    known = environment.settings.production or settings.domain or settings.trusted_proxies
    if known or not ipaddress.ip_address(settings.bind_address).is_loopback:
        return
    hosts = "|".join(dict.fromkeys(map(_in_pattern, ("localhost", "127.0.0.1", "::1", str(settings.bind_address)))))
    yield _block(
        "@own_metrics",
        f"path_regexp {_OWN_METRICS}",
        # Not `host`: for its sake Caddy would put all routes into another one, and count the requests as that one's.
        rf"header_regexp Host ^({hosts})(:\d+)?$",
        *(f"header !{name}" for name in _FORWARDED_FOR),
    )
    yield _block("handle @own_metrics", _api(environment))


def _in_pattern(host: str) -> str:
    return re.escape(f"[{host}]" if ":" in host else host)


def _stripped(environment: Environment) -> Iterator[str]:
    """Yield the route of the API's paths behind a prefix, which it does not have itself.

    Its metrics are no more public behind the prefix than without it, wherever they stand in what is left of the path:
    an image that knows of the prefix takes it off once more.
    """
    if prefix := environment.settings.ingress.strip_prefix:
        yield f"@prefixed path {prefix} {prefix}/*"
        yield f"@within path_regexp (?i){_METRICS}"
        yield _block(
            "handle @prefixed",
            f"uri strip_prefix {prefix}",
            _block("handle @within", "error 404"),
            _block("handle", _api(environment)),
        )


def _api(environment: Environment) -> str:
    replicas = " ".join(_dial(part) for part in environment.parts_of("api"))
    return _proxy(replicas, "lb_policy round_robin", f"max_fails {FAILED_PROBES}")


def _proxy(upstreams: str, *lines: str) -> str:
    # Nothing is said of flushing: Caddy flushes an event stream at once, and ends it when its client is gone. With
    # flush_interval -1 it would not end it.
    return _block(
        f"reverse_proxy {upstreams}",
        *lines,
        # Tried again: what could not be sent, and a GET that got no answer. Longer than the roll of a lone replica.
        "lb_try_duration 30s",
        "lb_try_interval 100ms",
        # One address and no list: the application need not know the proxies before this one.
        "header_up X-Forwarded-For {client_ip}",
        _block(
            "transport http",
            "dial_timeout 2s",
            # Less than the servers of the application wait (uvicorn: 5 s), or a POST may meet a closing connection.
            "keepalive 1s",
            "keepalive_idle_conns_per_host 256",
        ),
    )


def _sites(environment: Environment) -> Iterator[str]:
    settings = environment.settings.ingress
    if settings.domain:
        yield _block(
            f"http://:{HTTP_PORT}",
            _log("log"),
            "log_skip /health",
            "import headers",
            _block("handle /health", "respond 200"),
            _block("handle", f"redir {settings.url}{{uri}} 308"),
        )
        hsts = f'header ?Strict-Transport-Security "max-age={HSTS_SECONDS}"'
        yield _block(f"https://{settings.domain}", hsts, "import app", *_routes(environment))
    else:
        yield _block(f"http://:{HTTP_PORT}", *_own_metrics(environment), "import app", *_routes(environment))
    if has_frontend(environment):
        # Every path is the API's: the frontend's own pages are nothing that it would ask for.
        every = _block("handle", _api(environment))
        yield _block(f"http://:{INTERNAL_PORT}", "import app", *_stripped(environment), every)
    yield _block(f"http://:{METRICS_PORT}", "metrics /metrics", "respond /health 200")
    yield _probes(environment)


def settled_seconds(environment: Environment) -> int:
    """Return after how long a replica that is well is known to be.

    A lone replica has nobody who serves in its place meanwhile.
    """
    api = environment.settings.api
    return max(api.stable_seconds, _LEAST_SETTLED_SECONDS) if api.replicas > 1 else _LEAST_SETTLED_SECONDS


def _probes(environment: Environment) -> str:
    """Ask each replica every second, and remember its failures for a while.

    Caddy's thresholds for active checks count over all time and not in a row (caddyserver/caddy#7625): a replica that
    comes up for some seconds again and again would be let in at last. So here the active check is only the clock. It
    asks through a proxy for this one replica; a failure goes on to another one, whose passive check counts those of the
    last seconds. Caddy keeps that count by the replica's address for all proxies, and those that the requests take want
    few of them. A request itself counts for nothing: no client can talk a replica ill.

    A replica that refuses, or answers with an error, has failed. One that is slow has failed only while another one is
    well and not slow: on a host whose processor is starved all of them are, and were none left, nobody would serve.
    """
    parts = environment.parts_of("api")
    clock = _block(
        f"reverse_proxy {' '.join(_address(part) for part in parts)}",
        f"health_upstream 127.0.0.1:{PROBES_PORT}",
        "health_uri /health",
        "health_interval 1s",
        # Longer than all that is asked below: what is cut off counts for nothing.
        f"health_timeout {2 * _SLOW_SECONDS + 2 * len(parts) + 2}s",
        _block("health_headers", "Upstream {http.reverse_proxy.active.target_upstream}"),
    )
    ill = _block("handle_response @ill", "error 502")
    asked = [
        line
        for part in parts
        for line in (
            f"@{part} header Upstream {_address(part)}",
            _block(f"reverse_proxy @{part} {_uncounted(part)}", "@ill status 3xx 4xx 5xx", ill, _limits(_SLOW_SECONDS)),
        )
    ]
    # A name that is not resolved, or a connection that is not taken, in time is 502 as well.
    late = "expression `{http.error.status_code} == 504 || {http.error.message}.contains('timeout')`"
    failed = [
        line
        for part in parts
        for line in (
            _block(f"@slow-{part}", f"header Upstream {_address(part)}", late),
            _slow(environment, part),
            _counted(f"@{part}", part, settled_seconds(environment) - 1),
        )
    ]
    return _block(f"http://:{PROBES_PORT}", "bind 127.0.0.1", *asked, clock, _block("handle_errors 502 504", *failed))


def _slow(environment: Environment, part: str) -> str:
    """Count a slow replica's failure where one of the others that are let in answers at once."""
    others = [_dial(other) for other in environment.parts_of("api") if other != part]
    if not others:
        return f"respond @slow-{part} 504"
    seconds = min(settled_seconds(environment) - 1, _SLOW_FORGOTTEN_SECONDS)
    return _block(
        f"reverse_proxy @slow-{part} {' '.join(others)}",
        "lb_policy round_robin",
        f"max_fails {FAILED_PROBES}",
        # Each of them is asked: the first one may hang as well.
        *([f"lb_retries {len(others) - 1}"] if len(others) > 1 else []),
        "@well status 2xx",
        _block("handle_response @well", _counted("", part, seconds)),
        _limits(1),
    )


def _counted(matcher: str, part: str, seconds: int) -> str:
    """Count a failure of a replica, whatever it answers now, and forget it after so many seconds."""
    # Let in after so long without a failure, but for the last two: before the next replica is replaced, and later than
    # what falls ill soon after its start.
    return _block(
        " ".join(filter(None, ("reverse_proxy", matcher, _dial(part)))),
        f"fail_duration {seconds}s",
        "max_fails 1000000",
        "unhealthy_latency 1ns",
        _limits(1),
    )


def _limits(seconds: int) -> str:
    return _block("transport http", f"dial_timeout {seconds}s", f"response_header_timeout {seconds}s")


def _address(part: str) -> str:
    """Return a replica's address, as it is in the metrics: their value is what the last probe found."""
    return f"{part}:{API_PORT}"


def _dial(part: str) -> str:
    """Return the same address, spelt as a root name: a proxy in the metrics that knows of no probe is another one."""
    return f"{part}.:{API_PORT}"


def _uncounted(part: str) -> str:
    """Return the same address, spelt with its network: here no failure is remembered."""
    return f"tcp4/{_dial(part)}"


def has_frontend(environment: Environment) -> bool:
    """Tell whether the ingress has a frontend to send to."""
    return "frontend" not in environment.absent


def _block(head: str, *lines: str) -> str:
    """Return a block of a Caddyfile; a line may be a block."""
    body = "\n".join(lines).replace("\n", "\n\t")
    return f"{head} {{\n\t{body}\n}}".lstrip()
