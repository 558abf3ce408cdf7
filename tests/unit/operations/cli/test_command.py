"""The `samokoder` command: usage, exit statuses, messages, and what it renders."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.engine import containers, redaction
from operations.engine.part_status import NOT_AVAILABLE, PartStatus
from operations.errors import ProjectError
from operations.lifecycle import render
from operations.lifecycle.display import LineFilter
from operations.lifecycle.down import RemovableVolume
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL

if TYPE_CHECKING:
    import docker

COMMANDS = (
    *("up", "preview", "down", "destroy-data", "status", "logs", "render", "password", "pulumi", "engine"),
    *("smoke", "test-alert", "check-image", "rotate", "backup", "backups", "restore", "drill", "ci", "sbom"),
    *(
        "hardening",
        "doctor",
        "drift",
        "import-compose",
        "open",
        "tunnel",
        "repair",
        "restart",
        "exec",
        "psql",
        "move-state",
    ),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(command.app, [name, "--help"])

    assert result.exit_code == 0, "help is no error"
    assert "Usage" in result.output, "a person who asks for help gets the usage"


@pytest.mark.parametrize(
    "name", ["smoke", "doctor", "status", "drift", "test-alert", "rotate", "restore", "drill", "check-image"]
)
def test_what_a_program_would_ask_for_comes_as_json_too(name: str) -> None:
    said = CliRunner().invoke(command.app, [name, "--help"], env={"COLUMNS": "200"}).output
    assert "--json" in said, "a script of the team would have to read a table"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--bogus"],
        ["logs", "--tail", "-1"],
        ["render"],
        ["nothing"],
        ["check-image", "it"],
        ["repair"],
        ["check-image", "it", "--kind", "db"],
    ],
)
def test_wrong_usage_ends_with_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(command.app, arguments).exit_code == 2, "a script tells wrong usage from a failure"


def test_an_unknown_environment_ends_with_status_1_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["status", "--env", "stagin"])

    assert ended.value.code == 1, "it failed"
    said = capsys.readouterr().err
    assert "prod, staging" in said, "the environments that there are belong to the message"
    assert "Traceback" not in said, "a typing error is foreseeable"


def test_the_environment_comes_from_ENV_as_make_sets_it(  # noqa: N802 - the variable's name
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENV", "nowhere")

    with pytest.raises(SystemExit):
        command.main(["status"])

    assert "Pulumi.nowhere.yaml" in capsys.readouterr().err, "`make status ENV=nowhere` must mean it"


def test_an_incomplete_production_fails_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("the engine was asked for before the settings were checked")

    monkeypatch.setattr("operations.workspace.workspace.ensure_engine", started)

    with pytest.raises(SystemExit) as ended:
        command.main(["up", "--env", "prod"])

    said = capsys.readouterr().err
    assert ended.value.code == 1, "it failed"
    assert said.count("needs:") >= 2, "all that production still needs is told at once"
    assert "samokoder:telegramBotToken" in said, "by its key"


def test_nothing_is_destroyed_without_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [
        RemovableVolume(name="a-volume", bytes=5 * 2**20),
        RemovableVolume(name="an-old-one", bytes=None, origin="set aside by a restore, 2026-11-23 10:05 UTC"),
    ]
    monkeypatch.setattr("operations.lifecycle.down.data_volumes", lambda _workspace: there)
    monkeypatch.setattr("operations.lifecycle.down.destroy_data", lambda *_, **__: pytest.fail("it was destroyed"))

    without = CliRunner().invoke(command.app, ["destroy-data"])
    wrong = CliRunner().invoke(command.app, ["destroy-data", "--confirm", "prod"])

    assert (without.exit_code, wrong.exit_code) == (2, 2), "data is removed only for its own name"
    for shown in ("a-volume", "5.0 MiB", "an-old-one", "set aside by a restore, 2026-11-23 10:05 UTC"):
        assert shown in without.output, "what would go is shown before the name is asked for"


def test_every_file_of_every_part_is_rendered_without_a_secret(tmp_path: Path) -> None:
    environment = Workspace(extra_config={"samokoder:unavailable": ["grafana"]}).settings(on_this_machine=False)

    written = render.write(environment, tmp_path / "out")

    names = {str(file.relative_to(tmp_path / "out")) for file in written}
    assert "prometheus/prometheus.yml" in names, "each file lies under its part"
    assert any(name.startswith("grafana/") for name in names), "what is not available here is rendered all the same"
    name = "postgres_exporter"
    password = (tmp_path / "out/postgres-exporter/password").read_text(encoding="utf-8")
    assert password == f"<{name}>", "in a secret's place stands its name"


def test_rendering_again_removes_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    environment = Workspace().settings(on_this_machine=False)
    render.write(environment, tmp_path / "out")
    (tmp_path / "out/mine.txt").write_text("mine", encoding="utf-8")
    marker = tmp_path / "out" / render.MARKER
    (tmp_path / "out/gone").mkdir()
    (tmp_path / "out/gone/old.yml").write_text("old", encoding="utf-8")
    marker.write_text(marker.read_text(encoding="utf-8") + "gone/old.yml\n../outside.txt\n", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("outside", encoding="utf-8")

    render.write(environment, tmp_path / "out")

    assert not (tmp_path / "out/gone").exists(), "a file that no part has any more would be checked for ever"
    assert (tmp_path / "out/mine.txt").exists(), "what somebody else put there stays"
    assert (tmp_path / "outside.txt").exists(), "and nothing outside the folder is ever touched"


def test_rendering_refuses_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")

    with pytest.raises(ProjectError, match="not empty"):
        render.write(Workspace().settings(on_this_machine=False), tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"], "nothing was written beside it either"


def test_a_part_that_cannot_be_had_is_neither_healthy_nor_failed() -> None:
    row = PartStatus(part="grafana", state=NOT_AVAILABLE)

    assert not row.ok, "never told as passed"
    assert not row.counts_as_failed, "nor does it fail an environment that is otherwise whole"


@pytest.mark.parametrize(
    ("state", "health"), [("running", "starting"), ("running", "unhealthy"), ("exited", "healthy")]
)
def test_only_a_running_and_healthy_part_is_ok(state: str, health: str) -> None:
    row = PartStatus(part="api", state=state, health=health)

    assert row.counts_as_failed, "`make up` must end in an error when any part is not healthy"


def test_secrets_are_replaced_by_their_names_in_what_is_shown() -> None:
    shown = redaction.without({"short": "abc", "long": "abcdef"}, "password abcdef, then abc")

    assert shown == "password <long>, then <short>", "a log line that holds a password must not reach a terminal"


def test_pulumis_plain_output_is_cut_to_what_tells_something() -> None:
    shown: list[str] = []
    show = LineFilter(shown.append)
    output = """Updating (staging):
@ updating....

 +  pulumi:pulumi:Stack samokoder-staging creating (0s) warning: something
 +  samokoder:app:Api api creating (0s)
 +  docker:index:Network network-app creating (0s)
 +  docker:index:Network network-app created (2s)
 +  docker:index:Container api creating (0s)
 +  docker:index:Container api creating (9s) error: 1 error occurred:
 +  docker:index:Container api **creating failed**
 ~  docker:index:Volume data-redis refresh (0.04s)
    docker:index:Volume data-redis
Diagnostics:
  pulumi:pulumi:Stack (samokoder-staging):
    Traceback (most recent call last):
      File "exec", line 197, in <module>
        loop.run_until_complete(coro)
    KeyboardInterrupt
    error: update failed
  docker:index:Container (api):
    error: the container never became healthy
Resources:
    + 1 created"""
    for line in output.replace("data-redis\nD", "data-redis \nD").splitlines():
        show(line)

    assert [line.strip() for line in shown if line] == [
        "Updating (staging):",
        "+  docker:index:Network network-app created (2s)",
        "+  docker:index:Container api creating (0s)",
        "+  docker:index:Container api **creating failed**",
        "Diagnostics:",
        "pulumi:pulumi:Stack (samokoder-staging):",
        "error: update failed",
        "docker:index:Container (api):",
        "error: the container never became healthy",
        "Resources:",
        "+ 1 created",
    ], "no line of a traceback, and every error once"

    shown.clear()
    show("@ updating....")
    show(" +  docker:index:Network network-app creating (0s)")
    assert not shown, "an update follows the sum of its preview, and is filtered as well"


class _Engine:
    """An engine with these containers of staging."""

    def __init__(self, *parts: str) -> None:
        self.containers = self
        self.parts = parts

    def list(self, **_: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(labels={PART_LABEL: part}) for part in self.parts]


def test_a_part_with_replicas_is_all_of_them_in_their_order() -> None:
    engine = cast("docker.DockerClient", _Engine("api-10", "api-2", "worker", "api-1", "api-2-files"))
    environment = Workspace().settings(on_this_machine=False)
    assert list(containers.replicas(engine, environment, "api")) == ["api-1", "api-2", "api-10"]
    assert list(containers.replicas(engine, environment, "api-2")) == ["api-2"], "one of them can be named as well"
    assert list(containers.replicas(engine, environment, "worker")) == ["worker"]
    with pytest.raises(ProjectError, match="There are: api-1, api-10, api-2"):
        containers.replicas(engine, environment, "ap")


def test_where_no_engine_answers_that_is_said_and_what_brings_one_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("host.engine.DEFAULT_DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SystemExit) as ended:
        command.main(["engine"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"No Docker Engine answers at unix://{tmp_path}/none.sock" in said, (
        '"No such file or directory" helps nobody'
    )
    assert "make up" in said


def test_after_ctrl_c_it_is_said_how_an_up_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("operations.lifecycle.up.bring_up", interrupted)
    monkeypatch.setattr("operations.cli.asking.where_state", lambda *_, **__: None)
    with pytest.raises(SystemExit) as ended:
        command.main(["up", "--env", "staging"])
    assert ended.value.code == 130
    assert "What is finished is kept. Go on with: make up" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variable", "named"),
    [
        (["up", "--env", "prod"], "", "prod"),
        (["up", "--env=prod"], "", "prod"),
        (["up", "-e", "prod"], "", "prod"),
        (["up", "-eprod"], "", "prod"),
        (["up", "-ye", "prod"], "", "prod"),
        (["up", "-e", "prod", "-e", "another"], "", "another"),
        (["up", "-e", "prod"], "another", "prod"),
        (["up"], "prod", "prod"),
        (["up"], "", "staging"),
        (["drift", "--repair", "-e", "prod"], "", "prod"),
    ],
)
def test_how_an_up_goes_on_names_the_environment_that_it_was_typed_for(
    words: list[str], variable: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ProjectError("it failed")

    for place in ("operations.cli.common.workspace_of", "operations.cli.asking.where_state"):
        monkeypatch.setattr(place, failing)
    monkeypatch.delenv("ENV", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    if variable:
        monkeypatch.setenv("ENV", variable)
    with pytest.raises(SystemExit):
        command.main(words)
    again = "drift ARGS=--repair" if words[0] == "drift" else "up"
    expected = f"Go on with: make {again}{'' if named == 'staging' else f' ENV={named}'}\n"
    assert expected in capsys.readouterr().err, "pasted, it would go on in another environment"
