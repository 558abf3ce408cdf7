"""How many requests a client may make: exact, over all replicas, whatever it says of itself."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis as Client

from samokoder.rate_limit import client_of, take
from samokoder.settings import RATE_LIMITS

if TYPE_CHECKING:
    from tests.reference_app.conftest import Redis, Service, Setup

Waiting = Callable[[str, Callable[[], object]], object]
NO_LIMITS = dict.fromkeys(RATE_LIMITS, 0)


def _api(setup: Setup, limits: dict[str, int], **more: str) -> Service:
    api = setup.api(RATE_LIMITS=json.dumps(NO_LIMITS | limits), **more)
    api.wait_until("/ready")
    return api


def _address() -> str:
    """A client that no other test was."""
    return f"127.{secrets.randbelow(200) + 1}.{secrets.randbelow(250)}.{secrets.randbelow(250) + 1}"


def test_beyond_the_limit_the_answer_is_429_and_says_when_to_come_back(setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 3})
    hits = 'samokoder_rate_limit_hits_total{endpoint="/projects",limit_type="client"}'
    assert api.metric(hits) == 0, "a counter that is born at 1 has no increase then"
    with api.client(_address()) as client:
        answers = [client.get("/projects") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0", "0"]
        assert {answer.headers["ratelimit-limit"] for answer in answers} == {"3"}
        assert all(0 < int(answer.headers["ratelimit-reset"]) <= 60 for answer in answers)
        refused = answers[-1]
        assert refused.json() == {"detail": "too many requests"}
        assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
        assert "retry-after" not in answers[0].headers
        assert client.post("/projects", json={"name": "x"}).status_code == 201, "each endpoint has its own limit"
    assert api.metric(hits) == 2
    series = 'samokoder_http_requests_total{endpoint="/projects",method="GET",status="429"}'
    assert api.metric(series) == 2, "a refused request is a request"
    with api.client(_address()) as other:
        assert other.get("/projects").status_code == 200, "another client pays for nobody"


def test_a_body_that_nobody_needs_so_large_is_not_even_read(setup: Setup, waiting: Waiting) -> None:
    api = _api(setup, {})
    answer = api.post("/auth/login", content=b"x" * 70_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413, "bodies are read before limits are asked"
    waiting("its line in the log", lambda: '"status": 413' in api.said())
    assert '"exception"' not in api.said(), "what a client does wrong is no fault of ours, and needs no traceback"
    assert '"level": "error"' not in api.said(), "nobody is to be woken for what a client does wrong"


def test_an_answer_that_is_an_error_has_the_headers_too(setup: Setup) -> None:
    api = _api(setup, {"GET /jobs/{job_id}": 10, "POST /projects": 10})
    with api.client(_address()) as client:
        assert client.get("/jobs/not-an-id").headers["ratelimit-remaining"] == "9"
        refused = client.post("/projects", json={})
        assert (refused.status_code, refused.headers["ratelimit-remaining"]) == (422, "9")


def test_two_replicas_share_one_limit_exactly(setup: Setup) -> None:
    replicas = [_api(setup, {"GET /projects": 20}) for _ in range(2)]
    address = _address()
    clients = [replica.client(address) for replica in replicas]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: clients[n % 2].get("/projects"), range(80)))
    for client in clients:
        client.close()
    # On a starved host Redis may take longer than the limiter waits: such a request is let in, without these headers.
    not_asked = [each for each in answers if "ratelimit-limit" not in each.headers]
    taken = [each.status_code for each in answers if each not in not_asked].count(200)
    assert 20 - len(not_asked) <= taken <= 20, "no more and no fewer than the limit, at whichever replica"
    assert {each.status_code for each in answers} == {200, 429}


def test_a_limit_of_0_is_none(setup: Setup) -> None:
    api = _api(setup, {})
    with api.client(_address()) as client:
        answers = [client.get("/projects") for _ in range(60)]
    assert {answer.status_code for answer in answers} == {200}
    assert "ratelimit-limit" not in answers[0].headers


def test_a_forged_header_makes_no_other_client(setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 3})
    with api.client(_address()) as client:
        statuses = [client.get("/projects", headers=_says(f"10.0.0.{n}")).status_code for n in range(5)]
    assert statuses == [200, 200, 200, 429, 429], "whoever may name itself has no limit"


def test_from_loopback_too(setup: Setup) -> None:
    api = _api(setup, {"GET /auth/me": 2})
    statuses = [api.get("/auth/me", headers=_says(f"10.0.1.{n}")).status_code for n in range(4)]
    assert statuses.count(429) >= 2, "uvicorn believes its own host unless the image says otherwise"


def test_behind_a_trusted_proxy_the_address_that_the_proxy_saw_counts(setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 3}, TRUSTED_PROXIES="127.0.0.0/8")
    client, other = f"10.1.0.{secrets.randbelow(250)}", f"10.2.0.{secrets.randbelow(250)}"
    with api.client(_address()) as proxy:
        statuses = [proxy.get("/projects", headers=_says(f"10.9.9.{n}, {client}")).status_code for n in range(5)]
        assert statuses == [200, 200, 200, 429, 429], "what the client wrote itself is left of what the proxy added"
        assert proxy.get("/projects", headers=_says(other)).status_code == 200, "clients of one proxy are not one"
    assert f'"client": "{client}"' in api.said(), "the log names who it was, not the proxy"


def test_of_ipv6_a_whole_customer_counts_as_one(setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 2}, TRUSTED_PROXIES="127.0.0.0/8")
    prefix = f"2001:db8:{secrets.randbelow(0xFFFF):x}:{secrets.randbelow(0xFFFF):x}"
    with api.client(_address()) as proxy:
        statuses = [proxy.get("/projects", headers=_says(f"{prefix}::{n}")).status_code for n in range(1, 5)]
    assert statuses == [200, 200, 429, 429], "one customer has 2^64 addresses"


def _client(host: str) -> str:
    """Whose requests count together with those from this address."""
    return client_of(Request({"type": "http", "client": (host, 1)}))


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_any_two_addresses_of_a_64_count_as_one_and_of_two_as_two(address: IPv6Address, rest: int) -> None:
    if address.ipv4_mapped:
        return
    prefix = int(address) >> 64 << 64
    assert _client(str(address)) == _client(str(IPv6Address(prefix | rest))), "one customer has 2^64 addresses"
    other = IPv6Address(prefix ^ (1 << 64))
    assert _client(str(address)) != _client(str(other)), "the neighbour's customer would be locked out with him"
    assert _client(address.exploded) == _client(address.compressed), "one address has several spellings"


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_as_itself_in_whatever_form_it_comes(address: IPv4Address) -> None:
    mapped = IPv6Address((0xFFFF << 32) | int(address))
    assert _client(str(address)) == _client(f"::ffff:{address}") == _client(mapped.exploded) == str(address), (
        "all IPv4 clients of a socket for both would be one /64"
    )


def _says(forwarded: str) -> dict[str, str]:
    return {"X-Forwarded-For": forwarded}


def test_without_redis_reads_pass_and_logins_do_not(setup: Setup, waiting: Waiting) -> None:
    api = _api(setup, {"GET /projects": 3, "POST /projects": 3, "POST /auth/login": 3, "POST /auth/register": 3})
    person = {"email": "a@example.org", "password": "correct horse battery"}
    setup.redis.stop()
    try:
        assert [api.get("/projects").status_code for _ in range(5)] == [200] * 5, "reads are worth more than a limit"
        assert api.post("/projects", json={"name": "x"}).status_code == 201
        for path in ("/auth/login", "/auth/register"):
            refused = api.post(path, json=person)
            assert (refused.status_code, refused.json()) == (503, {"detail": "rate limiter is away"}), (
                "guessing must not become free while Redis is away"
            )
            assert int(refused.headers["retry-after"]) > 0
        for endpoint, count in (("/projects", 6), ("/auth/login", 1), ("/auth/register", 1)):
            assert api.metric(f'samokoder_rate_limit_unavailable_total{{endpoint="{endpoint}"}}') == count
    finally:
        setup.redis.start()
    waiting("ready again", lambda: api.get("/ready").status_code == 200)
    with api.client(_address()) as client:
        assert client.get("/projects").headers["ratelimit-remaining"] == "2", "and it counts again by itself"


def test_a_redis_that_hangs_does_not_hang_the_api(setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 3, "POST /auth/login": 3})
    setup.redis.hang()
    try:
        assert api.get("/projects").status_code == 200
        person = {"email": "a@example.org", "password": "correct horse battery"}
        assert api.post("/auth/login", json=person).status_code == 503
    finally:
        setup.redis.go_on()
    assert api.metric('samokoder_rate_limit_unavailable_total{endpoint="/projects"}') == 1


def test_a_login_waits_for_a_redis_that_is_slow(setup: Setup) -> None:
    api = _api(setup, {"POST /auth/login": 3})
    setup.redis.hang()
    soon = threading.Timer(2, setup.redis.go_on)
    soon.start()
    try:
        answer = api.post("/auth/login", json={"email": "a@example.org", "password": "correct horse battery"})
    finally:
        soon.join()
    assert answer.status_code == 401, "it was refused for a limiter that is slow: on a starved host nobody could log in"


def test_the_window_slides(redis: Redis) -> None:
    """One leaves, one may come: no burst of twice the limit where one window meets the next."""
    key, limit, window = f"test {secrets.token_hex(4)}", 3, 2.0

    async def ask() -> tuple[list[tuple[bool, int, int]], list[tuple[bool, int, int]]]:
        client = Client(
            host="127.0.0.1", port=redis.port, username="app", password=redis.application_password, lib_name=None
        )
        try:
            first = [await take(client, key, limit, window)]
            await asyncio.sleep(1)
            first += [await take(client, key, limit, window) for _ in range(3)]
            await asyncio.sleep(1.1)  # the first has left, the others have not
            return first, [await take(client, key, limit, window) for _ in range(2)]
        finally:
            await client.aclose()

    first, second = asyncio.run(ask())
    assert [allowed for allowed, _, _ in first] == [True, True, True, False]
    assert first[-1][2] == 1, "until the first leaves, not until a whole window is over"
    assert [allowed for allowed, _, _ in second] == [True, False]


def test_no_key_outlives_its_window(redis: Redis, setup: Setup) -> None:
    api = _api(setup, {"GET /projects": 3})
    address = _address()
    with api.client(address) as client:
        client.get("/projects")
    left = int(redis.cli("pttl", f"rate:GET /projects {address}"))
    assert 0 < left <= 60_000, "a key for every address that ever asked would fill Redis, which evicts nothing"


def test_the_limits_that_are_shipped_are_between_5_and_50_and_let_light_use_pass() -> None:
    assert all(5 <= limit <= 50 for limit in RATE_LIMITS.values())
    assert min(RATE_LIMITS, key=lambda endpoint: RATE_LIMITS[endpoint]).startswith("POST /auth/")


def test_every_limit_is_of_a_route_and_every_route_that_costs_something_has_one(api: Service) -> None:
    document = api.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in document.items() for method in methods}
    assert routes - {"GET /", "GET /health", "GET /ready"} == RATE_LIMITS.keys()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RATE_LIMITS", "{", "RATE_LIMITS: Invalid JSON"),
        ("RATE_LIMITS", '{"GET /projcts": 1}', "RATE_LIMITS: names an endpoint that has no limit"),
        ("RATE_LIMITS", '{"GET /projects": -1}', "RATE_LIMITS.GET /projects: "),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "TRUSTED_PROXIES: must be networks"),
        ("TRUSTED_PROXIES", "*", "TRUSTED_PROXIES: must be networks"),
    ],
)
def test_a_wrong_limit_is_refused_at_start(setup: Setup, name: str, value: str, reason: str) -> None:
    api = setup.api(**{name: value})
    assert api.ended() == 78
    assert f"- {reason}" in api.said(), api.said()


def test_a_script_that_asks_again_after_retry_after_gets_through(setup: Setup) -> None:
    """What the header promises is kept, by the clock of Redis: the window is moved back instead of waited for."""
    api = _api(setup, {"GET /projects": 1})
    address = _address()
    with api.client(address) as client:
        assert client.get("/projects").status_code == 200
        wait = int(client.get("/projects").headers["retry-after"])
        key = f"rate:GET /projects {address}"
        (member,) = setup.redis.cli("zrange", key, "0", "-1").split()
        setup.redis.cli("zincrby", key, str(-wait * 1_000_000), member)
        assert client.get("/projects").status_code == httpx.codes.OK
