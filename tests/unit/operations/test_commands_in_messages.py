"""What a message tells a person to type: it is for his environment, also at 3 a.m. in production."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from operations.clone import typed
from operations.workspace.workspace import Workspace
from tests.recording import ROOT

OF_NO_ENVIRONMENT = {"help", "bootstrap", "lint", "test", "docs", "bench", "check-image", "sbom", "move-state"}
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
COMMAND = re.compile(
    rf"\bmake ({'|'.join(sorted(TARGETS - OF_NO_ENVIRONMENT, key=len, reverse=True))})\b"
    r"|\bsamokoder (?:pulumi|psql|up|down|restore|logs|status)\b"
)
WRITTEN_BY_MAKE_DOCS = "documents"
"""Pages name what is typed for staging, and say once how another environment is meant."""
PROGRAMS = ("operations", "stack", "backup_image", "host", "offline")
"""Folders of programs that say to a person what to type; which environment it is, only some of them know."""


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The text of every string of a program that is no docstring, with its line; `{}` where a value comes in."""
    tree = ast.parse(source)
    inside, said = set[int](), set[int]()
    for node in ast.walk(tree):
        # The description of a setting is for the page of settings, which is for all environments.
        if isinstance(node, ast.keyword) and node.arg == "description":
            said.add(id(node.value))
        # A text alone is a docstring, of a function or of what stands before it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            said.add(id(node.value))
        if isinstance(node, ast.JoinedStr) and id(node) not in said:
            inside |= {id(part) for part in node.values}
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said | inside:
            yield node.lineno, node.value


def for_no_environment(source: str) -> list[tuple[int, str]]:
    return [(line, text) for line, text in texts(source) if _named_nowhere(text)]


def _named_nowhere(text: str) -> bool:
    """Whether a command is there without its environment; a line of comment in a rendered file is no message."""
    lines = [line for line in text.split("\n") if not line.startswith("# ")]
    return bool(COMMAND.search("\n".join(lines))) and "ENV=" not in text


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in PROGRAMS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent.name != WRITTEN_BY_MAKE_DOCS
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_command_in_a_message_is_made_by_typed_which_knows_the_environment(path: Path) -> None:
    found = for_no_environment(path.read_text(encoding="utf-8"))
    assert not found, f"typed as it stands there, this goes to staging in place of production: {found}"


def test_the_scripts_that_write_to_a_log_name_no_environment_by_leaving_it_out() -> None:
    files = [path for folder in PROGRAMS for end in ("sh", "tmpl") for path in (ROOT / folder).rglob(f"*.{end}")]
    assert len(files) > 1
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if COMMAND.search(line) and "ENV=" not in line], path.name


def test_the_check_finds_a_command_without_its_environment() -> None:
    wrong = (
        'raise ProjectError(f"{name} is not up: make up")\nsay("It goes on: make restore", "make restore ENV=prod")\n'
    )
    assert [line for line, _ in for_no_environment(wrong)] == [1, 2]
    described = 'Field(description="written by `make up`")\nalert(description=Text(en="`make doctor` says why"))\n'
    assert [line for line, _ in for_no_environment(described)] == [2], "an alert is a message, unlike a setting's page"
    assert {"restore", "up", "backups", "import-compose", "pulumi"} <= TARGETS


def test_a_command_for_staging_is_short_and_any_other_names_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENV", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    assert typed("staging", "restore BACKUP=latest") == "make restore BACKUP=latest"
    assert typed("prod", "restore BACKUP=latest") == "make restore BACKUP=latest ENV=prod"
    assert Workspace(environment="prod").typed("up") == "make up ENV=prod"


@pytest.mark.parametrize("variables", [{"ENV": "prod"}, {"ENV": "staging", "MAKEFLAGS": " -- ENV=staging"}])
def test_a_command_for_staging_names_it_where_the_shell_may_mean_another_environment(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = "a shell with ENV=prod would restore production by the line that staging has printed"
    assert typed("staging", "restore BACKUP=latest") == "make restore BACKUP=latest ENV=staging", said
