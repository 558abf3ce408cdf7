"""Restart of a part, and commands in its container."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.data.restore import journal
from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from operations.engine import session
from operations.errors import ProjectError
from operations.lifecycle import restart as restarting
from operations.workspace import known, lock
from operations.workspace.workspace import Workspace
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.parts.api import contract
from stack.settings.app import Application
from tests.described import specs
from tests.recording import DIGEST, environment_of


@dataclass
class Engine:
    """An engine with a container of each of these parts, and how healthy it is before and after a restart."""

    before: dict[str, str]
    after: dict[str, str] = field(default_factory=dict)
    done: list[tuple[str, int]] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    entrypoint: Sequence[str] | None = None

    def client(self) -> Any:
        return SimpleNamespace(containers=self, close=lambda: None)

    def list(self, **words: Any) -> list[Any]:
        self.asked.append(words["filters"])
        return [self.container(part) for part in self.before]

    def container(self, part: str) -> Any:
        state = {"Running": True, "Health": {"Status": self.before[part]}}

        def restart(*, timeout: int) -> None:
            self.done.append((part, timeout))
            state["Health"] = {"Status": self.after.get(part, "healthy")}

        config = {"StopTimeout": 45 if part.startswith("api") else None, "Entrypoint": self.entrypoint}
        attrs = {"State": state, "Config": config}
        return SimpleNamespace(
            attrs=attrs,
            labels={PART_LABEL: part},
            name=part,
            status="running",
            reload=lambda: None,
            restart=restart,
        )


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    class Held:
        def __init__(self, given: Workspace, doing: str) -> None:
            assert doing == "restart"
            self.given = given

        def __enter__(self) -> Workspace:
            return self.given

        def __exit__(self, *_: object) -> None:
            """Give it back."""

    monkeypatch.setattr(lock, "held", Held)
    declared = restarting._wait_seconds
    # No test waits for what stays sick.
    monkeypatch.setattr(restarting, "_wait_seconds", lambda environment, part: min(0, declared(environment, part)))
    return Workspace(home=tmp_path)


def on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: engine.client())
    return engine


def test_replicas_are_restarted_one_after_the_other_each_with_its_own_time_to_end(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on(Engine({"api-1": "healthy", "api-2": "healthy", "worker": "healthy"}), monkeypatch)
    assert restarting.restart(workspace, "api") == ["api-1", "api-2"]
    assert engine.done == [("api-1", 45), ("api-2", 45)], "the engine's own 10 s would kill what still drains"
    assert all(each == {"label": f"{ENVIRONMENT_LABEL}=staging"} for each in engine.asked), "another environment's"


def test_a_sick_replica_comes_before_the_one_that_serves_and_where_it_stays_sick_that_one_is_left_alone(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"api-1": "healthy", "api-2": "unhealthy"}
    engine = on(Engine(there, after={"api-2": "unhealthy"}), monkeypatch)
    with pytest.raises(ProjectError, match=r"api-2 is not healthy.*make logs PART=api-2\. Not restarted: api-1"):
        restarting.restart(workspace, "api")
    assert [part for part, _ in engine.done] == ["api-2"], "the last replica that serves was stopped"


def test_nothing_is_stopped_for_a_part_that_is_not_there_or_not_declared(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on(Engine({"worker": "healthy", "old": "healthy"}), monkeypatch)
    with pytest.raises(ProjectError, match="There are: old, worker"):
        restarting.restart(workspace, "workers")
    with pytest.raises(ProjectError, match="not declared"):
        restarting.restart(workspace, "old")
    assert not engine.done


def test_no_server_is_started_on_half_a_database(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = on(Engine({"postgres": "unhealthy"}), monkeypatch)
    half = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", touched=True)
    half.write(journal.journal_path(workspace))
    with pytest.raises(ProjectError, match="make restore"):
        restarting.restart(workspace, "postgres")
    assert not engine.done, "PostgreSQL would start on data that is half replaced"


def test_a_command_runs_in_the_first_replica_and_its_status_is_passed_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    del workspace
    engine = Engine({"api-2": "healthy", "api-1": "healthy"})
    monkeypatch.setattr(known, "connect", lambda *_, **__: engine.client())
    ran: list[Any] = []

    def run(_: object, container: Any, words: list[str]) -> int:
        ran.append((container.name, words))
        return 3

    monkeypatch.setattr(session, "run", run)
    answer = CliRunner().invoke(command.app, ["exec", "api", "--", "ls", "-l", "--env"])
    assert answer.exit_code == 3, "a script must see that the command failed"
    assert ran == [("api-1", ["ls", "-l", "--env"])], "what stands after -- is the command's"


@pytest.mark.parametrize("part", ["api-1", "worker", "migrations"])
@pytest.mark.parametrize("way", ["environment", "files"])
def test_a_command_has_the_secrets_that_its_containers_own_process_has(
    part: str, way: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    del workspace
    application = {"image": f"registry.example.org/samokoder/api:1@{DIGEST}", "secretsAs": way}
    values = {"api": application, "worker": application, "migrations": {"command": ["alembic", "upgrade", "head"]}}
    (spec,) = [each for each in specs(environment_of("staging", values)) if each.part == part]
    engine = Engine({part: "healthy"}, entrypoint=spec.entrypoint or None)
    monkeypatch.setattr(known, "connect", lambda *_, **__: engine.client())
    ran: list[list[str]] = []

    def run(_: object, __: object, words: list[str]) -> int:
        ran.append(words)
        return 0

    monkeypatch.setattr(session, "run", run)
    answer = CliRunner().invoke(command.app, ["exec", part, "--", "alembic", "current"])
    assert answer.exit_code == 0, answer.output
    settings = Application.model_validate(application)
    assert ran == [[*contract.started(settings, "alembic", "current")]], "it ends without its settings"


@pytest.mark.parametrize("entrypoint", [["python"], ["python", "-I", "-S", "-c", "print()"], ["tini", "--"], []])
def test_an_images_own_entrypoint_is_left_alone(entrypoint: list[str]) -> None:
    assert contract.start_of(entrypoint) == ()


def test_a_session_names_the_engine_and_takes_no_other_user_or_right(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/docker")

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    container: Any = SimpleNamespace(name="samokoder-staging-api-1")
    host = "ssh://deploy@host.example.org"
    assert session.run(host, container, ["id"]) == 0
    assert ran == [["/bin/docker", "--host", host, "exec", "-i", "samokoder-staging-api-1", "id"]]
