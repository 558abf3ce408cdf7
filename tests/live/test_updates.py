"""What a second `up`, a change, a removal and a killed run do."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docker
import httpx
import pytest

from operations.audit.drift.detect import find_drift
from operations.engine import containers
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.down import destroy_data, take_down
from operations.lifecycle.prepare import prepare
from operations.lifecycle.preview import show_preview
from operations.lifecycle.up import bring_up
from operations.workspace import pulumi_state
from operations.workspace.workspace import Workspace
from stack.common.names import NetworkName
from stack.settings.environment import Environment
from tests.live.conftest import begin_up, cut_off, url, with_config, with_secrets
from tests.live.traffic import Traffic


@pytest.fixture(scope="module", autouse=True)
def nobody_there(traffic: Traffic) -> None:
    """No users from here on: their LLM is on the stack's network, which `down` removes."""
    traffic.stop()


def write_project(workspace: Workspace, name: str) -> None:
    """Write one row through the API."""
    answer = httpx.post(f"{url(workspace.settings(), 'ingress')}/projects", json={"name": name}, timeout=30)
    answer.raise_for_status()


def projects(workspace: Workspace) -> list[str]:
    """Names of the rows, read through the API."""
    return [row["name"] for row in httpx.get(f"{url(workspace.settings(), 'ingress')}/projects", timeout=30).json()]


def test_a_second_up_changes_nothing_also_after_a_refresh(stack: Workspace, engine: docker.DockerClient) -> None:
    before = containers.ids(engine, stack.name)
    run = stack.open()
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    run.pulumi("refresh", "--yes", "--skip-preview", "--suppress-outputs", capture=True)
    run.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    bring_up(stack, interactive=False)
    assert containers.ids(engine, stack.name) == before, "an `up` without a change restarted something"


def test_drift_finds_a_part_that_was_stopped_which_up_starts(stack: Workspace, engine: docker.DockerClient) -> None:
    """That there is none in a stack as it was made, README's own `make drift` shows in test_readme.py."""
    containers.find(engine, stack.settings(), "worker").stop()
    findings = [(each.name, each.field, each.found) for each in find_drift(stack)]
    assert findings == [(f"{stack.settings().prefix}-worker", "state", "stopped")]
    bring_up(stack, interactive=False)
    assert find_drift(stack) == [], "what `drift` tells to type does not put it right"


def test_a_changed_prometheus_setting_replaces_prometheus_only(stack: Workspace, engine: docker.DockerClient) -> None:
    """It stays changed until the next test, whose `up` puts it back."""
    before = containers.ids(engine, stack.name)
    own = dict(stack.extra_config["samokoder:prometheus"])
    changed = replace(
        stack, extra_config={**stack.extra_config, "samokoder:prometheus": {**own, "scrapeInterval": "20s"}}
    )
    bring_up(changed, interactive=False)
    after = containers.ids(engine, stack.name)
    config = httpx.get(f"{url(stack.settings(), 'prometheus')}/api/v1/status/config", timeout=30).json()
    assert {part for part in before if before[part] != after[part]} == {"prometheus"}, "a change touched other parts"
    assert "scrape_interval: 20s" in config["data"]["yaml"], "the change did not arrive"


def test_down_then_up_keeps_the_data_and_the_secrets(stack: Workspace, engine: docker.DockerClient) -> None:
    write_project(stack, "kept")
    passwords = stack.open().secrets()
    kept = take_down(stack, interactive=False)
    assert not containers.of_environment(engine, stack.name), "down leaves no container"
    assert f"samokoder-{stack.name}-postgres-data" in kept
    bring_up(stack, interactive=False)
    assert stack.open().secrets() == passwords, "other passwords than the volume's would have locked it"
    assert "kept" in projects(stack)


def test_a_rotated_password_is_the_only_one_that_opens_and_the_data_stays(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient
) -> None:
    workspace = new_workspace()
    bring_up(workspace, interactive=False)
    write_project(workspace, "before the rotation")
    old = workspace.open().secrets()["postgres-app"]
    before = containers.ids(engine, workspace.name)
    rotated = with_config(workspace, {"samokoder:rotation": {"postgresApp": 2, "redisApp": 2}})
    bring_up(rotated, interactive=False)
    new = rotated.open().secrets()["postgres-app"]
    assert new != old
    assert "before the rotation" in projects(workspace), "the API does not get in with the new password"
    # Without phases, the way for a leaked password: the second generation is the second role's.
    for role, password, opens in (("samokoder_app", old, False), ("samokoder_app_b", new, True)):
        login = f"PGPASSWORD={password} psql -h postgres -U {role} -d samokoder -c 'select 1'"
        roles = containers.find(engine, workspace.settings(), "postgres-roles")
        assert (execute(roles, ["sh", "-c", login])[0] == 0) is opens, f"opens: {opens}"
    after = containers.ids(engine, workspace.name)
    assert after["postgres"] == before["postgres"], "a rotation restarted the database"

    # A second clone that has not merged the rotation: its stack file says nothing of it.
    with pytest.raises(ProjectError, match="postgres-app"):
        bring_up(workspace, interactive=False)
    with pytest.raises(ProjectError, match="postgres-app"):
        show_preview(workspace, interactive=False)
    assert containers.ids(engine, workspace.name) == after, "the role in use would have been locked under all replicas"
    assert "before the rotation" in projects(workspace)
    destroy_data(workspace, interactive=False)


def test_a_part_that_gets_sick_fails_the_up_with_its_log_and_a_good_value_repairs_it(
    stack: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"startPeriodSeconds": 1, "intervalSeconds": 2, "retries": 2, "waitTimeoutSeconds": 20}
    sick = {"command": ["arq", "samokoder.worker.nothing.Here"], "health": quick}
    broken = replace(stack, extra_config={**stack.extra_config, "samokoder:worker": sick})
    try:
        with pytest.raises(PulumiFailedError):
            bring_up(broken, interactive=False)
        said = capsys.readouterr()
        begins, more = "worker is not healthy: ended since ", "more: make logs PART=worker"
        why, found, _ = (said.out + said.err).partition(begins)[2].partition(more)
        assert found, f"a person at 3 a.m. must be told which, since when, and what to type: {said}"
        assert "samokoder.worker.nothing" in why, "the log says why"
        assert len(why.splitlines()) <= 10, "an error is a few lines, not a log"
        with pytest.raises(PulumiFailedError):
            # Without "#initerror" in replace_on_changes this one would pass.
            bring_up(broken, interactive=False)
    finally:
        rows = bring_up(stack, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows


def test_a_plain_destroy_is_refused_and_removes_no_volume(stack: Workspace, engine: docker.DockerClient) -> None:
    with pytest.raises(PulumiFailedError, match="protect"):
        stack.open().pulumi("destroy", "--yes", "--skip-preview", capture=True)
    assert engine.volumes.get(f"samokoder-{stack.name}-postgres-data")
    rows = bring_up(stack, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows


@pytest.mark.parametrize("seconds", [4.0, 9.0])
def test_an_up_killed_in_the_middle_converges_at_the_next_one(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, tmp_path: Path, seconds: float
) -> None:
    workspace = new_workspace()
    run = prepare(workspace)
    process = begin_up(run)
    time.sleep(seconds)
    assert process.poll() is None, "it was over before it could be killed"
    cut_off(process)
    rows = bring_up(workspace, interactive=False).parts
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    workspace.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    networks = [n.name for n in engine.networks.list(names=[f"samokoder-{workspace.name}-"])]
    assert len(networks) == len(set(networks)) == len(NetworkName), f"a network was left twice: {networks}"
    destroy_data(workspace, interactive=False)  # the health checks of a stack cost those that follow a core


def test_a_clone_without_the_state_leaves_the_running_environment_alone_although_its_up_was_killed(
    stack: Workspace, engine: docker.DockerClient, tmp_path: Path
) -> None:
    bring_up(stack, interactive=False)
    before = containers.ids(engine, stack.name)
    write_project(stack, "of the first clone")
    # The first clone's own secrets cannot be read here.
    other = with_secrets(replace(stack, home=tmp_path), {"openaiApiKey": f"sk-{secrets.token_hex(24)}"})
    run = prepare(other)
    process = begin_up(run)
    while process.poll() is None and not pulumi_state.begun(run.deployment()):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # a run that met the first one's names so soon is over
        cut_off(process)
    try:
        with pytest.raises(ProjectError, match=r"On the engine and not in this state: .*-api-1"):
            bring_up(other, interactive=False)
        assert containers.ids(engine, stack.name) == before, "it removed what another state has, with its users on it"
        assert "of the first clone" in projects(stack)
    finally:
        take_down(other, interactive=False)
    assert containers.ids(engine, stack.name) == before, "its `down` removes only what it has made itself"


def test_a_volume_of_the_compose_stack_is_adopted_with_its_data(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, local_images: Environment
) -> None:
    workspace = new_workspace()
    name = f"compose-{workspace.name}-redis"
    labels = {"com.docker.compose.project": "old", "com.docker.compose.volume": "redis"}
    engine.volumes.create(name, labels=labels)
    # As compose left it: a file of the old Redis, owned by its user.
    engine.containers.run(
        local_images.image("redis"),
        ["-c", "echo kept > /data/from-compose && chown -R 999:999 /data"],
        entrypoint="sh",
        volumes={name: {"bind": "/data"}},
        network_mode="none",
        remove=True,
    )
    try:
        adopting = replace(workspace, extra_config={**workspace.extra_config, "samokoder:redis": {"adoptVolume": name}})
        bring_up(adopting, interactive=False)
        redis = containers.find(engine, adopting.settings(), "redis")
        assert execute(redis, ["cat", "/data/from-compose"])[1] == b"kept\n", "it was made anew: data lost"
        adopting.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
        assert engine.volumes.get(name).attrs["Labels"] == labels
    finally:
        destroy_data(workspace, interactive=False)
        for left in engine.volumes.list(filters={"name": name}):
            left.remove()


def test_two_environments_share_an_engine(stack: Workspace, engine: docker.DockerClient) -> None:
    names = [c.name for c in containers.of_environment(engine, stack.name)]
    assert names
    assert all(str(name).startswith(f"samokoder-{stack.name}-") for name in names), "a name without its environment"


def test_the_command_tells_a_wrong_configuration_before_anything_is_touched(tmp_path: Path) -> None:
    answer = subprocess.run(
        [str(Path(sys.executable).with_name("samokoder")), "up", "--env", "prod"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    said = answer.stdout + answer.stderr
    assert answer.returncode == 1, said
    for key in ("samokoder:telegramBotToken", "samokoder:alertmanager.telegram.chatId", "samokoder:api.image"):
        assert key in said, "prod says all that it needs at once"
    assert "Traceback" not in said
