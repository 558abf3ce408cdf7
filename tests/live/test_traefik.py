"""A whole stack behind a Traefik of the team's own, and a neighbour on its network."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import docker
import httpx
import pytest
from docker.models.containers import Container

from operations.engine import containers
from operations.engine.commands import execute
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL
from stack.settings.environment import Environment
from tests.live.conftest import unlimited, with_config
from tests.traefik import WEB, Traefik, address_on, traefik, traefiks_network

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(3600)]  # the first run of a version compiles Traefik

DOMAIN = "samokoder.example.org"
REPLICAS = ("api-1", "api-2")
# So long that only something that never comes meets it.
PATIENCE_SECONDS = 180.0
AWAY_SECONDS = 35.0
# The limit of this endpoint is 50 a minute for a client: above it, whatever a client invents.
LIMITED, ASKED = "/auth/me", 60
FORGED = "203.0.113."
# Soon found ill, so that a replica which Docker calls so for Redis' sake is out of Traefik within AWAY_SECONDS.
HEALTH = {"intervalSeconds": 2, "timeoutSeconds": 5, "retries": 5}

NEIGHBOUR = """
import json, sys, urllib.error, urllib.request
url, host, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
statuses = []
for number in range(times):
    asked = urllib.request.Request(url, headers={"Host": host, "X-Forwarded-For": f"203.0.113.{number}"})
    try:
        statuses.append(urllib.request.urlopen(asked, timeout=30).status)
    except urllib.error.HTTPError as error:
        statuses.append(error.code)
print(json.dumps(statuses))
"""


@dataclass
class Behind:
    """The stack, Traefik and a neighbour."""

    engine: docker.DockerClient
    environment: Environment
    traefik: Traefik
    neighbour: Container
    user: httpx.Client

    def part(self, name: str) -> Container:
        return containers.find(self.engine, self.environment, name)

    def servers(self) -> dict[str, str]:
        """Return replica -> UP or DOWN, as Traefik says it; without those that it does not know."""
        by_url = {f"http://{address_on(self.part(name), self.traefik.network)}:8000": name for name in REPLICAS}
        return {by_url.get(url, url): state for url, state in self.traefik.servers(self.service).items()}

    @property
    def service(self) -> str:
        return f"{self.environment.prefix}-api"

    def until_served_by(self, expected: Mapping[str, str]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while (found := self.servers()) != expected:
            assert time.monotonic() < end, f"{found} and not {expected}"
            time.sleep(0.5)

    def ask_as_neighbour(self, url: str, times: int) -> list[int]:
        """Ask that often, each time for another invented address; return the statuses."""
        code, said = execute(self.neighbour, ["python3", "-c", NEIGHBOUR, url, DOMAIN, str(times)])
        assert code == 0, said.decode()
        return list(json.loads(said))

    def clients(self) -> set[str]:
        """Return the addresses that the replicas' logs name as clients."""
        lines = [line for name in REPLICAS for line in self.part(name).logs().decode().splitlines()]
        logged = [json.loads(line) for line in lines if line.startswith("{")]
        return {str(line["client"]) for line in logged if line.get("client")}


BOTH = dict.fromkeys(REPLICAS, "UP")


@pytest.fixture(scope="module")
def behind(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, local_images: Environment
) -> Iterator[Behind]:
    workspace = unlimited(new_workspace())
    name, labels = f"traefik-of-{workspace.name}", {"samokoder.test": workspace.name}
    with traefiks_network(engine, name, labels) as (network, address):
        entry = {"network": name, "address": address, "entrypoint": "web", "certResolver": ""}
        workspace = with_config(
            workspace,
            {
                "samokoder:ingress": {"kind": "traefik", "domain": DOMAIN, "traefik": entry},
                "samokoder:frontend": {"enabled": True},
                "samokoder:api": {"health": HEALTH},
            },
        )
        image = local_images.image("node_exporter")
        seen = {ENVIRONMENT_LABEL: workspace.name}
        with traefik(engine, image, network, address, seen=seen, labels=labels) as running:
            neighbour: Container = engine.containers.run(
                local_images.image("python"),
                ["sleep", "infinity"],
                detach=True,
                init=True,
                network=name,
                labels=labels,
            )
            base = f"http://{address}:{WEB}"
            try:
                bring_up(workspace, interactive=False)
                with httpx.Client(base_url=base, headers={"Host": DOMAIN}, timeout=60) as user:
                    made = Behind(engine, workspace.settings(), running, neighbour, user)
                    made.until_served_by(BOTH)
                    yield made
            finally:
                neighbour.remove(force=True)
                if workspace.stack_file.exists():
                    destroy_data(workspace, interactive=False)


class Users:
    """Asks again and again, from the beginning of a block to its end, and remembers how often each answer came."""

    def __init__(self, user: httpx.Client, path: str) -> None:
        self._user, self._path = user, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            try:
                self.answers[str(self._user.get(self._path).status_code)] += 1
            except httpx.HTTPError as error:
                self.answers[repr(error)] += 1


def test_users_reach_both_replicas_and_the_page_and_not_the_metrics(behind: Behind) -> None:
    made = behind.user.post("/projects", json={"name": "behind a Traefik"})
    assert made.status_code == httpx.codes.CREATED
    assert behind.user.get(f"/projects/{made.json()['id']}").json()["name"] == "behind a Traefik"
    for _ in range(10):
        assert behind.user.get("/projects").status_code == httpx.codes.OK
    served = {str(line["ServiceAddr"]) for line in behind.traefik.served()}
    expected = {f"{address_on(behind.part(name), behind.traefik.network)}:8000" for name in REPLICAS}
    assert expected <= served, "one replica has no work"
    page = behind.user.get("/app/")
    assert (page.status_code, "behind a Traefik" in page.text) == (httpx.codes.OK, True)
    assert behind.user.head("/health").status_code == httpx.codes.OK, "uptime monitors send HEAD"
    for path in ("/metrics", "/metrics/", "/%6detrics", "/metrics%2F"):
        assert behind.traefik.answer(path, DOMAIN)[0] == httpx.codes.NOT_FOUND, path


def test_a_jobs_events_come_through_it(behind: Behind) -> None:
    project = behind.user.post("/projects", json={"name": "stream through Traefik"}).json()["id"]
    job = behind.user.post(f"/projects/{project}/jobs", json={"name": "write_skeleton"}).json()["id"]
    with behind.user.stream("GET", f"/jobs/{job}/events") as events:
        assert events.headers["Content-Type"].startswith("text/event-stream")
        assert any(line.startswith("data:") for line in events.iter_lines())


def test_a_neighbour_that_asks_the_api_itself_is_not_believed_who_it_is(behind: Behind) -> None:
    own = address_on(behind.neighbour, behind.traefik.network)
    direct = address_on(behind.part("api-1"), behind.traefik.network)
    statuses = behind.ask_as_neighbour(f"http://{direct}:8000{LIMITED}", ASKED)
    assert statuses[0] == httpx.codes.UNAUTHORIZED, "it reaches the API, as docs/security.md says"
    assert statuses[-1] == httpx.codes.TOO_MANY_REQUESTS, "a neighbour invents an address for each request"
    through = behind.ask_as_neighbour(f"http://{behind.traefik.address}:{WEB}{LIMITED}", 2)
    assert set(through) == {httpx.codes.TOO_MANY_REQUESTS}, "through Traefik it is another client than by itself"
    assert behind.user.get(LIMITED).status_code == httpx.codes.UNAUTHORIZED, "all users of Traefik share one limit"
    clients = behind.clients()
    assert own in clients, "the log names the neighbour by its own address"
    assert not [each for each in clients if each.startswith(FORGED)], "the log has addresses of its invention"


def test_while_redis_is_away_both_replicas_stay_in_traefik_and_answer(behind: Behind) -> None:
    redis = behind.part("redis")
    already = len(behind.traefik.served())
    states: list[dict[str, str]] = []
    redis.stop()
    try:
        with Users(behind.user, "/projects") as projects, Users(behind.user, "/health") as health:
            end = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < end:
                states.append(behind.servers())
                time.sleep(0.5)
        healths = {name: behind.part(name).attrs["State"]["Health"]["Status"] for name in REPLICAS}
        behind.until_served_by(BOTH)
        ready = behind.user.get("/ready").status_code
    finally:
        redis.start()
    assert ready == httpx.codes.SERVICE_UNAVAILABLE, "Redis was not away: nothing was tried"
    # DOWN for a moment is a machine that is slow: Traefik goes by a single answer.
    assert all(state.keys() == BOTH.keys() for state in states), f"a replica left Traefik: {states}"
    assert healths == dict.fromkeys(REPLICAS, "healthy")
    assert set(projects.answers) == {"200"}, projects.answers
    assert set(health.answers) == {"200"}, health.answers
    served = {str(line["ServiceAddr"]) for line in behind.traefik.served()[already:]}
    assert len({each for each in served if each.endswith(":8000")}) == len(REPLICAS)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_replica_that_ends_is_taken_out_without_a_lost_request_and_let_in_again(behind: Behind, way: str) -> None:
    behind.until_served_by(BOTH)
    ended = behind.part("api-2")
    with Users(behind.user, "/projects") as users:
        # Its own time to drain and end: the engine's default is ten seconds.
        ended.stop(timeout=45) if way == "stop" else ended.kill()
        behind.until_served_by({"api-1": "UP"})
        asked: Any = sum(users.answers.values())
        while sum(users.answers.values()) < asked + 20:
            time.sleep(0.1)
        ended.start()
        behind.until_served_by(BOTH)
    lost = sum(users.answers.values()) - users.answers["200"]
    # What a killed replica had begun is lost: nobody can know whether it was done.
    assert lost <= (way == "kill"), f"users noticed: {users.answers}"
