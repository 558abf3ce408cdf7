"""What the monitoring says when it sees nothing: a full disk, a restart, a server that is silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from docker.models.containers import Container

from stack.catalogue import specs
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.prometheus import spec as prometheus
from stack.parts.redis import exporter as redis_exporter
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec
from tests.recording import environment_of
from tests.render.conftest import Laboratory, address, contents, wait_until

pytestmark = pytest.mark.live

# Everything is answered by a Python that takes the connection and says nothing.
SILENT = """
import socket, threading
kept = []
def serve(port):
    server = socket.create_server(("0.0.0.0", port))
    while True:
        kept.append(server.accept())
threads = [threading.Thread(target=serve, args=(port,)) for port in (5432, 6379)]
for each in threads: each.start()
for each in threads: each.join()
"""


def quick(environment: Environment, factor: float) -> Environment:
    """The same images, scrapes each second, alerts that wait for `factor` of their time."""
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    scrapes = {"scrapeInterval": "1s", "scrapeTimeout": "1s"}
    return environment_of("staging", {"images": images, "prometheus": scrapes, "alerts": {"waitFactor": factor}})


def part(environment: Environment, name: str) -> ServiceSpec:
    return next(each for each in specs(environment) if each.part == name)


def metrics(container: Container, port: int) -> str:
    return httpx.get(f"http://{address(container)}:{port}/metrics", timeout=60).text


def alerts(container: Container) -> dict[str, dict[str, Any]]:
    """The alerts that are pending or firing, by name; one of each."""
    answer = httpx.get(f"http://{address(container)}:{prometheus.PORT}/api/v1/alerts", timeout=30).json()
    in_order = sorted(answer["data"]["alerts"], key=lambda each: sorted(each["labels"].items()), reverse=True)
    return {each["labels"]["alertname"]: each for each in in_order}


def answers(container: Container) -> bool:
    try:
        return httpx.get(f"http://{address(container)}:{prometheus.PORT}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def stores(container: Container) -> bool:
    """Tell whether there is a sample of the last five minutes."""
    query = f"http://{address(container)}:{prometheus.PORT}/api/v1/query"
    return bool(httpx.get(query, params={"query": "up"}, timeout=30).json()["data"]["result"])


def firing(name: str) -> Callable[[dict[str, dict[str, Any]]], bool]:
    return lambda found: name in found and found[name]["state"] == "firing"


def test_a_server_that_takes_the_connection_and_is_silent_is_told_before_the_scrape_gives_up(
    laboratory: Laboratory, environment: Environment
) -> None:
    for alias in ("postgres", "redis"):
        laboratory.python(environment, SILENT, alias=alias)
    scrape = 10
    for name, port, said in (
        (postgres_exporter.PART, postgres_exporter.PORT, "pg_up 0"),
        (redis_exporter.PART, redis_exporter.PORT, "redis_up 0"),
    ):
        exporter = laboratory.healthy_part(part(environment, name))
        begun = time.monotonic()
        text = metrics(exporter, port)
        assert time.monotonic() - begun < scrape - 2, "the scrape fails first, and nothing names the cause"
        assert said in text.splitlines(), text[:2000]


def test_a_prometheus_with_a_full_disk_says_so(laboratory: Laboratory, environment: Environment) -> None:
    spec = part(quick(environment, 0.1), prometheus.PART)
    # A volume in memory: in a tmpfs of the container its user may not write.
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=48m,uid=65534,gid=65534"}
    name = f"samokoder-small-{laboratory.token}"
    small = laboratory.client.volumes.create(name, driver="local", driver_opts=options, labels=laboratory.labels)
    container = laboratory.run(spec, contents(spec), data=small.name)
    wait_until(container, lambda: answers(container) and "Watchdog" in alerts(container))
    # One that had never stored anything would tell so at once, whatever fills its disk later.
    wait_until(container, lambda: stores(container) and "PrometheusNotIngesting" not in alerts(container))
    container.exec_run(["dd", "if=/dev/zero", "of=/prometheus/fill", "bs=4k"])
    told: set[str] = set()
    end = time.monotonic() + 240
    while "PrometheusNotIngesting" not in told:
        assert time.monotonic() < end, f"blind, and nobody is told: {alerts(container)}"
        told = {name for name, each in alerts(container).items() if each["state"] == "firing"}
        time.sleep(0.5)
    assert "Watchdog" in told, "the heart beats on, so nobody outside notices either"


def test_what_burns_is_the_same_alert_after_prometheus_was_replaced(
    laboratory: Laboratory, environment: Environment
) -> None:
    # TargetDown waits for 5 minutes: here 70 s, above the grace period of a minute.
    spec = part(quick(environment, 14 / 60), prometheus.PART)
    volume = laboratory.client.volumes.create(f"samokoder-blind-{laboratory.token}", labels=laboratory.labels)
    first = laboratory.run(spec, contents(spec), data=volume.name)
    wait_until(first, lambda: answers(first) and firing("TargetDown")(alerts(first)))
    began = alerts(first)["TargetDown"]["activeAt"]
    first.stop(timeout=60)

    second = laboratory.run(spec, contents(spec), data=volume.name)
    # AlertManager takes an alert that it has not heard of for four minutes for resolved.
    wait_until(second, lambda: answers(second) and "TargetDown" in alerts(second))
    end = time.monotonic() + 20
    while not firing("TargetDown")(alerts(second)):
        assert time.monotonic() < end, f"it waits anew: {alerts(second)['TargetDown']}"
        time.sleep(0.5)
    # Prometheus keeps the second of it.
    assert alerts(second)["TargetDown"]["activeAt"][:19] == began[:19]
