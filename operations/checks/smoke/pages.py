"""Containers, published pages and the certificate."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple

from operations.checks.report import Check
from operations.checks.smoke.asked import StackAsked, certificates, state_of
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import FailedError, NotConfiguredError
from stack.parts.ingress import spec as ingress
from stack.settings.keys import key_of

_DAY_SECONDS = 86400
_HTTPS = 443
_THRESHOLDS = ("tls_expires_days", "tls_expires_percent")


class Left(NamedTuple):
    """What is left of a certificate."""

    days: float
    percent: float
    """Of its life."""


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
        left = certificate_left(settings.domain, port, settings.domain, certificates(settings), timeout)
        told = f"{left.days:.1f} days, {left.percent:.0f} % of its life"
        alerts = asked.environment.settings.alerts
        if left.days < alerts.tls_expires_days and left.percent < alerts.tls_expires_percent:
            keys = [f"{key_of('alerts', name)} ({getattr(alerts, name):g})" for name in _THRESHOLDS]
            raise FailedError(f"it expires in {told}; less than {' and '.join(keys)}")
        return f"the certificate of {settings.domain} is good for {told}"

    yield Check(name="certificate", ask=ask)


def certificate_left(host: str, port: int, name: str, context: ssl.SSLContext, timeout: float) -> Left:
    """Return what is left of the certificate that a server shows for `name`. Raises FailedError."""
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            shown = encrypted.getpeercert() or {}
            begins, expires = (ssl.cert_time_to_seconds(str(shown[end])) for end in ("notBefore", "notAfter"))
    except ssl.SSLCertVerificationError as error:
        raise FailedError(f"{name}:{port} shows a certificate that nobody trusts: {error.verify_message}") from None
    except OSError as error:
        raise FailedError(f"{name}:{port} does not answer by TLS: {error}") from None
    seconds = expires - time.time()
    return Left(days=seconds / _DAY_SECONDS, percent=100 * seconds / max(expires - begins, 1))
