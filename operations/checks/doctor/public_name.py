"""A check of `doctor`: whether the public name has an A record, and whether its IPv6 addresses answer.

Browsers and certificate authorities try an AAAA record first, so an AAAA record whose address does not answer makes the
service unreachable for them. The ingress listens on IPv6 only with `samokoder:network.ipv6`.
"""

from __future__ import annotations

import errno
import socket

from operations.errors import FailedError, NotConfiguredError, UnavailableError
from stack.settings.environment import Environment
from stack.settings.keys import key_of

_SECONDS = 5
_HTTPS = 443
_NO_IPV6 = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""Errors which mean that this machine has no IPv6; they say nothing about the other host."""


def check(environment: Environment, *, runs: bool = True) -> str:
    """Look the public name up, and connect to its IPv6 addresses. Raises the errors of a check.

    runs: whether the stack is up; before that, nothing listens at its own addresses.
    """
    ingress = environment.settings.ingress
    if not ingress.domain:
        raise NotConfiguredError(f"{key_of('ingress', 'domain')} is not set")
    four, six = (_addresses(ingress.domain, family) for family in (socket.AF_INET, socket.AF_INET6))
    # The records then have the addresses of a proxy in front of the host: it listens on 443, maybe only on IPv6.
    in_front = ingress.kind == "traefik" or bool(ingress.trusted_proxies)
    if not four and not (in_front and six):
        raise FailedError(f"{ingress.domain} has no A record" + (", only an AAAA record" if six else " from here"))
    ours = environment.settings.network.ipv6 and not in_front
    if not six:
        waits = f": nobody comes by IPv6 ({key_of('network', 'ipv6')}) until there is one" if ours else ""
        return f"{ingress.domain} leads to {', '.join(four)}, and has no AAAA record{waits}"
    port = _HTTPS if in_front else ingress.https_port
    silent = [address for address in six if not _listens(address, port)]
    if silent and ours and not runs:
        return f"{ingress.domain} leads to {', '.join([*four, *six])}; by IPv6 nobody listens before the stack is up"
    if silent:
        why, cure = "", "have what is in front listen there"
        if ours:
            cure = "open the port in the firewalls of the host and of its provider for IPv6 too"
        elif not in_front:
            why, cure = ": the ingress has IPv4 alone", f"let it have both ({key_of('network', 'ipv6')}, docs/faq.md)"
        raise FailedError(
            f"the AAAA record of {ingress.domain} leads to {', '.join(silent)}, where nobody listens on port {port}"
            f"{why}. Browsers and the certificate authority ask there first: remove the record, or {cure}"
        )
    return f"{ingress.domain} leads to {', '.join([*four, *six])}"


def _addresses(name: str, family: socket.AddressFamily) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return []
        raise UnavailableError(f"the name service does not answer for {name}: {error.strerror}") from None
    return sorted({str(each[4][0]) for each in found})


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _SECONDS).close()
    except OSError as error:
        if error.errno in _NO_IPV6:
            raise UnavailableError(f"this machine has no IPv6, so nobody can say who listens at {address}") from None
        return False
    return True
