"""What runs after one real `up`."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import docker
import httpx
import pytest

from operations.engine import containers
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.parts.blackbox_exporter.spec import JOB
from stack.settings.environment import Environment
from stack.spec.service import Scrape
from tests.live.conftest import prometheus, url

# Its users come early, so that they have been there for five minutes when test_traffic.py asks.
pytestmark = pytest.mark.usefixtures("traffic")

T = TypeVar("T")


def until(probe: Callable[[], T], good: Callable[[T], bool], seconds: float = 90) -> T:
    """Ask until the answer is good; return the last answer either way, so that an assert can show it."""
    deadline = time.monotonic() + seconds
    answer = probe()
    while not good(answer) and time.monotonic() < deadline:
        time.sleep(1)
        answer = probe()
    return answer


def test_every_part_is_healthy(stack: Workspace, environment: Environment) -> None:
    rows = live_status(stack)
    running = {row.part: row.health for row in rows if row.state != NOT_AVAILABLE}
    assert running == {spec.part: "healthy" for spec in specs(environment)}, (
        "a part that is missing or sick was accepted"
    )


def test_a_part_without_an_image_is_told_as_not_available_and_never_as_healthy(stack: Workspace) -> None:
    unavailable = set(stack.settings().settings.unavailable)
    told = {row.part for row in live_status(stack) if row.state == NOT_AVAILABLE}
    assert told == unavailable, "what is not available must be said, and only that"
    assert not any(row.ok for row in live_status(stack) if row.part in unavailable)


def test_every_target_of_prometheus_is_up_by_name(environment: Environment) -> None:
    parts = specs(environment)
    expected = {f"{spec.job} at {spec.part}": "up" for spec in parts if isinstance(spec.scrape, Scrape)}
    expected |= {f"probe of {spec.part}": "up" for spec in parts if spec.publish}

    def states() -> dict[str, str]:
        targets = prometheus(environment, "targets", state="active")["activeTargets"]
        return {name(target["labels"]): target["health"] for target in targets}

    def name(of: dict[str, str]) -> str:
        part = of["instance"].partition(":")[0]
        return f"probe of {of['service']}" if of["job"] == JOB else f"{of['job']} at {part}"

    assert until(states, lambda found: found == expected) == expected, "all of them, not any of them"


def test_the_rules_are_loaded_and_evaluate_without_a_failure(environment: Environment) -> None:
    def health() -> set[tuple[str, str]]:
        groups = prometheus(environment, "rules")["groups"]
        return {(rule["name"], rule["health"]) for group in groups for rule in group["rules"]}

    found = until(health, lambda rules: all(state == "ok" for _, state in rules))
    assert {state for _, state in found} == {"ok"}, found
    assert {"TargetDown", "ContainerMissing", "Watchdog"} <= {name for name, _ in found}


def test_prometheus_shows_its_pages(environment: Environment) -> None:
    address = url(environment, "prometheus")
    page = httpx.get(f"{address}/query", timeout=30)
    if page.status_code == httpx.codes.NOT_FOUND and not npm_is_reached():
        pytest.skip("not available: Prometheus was built here, where nothing gives the packages of its pages")
    assert page.status_code == httpx.codes.OK, "who is woken wants to look, and not to read JSON"
    scripts = re.findall(r'src="\.?(/assets/[^"]+\.js)"', page.text)
    assert scripts, page.text[:500]
    for script in scripts:
        answer = httpx.get(f"{address}{script}", timeout=30)
        assert (answer.status_code, "javascript" in answer.headers["content-type"]) == (httpx.codes.OK, True), script


def npm_is_reached() -> bool:
    """Ask as npm would."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org/"
    try:
        return httpx.get(f"{registry.rstrip('/')}/pnpm/latest", timeout=10, follow_redirects=True).is_success
    except httpx.HTTPError:
        return False


def test_alertmanager_gets_the_watchdog(environment: Environment) -> None:
    def names() -> set[str]:
        alerts = httpx.get(f"{url(environment, 'alertmanager')}/api/v2/alerts", timeout=30).json()
        return {alert["labels"]["alertname"] for alert in alerts}

    assert "Watchdog" in until(names, lambda found: "Watchdog" in found), "Prometheus does not reach AlertManager"


def test_no_part_is_reported_missing_or_down_while_all_is_well(environment: Environment) -> None:
    def alerts() -> set[str]:
        found = prometheus(environment, "alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["labels"]["alertname"] != "Watchdog"}

    wrong = {"TargetDown", "ContainerMissing", "ContainerUnhealthy", "PostgresDown", "RedisDown"}
    assert not until(alerts, lambda found: not found & wrong) & wrong, "an alert that cries in a healthy stack"


@pytest.mark.parametrize("metric", ["pg_up", "redis_up"])
def test_the_exporters_reach_their_servers(environment: Environment, metric: str) -> None:
    def value() -> list[str]:
        return [sample["value"][1] for sample in prometheus(environment, "query", query=metric)["result"]]

    assert until(value, lambda found: found == ["1"]) == ["1"], "the exporter's login is refused"


def test_cadvisor_names_every_container_of_the_stack(environment: Environment) -> None:
    expected = {f"{environment.prefix}-{spec.part}" for spec in specs(environment)}
    query = f'container_memory_working_set_bytes{{name=~"{environment.prefix}-.+"}}'

    def names() -> set[str]:
        return {sample["metric"]["name"] for sample in prometheus(environment, "query", query=query)["result"]}

    assert until(names, lambda found: found >= expected) >= expected, "without the engine's names no alert can speak"


def test_a_row_is_written_and_read_back_and_the_worker_does_its_job(environment: Environment) -> None:
    with httpx.Client(base_url=url(environment, "ingress"), timeout=30) as api:
        ready = api.get("/ready")
        assert ready.status_code == httpx.codes.OK, ready.text
        project = api.post("/projects", json={"name": "live test"}).json()
        path = f"/projects/{project['id']}"
        assert api.get(path).json()["name"] == "live test"
        job = api.post(f"{path}/jobs", json={"name": "write_skeleton"})
        assert job.is_success, job.text
        work = f"/jobs/{job.json()['id']}"
        done = until(lambda: api.get(work).json(), lambda answer: answer["state"] in {"done", "failed"})
        assert done["state"] == "done", done
        assert api.get(path).json()["skeleton"], "the worker's work is in the database"


def test_no_generated_secret_can_be_read_from_the_engine_the_logs_or_the_state(
    stack: Workspace, engine: docker.DockerClient
) -> None:
    run = stack.open()
    secrets = run.secrets()
    assert len(secrets) >= 9, secrets.keys()
    everything: dict[str, str] = {}
    for container in engine.containers.list(all=True, filters={"name": f"^samokoder-{stack.name}-"}):
        everything[f"inspect {container.name}"] = json.dumps(container.attrs)
        if container.status == "running":
            everything[f"log {container.name}"] = container.logs().decode(errors="replace")
            environ = execute(container, ["cat", "/proc/1/environ"])[1]
            assert isinstance(environ, bytes)
            everything[f"environment of {container.name}"] = environ.decode(errors="replace")
    for volume in engine.volumes.list(filters={"name": f"samokoder-{stack.name}-"}):
        everything[f"volume {volume.name}"] = json.dumps(volume.attrs)
    for image in engine.images.list(filters={"reference": "samokoder-reference-app"}):
        everything[f"history {image.tags}"] = json.dumps(image.history())
    state = [path for path in Path(stack.folder).rglob("*") if path.is_file() and path.name != "passphrase"]
    everything |= {str(path): path.read_text(errors="replace") for path in state}
    assert any("/state/" in name for name in everything), "the state file must be among what is looked at"
    assert any(name.startswith("environment of") for name in everything)
    found = [(where, name) for where, text in everything.items() for name, value in secrets.items() if value in text]
    assert not found, f"in plain text: {found}"


def test_a_command_in_a_container_has_a_status_although_its_output_ends_before_it(
    stack: Workspace, engine: docker.DockerClient
) -> None:
    container = containers.find(engine, stack.settings(), "postgres")
    early = ["sh", "-c", "echo said; exec >&- 2>&-; sleep 1; exit 3"]
    assert execute(container, early) == (3, b"said\n"), "a backup that failed would count as a good one"


def test_postgres_and_redis_are_reachable_from_nowhere_but_the_network_data(
    stack: Workspace, engine: docker.DockerClient
) -> None:
    for part in ("postgres", "redis"):
        container = containers.find(engine, stack.settings(), part)
        assert list(container.attrs["NetworkSettings"]["Networks"]) == [f"samokoder-{stack.name}-data"]
        assert not container.attrs["HostConfig"]["PortBindings"], f"{part} is published"
    assert engine.networks.get(f"samokoder-{stack.name}-data").attrs["Internal"]
