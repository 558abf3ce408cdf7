"""Production asks before it is changed, and is refused where nobody can answer; staging goes on without a word."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations import clone
from operations.cli import asking, dry_run
from operations.data.restore import restore as restoring
from operations.delivery.commit_deploy import CommitDeploy
from operations.errors import ProjectError
from operations.lifecycle import down as lifecycle_down
from operations.lifecycle import lost_data
from operations.lifecycle import up as lifecycle_up
from operations.workspace import known, lock
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.secret_rules import CONFIGURED_SECRETS
from tests.recording import ROOT, case_config

CONFIG = {
    f"samokoder:{key}": {"secure": "v1:"} if key in CONFIGURED_SECRETS else value
    for key, value in case_config("prod")[1].items()
}
PRODUCTION = Workspace(environment="prod", extra_config=CONFIG)


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "on_terminal", lambda **_: False)


@pytest.mark.usefixtures("no_terminal")
def test_production_without_a_terminal_is_refused_with_what_to_type_and_goes_on_with_yes() -> None:
    with pytest.raises(ProjectError) as refused:
        asking.agreement(PRODUCTION, "up ARGS=--yes", yes=False)
    for typed in ("make preview ENV=prod", "make up ARGS=--yes ENV=prod"):
        assert typed in str(refused.value), "at 3 a.m. it is copied from here"
    assert asking.agreement(PRODUCTION, "up ARGS=--yes", yes=True) is None


def test_staging_asks_nobody_with_a_terminal_or_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(asking, "on_terminal", lambda there=there, **_: there)
        assert asking.agreement(Workspace(home=tmp_path, isolated=True), "up ARGS=--yes", yes=False) is None


def brought_up(tmp_path: Path, *, outputs: dict[str, Any], retained: bool = False) -> Workspace:
    """prod, whose file has no `production: true`, with the state of its last `up`."""
    stacks = tmp_path / "home/state/.pulumi/stacks/samokoder"
    stacks.mkdir(parents=True)
    volume = {"type": "docker:index/volume:Volume", "urn": "urn::data-postgres", "retainOnDelete": retained}
    resources = [{"type": "pulumi:pulumi:Stack", "urn": "urn", "outputs": outputs}, volume]
    (stacks / "prod.json").write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {}\n")
    return Workspace(environment="prod", home=tmp_path / "home", stack_files=tmp_path, isolated=True)


@pytest.mark.parametrize(
    ("outputs", "retained"),
    [({"production": True}, True), ({}, True)],
    ids=["by its output", "by its volumes, in a state of an older version"],
)
def test_a_yes_does_not_make_a_production_none_whose_file_has_lost_the_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any], retained: bool
) -> None:
    workspace = brought_up(tmp_path, outputs=outputs, retained=retained)
    for terminal, yes in ((False, True), (True, True), (False, False), (True, False)):
        monkeypatch.setattr(asking, "on_terminal", lambda terminal=terminal, **_: terminal)
        with pytest.raises(ProjectError) as refused:
            asking.agreement(workspace, "up ARGS=--yes", yes=yes)
        assert "Pulumi.prod.yaml does not say `samokoder:production: true` any more" in str(refused.value)
        assert "write: samokoder:production: true\n" in str(refused.value)
        assert "NO_PRODUCTION=prod make up ARGS=--yes ENV=prod" in str(refused.value)
    other = replace(workspace, variables={known.NO_PRODUCTION: "shop"})
    with pytest.raises(ProjectError):
        asking.agreement(other, "up ARGS=--yes", yes=True)


def test_who_names_the_production_that_shall_be_none_is_asked_once_more_or_says_yes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = brought_up(tmp_path, outputs={"production": True})
    meant = replace(workspace, variables={known.NO_PRODUCTION: "prod"})
    assert asking.agreement(meant, "up ARGS=--yes", yes=True) is None
    monkeypatch.setattr(asking, "on_terminal", lambda **_: False)
    with pytest.raises(ProjectError, match="NO_PRODUCTION=prod make up ARGS=--yes ENV=prod"):
        asking.agreement(meant, "up ARGS=--yes", yes=False)
    monkeypatch.setattr(asking, "on_terminal", lambda **_: True)
    said: list[str] = []
    monkeypatch.setattr("typer.echo", said.append)
    monkeypatch.setattr("typer.confirm", lambda text, **_: said.append(text))
    agree = asking.agreement(meant, "up ARGS=--yes", yes=False)
    assert agree, "the volumes of production would lose what keeps them, and nobody was asked"
    agree()
    assert "would make it no production" in said[0]
    assert "prod, which is production?" in said[1]


def test_to_take_down_a_production_whose_file_has_lost_the_line_needs_no_word_but_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = brought_up(tmp_path, outputs={"production": True})
    assert asking.agreement(workspace, "down ARGS=--yes", yes=True, removes=True) is None
    monkeypatch.setattr(asking, "on_terminal", lambda **_: True)
    assert asking.agreement(workspace, "down ARGS=--yes", yes=False, removes=True)


def test_an_up_and_pulumis_own_refuse_to_make_a_production_none_before_anything_changes(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = {"type": "docker:index/volume:Volume", "urn": "urn::data-postgres", "retainOnDelete": True}
    run.deployment = lambda: {"resources": [volume]}
    monkeypatch.setattr(lifecycle_up, "refuse_undoing", lambda *_: None)
    monkeypatch.setattr(lifecycle_up, "prepare", lambda _: run)
    for up in (
        lambda: lifecycle_up.bring_up(run.workspace, interactive=False),
        lambda: lifecycle_up.refused_as_up(run.workspace),
    ):
        with pytest.raises(ProjectError, match="NO_PRODUCTION=staging make up"):
            up()
    assert not run.words, "an older file, whose `up` has waited for the lock, made it none"
    lifecycle_up.bring_up(replace(run.workspace, variables={known.NO_PRODUCTION: "staging"}), interactive=False)
    assert [each[0] for each in run.words] == ["up"]


def test_what_was_no_production_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = brought_up(tmp_path, outputs={"production": False})
    monkeypatch.setattr(asking, "on_terminal", lambda **_: True)
    assert asking.agreement(workspace, "up ARGS=--yes", yes=False) is None


def test_with_a_state_in_a_bucket_the_note_of_this_clone_says_that_it_was_production(tmp_path: Path) -> None:
    known.note(Workspace(environment="prod", home=tmp_path / "home", extra_config=CONFIG))
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {}\n")
    away = {"PULUMI_BACKEND_URL": "s3://state"}
    workspace = Workspace(environment="prod", home=tmp_path / "home", stack_files=tmp_path, variables=away)
    assert known.was_production(workspace), "it must be known without a bucket that answers"


@pytest.mark.parametrize(
    "outputs", [{"production": False}, {}], ids=["made none elsewhere", "an `up` that failed at once"]
)
def test_what_the_state_says_is_believed_before_the_note_of_this_clone(tmp_path: Path, outputs: dict[str, Any]) -> None:
    workspace = brought_up(tmp_path, outputs=outputs)
    known.note(replace(workspace, extra_config=CONFIG))
    assert not known.was_production(workspace), "each command of this clone would be refused for ever"
    assert asking.agreement(workspace, "up ARGS=--yes", yes=True) is None


@pytest.mark.usefixtures("no_terminal")
def test_a_command_that_always_asks_goes_on_without_a_terminal_in_staging(tmp_path: Path) -> None:
    workspace = Workspace(home=tmp_path, isolated=True)
    assert asking.agreement(workspace, "deploy ARGS=--yes", yes=False, always=True) is None


ASKS = """\
from types import SimpleNamespace
from operations import clone
from operations.cli import asking
production = SimpleNamespace(settings=SimpleNamespace(production=True))
typed = lambda words: clone.typed("prod", words)
workspace = SimpleNamespace(name="prod", settings=lambda **_: production, typed=typed)
asking.agreement(workspace, "up ARGS=--yes", yes=False)()
print("done")
"""


def test_where_a_pipe_is_in_place_of_a_terminal_nobody_is_asked() -> None:
    words = [sys.executable, "-c", ASKS]
    piped = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, input="y\n")
    assert piped.returncode == 1
    assert "make up ARGS=--yes ENV=prod" in piped.stderr


@pytest.mark.parametrize(("answer", "done"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_at_a_real_terminal_only_a_yes_is_one(answer: bytes, done: bool) -> None:
    master, slave = pty.openpty()
    try:
        os.write(master, answer)
        words = [sys.executable, "-c", ASKS]
        at = subprocess.run(words, cwd=ROOT, stdin=slave, stdout=slave, stderr=subprocess.PIPE, check=False)
        said = os.read(master, 1000).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "prod, which is production?" in said
    assert ("done" in said) is done, at.stderr
    assert (at.returncode == 0) is done


def test_a_question_on_standard_error_is_seen_where_the_output_goes_into_a_pipe() -> None:
    program = "from operations.cli import asking; print(asking.on_terminal(), asking.on_terminal(err=True))"
    master, slave = pty.openpty()
    try:
        words = [sys.executable, "-c", program]
        done = subprocess.run(words, cwd=ROOT, stdin=slave, stderr=slave, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        os.close(master)
        os.close(slave)
    assert done.stdout.split() == ["False", "True"], "`preview --json | jq` of a person makes a state too"


class NoError(Exception):
    """Somebody's no."""


def no() -> None:
    raise NoError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pulumi that notes its words, on an environment whose lock nobody holds."""

    @contextmanager
    def held(workspace: Workspace, *_: object) -> Iterator[Workspace]:
        yield workspace

    words: list[tuple[str, ...]] = []
    workspace = Workspace(home=tmp_path)
    given = SimpleNamespace(
        workspace=workspace,
        words=words,
        deployment=dict,
        settle=lambda _: None,
        backend=SimpleNamespace(url="", origin="", folder=None),
        pulumi=lambda *said, **_: words.append(said),
    )
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(lifecycle_up, "prepared", lambda *_, **__: SimpleNamespace(run=given))
    monkeypatch.setattr(lifecycle_up, "refuse_changed", lambda *_: None)
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: given)
    monkeypatch.setattr(lifecycle_down, "used_by_others", lambda *_: {})
    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(lost_data, "lost_volumes", lambda *_: {})
    monkeypatch.setattr(lifecycle_down, "lost_volumes", lambda *_: {})
    monkeypatch.setattr(lifecycle_up, "live_status", lambda _: [])
    monkeypatch.setattr("operations.network.packet_filter.guard", lambda _: None)
    monkeypatch.setattr("operations.lifecycle.in_the_way.refuse", lambda *_: None)
    monkeypatch.setattr("operations.network.engine_rules.lost_rules_remark", lambda *_: "")
    monkeypatch.setattr("operations.engine.old_images.tidy", lambda *_: None)
    monkeypatch.setattr("operations.network.packet_filter.unguard", lambda _: None)
    return given


def test_after_a_no_nothing_was_changed_and_it_was_shown_what_would_have_been(run: Any) -> None:
    with pytest.raises(NoError):
        lifecycle_up.bring_up(run.workspace, interactive=True, agree=no)
    with pytest.raises(NoError):
        lifecycle_down.take_down(run.workspace, interactive=True, agree=no)
    preview, down = run.words
    assert preview == ("preview",)
    assert "--preview-only" in down
    assert "--exclude-protected" in down, "it would show the data among what goes"


def test_after_a_yes_it_is_done_without_another_preview(run: Any) -> None:
    lifecycle_up.bring_up(run.workspace, interactive=True, agree=lambda: None)
    lifecycle_down.take_down(run.workspace, interactive=True, agree=lambda: None)
    assert [each[0] for each in run.words] == ["preview", "up", "destroy", "destroy"]
    assert not run.workspace.parts_file.exists(), "after `down` no part should be there"
    assert "--skip-preview" in run.words[1], "the person has just looked at it"


def test_what_was_stopped_is_told_before_the_question_and_stays_until_the_answer(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def gone(*_: object, remove: bool = True) -> list[str]:
        asked.append(remove)
        return []

    monkeypatch.setattr(lifecycle_up, "_gone", gone)
    with pytest.raises(NoError):
        lifecycle_up.bring_up(run.workspace, interactive=True, agree=no)
    assert asked == [False], "a container was removed before anybody said yes"


def test_a_lost_volume_is_refused_before_anybody_is_asked(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_data, "lost_volumes", lambda *_: {"prometheus": "a-volume"})
    monkeypatch.setattr(lifecycle_down, "lost_volumes", lambda *_: {"prometheus": "a-volume"})
    monkeypatch.setattr("operations.engine.containers.of_fields", lambda *_: [])
    with pytest.raises(ProjectError, match="Data that was here is gone: prometheus"):
        lifecycle_up.bring_up(run.workspace, interactive=True, agree=lambda: pytest.fail("asked for nothing"))
    assert not run.words


def test_a_deploy_of_ci_says_yes_in_a_way_that_an_older_version_does_not_trip_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[list[str], str]] = []

    def run(words: list[str], *, env: dict[str, str], **_: Any) -> Any:
        ran.append((words, env.get(clone.YES_VARIABLE, "")))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    deploy = CommitDeploy(workspace=Workspace(), run=cast("PulumiRun", None), say=lambda _: None)
    assert not deploy._tried(tmp_path, tmp_path / "smoke.xml", "").fault
    ups = [(words, yes) for words, yes in ran if words[-1] == "up"]
    assert [yes for _, yes in ups] == ["1"], "production would be refused, for no terminal is there"
    assert all("--yes" not in words for words, _ in ups), "the version that it goes back to may have no such option"


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("up", "up ARGS=--yes"),
        ("down", "down ARGS=--yes"),
        ("rotate redis-app", "rotate SECRET=redis-app ARGS=--yes"),
        ("rotate secret-key --retire-now", "rotate SECRET=secret-key ARGS='--yes --retire-now'"),
        ("restore", "restore ARGS=--yes"),
        ("restore --to '2026-11-23 10:05:00+03'", "restore TO='2026-11-23 10:05:00+03' ARGS=--yes"),
        ("restore --backup latest --from offsite", "restore BACKUP=latest FROM=offsite ARGS=--yes"),
    ],
)
def test_what_changes_production_asks_and_the_variable_of_ci_means_yes(
    name: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool] = []
    words = shlex.split(name)

    def agreement(_: object, words: str, *, yes: bool, **_kw: object) -> None:
        assert words == typed, "it is pasted from the refusal"
        given.append(yes)
        raise ProjectError("enough")

    monkeypatch.setattr(asking, "agreement", agreement)
    for variables, expected in (({}, False), ({clone.YES_VARIABLE: "1"}, True)):
        CliRunner().invoke(command.app, words, env=variables)
        assert given.pop() is expected
    CliRunner().invoke(command.app, [*words, "--yes"])
    assert given == [True]


def test_a_restore_of_production_shows_its_steps_before_it_asks_and_a_no_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def restored(*_: object, **__: object) -> None:
        pytest.fail("the servers were stopped although nobody said yes")

    monkeypatch.setattr(asking, "agreement", lambda *_, **__: no)
    monkeypatch.setattr(dry_run, "of_restore", lambda *_, **__: ["[1/8] Can it be restored?"])
    monkeypatch.setattr(restoring, "restore", restored)
    answer = CliRunner().invoke(command.app, ["restore", "--backup", "latest"])
    assert isinstance(answer.exception, NoError)
    assert answer.output == "[1/8] Can it be restored?\n"
