"""A real stack, changed by hand in every way that `samokoder drift` is there for, and put right as it says."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from operations.audit.drift import repairs
from operations.audit.drift.detect import find_drift
from operations.audit.drift.difference import Difference
from operations.errors import ProjectError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from tests.live.conftest import prometheus
from tests.live.test_the_stack import until


@pytest.fixture(scope="module")
def changed(engine: docker.DockerClient, new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A stack of its own: the shared one has a stranger on its networks, the LLM's stand-in."""
    workspace = new_workspace()
    bring_up(workspace, interactive=False)
    yield workspace
    for stranger in engine.containers.list(all=True, filters={"name": f"^/{workspace.settings().prefix}-debug$"}):
        stranger.remove(force=True)  # of a test that failed: its network could not be removed
    destroy_data(workspace, interactive=False)


def found(workspace: Workspace) -> set[tuple[str, str, str, str]]:
    prefix = f"{workspace.settings().prefix}-"
    return {
        (each.name.removeprefix(prefix), each.field.replace(prefix, ""), each.declared, each.found)
        for each in find_drift(workspace)
    }


def made_again(container: Container, **changed: Any) -> None:
    """Replace a container by one that is like it but for something in its `Config`, as a person's script would."""
    client = container.client
    assert client is not None
    attributes = container.attrs
    endpoints = {
        name: {"Aliases": [alias for alias in endpoint["Aliases"] or () if alias != str(container.id)[:12]]}
        for name, endpoint in attributes["NetworkSettings"]["Networks"].items()
    }
    container.stop()
    container.remove()
    first = next(iter(endpoints))
    config = {
        **attributes["Config"],
        **changed,
        "HostConfig": attributes["HostConfig"],
        "NetworkingConfig": {"EndpointsConfig": {first: endpoints[first]}},
    }
    config["HostConfig"]["NetworkMode"] = first
    api: Any = client.api  # of this one the SDK has no types
    made = api.create_container_from_config(config, str(container.name))
    for name, endpoint in endpoints.items():
        if name != first:
            client.networks.get(name).connect(made["Id"], aliases=endpoint["Aliases"])
    client.api.start(made["Id"])


def put_right(workspace: Workspace, findings: Sequence[Difference]) -> None:
    """Repair by the one command; type of what nobody declared what the findings say."""
    repairs.repair(workspace, findings, interactive=False)
    left = find_drift(workspace)
    assert {each.name for each in left} == {each.name for each in findings if each.unknown}, "all else is as declared"
    for line in dict.fromkeys(each.repair.rpartition("# once nobody needs it: ")[2] for each in left):
        subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL)  # noqa: S602 - as a person does


def file(name: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(text.encode()), 0o444
        archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_an_environment_that_is_not_up_is_an_error_and_no_drift(new_workspace: Callable[[], Workspace]) -> None:
    with pytest.raises(ProjectError, match="is not up: make up"):
        find_drift(new_workspace())


def test_a_stack_that_nobody_touched_has_no_drift(changed: Workspace) -> None:
    assert found(changed) == set(), "what was just made is what is declared"


def test_each_change_by_hand_is_found_told_to_prometheus_and_gone_after_what_it_says_to_type(
    changed: Workspace, engine: docker.DockerClient
) -> None:
    environment = changed.settings()
    prefix = environment.prefix

    def container(part: str) -> Container:
        return engine.containers.get(f"{prefix}-{part}")

    container("redis-exporter").update(mem_limit="128m", memswap_limit="128m")
    carrier = next(
        str(mount["Name"]) for mount in container("blackbox-exporter").attrs["Mounts"] if "-files-" in mount["Name"]
    )
    engine.containers.get(carrier).put_archive("/files", file("blackbox.yml", "modules: {}"))
    made_again(
        container("postgres-exporter"),
        Env=[*container("postgres-exporter").attrs["Config"]["Env"], "DEBUG_TOKEN=hunter2hunter2"],
        Labels={**container("postgres-exporter").labels, "debug": "yes"},
    )
    engine.networks.get(f"{prefix}-data").connect(container("alertmanager"))
    engine.networks.get(f"{prefix}-monitoring").disconnect(container("cadvisor"))
    container("redis-users").remove(force=True)
    container("worker").stop()
    engine.volumes.create(f"{prefix}-loot")
    engine.containers.run(
        container("redis").attrs["Image"],
        entrypoint=["sleep", "600"],
        name=f"{prefix}-debug",
        network=f"{prefix}-data",
        detach=True,
    )

    findings = find_drift(changed)

    told = {(each.name.removeprefix(f"{prefix}-"), each.field.replace(f"{prefix}-", "")): each for each in findings}
    mode = ("postgres-exporter", "network mode")  # an engine takes one network at a creation, and calls it the mode
    assert told.keys() - {mode} == {
        ("redis-exporter", "memory"),
        ("redis-exporter", "memory swap"),
        ("blackbox-exporter", "file blackbox.yml"),
        ("postgres-exporter", "variable DEBUG_TOKEN"),
        ("postgres-exporter", "label debug"),
        ("alertmanager", "network data"),
        ("cadvisor", "network monitoring"),
        ("redis-users", ""),
        ("worker", "state"),
        ("loot", ""),
        ("debug", ""),
    }, "each change by its finding, and nothing else"
    assert "hunter2" not in str(findings), "what somebody has typed may be a secret"

    def value(metric: str) -> list[str]:
        return [sample["value"][1] for sample in prometheus(environment, "query", query=metric)["result"]]

    told_to_prometheus = [str(len(findings))]
    assert until(lambda: value("stack_drift_findings"), lambda found: found == told_to_prometheus) == told_to_prometheus
    firing = 'ALERTS{alertname="StackDrifted",alertstate="firing"}'
    assert until(lambda: value(firing), bool), "somebody must be told"

    put_right(changed, findings)
    assert found(changed) == set(), "after what the findings say to type there is none"
    kept = 360  # the rule keeps firing for four minutes, so that a silence of the samples is no end
    assert until(lambda: value(firing), lambda found: not found, kept) == [], "and the alert ends"


def test_a_network_and_a_carrier_that_were_removed_come_back_by_up(
    changed: Workspace, engine: docker.DockerClient
) -> None:
    prefix = changed.settings().prefix
    frontier = engine.networks.get(f"{prefix}-app")
    for each in frontier.attrs["Containers"] or engine.networks.get(str(frontier.id)).attrs["Containers"]:
        frontier.disconnect(each)
    frontier.remove()
    carrier = next(
        str(mount["Name"])
        for mount in engine.containers.get(f"{prefix}-prometheus").attrs["Mounts"]
        if "-files-" in mount["Name"]
    )
    engine.containers.get(carrier).remove()

    rows = find_drift(changed)

    gone = {each.name.removeprefix(f"{prefix}-") for each in rows if not each.field}
    assert gone == {"app", carrier.removeprefix(f"{prefix}-")}
    fields = {each.field for each in rows if each.field}
    assert fields == {f"network {prefix}-app"}, "and whoever was on it"
    put_right(changed, rows)
    assert found(changed) == set()


def test_an_up_right_after_all_parts_were_started_at_once_waits_for_them(
    changed: Workspace, engine: docker.DockerClient
) -> None:
    prefix = changed.settings().prefix
    parts = ["postgres", "redis", "api-1", "api-2", "worker"]
    with ThreadPoolExecutor() as pool:  # as the engine does after a power cut
        list(pool.map(lambda part: engine.containers.get(f"{prefix}-{part}").restart(timeout=0), parts))

    upped = bring_up(changed, interactive=False)

    ill = {row.part: row.health for row in upped.parts if row.counts_as_failed}
    assert not ill, "what is healthy ten seconds later is not ill, and a script that brings it up must not end with 1"
