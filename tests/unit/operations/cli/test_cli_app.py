"""What the whole command has: help in groups, version, completion, and what it proposes for a mistyped word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.cli import app
from tests.recording import ROOT

GROUPS = ("Every day", "Data", "Delivery", "Development")


def help_of_make() -> dict[str, list[str]]:
    """Return the targets under each heading."""
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    lines = said.splitlines()
    assert not [line for line in lines if len(line) > 80], "a terminal of 80 columns breaks it within a word"
    for line in lines[1:]:
        if line.startswith(" " * 16):
            assert found[list(found)[-1]], "the rest of what a target says stands below it"
        elif line and not line.startswith(" "):
            found[line] = []
        elif line:
            name, _, says = line.strip().partition(" ")
            assert says.strip(), f"{name} stands in a group and is no target, or says nothing"
            found[list(found)[-1]].append(name)
    return found


def test_each_target_of_make_stands_once_under_one_of_four_headings() -> None:
    groups = help_of_make()
    assert tuple(groups) == GROUPS
    listed = [name for names in groups.values() for name in names]
    said = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert len(listed) == len(set(listed)), "a target is listed twice"
    assert set(listed) == said, "a target that `make help` does not show is found by nobody"
    assert {"up", "restart"} <= set(groups["Every day"])
    assert "restore" in groups["Data"]


@pytest.mark.parametrize("word", ["restar", "restat", "reststart", "restor", "destroy", "dwon", "rotat"])
def test_a_mistyped_word_proposes_nothing_that_takes_something_away(word: str) -> None:
    answer = CliRunner().invoke(command.app, [word], env={"COLUMNS": "200"})
    assert answer.exit_code == 2
    assert f"No such command '{word}'" in answer.output
    assert not [name for name in app.NEVER_PROPOSED if f"'{name}'" in answer.output], "it is typed without a look"


def test_a_mistyped_word_proposes_what_is_like_it() -> None:
    assert "'restart'" in CliRunner().invoke(command.app, ["restar"]).output
    assert "'status'" in CliRunner().invoke(command.app, ["statsu"]).output


def test_the_version_is_that_of_the_package_with_the_commit_of_the_clone() -> None:
    answer = CliRunner().invoke(command.app, ["--version"])
    assert answer.exit_code == 0
    number = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert number
    assert answer.output.startswith(f"samokoder {number[1]}"), "a report of a fault names what it was seen in"


def test_completion_is_installed_by_the_command_of_readme_and_completes(tmp_path: Path) -> None:
    typed = re.search(r"`\.venv/bin/samokoder (--install-completion)`", (ROOT / "README.md").read_text())
    assert typed, "README says how it is installed"
    program = ROOT / ".venv/bin/samokoder"
    variables = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/bash"}
    # The shell is the one that it was typed in: not that of `make`, which runs this test.
    typing = ["bash", "-c", f"'{program}' {typed[1]}; exit $?"]
    installed = subprocess.run(typing, env=variables, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    script = (
        f"source {tmp_path}/.bashrc\n"
        f"COMP_WORDS=({program} rest)\nCOMP_CWORD=1\n_samokoder_completion {program}\n"
        'echo "${COMPREPLY[@]}"\n'
        "complete -p samokoder\n"
    )
    said = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=True).stdout
    assert {"restart", "restore"} <= set(said.split()), said


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "samokoder rest"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "samokoder rest", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_what_other_shells_ask_the_command_for_is_answered(shell: str, asked: dict[str, str]) -> None:
    """Neither shell is needed: the question is what the script that Typer installs for it asks."""
    variables = {"PATH": "/usr/bin:/bin", "_SAMOKODER_COMPLETE": f"complete_{shell}", **asked}
    program = [ROOT / ".venv/bin/samokoder"]
    said = subprocess.run(program, env=variables, capture_output=True, text=True, check=False).stdout
    assert {"restart", "restore"} <= set(re.findall(r"\w+", said)), said


HELP = """
import sys
from operations.__main__ import main
try:
    main({words!r})
finally:
    print("modules:", *sorted(sys.modules), file=sys.stderr)
"""
SLOW = {
    "docker",
    "requests",
    "httpx",
    "yaml",
    "pulumi",
    "pulumi_docker",
    "stack.settings",
    "offline.toolchain",
    "rich.console",
}
MOST_MODULES = 300
"""Python's own and typer's are 177; with all that the commands need, it was 1007."""


def imported(*words: str) -> tuple[set[str], str]:
    """Modules that a command has imported, and what it said."""
    asked = [sys.executable, "-c", HELP.format(words=list(words))]
    answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(answer.stderr.rpartition("modules: ")[2].split())
    assert "operations.__main__" in modules, answer.stderr
    return modules, answer.stdout


def test_help_imports_neither_the_engines_nor_pulumis_nor_the_settings_programs() -> None:
    modules, said = imported("--help")
    assert not modules & {*SLOW, "pydantic"}, "it would take a second and a half, which is imports alone"
    assert len(modules) <= MOST_MODULES, f"{len(modules)} modules for a page of help"
    assert "Show the logs, one line for each event, in the order of time" in " ".join(said.split()), "nothing is cut"
    assert not imported("drift", "--help")[0] & SLOW, "nor does the help of one command, nor the shell's completion"
