"""What the pages for the person on call tell to type, typed at a running stack."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from operations.clone import ROOT
from operations.engine import containers
from operations.engine.commands import execute
from operations.workspace.psql import psql_command
from stack.catalogue import specs
from stack.settings.environment import Environment
from stack.settings.part import Published
from stack.settings.reading import read_environment

if TYPE_CHECKING:
    import docker

# Its users come early, so that they have been there for five minutes when test_traffic.py asks.
pytestmark = pytest.mark.usefixtures("traffic")

PAGES = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.name != "README.md")


def commands(page: Path) -> list[str]:
    """The page's first commands; a line that ends with a backslash goes on."""
    block = re.search(r"^## First three commands\n+```sh\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert block, f"{page.name} has no commands"
    lines = block[1].replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def here(command: str, environment: Environment) -> str:
    """The command for this environment: its names and ports in place of staging's."""
    command = command.replace("samokoder-staging-", f"{environment.prefix}-")
    usual = read_environment("staging", {}).running()
    for name, part in environment.running().items():
        default = usual.get(name)  # what staging does not run unless asked to, no page names
        if isinstance(part, Published) and isinstance(default, Published):
            command = re.sub(rf"(127\.0\.0\.1|localhost):{default.port}\b", rf"\1:{part.port}", command)
    return command


def assert_it_answers(words: list[str], environment: Environment, engine: docker.DockerClient) -> None:
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
    asked = psql_command(environment, given["SQL"], monitoring="MONITORING" in given, write="WRITE" in given)
    status, said = execute(containers.find(engine, environment, "postgres"), asked)
    assert status == 0, f"{given['SQL']}\n{said.decode()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_first_three_commands_of_a_page_work(
    environment: Environment, page: Path, engine: docker.DockerClient
) -> None:
    typed = commands(page)
    assert len(typed) == 3, f"a tired person types three commands, here are {len(typed)}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    parts = {spec.part for spec in specs(environment)} | {"grafana", "api"}  # of all its replicas
    for command in typed:
        if made := re.match(r"\s*make (?:-s )?([a-z-]+)", command):
            assert made[1] in targets, f"there is no `make {made[1]}`"
            for part in re.findall(r"\bPART=([a-z0-9-]+)", command):
                assert part in parts, f"there is no part {part}"
            if made[1] == "psql":
                assert_it_answers(shlex.split(command), environment, engine)
            continue
        answer = subprocess.run(
            ["bash", "-o", "pipefail", "-c", here(command, environment)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, f"{command}\n{answer.stdout[-2000:]}"
