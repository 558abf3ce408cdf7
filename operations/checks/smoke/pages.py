"""Containers, published pages and the certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked, certificates, state_of
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import FailedError, NotConfiguredError
from stack.parts.ingress import spec as ingress
from stack.settings.keys import key_of

_DAY_SECONDS = 86400
_HTTPS = 443


def container_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield a check for each container."""
    for part in (*(spec.part for spec in asked.parts), *asked.environment.settings.unavailable):

        def ask(part: str = part) -> str:
            row = asked.rows.get(part)
            if row and row.state == NOT_AVAILABLE:
                asked.need(part)
            if row is None or not row.ok:
                raise FailedError(f"it is {state_of(row)}")
            return f"running and healthy for {row.uptime_seconds} s, {row.restarts} restarts"

        yield Check(name=f"container {part}", ask=ask)


def page_checks(asked: StackAsked) -> Iterator[Check]:
    """Yield a check for each published part: whether the page that shows its health answers 200."""
    for spec in asked.parts:
        if spec.publish:

            def ask(part: str = spec.part, path: str = spec.publish.path) -> str:
                answer = asked.get(part, path)
                return f"{answer.url} answers 200 in {answer.elapsed.total_seconds() * 1000:.0f} ms"

            yield Check(name=f"page {spec.part}", ask=ask)


def certificate_check(asked: StackAsked) -> Iterator[Check]:
    """Yield the check of the certificate."""

    def ask() -> str:
        settings = asked.environment.settings.ingress
        if not settings.domain:
            raise NotConfiguredError(f"{key_of('ingress', 'domain')} is not set: it is reached by HTTP alone")
        ours = settings.kind == "caddy"
        asked.need(*((ingress.PART,) if ours else ()))
        port = settings.https_port if ours else _HTTPS
        timeout = asked.client.timeout.connect or 0
        days = certificate_days(settings.domain, port, settings.domain, certificates(settings), timeout)
        least = asked.environment.settings.alerts.tls_expires_days
        if days < least:
            key = key_of("alerts", "tls_expires_days")
            raise FailedError(f"it expires in {days:.1f} days; less than {key}, {least}")
        return f"the certificate of {settings.domain} is good for {days:.0f} days"

    yield Check(name="certificate", ask=ask)


def certificate_days(host: str, port: int, name: str, context: ssl.SSLContext, timeout: float) -> float:
    """Return for how many days the certificate that a server shows for `name` is still good. Raises FailedError."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            expires = ssl.cert_time_to_seconds(str((encrypted.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        raise FailedError(f"{name}:{port} shows a certificate that nobody trusts: {error.verify_message}") from None
    except OSError as error:
        raise FailedError(f"{name}:{port} does not answer by TLS: {error}") from None
    return (expires - time.time()) / _DAY_SECONDS
