"""The smoke test on the stack that can tell people: whole it passes, and each fault fails its own check.

What no fault of a running stack brings (a rule that fails, a certificate) is tried in
tests/unit/operations/checks/smoke/test_smoke.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from host.ports import free_ports
from operations.checks.report import Report, Verdict
from operations.checks.smoke import smoke
from operations.engine import containers
from operations.engine.commands import execute
from operations.lifecycle.down import destroy_data
from operations.workspace.workspace import Workspace
from stack.common.names import NetworkName
from stack.parts.postgres import spec as postgres
from stack.parts.redis import spec as redis
from stack.settings.environment import Environment
from tests.live.conftest import with_config
from tests.live.test_the_stack import until
from tests.planted import SUPERUSER_PSQL

PATIENCE_SECONDS = 90.0
Break = Callable[[docker.DockerClient, Workspace], AbstractContextManager[Workspace]]


@pytest.fixture(scope="module")
def smoked(alerting: Workspace) -> Workspace:
    """The stack that can tell people, with its first backups; this is the last file that uses it."""
    whole = smoke.smoke(alerting, wait=PATIENCE_SECONDS * 2)
    assert not whole.failed, reasons(whole)
    # That there is no backup yet is no fault of a new stack; what is asked here is asked of one that has them.
    unmade = until(lambda: without_backup(smoke.smoke(alerting)), lambda found: not found, PATIENCE_SECONDS * 2)
    assert not unmade, unmade
    return alerting


def not_available(report: Report) -> dict[str, str]:
    return {each.check: each.why for each in report.findings if each.verdict is Verdict.NOT_AVAILABLE}


def without_backup(report: Report) -> list[str]:
    return [f"{check}: {why}" for check, why in not_available(report).items() if check.startswith("backup")]


def reasons(report: Report) -> str:
    return "\n".join(f"{each.check}: {each.verdict}: {each.why}" for each in report.findings)


def run(container: Container, *words: str, **variables: str) -> str:
    """Run a program in a container and return what it says."""
    status, said = execute(container, words, environment=variables)
    assert status == 0, said
    return said.decode().strip()


def psql(engine: docker.DockerClient, environment: Environment, *statements: str) -> str:
    server = containers.find(engine, environment, "postgres")
    words = [word for statement in statements for word in ("-c", statement)]
    return run(server, *SUPERUSER_PSQL, "-d", "samokoder", "-XAt", "-v", "ON_ERROR_STOP=1", *words)


def test_a_whole_stack_passes_at_once_and_is_left_as_it_was(
    smoked: Workspace, engine: docker.DockerClient, record_property: Callable[[str, object], None]
) -> None:
    environment = smoked.settings()
    count = "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM projects WHERE owner_id IS NOT NULL)"
    before = psql(engine, environment, count)
    began = time.monotonic()
    report = smoke.smoke(smoked)
    seconds = time.monotonic() - began
    assert not report.failed, reasons(report)
    assert psql(engine, environment, count) == before == "0", "each run would add to what is stored"
    skipped = set(not_available(report))
    named = {"grafana login", "grafana datasource", "grafana dashboards", "container grafana"}
    assert skipped == (named if "grafana" in environment.absent else set()), reasons(report)
    slowest = sorted(report.findings, key=lambda each: -each.seconds)[:3]
    told = ", ".join(f"{each.check} {each.seconds:.2f} s" for each in slowest)
    record_property("Smoke test", f"{len(report.findings)} checks in {seconds:.1f} s; the slowest: {told}")


@contextmanager
def stopped(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
    container = containers.find(engine, workspace.settings(), "worker")
    container.stop()
    try:
        yield workspace
    finally:
        container.start()


@contextmanager
def paused(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
    container = containers.find(engine, workspace.settings(), "node-exporter")
    container.pause()
    try:
        yield workspace
    finally:
        container.unpause()


def off_network(part: str, network: NetworkName) -> Break:
    """Take a part from a network: its container stays well, and others do not reach it there."""

    @contextmanager
    def broken(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
        environment = workspace.settings()
        container = containers.find(engine, environment, part)
        (its,) = engine.networks.list(names=[f"^{environment.prefix}-{network}$"])
        its.disconnect(container)
        try:
            yield workspace
        finally:
            its.connect(container, aliases=[part])

    return broken


def statement(broken: str, mended: str, *more: str) -> Break:
    """Break something in the database."""

    @contextmanager
    def do(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
        psql(engine, workspace.settings(), broken, *more)
        try:
            yield workspace
        finally:
            psql(engine, workspace.settings(), mended)

    return do


@contextmanager
def smaller_redis(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
    server = containers.find(engine, workspace.settings(), "redis")
    password = workspace.open().secrets()["redis-keeper"]

    def command(user: str, login: str, *words: str) -> None:
        assert run(server, "redis-cli", "--user", user, *words, REDISCLI_AUTH=login) == "OK"

    def resize(mib: int) -> None:
        # The keeper may do nothing but make users: so it makes one for a moment.
        command(redis.KEEPER_USER, password, "ACL", "SETUSER", "fault", "on", f">{password}", "+config|set")
        command("fault", password, "CONFIG", "SET", "maxmemory", f"{mib}mb")
        command(redis.KEEPER_USER, password, "ACL", "SETUSER", "fault", "reset")

    resize(64)
    try:
        yield workspace
    finally:
        resize(workspace.settings().settings.redis.maxmemory_mib)


@contextmanager
def failed_dump(engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
    """Let the backup server believe that its last dump failed."""
    server = containers.find(engine, workspace.settings(), "backup")
    change = "from samokoder_backup import state; state.record('dump', {{'exit': {}}})"
    run(server, "python", "-c", change.format(1))
    try:
        yield workspace
    finally:
        run(server, "python", "-c", change.format(0))


def declared(**settings: Any) -> Break:
    """Declare something that was not brought up."""

    @contextmanager
    def do(_engine: docker.DockerClient, workspace: Workspace) -> Iterator[Workspace]:
        yield with_config(workspace, {f"samokoder:{name}": values for name, values in settings.items()})

    return do


#: Its own code would throw as well: the worker is well, and can write nothing of what it has done.
THROW = """CREATE FUNCTION thrown() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'tomorrow'; END $$"""
THROWING = "CREATE TRIGGER thrown BEFORE UPDATE OF skeleton ON projects FOR EACH ROW EXECUTE FUNCTION thrown()"
EXPORTER = postgres.EXPORTER_ROLE
KICKED = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{EXPORTER}'"


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (stopped, "container worker"),
        (paused, "container node-exporter"),
        (declared(frontend={"port": free_ports(1)[0]}), "page frontend"),
        (off_network("backup", NetworkName.MONITORING), "target backup:9188"),
        (
            statement(f"ALTER ROLE {EXPORTER} NOLOGIN", f"ALTER ROLE {EXPORTER} LOGIN", KICKED),
            "metrics postgres",
        ),
        (smaller_redis, "metrics redis"),
        (
            statement("ALTER TABLE users RENAME TO nobodies", "ALTER TABLE nobodies RENAME TO users"),
            "public entry: write, read",
        ),
        (statement(THROW, "DROP FUNCTION thrown CASCADE", THROWING), "job: queue, worker, database"),
        (failed_dump, "backup dump"),
        (declared(alerts={"waitFactor": 0.5}), "rules loaded"),
        (declared(alertmanager={"email": None}), "alertmanager receivers"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_fault_fails_exactly_the_check_that_is_about_it(
    smoked: Workspace, engine: docker.DockerClient, fault: Break, check: str
) -> None:
    with fault(engine, smoked) as workspace:
        # Prometheus looks every five seconds; on a busy machine another part may be slow once.
        end = time.monotonic() + PATIENCE_SECONDS
        while (report := smoke.smoke(workspace)).failed != [check] and time.monotonic() < end:
            time.sleep(2)
        assert report.failed == [check], reasons(report)
    mended = smoke.smoke(smoked, wait=PATIENCE_SECONDS)
    assert not mended.failed, f"the fault is over:\n{reasons(mended)}"


def test_a_server_that_takes_much_with_it_is_told_once_and_its_victims_by_what_they_say(
    smoked: Workspace, engine: docker.DockerClient
) -> None:
    server = containers.find(engine, smoked.settings(), "prometheus")
    server.stop()
    try:
        report = smoke.smoke(smoked)
        assert report.failed == ["container prometheus"], reasons(report)
        assert "rules loaded" in not_available(report), "nobody can say"
        assert json.loads(json.dumps(report.as_json()))["ok"] is False
    finally:
        server.start()
    mended = smoke.smoke(smoked, wait=PATIENCE_SECONDS * 2)
    assert not mended.failed, reasons(mended)


def test_destroy_data_leaves_nothing_of_the_environment(smoked: Workspace, engine: docker.DockerClient) -> None:
    """The last one on this stack, and for the tests that follow elsewhere two cores have enough to do."""
    prefix = f"{smoked.settings().prefix}-"
    edge = engine.networks.get(f"{prefix}{NetworkName.EDGE}")
    for stranger, its in edge.attrs["Containers"].items():
        if not its["Name"].startswith(prefix):
            edge.disconnect(stranger, force=True)  # whom it notifies: no part, so its network could not be removed
    removed = destroy_data(smoked, interactive=False)
    assert f"{prefix}postgres-data" in removed
    assert not containers.of_environment(engine, smoked.name)
    left = [*engine.volumes.list(filters={"name": f"^{prefix}"}), *engine.networks.list(filters={"name": f"^{prefix}"})]
    assert not left, [each.attrs for each in left]
