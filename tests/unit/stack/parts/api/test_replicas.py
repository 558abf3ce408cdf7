"""The API's replicas: replaced one after the other, each only once the one before is steady."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from stack.parts.api import spec as api
from stack.parts.worker import spec as worker
from stack.spec import health
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.recording import CASES, DIGEST, Recording, case_environment, environment_of, record, record_case
from tests.serving import serving

OWN = {"image": f"registry.example.org/samokoder/api:1.4.2@{DIGEST}"}


def described(values: dict[str, object]) -> dict[str, ServiceSpec]:
    return {spec.part: spec for spec in specs(environment_of("staging", values))}


def waits_for(recording: Recording, part: str) -> set[str]:
    """Parts whose containers are healthy before this one is touched."""
    containers = {container.urn: name for name, container in recording.containers().items()}
    return {containers[urn] for urn in recording.containers()[part].dependencies if urn in containers}


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_each_replica_waits_for_the_one_before_and_the_first_for_what_all_need(replicas: int) -> None:
    found = described({"api": {"replicas": replicas}, "host": {"memoryMib": 8192}})
    parts = [part for part in found if part.startswith("api-")]
    assert parts == [f"api-{number}" for number in range(1, replicas + 1)]
    assert found["api-1"].after == ("postgres-roles", "redis-users", "workspace", "migrations")
    for before, part in pairwise(parts):
        assert found[part].after == (before,), "two at a time would be an outage"


def test_sick_replicas_are_replaced_before_those_that_serve() -> None:
    found = described({"api": {"replicas": 3, "first": [3]}, "host": {"memoryMib": 8192}})
    assert [part for part in found if part.startswith("api-")] == ["api-3", "api-1", "api-2"]
    assert found["api-3"].after == ("postgres-roles", "redis-users", "workspace", "migrations")
    assert found["api-1"].after == ("api-3",), "it serves, and the sick one is not well yet"
    assert found["api-2"].after == ("api-1",)
    assert "api-3" in found["worker"].after, "a version that cannot serve must not take the worker"
    assert [found[f"api-{number}"].formerly for number in (1, 2, 3)] == ["api", "", ""], "a name is not a turn"


def test_whose_turn_it_is_changes_no_container_and_no_file() -> None:
    usual, other = (record("staging", {"api": {"first": first}}) for first in ([], [2]))
    of_usual, of_other = (
        {each.urn: each.inputs for each in (*one.containers().values(), *one.carriers().values())}
        for one in (usual, other)
    )
    assert of_usual.keys() == of_other.keys()
    changed = [urn.rpartition("::")[2] for urn in of_usual if of_usual[urn] != of_other[urn]]
    assert not changed, f"going back, and the `up` after it, would replace what is neither sick nor changed: {changed}"


def test_replicas_differ_in_their_name_and_their_turn_alone() -> None:
    first, second = (record_case("staging").containers()[part].inputs for part in ("api-1", "api-2"))
    same = {"name", "hostname", "labels", "networksAdvanced", "volumes"}
    assert {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)} == same


@pytest.mark.parametrize("case", CASES)
def test_a_part_is_not_touched_before_those_that_it_waits_for_are_done(case: str) -> None:
    recording = record_case(case)
    urns = {name: container.urn for name, container in recording.containers().items()}
    for part, carrier in recording.carriers().items():
        needed = {urns[other] for other in waits_for(recording, part)}
        assert needed <= carrier.dependencies, (
            f"{part}: after an update that failed earlier, going back would replace what had never been touched"
        )


def test_the_worker_the_ingress_and_the_replicas_follow_the_first_replica() -> None:
    for part in ("api-2", "worker", "ingress"):
        assert "api-1" in waits_for(record_case("staging"), part), "a version that cannot serve must take nothing else"


def test_the_one_api_of_an_older_state_is_replaced_and_not_left_beside_the_replicas() -> None:
    components = {r.name: r for r in record_case("staging").resources if r.type == "samokoder:app:Api"}
    assert components["api-1"].aliases == {"api"}, "the old one holds the port that the ingress wants"
    assert components["api-2"].aliases == frozenset(), "one old resource cannot become two"


@pytest.mark.parametrize("case", CASES)
def test_nothing_else_has_a_former_name(case: str) -> None:
    assert {r.name for r in record_case(case).resources if r.aliases} == {"api-1"}


def test_only_the_ingress_is_published_of_the_application() -> None:
    containers = record_case("staging").containers()
    published = {part for part in ("api-1", "api-2", "worker", "ingress") if containers[part].inputs.get("ports")}
    assert published == {"ingress"}, "who reaches a replica itself says what address he has"


def test_migrations_are_absent_for_an_own_image_without_a_command() -> None:
    containers = record("staging", {"api": OWN}).containers()
    assert "migrations" not in containers, "what would it run?"
    found = described({"api": OWN, "migrations": {"command": ["alembic", "upgrade", "head"]}})
    assert found["migrations"].image == OWN["image"], "the version that will serve knows its own schema"
    assert found["migrations"].command == ("alembic", "upgrade", "head")
    assert found["migrations"].environment == found["api-1"].environment
    assert found["migrations"].files.keys() == found["api-1"].files.keys()


def test_the_reference_frontend_is_there_where_it_is_enabled() -> None:
    found = described({"frontend": {"enabled": True}})["frontend"]
    assert found.image == described({})["api-1"].image, "one image for all of the reference application"
    assert found.environment["API_URL"].startswith("http://ingress:"), "only the ingress knows which replica can serve"
    own = described({"frontend": OWN})["frontend"]
    assert own.image == OWN["image"]
    assert own.command == (), "the team's image starts itself"


def test_labels_for_a_traefik_are_on_every_replica_and_none_where_the_ingress_is_ours() -> None:
    where = {"network": "web", "address": "172.30.0.2"}
    traefik = {"kind": "traefik", "domain": "samokoder.example.org", "traefik": where}
    found = described({"ingress": traefik})
    assert "ingress" not in found, "there is one already"
    for part in ("api-1", "api-2"):
        assert found[part].labels, f"{part} would get no request"
        assert found[part].labels == found["api-1"].labels, "replicas of one service"
        assert found[part].external_networks == ("web",)
    assert not described({})["api-1"].labels
    assert described({})["api-1"].external_networks == ()


def test_a_stopping_replica_has_longer_than_the_application_takes() -> None:
    environment = case_environment("staging")
    # reference_app: DRAIN_SECONDS 5, then uvicorn's graceful shutdown of at most 25 s; the worker's jobs 20 s.
    assert all(spec.stop_grace_seconds > 5 + 25 for spec in api.specs(environment)), "a kill is a lost request"
    assert worker.spec(environment).stop_grace_seconds > 20


# The health check, as Docker runs it.


class _Server(ThreadingHTTPServer):
    status = 200
    alive = 200
    """Of /health."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(self.server.alive if self.path == "/health" else self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with serving(_Server(("127.0.0.1", 0), _Handler)) as server:
        yield server


@pytest.fixture
def check(server: _Server) -> Callable[[int], int]:
    """Runs the command with a number of stable seconds; returns its exit code. Process 1 is the one of this machine."""

    def run(stable_seconds: int) -> int:
        program, *arguments = health.python(server.server_port, "/ready", stable_seconds=stable_seconds)
        assert program == "python"
        variables = {**os.environ, "PYTHONOPTIMIZE": "1"}  # an image may have it set
        answer = subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, check=False)
        return answer.returncode

    return run


def uptime() -> int:
    """Seconds for which this machine has run at most: process 1 has for no longer."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


def test_a_container_is_healthy_once_it_answers_and_has_run_long_enough(check: Callable[[int], int]) -> None:
    assert check(0) == 0
    assert check(1) == 0, "process 1 has run for longer than a second"


def test_a_container_that_answers_is_not_healthy_before_its_time(check: Callable[[int], int]) -> None:
    assert check(uptime() + 3600) != 0, "what falls ill soon after its start would take the next replica"


def test_a_container_that_answers_badly_is_not_healthy_however_long_it_has_run(
    check: Callable[[int], int], server: _Server
) -> None:
    server.status = 503
    assert check(0) != 0
    assert check(1) != 0


def test_behind_a_traefik_a_replica_that_was_ready_once_stays_healthy_while_it_lives(
    server: _Server, tmp_path: Path
) -> None:
    traefik = {
        "kind": "traefik",
        "domain": "samokoder.example.org",
        "traefik": {"network": "web", "address": "172.30.0.2"},
    }
    command = described({"ingress": traefik})["api-1"].health_command[2].replace(health.READY_ONCE, f"{tmp_path}/once")
    command = command.replace(f":{api.PORT}'", f":{server.server_port}'").replace("up < 15", "up < 1")

    def healthy() -> bool:
        return subprocess.run([sys.executable, "-c", command], capture_output=True, check=False).returncode == 0

    server.status = 503
    assert not healthy(), "a version that cannot serve must stop the deploy"
    server.status = 200
    assert healthy()
    server.status = 503
    assert healthy(), "Redis is away: Traefik would drop both replicas, and every path answer 404"
    server.alive = 503
    assert not healthy()
    assert "/health" not in described({})["api-1"].health_command[2], "our own ingress asks for itself"


def test_the_seconds_of_the_settings_are_in_the_health_check() -> None:
    found = described({"api": {"stableSeconds": 37, "health": {"waitTimeoutSeconds": 90}}})
    assert "up < 37" in found["api-1"].health_command[2]
    assert found["api-1"].health_command == found["api-2"].health_command


@pytest.mark.parametrize(("replicas", "healthy_from"), [(2, "up < 8 "), (1, "up < 2 ")])
def test_the_next_replica_is_not_replaced_before_the_ingress_knows_that_this_one_is_well(
    replicas: int, healthy_from: str
) -> None:
    found = described({"api": {"stableSeconds": 2, "replicas": replicas}})
    assert healthy_from in found["api-1"].health_command[2], "for some seconds no replica would be let in"
