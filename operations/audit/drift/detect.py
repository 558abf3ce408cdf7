"""Drift: where what runs differs from what the program declares.

There are two comparisons, because neither sees all. Pulumi's preview after a refresh compares the program with its
state and with what the provider reads from the engine. Ours compares the inputs in the state, as the program gave them
to each resource, with the engine: the provider reads neither a file's content nor most options of `docker run`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from host.engine import docker_command
from operations.audit.drift.actual import read_engine
from operations.audit.drift.compare import compare
from operations.audit.drift.declared import read_state
from operations.audit.drift.difference import Difference, Typed
from operations.audit.drift.preview import read_preview
from operations.engine.commands import execute
from operations.engine.redaction import without
from operations.errors import ProjectError
from operations.lifecycle.prepare import prepare
from operations.workspace.every_secret import every_secret
from stack.parts.node_exporter import spec as node_exporter
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker

    from operations.workspace.workspace import Workspace


def find_drift(workspace: Workspace) -> list[Difference]:
    """Compare what runs with what is declared; return the differences, and note their number for Prometheus.

    Raises ProjectError where nothing is up, PulumiFailedError where Pulumi's own comparison fails.
    """
    workspace.deployment()  # `prepare` would make a state where there is none
    run = prepare(workspace, images=False)
    environment, reporter = workspace.settings(), workspace.reporter
    deployment = run.in_plain()
    wanted = read_state(deployment)
    if not wanted.containers:
        raise ProjectError(f"{workspace.name} is not up: {workspace.typed('up')}")
    typed = Typed(docker=docker_command(environment.settings.docker_host), up=workspace.typed("up"))
    client = workspace.client()
    try:
        with reporter.task("Comparing what runs with what is declared") as task:

            def say(name: str) -> None:
                task.detail = name

            findings = compare(wanted, read_engine(client, wanted, environment, say), environment, typed)
        with reporter.task("Asking Pulumi what it would change"):
            said = run.pulumi("preview", "--refresh", "--json", capture=True).stdout
        steps = json.loads(said[said.index("{") :])["steps"]
        findings += read_preview(steps, {each.name for each in findings}, typed)
        secrets = every_secret(run)
        findings = [replace(each, **_hidden(secrets, each.as_json())) for each in findings]
        if not _note(client, environment, len(findings)):
            reporter.say("node-exporter does not run: Prometheus is not told of this comparison")
        return findings
    finally:
        client.close()


def _hidden(secrets: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Any]:
    return {key: without(secrets, text) for key, text in texts.items()}


def exposition(findings: int, now: float) -> str:
    """Return the two series that Prometheus gets, in its text format. now: seconds since 1970."""
    return (
        f"# HELP {node_exporter.DRIFT_FINDINGS} Differences that the last comparison found.\n"
        f"# TYPE {node_exporter.DRIFT_FINDINGS} gauge\n"
        f"{node_exporter.DRIFT_FINDINGS} {findings}\n"
        f"# HELP {node_exporter.DRIFT_CHECKED} When `samokoder drift` came to its end.\n"
        f"# TYPE {node_exporter.DRIFT_CHECKED} gauge\n"
        f"{node_exporter.DRIFT_CHECKED} {now:.0f}\n"
    )


def _note(client: docker.DockerClient, environment: Environment, findings: int) -> bool:
    """Write the series into node-exporter's folder; return whether that succeeded.

    A command in the container writes them: on an engine that is reached over ssh there is no other way to a file, and
    the engine's archive API refuses a container with a read-only root.
    """
    import docker.errors  # noqa: PLC0415 - the SDK takes its time

    name = f"{environment.prefix}-{node_exporter.PART}"
    # Written under another name and then renamed: node_exporter may read a file that ends in .prom at any moment.
    script = 'printf %s "$1" > "$2.new" && mv "$2.new" "$2"'
    words = ["sh", "-c", script, "sh", exposition(findings, time.time()), f"{node_exporter.TEXTFILES}/drift.prom"]
    with contextlib.suppress(docker.errors.APIError):
        return execute(client.containers.get(name), words)[0] == 0
    return False
