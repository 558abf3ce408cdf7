"""Clones of the work tree with an environment of their own, in which a test types what a person or a CI system does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import yaml

from operations.clone import ROOT


def shell_variables(**variables: str) -> dict[str, str]:
    """Return the environment of a person's shell, with these variables and without colours."""
    # Such a shell has not what `make test` hands on to the `make` of a recipe.
    inherited = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES"}}
    return {**inherited, "NO_COLOR": "1", **variables}


def run(folder: Path, *words: str, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command in the clone, `given` on its standard input; its output is both streams."""
    return _run(folder, words, variables, given=given, errors=subprocess.STDOUT)


def typed(folder: Path, line: str, *, status: int = 0, **variables: str) -> str:
    """Type a line in a clone; return what it prints. It ends with this status, and never with a traceback."""
    answer = run(folder, *shlex.split(line), **variables)
    assert answer.returncode == status, f"{line}:\n{answer.stdout[-4000:]}"
    assert "Traceback" not in answer.stdout, f"{line}:\n{answer.stdout[-4000:]}"
    return answer.stdout


def changes(folder: Path, **variables: str) -> list[str]:
    """Return the names of what an `up` in a clone would change."""
    said = run_apart(folder, "make", "preview", "ARGS=--json", **variables)
    assert said.returncode == 0, said.stdout + said.stderr
    return [str(each["name"]) for each in json.loads(said.stdout)["changes"]]


def at_once(folders: Sequence[Path], line: str, **variables: str) -> list[tuple[int, str]]:
    """Type a line in each clone at the same moment; return how each ended and what it printed. One may come twice."""
    with ThreadPoolExecutor(len(folders)) as pool:
        ended = list(pool.map(lambda folder: run(folder, *shlex.split(line), **variables), folders))
    for each in ended:
        assert "Traceback" not in each.stdout, f"{line}:\n{each.stdout[-4000:]}"
    return [(each.returncode, each.stdout) for each in ended]


def run_apart(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one command in the clone; its output and its errors are apart."""
    return _run(folder, words, variables, errors=subprocess.PIPE)


def _run(
    folder: Path, words: Sequence[str], variables: Mapping[str, str], *, errors: int, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=shell_variables(**{"TERM": "dumb", "COLUMNS": "200", **variables}),
        input=given,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        check=False,
    )


def commit(folder: Path, message: str) -> None:
    """Commit all that is there."""
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for words in (("add", "--all"), (*author, "commit", "--quiet", "--message", message)):
        assert run(folder, "git", *words).returncode == 0


def make(folder: Path, environment: str, config: Mapping[str, Any]) -> None:
    """Make a clone of the work tree as it is, with this environment."""
    tracked = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    configure(folder, environment, config)
    assert run(folder, "git", "init", "--quiet").returncode == 0
    commit(folder, "as cloned")


def configure(folder: Path, environment: str, config: Mapping[str, Any]) -> None:
    """Write the environment's configuration, and nothing else into its file."""
    (folder / f"Pulumi.{environment}.yaml").write_text(yaml.safe_dump({"config": dict(config)}))


def remove(engine: docker.DockerClient, environment: str) -> None:
    """Remove what an environment left on the engine, by its own names only."""
    prefix = f"samokoder-{environment}-"
    for container in engine.containers.list(all=True, filters={"name": f"^{prefix}"}):
        container.remove(force=True)
    for volume in engine.volumes.list(filters={"name": f"^{prefix}"}):
        volume.remove()
    for network in engine.networks.list(filters={"name": f"^{prefix}"}):
        network.remove()
