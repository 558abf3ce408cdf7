from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

import pytest

from stack.names import NetworkName
from stack.platform import specs
from stack.service import NotScraped, Publish, Reasoned, Scrape, ServiceSpec, cpus_text, go_duration
from stack.settings import Part
from tests.recording import CASES, Recorded, Recording, record, record_case

# The whole list of what is beyond the hardened defaults. A new line here is a decision that somebody reviews.
RUNS_AS_ROOT = {"cadvisor"}
HAS_THE_ENGINES_SOCKET = {"cadvisor"}
HOST_PATHS = {
    "cadvisor": {
        "/sys": "/sys",
        "/proc": "/rootfs/proc",
        "/var/lib/docker": "/rootfs/var/lib/docker",
        "/run": "/var/run",
    },
    "node-exporter": {"/": "/host"},
}
CAPABILITIES: dict[str, set[str]] = {"cadvisor": {"CAP_SYSLOG"}, "ingress": {"CAP_NET_BIND_SERVICE"}}
# Part -> name of its data volume, where that is not the part's.
DATA = {"ingress": "caddy"}
DEVICES: dict[str, set[str]] = {"cadvisor": {"/dev/kmsg"}}


def every_container(test: Callable[[str, str], None]) -> Callable[[str], None]:
    """Call a test with every part of a case, and say in which part it failed."""

    @pytest.mark.parametrize("case", CASES)
    def each(case: str) -> None:
        for part in record_case(case).containers():
            try:
                test(case, part)
            except AssertionError as error:
                error.add_note(f"this is the container of {part!r} in the case {case!r}")
                raise

    each.__name__ = test.__name__
    return each


def container(case: str, part: str) -> Recorded:
    return record_case(case).containers()[part]


def seconds(duration: str) -> int:
    """Read a duration as Docker writes it back: 1h2m3s."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s", duration)
    assert found, f"{duration!r} is not how Docker writes a duration, so it would be a difference for ever"
    hours, minutes, rest = (int(number or 0) for number in found.groups())
    return hours * 3600 + minutes * 60 + rest


@every_container
def test_a_container_has_only_listed_devices_and_only_to_read(case: str, part: str) -> None:
    devices = container(case, part).inputs.get("devices", [])
    assert {device["hostPath"] for device in devices} == DEVICES.get(part, set()), "an unlisted device of the host"
    assert all(device["permissions"] == "r" for device in devices)


def test_a_host_without_a_kernel_log_gives_neither_the_device_nor_the_capability() -> None:
    cadvisor = record("staging", {"cadvisor": {"kernelLog": False}}).containers()["cadvisor"]
    assert "devices" not in cadvisor.inputs, "the container would not start"
    assert "adds" not in cadvisor.inputs["capabilities"], "a capability that nothing uses"


@every_container
def test_a_container_drops_every_capability_and_adds_only_listed_ones(case: str, part: str) -> None:
    capabilities = container(case, part).inputs["capabilities"]
    assert capabilities["drops"] == ["ALL"], "a capability that is not dropped is there for whoever breaks in"
    assert set(capabilities.get("adds", [])) == CAPABILITIES.get(part, set()), "an unlisted capability was added"


@every_container
def test_a_container_cannot_gain_privileges(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert inputs["securityOpts"] == ["no-new-privileges:true"], "a setuid program would make root out of a user"
    assert not inputs.get("privileged"), "privileged undoes every other line of this file"
    for shared in ("pidMode", "ipcMode", "usernsMode"):
        assert not inputs.get(shared), f"{shared} shares something of the host"


@every_container
def test_a_containers_root_is_read_only_and_its_tmpfs_runs_nothing(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert inputs["readOnly"] is True, "an intruder must not be able to change a program"
    for path, options in inputs.get("tmpfs", {}).items():
        assert {"noexec", "nosuid", "nodev"} <= set(options.split(",")), f"{path} would run what is dropped there"
        assert re.search(r"\bsize=\d+[km]\b", options), f"{path} without a size may take all the memory"
    assert "uploads" not in inputs, "uploads to a container with a read-only root fail on the engine"


@every_container
def test_a_container_runs_as_a_numbered_user_that_is_root_only_where_listed(case: str, part: str) -> None:
    user = container(case, part).inputs["user"]
    assert re.fullmatch(r"[0-9]+:[0-9]+", user), "a name would be looked up in an image that may not have it"
    assert (user.partition(":")[0] == "0") == (part in RUNS_AS_ROOT), f"{part} runs as {user}"


@every_container
def test_a_containers_memory_is_limited_and_there_is_no_swap(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert inputs["memory"] > 0, "without a limit one part takes the host down"
    assert inputs["memorySwap"] == inputs["memory"], "other values are swap, or a difference for ever"
    assert float(inputs["cpus"]) > 0, "without a limit one part takes every core"
    assert inputs["shmSize"] > 0


@every_container
def test_a_containers_processes_and_files_are_limited(case: str, part: str) -> None:
    limits = {limit["name"]: limit for limit in container(case, part).inputs["ulimits"]}
    assert set(limits) == {"nofile", "nproc"}, "a fork bomb or a leak of files must end in this container"
    for limit in limits.values():
        assert 0 < limit["soft"] == limit["hard"], "a soft limit below the hard one can be raised from inside"
    assert limits["nproc"]["soft"] >= 4096, "all containers of a uid on the host count, of every environment"


@every_container
def test_a_containers_log_is_rotated(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert inputs["logDriver"] == "json-file"
    assert inputs["logOpts"] == {"max-size": "10m", "max-file": "3"}, "a log without an end fills the disk"


@every_container
def test_a_containers_wait_outlasts_its_health_check(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    check = inputs["healthcheck"]
    assert check["tests"][0] == "CMD", "CMD-SHELL needs a shell and its quoting"
    assert len(check["tests"]) > 1
    slowest = seconds(check["startPeriod"]) + seconds(check["interval"]) * check["retries"]
    assert inputs["wait"] is True, "without it an update is done before anything is healthy"
    assert inputs["waitTimeout"] > slowest, "the update would fail while the container may still become healthy"


@every_container
def test_a_container_is_stopped_with_time_to_finish_and_started_again(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert inputs["destroyGraceSeconds"] > 0, "unset, the provider kills at once: PostgreSQL recovers, jobs are lost"
    assert inputs["stopTimeout"] == inputs["destroyGraceSeconds"], "a person's `docker stop` gives the same time"
    assert inputs["restart"] == "unless-stopped"
    assert inputs["init"] is True, "without it nobody reaps children or passes signals on"
    assert inputs.get("mustRun", True) is True
    assert inputs["stopSignal"].startswith("SIG")


@every_container
def test_a_container_is_replaced_for_what_the_provider_would_ignore(case: str, part: str) -> None:
    recorded = container(case, part)
    ignored = {"#initerror", "healthcheck", "tmpfs", "init", "cpuPeriod", "cpuQuota", "ulimits"}
    assert ignored <= recorded.replace_on_changes, "such an edit would be in the state and not on the engine"
    assert recorded.delete_before_replace is True, "the new one could not have the old one's name and port"
    assert not recorded.protect, "a protected container can never be updated"
    assert not recorded.retain_on_delete, "a container that stays behind keeps its name and port"
    assert not recorded.ignore_changes


@every_container
def test_a_container_has_the_labels_it_is_found_by_and_no_others(case: str, part: str) -> None:
    labels = {label["label"]: label["value"] for label in container(case, part).inputs["labels"]}
    environment = record_case(case).environment.name
    assert labels == {"samokoder.environment": environment, "samokoder.part": part}, "a changing label replaces"


@every_container
def test_a_port_is_published_on_loopback_only_but_for_an_ingress_with_a_domain(case: str, part: str) -> None:
    public = part == "ingress" and bool(record_case(case).environment.settings.ingress.domain)
    for port in container(case, part).inputs.get("ports", []):
        assert ipaddress.ip_address(port["ip"]).is_loopback != public, "Docker's ports go around the host's firewall"
        assert port["protocol"] == "tcp"
    assert not container(case, part).inputs.get("publishAllPorts")


@every_container
def test_a_host_path_is_mounted_only_where_listed_and_read_only(case: str, part: str) -> None:
    mounts = [mount for mount in container(case, part).inputs.get("volumes", []) if "hostPath" in mount]
    paths = {mount["hostPath"]: mount["containerPath"] for mount in mounts}
    assert paths == HOST_PATHS.get(part, {}), f"an unlisted path of the host in {part}"
    assert all(mount["readOnly"] is True for mount in mounts)
    holds_socket = any(path in ("/run", "/var/run") or "docker.sock" in path for path in paths)
    assert holds_socket == (part in HAS_THE_ENGINES_SOCKET), "who has the engine's socket is root on the host"
    assert not container(case, part).inputs.get("mounts"), "mounts are another way around this list"


@pytest.mark.parametrize("case", CASES)
def test_every_exception_of_the_specs_is_in_this_files_list(case: str) -> None:
    found: dict[str, set[str]] = {}
    for spec in specs(record_case(case).environment):
        for exception in spec.exceptions:
            found.setdefault(exception.name, set()).add(spec.part)
    listed = {"root": RUNS_AS_ROOT, "docker.sock": HAS_THE_ENGINES_SOCKET}
    assert found == listed, "an exception without a line at the top of this file was reviewed by nobody"


@pytest.mark.parametrize("case", CASES)
def test_a_carrier_never_runs_and_reaches_nothing(case: str) -> None:
    recording = record_case(case)
    assert recording.carriers(), "no part has a file"
    for part, carrier in recording.carriers().items():
        inputs = carrier.inputs
        assert inputs["start"] is False, f"{part}: a carrier only carries files"
        assert inputs["mustRun"] is False, f"{part}: a carrier that must run would be started by the next update"
        assert inputs["networkMode"] == "none", f"{part}: a carrier has secrets and needs no network"
        assert inputs["entrypoints"] == ["/never-started"]
        assert inputs["restart"] == "no"
        assert inputs["memory"] == inputs["memorySwap"] > 0
        assert inputs["destroyGraceSeconds"] > 0
        assert not inputs.get("envs")
        assert not inputs.get("ports")
        assert not carrier.protect
        assert {upload["permissions"] for upload in inputs["uploads"]} <= {"0444", "0555"}


@pytest.mark.parametrize("case", CASES)
def test_a_part_is_mounted_its_own_files_read_only_and_after_the_carrier(case: str) -> None:
    recording = record_case(case)
    for part, carrier in recording.carriers().items():
        own = recording.containers()[part]
        mounts = {mount["volumeName"]: mount for mount in own.inputs["volumes"] if "volumeName" in mount}
        assert carrier.inputs["name"] in mounts, f"{part} does not mount its files"
        assert mounts[carrier.inputs["name"]]["readOnly"] is True, f"{part} could change its own configuration"
        assert carrier.urn in own.dependencies, f"{part} could start before its files are there"
        assert carrier.inputs["image"] == own.inputs["image"]
    for part, own in recording.containers().items():
        mounted = {mount["volumeName"] for mount in own.inputs.get("volumes", []) if "volumeName" in mount}
        allowed = {f"{recording.environment.prefix}-{DATA.get(part, part)}-data"}
        allowed |= {str(recording.carriers()[part].inputs["name"])} if part in recording.carriers() else set()
        assert mounted <= allowed, f"{part} mounts another part's volume: {mounted - allowed}"


def _waits_for(recording: Recording, part: str) -> set[str]:
    containers = {c.urn: name for name, c in recording.containers().items()}
    return {containers[urn] for urn in recording.containers()[part].dependencies if urn in containers}


def test_a_part_waits_for_what_it_needs() -> None:
    recording = record_case("staging")
    waits = {part: found for part in recording.containers() if (found := _waits_for(recording, part))}
    assert waits == {
        "redis-users": {"redis"},
        "migrations": {"postgres-roles"},
        "api-1": {"postgres-roles", "redis-users", "migrations"},
        "api-2": {"api-1"},
        "worker": {"postgres-roles", "redis-users", "migrations", "api-1"},
        "ingress": {"api-1"},
        "postgres-exporter": {"postgres-roles"},
        "redis-exporter": {"redis-users"},
        "backup": {"postgres-roles", "redis-users"},
    }, "each level of waiting makes an update longer; a missing one makes a start fail"


def _spec(
    *,
    user: str = "10001:10001",
    exceptions: tuple[Reasoned, ...] = (),
    capabilities: tuple[Reasoned, ...] = (),
    networks: tuple[NetworkName, ...] = (NetworkName.APP,),
    scrape: Scrape | NotScraped | None = None,
    publish: Publish | None = None,
) -> ServiceSpec:
    return ServiceSpec(
        part="part",
        component="samokoder:app:Part",
        image="example:1",
        user=user,
        settings=Part(),
        health_command=("true",),
        networks=networks,
        scrape=scrape or NotScraped(reason="a test"),
        exceptions=exceptions,
        capabilities=capabilities,
        publish=publish,
    )


@pytest.mark.parametrize("user", ["", "0", "0:0", "root", "root:root", ":10001"])
def test_a_spec_that_runs_as_root_without_a_reason_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match="runs as root without an exception"):
        _spec(user=user)
    with pytest.raises(ValueError, match="root has no reason"):
        _spec(user=user, exceptions=(Reasoned(name="root", reason=" "),))
    assert _spec(user=user, exceptions=(Reasoned(name="root", reason="it must"),)).user == user


def test_a_spec_with_a_capability_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="NET_ADMIN has no reason"):
        _spec(capabilities=(Reasoned(name="NET_ADMIN", reason=""),))


def test_a_spec_that_cannot_be_reached_as_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="does not join the network 'monitoring'"):
        _spec(scrape=Scrape(port=1))
    with pytest.raises(ValueError, match="does not join 'edge'"):
        _spec(publish=Publish(container_port=1, host_port=1, address="127.0.0.1"))


@pytest.mark.parametrize(
    ("given", "text"), [(0, "0s"), (59, "59s"), (60, "1m0s"), (90, "1m30s"), (3600, "1h0m0s"), (3725, "1h2m5s")]
)
def test_a_duration_is_written_as_docker_writes_it_back(given: int, text: str) -> None:
    assert go_duration(given) == text, "another spelling would be a difference at every preview"
    assert seconds(text) == given


@pytest.mark.parametrize(
    ("given", "text"),
    [(0.25, "0.25"), (0.5, "0.5"), (1.0, "1.0"), (2, "2.0"), (1.5, "1.5"), (10.0, "10."), (0.1, "0.1")],
)
def test_cores_are_written_as_the_provider_reads_them_back(given: float, text: str) -> None:
    assert cpus_text(given) == text, "another spelling would be a difference at every preview"
