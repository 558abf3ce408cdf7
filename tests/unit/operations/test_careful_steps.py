"""What copies, mends and removes looks first, and leaves nothing behind: one step each, on plain values."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host.progress import Reporter, Task
from offline.errors import OfflineError
from offline.images.builder import Builder
from operations.data.compose import import_on_engine
from operations.data.compose.import_compose import Import
from operations.data.compose.plan import ImportPlan
from operations.data.compose.source import Source
from operations.engine import laboratory, one_off
from operations.errors import ProjectError
from operations.workspace import pulumi_state
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.names import PROJECT
from stack.settings.reading import read_environment
from tests import private_engine, recorded
from tests.unit.operations.audit.drift.test_drift import findings
from tests.unit.operations.data.compose.test_compose_import import FakeEngine, plan

SOURCE = Source(server="postgres", volume="old_pg", folder=".", bytes=100, free=10**9)


# Imports.


def test_an_import_asks_for_room_for_its_copy_and_for_what_is_set_aside() -> None:
    engine = FakeEngine(free=399)
    with pytest.raises(ProjectError, match="free"):
        plan(engine)  # two volumes of 100 bytes
    engine.free = 400
    assert plan(engine).sources


def test_a_volume_is_looked_at_once_more_before_it_is_copied(tmp_path: Path) -> None:
    engine = FakeEngine()
    planned = plan(engine)
    engine.running = ["old_postgres_1"]
    importing = Import(read_environment("staging", {}), engine, planned, tmp_path / "import.json", lambda _: None)
    before = dict(engine.volumes_)
    with pytest.raises(ProjectError, match="In use by old_postgres_1"):
        importing.run()
    assert engine.volumes_ == before, "a copy of a database that is written to is of no moment at all"


def test_the_old_volume_is_mounted_for_reading_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Mapping[str, tuple[str, bool]]] = []
    made: list[str] = []

    def once(_: object, _title: str, _part: str, _command: object, volumes: Mapping[str, Any], **__: object) -> str:
        asked.append(volumes)
        return ""

    monkeypatch.setattr(import_on_engine.EngineImport, "_once", once)
    client = SimpleNamespace(volumes=SimpleNamespace(create=made.append))
    engine = import_on_engine.EngineImport(cast("Any", client), read_environment("staging", {}), Workspace())
    engine.copy(SOURCE, "new")
    assert asked == [{"/from": ("old_pg", True), "/to": ("new", False)}], "the old stack is the way back"


def test_a_plan_of_an_import_is_for_the_volumes_as_they_were() -> None:
    one = ImportPlan(project="old", sources=(SOURCE,), stamp="20261123T100500Z")
    assert one.same(ImportPlan(project="old", sources=(SOURCE,), stamp="20261124T100500Z"))
    later = ImportPlan(project="old", sources=(replace(SOURCE, changed="2"),), stamp="x")
    assert not one.same(later), "what was written since would be left behind"


# Containers of one run.


@pytest.mark.parametrize("status", [0, 1])
def test_a_container_of_one_run_goes_with_its_nameless_volumes_however_it_ended(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    removed: list[dict[str, bool]] = []
    container = SimpleNamespace(
        start=lambda: None,
        wait=lambda: {"StatusCode": status},
        remove=lambda **options: removed.append(options),
    )
    client = SimpleNamespace(containers=SimpleNamespace(create=lambda *_, **__: container))
    monkeypatch.setattr(one_off, "attached", lambda _: nullcontext(iter([(b"said", None)])))

    def check(ended: int, _told: object) -> None:
        if ended:
            raise ProjectError("it failed")

    with pytest.raises(ProjectError) if status else nullcontext():
        one_off.run_once(cast("Any", client), "image", ["true"], task=Task(""), check=check)
    assert removed == [{"force": True, "v": True}], "each restore would leave a volume with a database in it"


def test_no_container_of_ours_looks_for_a_name_in_the_hosts_search_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the stack: a restore beside it asks for `redis` with its password too."""
    made: list[Any] = []

    def create(*_: object, **options: Any) -> Any:
        made.append(options["dns_search"])
        return SimpleNamespace(
            start=lambda: None,
            wait=lambda: {"StatusCode": 0},
            remove=lambda **_: None,
            put_archive=lambda *_: None,
        )

    client = SimpleNamespace(containers=SimpleNamespace(create=create))
    monkeypatch.setattr(one_off, "attached", lambda _: nullcontext(iter(())))
    one_off.run_once(cast("Any", client), "image", ["true"], task=Task(""), check=lambda *_: None)
    laboratory.Laboratory(cast("Any", client), "token", cast("Any", SimpleNamespace(name="net"))).start("image", {})
    assert made == [["."], ["."]]


def test_a_laboratory_removes_what_has_its_own_token_with_its_nameless_volumes_and_nothing_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    removed: list[str] = []

    def thing(name: str, token: str) -> Any:
        def remove(**options: bool) -> None:
            removed.append(f"{name} {sorted(options)}" if options else name)

        return SimpleNamespace(name=name, labels={laboratory.LABEL: token}, remove=remove)

    there = {kind: [thing(f"my {kind}", "mine"), thing(f"another's {kind}", "theirs")] for kind in KINDS}

    def listed(kind: str) -> Any:
        def found(*, filters: dict[str, str], **_: bool) -> list[Any]:
            name, _equals, value = filters["label"].partition("=")
            return [each for each in there[kind] if name in each.labels and value in ("", each.labels[name])]

        return SimpleNamespace(list=found, create=lambda *_, **__: there["networks"][0])

    monkeypatch.setattr("secrets.token_hex", lambda _: "mine")
    with laboratory.opened(cast("Any", SimpleNamespace(**{kind: listed(kind) for kind in KINDS}))):
        assert removed == []
    assert removed == ["my containers ['force', 'v']", "my volumes", "my networks"], "another check runs beside it"


KINDS = ("containers", "volumes", "networks")


# What is mounted.


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where something is mounted, as the kernel says it."""
    points: list[Path] = []
    read = Path.read_text

    def said(path: Path, *words: Any, **options: Any) -> str:
        if str(path) != "/proc/self/mountinfo":
            return read(path, *words, **options)
        return "".join(f"36 35 98:0 / {point} rw - ext4 /dev/root rw\n" for point in points)

    monkeypatch.setattr(Path, "read_text", said)
    return points


def test_what_is_mounted_beside_the_folder_of_a_private_engine_stays(
    mounted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted += [Path("/t/engine"), Path("/t/engine/data"), Path("/t/engine-2/data"), Path("/")]
    ran: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, **_: ran.append(words))
    private_engine._unmount_below(Path("/t/engine"))
    assert ran == [["umount", "/t/engine/data"], ["umount", "/t/engine"]], "the innermost first, and nobody else's"


def test_a_half_made_tree_in_which_something_is_mounted_is_not_removed(tmp_path: Path, mounted: list[Path]) -> None:
    tree = tmp_path / "work" / "tree"
    (tree / "dev").mkdir(parents=True)
    mounted.append(tree / "dev")
    builder = SimpleNamespace(_tree=tree, _work=tree.parent)
    with pytest.raises(OfflineError, match="still mounted"):
        Builder._remove_half_made_tree(cast("Builder", builder))
    assert (tree / "dev").exists(), "the host's own /dev would be emptied"
    mounted.clear()
    Builder._remove_half_made_tree(cast("Builder", builder))
    assert not tree.exists()


# What a run that was cut off has left.


def test_what_waits_for_its_removal_is_not_missed_on_the_engine() -> None:
    def container(name: str, **more: bool) -> dict[str, Any]:
        return {"type": pulumi_state.CONTAINER, "urn": f"u::{name}", "inputs": {"name": name}, **more}

    state = {"resources": [container("there"), container("replaced", delete=True)]}
    assert pulumi_state.known_names(state) == {"there"}, "each `up` would ask the engine for all"


@pytest.mark.parametrize(("comm", "mended"), [("pulumi", False), ("", True)], ids=["it runs", "it was killed"])
def test_the_files_of_a_pulumi_are_mended_only_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comm: str, mended: bool
) -> None:
    half = tmp_path / ".pulumi" / "stacks" / PROJECT / "staging.json.attrs"
    note = tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "staging" / "lock.json"
    for file in (half, note):
        file.parent.mkdir(parents=True)
    half.touch()
    note.write_text(json.dumps({"pid": os.getpid(), "hostname": socket.gethostname(), "timestamp": "now"}))
    monkeypatch.setattr(pulumi_state.Lock, "is_stale", lambda _: comm != "pulumi")
    run = SimpleNamespace(
        backend=SimpleNamespace(folder=tmp_path),
        stack="staging",
        reporter=Reporter(),
    )
    PulumiRun.mend(cast("PulumiRun", run))
    assert half.exists() is not mended, "it is made, then written: just now it may be empty"


# Drift.


def test_a_carrier_of_files_that_somebody_has_started_is_found() -> None:
    world = recorded.recorded()
    carrier = next(each for each in world["containers"] if "-files-" in each["Name"])
    carrier["State"].update(Running=True, Status="running")
    (row,) = findings(world)
    assert (row.name, row.field, row.declared, row.found) == (
        carrier["Name"].lstrip("/"),
        "state",
        "never started",
        "running",
    ), "it has secrets, and a shell of its own image beside them"
