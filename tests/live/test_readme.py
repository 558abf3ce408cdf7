"""What README tells a newcomer to type, typed in a clone of its own."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from bench.own_ports import own_ports
from operations.clone import ROOT
from operations.lifecycle.prepare import prepare
from operations.lifecycle.preview import show_preview
from operations.workspace.workspace import Workspace
from tests.live import clones
from tests.live.clones import run

ENVIRONMENT = "readme"


@pytest.fixture(scope="module")
def clone(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone of the work tree as it is, with an environment of its own ports; a space in its path."""
    folder = tmp_path_factory.mktemp("newcomer") / "samokoder platform"
    clones.make(folder, ENVIRONMENT, own_ports())
    yield folder
    clones.remove(engine, ENVIRONMENT)


def commands() -> list[str]:
    """Every line of README's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_every_command_of_readme_does_what_it_says(clone: Path) -> None:
    typed = [command for command in commands() if command != "make test"]  # which is what runs this
    assert typed[0] == "make up"
    assert {"make status", "make down"} <= set(typed)
    for command in typed:
        answer = run(clone, *shlex.split(command), ENV=ENVIRONMENT)
        assert answer.returncode == 0, f"{command}:\n{answer.stdout[-3000:]}"
        assert "Traceback" not in answer.stdout, command
        if command == "make up":
            assert "postgres" in answer.stdout
            assert "healthy" in answer.stdout
            if "grafana: not available" in answer.stdout:
                assert re.search(r"grafana\b.*not available", answer.stdout.rpartition("Passwords")[0]), "in the table"
        if command.startswith("make render"):
            rendered = (clone / "build" / "rendered").rglob("*")
            assert {"prometheus.yml", "alertmanager.yml", "redis.conf"} <= {path.name for path in rendered}
    assert run(clone, "git", "status", "--porcelain").stdout == "", "a trial leaves a clone as it was"


def test_bad_usage_ends_with_2_and_a_failure_with_1_and_both_say_what_to_do(clone: Path) -> None:
    assert run(clone, ".venv/bin/samokoder", "--help").returncode == 0
    assert run(clone, ".venv/bin/samokoder", "nonsense").returncode == 2
    wrong = run(clone, "make", "up", ENV="nowhere")
    assert wrong.returncode != 0
    assert "staging" in wrong.stdout, "which environments there are"
    prod = run(clone, "make", "preview", ENV="prod")
    assert prod.returncode != 0
    assert prod.stdout.count("needs:") >= 4, "all that production needs, at once"


def test_production_is_set_up_by_the_lines_of_readme(clone: Path) -> None:
    lines = re.findall(r"^make pulumi ENV=prod .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 8, "one line for each thing that production needs"
    try:
        for line in lines:
            words = shlex.split(line.replace("sha256:…", f"sha256:{'0' * 64}"))
            answer = run(clone, *words, given=f"123456789:{secrets.token_hex(20)}")
            assert answer.returncode == 0, f"{line}:\n{answer.stdout[-2000:]}"
        preview = run(clone, "make", "preview", ENV="prod")
        assert preview.returncode == 0, preview.stdout[-3000:]
        assert "samokoder-prod-worker" in preview.stdout
        assert re.search(r"\+ [0-9]+ to create", preview.stdout)
        committed = (clone / "Pulumi.prod.yaml").read_text()
        assert "secure:" in committed, "the token is encrypted in the file that a team commits"
        assert "# Production." in committed, "its comments stay"
    finally:
        run(clone, "git", "checkout", "--", "Pulumi.prod.yaml")


@pytest.fixture(scope="module")
def plain(
    clone: Path, new_workspace: Callable[[], Workspace], engine: docker.DockerClient
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A stack's name and the variables of a person who has Pulumi's CLI, a backend and a passphrase."""
    workspace = new_workspace()
    prepared = prepare(workspace)
    name = f"p{workspace.name}"
    state = clone.parent / "plain-state"
    state.mkdir()
    variables = {**prepared.variables, "PULUMI_BACKEND_URL": state.as_uri()}
    variables["PATH"] = f"{clone / '.venv' / 'bin'}:{Path(prepared.program).parent}:{variables['PATH']}"
    variables.pop("PULUMI_STACK", None)
    assert run(clone, "./bootstrap").returncode == 0
    answer = run(clone, "pulumi", "stack", "init", name, **variables)
    assert answer.returncode == 0, answer.stdout
    file = clone / f"Pulumi.{name}.yaml"
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**document, "config": workspace.document()["config"] | own_ports()}))
    yield name, variables
    run(clone, "pulumi", "state", "unprotect", "--all", "--yes", "-s", name, **variables)
    run(clone, "pulumi", "destroy", "--yes", "--skip-preview", "-s", name, **variables)
    clones.remove(engine, name)


def test_plain_pulumi_previews_the_whole_stack_without_make(clone: Path, plain: tuple[str, Mapping[str, str]]) -> None:
    name, variables = plain
    answer = run(clone, "pulumi", "preview", "-s", name, "--non-interactive", **variables)
    assert answer.returncode == 0, answer.stdout[-3000:]
    assert f"samokoder-{name}-worker" in answer.stdout
    assert re.search(r"\+ [0-9]+ to create", answer.stdout)


def test_plain_pulumi_does_the_same_without_make(clone: Path, plain: tuple[str, Mapping[str, str]]) -> None:
    name, variables = plain
    steps = (
        ("up", "--yes", "--skip-preview"),
        ("preview", "--expect-no-changes"),
        ("destroy", "--exclude-protected", "--yes", "--skip-preview"),
    )
    for words in steps:
        answer = run(clone, "pulumi", *words, "-s", name, "--non-interactive", **variables)
        assert answer.returncode == 0, f"pulumi {words[0]}:\n{answer.stdout[-3000:]}"


def test_a_plain_preview_tells_every_mistake(clone: Path, plain: tuple[str, Mapping[str, str]]) -> None:
    _, variables = plain
    assert run(clone, "pulumi", "stack", "init", "prod", **variables).returncode == 0
    answer = run(clone, "pulumi", "preview", "-s", "prod", "--non-interactive", **variables)
    assert answer.returncode != 0
    for key in ("samokoder:telegramBotToken", "samokoder:alertmanager.telegram.chatId", "samokoder:worker.image"):
        assert key in answer.stdout, answer.stdout
    assert "Traceback" not in answer.stdout, "a mistake is no crash"


def test_a_workspace_of_its_own_leaves_the_users_files_alone(new_workspace: Callable[[], Workspace]) -> None:
    before = {path.name: path.read_bytes() for path in ROOT.glob("Pulumi*.yaml")}
    show_preview(new_workspace(), interactive=False)
    assert {path.name: path.read_bytes() for path in ROOT.glob("Pulumi*.yaml")} == before
