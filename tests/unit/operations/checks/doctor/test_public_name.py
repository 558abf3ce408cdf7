"""What is said of the public name: a name service and servers that the tests give."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest

from operations.checks.doctor import public_name
from operations.errors import FailedError, NotConfiguredError, UnavailableError
from tests.recording import environment_of

NAME, FOUR, SIX = "samokoder.example.org", "192.0.2.7", "2001:db8::7"
ENVIRONMENT = environment_of("staging", {"ingress": {"domain": NAME, "email": "a@example.org"}})
Resolver = Callable[[dict[socket.AddressFamily, list[str] | int]], None]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """Has the name service answer so: addresses, or the number of an error."""

    def given(records: dict[socket.AddressFamily, list[str] | int]) -> None:
        def asked(_name: str, _port: None, family: socket.AddressFamily, _type: int) -> list[Any]:
            found = records.get(family, socket.EAI_NONAME)
            if isinstance(found, int):
                raise socket.gaierror(found, "said no")
            return [(family, 1, 6, "", (address, 0)) for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", asked)

    return given


def behind(monkeypatch: pytest.MonkeyPatch, answer: OSError | None, port: int = 443) -> None:
    """Have whoever is at the IPv6 address answer so; None: a connection."""

    def connect(address: tuple[str, int], _seconds: float) -> socket.socket:
        assert address == (SIX, port)
        if answer:
            raise answer
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)


def test_without_a_name_nothing_is_asked() -> None:
    with pytest.raises(NotConfiguredError):
        public_name.check(environment_of("staging", {}))


def test_a_name_with_an_a_record_alone_is_right(answers: Resolver) -> None:
    answers({socket.AF_INET: [FOUR]})
    assert FOUR in public_name.check(ENVIRONMENT)


def test_a_name_that_leads_nowhere_fails(answers: Resolver) -> None:
    answers({})
    with pytest.raises(FailedError, match="no A record"):
        public_name.check(ENVIRONMENT)
    answers({socket.AF_INET6: [SIX]})
    with pytest.raises(FailedError, match="only an AAAA"):
        public_name.check(ENVIRONMENT)


def test_an_aaaa_record_that_leads_to_silence_fails_and_one_of_a_load_balancer_passes(
    answers: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers({socket.AF_INET: [FOUR], socket.AF_INET6: [SIX]})
    for silence in (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), TimeoutError("timed out")):
        behind(monkeypatch, silence)
        with pytest.raises(FailedError, match=SIX):
            public_name.check(ENVIRONMENT)
    behind(monkeypatch, None)
    assert SIX in public_name.check(ENVIRONMENT), "somebody in front speaks IPv6"


def test_a_machine_that_cannot_know_says_so(answers: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    answers({socket.AF_INET: [FOUR], socket.AF_INET6: [SIX]})
    behind(monkeypatch, OSError(errno.ENETUNREACH, "unreachable"))
    with pytest.raises(UnavailableError, match="no IPv6"):
        public_name.check(ENVIRONMENT)
    answers({socket.AF_INET: socket.EAI_AGAIN})
    with pytest.raises(UnavailableError, match="does not answer"):
        public_name.check(ENVIRONMENT)


WHERE = {"network": "proxy", "address": "172.30.0.2"}


@pytest.mark.parametrize(
    "in_front",
    [{"kind": "traefik", "traefik": WHERE}, {"trustedProxies": ["192.0.2.0/24"], "email": "a@example.org"}],
    ids=["traefik", "a load balancer"],
)
def test_who_is_in_front_of_the_host_is_asked_on_443_and_may_have_ipv6_alone(
    answers: Resolver, monkeypatch: pytest.MonkeyPatch, in_front: dict[str, object]
) -> None:
    environment = environment_of("staging", {"ingress": {"domain": NAME, "httpsPort": 8443, **in_front}})
    answers({socket.AF_INET6: [SIX]})
    behind(monkeypatch, None)
    assert SIX in public_name.check(environment), "the port of the host is not the one that browsers ask"
    behind(monkeypatch, ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    with pytest.raises(FailedError, match="port 443") as error:
        public_name.check(environment)
    assert "the ingress" not in str(error.value), "whether it has IPv6 is nothing that browsers meet"
    answers({})
    with pytest.raises(FailedError, match="no A record"):
        public_name.check(environment)


def test_without_anybody_in_front_the_hosts_own_port_is_asked(
    answers: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"domain": NAME, "email": "a@example.org", "httpsPort": 8443}
    answers({socket.AF_INET: [FOUR], socket.AF_INET6: [SIX]})
    behind(monkeypatch, None, 8443)
    assert SIX in public_name.check(environment_of("staging", {"ingress": values}))


BOTH = environment_of("staging", {"ingress": {"domain": NAME, "email": "a@example.org"}, "network": {"ipv6": True}})


def test_with_ipv6_a_silent_address_is_the_firewalls_and_before_the_first_up_nobodys(
    answers: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers({socket.AF_INET: [FOUR], socket.AF_INET6: [SIX]})
    behind(monkeypatch, TimeoutError("timed out"))
    with pytest.raises(FailedError, match="firewalls of the host and of its provider") as error:
        public_name.check(BOTH)
    assert "IPv4 alone" not in str(error.value)
    assert "before the stack is up" in public_name.check(BOTH, runs=False)
    with pytest.raises(FailedError, match=r"samokoder:network\.ipv6"):
        public_name.check(ENVIRONMENT, runs=False)
    behind(monkeypatch, None)
    assert SIX in public_name.check(BOTH)


def test_with_ipv6_a_name_without_an_aaaa_record_is_told(answers: Resolver) -> None:
    answers({socket.AF_INET: [FOUR]})
    assert "nobody comes by IPv6" in public_name.check(BOTH)
    assert "nobody comes by IPv6" not in public_name.check(ENVIRONMENT)
