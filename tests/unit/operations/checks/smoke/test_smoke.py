"""The smoke test, asked of a small server in this process that answers for every part: each fault fails its own check.

On a real stack: tests/live/test_smoke.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from operations import __main__ as command
from operations.checks.report import Finding, Report, Verdict, ask_all
from operations.checks.smoke import pages, smoke, user_account
from operations.checks.smoke.asked import StackAsked
from operations.checks.smoke.entry import _JOB_SHARE, entry_checks
from operations.checks.smoke.metrics import metrics_checks
from operations.checks.smoke.pages import certificate_check
from operations.checks.smoke.user_account import LIMITED, Said, write_and_read
from operations.engine.part_status import NOT_AVAILABLE, PartStatus
from operations.errors import FailedError, ProjectError
from operations.network import engine_rules
from operations.workspace.workspace import Workspace
from stack import series
from stack.catalogue import rule_document
from stack.monitoring.metrics import Job
from stack.parts.alertmanager import spec as alertmanager
from stack.parts.api.metrics import of_jobs
from stack.parts.backup import spec as backup
from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.parts.grafana import spec as grafana
from stack.parts.prometheus import spec as prometheus
from stack.settings.environment import Environment
from stack.settings.part import Published
from stack.settings.types import seconds
from stack.spec.files import yaml_document
from tests.described import dashboard_texts, specs
from tests.fake_engine import FakeEngine, engine_at
from tests.recording import case_config, environment_of, merged
from tests.serving import serving

PASSWORDS = {"prometheus-web": "p" * 40, "alertmanager-web": "a" * 40, "grafana-admin": "g" * 40, "logs-web": "l" * 40}
LOGINS = {
    "prometheus": ("samokoder", PASSWORDS["prometheus-web"]),
    "alertmanager": ("samokoder", PASSWORDS["alertmanager-web"]),
    "grafana": ("admin", PASSWORDS["grafana-admin"]),
    "logs": ("samokoder", PASSWORDS["logs-web"]),
}


def environment(case: str = "every-receiver", **values: Any) -> Environment:
    stack, config = case_config(case)
    return environment_of(stack, merged(config, {"basicAuth": "always", **values}))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job here is done at once: look again soon."""
    monkeypatch.setattr(user_account, "_LOOKS_APART", (0.01,))


PATIENCE_SECONDS = 300.0
"""That all checks may take on a busy machine."""
AUTHORITIES = ssl.create_default_context()
"""Read once: each client would read the file of them anew."""
JOB = "job: queue, worker, database"
COUNTED = "count by (__name__)"
OFFSITE_FAILS = "min_over_time(backup_offsite_last_exit_code[30m])"
OFFSITE_LAST = "backup_offsite_last_success_timestamp_seconds > 0"
"""The question that names every series."""


@dataclass
class World:
    """What every part answers: all is well until a test changes something."""

    environment: Environment
    rows: dict[str, PartStatus] = field(default_factory=dict)
    status: dict[tuple[str, str], int] = field(default_factory=dict)
    """Part and path -> another status than 200."""
    targets: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    series: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)
    """Words of an expression -> what Prometheus has."""
    metrics: dict[str, str] = field(default_factory=dict)
    slow_once: dict[str, str] = field(default_factory=dict)
    """Part -> its page of metrics when it is asked for the first time."""
    config: str = ""
    watchdog_age: timedelta = timedelta(seconds=20)
    datasource: dict[str, str] = field(default_factory=lambda: {"status": "OK", "message": "Successfully queried"})
    dashboards: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    projects: dict[str, str] = field(default_factory=dict)
    """Project -> whose it is."""
    states: list[str] = field(default_factory=lambda: ["queued", "running", "done"])
    """Of a job, at each look; the last one stays."""
    looks: int = 0
    marked: object = True
    mistakes: bool = False
    keeps: bool = False
    asked: list[str] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=lambda: {"lines": "700", "parts": "19"})

    @cached_property
    def parts(self) -> list[Any]:
        return specs(self.environment)

    @classmethod
    def whole(cls, environment: Environment) -> World:
        """Return a world of its own, in which all is well."""
        content = environment.model_dump_json()
        if content not in _WORLDS:
            _WORLDS[content] = cls._made(environment)
        made = _WORLDS[content]
        own = {each.name: getattr(made, each.name) for each in fields(made) if each.name != "environment"}
        world = cls(made.environment, **deepcopy(own))
        world.parts = made.parts
        return world

    @classmethod
    def _made(cls, environment: Environment) -> World:
        world = cls(environment)
        for spec in world.parts:
            world.rows[spec.part] = row(spec.part)
        for part in environment.settings.unavailable:
            world.rows[part] = PartStatus(part=part, state=NOT_AVAILABLE)
        for job in yaml_document(prometheus.prometheus_yml(environment, world.parts))["scrape_configs"]:
            for group in job["static_configs"]:
                for instance in group["targets"]:
                    family = {key: by for key, by in group.get("labels", {}).items() if key == "family"}
                    labels = {"job": job["job_name"], "instance": instance, **family}
                    up = {"health": "up", "lastError": "", "lastScrapeDuration": 0.004}
                    world.targets.append({"labels": labels, **up})
        for each in rule_document(environment, world.parts)["groups"]:
            loaded = [
                {
                    "name": rule.get("alert") or rule["record"],
                    "labels": rule.get("labels"),
                    "duration": seconds(rule["for"]) if "for" in rule else 0,
                    "health": "ok",
                }
                for rule in each["rules"]
            ]
            world.groups.append({"name": each["name"], "rules": loaded})
        world.series["log_collector_behind_seconds"] = [({}, 1.0)]
        world.series["log_collector_first_read"] = [({}, 0.0)]
        world.series["vl_storage_is_read_only"] = [({}, 0.0)]
        world.series["backup_last_exit_code"] = [({}, 0.0)]
        for kind in backup.kinds(environment):
            world.series[f'kind="{kind}"'] = [({}, 1800.0)]
        world.series[OFFSITE_FAILS] = [({}, 0.0)]
        world.series[OFFSITE_LAST] = [({}, 600.0)]
        world.expose()
        world.measure()
        world.series["probe_success"] = [({}, 1.0)]
        settings = environment.settings
        world.metrics = {
            "postgres-exporter": f"pg_up 1\npg_settings_max_connections {settings.postgres.max_connections}\n"
            'pg_database_size_bytes{datname="samokoder"} 9000000\n'
            'pg_stat_database_numbackends{datname="samokoder"} 4\n',
            "redis-exporter": f"redis_up 1\nredis_memory_max_bytes {settings.redis.maxmemory_mib * 2**20}\n"
            "redis_memory_used_bytes 2000000\nredis_connected_clients 5\n"
            "# TYPE redis_unexpected_error_replies counter\nredis_unexpected_error_replies 0\n",
        }
        loaded = yaml_document(alertmanager.alertmanager_yml(environment, []))
        for receiver in loaded["receivers"]:
            receiver["labels"] = {"name": receiver["name"]}  # AlertManager 0.34 shows its own beside what it was given
        world.config = yaml.safe_dump(loaded)
        if "grafana" not in environment.absent:
            named = (
                re.fullmatch(r"dashboards/(.*)\.json", name)
                for name in grafana.files(environment, dashboard_texts(environment))
            )
            world.dashboards = [found[1] for found in named if found]
        return world

    def expose(self) -> None:
        for spec in self.parts:
            if spec.job in ("api", "worker"):
                names = [
                    f"{each.name}_count" if each.type == "histogram" else each.name
                    for each in of_jobs([Job(spec.job)])
                    if each.required
                ]
                self.series[f'instance="{spec.part}:'] = [({"__name__": name}, 3.0) for name in names]

    def measure(self) -> None:
        """Let Prometheus have every series that is read, and cAdvisor see every container."""
        prefix = self.environment.prefix
        self.series["container_last_seen"] = [({"name": f"{prefix}-{spec.part}"}, 2.0) for spec in self.parts]
        texts = [text for spec in self.parts for name, text in spec.files.items() if name.startswith("dashboards/")]
        read = {
            **series.of_rules(self.environment, self.parts),
            **series.of_dashboards(self.environment, self.parts, texts),
        }
        self.series[COUNTED] = [({"__name__": name}, 1.0) for name in read]

    def lose(self, name: str) -> None:
        """Let nobody expose a series."""
        kept = self.series[COUNTED]
        self.series[COUNTED] = [each for each in kept if each[0]["__name__"] != name]

    def target(self, instance: str) -> dict[str, Any]:
        return next(each for each in self.targets if each["labels"]["instance"] == instance)

    def answer(self, method: str, part: str, path: str, query: dict[str, str], body: Any, login: Any) -> Any:
        self.asked.append(f"{method} {part} {path}")
        if part in LOGINS and login != LOGINS[part] and path != "/api/health":
            return 401, "Unauthorized"
        if (status := self.status.get((part, path), 200)) != 200:
            return status, "it is broken"
        if part == "ingress" and path != "/health":
            return self.api(method, path, body, login)
        if path == "/metrics":
            return 200, self.slow_once.pop(part, self.metrics[part])
        if part == "logs":
            assert path == "/" or '{environment="' in query["query"], "the lines of another stack are no proof"
            return 200, self.stored
        its = {"prometheus": lambda: self.prometheus(path, query), "alertmanager": lambda: self.alertmanager(path)}
        return its.get(part, lambda: self.grafana(path))()

    def prometheus(self, path: str, query: dict[str, str]) -> Any:
        if path == "/api/v1/targets":
            return 200, {"data": {"activeTargets": self.targets}}
        if path == "/api/v1/rules":
            return 200, {"data": {"groups": self.groups}}
        if path == "/api/v1/query":
            asked = query["query"]
            key = COUNTED if COUNTED in asked else next(words for words in self.series if words in asked)
            found = self.series[key]
            return 200, {"data": {"result": [{"metric": labels, "value": [0, str(v)]} for labels, v in found]}}
        return 200, "well"

    def alertmanager(self, path: str) -> Any:
        if path == "/api/v2/status":
            return 200, {"config": {"original": self.config}}
        if path == "/api/v2/alerts":
            labels = {"alertname": "Watchdog", "environment": self.environment.name}
            return 200, [{"labels": labels, "updatedAt": (datetime.now(UTC) - self.watchdog_age).isoformat()}]
        return 200, "well"

    def grafana(self, path: str) -> Any:
        answers: dict[str, Any] = {
            "/api/user": {"login": "admin"},
            "/api/datasources/uid/prometheus/health": self.datasource,
            "/api/search": [{"uid": uid} for uid in self.dashboards],
        }
        return 200, answers.get(path, "well")

    def api(self, method: str, path: str, body: Any, login: Any) -> Any:
        match method, path.split("/")[1:]:
            case "POST", ["auth", "register"]:
                there = body["email"] in self.users
                self.users.add(body["email"])
                return (409, "there is such a user already") if there else (201, {})
            case "POST", ["auth", "login"]:
                return 200, {"access_token": body["email"]}
            case "GET", ["auth", "me"]:
                known = {"email": "somebody@example.org" if self.mistakes else login}
                return (200, known) if login in self.users else (401, "no good token")
            case "DELETE", ["auth", "me"]:
                self.users.discard("" if self.keeps else login)
                self.projects = {} if not self.keeps else self.projects
                return (405, "not allowed") if self.keeps else (204, "")
            case "GET", ["openapi.json"]:
                return 200, {"paths": {"/projects": {"post": {"x-samokoder-smoke": self.marked}}}}
        return self.projects_of(method, path, body, login)

    def projects_of(self, method: str, path: str, body: Any, login: Any) -> Any:
        match method, path.split("/")[1:]:
            case "POST", ["projects"]:
                assert login in self.users, "a project of nobody could never be removed"
                assert body["job"] == {"name": "write_skeleton"}, "any other job may ask an LLM, which costs money"
                self.projects["p"], self.looks = login, 0
                return 201, {"id": "p", "job": self.job()}
            case "GET", ["jobs", "j"]:
                return 200, self.job()
        raise AssertionError((method, path))

    def job(self) -> dict[str, str]:
        state = self.states[min(self.looks, len(self.states) - 1)]
        self.looks += 1
        return {"id": "j", "state": state, "result": "failed: InvalidPasswordError" if state == "failed" else ""}


_WORLDS: dict[str, World] = {}
"""Environment as JSON -> its world, which is only copied: most of a test would be spent on rendering it."""


def row(part: str, state: str = "running", health: str = "healthy", **more: Any) -> PartStatus:
    return PartStatus(part=part, state=state, health=health, uptime_seconds=9000, **more)


@contextmanager
def served(world: World) -> Iterator[StackAsked]:
    """The world on a port; each part below its name."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            url = urlsplit(self.path)
            _, part, path = url.path.split("/", 2)
            kind, _, given = (self.headers["Authorization"] or "").partition(" ")
            login: Any = given
            if kind == "Basic":
                user, _, password = b64decode(given).decode().partition(":")
                login = (user, password)
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            status, answer = world.answer(
                self.command, part, f"/{path}", query, json.loads(body) if body else None, login
            )
            text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 - names of the library

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    names = {
        id(getattr(world.environment.settings, name)): name.replace("_", "-")
        for name, part in world.environment.settings
        if isinstance(part, Published)
    }
    with (
        serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server,
        httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False, verify=AUTHORITIES) as client,
    ):
        yield StackAsked(
            world.environment,
            world.parts,
            world.rows,
            client,
            lambda part: f"http://127.0.0.1:{server.server_port}/{names[id(part)]}",
            lambda: PASSWORDS,
            # A moment for a job that nobody ever ends.
            seconds=(60.0 if world.states[-1] in {"done", "failed"} else 0.2) / _JOB_SHARE,
        )


def findings(world: World) -> dict[str, Finding]:
    with served(world) as asked:
        return {each.check: each for each in ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)}


def of(found: dict[str, Finding], verdict: Verdict) -> dict[str, str]:
    return {name: each.why for name, each in found.items() if each.verdict is verdict}


def fails(change: Callable[[World], object], *names: str, **values: Any) -> dict[str, Finding]:
    """Assert that exactly these checks fail after the change; return all."""
    world = World.whole(environment(**values))
    change(world)
    found = findings(world)
    assert set(of(found, Verdict.FAILED)) == set(names), of(found, Verdict.FAILED)
    return found


def test_a_whole_stack_passes_every_check_and_leaves_nothing_behind() -> None:
    world = World.whole(environment())
    found = findings(world)
    assert of(found, Verdict.FAILED) == {}
    assert set(of(found, Verdict.NOT_CONFIGURED)) == {"certificate"}, "staging has no domain"
    assert (world.users, world.projects) == (set(), {}), "each run would add to what is stored"
    assert "the worker has done a job" in found[JOB].why
    assert world.asked.count("GET prometheus /api/v1/targets") == 1, "one question for all targets"


def test_the_checks_follow_from_the_parts() -> None:
    world = World.whole(environment())
    found = findings(world)
    for spec in world.parts:
        assert f"container {spec.part}" in found
        assert (f"page {spec.part}" in found) == bool(spec.publish)
        if spec.job:
            assert f"target {spec.part}:{spec.scrape.port}" in found, "all of them, not any of them"
    assert {"probe http://ingress:8000/health", "backup base", "backup dump", "backup redis"} <= set(found)
    assert len(found) >= 18, "what the original promised"


def test_without_grafana_backups_or_a_known_application_that_is_said_and_never_passed() -> None:
    world = World.whole(environment("without-grafana", backup={"enabled": False}))
    unavailable = of(findings(world), Verdict.NOT_AVAILABLE)
    names = ("container grafana", "grafana login", "grafana datasource", "grafana dashboards")
    assert {unavailable[name] for name in names} == {"this host cannot get an image of grafana (samokoder:unavailable)"}
    assert "samokoder:backup.enabled" in of(findings(world), Verdict.NOT_CONFIGURED)["backup"]
    own = World.whole(environment(api={"image": f"registry.example.org/api:1@sha256:{'0' * 64}"}))
    with served(own) as asked:
        own.marked = "yes"
        entry, job = ask_all(list(entry_checks(asked)), seconds=PATIENCE_SECONDS)
        assert own.asked == ["GET ingress /openapi.json"], "nothing is written where nobody knows how"
        assert {entry.verdict, job.verdict} == {Verdict.NOT_AVAILABLE}
        assert "/health" in entry.why
        assert job.why.startswith("not asked: "), "an application that is not ours is not failed for lacking the route"
        own.status["ingress", "/openapi.json"] = 404
        assert {each.verdict for each in ask_all(list(entry_checks(asked)), seconds=PATIENCE_SECONDS)} == {
            Verdict.NOT_AVAILABLE
        }
        del own.status["ingress", "/openapi.json"]
        own.marked = True
        entry, job = ask_all(list(entry_checks(asked)), seconds=PATIENCE_SECONDS)
    assert {entry.verdict, job.verdict} == {Verdict.PASSED}, "an image that says that it may be asked is asked"
    assert own.users == set()
    foreign = World.whole(environment(worker={"image": f"registry.example.org/worker:1@sha256:{'0' * 64}"}))
    with served(foreign) as asked:
        entry, job = ask_all(list(entry_checks(asked)), seconds=PATIENCE_SECONDS)
    assert (entry.verdict, job.verdict) == (Verdict.PASSED, Verdict.NOT_AVAILABLE), "whose jobs nobody knows"
    assert "POST ingress /projects" not in foreign.asked


def test_logs_that_do_not_reach_their_store_are_a_failure() -> None:
    found = fails(lambda world: world.stored.update(lines="0"), "logs")
    assert found["logs"].why.startswith("no line of this environment was stored within a day: ")
    found = fails(lambda world: world.series.update(log_collector_behind_seconds=[({}, 400.0)]), "logs")
    assert found["logs"].why.startswith("new lines have not been stored for 400 s: ")
    found = fails(lambda world: world.series.update(vl_storage_is_read_only=[({}, 1.0)]), "logs")
    assert found["logs"].why == (
        "VictoriaLogs takes no lines: it needs 5120 MiB of its disk free, which it leaves to PostgreSQL's log and "
        "others. Make room (docs/runbooks/LogStoreFull.md); `make doctor` says how much there is and what may be needed"
    )

    def full_from_the_first_line_on(world: World) -> None:
        world.stored.update(lines="0")
        world.series.update(vl_storage_is_read_only=[({}, 1.0)])

    found = fails(full_from_the_first_line_on, "logs")
    assert found["logs"].why.startswith("VictoriaLogs takes no lines: "), (
        "the cause, also where nothing was ever stored"
    )


def test_a_first_deploy_does_not_go_back_while_the_collector_reads_what_was_there_before() -> None:
    world = World.whole(environment())
    world.series["log_collector_behind_seconds"] = [({}, 400.0)]
    world.series["log_collector_first_read"] = [({}, 1.0)]
    found = findings(world)["logs"]
    assert (found.verdict, found.why) == (
        Verdict.NOT_AVAILABLE,
        "the collector still reads what was there before it; 700 lines are stored",
    )


def test_without_logs_nothing_is_asked_of_them() -> None:
    world = World.whole(environment(logs={"enabled": False}))
    found = findings(world)
    assert of(found, Verdict.FAILED) == {}
    assert "logs" not in found


def stopped(part: str) -> Callable[[World], None]:
    def stop(world: World) -> None:
        world.rows[part] = row(part, state="exited")

    return stop


@pytest.mark.parametrize(
    ("part", "unavailable"),
    [
        ("worker", {"metrics worker", "target worker:9000", JOB}),
        ("postgres", {"metrics postgres", "public entry: write, read", JOB}),
        ("redis-exporter", {"page redis-exporter", "metrics redis", "target redis-exporter:9121"}),
        ("alertmanager", {"page alertmanager", "alertmanager receivers", "alertmanager gets alerts"}),
        ("backup", {"backup base", "backup dump", "backup redis", "target backup:9188"}),
        ("logs", {"page logs", "logs", "target logs:9428"}),
        ("log-collector", {"logs", "target log-collector:9190"}),
        ("grafana", {"page grafana", "grafana login", "grafana datasource", "grafana dashboards"}),
        ("prometheus", {"rules loaded", "rules evaluated", "target api-1:8000", "metrics api-1", "backup dump"}),
    ],
)
def test_a_container_that_is_down_is_one_failure_and_what_needs_it_is_not_available(
    part: str, unavailable: set[str]
) -> None:
    found = fails(stopped(part), f"container {part}")
    assert found[f"container {part}"].why == "it is exited"
    assert unavailable <= set(of(found, Verdict.NOT_AVAILABLE)), "nobody can say, and the cause is told once"


def test_a_container_that_is_sick_or_missing_fails() -> None:
    def sick(world: World) -> None:
        world.rows["redis"] = row("redis", health="unhealthy")
        del world.rows["node-exporter"]

    found = fails(sick, "container redis", "container node-exporter")
    assert found["container redis"].why == "it is running and unhealthy"
    assert found["container node-exporter"].why == "it is missing"


def test_a_page_that_does_not_answer_200_fails_alone() -> None:
    found = fails(lambda world: world.status.update({("ingress", "/health"): 502}), "page ingress")
    assert "/health answers 502: it is broken" in found["page ingress"].why


def test_a_target_that_is_down_fails_by_its_name() -> None:
    def down(world: World) -> None:
        world.target("api-2:8000").update(health="down", lastError="connection refused")

    found = fails(down, "target api-2:8000")
    assert found["target api-2:8000"].why == "down: connection refused"
    assert found["metrics api-2"].verdict is Verdict.NOT_AVAILABLE
    assert found["metrics api-1"].verdict is Verdict.PASSED


def test_a_target_that_prometheus_does_not_have_or_has_not_asked_yet_fails() -> None:
    def gone(world: World) -> None:
        world.targets.remove(world.target("redis-exporter:9121"))
        world.target("cadvisor:8080")["health"] = "unknown"

    found = fails(gone, "target redis-exporter:9121", "target cadvisor:8080")
    assert "older configuration" in found["target redis-exporter:9121"].why, "any one that is up is not enough"


def test_a_container_that_cadvisor_does_not_see_fails_by_its_name() -> None:
    def unseen(world: World) -> None:
        world.series["container_last_seen"] = [({"name": f"{world.environment.prefix}-api-1"}, 2.0)]

    found = fails(unseen, "series of containers")
    why = found["series of containers"].why
    assert "worker" in why, "each part, not any of them"
    assert "api-1" not in why

    def young(world: World) -> None:
        unseen(world)
        world.rows = {part: replace(each, uptime_seconds=30) for part, each in world.rows.items()}
        world.rows["backup"] = replace(world.rows["backup"], uptime_seconds=9000)
        world.series["container_last_seen"].append(({"name": f"{world.environment.prefix}-backup"}, 2.0))

    found = fails(young)
    assert found["series of containers"].verdict is Verdict.NOT_AVAILABLE, "cAdvisor has not looked yet"


def test_a_series_that_a_rule_reads_and_nobody_exposes_fails_with_the_alerts_that_are_mute() -> None:
    found = fails(lambda world: world.lose("node_filesystem_avail_bytes"), "series of rules")
    why = found["series of rules"].why
    assert "node_filesystem_avail_bytes (HostDiskLow" in why or "HostDisk" in why, why
    found = fails(lambda world: world.lose("backup_size_bytes"), "series of rules")
    assert "backup_size_bytes" in found["series of rules"].why


def test_a_series_that_only_panels_read_is_told_and_fails_nothing() -> None:
    world = World.whole(environment())
    of_rules = series.of_rules(world.environment, world.parts)
    texts = [text for spec in world.parts for name, text in spec.files.items() if name.startswith("dashboards/")]
    only = next(
        name
        for name in series.of_dashboards(world.environment, world.parts, texts)
        if name not in of_rules and name.startswith("node_")
    )
    found = fails(lambda world: world.lose(only))
    assert found["series of dashboards"].verdict is Verdict.NOT_AVAILABLE
    assert only in found["series of dashboards"].why


def test_what_is_missing_because_something_is_down_is_told_once_where_it_is_down() -> None:
    def down(world: World) -> None:
        world.lose("node_filesystem_avail_bytes")
        world.series[COUNTED].append(({"__name__": "up", "job": "x", "instance": "node-exporter:9100"}, 0.0))

    found = fails(down)
    assert "node-exporter:9100" in found["series of rules"].why


@pytest.mark.parametrize("service", [blackbox_exporter.PUBLIC, blackbox_exporter.EXTERNAL])
def test_an_address_outside_that_is_down_excuses_the_series_of_its_probe_and_no_others(service: str) -> None:
    somebody = {"__name__": "probe_success", "service": service, "instance": "https://example.org"}

    def down(world: World, name: str) -> None:
        world.lose(name)
        world.series[COUNTED].append((somebody, 0.0))

    found = fails(lambda world: down(world, "node_filesystem_avail_bytes"), "series of rules")
    assert "node_filesystem_avail_bytes" in found["series of rules"].why, "an alert is mute, and a deploy passes"
    found = fails(lambda world: down(world, "probe_success"))
    assert found["series of rules"].verdict is Verdict.NOT_AVAILABLE


def test_a_stack_without_a_bucket_or_a_first_backup_lacks_what_these_bring() -> None:
    def new(world: World) -> None:
        world.lose("backup_restore_test_last_success_timestamp_seconds")
        world.lose("backup_size_bytes")
        world.rows["backup"] = replace(world.rows["backup"], uptime_seconds=60)

    fails(new)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (instance, datname) (rate(a_total{b="c}d"}[5m])) / (b:c:rate5m > 1e9)', {"a_total", "b:c:rate5m"}),
        ("absent(pg_up{job='x'}) and on (job) up == 1 unless on () up", {"pg_up", "up"}),
        ("a - a offset 1d > a / 7 or vector(0)", {"a"}),
        ("a * on (x) group_left (y) b", {"a", "b"}),
        ("max_over_time(rate(c_total[$__rate_interval])[1h:1m]) > $limit + ${other} * inf", {"c_total"}),
        ('label_replace(a == 1, "b", "c", "", "")', {"a"}),
        ("histogram_quantile(0.95, sum by (le) (d_bucket))", {"d_bucket"}),
    ],
)
def test_the_series_of_an_expression_are_its_names_and_nothing_else(expression: str, names: set[str]) -> None:
    assert series.named(expression) == names


def test_a_public_address_that_does_not_answer_fails_though_its_probe_runs() -> None:
    address = "https://samokoder.example.org/health"
    found = fails(
        lambda world: world.series.update(probe_success=[({}, 0.0)]),
        f"probe {address}",
        blackboxExporter={"urls": [address]},
    )
    assert "200" in found[f"probe {address}"].why


def test_a_name_without_an_aaaa_record_is_not_available_by_ipv6_and_fails_nothing() -> None:
    name = "probe https://samokoder.example.org/health by IPv6"
    values: dict[str, Any] = {
        "ingress": {"domain": "samokoder.example.org", "email": "a@example.org"},
        "network": {"ipv6": True},
    }

    def asked(*no_address: Any) -> Finding:
        world = World.whole(environment(**values))
        # The first word that is in a question answers it.
        every, world.series = world.series, {}
        world.series['probe_success{instance="https://samokoder.example.org/health",family="IPv6"}'] = [({}, 0.0)]
        world.series.update(every)
        world.series["probe_ip_protocol"] = [*no_address]
        with served(world) as stack:
            (check,) = [each for each in smoke.every(stack) if each.name == name]
            return ask_all([check], seconds=PATIENCE_SECONDS)[0]

    said = asked(({}, 0.0))
    assert said.verdict is Verdict.NOT_AVAILABLE, "the record comes after the setting, and CI would take it back"
    assert "AAAA" in said.why
    assert asked().verdict is Verdict.FAILED, "an address that is silent is a failure"


def test_a_rule_that_is_missing_changed_or_added_fails() -> None:
    def change(world: World) -> None:
        first, second = world.groups[0]["rules"], world.groups[1]["rules"]
        second[-1] = {**second[-1], "duration": 7}
        first.append({"name": "SomebodysOwn", "health": "ok"})
        del world.groups[-1]["rules"][0]

    world = World.whole(environment())
    lost, waits = world.groups[-1]["rules"][0]["name"], world.groups[1]["rules"][-1]["name"]
    why = fails(change, "rules loaded")["rules loaded"].why
    assert all(name in why for name in (lost, waits, "SomebodysOwn"))


def test_a_rule_that_fails_or_was_not_evaluated_fails() -> None:
    def broken(world: World) -> None:
        world.groups[0]["rules"][0].update(health="err", lastError="many-to-many matching")

    assert "many-to-many" in fails(broken, "rules evaluated")["rules evaluated"].why

    def waiting(world: World) -> None:
        world.groups[0]["rules"][0]["health"] = "unknown"

    assert "not evaluated yet" in fails(waiting, "rules evaluated")["rules evaluated"].why


@pytest.mark.parametrize(
    ("exporter", "was", "is_now", "check", "why"),
    [
        ("postgres-exporter", "pg_up 1", "pg_up 0", "metrics postgres", "cannot log in"),
        ("postgres-exporter", "connections 100", "connections 20", "metrics postgres", "is 20, not 100 as declared"),
        ("postgres-exporter", "} 9000000", "} 0", "metrics postgres", "pg_database_size_bytes is 0"),
        ("postgres-exporter", "numbackends", "others", "metrics postgres", "missing: pg_stat_database_numbackends"),
        ("redis-exporter", "redis_up 1", "redis_up 0", "metrics redis", "cannot log in"),
        ("redis-exporter", "replies 0", "replies 8", "metrics redis", "refused commands of its own append-only file"),
        ("redis-exporter", "bytes 2000000", "bytes 0", "metrics redis", "redis_memory_used_bytes is 0"),
        ("redis-exporter", "max_bytes 2", "max_bytes 1", "metrics redis", "as declared"),
    ],
)
def test_a_metric_with_an_implausible_value_fails_though_its_name_is_there(
    exporter: str, was: str, is_now: str, check: str, why: str
) -> None:
    def change(world: World) -> None:
        assert was in world.metrics[exporter]
        world.metrics[exporter] = world.metrics[exporter].replace(was, is_now)

    assert why in fails(change, check)[check].why


def test_one_collection_of_the_exporter_that_took_too_long_fails_nothing() -> None:
    world = World.whole(environment())
    page = world.metrics["postgres-exporter"]
    world.slow_once["postgres-exporter"] = page.replace("pg_database_size_bytes", "others")
    with served(world) as asked:
        judged = [check for check in metrics_checks(asked) if check.name == "metrics postgres"]
        (found,) = ask_all(judged, seconds=PATIENCE_SECONDS)
    assert found.verdict is Verdict.PASSED, f"a deploy would go back since a host was busy for a second: {found.why}"


def test_a_metric_of_the_api_that_is_missing_or_below_0_fails() -> None:
    def missing(world: World) -> None:
        del world.series['instance="api-1:'][0]

    assert "missing: samokoder_http_requests_total" in fails(missing, "metrics api-1")["metrics api-1"].why

    def negative(world: World) -> None:
        series = world.series['instance="api-2:']
        series[0] = (series[0][0], -1.0)

    assert "samokoder_http_requests_total" in fails(negative, "metrics api-2")["metrics api-2"].why


def test_a_managed_database_and_redis_are_judged_by_what_is_known_of_them() -> None:
    world = World.whole(environment("managed", unavailable=["grafana"]))
    names = ("metrics postgres", "metrics redis")
    assert "postgres" not in world.rows, "there is no container of ours to need"
    with served(world) as asked:
        judged = [check for check in metrics_checks(asked) if check.name in names]
        well = {each.check: each.verdict for each in ask_all(judged, seconds=PATIENCE_SECONDS)}
        world.metrics = {name: text.replace("_up 1", "_up 0") for name, text in world.metrics.items()}
        away = {each.check: each.verdict for each in ask_all(judged, seconds=PATIENCE_SECONDS)}
    assert (well, away) == (dict.fromkeys(names, Verdict.PASSED), dict.fromkeys(names, Verdict.FAILED))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("redis_unexpected_error_replies 0", "refused nothing of its own file"),
        ("redis_unexpected_error_replies 7", "7 commands of its own file, or of its replicas.*Ask its provider"),
        ("redis_expired_keys 1", "does not count"),
    ],
)
def test_what_a_managed_redis_has_refused_of_its_own_file_is_told_and_fails_nothing(page: str, said: str) -> None:
    world = World.whole(environment("managed", unavailable=["grafana"]))
    counter = f"# TYPE {page.split(maxsplit=1)[0]} counter\n{page}\n"
    world.metrics["redis-exporter"] = f"redis_up 1\nredis_connected_clients 5\n{counter}"
    with served(world) as asked:
        (found,) = ask_all(
            [each for each in metrics_checks(asked) if each.name == "metrics redis"], seconds=PATIENCE_SECONDS
        )
    assert found.verdict is Verdict.PASSED, "its replicas' errors are no fault of this stack"
    assert re.search(said, found.why), found.why


def test_receivers_that_are_not_the_declared_ones_fail() -> None:
    def change(world: World) -> None:
        document = yaml_document(world.config)
        del next(each for each in document["receivers"] if each["name"] == "on-call")["email_configs"]
        world.config = yaml.safe_dump(document)

    assert "on-call" in fails(change, "alertmanager receivers")["alertmanager receivers"].why, "a name is not enough"


def test_an_alertmanager_that_prometheus_does_not_reach_fails() -> None:
    found = fails(lambda world: setattr(world, "watchdog_age", timedelta(minutes=9)), "alertmanager gets alerts")
    said = re.search(r"(\d+) s ago", found["alertmanager gets alerts"].why)
    assert said
    assert int(said[1]) in range(530, 600), "how long nobody has been told"


def test_each_fault_of_grafana_fails_its_own_check() -> None:
    fails(lambda world: world.status.update({("grafana", "/api/user"): 401}), "grafana login")
    found = fails(lambda world: world.datasource.update(status="ERROR", message="refused"), "grafana datasource")
    assert "refused" in found["grafana datasource"].why
    found = fails(lambda world: world.dashboards.remove("samokoder-backups"), "grafana dashboards")
    assert found["grafana dashboards"].why == "missing: samokoder-backups"


def test_a_backup_that_is_too_old_or_was_never_made_fails() -> None:
    def old(world: World) -> None:
        world.series['kind="dump"'] = [({}, 27 * 3600.0)]

    assert "27.0 h old" in fails(old, "backup dump")["backup dump"].why

    def never(world: World) -> None:
        world.series['kind="base"'] = []

    fails(never, "backup base")
    failed = fails(
        lambda world: world.series.update(backup_last_exit_code=[({}, 1.0)]),
        *("backup base", "backup dump", "backup redis"),
    )
    assert "last run failed" in failed["backup dump"].why, "a good one from yesterday hides what fails today"


OFFSITE = {"offsite": {"endpoint": "https://s3.example.org", "bucket": "samokoder-backups"}}


def test_a_copy_that_does_not_reach_the_bucket_fails_and_without_a_bucket_nothing_is_asked() -> None:
    keys: dict[str, Any] = {name: {"secure": f"v1:{name}"} for name in ("s3AccessKeyId", "s3SecretAccessKey")}

    def whole(change: Callable[[World], object], *names: str) -> dict[str, Finding]:
        return fails(change, *names, backup=OFFSITE, **keys)

    assert "0.2 h old" in whole(lambda _: None)["backup offsite"].why

    old = whole(lambda world: world.series.update({OFFSITE_LAST: [({}, 7 * 3600.0)]}), "backup offsite")
    assert "7.0 h old; 6 h are allowed (samokoder:alerts.backupOffsiteHours)" in old["backup offsite"].why
    refused = whole(lambda world: world.series.update({OFFSITE_FAILS: [({}, 1.0)]}), "backup offsite")
    assert "do not reach the bucket" in refused["backup offsite"].why
    never = whole(lambda world: world.series.update({OFFSITE_LAST: []}), "backup offsite")
    assert "there is none" in never["backup offsite"].why

    def fresh(world: World) -> None:
        world.series[OFFSITE_LAST] = []
        world.rows["backup"] = replace(world.rows["backup"], uptime_seconds=60)

    assert whole(fresh)["backup offsite"].verdict is Verdict.NOT_AVAILABLE, "the first backup may still be made"
    assert "backup offsite" not in fails(lambda _: None), "a line about what nobody has asked for"


def test_before_the_first_backup_nothing_can_be_said() -> None:
    def fresh(world: World) -> None:
        world.series['kind="base"'] = []
        world.rows["backup"] = replace(world.rows["backup"], uptime_seconds=60)

    found = fails(fresh)
    assert found["backup base"].verdict is Verdict.NOT_AVAILABLE


def test_what_is_read_back_otherwise_fails_and_is_removed_all_the_same() -> None:
    world = World.whole(environment())
    world.mistakes = True
    found = findings(world)
    assert set(of(found, Verdict.FAILED)) == {"public entry: write, read"}
    assert world.users == set(), "a failed check leaves no litter either"


def test_turns_in_which_nobody_can_log_in_leave_one_account_and_the_turn_that_can_removes_it() -> None:
    world = World.whole(environment())
    world.status["ingress", "/auth/login"] = 500
    with served(world) as asked:
        for _ in range(3):
            findings = {each.check: each for each in ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)}
            assert findings["public entry: write, read"].verdict is Verdict.FAILED
        assert len(world.users) == 1, "`--wait 600` would leave hundreds"
        del world.status["ingress", "/auth/login"]
        findings = {each.check: each for each in ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)}
    assert findings["public entry: write, read"].verdict is Verdict.PASSED, findings
    assert world.users == set()


def test_a_worker_that_can_do_no_job_fails_by_its_name_and_nothing_stays() -> None:
    world = World.whole(environment())
    world.series["worker_queue_depth"], world.series["worker_jobs_total"] = [({}, 5.0)], [({}, 0.0)]
    for states, why in (
        (["queued"], "the worker has not done a job within 0.2 s: it is queued (make logs PART=worker)"),
        (["running"], "it is running"),
        (["queued", "failed"], "the worker has ended a job as failed: failed: InvalidPasswordError (make logs"),
    ):
        world.states = states
        found = findings(world)
        assert set(of(found, Verdict.FAILED)) == {JOB}, "the entry serves: one cause is one failure"
        assert why in found[JOB].why
        assert (world.users, world.projects) == (set(), {})


def test_a_worker_that_does_its_jobs_and_has_many_of_them_is_no_failure() -> None:
    def busy(world: World) -> None:
        world.states = ["queued"]
        world.series["worker_queue_depth"], world.series["worker_jobs_total"] = [({}, 40.0)], [({}, 7.0)]

    found = fails(busy)
    assert found[JOB].verdict is Verdict.NOT_AVAILABLE, "a good deploy of a busy service would go back"
    assert "40 jobs are in the queue, and the worker has done 7 in the last minute" in found[JOB].why


@pytest.mark.parametrize("states", [["queued"], ["running"]])
def test_a_worker_that_has_done_jobs_once_and_does_none_now_fails_however_many_wait(states: list[str]) -> None:
    world = World.whole(environment())
    world.states = states
    done = 'worker_jobs_total{status="complete"}'
    world.series = {f"increase({done}[1m])": [], done: [({}, 700.0)], **world.series}
    world.series["worker_queue_depth"] = [({}, 40.0)]
    found = findings(world)
    assert set(of(found, Verdict.FAILED)) == {JOB}, "its database password is stale since, and a deploy would be good"


def test_an_entry_that_fails_says_nothing_of_the_worker() -> None:
    found = fails(lambda world: world.status.update({("ingress", "/auth/me"): 500}), "public entry: write, read")
    assert found[JOB].verdict is Verdict.NOT_AVAILABLE


def test_a_check_that_failed_and_then_meets_the_limit_of_requests_has_failed_still() -> None:
    world = World.whole(environment())
    world.states = ["failed"]
    world.series["worker_queue_depth"], world.series["worker_jobs_total"] = [({}, 5.0)], [({}, 0.0)]
    with served(world) as asked:
        turns = [smoke.standing([], ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS))]
        world.status["ingress", "/auth/register"] = 429
        turns.append(smoke.standing(turns[-1], ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)))
        world.series["worker_jobs_total"] = [({}, 1.0)]
        turns.append(smoke.standing(turns[-1], ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)))
        world.status.clear()
        world.states = ["done"]
        turns.append(smoke.standing(turns[-1], ask_all(list(smoke.every(asked)), seconds=PATIENCE_SECONDS)))
    failed = [[each.check for each in turn if each.verdict is Verdict.FAILED] for turn in turns]
    assert failed == [[JOB], [JOB], [], []], "`--wait` would turn a bad deploy into a good one by asking often"
    assert "the worker has done 1" in next(each.why for each in turns[2] if each.check == JOB), "it has jobs to do"


def test_an_application_that_keeps_the_account_fails() -> None:
    fails(lambda world: setattr(world, "keeps", True), "public entry: write, read")


def as_user(*, me: int = 200, job: str = "done", gone: int | None = 204) -> Said:
    """What the smoke test finds as a user. gone: the answer to the removal; None: the connection is lost by then."""

    def answer(request: httpx.Request) -> httpx.Response:
        match request.method, request.url.path:
            case "POST", "/auth/register":
                return httpx.Response(201)
            case "POST", "/auth/login":
                return httpx.Response(200, json={"access_token": "token"})
            case "GET", "/auth/me":
                return httpx.Response(me, json={"email": "a"})
            case "POST", "/projects":
                return httpx.Response(201, json={"job": {"id": "j", "state": job, "result": "of the worker"}})
        if gone is None:
            raise httpx.ConnectError("the connection is lost")
        return httpx.Response(gone)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        return write_and_read(client, "http://api.test", {"email": "a", "password": "p"}, seconds=1)


def test_an_account_that_cannot_be_removed_hides_nothing_that_failed_before() -> None:
    with pytest.raises(FailedError, match="GET /auth/me answers 500"):
        as_user(me=500, gone=None)
    for gone, error, why in ((500, FailedError, "DELETE /auth/me answers 500"), (None, httpx.ConnectError, "is lost")):
        said = as_user(job="failed", gone=gone)
        with pytest.raises(FailedError, match="ended a job as failed: of the worker"):
            said.job()
        with pytest.raises(error, match=why):
            said.account()


def test_a_limit_of_requests_that_is_used_up_is_no_failure() -> None:
    def limited(world: World) -> None:
        world.status["ingress", "/auth/register"] = 429

    found = fails(limited)
    assert found["public entry: write, read"].verdict is Verdict.NOT_AVAILABLE


def test_a_password_that_is_not_the_generated_one_fails() -> None:
    world = World.whole(environment())
    with served(world) as asked:
        others = replace(asked, passwords=lambda: dict.fromkeys(PASSWORDS, "another"))
        found = {each.check: each for each in ask_all(list(smoke.every(others)), seconds=PATIENCE_SECONDS)}
    assert {"page prometheus", "page alertmanager", "grafana login"} <= set(of(found, Verdict.FAILED))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 30 days, and its key."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    name = "samokoder.example.org"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} -addext subjectAltName=DNS:{name} "
        f"-keyout {file}.key -out {file}.crt".split(),
        check=True,
        capture_output=True,
    )
    file.write_text(Path(f"{file}.key").read_text() + Path(f"{file}.crt").read_text())
    return file


def test_what_is_left_of_a_certificate_is_of_the_one_that_the_server_shows(authority: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    server = TCPServer(("127.0.0.1", 0), BaseRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that does not trust it goes away
    with serving(server):
        port = server.server_address[1]
        trusting = ssl.create_default_context(cafile=f"{authority}.crt")
        left = pages.certificate_left("127.0.0.1", port, "samokoder.example.org", trusting, 5)
        assert 29 < left.days <= 30
        assert 99 < left.percent <= 100, "it has just been made"
        with pytest.raises(FailedError, match="nobody trusts"):
            pages.certificate_left("127.0.0.1", port, "samokoder.example.org", ssl.create_default_context(), 5)
        with pytest.raises(FailedError, match="nobody trusts"):
            pages.certificate_left("127.0.0.1", port, "another.example.org", trusting, 5)
    with pytest.raises(FailedError, match="does not answer by TLS"):
        pages.certificate_left("127.0.0.1", port, "samokoder.example.org", trusting, 5)


@pytest.mark.parametrize(
    ("days", "life", "verdict"),
    [
        (60, 90, Verdict.PASSED),
        (17, 90, Verdict.FAILED),
        # Just before Caddy renews it, which it does at a third.
        (15, 45, Verdict.PASSED),
        (8, 45, Verdict.FAILED),
        (2.3, 6.7, Verdict.PASSED),
        (1, 6.7, Verdict.FAILED),
        (1 / 6, 0.5, Verdict.PASSED),
        # One that people order once a year.
        (60, 365, Verdict.PASSED),
        (20, 365, Verdict.FAILED),
    ],
)
def test_a_certificate_that_is_not_renewed_in_time_fails_however_short_its_life_is(
    days: float, life: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = pages.Left(days=days, percent=100 * days / life)
    monkeypatch.setattr(pages, "certificate_left", lambda *_: left)
    world = World.whole(environment(ingress={"domain": "samokoder.example.org"}))
    with served(world) as asked:
        (found,) = ask_all(list(certificate_check(asked)), seconds=PATIENCE_SECONDS)
    assert found.verdict is verdict, found.why


def test_a_stack_that_is_not_up_is_one_message_and_no_list_of_failures(tmp_path: Path) -> None:
    with engine_at(FakeEngine()) as host:
        workspace = Workspace(home=tmp_path, isolated=True, extra_config={"samokoder:dockerHost": host})
        with pytest.raises(ProjectError, match="staging is not up: make up"):
            smoke.smoke(workspace)


def waited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *turns: list[Finding], wait: float
) -> tuple[Report, list[float], int]:
    """Test with a clock that waiting alone moves. turns: what is found; the last stays. With the waits and turns."""
    now, waits, left = [0.0], list[float](), list(turns)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(smoke, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(smoke, "live_status", lambda _: [PartStatus(part="api-1", state="running", health="healthy")])
    monkeypatch.setattr("operations.engine.reach.opened", lambda _: contextlib.nullcontext(lambda _: ""))
    monkeypatch.setattr(smoke, "every", lambda _: [])
    monkeypatch.setattr(smoke, "ask_all", lambda *_, **__: left.pop(0) if len(left) > 1 else left[0])
    found = smoke.smoke(Workspace(home=tmp_path, isolated=True), wait=wait)
    return found, waits, len(waits) + 1


def finding(verdict: Verdict, why: str = "because") -> Finding:
    return Finding(check=JOB, verdict=verdict, why=why)


LIMITED_NOW = [finding(Verdict.NOT_AVAILABLE, f"{LIMITED}; again in 40 s")]


def test_a_check_that_met_the_limit_of_requests_is_made_when_the_limit_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failed, passed = [finding(Verdict.FAILED)], [finding(Verdict.PASSED)]
    found, waits, _ = waited(monkeypatch, tmp_path, LIMITED_NOW, failed, wait=60)
    assert found.failed == [JOB], "the deploy would be good without a job done"
    assert waits[0] == 40, "each try before that may count against the limit"
    found, waits, turns = waited(monkeypatch, tmp_path, LIMITED_NOW, passed, wait=60)
    assert (found.counts["passed"], turns) == (1, 2)
    found, waits, _ = waited(monkeypatch, tmp_path, LIMITED_NOW, wait=60)
    assert (found.counts["not available"], waits) == (1, [40, 40]), "the last turn comes when the limit is over"
    found, waits, _ = waited(monkeypatch, tmp_path, failed, LIMITED_NOW, passed, wait=3)
    assert (found.counts["passed"], waits) == (1, [2, 1]), "a failure is not asked for past the time"
    other = [Finding(check="api", verdict=Verdict.FAILED, why="it starts"), *passed]
    found, waits, _ = waited(monkeypatch, tmp_path, other, LIMITED_NOW, passed, wait=2)
    assert (found.counts["passed"], waits) == (1, [2, 40]), "also where the time was used up by a failure"
    long = [finding(Verdict.NOT_AVAILABLE, f"{LIMITED}; again in 3600 s")]
    assert waited(monkeypatch, tmp_path, long, wait=1)[1] == [65]
    dated = [finding(Verdict.NOT_AVAILABLE, f"{LIMITED}; again in Wed, 21 Oct 2026 07:28:00 GMT s")]
    assert waited(monkeypatch, tmp_path, dated, passed, wait=90)[1] == [60]


def test_nothing_is_waited_for_where_no_time_was_given_or_nothing_can_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert waited(monkeypatch, tmp_path, LIMITED_NOW, wait=0)[1] == []
    away = [finding(Verdict.NOT_AVAILABLE, "not asked: the worker's image is the team's own")]
    assert waited(monkeypatch, tmp_path, away, wait=60)[1] == []


def report(verdict: Verdict) -> Report:
    return smoke.report_of(
        environment(), [Finding(check="container api-1", verdict=verdict, why="because", seconds=0.2)]
    )


def test_the_command_ends_with_1_when_a_check_fails_and_writes_what_programs_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    def tested(_workspace: object, **options: Any) -> Report:
        given.update(options)
        return report(Verdict.FAILED)

    monkeypatch.setattr(smoke, "smoke", tested)
    file = tmp_path / "smoke.xml"
    with pytest.raises(SystemExit) as ended:
        command.main(["smoke", "--json", "--junit", str(file), "--timeout", "3", "--wait", "60"])
    said = capsys.readouterr()
    assert ended.value.code == 1, "a deploy goes back on it"
    assert given == {"seconds": 3, "wait": 60}
    assert json.loads(said.out)["checks"][0]["verdict"] == "failed"
    assert "container api-1 failed" in said.err
    assert '<failure message="because"' in file.read_text()

    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: report(Verdict.NOT_AVAILABLE))
    command.app(["smoke"], standalone_mode=False)
    assert "1 not available" in capsys.readouterr().out


def test_what_fails_after_a_reload_of_the_hosts_firewall_is_told_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_rules, "lost_rules_remark", lambda *_: "Rules are gone: make repair PART=network")
    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: report(Verdict.FAILED))
    with pytest.raises(ProjectError):
        command.app(["smoke"], standalone_mode=False)
    assert "make repair PART=network" in capsys.readouterr().out, "each check has failed, and none says why"
    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: report(Verdict.NOT_AVAILABLE))
    command.app(["smoke"], standalone_mode=False)
    assert "make repair" not in capsys.readouterr().out, "what is well asks for no look at the packet filter"


def test_a_ci_system_has_its_file_whatever_the_look_at_the_packet_filter_ends_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError

    monkeypatch.setattr(engine_rules, "lost_rules_remark", broken)
    monkeypatch.setattr(smoke, "smoke", lambda *_, **__: report(Verdict.FAILED))
    file = tmp_path / "smoke.xml"
    with pytest.raises(RuntimeError):
        command.app(["smoke", "--junit", str(file)], standalone_mode=False)
    assert "<failure" in file.read_text()
