"""Commands in a container of the environment, on the terminal of the person who types them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from operations.clone import typed
from operations.engine.commands import execute_apart
from operations.errors import ProjectError
from stack.common.names import ENVIRONMENT_LABEL

if TYPE_CHECKING:
    from docker.models.containers import Container


def run(docker_host: str, container: Container, words: Sequence[str]) -> int:
    """Run a command in a container; return its exit status. Without the docker program it has no standard input.

    docker_host: the engine of the container.
    """
    if shutil.which("docker"):
        return attached(docker_host, container, words)
    status, out, err = execute_apart(container, words)
    for stream, text in ((sys.stdout, out), (sys.stderr, err)):
        stream.buffer.write(text)
        stream.buffer.flush()
    return status


def attached(docker_host: str, container: Container, words: Sequence[str]) -> int:
    """Run a command on this terminal. Raises ProjectError where the docker program is not installed."""
    docker = shutil.which("docker")
    if not docker:
        asked = typed(container.labels.get(ENVIRONMENT_LABEL, ""), "psql SQL='…'")
        raise ProjectError(f"A session needs the docker program; without it give the statement: {asked}")
    options = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-i"]
    where = ["--host", docker_host]  # that of `container`, whatever DOCKER_HOST says
    return subprocess.run([docker, *where, "exec", *options, str(container.name), *words], check=False).returncode
