"""Ten times the clients of normal use for a minute: slower perhaps, or limited by rate, but never an error."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx
import pytest

from operations.audit.drift.detect import find_drift
from operations.lifecycle.down import take_down
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from tests.live.conftest import url

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.deploy

# Twenty people at work, each of whom asks for something every 1.5 s: within the limits of every endpoint.
NORMAL_CLIENTS, TIMES = 20, 10
PAUSE_SECONDS = 1.5
SECONDS = 60.0
# More than the ingress holds a request back for a replica (30 s): no limit of ours ends one.
PATIENCE_SECONDS = 90.0


# ContainerUnhealthy waits for five minutes, longer than each other alert that must not fire.
STARVED_SECONDS = 420.0
# A replica, a store and what is declared are all there, only slow.
SILENT = ("PostgresDown", "RedisDown", "ContainerUnhealthy", "ContainerMissing", "IngressNoReplica", "StackDrifted")
# A program that never waits, as `stress-ng --cpu` is, with the weight of 16 parts.
WEIGHT = 16 * 1024
BUSY = """
import os, time
end = time.monotonic() + 1500  # whoever is to end it may be gone
for _ in range((os.cpu_count() or 1).bit_length() + 2):
    os.fork()
while time.monotonic() < end:
    pass
"""


@pytest.fixture(scope="module")
def running(new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A stack as it is by default, but that a load balancer in front is believed: here, the test itself."""
    workspace = new_workspace()
    ingress = {**workspace.extra_config["samokoder:ingress"], "trustedProxies": ["172.16.0.0/12", "192.168.0.0/16"]}
    workspace = replace(workspace, extra_config={**workspace.extra_config, "samokoder:ingress": ingress})
    bring_up(workspace, interactive=False)
    yield workspace
    take_down(workspace, interactive=False)


@pytest.fixture(scope="module")
def entry(running: Workspace) -> str:
    """Its address."""
    return url(running.settings(), "ingress")


@pytest.fixture
def starved(running: Workspace, engine: docker.DockerClient) -> Iterator[None]:
    """The host's processor is taken by another container."""
    image = engine.containers.get(f"{running.settings().prefix}-api-1").attrs["Image"]
    busy = engine.containers.run(
        image,
        ["-c", BUSY],
        entrypoint="python",
        name=f"samokoder-test-{secrets.token_hex(4)}",
        detach=True,
        init=True,
        cpu_shares=WEIGHT,
        network_mode="none",
        user="10001:10001",
        cap_drop=["ALL"],
        read_only=True,
    )
    yield
    busy.remove(force=True)


async def client(http: httpx.AsyncClient, address: str, until: float, answers: Counter[str]) -> None:
    """One person with an address of their own, who looks, writes and looks again."""
    headers = {"X-Forwarded-For": address}
    await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))  # noqa: S311 - no secret
    project = ""
    for turn in itertools.count():
        if time.monotonic() >= until:
            return
        method, path, body = "GET", f"/projects/{project}" if project and turn % 2 else "/projects", None
        if turn % 10 == 0 or (turn % 10 == 5 and not project):
            method, path, body = "POST", "/projects", {"name": f"project {turn}"}
        elif turn % 10 == 5:
            method, path, body = "POST", f"/projects/{project}/jobs", {"name": "write_skeleton"}
        try:
            answer = await http.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            answers[f"{method} {type(error).__name__}"] += 1
        else:
            answers[f"{answer.status_code}" if answer.is_success else f"{answer.status_code} {answer.text[:80]}"] += 1
            if path == "/projects" and method == "POST" and answer.is_success:
                project = answer.json()["id"]
        await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret


async def crowd(entry: str, clients: int, seconds: float) -> Counter[str]:
    """Let so many clients work for so long; return how often each answer came."""
    answers: Counter[str] = Counter()
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=entry, timeout=PATIENCE_SECONDS, limits=limits, trust_env=False) as http:
        addresses = [f"203.0.113.{number}" for number in range(1, clients + 1)]
        await asyncio.gather(*(client(http, address, until, answers) for address in addresses))
    return answers


def test_ten_times_the_clients_of_normal_use_meet_no_error_but_429(entry: str) -> None:
    answers = asyncio.run(crowd(entry, NORMAL_CLIENTS * TIMES, SECONDS))
    good = answers["200"] + answers["201"] + answers["202"]
    good_ones = ("200", "201", "202", "429")
    others = {answer: count for answer, count in answers.items() if not answer.startswith(good_ones)}
    assert not others, f"{others} beside {good} good answers: whoever is many must be served slower or told to wait"
    assert good > NORMAL_CLIENTS * TIMES, f"each client was served at least once: {answers}"


def test_one_client_that_asks_without_a_pause_is_limited_and_the_others_are_not(entry: str) -> None:
    with httpx.Client(base_url=entry, timeout=PATIENCE_SECONDS, trust_env=False) as http:
        asked = [http.get("/projects", headers={"X-Forwarded-For": "198.51.100.1"}).status_code for _ in range(80)]
        other = http.get("/projects", headers={"X-Forwarded-For": "198.51.100.2"}).status_code
    assert asked.count(200) >= 50, "the limit of this endpoint is 50 a minute"
    assert asked.count(429) > 0, "one client takes no more than its share"
    assert set(asked) == {200, 429}
    assert other == 200, "behind a load balancer, clients are still told apart"


@pytest.mark.timeout(3600)
def test_on_a_host_whose_processor_is_starved_answers_are_late_no_replica_is_missed_and_nobody_is_woken(
    running: Workspace, entry: str, starved: None
) -> None:
    began = time.monotonic()
    answers = asyncio.run(crowd(entry, NORMAL_CLIENTS, STARVED_SECONDS))
    # The application's own 503 names what it waited for.
    by_ingress = {f'{status.value} {{"detail":"{status.phrase}"}}' for status in HTTPStatus if status >= 500}
    missed = {answer: count for answer, count in answers.items() if answer in by_ingress or not answer[0].isdigit()}
    assert not missed, f"a replica that is slow is not one that is gone: {answers}"
    assert answers["200"] > NORMAL_CLIENTS, f"too few to prove anything: {answers}"
    assert find_drift(running) == [], "what answers late is no other than what is declared"
    environment, window = running.settings(), f"[{round(time.monotonic() - began)}s]"

    def fired(names: str) -> dict[str, float]:
        query = f'sum by (alertname) (count_over_time(ALERTS{{alertstate="firing",alertname=~"{names}"}}{window}))'
        address = f"{url(environment, 'prometheus')}/api/v1/query"
        answer = httpx.get(address, params={"query": query}, timeout=PATIENCE_SECONDS, trust_env=False)
        found = answer.raise_for_status().json()["data"]["result"]
        return {each["metric"]["alertname"]: float(each["value"][1]) for each in found}

    assert fired("Watchdog")["Watchdog"] >= 5, "Prometheus itself judged nothing meanwhile"
    assert not fired("|".join(SILENT)), "somebody is woken, and finds all of it there"
