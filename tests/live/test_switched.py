"""Every optional part of one stack is switched off, on and off again, and what was written is there each time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import docker
import httpx
import pytest

from operations.checks.smoke import smoke
from operations.data import backups
from operations.engine import containers, one_off
from operations.engine.commands import execute
from operations.engine.part_status import NOT_AVAILABLE
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.down import destroy_data
from operations.lifecycle.preview import show_preview
from operations.lifecycle.up import bring_up
from operations.workspace import pulumi_state
from operations.workspace.workspace import Workspace
from stack.common.names import NetworkName
from stack.settings.environment import Environment
from tests.live import bucket
from tests.live.conftest import no_limits, url, with_config, with_secrets
from tests.live.test_managed import PATIENCE_SECONDS, Servers, bridge_address
from tests.live.test_managed import servers as servers  # noqa: PLC0414 - a fixture
from tests.traefik import address_on, traefiks_network

pytestmark = pytest.mark.timeout(1500)

SWITCHED = frozenset(
    {"postgres", "postgres-roles", "redis", "redis-users", "backup", "drill", "workspace", "frontend", "ingress"}
)
#: Those of them that have data.
KEPT = ("backup", "caddy", "postgres", "redis", "workspace")
IN_QUEUE = (
    "import asyncio, sys\nfrom samokoder.backends import make_queue\nfrom samokoder.settings import settings_or_exit\n"
    "async def ask():\n    queue = make_queue(settings_or_exit())\n"
    "    print(await queue.{what})\nasyncio.run(ask())"
)


@dataclass(frozen=True)
class Ways:
    """One environment with every optional part, and with none of them."""

    on: Workspace
    off: Workspace
    network: str


@pytest.fixture(scope="module")
def offsite(engine: docker.DockerClient, local_images: Environment) -> Iterator[dict[str, str]]:
    """A bucket outside of the stack, as its settings name it."""
    address = bridge_address(engine)
    with bucket.machine(engine, local_images, address=address) as machine:
        machine.reload()
        port = machine.ports[f"{bucket.PORT}/tcp"][0]["HostPort"]  # type: ignore[index]
        yield {**bucket.OFFSITE, "endpoint": f"http://{address}:{port}"}


@pytest.fixture(scope="module")
def ways(
    new_workspace: Callable[[], Workspace], engine: docker.DockerClient, servers: Servers, offsite: dict[str, str]
) -> Iterator[Ways]:
    base = with_config(new_workspace(), {"samokoder:api": {"replicas": 1, "environment": no_limits()}})
    on = with_config(
        with_secrets(base, bucket.KEYS),
        {
            "samokoder:workspace": {"path": "/app/workspace"},
            "samokoder:frontend": {"enabled": True},
            "samokoder:backup": {"offsite": offsite},
        },
    )
    name = f"traefik-of-{base.name}"
    with traefiks_network(engine, name, {"samokoder.test": base.name}) as (network, address):
        entry = {"network": name, "address": address, "entrypoint": "web", "certResolver": ""}
        off = with_secrets(base, dict(servers.urls))
        off = with_config(
            off,
            {
                "samokoder:backup": {"enabled": False},
                "samokoder:ingress": {"kind": "traefik", "domain": "samokoder.example.org", "traefik": entry},
            },
        )
        certificates = {
            "samokoder:managedDatabaseCa": servers.authorities["postgres"],
            "samokoder:managedRedisCa": servers.authorities["redis"],
        }
        off = replace(off, extra_config={**off.extra_config, **certificates})
        yield Ways(on, off, str(network.name))
        destroy_data(off, interactive=False)


def copy_offsite(engine: docker.DockerClient, workspace: Workspace) -> None:
    """Copy the backups into the bucket, under the key that this environment has, once no job of its own is at it."""
    container = containers.find(engine, workspace.settings(), "backup")
    end = time.monotonic() + PATIENCE_SECONDS
    while (answer := execute(container, [one_off.PROGRAM, "offsite", "sync"]))[0]:
        assert time.monotonic() < end, answer[1].decode()
        time.sleep(2)


def up(workspace: Workspace) -> set[str]:
    """Bring it up and return its parts, each of which is well."""
    rows = bring_up(workspace, interactive=False).parts
    assert not [row for row in rows if row.counts_as_failed], rows
    return {row.part for row in rows if row.state != NOT_AVAILABLE}


def run_in(engine: docker.DockerClient, workspace: Workspace, part: str, *command: str) -> str:
    status, said = execute(containers.find(engine, workspace.settings(), part), command)
    assert status == 0, said.decode()
    return said.decode().strip()


def api_behind_traefik(engine: docker.DockerClient, ways: Ways) -> str:
    api = containers.find(engine, ways.off.settings(), "api-1")
    return f"http://{address_on(api, engine.networks.get(ways.network))}:8000"


def write(base: str, name: str) -> None:
    httpx.post(f"{base}/projects", json={"name": name}, timeout=60, trust_env=False).raise_for_status()


def names(base: str) -> list[str]:
    return [row["name"] for row in httpx.get(f"{base}/projects", timeout=60, trust_env=False).json()]


def data(engine: docker.DockerClient, workspace: Workspace) -> dict[str, str]:
    """Return the data volumes that the state knows and that are there: which one -> its name on the engine."""
    known = pulumi_state.data_volumes(workspace.open().deployment())
    return {name: str(engine.volumes.get(volume).name) for name, volume in known.items()}


def test_each_optional_part_goes_and_comes_back_to_its_own_data(
    ways: Ways, engine: docker.DockerClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(ways.on) >= SWITCHED
    ingress = url(ways.on.settings(), "ingress")
    write(ingress, "at the local one")
    run_in(engine, ways.on, "worker", "python", "-c", IN_QUEUE.format(what="set('of-the-test', 'kept')"))
    run_in(engine, ways.on, "worker", "sh", "-c", "echo kept > /app/workspace/of-the-test")
    backups.now(ways.on, "dump")
    dumps = {each.id for each in backups.backups(ways.on)[0] if each.kind == "dump"}
    copy_offsite(engine, ways.on)
    made = data(engine, ways.on)
    assert set(KEPT) <= made.keys()

    with pytest.raises(PulumiFailedError, match="protect"):
        # Nothing has been asked of the state yet: so it ends where only the settings are followed.
        ways.off.open().pulumi("preview", "--suppress-outputs", capture=True)
    capsys.readouterr()
    assert not SWITCHED & up(ways.off)
    said = capsys.readouterr()
    told = said.out + said.err
    for name in KEPT:
        line = f"{name} is switched off: its data stays in the volume samokoder-{ways.on.name}-{name}-data"
        assert line in told, f"nobody was told where the data of {name} is: {told}"
    assert data(engine, ways.off) == made, "a part that leaves must not take its data along"
    behind = api_behind_traefik(engine, ways)
    assert names(behind) == [], "a managed database has its own rows"
    write(behind, "at the managed one")
    ways.off.open().pulumi("preview", "--expect-no-changes", "--suppress-outputs", capture=True)
    networks = [n.name for n in engine.networks.list(names=[f"samokoder-{ways.on.name}-"])]
    assert len(networks) == len(NetworkName)

    assert up(ways.on) >= SWITCHED
    assert data(engine, ways.on) == made, "the way back leads to the same volumes"
    assert names(ingress) == ["at the local one"]
    kept = run_in(engine, ways.on, "worker", "python", "-c", IN_QUEUE.format(what="get('of-the-test')"))
    assert "kept" in kept, "Redis came back without what it had"
    assert run_in(engine, ways.on, "worker", "cat", "/app/workspace/of-the-test") == "kept"
    backups.now(ways.on, "dump")
    copy_offsite(engine, ways.on)  # with another key the copies from before could not be opened
    listed = {each.id: each.status for each in backups.backups(ways.on)[0]}
    assert dumps <= listed.keys(), "the backups from before are gone"
    assert set(listed.values()) <= {"good", "made"}, listed
    write(ingress, "back at the local one")
    whole = smoke.smoke(ways.on, wait=PATIENCE_SECONDS)
    assert not whole.failed, whole.as_json()


def test_switched_off_again_each_finds_the_managed_one_as_it_was(ways: Ways, engine: docker.DockerClient) -> None:
    """Goes on from the test above, where every optional part runs."""
    before = data(engine, ways.on)
    assert not SWITCHED & up(ways.off)
    assert names(api_behind_traefik(engine, ways)) == ["at the managed one"]
    assert data(engine, ways.off) == before


def test_another_volume_in_the_place_of_one_with_data_is_refused_before_anything_is_replaced(
    ways: Ways, engine: docker.DockerClient
) -> None:
    """Goes on from the test above, where nothing optional runs."""
    before = containers.ids(engine, ways.off.name)
    other = with_config(ways.on, {"samokoder:postgres": {"adoptVolume": "somebody-elses"}})
    for change in (bring_up, show_preview):
        with pytest.raises(ProjectError, match=rf"samokoder-{ways.on.name}-postgres-data"):
            change(other, interactive=False)
    assert containers.ids(engine, ways.off.name) == before, "half of the parts were replaced before the refusal"
