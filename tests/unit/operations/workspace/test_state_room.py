"""What Pulumi leaves of earlier updates in a state folder, and a folder that has no room for the next one."""

from __future__ import annotations

import gzip
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from operations.errors import ProjectError
from operations.lifecycle.prepare import prepare
from operations.workspace import state_room
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace

STATE = '{"checkpoint": {"latest": {}}}'


def state(folder: Path, updates: int, *, stack: str = "staging") -> Backend:
    """A state folder as Pulumi 3.259 leaves it after so many updates."""
    pulumi = folder / ".pulumi"
    files = {f"stacks/samokoder/{stack}.json": STATE, f"stacks/samokoder/{stack}.json.bak": STATE}
    for update in range(updates):
        number = 1_795_987_159_944_464_300 + update * 7
        files[f"history/samokoder/{stack}/{stack}-{number}.history.json"] = "{}"
        files[f"history/samokoder/{stack}/{stack}-{number}.checkpoint.json"] = STATE * 100
        files[f"backups/samokoder/{stack}/{stack}.{number + 3}.json"] = STATE * 100 + str(update)
    for name, text in files.items():
        for each, content in ((name, text), (f"{name}.attrs", "{}")):
            (pulumi / each).parent.mkdir(parents=True, exist_ok=True)
            (pulumi / each).write_text(content)
    return Backend(url=f"file://{folder}", origin="here")


def names(folder: Path, kind: str, stack: str = "staging") -> list[str]:
    return sorted(file.name for file in (folder / ".pulumi" / kind / "samokoder" / stack).iterdir())


def test_the_newest_updates_stay_and_their_backups_are_compressed(tmp_path: Path) -> None:
    backend = state(tmp_path, 50)
    state(tmp_path, 50, stack="staging-2")
    kept = {kind: (tmp_path / f".pulumi/{kind}").stat() for kind in ("stacks",)}
    gained = state_room.thin(backend, "staging")
    assert gained > 30 * 2 * len(STATE) * 100, "0.8 MB an update for ever fills a disk"
    history = names(tmp_path, "history")
    assert len(history) == 4 * state_room.KEPT, "of each update its history and its state, each with its attributes"
    assert history[-1].startswith("staging-1795987159944464643"), "and these are the newest"
    backups = names(tmp_path, "backups")
    assert len(backups) == state_room.KEPT
    assert all(name.endswith(".json.gz") for name in backups)
    newest = tmp_path / ".pulumi/backups/samokoder/staging" / backups[-1]
    assert gzip.decompress(newest.read_bytes()).decode() == STATE * 100 + "49", "a backup is what it was"
    assert (tmp_path / ".pulumi/stacks/samokoder/staging.json").read_text() == STATE, "the state itself is not touched"
    assert kept["stacks"].st_mtime == (tmp_path / ".pulumi/stacks").stat().st_mtime
    assert len(names(tmp_path, "backups", "staging-2")) == 100, "another stack's are its own"
    assert state_room.thin(backend, "staging") == 0, "a second time there is nothing to do"


def test_what_a_clock_that_was_ahead_has_numbered_counts_for_no_newer_one(tmp_path: Path) -> None:
    backend = state(tmp_path, 30)
    folder = tmp_path / ".pulumi/history/samokoder/staging"
    for number in range(30):
        (folder / f"staging-{4_000_000_000_000_000_000 + number}.history.json").write_text("{}")
    state_room.thin(backend, "staging")
    real = [name for name in names(tmp_path, "history") if name.startswith("staging-17959") and "history" in name]
    assert len(real) == 2 * state_room.KEPT, "the updates that were made would go, one after the other"


def test_what_is_none_of_pulumis_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    backend = state(tmp_path, 30)
    folder = tmp_path / ".pulumi/backups/samokoder/staging"
    (folder / "notes.txt").write_text("mine")
    outside = tmp_path / "outside.json"
    outside.write_text("mine")
    (folder / "staging.1.json").symlink_to(outside)
    state_room.thin(backend, "staging")
    assert (folder / "notes.txt").is_file()
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("dies_at", ["fsync", "replace", "unlink"])
def test_a_death_in_between_loses_no_backup_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    backend = state(tmp_path, 3)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync" if dies_at == "fsync" else f"pathlib.Path.{dies_at}", dies)
        with pytest.raises(KeyboardInterrupt):
            state_room.thin(backend, "staging")
    folder = tmp_path / ".pulumi/backups/samokoder/staging"
    for update in range(3):
        plain = folder / f"staging.{1_795_987_159_944_464_300 + update * 7 + 3}.json"
        packed = plain.with_name(f"{plain.name}.gz")
        text = plain.read_text() if plain.is_file() else gzip.decompress(packed.read_bytes()).decode()
        assert text == STATE * 100 + str(update), "half a copy must not take its place"
    state_room.thin(backend, "staging")
    assert [name for name in names(tmp_path, "backups") if not name.endswith(".json.gz")] == []


def test_a_state_elsewhere_is_its_providers_matter(tmp_path: Path) -> None:
    bucket = Backend(url="s3://bucket", origin="chosen")
    assert state_room.thin(bucket, "staging") == 0
    state_room.refuse_full(bucket, "staging")
    state_room.refuse_full(Backend(url=f"file://{tmp_path}/not/yet/made", origin="here"), "staging")


def test_a_full_disk_is_told_with_its_place_before_anything_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = state(tmp_path, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(ProjectError, match="No space") as refused:
        state_room.refuse_full(backend, "staging")
    assert str(tmp_path) in str(refused.value), "which of the disks it is"
    assert "5 MiB free" in str(refused.value)
    workspace = Workspace(home=tmp_path / "home")
    monkeypatch.setattr(Workspace, "engine", lambda _: pytest.fail("an engine was asked, and may have been installed"))
    with pytest.raises(ProjectError, match="No space"):
        prepare(workspace)
    run = workspace.pulumi_by("/bin/false", {}, backend)
    monkeypatch.setattr(PulumiRun, "refuse_moved", lambda _: None)
    with pytest.raises(ProjectError, match="No space"):
        run.pulumi("up", "--yes", capture=True)


@pytest.mark.parametrize(("all_of_them", "free", "refused"), [(1000, 5, True), (1000, 500, False), (0, 0, False)])
def test_a_disk_that_takes_no_further_file_is_told_as_a_full_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, all_of_them: int, free: int, *, refused: bool
) -> None:
    backend = state(tmp_path, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**40))
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_files=all_of_them, f_favail=free))
    expected: AbstractContextManager[object] = nullcontext()
    if refused:
        expected = pytest.raises(ProjectError, match="5 more files")
    with expected:
        state_room.refuse_full(backend, "staging")
