"""`up` has failed at a damaged server, so that no part exists that waits for it: a restore needs none of them."""

from __future__ import annotations

import io
import tarfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from host.progress import Reporter
from offline.images.archive import Entry, tar_of
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
    with pytest.raises(ProjectError, match="no container of the part 'backup'"):
        engine("postgres").program("check-restore", "--latest", store="samokoder-staging-backup-data")


KEYS = {"backup_encryption_key": "open", "s3AccessKeyId": "who", "s3SecretAccessKey": "sesame"}


def test_the_off_site_copy_is_fetched_by_the_drill_where_there_is_no_backup_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[dict[str, Any]] = []
    given: dict[str, str] = {}
    monkeypatch.setattr(one_off, "attached", lambda _: nullcontext(iter([])))

    def engine(*parts: str, **keys: str) -> EngineRestore:
        client = there(*parts, started=started)
        create = client.containers.create

        def put(folder: str, archive: bytes) -> None:
            assert folder == "/etc/samokoder"
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    given[member.name] = file.read().decode() if file else ""

        def made(*words: Any, **options: Any) -> Any:
            container = create(*words, **options)
            container.put_archive = put
            return container

        client.containers.create = made
        with tar_of([Entry("backup.json", b"settings of the drill")]) as settings:
            text = settings.read()
        for part in client.containers.list():
            part.get_archive = lambda path: (iter([text]), {"name": path})
        return EngineRestore(cast("docker.DockerClient", client), environment(), Reporter(), pytest.fail, lambda: keys)

    engine("postgres", "drill", **KEYS).program("offsite", "pull", store="fresh", online=True)
    mounts = {each["Target"]: each["Source"] for each in started[0]["mounts"]}
    assert mounts == {"/backups": "fresh", "/etc/samokoder": None}, "the keys stay in a volume that goes with it"
    assert given == {
        "backup.json": "settings of the drill",
        "encryption_key": "open",
        "offsite_access_key_id": "who",
        "offsite_secret_access_key": "sesame",
    }
    assert started[0]["network_mode"] == "samokoder-staging-edge"
    with pytest.raises(ProjectError, match="samokoder:s3AccessKeyId: set it as on the machine that made the copy"):
        engine("drill", **KEYS | {"s3AccessKeyId": ""}).program("offsite", "pull", store="fresh", online=True)
    with pytest.raises(ProjectError, match="neither has a container"):
        engine("postgres", **KEYS).program("offsite", "pull", store="fresh", online=True)


def test_where_the_backup_servers_volume_is_there_its_container_is_made_after_the_data_is_back() -> None:
    client = there("postgres", "drill", started=[])
    data = SimpleNamespace(name="samokoder-staging-backup-data")
    client.volumes = SimpleNamespace(list=lambda **_: [data])
    upped: list[bool] = []
    engine = EngineRestore(cast("docker.DockerClient", client), environment(), Reporter(), lambda: upped.append(True))
    assert not engine.bring_up("backup")
    assert not upped, "it fails at the very data that is to be replaced"
    client.volumes = SimpleNamespace(list=lambda **_: [])
    assert engine.bring_up("backup")
    assert upped, "Pulumi knows of a volume that is not there"


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


@pytest.mark.parametrize("asked", ["the latest", "a repair"])
def test_a_server_without_a_container_is_brought_up_and_what_is_written_then_is_restored_too(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    server = ASKED[asked].server
    engine.unmade = {server, *USERS[server]}
    engine.running -= engine.unmade
    made: list[bool] = []
    sizes = engine.sizes

    def looked(volume: str) -> tuple[int, int]:
        if "up" in engine.done:
            made.append(any("-restored-" in each for each in engine.volumes))
        return sizes(volume)

    monkeypatch.setattr(engine, "sizes", looked)
    done = restoring(engine, tmp_path / "restore.json", ASKED[asked]).run()
    assert made[0] is False, "the room that what was made before takes is free again"
    assert "written then" in engine.volumes[engine.data_of(server)], "it was told that somebody else had started it"
    assert "written then" in engine.volumes[done.set_aside[-1]]
    again = [each.split()[0] for each in engine.done[engine.done.index("up") + 1 :]]
    if asked == "the latest":
        assert again[0] == "check-restore", "what is written just then is waited for, before anything is stopped"


@pytest.mark.parametrize("asked", ASKED)
def test_who_is_said_to_be_stopped_is_who_is_stopped(asked: str, tmp_path: Path) -> None:
    engine = FakeEngine()
    for volume in filter(None, [ASKED[asked].source]):
        engine.volumes[volume] = "set aside"
    restore = restoring(engine, tmp_path / "restore.json", ASKED[asked])
    said = set(restore.stops)
    restore.run()
    stopped = {each.removeprefix("stop ") for each in engine.done if each.startswith("stop ")}
    assert stopped, "nothing was stopped"
    assert stopped <= said, "a person who was asked did not read that it stops"
