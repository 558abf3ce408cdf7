"""`up` has failed at a damaged server, so that no part exists that waits for it: a restore needs none of them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from host.progress import Reporter
from operations.data import backups
from operations.data.restore.on_engine import EngineRestore
from operations.engine import one_off
from operations.errors import ProjectError
from operations.workspace import known
from stack.common.names import PART_LABEL
from tests.restoring import ASKED, USERS, FakeEngine, environment, restoring

if TYPE_CHECKING:
    import docker


@pytest.mark.parametrize("asked", ["a moment", "the latest", "a dump", "redis", "a repair"])
def test_a_server_that_alone_was_made_is_restored_and_the_rest_is_made_after_it(asked: str, tmp_path: Path) -> None:
    engine = FakeEngine()
    everything = set(engine.running)
    engine.unmade = USERS[ASKED[asked].server] - {"drill"}
    engine.running -= engine.unmade
    restoring(engine, tmp_path / "restore.json", ASKED[asked]).run()
    assert engine.running == everything, "the data is back and nobody serves it"
    done = [what for what in engine.done if what in ("start postgres", "start redis", "up", "a new backup")]
    assert done[:2] == [f"start {ASKED[asked].server}", "up"], "`up` would fail again at the damaged data"


def there(*parts: str, started: list[dict[str, Any]]) -> SimpleNamespace:
    """An engine with these parts."""

    def create(image: str, words: list[str], **options: Any) -> SimpleNamespace:
        started.append({"image": image, "words": words, **options})
        return SimpleNamespace(start=lambda: None, wait=lambda: {"StatusCode": 0}, remove=lambda **_: None)

    found = []
    for part in parts:
        files = {"Type": "volume", "Name": f"files of {part}", "Destination": "/etc/samokoder"}
        host = {"Tmpfs": {}, "Memory": 1, "NanoCpus": 2, "ShmSize": 3}
        attrs = {"Image": "sha256:1", "Config": {"User": "999:999", "Env": []}, "HostConfig": host, "Mounts": [files]}
        found.append(
            SimpleNamespace(id=part, labels={PART_LABEL: part}, attrs=attrs, status="running", reload=lambda: None)
        )
    volumes = SimpleNamespace(list=lambda **_: [])
    client = SimpleNamespace(
        containers=SimpleNamespace(list=lambda **_: found, create=create), volumes=volumes, close=lambda: None
    )
    for each in found:
        each.client = client
    return client


def test_a_restore_runs_as_the_drill_where_there_is_no_backup_container(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(one_off, "attached", lambda _: nullcontext(iter([])))

    def engine(*parts: str) -> EngineRestore:
        client = cast("docker.DockerClient", there(*parts, started=started))
        return EngineRestore(client, environment(), Reporter(), pytest.fail)

    damaged = engine("postgres", "drill")
    damaged.program("check-restore", "--latest", store="samokoder-staging-backup-data", into="new")
    mounts = {each["Target"]: each["Source"] for each in started[0]["mounts"]}
    assert mounts["/backups"] == "samokoder-staging-backup-data"
    assert mounts["/etc/samokoder"] == "files of drill"
    assert started[0]["image"] == "sha256:1"
    with pytest.raises(ProjectError, match="Restore a backup of this machine first"):
        damaged.program("offsite", "pull", store="fresh", online=True)
    with pytest.raises(ProjectError, match="no container of the part 'backup'"):
        engine("postgres").program("check-restore", "--latest", store="samokoder-staging-backup-data")


def test_what_is_missing_is_brought_up_and_nothing_where_all_is_there() -> None:
    upped: list[bool] = []

    def engine(*parts: str) -> EngineRestore:
        client = cast("docker.DockerClient", there(*parts, started=[]))
        return EngineRestore(client, environment(), Reporter(), lambda: upped.append(True))

    engine("postgres", "backup", "drill").complete()
    assert not upped, "a part that is new in the stack file would be deployed, and nobody was asked"
    engine("postgres", "drill").complete()
    assert upped


def test_the_backups_are_listed_by_the_drill_where_there_is_no_backup_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def run(container: Any, *_: object) -> str:
        asked.append(container.labels[PART_LABEL])
        return "[]"

    monkeypatch.setattr(backups, "run_in_service", run)
    parts = ["postgres", "drill"]
    environment = SimpleNamespace(
        name="staging", prefix="samokoder-staging", client=lambda **_: there(*parts, started=[])
    )
    monkeypatch.setattr(known, "of", lambda _: environment)
    assert backups.backups(cast("Any", None)) == ([], [])
    parts[0] = "backup"
    assert backups.backups(cast("Any", None)) == ([], [])
    assert asked == ["drill", "backup"]
