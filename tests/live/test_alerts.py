"""Real faults in a running stack, and what arrives at Telegram, by mail, at the webhook and at the heartbeat."""

from __future__ import annotations

import contextlib
import html
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from operations.checks.alert.send import send_test_alert
from operations.checks.doctor import after
from operations.checks.report import Verdict
from operations.checks.smoke import smoke
from operations.data import backups
from operations.data.restore import restore
from operations.engine import containers
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from stack.monitoring import access
from stack.settings.environment import Environment
from tests.live.conftest import url
from tests.live.job_queue import Queue
from tests.live.notifications import PATIENCE_SECONDS, StandIn
from tests.live.test_the_stack import until


@pytest.fixture(scope="module")
def quick(alerting: Workspace) -> Workspace:
    """The stack that tells people, with waiting times of a twentieth."""
    return alerting


@pytest.fixture(scope="module")
def settings(quick: Workspace) -> Environment:
    return quick.settings()


@pytest.fixture(scope="module")
def ask(quick: Workspace, settings: Environment) -> Callable[..., Any]:
    """Ask Prometheus or AlertManager with its password; returns the JSON."""
    passwords = quick.open().secrets()

    def get(part: str, path: str, **query: str) -> Any:
        auth = (access.USER, passwords[f"{part}-web"])
        answer = httpx.get(f"{url(settings, part)}{path}", params=query, auth=auth, timeout=30)
        answer.raise_for_status()
        return answer.json()

    return get


def firing(name: str, **words: str) -> Callable[[str], bool]:
    """A message that this alert fires, with these words in it."""
    return lambda text: "FIRING" in text and name in text and all(word in text for word in words.values())


def over(name: str, **words: str) -> Callable[[str], bool]:
    """A message that it is over."""
    return lambda text: "RESOLVED" in text and name in text and all(word in text for word in words.values())


@pytest.mark.parametrize("part", ["prometheus", "alertmanager"])
def test_pages_with_a_password_let_nobody_in_without_it(
    settings: Environment, ask: Callable[..., Any], part: str
) -> None:
    for path in ("/metrics", "/-/healthy", "/api/v1/query?query=up" if part == "prometheus" else "/api/v2/alerts"):
        for auth in (None, (access.USER, "not the password"), ("admin", "admin")):
            answer = httpx.get(f"{url(settings, part)}{path}", auth=auth, timeout=30)
            assert answer.status_code == httpx.codes.UNAUTHORIZED, f"{path} with {auth}"
    assert ask(part, "/api/v1/status/config" if part == "prometheus" else "/api/v2/status")


def test_all_targets_and_probes_are_up_with_passwords_on(ask: Callable[..., Any], settings: Environment) -> None:
    def down() -> list[str]:
        targets = ask("prometheus", "/api/v1/targets", state="active")["data"]["activeTargets"]
        assert targets
        probes = ask("prometheus", "/api/v1/query", query="probe_success == 0")["data"]["result"]
        return [f"{t['labels']}: {t['lastError']}" for t in targets if t["health"] != "up"] + [
            f"probe {p['metric']}" for p in probes
        ]

    end = time.monotonic() + 120
    while (wrong := down()) and time.monotonic() < end:
        time.sleep(1)
    assert not wrong


def test_the_watchdog_beats_at_the_heartbeat_and_nowhere_else(alerted: StandIn) -> None:
    end = time.monotonic() + 120
    while len(beats := alerted.received("heartbeat")) < 3 and time.monotonic() < end:
        time.sleep(1)
    assert len(beats) >= 3, "an outside service would believe that all is dead"
    assert all(a["labels"]["alertname"] == "Watchdog" for beat in beats for a in beat["body"]["alerts"])
    assert not [text for text in alerted.texts("telegram") if "Watchdog" in text], "people would learn to look away"


def test_a_test_alert_goes_every_way_and_the_command_tells_so(quick: Workspace, alerted: StandIn) -> None:
    report = send_test_alert(quick)
    assert {each.integration: each.state for each in report.integrations} == dict.fromkeys(
        ("telegram", "email", "webhook", "heartbeat"), "delivered"
    )
    for kind in ("telegram", "email"):
        alerted.wait_for(kind, "the test alert", firing("TestAlert", id=report.test_id))
        alerted.wait_for(kind, "its end", over("TestAlert"))
    hooks = [each["body"] for each in alerted.received("webhook")]
    assert [hook for hook in hooks if report.test_id in json.dumps(hook)], "the webhook gets it as JSON"


def kill_worker(engine: docker.DockerClient, environment: Environment) -> None:
    """End the worker's process as a crash would: the engine starts its container again."""
    worker = containers.find(engine, environment, "worker")
    with contextlib.suppress(docker.errors.APIError):  # between two starts there is nothing to kill
        worker.exec_run(["python", "-c", "import os; os.kill(-1, 9)"])


def all_do(replicas: list[Container], what: Callable[[Container], None]) -> None:
    """Do it to each."""
    for replica in replicas:
        what(replica)


def test_faults_are_told_by_every_way_and_so_is_their_end(
    quick: Workspace, alerted: StandIn, engine: docker.DockerClient, settings: Environment, alerted_disk: Path | None
) -> None:
    replicas = [containers.find(engine, settings, part) for part in settings.parts_of("api")]
    exporter = containers.find(engine, settings, "redis-exporter")
    # More memory than the limit: the kernel ends this process, not the worker's own.
    containers.find(engine, settings, "worker").exec_run(["python", "-c", "b'x' * 2**30"])
    all_do(replicas, Container.kill)
    exporter.pause()  # stopped, it would be told as a missing container, which is more
    if alerted_disk:
        with (alerted_disk / "filler").open("wb") as file:
            file.write(b"x" * (shutil.disk_usage(alerted_disk).free - 2**20))
    try:
        faults = {
            "ApiDown": {"service": "api"},
            "TargetDown": {"service": "redis-exporter"},
            "ContainerRestartLoop": {"service": "worker"},
            "ContainerOomKilled": {"service": "worker"},
        }
        if alerted_disk:
            faults["HostDiskAlmostFull"] = {"place": str(alerted_disk)}
        for _ in range(6):
            # cAdvisor looks every 15 seconds: a start that it does not see is none.
            kill_worker(engine, settings)
            time.sleep(20)
        for name, words in faults.items():
            for kind in ("telegram", "email"):
                text = html.unescape(alerted.wait_for(kind, name, firing(name, **words)))
                assert re.search(rf"docs/runbooks/{name}\.md", text), "a person at 3 a.m. needs the page"
                assert settings.name in text, "which environment"
    finally:
        all_do(replicas, Container.start)
        exporter.unpause()
        if alerted_disk:
            (alerted_disk / "filler").unlink()
        # What ends a loop is another container: the old one's starts are its own.
        containers.find(engine, settings, "worker").remove(force=True)
        bring_up(quick, interactive=False)
    for name, words in faults.items():
        for kind in ("telegram", "email"):
            alerted.wait_for(kind, f"the end of {name}", over(name, **words))
    if not alerted_disk:
        pytest.skip("all but HostDiskAlmostFull: only root can mount a small disk")


def test_a_database_that_is_down_is_told_once_and_not_by_all_that_needs_it(
    alerted: StandIn, engine: docker.DockerClient, settings: Environment, ask: Callable[..., Any]
) -> None:
    stopped = [containers.find(engine, settings, part) for part in ("postgres", "redis")]
    begun = datetime.now(UTC)
    for container in stopped:
        container.stop()
    try:
        with httpx.Client(base_url=url(settings, "ingress"), timeout=30) as client:
            for name in ("PostgresDown", "RedisDown"):
                end = time.monotonic() + 120
                while not any(firing(name)(text) for text in alerted.texts("telegram")) and time.monotonic() < end:
                    client.get("/projects")
                alerted.wait_for("telegram", name, firing(name))
            answers = [client.get("/projects").status_code for _ in range(200)]  # what users do meanwhile
        assert httpx.codes.is_server_error(max(answers)), "users notice nothing, so nothing could be told twice"
        alerts = ask("alertmanager", "/api/v2/alerts", active="true", silenced="false", inhibited="true")
        meanwhile = [a for a in alerts if datetime.fromisoformat(a["startsAt"]) > begun]
        loud = {a["labels"]["alertname"] for a in meanwhile if not a["status"]["inhibitedBy"]}
        loud -= {"PostgresDown", "RedisDown"}
        # A busy machine or its clock is true of this machine whoever is down.
        loud = {name for name in loud if not name.startswith("Host")}
        assert not loud, "five messages at 3 a.m. where one says all"
    finally:
        for container in stopped:
            container.start()
    for name in ("PostgresDown", "RedisDown"):
        alerted.wait_for("telegram", f"the end of {name}", over(name))
        alerted.wait_for("email", f"the end of {name}", over(name))


def messages(alerted: StandIn, name: str) -> dict[str, list[str]]:
    """Return what has come about an alert by each way, oldest first, in the words of Telegram and mail."""
    hooks = [f"{each['body']['status'].upper()} {json.dumps(each['body'])}" for each in alerted.received("webhook")]
    every = {"telegram": alerted.texts("telegram"), "email": alerted.texts("email"), "webhook": hooks}
    return {way: [html.unescape(text) for text in texts if name in text] for way, texts in every.items()}


def test_a_redis_that_refuses_commands_of_its_own_file_is_told_until_a_copy_is_restored(
    quick: Workspace, alerted: StandIn, engine: docker.DockerClient, settings: Environment, ask: Callable[..., Any]
) -> None:
    name, patience = "RedisFileReadWithErrors", PATIENCE_SECONDS

    def number() -> str:
        found = ask("prometheus", "/api/v1/query", query="redis_unexpected_error_replies")["data"]["result"]
        return " ".join(each["value"][1] for each in found)

    def fires() -> list[Any]:
        query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        return list(ask("prometheus", "/api/v1/query", query=query)["data"]["result"])

    def active() -> list[Any]:
        query = {"active": "true", "silenced": "false", "inhibited": "true", "filter": f'alertname="{name}"'}
        return list(ask("alertmanager", "/api/v2/alerts", **query))

    def about(way: str) -> list[str]:
        return messages(alerted, name)[way]

    assert until(number, lambda said: said == "0", patience) == "0"
    assert not fires()
    assert not any(messages(alerted, name).values()), "it was told of a file that was read whole"
    queue = Queue(quick, engine, f"waits-{secrets.token_hex(3)}")
    queue.put()
    backups.now(quick, "redis")
    copy = next(row.id for row in backups.backups(quick)[0] if row.kind == "redis")
    try:
        queue.gets_a_refused_command()
        assert until(number, lambda said: said == "1", patience) == "1", "one command was refused"
        for way in ("telegram", "email", "webhook"):
            told = until(partial(about, way), bool, patience)
            assert told, f"nobody is told by {way} that jobs may be missing"
            for words in ("FIRING", "refused: 1;", "redis", "critical", settings.name, f"docs/runbooks/{name}.md"):
                assert words in told[0], f"{way} does not say {words}: {told[0]}"
        assert until(active, bool, patience)
        loud = until(active, lambda found: not any(each["status"]["inhibitedBy"] for each in found), patience)
        assert not any(each["status"]["inhibitedBy"] for each in loud), "another alert hides that jobs may be missing"
        assert {way: len(told) for way, told in messages(alerted, name).items()} == dict.fromkeys(
            ("telegram", "email", "webhook"), 1
        ), "a person who is told twice looks twice"
        smoked = {each.check: each for each in smoke.smoke(quick).findings}
        assert smoked["metrics redis"].verdict is Verdict.FAILED, smoked["metrics redis"]
        looked = {each.check: each for each in after.after(quick, wait=0).findings}
        assert looked["redis' file"].verdict is Verdict.FAILED, looked["redis' file"]
        queue.server.restart()
        queue.is_ready()
        assert until(number, lambda said: said == "1", patience) == "1", "a restart alone would end the alert"
        assert until(fires, bool, patience), "a restart alone would end the alert"
        assert until(active, bool, patience)
        restore.restore(quick, up=bring_up, backup=copy)
        assert until(number, lambda said: said == "0", patience) == "0", "the command is in the file still"
        assert until(active, lambda found: not found, patience) == []
        for way in ("telegram", "email", "webhook"):
            told = until(partial(about, way), lambda texts: "RESOLVED" in texts[-1], patience)
            assert "RESOLVED" in told[-1], f"its end is not told by {way}"
        queue.holds()
    finally:
        bring_up(quick, interactive=False)


def test_when_telegram_fails_the_alert_about_it_comes_by_mail(quick: Workspace, alerted: StandIn) -> None:
    def send() -> None:
        report = send_test_alert(quick)
        states = {each.integration: each.state for each in report.integrations}
        others = ("email", "webhook", "heartbeat")
        assert states == {"telegram": "failed"} | dict.fromkeys(others, "delivered")

    alerted.refuse_telegram(True)
    try:
        send()
        # Again and again: after the many messages of the faults before, one that fails is less than one in a hundred.
        alerted.wait_for(
            "email",
            "the alert about Telegram",
            firing("AlertmanagerNotificationsFailing", by="telegram"),
            meanwhile=send,
        )
    finally:
        alerted.refuse_telegram(False)


def test_no_rule_failed_while_the_world_broke(ask: Callable[..., Any]) -> None:
    query = "sum(prometheus_rule_evaluation_failures_total)"
    (sample,) = ask("prometheus", "/api/v1/query", query=query)["data"]["result"]
    assert sample["value"][1] == "0", "a rule that fails when something is away is silent just then"
    groups = ask("prometheus", "/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
