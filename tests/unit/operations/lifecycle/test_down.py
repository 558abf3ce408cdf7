"""What `up` and `destroy-data` do with data volumes, on an engine of plain lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from docker.errors import NotFound

from operations.data.restore import unfinished
from operations.data.restore.journal import Journal
from operations.data.restore.on_engine import EngineRestore
from operations.data.restore.request import Wanted
from operations.engine import old_images, one_off
from operations.engine.part_status import PartStatus
from operations.errors import ProjectError
from operations.lifecycle import down as lifecycle_down
from operations.lifecycle import lost_data
from operations.lifecycle import up as lifecycle_up
from operations.workspace import pulumi_state
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.names import PART_LABEL
from tests import recorded

if TYPE_CHECKING:
    import docker

PREFIX = f"samokoder-{recorded.ENVIRONMENT}"
EVERY = ("postgres", "redis", "backup", "prometheus")


def volume(name: str) -> str:
    return f"samokoder-staging-{name}-data"


@dataclass
class FakeEngine:
    """An engine with these volumes, and a container that runs of each of these parts."""

    volumes_there: list[str] = field(default_factory=lambda: [volume(name) for name in EVERY])
    parts: list[str] = field(default_factory=lambda: ["postgres-roles", "migrations", "api-1", "redis-users", "backup"])
    done: list[str] = field(default_factory=list)
    locks: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def client(self) -> Any:
        return SimpleNamespace(
            volumes=SimpleNamespace(list=self._volumes, create=self._create, get=self._volume),
            api=SimpleNamespace(base_url="", api_version="1.41", timeout=1, get=self._disk_usage),
            containers=SimpleNamespace(list=self._containers),
            close=lambda: None,
        )

    def _containers(self, *, filters: dict[str, str] | None = None, **_: object) -> list[SimpleNamespace]:
        if filters and filters.get("label", "").startswith(one_off.LABELS):
            return []
        return [self._container(part) for part in self.parts]

    def _volumes(self, *, filters: dict[str, str] | None = None) -> list[SimpleNamespace]:
        if filters and filters.get("label", "").startswith(old_images.LABEL):
            return []
        if filters and "label" in filters:
            return [SimpleNamespace(name=name, attrs={"Labels": labels}) for name, labels in self.locks.items()]
        return [SimpleNamespace(name=name) for name in self.volumes_there]

    @staticmethod
    def _disk_usage(_address: str, **_: object) -> SimpleNamespace:
        said = {"Volumes": [{"Name": volume("postgres"), "UsageData": {"Size": 4096}}, {"Name": "other"}]}
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: said)

    def _volume(self, name: str) -> SimpleNamespace:
        if name in self.locks:
            return SimpleNamespace(remove=lambda: self.locks.pop(name))
        if name not in self.volumes_there:
            raise NotFound(name)
        return SimpleNamespace(remove=lambda: self.volumes_there.remove(name))

    def _create(self, name: str, labels: dict[str, str] | None = None) -> None:
        if labels:
            self.locks[name] = labels
            return
        self.done.append(f"make {name}")
        self.volumes_there.append(name)

    def _container(self, part: str) -> SimpleNamespace:
        attrs: dict[str, Any] = {"Config": {}, "Mounts": []}
        stop = lambda **_: self.done.append(f"stop {part}")  # noqa: E731
        return SimpleNamespace(labels={PART_LABEL: part}, status="running", attrs=attrs, stop=stop)


@dataclass
class Given:
    """A stack that once was up with every volume, and its engine."""

    engine: FakeEngine
    folder: Path
    said: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def run(self) -> Any:
        resources = [
            {
                "type": "docker:index/volume:Volume",
                "urn": f"urn:pulumi:staging::samokoder::Volume::data-{name}",
                "protect": True,
                "outputs": {"name": volume(name)},
            }
            for name in EVERY
        ]
        workspace = Workspace(extra_config=self.config, home=self.folder)
        object.__setattr__(workspace.reporter, "say", self.said.append)
        return SimpleNamespace(
            workspace=workspace,
            deployment=lambda: {"resources": resources},
            settle=lambda _: None,
            pulumi=lambda *words, **_: self.engine.done.append(f"pulumi {words[0]}"),
        )

    def refusal(self, *lost: str, empty: tuple[str, ...] = ()) -> str:
        """What is said when these volumes were lost; nothing may be done then."""
        self.engine.volumes_there = [volume(name) for name in EVERY if name not in lost]
        with pytest.raises(ProjectError) as refused:
            lost_data.begin_empty(self.run.workspace, self.run, empty)
        assert not self.engine.done, "it touched something"
        return str(refused.value)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Given:
    made = Given(FakeEngine(), tmp_path)
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: made.engine.client)
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: made.run)
    monkeypatch.setattr(lifecycle_down, "used_by_others", lambda *_: {})
    return made


def test_nothing_is_said_or_done_while_every_volume_is_there(given: Given) -> None:
    lost_data.begin_empty(given.run.workspace, given.run, ())
    assert (given.engine.done, given.said) == ([], []), "an ordinary `up`"


def test_a_lost_database_is_no_reason_to_begin_with_an_empty_one_and_the_way_back_is_told(given: Given) -> None:
    said = given.refusal("postgres")
    assert volume("postgres") in said, "which one"
    assert "make restore BACKUP=latest" in said, "at 3 a.m. this is what somebody wants to type"
    assert "make up EMPTY=postgres" in said, "and how to say that nothing is missed"


def test_what_may_begin_empty_is_said_by_name_and_no_other_lost_volume_with_it(given: Given) -> None:
    said = given.refusal("postgres", "prometheus", empty=("prometheus",))
    assert "make up EMPTY='postgres prometheus'" in said, "the whole line, to be copied"


def test_a_volume_that_may_be_empty_is_made_once_what_was_prepared_in_it_has_stopped(given: Given) -> None:
    given.engine.volumes_there.remove(volume("postgres"))
    lost_data.begin_empty(given.run.workspace, given.run, ("postgres",))
    *stopped, made = given.engine.done
    assert made == f"make {volume('postgres')}"
    assert sorted(stopped) == ["stop api-1", "stop migrations", "stop postgres-roles"], (
        "Pulumi makes anew what does not run: else nobody would make roles and tables in the new database"
    )
    assert volume("postgres") in given.said[-1], "a person reads that data was lost"
    given.engine.done.clear()
    lost_data.begin_empty(given.run.workspace, given.run, ())
    assert not given.engine.done, "an `up` that was cut off is gone on with by a plain one"


def test_nothing_that_is_there_is_ever_emptied(given: Given) -> None:
    before = list(given.engine.volumes_there)
    lost_data.begin_empty(given.run.workspace, given.run, EVERY)
    assert (given.engine.volumes_there, given.engine.done) == (before, []), "it is a permission, no order"


@pytest.mark.parametrize(
    ("lost", "parts", "config", "said"),
    [
        (("postgres", "backup"), [], {}, "backups are gone with it"),
        (("postgres",), [], {}, "make up EMPTY=postgres, then make backups"),
        (("postgres",), ["backup"], {"samokoder:backup": {"physical": False}}, "make restore BACKUP=dump-…"),
        (("redis",), ["backup"], {}, "make restore BACKUP=redis-…"),
    ],
)
def test_what_is_told_fits_what_is_left(
    given: Given, lost: tuple[str, ...], parts: list[str], config: dict[str, Any], said: str
) -> None:
    given.engine.parts, given.config = parts, config
    assert said in given.refusal(*lost)
    assert ("BACKUP=latest" in given.refusal(*lost)) is False, "it would be refused there"


def test_a_restore_knows_the_volume_of_a_server_that_is_gone_and_looks_at_it_without_making_it(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.engine.parts = ["backup"]
    given.engine.volumes_there.remove(volume("postgres"))
    upped: list[None] = []
    settings = Workspace(extra_config={"samokoder:redis": {"adoptVolume": "compose_redis"}}).settings()
    up: Callable[[], None] = lambda: upped.append(None)  # noqa: E731
    engine = EngineRestore(cast("docker.DockerClient", given.engine.client), settings, Workspace().reporter, up)
    looked: list[str] = []

    def shell(_: EngineRestore, __: str, volumes: dict[str, tuple[str, bool]], ___: str) -> str:
        looked.append(volumes["/volume"][0])
        return "4096\n1000000\n"

    monkeypatch.setattr(EngineRestore, "_shell", shell)
    assert engine.data_of("postgres") == volume("postgres")
    assert engine.data_of("redis") == "compose_redis", "an adopted one keeps its name"
    assert engine.sizes(volume("postgres")) == (0, 1_000_000)
    assert looked == [volume("backup")], "an engine makes what is mounted and not there"
    engine.bring_up("backup")
    assert not upped, "a server that is there needs no `up`"
    engine.bring_up("postgres")
    assert upped, "nothing can be restored into a server that is not there"


def test_down_tells_a_volume_that_was_lost_and_does_not_say_that_it_was_kept(given: Given) -> None:
    given.engine.volumes_there.remove(volume("postgres"))
    kept = lifecycle_down.take_down(given.run.workspace, interactive=False)
    assert sorted(kept) == sorted(volume(name) for name in EVERY if name != "postgres")
    assert volume("postgres") in given.said[-1], "who reads that it was kept looks for it no further"
    assert "make up says" in given.said[-1], "and the next `up` is where it is told what to type"


def test_down_notes_which_images_ran_on_the_data_before_it_removes_them(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = "redis:7.4@sha256:" + "a" * 64
    container = {"type": pulumi_state.CONTAINER, "urn": "u::redis", "inputs": {"name": "x", "image": redis}}
    words: list[tuple[str, ...]] = []
    run = given.run
    left = run.deployment()["resources"]
    run.deployment = lambda: {"resources": [container, *left]}
    run.tags, run.pulumi = dict, lambda *said, **_: words.append(said)
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: run)
    lifecycle_down.take_down(run.workspace, interactive=False)
    noted = ("stack", "tag", "set", "samokoder:image-of-redis", redis)
    assert next(each for each in words if each == noted or each[0] == "destroy") == noted, "nothing tells it after that"


ASIDE = "samokoder-staging-postgres-before-restore-20261123T100500Z"
HALF = "samokoder-staging-postgres-restored-20261124T100500Z"
OF_OTHERS = "samokoder-staging-2-postgres-before-restore-20261123T100500Z"


def test_what_restores_have_left_is_told_with_what_it_is_before_all_data_goes(given: Given) -> None:
    given.engine.volumes_there += [HALF, ASIDE, OF_OTHERS]
    told = {each.name: each for each in lifecycle_down.data_volumes(given.run.workspace)}
    assert list(told) == [*sorted(map(volume, EVERY)), ASIDE, HALF], "each of them, and nobody else's"
    assert told[ASIDE].origin == "set aside by a restore, 2026-11-23 10:05 UTC"
    assert told[HALF].origin == "left by a restore that was cut off, 2026-11-24 10:05 UTC"
    assert told[volume("postgres")] == lifecycle_down.RemovableVolume(name=volume("postgres"), bytes=4096)


def test_all_data_goes_with_what_restores_have_set_aside_and_with_a_restore_that_was_cut_off(given: Given) -> None:
    given.engine.volumes_there += [HALF, ASIDE, OF_OTHERS]
    given.engine.parts = []
    half = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", touched=True)
    half.write(given.folder / "restore.staging.json")
    with pytest.raises(ProjectError, match="make restore"):  # as an `up` would
        unfinished.refuse_half_replaced(given.run.workspace)
    removed = lifecycle_down.destroy_data(given.run.workspace, interactive=False)
    assert given.engine.volumes_there == [OF_OTHERS], "nothing of it is left, and nothing else is gone"
    assert set(removed) == {*map(volume, EVERY), ASIDE, HALF}
    unfinished.refuse_half_replaced(given.run.workspace)  # the next `up` would ask for a restore of nothing


def test_all_data_is_also_what_an_earlier_run_that_failed_has_left_and_pulumi_forgot(given: Given) -> None:
    forgotten, of_others = volume("grafana"), "samokoder-staging-2-grafana-data"
    given.engine.volumes_there += [forgotten, of_others]
    told = {each.name: each.origin for each in lifecycle_down.data_volumes(given.run.workspace)}
    assert told[forgotten] == "Pulumi does not know it", "who is asked for the name sees all that goes"
    assert of_others not in told
    given.engine.parts = []
    assert forgotten in lifecycle_down.destroy_data(given.run.workspace, interactive=False)
    assert given.engine.volumes_there == [of_others]


class Recorded:
    """An engine with what a real one had on it, but for what somebody took away or stopped."""

    def __init__(self, world: dict[str, Any], *, gone: str = "", stopped: str = "") -> None:
        self.there = {each["Name"].lstrip("/"): each for each in world["containers"] if each["Name"] != f"/{gone}"}
        self.stopped = stopped
        networks = [{"Name": each["Name"]} for each in world["networks"] if each["Name"] != gone]
        self.api = SimpleNamespace(
            containers=lambda **_: [{"Names": [f"/{name}"]} for name in self.there], networks=lambda: networks
        )
        self.containers = SimpleNamespace(list=lambda **_: [*map(self.container, self.there)])

    def container(self, name: str) -> Any:
        return SimpleNamespace(
            name=name,
            id=self.there[name]["Id"],
            status="exited" if name == self.stopped else "running",
            remove=lambda: self.there.pop(name),
        )

    def close(self) -> None:
        """Nothing."""


def gone(world: dict[str, Any], engine: Recorded) -> list[str]:
    workspace = SimpleNamespace(client=lambda: engine, name="staging")
    run: Any = SimpleNamespace(deployment=lambda: world["deployment"])
    return lifecycle_up._gone(cast("Workspace", workspace), run)


@pytest.mark.parametrize(
    "name", ["", f"{PREFIX}-api-1", f"{PREFIX}-ingress-files-d82f9a078002", f"{PREFIX}-monitoring", "another-projects"]
)
def test_up_asks_the_engine_first_where_a_container_a_carrier_or_a_network_is_gone(name: str) -> None:
    world = recorded.recorded()
    expected = [name] if name.startswith(PREFIX) else []
    assert gone(world, Recorded(world, gone=name)) == expected, "by its state alone it would make nothing anew"


def test_what_was_stopped_is_made_anew_because_the_provider_would_start_it_and_wait_for_nothing() -> None:
    world = recorded.recorded()
    engine = Recorded(world, stopped=f"{PREFIX}-api-1")
    before = set(engine.there)
    assert gone(world, engine) == [f"{PREFIX}-api-1"]
    assert before - set(engine.there) == {f"{PREFIX}-api-1"}, "nothing that runs is touched"


def test_a_stopped_container_that_pulumi_has_not_made_is_left_alone() -> None:
    world = recorded.recorded()
    engine = Recorded(world, stopped=f"{PREFIX}-api-1")
    engine.there[f"{PREFIX}-api-1"] = {**engine.there[f"{PREFIX}-api-1"], "Id": "somebody else's"}
    assert gone(world, engine) == [], "it is for `make drift` to tell"
    assert f"{PREFIX}-api-1" in engine.there


@pytest.mark.parametrize(
    ("well", "first"), [((), None), (("api-1", "api-2"), None), (("api-1",), [2]), (("api-2",), [1])]
)
def test_an_up_has_the_sick_replica_replaced_before_the_one_that_serves(
    given: Given, monkeypatch: pytest.MonkeyPatch, well: tuple[str, ...], first: list[int] | None
) -> None:
    written: list[Any] = []
    run = SimpleNamespace(ensure_stack=written.append)
    rows = [PartStatus(part=part, state="running", health="healthy") for part in (*well, "worker")]
    monkeypatch.setattr(lifecycle_up, "live_status", lambda _: rows)
    lifecycle_up._sick_first(given.run.workspace, cast("PulumiRun", run))
    assert [document["config"]["samokoder:api"]["first"] for document in written] == ([first] if first else []), (
        "going back would take the only one that serves"
    )
