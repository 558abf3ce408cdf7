"""Render the Caddyfile: routes, headers, and the choice of the replica that gets a request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence

from stack.common.names import API_PORT
from stack.parts.ingress.headers import BELIEVED_HEADERS, HSTS_SECONDS, SECURITY_HEADERS
from stack.parts.ingress.ports import HTTP_PORT, HTTPS_PORT, INTERNAL_PORT, METRICS_PORT, PROBES_PORT
from stack.settings.environment import Environment
from stack.settings.ingress import IngressSettings

FAILED_PROBES = 3
"""Number of probes that must fail within `fail_duration` before a replica gets no requests."""
_SLOW_SECONDS = 2
"""Seconds: a replica is slow if its health check takes longer."""
_SLOW_FORGOTTEN_SECONDS = 10
"""Seconds until a failure for slowness is forgotten. Two slow replicas may exclude each other; this is well below the
time that a request waits for a replica (`lb_try_duration`), so such requests are still served."""
_OTHER_SECONDS = 5
"""Seconds in which another replica, perhaps a slow one, must answer, so that an error counts as a failure."""
_ILL = "ill"
_LEAST_SETTLED_SECONDS = FAILED_PROBES + _SLOW_SECONDS + 3
COUNTED_HANDLER = "log_append"
"""Label `handler` in Caddy's metrics: every handler counts the requests that pass it; this one counts each one once."""

DATA = "/var/tmp"  # noqa: S108 - a path in the container; see spec()
ACME_ROOT = "acme-root.pem"
_METRICS = r"/metrics([/\s]|$)"
"""Pattern of the API's metrics and all paths below, also before white space: Starlette ignores a newline at the end."""


_OWN_METRICS = "^/metrics/?$"
_FORWARDED_FOR = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
"""Headers with which a proxy shows that it forwards a client's request."""


# Never text/event-stream: compression would delay events that a client waits for.
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
        # Caddy's own redirect is off, because Caddy does not know the port on the host.
        f"auto_https {'disable_redirects' if settings.domain else 'off'}",
        *filter(None, certificates),
        # Also for the default logger, because its error messages contain the request.
        _log("log"),
        *(_server(*server) for server in _servers(environment)),
    )


def _servers(environment: Environment) -> Iterator[tuple[int, str, Sequence[str]]]:
    """Yield (port, name in the metrics, proxies whose X-Forwarded-For is trusted) of each server."""
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
        # No HTTP/3: it needs a published UDP port, and Caddy would announce its own port instead of the host's.
        f"protocols {'h1 h2' if port == HTTPS_PORT else 'h1'}",
        "max_header_size 64KiB",
        # No read_body timeout: Go's limit covers the whole exchange, and would end a longer stream.
        _block("timeouts", "read_header 10s", "idle 2m"),
        *([f"trusted_proxies static {' '.join(trusted)}"] if trusted else []),
        # Strict takes the last address in X-Forwarded-For that is no trusted proxy's; a client can forge the first one.
        # Not for the frontend: it sends a single address, which may be private itself, as in an office.
        *(["trusted_proxies_strict"] if trusted and port != INTERNAL_PORT else []),
    )


def _log(head: str) -> str:
    """Return a log block: JSON without headers and without the query, because a secret in there may have any name."""
    fields = _block("fields", "request>headers delete", r"request>uri regexp \?.* ?REDACTED", "resp_headers delete")
    return _block(head, "output stdout", _block("format filter", "wrap json", fields))


def _snippets(environment: Environment) -> Iterator[str]:
    settings = environment.settings.ingress
    defaults = {**SECURITY_HEADERS, "X-Request-Id": "{http.request.header.X-Request-Id}"}
    yield _block(
        "(headers)",
        # `?` keeps a header that the application sets. Each header has its own directive, because a common one would
        # set no header at all if the application sets one of them.
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
        # Uptime monitors send HEAD, which an application supports only if it declares it; GET answers without a body.
        _block("@asked", "method HEAD", f"path {' '.join(_asked_paths(settings))}"),
        "method @asked GET",
        "import headers",
        _block("request_body", f"max_size {settings.max_body_mib}MiB"),
        _block(
            "encode zstd gzip",
            _block("match", *(f"header Content-Type {content_type}" for content_type in _COMPRESSED)),
        ),
        # Caddy matches the decoded and cleaned path, so this covers //metrics, /./metrics and /%6detrics too.
        f"@metrics path_regexp (?i)^{_METRICS}",
        _block("handle @metrics", "error 404"),
        _block(
            "handle_errors",
            "import headers",
            "header Content-Type application/json",
            'respond `{"detail":"{http.error.status_text}"}` {http.error.status_code}',
        ),
    )


def _asked_paths(settings: IngressSettings) -> list[str]:
    """Return the paths that uptime monitors request: the home page and the API's health, with its prefix too."""
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
    """Yield the route to one replica's metrics for a person on this machine.

    Only if the ingress is on loopback and no proxy is known to be in front of it. In production a proxy is assumed,
    because nginx' default request (`Host: 127.0.0.1:8000`, no forwarding header) looks like a local one. The Host
    header excludes web pages that use DNS rebinding; the forwarding headers and the Host exclude most proxies.
    """
    settings = environment.settings.ingress
    known = environment.settings.production or settings.domain or settings.trusted_proxies
    if known or not ipaddress.ip_address(settings.bind_address).is_loopback:
        return
    hosts = "|".join(dict.fromkeys(map(_in_pattern, ("localhost", "127.0.0.1", "::1", str(settings.bind_address)))))
    yield _block(
        "@own_metrics",
        f"path_regexp {_OWN_METRICS}",
        # Not the matcher `host`: Caddy would wrap all routes in another route, and count the requests there.
        rf"header_regexp Host ^({hosts})(:\d+)?$",
        *(f"header !{name}" for name in _FORWARDED_FOR),
    )
    yield _block("handle @own_metrics", _api(environment))


def _in_pattern(host: str) -> str:
    return re.escape(f"[{host}]" if ":" in host else host)


def _stripped(environment: Environment) -> Iterator[str]:
    """Yield the route that strips the prefix (`/api`) from the API's paths.

    Paths with `/metrics` anywhere behind the prefix are refused, because an image that knows the prefix would strip it
    a second time.
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
    # No flush_interval: Caddy flushes an event stream at once anyway, and with -1 it would not end the stream when its
    # client disconnects.
    return _block(
        f"reverse_proxy {upstreams}",
        *lines,
        # Caddy retries requests that it could not send, and a GET without an answer. 30 s is longer than a deploy of a
        # single replica takes.
        "lb_try_duration 30s",
        "lb_try_interval 100ms",
        # One address and not a list, so that the application need not know the proxies in front of this one.
        "header_up X-Forwarded-For {client_ip}",
        _block(
            "transport http",
            "dial_timeout 2s",
            # Shorter than the application servers' keep-alive (uvicorn: 5 s), else a POST may hit a closing connection.
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
        # All paths go to the API, because the frontend does not request its own pages.
        every = _block("handle", _api(environment))
        yield _block(f"http://:{INTERNAL_PORT}", "import app", *_stripped(environment), every)
    yield _block(f"http://:{METRICS_PORT}", "metrics /metrics", "respond /health 200")
    yield _probes(environment)


def settled_seconds(environment: Environment) -> int:
    """Return the seconds after which a started replica that works counts as healthy.

    For a single replica this ignores `stableSeconds`, because no other replica serves in the meantime.
    """
    api = environment.settings.api
    return max(api.stable_seconds, _LEAST_SETTLED_SECONDS) if api.replicas > 1 else _LEAST_SETTLED_SECONDS


def _probes(environment: Environment) -> str:
    """Return the site that probes each replica every second and counts its recent failures.

    Caddy's thresholds for active checks count over all time and not in a row (caddyserver/caddy#7625): a replica that
    repeatedly comes up for some seconds would get requests in the end. So here the active check is only a timer. Its
    request goes through a proxy for one replica; if that fails, it goes through a second proxy, whose passive check
    counts the failures of the last seconds. Caddy shares this count, by the replica's address, among all proxies; the
    proxies for users' requests skip a replica with FAILED_PROBES failures. Users' requests themselves are not counted,
    so no client can make a replica look unhealthy.

    A replica that refuses the connection has failed. A slow replica has failed only while another replica answers fast:
    on a host without free CPU all replicas are slow, and none would be left to serve. A replica that answers with an
    error has failed only while another replica is well: what all replicas need may be down, and some paths work still.
    A lone replica that answers with an error has failed: it drains, and the next one comes.
    """
    parts = environment.parts_of("api")
    clock = _block(
        f"reverse_proxy {' '.join(_address(part) for part in parts)}",
        f"health_upstream 127.0.0.1:{PROBES_PORT}",
        "health_uri /health",
        "health_interval 1s",
        # Longer than all requests below together, because an interrupted check is not counted as a failure.
        f"health_timeout {2 * _SLOW_SECONDS + 2 * _OTHER_SECONDS * len(parts) + 2}s",
        _block("health_headers", "Upstream {http.reverse_proxy.active.target_upstream}"),
    )
    ill = _block("handle_response @ill", f'error "{_ILL}" 502')
    asked = [
        line
        for part in parts
        for line in (
            f"@{part} header Upstream {_address(part)}",
            _block(f"reverse_proxy @{part} {_uncounted(part)}", "@ill status 3xx 4xx 5xx", ill, _limits(_SLOW_SECONDS)),
        )
    ]
    failed = [line for part in parts for line in _failed(environment, part)]
    return _block(f"http://:{PROBES_PORT}", "bind 127.0.0.1", *asked, clock, _block("handle_errors 502 504", *failed))


def _failed(environment: Environment, part: str) -> Iterator[str]:
    """Yield what judges a probe of a replica that failed, and counts the failure."""
    settled = settled_seconds(environment) - 1
    # Caddy answers 502, not 504, if resolving the name or connecting times out.
    late = "expression `{http.error.status_code} == 504 || {http.error.message}.contains('timeout')`"
    yield _block(f"@slow-{part}", f"header Upstream {_address(part)}", late)
    soon = min(settled, _SLOW_FORGOTTEN_SECONDS)
    yield _while_another_is_well(environment, "slow", part, within=1, forgotten=soon)
    if environment.settings.api.replicas > 1:
        told = f"expression `{{http.error.message}} == '{_ILL}'`"
        yield _block(f"@ill-{part}", f"header Upstream {_address(part)}", told)
        # A slow replica is better than one that answers with errors.
        yield _while_another_is_well(environment, "ill", part, within=_OTHER_SECONDS, forgotten=settled)
    yield _counted(f"@{part}", part, settled)


def _while_another_is_well(environment: Environment, how: str, part: str, *, within: int, forgotten: int) -> str:
    """Return the block that counts a replica's failure, if another replica that gets requests is well.

    how: names the failure's matcher. within: seconds in which the other replica must answer. forgotten: seconds after
    which the failure does not count any more.
    """
    others = [_dial(other) for other in environment.parts_of("api") if other != part]
    if not others:
        return f"respond @{how}-{part} 504"
    return _block(
        f"reverse_proxy @{how}-{part} {' '.join(others)}",
        "lb_policy round_robin",
        f"max_fails {FAILED_PROBES}",
        # Try each of the other replicas, because the first one may hang as well.
        *([f"lb_retries {len(others) - 1}"] if len(others) > 1 else []),
        "@well status 2xx",
        _block("handle_response @well", _counted("", part, forgotten)),
        _limits(within),
    )


def _counted(matcher: str, part: str, seconds: int) -> str:
    """Return the block that counts a failure of a replica, whatever it answers now, and forgets it after `seconds`."""
    # A replica gets requests again when at most two of its failures are not forgotten. That is before a deploy replaces
    # the next replica, and later than the time in which a bad version fails after its start.
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
    """Return a replica's address, spelt as in the metrics, whose value is the result of the last probe."""
    return f"{part}:{API_PORT}"


def _dial(part: str) -> str:
    """Return the address with a dot after the name, which gives proxies without probes another label in the metrics."""
    return f"{part}.:{API_PORT}"


def _uncounted(part: str) -> str:
    """Return the address with a network before it: Caddy remembers no failures under this spelling."""
    return f"tcp4/{_dial(part)}"


def has_frontend(environment: Environment) -> bool:
    """Return whether this environment runs a frontend."""
    return "frontend" not in environment.absent


def _block(head: str, *lines: str) -> str:
    """Return a block of a Caddyfile; a line may be a block."""
    body = "\n".join(lines).replace("\n", "\n\t")
    return f"{head} {{\n\t{body}\n}}".lstrip()
