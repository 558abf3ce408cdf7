"""Copies of the workspace: handed out by one container, fetched by the backup server, and put into a folder again."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from samokoder_backup import copies, settings, shared, state
from samokoder_backup.process import BackupError, UnsureError
from samokoder_backup.settings import Settings, Workspace
from tests.backup_image.folders import settings_document


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace with files, and who hands out copies of it."""
    monkeypatch.setattr(settings, "WORKSPACE", tmp_path / "workspace")
    monkeypatch.setattr(settings, "ROOT", tmp_path / "backups")
    monkeypatch.setattr(settings, "WORKSPACE_COPIES", tmp_path / "backups" / "workspace")
    monkeypatch.setattr(settings, "CONFIG", tmp_path)
    monkeypatch.setattr(settings, "WORKSPACE_PORT", 0)
    monkeypatch.setattr(state, "_memory", {})
    (tmp_path / "workspace_password").write_text("the password")
    projects = tmp_path / "workspace" / "projects"
    projects.mkdir(parents=True)
    (projects / "mine.txt").write_text("mine")
    (projects / "mine.txt").chmod(0o600)
    (projects / ".samokoder-restore").write_text("the application's own, of this name")
    for mark in (".samokoder-restore", ".samokoder-copying"):
        (tmp_path / "workspace" / mark).touch()
    server = shared._Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Workspace(host="127.0.0.1", port=server.server_address[1])
    server.shutdown()
    server.server_close()


def with_workspace(workspace: Workspace) -> Settings:
    return Settings.model_validate(settings_document(workspace=workspace.model_dump()))


def test_a_copy_has_every_file_with_its_mode_and_comes_back(here: Workspace, tmp_path: Path) -> None:
    made = copies.workspace(with_workspace(here))
    copies.verify(made)
    into = tmp_path / "into"
    into.mkdir()
    copies.restore_workspace(made, into)
    assert (into / "projects" / "mine.txt").read_text() == "mine"
    assert (into / "projects" / "mine.txt").stat().st_mode & 0o777 == 0o600
    assert (into / "projects" / ".samokoder-restore").exists()
    assert not (into / ".samokoder-restore").exists(), "with a restore's own mark in it, it would look cut off for ever"
    assert not (into / ".samokoder-copying").exists()


def test_who_has_not_the_password_gets_no_copy_and_leaves_none(here: Workspace, tmp_path: Path) -> None:
    url = f"http://{here.host}:{here.port}"
    assert httpx.get(f"{url}/copy").status_code == 403
    assert httpx.get(f"{url}/copy", headers={"Authorization": "another"}).status_code == 403
    assert httpx.get(f"{url}/../workspace/projects/mine.txt").status_code == 404
    (tmp_path / "workspace_password").write_text("another")
    with pytest.raises(BackupError, match="403"):
        copies.workspace(with_workspace(here))
    assert not copies.copies("workspace")


def test_a_copy_that_tar_could_not_end_is_no_copy(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "WORKSPACE", Path("/nowhere"))
    with pytest.raises(BackupError, match="no whole copy"):
        copies.workspace(with_workspace(here))
    assert not copies.copies("workspace")


def test_the_last_room_of_the_disk_is_left_to_the_databases_log(
    here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=shared._LEAST_FREE, total=0))
    with pytest.raises(UnsureError, match="512 MiB"):
        copies.workspace(with_workspace(here))
    assert not copies.copies("workspace")


def test_the_size_is_measured_and_the_volume_is_never_empty(here: Workspace, tmp_path: Path) -> None:
    url = f"http://{here.host}:{here.port}"
    assert "workspace_size_bytes" not in httpx.get(f"{url}/metrics").text, "not counted yet is not 0"
    sizes = shared.Sizes()
    sizes.look()
    assert sizes.files == 5
    assert "workspace_volume_free_bytes" in sizes.text()
    assert httpx.get(f"{url}/health").status_code == 200
    assert (tmp_path / "workspace" / ".samokoder-workspace").exists(), (
        "an empty volume gets the owner that the application's image has there"
    )
    shutil.rmtree(tmp_path / "workspace")
    assert httpx.get(f"{url}/health").status_code == 503


def test_old_copies_go_when_there_are_enough(here: Workspace) -> None:
    chosen = Settings.model_validate(settings_document(workspace=here.model_dump(), workspace_copies=1))
    first = copies.workspace(chosen)
    first.path.rename(first.path.with_name("workspace-20200101T000000Z.tar"))
    note = first.path.with_suffix(".json")
    text = note.read_text().replace(first.finished.isoformat(), "2020-01-01T00:00:00+00:00")
    note.rename(note.with_name("workspace-20200101T000000Z.json")).write_text(text)
    second = copies.workspace(chosen)
    copies.retire(chosen, "workspace", set())
    assert [each.id for each in copies.copies("workspace")] == [second.id]
