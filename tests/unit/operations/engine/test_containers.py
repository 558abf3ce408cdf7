"""What is stopped and removed on an engine, and the status of a command in a container, with an SDK of plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host.progress import Reporter
from operations.engine import containers
from operations.engine.commands import exec_status
from stack.common.names import ENVIRONMENT_LABEL, PART_LABEL
from stack.settings.reading import read_environment

PREFIX = "samokoder-staging"


@dataclass
class Container:
    """One container of the SDK; `done` is what became of it."""

    name: str
    status: str = "running"
    health: str = "healthy"
    labels: dict[str, str] = field(default_factory=dict)
    stop_timeout: int | None = None
    networks: tuple[str, ...] = ()
    """Ids of those that it is on."""
    done: list[str] = field(default_factory=list)
    starts_for: int = 0
    """How many looks it is still starting for."""

    @property
    def id(self) -> str:
        return f"id of {self.name}"

    @property
    def attrs(self) -> dict[str, Any]:
        health = "starting" if self.starts_for else self.health
        return {
            "Mounts": [{"Name": f"files of {self.name}"}],
            "NetworkSettings": {"Networks": {each: {"NetworkID": each} for each in self.networks}},
            "Config": {"StopTimeout": self.stop_timeout},
            "State": {"Running": self.status == "running", "Health": {"Status": health}},
        }

    def reload(self) -> None:
        self.starts_for = max(0, self.starts_for - 1)

    def stop(self, *, timeout: int) -> None:
        self.done.append(f"stopped within {timeout} s" + (" while it started" if self.starts_for else ""))

    def remove(self, **options: bool) -> None:
        self.done.append("removed" + (" with its nameless volumes" if options.get("v") else ""))


def engine(*there: Container, networks: tuple[str, ...] = ()) -> Any:
    listed = [SimpleNamespace(name=name, id=f"id of {name}", attrs={}, reload=lambda: None) for name in networks]
    removed: list[str] = []
    for network in listed:
        network.remove = lambda name=network.name: removed.append(name)
    return SimpleNamespace(
        containers=SimpleNamespace(list=lambda **_: list(there)),
        networks=SimpleNamespace(list=lambda **_: listed),
        removed=removed,
    )


def of_part(part: str, **values: Any) -> Container:
    labels = {ENVIRONMENT_LABEL: "staging", PART_LABEL: part}
    return Container(f"{PREFIX}-{part}", labels=labels, **values)


def removed(client: Any, *begun: str, known: tuple[str, ...] = ()) -> list[str]:
    volumes = {name: [f"files of {name}"] if name.startswith(f"{PREFIX}-api") else [] for name in begun}
    return containers.remove_begun(client, volumes, [f"id of {name}" for name in known], Reporter())


def test_what_a_killed_run_has_made_and_not_noted_is_removed_and_nothing_that_is_known() -> None:
    noted, left, other = of_part("api-1"), of_part("api-2"), of_part("worker")
    client = engine(noted, left, other)
    assert removed(client, noted.name, left.name, known=(noted.name,)) == [left.name]
    assert noted.done == [], "what Pulumi knows runs on"
    assert other.done == [], "the run had not begun to make it: another state knows it"
    assert left.done == ["stopped within 30 s", "removed"]


def test_one_of_the_name_with_other_files_is_another_states_and_stays() -> None:
    theirs = of_part("api-1")
    begun = {theirs.name: ["files of this run"]}
    assert containers.remove_begun(engine(theirs), begun, [], Reporter()) == []
    assert theirs.done == [], "it runs for somebody else"


@pytest.mark.parametrize("part", ["cadvisor", "node-exporter", "frontend"])
def test_one_without_files_is_told_from_another_states_by_its_networks(part: str) -> None:
    theirs = of_part(part, networks=("theirs",))
    client = engine(theirs)
    assert containers.remove_begun(client, {theirs.name: []}, ["ours"], Reporter()) == []
    assert theirs.done == [], "a clone whose state was lost would take it from the users of the first one"
    looping = of_part(part, status="restarting")
    assert containers.remove_begun(engine(looping), {looping.name: []}, ["ours"], Reporter()) == []
    for ours in (of_part(part, networks=("ours",)), of_part(part, status="created")):
        assert containers.remove_begun(engine(ours), {ours.name: []}, ["ours"], Reporter()) == [ours.name]


def test_one_that_is_still_starting_comes_to_its_start_and_then_has_its_own_time_to_stop() -> None:
    database = of_part("postgres", starts_for=2, stop_timeout=90)
    containers.remove_begun(engine(database), {database.name: [f"files of {database.name}"]}, [], Reporter())
    assert database.done == ["stopped within 90 s", "removed"], "a database that is being initialised would be half one"


def test_a_network_that_the_run_had_begun_goes_and_every_other_stays() -> None:
    client = engine(networks=(f"{PREFIX}-data", f"{PREFIX}-app", f"{PREFIX}-2-data"))
    assert removed(client, f"{PREFIX}-data", f"{PREFIX}-app", known=(f"{PREFIX}-app",)) == [f"{PREFIX}-data"]
    assert client.removed == [f"{PREFIX}-data"]


def test_all_of_a_part_that_has_not_ended_is_stopped_within_its_own_time() -> None:
    parts = {
        "api-1": of_part("api-1", stop_timeout=45),
        "api-2": of_part("api-2", status="restarting"),
        "postgres": of_part("postgres", status="exited"),
        "worker": of_part("worker"),
    }
    environment = read_environment("staging", {})
    containers.stop(engine(*parts.values()), environment, ["api", "postgres"], Reporter())
    done = {part: each.done for part, each in parts.items()}
    assert done == {
        "api-1": ["stopped within 45 s"],
        "api-2": ["stopped within 30 s"],  # it would start again while its data is replaced
        "postgres": [],
        "worker": [],
    }


def test_the_status_of_a_command_is_waited_for_and_never_taken_for_a_good_one() -> None:
    answers = iter([None, None, 3])
    api = cast("Any", SimpleNamespace(exec_inspect=lambda _: {"ExitCode": next(answers)}))
    assert exec_status(api, "session") == 3, "a backup that failed would count as a good one"


def test_what_is_removed_by_its_label_takes_its_nameless_volumes_along() -> None:
    left = Container("laboratory")
    assert containers.remove_labelled(engine(left), "samokoder.restore=staging") == ["laboratory"]
    assert left.done == ["removed with its nameless volumes"]
