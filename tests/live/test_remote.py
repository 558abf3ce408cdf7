"""A stack on an engine of another host, behind a real sshd (`tests/live/other_host.py`). It needs root."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import httpx
import pytest

from bench.own_ports import own_ports
from host.daemon import ensure_engine
from host.errors import EngineError
from operations.data import backups
from operations.engine import containers, reach
from operations.engine.part_status import NOT_AVAILABLE
from operations.workspace.known import live_status
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.live import clones
from tests.live.other_host import PATIENCE_SECONDS, Host, far_engine, load_images, other_host

ENVIRONMENT = "far"


@pytest.fixture(scope="module")
def host(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The other host."""
    assert engine.ping()
    with other_host(tmp_path_factory.mktemp("host")) as made:
        yield made


@pytest.fixture(scope="module")
def there(
    host: Host, engine: docker.DockerClient, local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """An environment of a clone, brought up on the other host by the lines of docs/remote-engine.md.

    The host got its images from the engine here. All that is made over there ends with the host.
    """
    folder = tmp_path_factory.mktemp("far") / "clone"
    clones.make(folder, ENVIRONMENT, {**own_ports(), "samokoder:api": {"replicas": 1, "stableSeconds": 2}})
    load_images(host, engine, local_images)
    workspace = Workspace(environment=ENVIRONMENT, root=folder, isolated=True)
    typed(workspace, f"make pulumi ARGS='config set --path samokoder:dockerHost {host.docker_host}'")
    assert f"From here: make tunnel ENV={ENVIRONMENT}" in typed(workspace, "make up")
    return workspace


def typed(there: Workspace, line: str) -> str:
    """Type a line in the environment's clone."""
    return clones.typed(there.root, line, ENV=there.environment)


def test_every_part_is_healthy_over_there_and_none_is_here(
    there: Workspace, host: Host, engine: docker.DockerClient
) -> None:
    rows = live_status(there)
    assert len(rows) > 10
    assert all(row.ok for row in rows if row.state != NOT_AVAILABLE), rows
    with far_engine(host) as far:
        assert far.info()["ID"] != engine.info()["ID"], "the engine here was asked"
        assert containers.of_environment(far, there.name)
    assert not containers.of_environment(engine, there.name), "the stack is on the engine here"


def test_a_second_up_changes_nothing_also_after_a_refresh(there: Workspace) -> None:
    running = there.open()
    running.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    running.pulumi("refresh", "--yes", "--skip-preview", "--suppress-outputs", capture=True)
    running.pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)


def test_what_is_written_through_the_public_entry_over_there_is_read_back(there: Workspace) -> None:
    environment = there.settings()
    with reach.opened(environment) as url, httpx.Client(base_url=url(environment.settings.ingress), timeout=30) as page:
        page.post("/projects", json={"name": "over there"}).raise_for_status()
        assert "over there" in [project["name"] for project in page.get("/projects").json()]


def test_the_monitoring_over_there_measures_that_host(there: Workspace) -> None:
    environment = there.settings()
    with reach.part(environment, environment.settings.prometheus) as address:

        def ask(query: str) -> list[dict[str, str]]:
            answer = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=30)
            return [series["metric"] for series in answer.json()["data"]["result"]]

        end = time.monotonic() + PATIENCE_SECONDS
        while ask("up == 0") or len(ask("up")) < 10:
            assert time.monotonic() < end, ask("up == 0")
            time.sleep(2)
        # Without the way to that host's containerd, cAdvisor would have no container and say nothing of it.
        while not ask(f'container_last_seen{{name="samokoder-{there.name}-postgres"}}'):
            assert time.monotonic() < end, "cAdvisor sees no container"
            time.sleep(2)


def test_a_program_over_there_is_run_with_its_progress_and_its_end(there: Workspace) -> None:
    end = time.monotonic() + 2 * PATIENCE_SECONDS
    while not any(each.status == "good" for each in backups.backups(there)[0]):
        assert time.monotonic() < end, "the first backups are not made"
        time.sleep(2)
    before = {each.id for each in backups.backups(there)[0]}
    backups.now(there, "dump")
    made = [each for each in backups.backups(there)[0] if each.id not in before]
    assert [(each.kind, each.status) for each in made] == [("dump", "good")]


def test_all_that_this_process_asks_goes_through_one_login(there: Workspace, host: Host) -> None:
    logins = host.home / "logins"
    logins.write_text("")
    live_status(there)
    with far_engine(host) as far:
        far.ping()
    ran = logins.read_text().splitlines()
    assert not ran, f"what is there already is logged in, and each question was another login: {ran}"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nobody@{address}", "Permission denied"),
        ("root@{address}:1", "Connection refused"),
    ],
)
def test_a_host_that_lets_nobody_in_is_told_in_ssh_s_own_words(
    host: Host, address: str, said: str, tmp_path: Path
) -> None:
    named = f"ssh://{address.format(address=host.address)}"
    with pytest.raises(EngineError, match=said) as error:
        ensure_engine(named, report=lambda _: None, cache=tmp_path)
    assert "This must work without a question" in str(error.value)


def test_a_host_without_an_engine_says_so(host: Host, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nothing answers at /run/nothing.sock there"):
        ensure_engine(f"{host.docker_host}/run/nothing.sock", report=lambda _: None, cache=tmp_path)


def test_what_a_person_types_every_day_is_done_over_there(there: Workspace) -> None:
    assert "api-1" in typed(there, "make status")
    assert "api-1" in typed(there, "make logs TAIL=3")
    assert "worker" in typed(there, "make restart PART=worker")
    assert "1 row" in typed(there, "make psql SQL='SELECT count(*) FROM jobs'")
    typed(there, "make smoke ARGS='--wait 120'")
    typed(there, "make doctor")
    assert "unchanged" in typed(there, "make preview")


def test_a_tunnel_for_people_leads_to_the_same_ports_here(there: Workspace) -> None:
    port = there.settings().settings.ingress.port
    with subprocess.Popen(
        ["make", "tunnel"],
        cwd=there.root,
        env=clones.shell_variables(ENV=there.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while True:
                assert process.poll() is None, f"it ended: {process.communicate()[0]!r}"
                with contextlib.suppress(httpx.TransportError):
                    assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).is_success
                    break
                assert time.monotonic() < end, "no page of the other host is reached here"
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_down_keeps_the_data_over_there_and_destroy_data_removes_it(there: Workspace, host: Host) -> None:
    volumes = f"samokoder-{there.name}-"
    with far_engine(host) as far:
        said = typed(there, "make down")
        assert not containers.of_environment(far, there.name), "down leaves no container"
        kept = [str(volume.name) for volume in far.volumes.list() if str(volume.name).endswith("-data")]
        assert f"{volumes}postgres-data" in kept
        assert all(name in said for name in kept), "what is kept is said"
        typed(there, f"make destroy-data ARGS='--confirm {there.name}'")
        assert not [one.name for one in far.volumes.list() if str(one.name).startswith(volumes)], "its data is there"
