"""What `make bench` makes and says, without an engine: its compose file, how it reads the engine, goals and table."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from docker.models.containers import Container
from rich.console import Console

from bench import compose, monitoring, scale
from bench.critical_path import HealthEvents
from bench.report import Measurement, Results, Sample, show
from host.progress import Reporter
from operations.audit.facts import ContainerFacts, Mount, declared, found
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL
from tests import recorded
from tests.described import specs
from tests.recording import CASES, NETWORK, case_environment, record_case, secret_value

if TYPE_CHECKING:
    import docker

# Of a container's own and the engine's defaults: nothing to tell Compose.
NOT_TOLD = {"name", "part", "labels", "image_id", "network_mode", "ipc_mode"}


def facts_of(case: str) -> dict[str, ContainerFacts]:
    return {part: declared(resource.inputs, {}) for part, resource in record_case(case).containers().items()}


def document_of(case: str, parts: Mapping[str, ContainerFacts]) -> dict[str, Any]:
    environment = case_environment(case)
    described = specs(environment)
    return compose.document(
        parts,
        after={spec.part: spec.after for spec in described},
        internal={each.inputs["name"]: each.inputs["internal"] for each in record_case(case).of_type(NETWORK)},
        data=compose.begin_empty(environment, described),
    )


def alone(facts: ContainerFacts) -> dict[str, Any]:
    return compose.document({"alone": facts}, after={}, internal={}, data=set())


def recorded_facts(part: str) -> ContainerFacts:
    of = recorded.recorded()
    container = recorded.container(of, part)
    return found(container, of["images"][container["Image"]])


# The compose file


def test_one_container_is_written_as_the_engine_says_that_it_is() -> None:
    facts = replace(
        recorded_facts("cadvisor"),
        environment={"A": "1"},
        networks={"samokoder-x-edge": ("cadvisor", "metrics")},
        dns_search=(".",),
    )
    written = compose.document(
        {"cadvisor": facts}, after={"cadvisor": ("api-1",)}, internal={"samokoder-x-edge": False}, data=set()
    )
    service = written["services"]["cadvisor"]
    assert service == {
        "image": facts.image,
        "entrypoint": ["/usr/bin/cadvisor"],
        "command": list(facts.command),
        "environment": {"A": "1"},
        "user": "0:0",
        "hostname": "cadvisor",
        "networks": {"samokoder-x-edge": {"aliases": ["cadvisor", "metrics"]}},
        "dns_search": ["."],
        "ports": [f"{facts.ports['8080/tcp'][0]}:8080/tcp"],
        "volumes": [f"{mount.source}:{path}:ro" for path, mount in facts.mounts.items()],
        "tmpfs": ["/tmp:rw,noexec,nosuid,nodev,size=16m"],  # noqa: S108 - the container's own
        "devices": ["/dev/kmsg:/dev/kmsg:r"],
        "read_only": True,
        "init": True,
        "cap_add": ["CAP_SYSLOG"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges=true"],
        "mem_limit": 256 * 2**20,
        "memswap_limit": 256 * 2**20,
        "cpus": 0.25,
        "shm_size": 64 * 2**20,
        "ulimits": {"nofile": {"soft": 4096, "hard": 4096}, "nproc": {"soft": 4096, "hard": 4096}},
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        "restart": "unless-stopped",
        "stop_signal": "SIGTERM",
        "stop_grace_period": "30s",
        "healthcheck": {
            "test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/healthz"],
            "interval": "5s",
            "timeout": "5s",
            "start_period": "10s",
            "retries": 6,
        },
    }, "a part that is not there is waited for by nobody, and what has no value is left out"
    assert written["volumes"] == {}, "a folder of the host is no volume"


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_any_part_has_is_forgotten(case: str) -> None:
    parts = facts_of(case)
    for part, facts in parts.items():
        written = alone(facts)
        for name in {field.name for field in fields(ContainerFacts)} - NOT_TOLD - {"log", "health"}:
            value = getattr(facts, name)
            if value and value != type(value)():
                assert alone(replace(facts, **{name: type(value)()})) != written, (
                    f"Compose is not told the {name} of {part}: it would start another container"
                )


@pytest.mark.parametrize("case", CASES)
def test_compose_starts_the_parts_in_the_order_of_up(case: str) -> None:
    parts = facts_of(case)
    services = document_of(case, parts)["services"]
    assert services.keys() == parts.keys()
    for spec in specs(case_environment(case)):
        waits_for = services[spec.part].get("depends_on", {})
        assert waits_for == {part: {"condition": "service_healthy"} for part in spec.after if part in parts}, spec.part


def test_data_begins_empty_files_are_those_that_are_there_and_networks_are_as_closed() -> None:
    written = document_of("staging", facts_of("staging"))
    for name, volume in written["volumes"].items():
        kept = {"external": True, "name": name}
        assert volume == (kept if "-files-" in name else {}), f"{name}: nobody else's data may be in it or changed"
    assert {"samokoder-staging-postgres-data", "samokoder-staging-redis-data"} <= written["volumes"].keys()
    assert {name: network["internal"] for name, network in written["networks"].items()} == {
        "samokoder-staging-app": True,
        "samokoder-staging-data": True,
        "samokoder-staging-edge": False,
        "samokoder-staging-monitoring": True,
        "samokoder-staging-published": False,
    }


def test_a_network_of_somebody_else_is_joined_and_not_made() -> None:
    facts = replace(recorded_facts("api-1"), networks={"traefik": ("api",)})
    assert alone(facts)["networks"] == {"traefik": {"external": True, "name": "traefik"}}


def test_compose_puts_no_variable_of_ours_in_the_place_of_a_dollar_sign() -> None:
    facts = replace(recorded_facts("api-1"), environment={"SECRET": f"$HOME{secret_value('a')}"}, command=("echo $A",))
    service = alone(facts)["services"]["alone"]
    assert service["environment"]["SECRET"].startswith("$$HOME"), "a secret would come to the container cut"
    assert service["command"] == ["echo $$A"]


def test_compose_asks_a_starting_container_as_often_as_up_does() -> None:
    facts = recorded_facts("api-1")
    often = replace(facts, health={**facts.health, "start interval": 1.0})
    told = {"alone": often}
    check = compose.document(told, after={}, internal={}, data=set())["services"]["alone"]["healthcheck"]
    assert check["start_interval"] == "1s", "else Compose would wait ten times as long for each part on a new engine"
    older = compose.document(told, after={}, internal={}, data=set(), start_interval=False)
    assert "start_interval" not in older["services"]["alone"]["healthcheck"], "docker-compose 1.29 refuses such a file"
    assert compose.differences(often, facts) == ["health"], "and the row says that the two are not the same"
    assert "start_interval" not in alone(facts)["services"]["alone"]["healthcheck"], "an old engine has none"


def test_what_compose_has_made_otherwise_is_told() -> None:
    ours = recorded_facts("api-1")
    theirs = replace(ours, name="x-compose_api-1_1", networks={"x-compose_edge": ()}, network_mode="x", labels={})
    assert compose.differences(ours, theirs) == [], "its names are its own"
    theirs = replace(theirs, memory=1, mounts={path: Mount(source="x", read_only=False) for path in ours.mounts})
    assert compose.differences(ours, theirs) == ["memory", "mounts"], "then the two times do not say the same"


class _Container:
    def __init__(self, *states: str) -> None:
        self.name, self._states = f"is-{states[-1]}-after-{len(states)}", list(states)

    @property
    def attrs(self) -> dict[str, Any]:
        status = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"State": {"Health": {"Status": status}}}


def wait(*made: _Container, count: int, seconds: float = 30) -> None:
    compose.wait_healthy(lambda: cast("list[Container]", list(made)), count, seconds)


def test_the_clock_runs_until_every_container_is_healthy() -> None:
    slow = _Container("starting", "starting", "healthy")
    wait(slow, _Container("healthy"), count=2)
    assert slow._states == ["healthy"], "what is still starting is not up"


@pytest.mark.parametrize(
    ("made", "count", "said"),
    [
        ([_Container("starting", "unhealthy")], 1, "is-unhealthy-after-2 is unhealthy"),
        ([_Container("starting")], 1, "is-starting-after-1 is starting"),
        ([_Container("healthy")], 2, "1 of 2 are there"),
    ],
)
def test_a_container_that_does_not_get_healthy_ends_the_measurement(
    made: list[_Container], count: int, said: str
) -> None:
    with pytest.raises(RuntimeError, match=said):
        wait(*made, count=count, seconds=0.5)


class _Engine:
    """The recorded engine: the environment's containers, and those that Compose has made of the same."""

    def __init__(self) -> None:
        self.recorded = recorded.recorded()
        self.containers = self.images = self.networks = self

    def list(self, *, filters: Mapping[str, str] | None = None, names: object = None, **_: object) -> list[Any]:
        if filters is None:
            return [SimpleNamespace(name=each["Name"], attrs=each) for each in self.recorded["networks"]]
        of_compose = filters["label"].startswith("com.docker.compose.project=")
        made = []
        for part in ("api-1", "ingress", "cadvisor"):
            attributes = recorded.container(self.recorded, part)
            attributes["State"] = {"Health": {"Status": "healthy"}}
            labels = {PART_LABEL: part, compose.SERVICE_LABEL: part}
            name = f"compose_{part}_1" if of_compose else part
            made.append(SimpleNamespace(name=name, attrs=attributes, labels=labels))
        return made

    def get(self, image: str) -> SimpleNamespace:
        return SimpleNamespace(attrs={"Config": self.recorded["images"][image]})


PROGRAM = """#!/bin/sh
case "$*" in
*--help) echo "{help}" ;;
*version*) echo 1.29.2 ;;
*) echo "$DOCKER_HOST $*" >> "$LOG"; cp "$4" "$LOG.yml"; ls -ld "$(dirname "$4")" | cut -c1-10 >> "$LOG.mode" ;;
esac
case "$*" in *detach*) exit {code} ;; esac
"""


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., compose.ComposeUp]:
    """Measure on the recorded engine, by a program in the place of Docker Compose that writes down what it was told."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(compose, "_program", lambda _: ["docker-compose"])

    def stop(*_: object) -> None:
        (tmp_path / "log").write_text("stopped\n", encoding="utf-8")

    monkeypatch.setattr("operations.engine.containers.stop", stop)

    def run(*, help: str = "-d, --detach", code: int = 0) -> compose.ComposeUp:  # noqa: A002 - what it prints for it
        program = tmp_path / "docker-compose"
        program.write_text(PROGRAM.format(help=help, code=code), encoding="utf-8")
        program.chmod(0o755)
        workspace = Workspace(stack=recorded.ENVIRONMENT, home=tmp_path / "home", isolated=True)
        reporter = Reporter(Console(file=io.StringIO()))
        return compose.measure(cast("docker.DockerClient", _Engine()), workspace, reporter)

    return run


def test_compose_is_timed_with_the_same_containers_and_leaves_nothing(
    measured: Callable[..., compose.ComposeUp], tmp_path: Path
) -> None:
    result = measured()
    assert result.how == ("docker-compose 1.29.2: up --detach, its health asked of the engine: it has no --wait"), (
        "the row says what was done"
    )
    assert result.seconds > 0
    first, *log = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert first == "stopped", "they have the same ports"
    assert [re.sub(r"--file \S+ ", "", line) for line in log] == [
        f"unix:///var/run/docker.sock --project-name {recorded.ENVIRONMENT}-compose {words}"
        for words in ("up --detach", "down --volumes")
    ]
    told = yaml.safe_load((tmp_path / "log.yml").read_text(encoding="utf-8"))
    assert told["services"].keys() == {"api-1", "ingress", "cadvisor"}
    assert told["services"]["ingress"]["depends_on"]["api-1"] == {"condition": "service_healthy"}
    assert set((tmp_path / "log.mode").read_text(encoding="utf-8").split()) == {"drwx------"}, "it may hold secrets"


def test_compose_waits_itself_where_it_can(measured: Callable[..., compose.ComposeUp]) -> None:
    assert measured(help="--detach --wait").how == "docker-compose 1.29.2: up --detach --wait"


def test_a_compose_that_fails_is_taken_away_too(measured: Callable[..., compose.ComposeUp], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="`docker-compose up --detach` failed"):
        measured(code=1)
    assert (tmp_path / "log").read_text(encoding="utf-8").rstrip().endswith("down --volumes"), "its networks stay else"


# What the monitoring uses


MONITORING = {"prometheus", "alertmanager", "grafana", "cadvisor", "logs", "log-collector"}


def test_the_monitoring_parts_are_those_that_are_there_for_it_alone() -> None:
    environment = case_environment("staging")
    described = {spec.part for spec in specs(environment)}
    exporters = {part for part in described if part.endswith("-exporter")}
    assert set(monitoring.parts(environment)) == MONITORING | exporters
    assert described >= MONITORING
    assert len(exporters) > 1
    assert "grafana" not in monitoring.parts(case_environment("without-grafana")), "what does not run uses nothing"


def stats(
    *, usage: int, memory: Mapping[str, int], cpu: float, read: str = "2026-11-27T05:00:00.123456789Z"
) -> dict[str, Any]:
    return {
        "read": read,
        "memory_stats": {"usage": usage * 2**20, "stats": {name: mib * 2**20 for name, mib in memory.items()}},
        "cpu_stats": {"cpu_usage": {"total_usage": int(cpu * 1e9)}},
    }


@pytest.mark.parametrize("memory", [{"total_inactive_file": 40, "inactive_file": 1}, {"inactive_file": 40}])
def test_memory_is_counted_without_pages_of_files_that_can_be_dropped(memory: Mapping[str, int]) -> None:
    used = monitoring.usage(stats(usage=100, memory=memory, cpu=2.5))
    assert used.mib == 60, "as `docker stats` shows it, with cgroup v1 and v2"
    assert used.cpu == 2.5


def test_the_parts_are_added_up_each_by_its_own_clock() -> None:
    before = [
        monitoring.usage(stats(usage=100, memory={}, cpu=1, read="2026-11-27T05:00:00Z")),
        monitoring.usage(stats(usage=10, memory={}, cpu=5, read="2026-11-27T05:00:01Z")),
    ]
    after = [
        monitoring.usage(stats(usage=90, memory={}, cpu=2, read="2026-11-27T05:01:40Z")),
        monitoring.usage(stats(usage=30, memory={}, cpu=10, read="2026-11-27T05:00:51Z")),
    ]
    used = monitoring.together(before, after)
    assert used.mib == 130, "each at its most"
    assert used.cpu == pytest.approx(1 / 100 + 5 / 50), "the engine answers for one after the other"


# Goals and the table


def row(measured: float, *, at_most: float | None = None, at_least: float | None = None) -> Measurement:
    return Measurement(
        what="up [cold]",
        measured=measured,
        beside="compose",
        beside_measured=10,
        at_most=at_most,
        at_least=at_least,
    )


@pytest.mark.parametrize(
    ("measured", "goal", "text", "met"),
    [
        (13, {"at_most": 1.3}, "at most 1.3", True),
        (13.1, {"at_most": 1.3}, "at most 1.3", False),
        (9, {"at_least": 0.9}, "at least 0.9", True),
        (8.9, {"at_least": 0.9}, "at least 0.9", False),
        (0, {"at_most": 0}, "at most 0", True),
        (1, {"at_most": 0}, "at most 0", False),
        (99, {}, None, None),
    ],
)
def test_a_goal_is_met_by_the_ratio(
    measured: float, goal: Mapping[str, float], text: str | None, met: bool | None
) -> None:
    result = row(measured, **goal).as_json()
    assert (result["goal"], result["met"]) == (text, met)
    assert result["ratio"] == measured / 10


def results(tmp_path: Path, *, seconds: float = 60, rows: Sequence[Measurement] = ()) -> Results:
    return Results(file=tmp_path / "results.json", say=lambda _: None, seconds=seconds, rows=[*rows])


def test_the_table_says_of_each_goal_whether_it_is_met_and_sums_up_in_its_last_line(tmp_path: Path) -> None:
    said = io.StringIO()
    found = results(tmp_path, rows=[row(20, at_most=1.3), row(9, at_least=0.9), row(5)])
    found.failed["the curve"] = "not begun"
    show(Console(file=said, width=160), found)
    text = said.getvalue()
    assert "at most 1.3: not met" in text
    assert "at least 0.9: met" in text
    assert "none" in text
    assert text.rstrip().splitlines()[-2:] == [
        "Not measured: the curve: not begun",
        "1 of 2 goals met; not met: up [cold] (2.00, at most 1.3); not measured: the curve",
    ]


def test_the_median_of_several_runs_counts_with_the_least_and_the_most_beside_it(tmp_path: Path) -> None:
    measured = Measurement(
        what="up",
        measured=Sample.of([30, 13, 12, 11, 12]),
        beside="compose",
        beside_measured=Sample.of([10, 10, 10, 9, 50]),
        at_most=1.3,
    )
    assert measured.as_json()["met"] is True, "one run that was disturbed decides nothing"
    said = io.StringIO()
    show(Console(file=said, width=160), results(tmp_path, rows=[measured]))
    assert "12.00 (11.00 to 30.00)" in said.getvalue()
    assert "10.00 (9.00 to 50.00)" in said.getvalue()


def test_a_measurement_that_fails_loses_no_other(tmp_path: Path) -> None:
    found = results(tmp_path)

    def fail() -> list[Measurement]:
        raise ValueError("wrk said nothing")

    mended: list[str] = []
    found.mend = lambda: mended.append("brought up again")
    found.step("up", lambda: [row(5)])
    assert mended == []
    found.step("the ingress", fail)
    assert mended == ["brought up again"], "it may have stopped what the next measurement asks"
    found.mend = fail
    found.step("the ingress", fail)
    written = json.loads(found.file.read_text(encoding="utf-8"))
    assert [each["what"] for each in written["rows"]] == ["up [cold]"], "written before the next one begins"
    assert written["failed"] == {"the ingress": "ValueError: wrk said nothing"}


def test_nothing_is_begun_after_the_time_is_over(tmp_path: Path) -> None:
    found = results(tmp_path, seconds=0)
    found.step("the curve", lambda: [row(5)])
    assert found.rows == []
    assert found.failed["the curve"].startswith("not begun")


# The critical path


def event(part: str, action: str, at: float) -> dict[str, Any]:
    return {"Action": action, "timeNano": int(at * 1e9), "Actor": {"Attributes": {PART_LABEL: part}}}


def test_the_critical_path_is_the_chain_of_parts_that_the_last_one_waited_for() -> None:
    watch = HealthEvents()
    for part, started, healthy in (
        ("postgres", 102, 107),
        ("redis", 102, 104),
        ("migrations", 108, 110),
        ("api-1", 111, 116),
        ("grafana", 102, 112),
    ):
        watch.note(event(part, "start", started))
        watch.note(event(part, "health_status: healthy", healthy))
    watch.note(event("postgres", "health_status: healthy", 130))
    after = {"migrations": ["postgres"], "api-1": ["redis", "migrations"]}
    steps = watch.path(after, begun=100)
    assert [(step.part, step.until_started, step.until_healthy) for step in steps] == [
        ("postgres", 2, 5),
        ("migrations", 1, 2),
        ("api-1", 1, 5),
    ], "a later answer of a part that was healthy is none that anything waited for"
    assert str(steps[0]) == "postgres, started after 2.0 s, healthy 5.0 s later"


def test_a_part_that_starts_again_is_not_yet_healthy() -> None:
    watch = HealthEvents()
    for action, at in (("start", 1), ("health_status: healthy", 2), ("start", 3), ("health_status: unhealthy", 4)):
        watch.note(event("api-1", action, at))
    assert watch.path({}, begun=0) == []
    watch.note({"Action": "start", "timeNano": 1, "Actor": {"Attributes": {}}})
    assert watch.started == {"api-1": 3}, "somebody else's container is no part"


# The curve of replicas


def point(replicas: int, deploy: float) -> scale.Point:
    return scale.Point(
        replicas=replicas, up=10, added=2, preview=4, deploy=deploy, mib=100, series=1000 + 100 * replicas
    )


def test_the_curve_sets_each_size_beside_the_smallest() -> None:
    assert scale.rows([point(2, 10)]) == [], "one point is no curve"
    rows = {row.what: row.ratio for row in scale.rows([point(2, 10), point(4, 20), point(8, 80)])}
    assert rows["rolling deploy, a replica with 4 replicas"] == 1, "as long for each replica: linear"
    assert rows["rolling deploy, a replica with 8 replicas"] == 2
    assert rows["series for a replica more, with 8 replicas"] == 100 / 1200


def test_the_curve_keeps_its_points_when_a_size_fails_or_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*words: Any) -> scale.Point:
        if words[3] > 4:
            raise RuntimeError("no memory is left")
        return point(words[3], 10)

    monkeypatch.setattr(scale, "_point", make)
    nothing: Any = None
    points, why = scale.points(nothing, nothing, nothing, until=float("inf"))
    assert [each.replicas for each in points] == [2, 4]
    assert why == "8 replicas: RuntimeError: no memory is left"
    assert scale.points(nothing, nothing, nothing, until=0) == (
        [],
        "2 replicas were not begun: not enough time was left",
    )
