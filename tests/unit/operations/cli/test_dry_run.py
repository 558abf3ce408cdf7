"""--dry-run says what would be done, and does nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.cli import dry_run
from operations.data import backups
from operations.data.restore import restore, steps
from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from operations.engine import containers
from operations.errors import ProjectError
from operations.lifecycle import up as lifecycle_up
from operations.rotation import rotate
from operations.workspace import lock
from operations.workspace.generations import RotationStep
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL
from stack.settings.rotation import Phase
from tests.unit.stack.spec.test_generations import state

SINCE = datetime(2026, 11, 23, tzinfo=UTC)
THERE = [
    backups.ListedBackup(id="base-1", kind="base", finished=SINCE, bytes=1, status="good", since=SINCE, until=None),
    backups.ListedBackup(id="redis-1", kind="redis", finished=SINCE, bytes=1, status="good", since=None, until=None),
]


def changed(*_: object, **__: object) -> None:
    pytest.fail("a look changed something")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An environment with each part, whose engine and lock change nothing."""
    parts = ("postgres", "postgres-roles", "migrations", "api-1", "worker", "redis", "backup")
    found: list[Any] = [SimpleNamespace(labels={PART_LABEL: part}, attrs={"Mounts": []}) for part in parts]
    client = SimpleNamespace(
        volumes=SimpleNamespace(list=lambda **_: [], create=changed),
        containers=SimpleNamespace(list=lambda **_: found, run=changed),
        close=lambda: None,
    )
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: client)
    monkeypatch.setattr(backups, "backups", lambda _: (THERE, []))
    for module, name in ((lock, "held"), (lifecycle_up, "bring_up"), (containers, "stop"), (steps.Restore, "run")):
        monkeypatch.setattr(module, name, changed)
    monkeypatch.setattr(Journal, "write", changed)
    is_at(tmp_path, "secret_key", 1)
    return Workspace(home=tmp_path)


def is_at(home: Path, secret: str, generation: int, phase: Phase = "") -> None:
    """Put the state after an `up` with this step of a rotation into a workspace."""
    folder = home / "state/.pulumi/stacks/samokoder"
    folder.mkdir(parents=True, exist_ok=True)
    latest = state(secret, generation, phase)
    (folder / "staging.json").write_text(json.dumps({"checkpoint": {"latest": latest}}))


def test_a_restore_says_its_steps_who_is_stopped_and_what_is_set_aside(workspace: Workspace) -> None:
    said = dry_run.of_restore(workspace, to="2026-11-23 10:05:00+03")
    text = "\n".join(said)
    assert said[0] == "Would restore: TO='2026-11-23T07:05:00+00:00'"
    assert "Set aside what is in postgres" in text
    assert "Stopped meanwhile: api-1, backup, migrations, postgres, postgres-roles, worker" in text
    assert "what is in samokoder-staging-postgres-data" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"to": "2026-11-22 10:05:00+03"}, "No backup reaches"),
        ({"backup": "base-2"}, "There is no backup 'base-2'"),
        ({}, "No restore was cut off"),
        ({"to": "2026-11-23 10:05:00"}, "time zone"),
    ],
)
def test_what_a_restore_would_refuse_is_refused(workspace: Workspace, words: dict[str, str], why: str) -> None:
    with pytest.raises(ProjectError, match=why):
        dry_run.of_restore(workspace, to=words.get("to", ""), backup=words.get("backup", ""))


def test_what_is_shown_before_production_is_asked_needs_no_backup_server(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "backups", lambda _: pytest.fail("a restore that was cut off has stopped it"))
    assert "Would restore" in dry_run.of_restore(workspace, to="2026-11-23 10:05:00+03", listed=False)[0]


def test_a_restore_that_was_cut_off_says_which_steps_are_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", done=("check", "restore"))
    monkeypatch.setattr(Journal, "read", lambda _: begun)
    said = dry_run.of_restore(workspace)
    assert said[0] == "Goes on with: BACKUP='latest'"
    assert said[1].endswith("Can it be restored? (done before)")


def test_a_rotation_says_each_step_and_what_it_waits_for(workspace: Workspace) -> None:
    said = dry_run.of_rotation(workspace, "secret-key")
    assert [line.partition("]")[0] for line in said[1:-1]] == ["  [1/3", "  [2/3", "  [3/3"]
    assert "once the tokens of the old key have expired" in said[3]
    assert "expired" not in "".join(dry_run.of_rotation(workspace, "secret-key", retire_now=True))
    with pytest.raises(ProjectError, match="is not rotated"):
        dry_run.of_rotation(workspace, "app-secret-key")


def at_step(workspace: Workspace, generation: int, phase: Phase) -> Workspace:
    """The same workspace with the stack file that `rotate` has written after this step."""
    files = workspace.folder / "files"
    files.mkdir(exist_ok=True)
    step = RotationStep(generation=generation, phase=phase)
    (files / "Pulumi.staging.yaml").write_text(rotate.write("config: {}\n", "redis_app", step))
    return replace(workspace, stack_files=files)


def test_a_rotation_that_somebodys_up_has_undone_is_told_from_the_state(workspace: Workspace) -> None:
    workspace = at_step(workspace, 2, "overlap")
    is_at(workspace.folder, "redis_app", 2, "overlap")
    said = dry_run.of_rotation(workspace, "redis-app")
    assert said[0] == "redis-app: going on after 'overlap'. Each step is an `up`:"
    assert len(said) == 3
    is_at(workspace.folder, "redis_app", 1)
    said = dry_run.of_rotation(workspace, "redis-app")
    assert said[0] == (
        "redis-app: somebody's `up` has undone steps of this rotation; going on at 'prepare'. Each step is an `up`:"
    ), "three steps that begin at `prepare` do not go on after 'overlap'"
    assert [line.partition("]")[0] for line in said[1:-1]] == ["  [1/3", "  [2/3", "  [3/3"]


def test_a_rotation_that_would_be_refused_is_refused(workspace: Workspace) -> None:
    is_at(workspace.folder, "redis_app", 5)
    with pytest.raises(ProjectError, match=r"redis-app: generation 5 is there, .* generation 2"):
        dry_run.of_rotation(at_step(workspace, 1, ""), "redis-app")
    with pytest.raises(ProjectError, match="has no secrets yet"):
        dry_run.of_rotation(workspace, "postgres-app")
    (workspace.folder / "state/.pulumi/stacks/samokoder/staging.json").unlink()
    with pytest.raises(ProjectError, match="staging is not up: make up"):
        dry_run.of_rotation(workspace, "redis-app")


@pytest.mark.parametrize("words", [["rotate", "secret-key"], ["restore", "--backup", "latest"]])
def test_the_commands_do_nothing_with_it(
    workspace: Workspace, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    monkeypatch.setattr(rotate, "rotate", changed)
    monkeypatch.setattr(restore, "restore", changed)
    answer = CliRunner().invoke(command.app, [*words, "--dry-run"])
    assert answer.exit_code == 0, answer.output
    assert "Nothing was" in answer.output
