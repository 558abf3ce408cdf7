from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

import pytest

from stack.common.names import NetworkName
from stack.settings.part import PartSettings
from stack.spec.service import NotScraped, Publish, Scrape, ServiceSpec, cpus_text, go_duration
from tests.recording import CASES, Recorded, Recording, record, record_case

# Part -> name of its data volume, where that is not the part's.
DATA = {"ingress": "caddy"}


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


def test_a_host_without_a_kernel_log_gives_neither_the_device_nor_the_capability() -> None:
    cadvisor = record("staging", {"cadvisor": {"kernelLog": False}}).containers()["cadvisor"]
    assert "devices" not in cadvisor.inputs, "the container would not start"
    assert "adds" not in cadvisor.inputs["capabilities"], "a capability that nothing uses"


@every_container
def test_no_container_looks_for_a_parts_name_in_the_hosts_search_domain(case: str, part: str) -> None:
    assert container(case, part).inputs.get("dnsSearches") == ["."], (
        "while Redis is replaced, a wildcard record of the host's domain is asked for `redis`, and a stranger gets the "
        "password"
    )


@every_container
def test_a_container_keeps_what_the_gate_does_not_ask_for(case: str, part: str) -> None:
    inputs = container(case, part).inputs
    assert re.fullmatch(r"[0-9]+:[0-9]+", inputs["user"]), "a group's name would be looked up in the image"
    assert "uploads" not in inputs, "uploads to a container with a read-only root fail on the engine"
    assert inputs["shmSize"] > 0
    limits = {limit["name"]: limit for limit in inputs["ulimits"]}
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
        # Each reads what the other one writes.
        allowed |= {f"{recording.environment.prefix}-drill-scratch"} if part in {"backup", "drill"} else set()
        allowed |= {f"{recording.environment.prefix}-backup-data"} if part == "drill" else set()
        allowed |= {f"{recording.environment.prefix}-{part}-scratch"} if part == "log-collector" else set()
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
    networks: tuple[NetworkName, ...] = (NetworkName.APP,),
    scrape: Scrape | NotScraped | None = None,
    publish: Publish | None = None,
) -> ServiceSpec:
    return ServiceSpec(
        part="part",
        component="samokoder:app:Part",
        image="example:1",
        user="10001:10001",
        settings=PartSettings(),
        health_command=("true",),
        networks=networks,
        scrape=scrape or NotScraped(reason="a test"),
        publish=publish,
    )


def test_a_spec_that_cannot_be_reached_as_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="does not join the network 'monitoring'"):
        _spec(scrape=Scrape(port=1))
    with pytest.raises(ValueError, match="joins neither 'edge' nor 'published'"):
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
    assert reported(text) == text


def reported(text: str) -> str:
    """What the provider (kreuzwerker/terraform-provider-docker, internal/provider/helpers.go) reads back."""
    read = f"{Decimal(text):.9f}"
    return f"{Decimal(text):.1f}" if read.count("0") == 9 else read.rstrip("0")


def test_each_limit_of_cores_that_the_settings_take_limits_to_that_and_is_no_difference_in_a_preview() -> None:
    for thousandths in (*range(10, 1000), *range(1000, 128_001, 10)):
        text = cpus_text(thousandths / 1000)
        assert abs(Decimal(text) - Decimal(thousandths) / 1000) <= Decimal("1e-9"), f"0.01 was no limit: {text}"
        assert reported(text) == text, "the container would be replaced at every refresh"
