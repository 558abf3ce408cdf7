"""Each command that may end in an `up` refuses to make a production none before anything is stopped."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.audit.drift import detect
from operations.cli import common
from operations.delivery import image_deploy
from operations.errors import ProjectError
from operations.workspace.workspace import Workspace
from tests.recording import ROOT

UP = "operations.lifecycle.up.bring_up"
TYPED = {
    "up": ["--yes"],
    "restore": ["--backup", "latest", "--yes"],
    "repair": ["redis", "--yes"],
    "import-compose": ["old", "--confirm", "prod"],
    "rotate": ["redis-app", "--yes"],
    "drift": ["--repair", "--yes"],
    "deploy": ["--api", "registry.example.org/api:1", "--yes"],
    "rollback": ["--yes"],
}


def imported(source: str) -> set[str]:
    """Return the modules, and names of modules, that a source imports, also within its functions."""
    found = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.ImportFrom)]
    return {f"{each.module}.{name.name}" for each in found for name in each.names} | {
        str(each.module) for each in found
    }


def with_helpers(callback: Callable[..., Any]) -> str:
    """Return the source of a command and of the private functions of its module that it calls by name."""
    module = vars(inspect.getmodule(callback))
    text, seen = inspect.getsource(callback), set[str]()
    while new := {name for name in module if name.startswith("_") and f"{name}(" in text} - seen:
        seen |= new
        text += "".join(inspect.getsource(module[name]) for name in new if inspect.isfunction(module[name]))
    return text


def test_each_command_that_calls_up_is_tried_here() -> None:
    files = [file for file in (ROOT / "operations").rglob("*.py") if "cli" not in file.parts]
    callers = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if UP in imported(file.read_text())
    }
    assert callers, "`up` has another name now"
    ends = {name for name, callback in command.COMMANDS.items() if imported(with_helpers(callback)) & {UP, *callers}}
    assert ends == TYPED.keys()


@pytest.mark.parametrize("name", TYPED)
def test_a_production_whose_file_has_lost_the_line_is_refused_before_the_engine_is_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = tmp_path / "home/state/.pulumi/stacks/samokoder"
    stacks.mkdir(parents=True)
    resources = [{"type": "pulumi:pulumi:Stack", "urn": "urn", "outputs": {"production": True}}]
    (stacks / "prod.json").write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {}\n")
    workspace = Workspace(environment="prod", home=tmp_path / "home", stack_files=tmp_path, isolated=True)
    deploy = SimpleNamespace(candidate=workspace)
    monkeypatch.setattr(common, "workspace_of", lambda _: workspace)
    monkeypatch.setattr(image_deploy, "plan", lambda *_, **__: deploy)
    monkeypatch.setattr(image_deploy, "back", lambda *_, **__: (deploy, None))
    monkeypatch.setattr(detect, "find_drift", lambda _: [SimpleNamespace(unknown=False)])
    monkeypatch.setattr("operations.cli.tables.show_drift", lambda *_, **__: None)
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: pytest.fail("it went on"))
    answer = CliRunner().invoke(command.app, [name, "--env", "prod", *TYPED[name]])
    assert isinstance(answer.exception, ProjectError), answer.output
    assert "an `up` would make it no production" in str(answer.exception)
    assert f"NO_PRODUCTION=prod make {name}" in str(answer.exception)
