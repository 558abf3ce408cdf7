"""Drift, over what a real engine and a real state have said. With a real engine: tests/live/test_drift.py."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from host.progress import Reporter
from operations import __main__ as command
from operations.audit.drift import detect, repairs
from operations.audit.drift.actual import read_engine
from operations.audit.drift.compare import compare
from operations.audit.drift.declared import read_state
from operations.audit.drift.difference import Difference, Typed
from operations.audit.drift.preview import read_preview
from operations.data.restore import unfinished
from operations.engine.part_status import PartStatus
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle import up as lifecycle_up
from operations.workspace import lock
from operations.workspace.pulumi_state import SECRET_MARK
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from stack.settings.reading import read_environment
from tests import recorded

TYPED = Typed(docker="docker", up="make up")
STRANGER = Difference(name="debug", field="", declared="nothing", found="a container", repair="docker rm --force debug")
PREFIX = f"samokoder-{recorded.ENVIRONMENT}"
API = f"{PREFIX}-api-1"
World = dict[str, Any]
Change = Callable[[World], object]


def environment() -> Environment:
    return read_environment(recorded.ENVIRONMENT, {})


def of_engine(world: World) -> docker.DockerClient:
    """An engine that says what was recorded; a carrier's files are what was uploaded, unless the world has `files`."""
    wanted = read_state(world["deployment"])
    contents: dict[str, dict[str, tuple[bytes, int]]] = world.get("files") or uploaded(world)

    def archive(container: dict[str, Any]) -> Callable[[str], tuple[list[bytes], dict[str, Any]]]:
        def get(path: str) -> tuple[list[bytes], dict[str, Any]]:
            volume = next(mount["Name"] for mount in container["Mounts"] if mount["Destination"] == path)
            return [tar(path.rpartition("/")[2], contents[volume])], {}

        return get

    def named(rows: list[dict[str, Any]]) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=row["Name"], attrs=row) for row in rows]

    def placed(volume: dict[str, Any]) -> dict[str, Any]:
        return {"Mountpoint": f"/var/lib/docker/volumes/{volume['Name']}/_data", **volume}

    containers = [
        SimpleNamespace(
            name=each["Name"].lstrip("/"), attrs=each, labels=each["Config"]["Labels"] or {}, get_archive=archive(each)
        )
        for each in world["containers"]
    ]
    assert wanted.containers, "the recording has no container"
    return cast(
        "docker.DockerClient",
        SimpleNamespace(
            containers=SimpleNamespace(list=lambda **_: containers),
            networks=SimpleNamespace(list=lambda **_: named(world["networks"])),
            volumes=SimpleNamespace(list=lambda **_: named([*map(placed, world["volumes"])])),
            images=SimpleNamespace(get=lambda image: SimpleNamespace(attrs=world["images"][image])),
        ),
    )


def uploaded(world: World) -> dict[str, dict[str, tuple[bytes, int]]]:
    """Volume -> path -> content and mode, as the carriers were told."""
    files = {}
    for inputs in read_state(world["deployment"]).containers.values():
        if inputs.get("uploads"):
            files[inputs["volumes"][0]["volumeName"]] = {
                upload["file"].removeprefix("/files/"): (upload["content"].encode(), int(upload["permissions"], 8))
                for upload in inputs["uploads"]
            }
    return files


def tar(folder: str, files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(folder) if not folder else _folder(folder))
        for path, (content, mode) in files.items():
            member = tarfile.TarInfo(f"{folder}/{path}")
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _folder(name: str) -> tarfile.TarInfo:
    folder = tarfile.TarInfo(name)
    folder.type = tarfile.DIRTYPE
    return folder


def findings(world: World) -> list[Difference]:
    wanted = read_state(world["deployment"])
    return compare(wanted, read_engine(of_engine(world), wanted, environment(), lambda _: None), environment(), TYPED)


def found(change: Change) -> list[tuple[str, str, str, str]]:
    """What is found after a change: container, field, declared, found."""
    world = recorded.recorded()
    change(world)
    return [(each.name, each.field, each.declared, each.found) for each in findings(world)]


def api(world: World) -> dict[str, Any]:
    return recorded.container(world, "api-1")


@pytest.mark.parametrize("option", ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"])
def test_every_way_to_say_that_nothing_gains_privileges_is_the_same(option: str) -> None:
    """An environment that was made before says it with a colon."""
    assert found(lambda world: api(world)["HostConfig"].update(SecurityOpt=[option])) == []


def test_what_pulumi_made_has_no_drift() -> None:
    assert found(lambda _: None) == [], "a comparison that cries is switched off"


@pytest.mark.parametrize(
    ("key", "value", "field", "declared", "now"),
    [
        ("Memory", 512 * 2**20, "memory", "384 MiB", "512 MiB"),
        ("MemorySwap", -1, "memory swap", "384 MiB", "-1"),
        ("MemoryReservation", 2**27, "memory reservation", "0", "128 MiB"),
        ("NanoCpus", 2 * 10**9, "cpus", "1", "2"),
        ("CpuShares", 512, "cpu shares", "0", "512"),
        ("CpusetCpus", "0", "cpuset", "none", "0"),
        ("PidsLimit", 100, "pids limit", "0", "100"),
        ("ShmSize", 2**20, "shm size", "64 MiB", "1 MiB"),
        ("RestartPolicy", {"Name": "no", "MaximumRetryCount": 0}, "restart", "unless-stopped", "no"),
        ("RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}, "restart", "unless-stopped", "on-failure:3"),
        ("Privileged", True, "privileged", "no", "yes"),
        ("ReadonlyRootfs", False, "read only", "yes", "no"),
        ("Init", False, "init", "yes", "no"),
        ("CapAdd", ["NET_ADMIN"], "capabilities added", "none", "CAP_NET_ADMIN"),
        ("CapDrop", None, "capabilities dropped", "ALL", "none"),
        ("SecurityOpt", None, "security options", "no-new-privileges=true", "none"),
        ("GroupAdd", ["docker"], "groups", "none", "docker"),
        ("PidMode", "host", "pid mode", "none", "host"),
        ("IpcMode", "host", "ipc mode", "private", "host"),
        ("UTSMode", "host", "uts mode", "none", "host"),
        ("UsernsMode", "host", "userns mode", "none", "host"),
        ("CgroupParent", "/x", "cgroup parent", "none", "/x"),
        ("ExtraHosts", ["db:192.0.2.7"], "extra hosts", "none", "db:192.0.2.7"),
        ("Dns", ["192.0.2.7"], "dns", "none", "192.0.2.7"),
        ("DnsSearch", ["example.org"], "dns search", "none", "example.org"),
        ("Sysctls", {"net.core.somaxconn": "1"}, "sysctl net.core.somaxconn", "nothing", "1"),
        ("Tmpfs", {"/tmp": "rw"}, "tmpfs /tmp", "rw,noexec,nosuid,nodev,size=16m", "rw"),  # noqa: S108
        (
            "Ulimits",
            [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
            "ulimit nproc",
            "4096:4096",
            "nothing",
        ),
        ("PortBindings", {"8000/tcp": [{"HostIp": "", "HostPort": "80"}]}, "port 8000/tcp", "nothing", ":80"),
        (
            "Devices",
            [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}],
            "device /dev/sda",
            "nothing",
            "/dev/sda rwm",
        ),
        ("LogConfig", {"Type": "none", "Config": {}}, "log driver", "json-file", "none"),
    ],
)
def test_an_option_that_somebody_has_changed_is_found(
    key: str, value: Any, field: str, declared: str, now: str
) -> None:
    rows = found(lambda world: api(world)["HostConfig"].update({key: value}))
    if key == "LogConfig":
        rows = [row for row in rows if row[1] == field]  # its options are gone with the driver
    assert rows == [(API, field, declared, now)]


@pytest.mark.parametrize(
    ("key", "value", "field", "declared", "now"),
    [
        ("User", "0:0", "user", "10001:10001", "0:0"),
        ("Hostname", "other", "hostname", "api-1", "other"),
        ("WorkingDir", "/", "working dir", "/app", "/"),
        ("Cmd", ["sh"], "command", "uvicorn samokoder.main:app --host 0.0.0.0 --port 8000", "sh"),
        ("Entrypoint", ["sh", "-c"], "entrypoint", "none", "sh -c"),
        ("StopSignal", "SIGKILL", "stop signal", "SIGTERM", "SIGKILL"),
        ("StopTimeout", 1, "stop timeout", "45", "1"),
    ],
)
def test_what_it_runs_and_as_whom_is_compared(key: str, value: Any, field: str, declared: str, now: str) -> None:
    assert found(lambda world: api(world)["Config"].update({key: value})) == [(API, field, declared, now)]


def test_a_health_check_that_was_switched_off_is_found() -> None:
    rows = found(lambda world: api(world)["Config"].update(Healthcheck={"Test": ["NONE"]}))
    assert {row[1] for row in rows} == {
        f"health check {each}" for each in ("test", "interval", "timeout", "start period", "retries")
    }


def test_another_start_interval_is_found_and_an_engine_that_knows_none_is_no_drift() -> None:
    assert found(lambda world: api(world)["Config"]["Healthcheck"].pop("StartInterval", None)) == []
    rows = found(lambda world: api(world)["Config"]["Healthcheck"].update(StartInterval=2_000_000_000))
    assert [row[1] for row in rows] == ["health check start interval"], rows


def test_a_variable_is_found_and_a_value_that_nobody_declared_is_not_shown() -> None:
    def change(world: World) -> None:
        lines: list[str] = api(world)["Config"]["Env"]
        lines[lines.index("REDIS_PORT=6379")] = "REDIS_PORT=6380"
        lines.remove("REDIS_HOST=redis")
        lines.append("AWS_SECRET_ACCESS_KEY=hunter2hunter2")

    assert found(change) == [
        (API, "variable AWS_SECRET_ACCESS_KEY", "nothing", "a secret"),
        (API, "variable REDIS_HOST", "redis", "nothing"),
        (API, "variable REDIS_PORT", "6379", "6380"),
    ]


def test_no_value_is_shown_of_a_container_that_has_a_secret_in_a_variable() -> None:
    def change(world: World) -> None:
        resource = next(each for each in world["deployment"]["resources"] if each["inputs"].get("name") == API)
        lines = [*resource["inputs"]["envs"], "SECRET_KEY=declared-secret"]
        resource["inputs"]["envs"] = {SECRET_MARK: "…", "plaintext": json.dumps(lines)}
        api(world)["Config"]["Env"].append("SECRET_KEY=found-secret")

    assert found(change) == [(API, "variable SECRET_KEY", "a secret", "a secret")]


def test_a_label_is_found() -> None:
    rows = found(lambda world: api(world)["Config"]["Labels"].update({"traefik.enable": "true"}))
    assert rows == [(API, "label traefik.enable", "nothing", "true")]


def test_another_image_under_the_same_name_is_found() -> None:
    def change(world: World) -> None:
        other = "sha256:" + "1" * 64
        world["images"][other] = world["images"][api(world)["Image"]]
        api(world)["Image"] = other

    assert [row[:2] for row in found(change)] == [(API, "image id")], "a tag may have been moved"


def test_a_network_more_and_one_less_is_found_and_how_to_leave_it() -> None:
    world = recorded.recorded()
    networks = api(world)["NetworkSettings"]["Networks"]
    del networks[f"{PREFIX}-monitoring"]
    networks["bridge"] = {"Aliases": None}
    rows = {each.field: each for each in findings(world)}
    assert rows.keys() == {"network bridge", f"network {PREFIX}-monitoring"}
    assert rows["network bridge"].repair == f"docker network disconnect bridge {API}"
    assert rows[f"network {PREFIX}-monitoring"].repair == f"docker stop {API} && docker rm {API} && make up"


def test_an_alias_that_is_gone_is_found() -> None:
    network = f"{PREFIX}-app"
    rows = found(lambda world: api(world)["NetworkSettings"]["Networks"][network].update(Aliases=["api-1"]))
    assert rows == [(API, f"network {network}", "api api-1", "api-1")], "who asks for `api` no longer finds it"


def test_a_mount_more_and_one_that_may_be_written_is_found() -> None:
    def change(world: World) -> None:
        mounts = api(world)["Mounts"]
        mounts[0]["RW"] = True
        mounts.append({"Type": "bind", "Source": "/etc", "Destination": "/host", "RW": True})

    files = f"{API}-files-ac385fb1f3b0"
    assert found(change) == [
        (API, "mount /host", "nothing", "/etc (writable)"),
        (API, "mount /run/secrets", f"{files} (read-only)", f"{files} (writable)"),
    ]


def test_a_file_with_another_content_or_mode_one_more_and_one_less_is_found_and_not_shown() -> None:
    world = recorded.recorded()
    files = uploaded(world)
    volume = f"{API}-files-ac385fb1f3b0"
    files[volume]["secret_key"] = (b"hunter2hunter2", 0o444)
    files[volume]["redis_password"] = (files[volume]["redis_password"][0], 0o666)
    files[volume]["backdoor"] = (b"#!/bin/sh", 0o755)
    del files[volume]["openai_api_key"]
    world["files"] = files
    rows = findings(world)
    assert {(each.name, each.field, each.declared, each.found) for each in rows} == {
        (API, "file backdoor", "nothing", "a file"),
        (API, "file openai_api_key", "a file", "nothing"),
        (API, "file redis_password", "mode 444", "mode 666"),
        (API, "file secret_key", "a file", "another content"),
    }, "a digest lets a weak secret be guessed"
    assert {each.repair for each in rows} == {
        f"docker stop {API} {volume} && docker rm {API} {volume} && docker volume rm {volume} && make up"
    }, "its carrier and its volume go with it, or the changed file stays"
    assert "hunter2" not in str(rows), "it may be a secret"


def test_of_a_file_without_secrets_beside_it_both_digests_are_shown() -> None:
    world = recorded.recorded()
    files = uploaded(world)
    files[f"{PREFIX}-ingress-files-d82f9a078002"]["Caddyfile"] = (b":80", 0o444)
    world["files"] = files
    (row,) = findings(world)
    assert row.field == "file Caddyfile"
    assert [each.split()[0] for each in (row.declared, row.found)] == ["SHA-256", "SHA-256"]
    assert row.declared != row.found


def test_a_container_that_is_gone_or_stopped_is_found() -> None:
    assert found(lambda world: world["containers"].remove(api(world))) == [(API, "", "a container", "nothing")]
    rows = found(lambda world: api(world)["State"].update(Running=False, Status="exited"))
    assert rows == [(API, "state", "running", "stopped")]


def test_a_network_and_a_volume_that_are_gone_are_found() -> None:
    network, volume = f"{PREFIX}-monitoring", f"{PREFIX}-caddy-data"

    def change(world: World) -> None:
        for key, name in (("networks", network), ("volumes", volume)):
            world[key] = [each for each in world[key] if each["Name"] != name]

    assert found(change) == [(volume, "", "a volume", "nothing"), (network, "", "a network", "nothing")]


def test_a_network_with_a_way_out_that_has_none_declared_is_found() -> None:
    def change(world: World) -> None:
        next(each for each in world["networks"] if each["Name"] == f"{PREFIX}-data")["Internal"] = False

    assert found(change) == [(f"{PREFIX}-data", "internal", "yes", "no")]


def test_a_network_with_ipv6_that_has_none_declared_is_found() -> None:
    def change(world: World) -> None:
        next(each for each in world["networks"] if each["Name"] == f"{PREFIX}-edge")["EnableIPv6"] = True

    assert found(change) == [(f"{PREFIX}-edge", "ipv6", "no", "yes")], "its containers are reached by another way"


def stranger(world: World, name: str, *, labels: dict[str, str] | None = None, network: str = "bridge") -> None:
    other = json.loads(json.dumps(recorded.container(world, "cadvisor")))
    other["Name"], other["Config"]["Labels"], other["Mounts"] = f"/{name}", labels or {}, []
    other["NetworkSettings"]["Networks"] = {network: {"Aliases": None}}
    world["containers"].append(other)


@pytest.mark.parametrize(
    ("name", "labels", "network", "repair"),
    [
        (f"{PREFIX}-debug", {}, "bridge", f"docker rm --force {PREFIX}-debug"),
        ("debug", {"samokoder.environment": recorded.ENVIRONMENT}, "bridge", "docker rm --force debug"),
        ("debug", {}, f"{PREFIX}-data", f"docker network disconnect {PREFIX}-data debug"),
        (
            "samokoder-other-api",
            {"samokoder.environment": "other"},
            f"{PREFIX}-data",
            f"docker network disconnect {PREFIX}-data samokoder-other-api",
        ),
        # The name of `staging-2` begins like those of `staging`: what is its own must not be removed.
        (
            f"{PREFIX}-2-api-1",
            {"samokoder.environment": f"{recorded.ENVIRONMENT}-2"},
            f"{PREFIX}-data",
            f"docker network disconnect {PREFIX}-data {PREFIX}-2-api-1",
        ),
    ],
)
def test_a_container_that_nobody_declared_is_found(
    name: str, labels: dict[str, str], network: str, repair: str
) -> None:
    world = recorded.recorded()
    stranger(world, name, labels=labels, network=network)
    rows = findings(world)
    assert [(each.name, each.field, each.declared, each.repair) for each in rows] == [(name, "", "nothing", repair)]


def test_a_stranger_inside_a_part_or_with_its_secrets_is_found_although_it_is_on_no_network() -> None:
    world = recorded.recorded()
    api = recorded.container(world, "api-1")
    (secrets,) = (each["Name"] for each in api["Mounts"] if "files" in each.get("Name", ""))
    for name in ("inside", "processes", "named", "memory", "mounts", "folder", "above", "volume", "overlay"):
        stranger(world, name)
        other = world["containers"][-1]
        other["Id"], other["Mounts"], other["HostConfig"]["PidMode"] = f"id of {name}", [], ""
        other["NetworkSettings"]["Networks"] = {}
    inside, processes, named, memory, mounts, folder, above, volume, overlay = world["containers"][-9:]
    inside["HostConfig"]["NetworkMode"] = processes["HostConfig"]["PidMode"] = f"container:{api['Id']}"
    named["HostConfig"]["PidMode"] = f"container:{API}"
    # The first that it shares is somebody else's, the next one a part's.
    memory["HostConfig"] |= {"NetworkMode": f"container:{folder['Id']}", "IpcMode": f"container:{api['Id'][:12]}"}
    mounts["Mounts"] = [{"Type": "volume", "Name": secrets, "Destination": "/x", "RW": False}]
    for each, source in ((folder, f"{secrets}/_data"), (above, secrets)):
        bound = {"Type": "bind", "Source": f"/var/lib/docker/volumes/{source}", "Destination": "/x", "RW": False}
        each["Mounts"] = [bound]
    # A volume of the stranger's own, whose content is the folder of ours.
    data = f"/var/lib/docker/volumes/{secrets}/_data"
    layers = {"type": "overlay", "o": f"lowerdir=/empty:{data}", "device": "overlay"}
    for each, name, options in (
        (volume, "spy", {"type": "none", "o": "bind", "device": data}),
        (overlay, "layers", layers),
    ):
        world["volumes"].append({"Name": name, "Options": options})
        own = f"/var/lib/docker/volumes/{name}/_data"
        each["Mounts"] = [{"Type": "volume", "Name": name, "Source": own, "Destination": "/x", "RW": False}]
    told = {each.name: (each.found, each.repair) for each in findings(world)}
    within, held = f"a container on the inside of {API}", f"a container with {secrets}"
    wanted = dict.fromkeys(("inside", "processes", "named", "memory"), within)
    wanted |= dict.fromkeys(("mounts", "folder", "above", "volume", "overlay"), held)
    assert told == {name: (found, f"docker rm --force {name}") for name, found in wanted.items()}


@pytest.mark.parametrize("folder", ["/", "/var", "/var/lib/docker", "/var/lib/docker/volumes", "/var/lib/docker/"])
@pytest.mark.parametrize("by_volume", [False, True])
def test_a_stranger_that_mounts_a_folder_with_every_volume_is_found(folder: str, by_volume: bool) -> None:
    world = recorded.recorded()
    stranger(world, "agent")
    mount = {"Type": "bind", "Source": folder, "Destination": "/x", "RW": False}
    if by_volume:
        world["volumes"].append({"Name": "harmless", "Options": {"type": "none", "o": "bind", "device": folder}})
        place = "/var/lib/docker/volumes/harmless/_data"
        mount = {"Type": "volume", "Name": "harmless", "Source": place, "Destination": "/x", "RW": False}
    world["containers"][-1]["Mounts"] = [mount]
    (row,) = findings(world)
    assert (row.name, row.found) == ("agent", f"a container with {folder} of the host, where every volume is")
    assert row.repair == "docker inspect agent  # once nobody needs it: docker rm --force agent", (
        "it may be the host's own backup"
    )
    assert not row.steps, "a repair never takes away what nobody declared"


@pytest.mark.parametrize(
    "folder",
    ["/var/lib/docker/containers", "/etc", "/var/lib/docker/volumes-old", "/var/lib/docker/volumes/own/_data", "/v"],
)
def test_a_folder_beside_the_volumes_is_nobodys_concern(folder: str) -> None:
    def change(world: World) -> None:
        stranger(world, "agent")
        world["volumes"].append({"Name": "own"})
        world["containers"][-1]["Mounts"] = [{"Type": "bind", "Source": folder, "Destination": "/x", "RW": True}]

    assert found(change) == []


@pytest.mark.parametrize(
    ("name", "writes", "is_found"),
    [
        ("samokoder-other-cadvisor", False, False),
        ("samokoder-other-node-exporter", False, False),
        ("samokoder-other-node-exporter", True, True),
        ("samokoder-other-api-1", False, True),
        ("cadvisor", False, True),
    ],
)
def test_what_measures_the_host_for_another_environment_is_no_finding(name: str, writes: bool, is_found: bool) -> None:
    def change(world: World) -> None:
        stranger(world, name, labels={"samokoder.environment": "other"})
        world["containers"][-1]["Mounts"] = [{"Type": "bind", "Source": "/", "Destination": "/host", "RW": writes}]

    assert bool(found(change)) is is_found, "two environments on one engine would each call the other an intruder"


@pytest.mark.parametrize(("runs", "is_found"), [(["/bin/cat"], True), (None, False)], ids=["another", "the same"])
def test_another_program_that_calls_itself_what_measures_the_host_is_found(
    runs: list[str] | None, is_found: bool
) -> None:
    def change(world: World) -> None:
        stranger(world, "samokoder-x-cadvisor", labels={"samokoder.environment": "x"})
        container = world["containers"][-1]
        own = recorded.container(world, "cadvisor")
        container["Mounts"] = [{"Type": "bind", "Source": "/var/lib/docker", "Destination": "/d", "RW": False}]
        container["Image"] = "sha256:other"  # another environment has another version between two deploys
        container["Config"]["Entrypoint"] = runs or own["Config"].get("Entrypoint")
        world["images"]["sha256:other"] = world["images"][own["Image"]]

    assert bool(found(change)) is is_found, "it reads every secret's volume, and nobody is told"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("somebody-elses", {}),
        ("samokoder-other-api-1", {"samokoder.environment": "other"}),
        (f"{PREFIX}-2-api-1", {"samokoder.environment": f"{recorded.ENVIRONMENT}-2"}),
    ],
)
def test_what_belongs_to_others_is_no_finding(name: str, labels: dict[str, str]) -> None:
    assert found(lambda world: stranger(world, name, labels=labels)) == []


def test_another_environment_with_a_longer_name_keeps_its_volumes_and_networks() -> None:
    def change(world: World) -> None:
        stranger(world, f"{PREFIX}-2-api-1", labels={"samokoder.environment": f"{recorded.ENVIRONMENT}-2"})
        for key in ("networks", "volumes"):
            world[key].append({"Name": f"{PREFIX}-2-data"})

    assert found(change) == []


def test_a_volume_and_a_network_that_nobody_declared_are_found_but_not_what_a_restore_has_set_aside() -> None:
    def change(world: World) -> None:
        world["volumes"].append({"Name": f"{PREFIX}-postgres-before-restore-20261123T100500Z"})
        world["volumes"].append({"Name": f"{PREFIX}-loot"})
        world["networks"].append({"Name": f"{PREFIX}-tunnel"})

    assert found(change) == [
        (f"{PREFIX}-loot", "", "nothing", "a volume"),
        (f"{PREFIX}-tunnel", "", "nothing", "a network"),
    ]


def test_what_keeps_the_lock_of_a_half_done_restore_is_no_drift_until_somebody_starts_it() -> None:
    def change(world: World, status: str) -> None:
        stranger(world, f"{PREFIX}-lock-0badcafe")
        world["containers"][-1]["State"]["Status"] = status

    assert found(lambda world: change(world, "created")) == []
    assert found(lambda world: change(world, "exited")), "a container of that name that ran is somebody's"


def test_what_waits_for_its_removal_is_not_what_is_declared() -> None:
    world = recorded.recorded()
    old = json.loads(json.dumps(next(r for r in world["deployment"]["resources"] if r["inputs"].get("name") == API)))
    old["delete"], old["inputs"]["memory"] = True, 1
    world["deployment"]["resources"].append(old)
    assert findings(world) == [], "the state of an update that failed keeps both"


def step(op: str, name: str, kind: str = "docker:index/container:Container", **more: Any) -> dict[str, Any]:
    urn = f"urn:pulumi:staging::samokoder::samokoder:platform:Stack${kind}::{name}"
    return {"op": op, "urn": urn, "newState": {"inputs": {"name": f"samokoder-staging-{name}"}}, **more}


def test_what_pulumi_would_change_is_a_finding_unless_more_is_known() -> None:
    steps = [
        step("same", "redis"),
        step("refresh", "postgres"),
        step("replace", "api-1", diffReasons=["image"], replaceReasons=["image", "envs"]),
        step("create-replacement", "api-1", diffReasons=["image"], replaceReasons=["image", "envs"]),
        step("update", "worker", diffReasons=["memory"]),
        step("create", "stack", "pulumi:pulumi:Stack"),
        step("update", "api-1", "samokoder:app:Api"),
    ]
    rows = read_preview(steps, {"samokoder-staging-worker"}, TYPED)
    assert [(each.name, each.field, each.declared, each.repair) for each in rows] == [
        ("samokoder-staging-api-1", "Container", "the program has it otherwise: envs, image", "make up")
    ], "each once, and of the worker more is said already"


def test_the_command_tells_drift_from_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remade = {"steps": (("stop", API), ("rm", API)), "repair": "docker rm it && make up"}
    finding = Difference(name=API, field="memory", declared="1", found="2", **remade)  # type: ignore[arg-type]

    def ended(result: Callable[[], list[Difference]], *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(detect, "find_drift", lambda _: result())
        code = 0
        try:
            command.main(["drift", *words])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    def fails() -> list[Difference]:
        raise PulumiFailedError("`pulumi preview` failed")

    def unforeseen() -> list[Difference]:
        raise RuntimeError("the engine has gone away")

    code, out, _ = ended(list, "--json")
    assert (code, json.loads(out)["result"]) == (0, "none")
    code, out, _ = ended(lambda: [finding], "--json")
    assert (code, json.loads(out)["result"]) == (1, "drift")
    assert json.loads(out)["findings"][0]["field"] == "memory"
    assert json.loads(out)["findings"][0]["repair"] == "docker rm it && make up", "a program may have its own way"
    assert "steps" not in json.loads(out)["findings"][0]
    code, out, err = ended(fails, "--json")
    assert (code, json.loads(out)["result"]) == (1, "failed")
    assert "`pulumi preview` failed" in json.loads(out)["error"]
    assert "`pulumi preview` failed" in err
    with pytest.raises(RuntimeError):
        ended(unforeseen, "--json")
    assert json.loads(capsys.readouterr().out)["result"] == "failed", "a program waits for JSON whatever happens"
    code, out, err = ended(lambda: [finding])
    assert code == 1
    assert "make drift ARGS=--repair" in out.splitlines()[-1], "one command, however many differences there are"
    assert "docker rm it" not in out, "of eighteen lines to paste one is forgotten"
    assert "in 1 place." in err
    code, out, err = ended(lambda: [STRANGER])
    assert "docker rm --force debug" in out, "what a person has to look at has a line of its own"
    assert "--repair" not in out, "which takes no stranger away"
    code, out, _ = ended(list)
    assert code == 0
    assert "what runs is what is declared" in out


def test_the_repair_is_one_command_that_looks_again_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = Difference(name=API, field="", declared="a container", found="nothing", repair="make up")
    looks = [[missing, STRANGER], [STRANGER]]
    done: list[tuple[list[str], bool]] = []
    monkeypatch.setattr(detect, "find_drift", lambda _: looks.pop(0))

    def repair(workspace: Workspace, findings: list[Difference], *, agree: Any, **_: Any) -> SimpleNamespace:
        done.append(([each.name for each in findings], agree is None))
        return SimpleNamespace(parts=[PartStatus(part="api-1", state="running", health="healthy")])

    monkeypatch.setattr(repairs, "repair", repair)
    with pytest.raises(SystemExit):
        command.main(["drift", "--repair"])
    said = capsys.readouterr()
    assert done == [([API, "debug"], True)]
    assert "in 1 place." in said.err, "what is left is told, and the command does not end with 0"
    assert said.out.count("docker rm --force debug") == 2
    with pytest.raises(SystemExit) as ended:
        command.main(["drift", "--repair", "--json"])
    assert ended.value.code == 2


class Named:
    """A container, a volume or a network of an engine that writes down what is done to it."""

    def __init__(self, name: str, log: list[str], *, there: bool = True) -> None:
        self.name, self._log, self._there = name, log, there
        self.attrs: dict[str, Any] = {"Config": {"StopTimeout": 45}}

    def stop(self, *, timeout: int) -> None:
        self._log.append(f"stop {self.name} in {timeout}")

    def remove(self, **_: object) -> None:
        self._log.append(f"remove {self.name}")

    def disconnect(self, name: str) -> None:
        self._log.append(f"{name} leaves {self.name}")


def test_a_repair_removes_what_was_declared_and_nothing_that_nobody_declared() -> None:
    world = recorded.recorded()
    stranger(world, f"{PREFIX}-debug")
    world["volumes"].append({"Name": f"{PREFIX}-loot", "Labels": None})
    recorded.container(world, "api-1")["HostConfig"]["Memory"] = 2**30
    recorded.container(world, "cadvisor")["NetworkSettings"]["Networks"]["bridge"] = {"Aliases": None}
    world["files"] = uploaded(world)
    mounts = recorded.container(world, "ingress")["Mounts"]
    volume = next(each["Name"] for each in mounts if "files" in each.get("Name", ""))
    path = next(iter(world["files"][volume]))
    world["files"][volume][path] = (b"other", 0o444)
    rows = findings(world)
    assert {each.name for each in rows if each.unknown} == {f"{PREFIX}-debug", f"{PREFIX}-loot"}
    log: list[str] = []

    def get(name: str) -> Named:
        if name == API:
            raise docker.errors.NotFound("an earlier repair, which was cut off, has removed it")
        return Named(name, log)

    holders: list[Named] = [Named(volume, log), Named("debug", log)]
    place = SimpleNamespace(get=get, list=lambda **_: holders)
    client = cast("docker.DockerClient", SimpleNamespace(containers=place, volumes=place, networks=place))
    with pytest.raises(ProjectError, match=r"Nothing was changed: debug holds the volume .*docker rm --force debug"):
        repairs.clear(client, rows, Reporter(Console(file=io.StringIO())))
    assert log == [], "the engine lets go of nothing that somebody has, so what serves would go for nothing"
    holders.pop()
    repairs.clear(client, rows, Reporter(Console(file=io.StringIO())))
    assert not [line for line in log if "debug" in line or "loot" in line], "it may be an intruder's, or hold data"
    assert f"{PREFIX}-cadvisor leaves bridge" in log
    assert not [line for line in log if line.startswith("remove") and "cadvisor" in line], "it serves on"
    assert f"stop {PREFIX}-ingress in 45" in log, "it has its own time to end"
    removed = [line.removeprefix("remove ") for line in log if line.startswith("remove ")]
    assert removed[-1] == volume, "the engine lets go of a volume when nobody has it any more"
    # Twice: the carrier of the files has the name of their volume.
    assert removed == [f"{PREFIX}-ingress", volume, volume]


def test_replicas_are_made_anew_one_by_one_after_what_they_may_need() -> None:
    def of(name: str) -> Difference:
        return Difference(name=f"{PREFIX}-{name}", field="memory", declared="1", found="2", repair="make up")

    rows = [of("api-1"), of("api-2"), of("api-2"), of("redis"), of("worker")]
    batches = [
        [each.name.removeprefix(f"{PREFIX}-") for each in batch]
        for batch in repairs.rounds(rows, environment(), well=["api-1", "api-2"])
    ]
    assert batches == [["redis", "worker"], ["api-1"], ["api-2", "api-2"]], "or nobody serves meanwhile"
    assert [len(batch) for batch in repairs.rounds(rows[:1], environment(), well=["api-1"])] == [1]
    assert repairs.rounds([of("redis")], environment(), well=[]) == [[of("redis")]]


@pytest.mark.parametrize(
    ("differ", "well", "gone"),
    [
        (["api-1", "api-2"], ["api-1", "api-2"], ["api-1", "api-2"]),
        (["api-1", "api-2"], ["api-1"], ["api-2", "api-1"]),
        (["api-1", "api-2"], ["api-2"], ["api-1", "api-2"]),
        (["api-1", "api-2"], [], ["api-1", "api-2"]),
        (["api-1"], ["api-1"], []),
        (["api-2"], ["api-1"], ["api-2"]),
        (["api-1", "redis"], ["api-1"], ["redis"]),
    ],
)
def test_a_repair_takes_sick_replicas_first_and_never_the_only_one_that_serves(
    monkeypatch: pytest.MonkeyPatch, differ: list[str], well: list[str], gone: list[str]
) -> None:
    now, cleared = set(well), list[str]()

    def rows(_: Workspace) -> list[PartStatus]:
        return [PartStatus(part=part, state="running", health="healthy") for part in sorted(now)]

    def clear(_: object, of: list[Difference], __: Reporter) -> None:
        names = [each.name.rpartition("staging-")[2] for each in of]
        assert not now or now - set(names), "nobody serves meanwhile"
        cleared.extend(names)

    def bring_up(*_: object, make_way: Callable[[], None], **__: object) -> None:
        make_way()
        now.update(cleared)

    monkeypatch.setattr(repairs, "live_status", rows)
    monkeypatch.setattr(repairs, "clear", clear)
    monkeypatch.setattr(repairs, "bring_up", bring_up)
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: SimpleNamespace(close=lambda: None))
    found = [
        Difference(
            name=f"samokoder-staging-{part}",
            field="memory",
            declared="1",
            found="2",
            repair="make up",
            steps=(("stop", f"samokoder-staging-{part}"), ("rm", f"samokoder-staging-{part}")),
        )
        for part in differ
    ]
    if "api-1" not in gone and "api-1" in differ:
        with pytest.raises(ProjectError, match=r"api-1 was not repaired: .*logs PART=api-2"):
            repairs.repair(Workspace(), found, interactive=False)
    else:
        repairs.repair(Workspace(), found, interactive=False)
    assert cleared == gone


def test_a_repair_that_removes_nothing_is_done_although_one_replica_alone_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serves = [PartStatus(part="api-1", state="running", health="healthy")]
    monkeypatch.setattr(repairs, "live_status", lambda _: serves)
    steps = (("network", "disconnect", "somebody-elses", "samokoder-staging-api-1"),)
    found = Difference(name="samokoder-staging-api-1", field="networks", declared="", found="", repair="", steps=steps)
    repairs._refuse_only_one(Workspace(), [found])  # it would leave a stranger's network on the API


def test_nothing_goes_before_what_up_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    workspace = Workspace()
    monkeypatch.setattr(repairs, "clear", lambda *_: begun.append("clear"))
    monkeypatch.setattr(repairs, "live_status", lambda _: [])
    run = SimpleNamespace(workspace=workspace, backend="here", deployment=dict)
    monkeypatch.setattr(lifecycle_up, "prepared", lambda *_, **__: SimpleNamespace(run=run))
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(unfinished, "refuse_half_replaced", lambda _: None)
    monkeypatch.setattr(lock, "held", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(lifecycle_up, "refuse_undoing", lambda *_: None)
    monkeypatch.setattr(lifecycle_up, "refuse_changed", lambda *_: None)
    monkeypatch.setattr("operations.network.packet_filter.guard", lambda _: None)

    def lost(*_: object) -> None:
        raise ProjectError("Data that was here is gone: postgres.")

    monkeypatch.setattr(lifecycle_up, "begin_empty", lost)
    with pytest.raises(ProjectError, match="is gone"):
        repairs.repair(workspace, [STRANGER], interactive=False)
    assert begun == [], "where a volume was lost, what still serves must not be taken down"


def test_prometheus_gets_how_many_there_are_and_when_it_was() -> None:
    families = text_string_to_metric_families(detect.exposition(3, 1_800_000_000.4))
    values = {family.name: (family.type, family.samples[0].value) for family in families}
    assert values == {
        "stack_drift_findings": ("gauge", 3.0),
        "stack_drift_checked_timestamp_seconds": ("gauge", 1_800_000_000.0),
    }


def test_a_configured_secret_in_what_runs_is_no_part_of_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    world = recorded.recorded()
    api(world)["Config"]["Env"] += ["SMTP=mail-pass-word", "DSN=password=hunter2hunter2"]
    steps = [step("update", "worker", diffReasons=["mail-pass-word"])]
    run = SimpleNamespace(
        in_plain=lambda: world["deployment"],
        secrets=lambda **_: {},
        configuration=lambda: {
            "samokoder:SMTP_PASSWORD": {"value": "mail-pass-word", "secret": True},
            "samokoder:managedDatabaseUrl": {"value": "postgresql://me:hunter2hunter2@db/samokoder", "secret": True},
        },
        variables={},
        pulumi=lambda *_, **__: SimpleNamespace(stdout=json.dumps({"steps": steps})),
    )
    client = of_engine(world)
    cast("Any", client).close = lambda: None
    monkeypatch.setattr(detect, "prepare", lambda *_, **__: run)
    monkeypatch.setattr(detect, "_note", lambda *_: True)
    monkeypatch.setattr(Workspace, "deployment", lambda _: {})
    monkeypatch.setattr(Workspace, "settings", lambda _: environment())
    monkeypatch.setattr(Workspace, "client", lambda _: client)
    quiet = Workspace(reporter=Reporter(Console(file=io.StringIO())))
    text = json.dumps([each.as_json() for each in detect.find_drift(quiet)])
    assert "<samokoder:SMTP_PASSWORD>" in text, "a reader still sees which one it is"
    for secret in ("mail-pass-word", "hunter2hunter2"):
        assert secret not in text, "the JSON goes to a log of CI, and what Pulumi says goes with it"
