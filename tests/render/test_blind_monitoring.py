"""What the monitoring says when it sees nothing: a full disk, a restart, a server that is silent.

Whom it tells is seen at a webhook behind the real AlertManager.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import yaml
from docker.models.containers import Container

from operations.engine import laboratory as laboratory_of
from operations.engine.containers import remove_labelled
from stack.catalogue import specs
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.blackbox_exporter.spec import JOB as PROBES
from stack.parts.node_exporter import spec as node_exporter
from stack.parts.postgres import exporter as postgres_exporter
from stack.parts.prometheus import spec as prometheus
from stack.parts.redis import exporter as redis_exporter
from stack.settings.environment import Environment
from stack.settings.types import seconds
from stack.spec.files import Template, yaml_text
from stack.spec.service import ServiceSpec
from tests.recording import WEBHOOK_URL, environment_of, secret_value
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


OUTSIDE = "outside"
OUTSIDE_PORT = 8080
# Every target answers here, as where all is well, and here is the webhook that AlertManager tells. Arguments: the names
# of the containers that run.
EVERYTHING = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
told = []
class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        seen = [f'container_last_seen{{name="{each}"}} {time.time()}' for each in sys.argv[1:]]
        metrics = "\\n".join(("pg_up 1", "redis_up 1", *seen, ""))
        self.answer(json.dumps(told) if self.path == "/told" else metrics)
    def do_POST(self):
        alerts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
        told.extend([each["labels"]["alertname"], each["status"]] for each in alerts)
        self.answer("")
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""
GROUP_SECONDS = 5
QUICK = {"groupWait": "1s", "groupInterval": f"{GROUP_SECONDS}s", "repeatInterval": "1h"}
NOT_INGESTING = "PrometheusNotIngesting"
# Without a gate they are true also where there is no sample of anything.
FALSE = {"ApiDown", "WorkerDown", "IngressDown", "ContainerMissing", "TargetDown"}
RESEND_SECONDS = 60
"""Prometheus tells AlertManager again after so long, and that the alert ends after four times as long."""


def quick(environment: Environment, factor: float) -> Environment:
    """The same images, two seconds between scrapes, alerts that wait for `factor` of their time, a quick webhook."""
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    return environment_of(
        "staging",
        {
            "images": images,
            "prometheus": {"scrapeInterval": "2s", "scrapeTimeout": "2s"},
            "alerts": {"waitFactor": factor},
            "alertmanager": {"timing": dict.fromkeys(("critical", "warning", "info"), QUICK)},
            "alertWebhookUrl": WEBHOOK_URL,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Listener:
    """AlertManager, and the webhook behind it."""

    alertmanager: Container
    webhook: Container

    def told(self) -> list[tuple[str, str]]:
        """Name and status of each alert that a person was told of, in order."""
        answer = httpx.get(f"http://{address(self.webhook)}:{OUTSIDE_PORT}/told", timeout=30).json()
        return [(name, status) for name, status in answer]

    def has(self, name: str, status: str) -> bool:
        return (name, status) in self.told()

    def heard(self, name: str) -> str:
        """The second at which AlertManager heard of an alert last; empty where it has none."""
        url = f"http://{address(self.alertmanager)}:{alertmanager.PORT}/api/v2/alerts"
        found = httpx.get(url, params={"filter": f'alertname="{name}"'}, timeout=30).json()
        return max((str(each["updatedAt"])[:19] for each in found), default="")


@contextmanager
def listening(laboratory: Laboratory, environment: Environment) -> Iterator[Listener]:
    """Give the webhook, and AlertManager that tells it.

    All is gone afterwards, so that the next one's names are its own.
    """
    try:
        outside = laboratory.python(environment, EVERYTHING, *containers(environment), alias=OUTSIDE)
        url = {"alert_webhook_url": f"http://{OUTSIDE}:{OUTSIDE_PORT}/"}
        told = laboratory.healthy_part(part(environment, alertmanager.PART), replaced=url)
        yield Listener(alertmanager=told, webhook=outside)
    finally:
        remove_labelled(laboratory.client, f"{laboratory_of.LABEL}={laboratory.token}")


def containers(environment: Environment) -> set[str]:
    """Return the names of the containers that the rules miss."""
    rules = contents(part(environment, prometheus.PART))["rules/samokoder.yml"]
    return set(re.findall(r'container_last_seen\{name="([^"]+)"\}', rules))


def with_targets(spec: ServiceSpec, absent: Sequence[str] = (), ends: str = "") -> Mapping[str, str]:
    """Return Prometheus' files, of which every target but itself is the one that answers.

    absent: jobs left alone. ends: a job with a target of its own, of the same name.
    """
    files = contents(spec)
    document = yaml.safe_load(files["prometheus.yml"])
    for job in document["scrape_configs"]:
        if job["job_name"] not in {prometheus.PART, PROBES, *absent}:
            host = ends if job["job_name"] == ends else OUTSIDE
            job["static_configs"] = [{"targets": [f"{host}:{OUTSIDE_PORT}"]}]
    return files | {"prometheus.yml": yaml_text(document)}


def in_time(spec: ServiceSpec, factor: float) -> ServiceSpec:
    """Return Prometheus with its own times scaled as those of the alerts are: else a short wait is never too long."""
    grace = "--rules.alert.for-grace-period="
    given = {each.removeprefix(grace) for each in spec.command if each.startswith(grace)} or {"10m"}
    scaled = [f"{grace}{round(seconds(each) * factor * 1000)}ms" for each in given]
    others = [each for each in spec.command if not each.startswith(grace)]
    resend = f"--rules.alert.resend-delay={round(RESEND_SECONDS * factor * 1000)}ms"
    return replace(spec, command=(*others, *scaled, resend))


def within(limit: float, ask: Callable[[], bool], otherwise: Callable[[], object]) -> None:
    """Wait for a true answer. limit: seconds, after which it fails with what `otherwise` gives."""
    end = time.monotonic() + limit
    while not ask():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.5)


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


def reached(container: Container) -> set[str]:
    """Return the jobs of which a stored sample of the last minutes says that they answer."""
    query = f"http://{address(container)}:{prometheus.PORT}/api/v1/query"
    found = httpx.get(query, params={"query": "min by (job) (up) == 1"}, timeout=30).json()
    return {each["metric"]["job"] for each in found["data"]["result"]}


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


MANAGED = {
    "managedDatabaseUrl": f"postgresql://app:{secret_value('silent database')}@postgres:5432/samokoder",
    "managedRedisUrl": f"rediss://app:{secret_value('silent redis')}@redis:6379/0",
}


def managed(environment: Environment, **settings: Any) -> Environment:
    """The same images, and stores of a provider, reached over TLS."""
    images = environment.settings.images.model_dump(by_alias=True, exclude_none=True)
    return environment_of("staging", {"images": images, **MANAGED, **settings})


def given(content: str | Template) -> str:
    """Return what a part gets, with the URLs of the managed stores."""
    return content if isinstance(content, str) else content.render(*(MANAGED[need] for need in content.needs))


def test_a_managed_postgresql_that_takes_the_connection_and_is_silent_is_told_before_the_scrape_gives_up(
    laboratory: Laboratory, environment: Environment
) -> None:
    laboratory.python(environment, SILENT, alias="postgres")
    spec = part(managed(environment), postgres_exporter.PART)
    exporter = laboratory.run(spec, {path: given(content) for path, content in spec.files.items()})
    wait_until(exporter, lambda: exporter.exec_run(list(spec.health_command)).exit_code == 0)
    begun = time.monotonic()
    text = metrics(exporter, postgres_exporter.PORT)
    assert time.monotonic() - begun < 10 - 2, "the scrape fails first, and nothing names the cause"
    assert "pg_up 0" in text.splitlines(), text[:2000]


def test_a_managed_redis_that_takes_the_connection_and_is_silent_in_tls_is_down(
    laboratory: Laboratory, environment: Environment
) -> None:
    scraped = {"scrapeInterval": "2s", "scrapeTimeout": "2s"}
    described = managed(environment, prometheus=scraped, alerts={"waitFactor": 0.1})
    try:
        laboratory.python(environment, SILENT, alias="redis")
        spec = part(described, redis_exporter.PART)
        secret = {name: given(content) for name, content in spec.secret_environment.items()}
        laboratory.run(
            spec,
            {path: given(content) for path, content in spec.files.items()},
            environment={**spec.environment, **secret},
        )
        spec = part(described, prometheus.PART)
        container = laboratory.run(spec, with_targets(spec, absent=[redis_exporter.PART]))
        wait_until(container, lambda: answers(container) and firing("RedisDown")(alerts(container)))
    finally:
        remove_labelled(laboratory.client, f"{laboratory_of.LABEL}={laboratory.token}")


def test_a_prometheus_with_a_full_disk_says_so_and_nothing_that_its_silence_makes_false(
    laboratory: Laboratory, environment: Environment
) -> None:
    described = quick(environment, 0.1)
    spec = part(described, prometheus.PART)
    # By its default of 5m, what is false would come three minutes later.
    spec = replace(spec, command=(*spec.command, "--query.lookback-delta=90s"))
    # A volume in memory: in a tmpfs of the container its user may not write.
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=48m,uid=65534,gid=65534"}
    name = f"samokoder-small-{laboratory.token}"
    small = laboratory.client.volumes.create(name, driver="local", driver_opts=options, labels=laboratory.labels)
    with listening(laboratory, described) as listener:
        files = with_targets(spec)
        jobs = {each["job_name"] for each in yaml.safe_load(files["prometheus.yml"])["scrape_configs"]} - {PROBES}
        container = laboratory.run(spec, files, data=small.name)
        wait_until(container, lambda: answers(container) and "Watchdog" in alerts(container))
        # One that had never stored anything would tell so at once, whatever fills its disk later. Of a part that it has
        # never seen it says nothing at first.
        early = {NOT_INGESTING, *FALSE}
        wait_until(container, lambda: jobs <= reached(container) and not early & alerts(container).keys())
        true, so_far = alerts(container).keys(), len(listener.told())

        def told() -> set[str]:
            """Name what somebody was told since, of what was not so before."""
            return {name for name, _ in listener.told()[so_far:]} - true

        container.exec_run(["dd", "if=/dev/zero", "of=/prometheus/fill", "bs=4k"])
        fires = firing(NOT_INGESTING)
        within(240, lambda: fires(alerts(container)), lambda: f"blind, and nobody is told: {alerts(container)}")
        assert firing("Watchdog")(alerts(container)), "the heart beats on, so nobody outside notices either"
        within(60, lambda: listener.has(NOT_INGESTING, "firing"), listener.told)
        # Longer than Prometheus looks back, and than each of them waits.
        end = time.monotonic() + 150
        while time.monotonic() < end:
            fired = {name for name, each in alerts(container).items() if each["state"] == "firing"}
            assert not fired & FALSE, "it goes on for minutes after the disk has room, and one missed scrape is told"
            time.sleep(1)
        assert told() == {NOT_INGESTING}, f"it sees nothing, and somebody was woken: {listener.told()}"

        assert container.exec_run(["rm", "/prometheus/fill"]).exit_code == 0
        within(600, lambda: listener.has(NOT_INGESTING, "resolved"), listener.told)
        time.sleep(2 * GROUP_SECONDS)  # what AlertManager no longer keeps back comes when it looks at its group again
        # What the full disk made true may be told now.
        assert not FALSE & told(), f"everything answered, and somebody was woken: {listener.told()}"


def test_what_burns_is_the_same_alert_after_prometheus_was_replaced_and_nobody_is_told_that_it_is_over(
    laboratory: Laboratory, environment: Environment
) -> None:
    # TargetDown waits for 5 minutes: here 70 s, above the grace period.
    factor = 14 / 60
    described = quick(environment, factor)
    spec = in_time(part(described, prometheus.PART), factor)
    # Without cAdvisor no missing container keeps the target's alert back.
    files = with_targets(spec, absent=["cadvisor"], ends=node_exporter.PART)
    volume = laboratory.client.volumes.create(f"samokoder-blind-{laboratory.token}", labels=laboratory.labels)
    with listening(laboratory, described) as listener:
        ends = laboratory.python(described, EVERYTHING, alias=node_exporter.PART)
        first = laboratory.run(spec, files, data=volume.name)
        # A target that has never answered may be one that a first `make up` has not made yet.
        wait_until(first, lambda: answers(first) and node_exporter.PART in reached(first))
        ends.remove(force=True)
        wait_until(first, lambda: firing("TargetDown")(alerts(first)))
        wait_until(first, lambda: listener.has("TargetDown", "firing"))
        began = alerts(first)["TargetDown"]["activeAt"]
        first.stop(timeout=60)
        heard = listener.heard("TargetDown")

        second = laboratory.run(spec, files, data=volume.name)
        wait_until(second, lambda: answers(second) and "TargetDown" in alerts(second))
        waits = "it waits anew"
        within(20, lambda: firing("TargetDown")(alerts(second)), lambda: f"{waits}: {alerts(second)['TargetDown']}")
        # Prometheus keeps the second of it.
        assert alerts(second)["TargetDown"]["activeAt"][:19] == began[:19]
        # AlertManager takes an alert that it has not heard of for four times the resend delay for resolved.
        within(180, lambda: listener.heard("TargetDown") > heard, listener.told)
        time.sleep(2 * GROUP_SECONDS)  # AlertManager tells an end when it looks at its group again
        assert not listener.has("TargetDown", "resolved"), "it burns, and somebody was told that it is over"
        assert listener.told().count(("TargetDown", "firing")) == 1, "told twice"
