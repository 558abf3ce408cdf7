"""Copies of the workspace: handed out by one container, fetched by the backup server, and put into a folder again."""

from __future__ import annotations

import os
import shutil
import tarfile
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from samokoder_backup import copies, process, restore, settings, shared, state
from samokoder_backup.process import BackupError, UnsureError, sealed, unsealed
from samokoder_backup.settings import Kind, Settings, Workspace
from stack.parts.backup.workspace import MARK
from tests.backup_image.folders import settings_document
from tests.serving import serving


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
    with serving(shared._Server()) as server:
        yield Workspace(host="127.0.0.1", port=server.server_address[1])


def with_workspace(workspace: Workspace) -> Settings:
    return Settings.model_validate(settings_document(workspace=workspace.model_dump()))


def test_a_copy_has_every_file_with_its_mode_and_comes_back(here: Workspace, tmp_path: Path) -> None:
    made = copies.workspace(with_workspace(here))
    copies.verify(made)
    into = tmp_path / "into"
    into.mkdir()
    copies.restore_workspace(made, into)
    assert (into / ".samokoder-workspace").exists(), "without it what was restored does not count as whole"
    assert (into / "projects" / "mine.txt").read_text() == "mine"
    assert (into / "projects" / "mine.txt").stat().st_mode & 0o777 == 0o600
    assert (into / "projects" / ".samokoder-restore").exists()


MARKERS = (".samokoder-restore", ".samokoder-copying")


@pytest.mark.parametrize("marker", MARKERS)
def test_a_workspace_that_is_half_replaced_is_neither_well_nor_backed_up(
    marker: str, here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workspace" / marker).touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # a restore's user is another one
    answer = httpx.get(f"http://{here.host}:{here.port}/health")
    assert (answer.status_code, "make restore" in answer.text) == (503, True), "nobody would be told"
    with pytest.raises(BackupError, match=r"503: the workspace is half replaced.*make restore"):
        copies.workspace(with_workspace(here))
    assert not copies.copies("workspace"), "the copies of whole data go one by one, for those of half of it"


def test_the_applications_own_files_of_a_markers_name_hinder_no_copy_and_come_into_none(
    here: Workspace, tmp_path: Path
) -> None:
    for marker in MARKERS:
        (tmp_path / "workspace" / marker).touch()
    assert httpx.get(f"http://{here.host}:{here.port}/health").status_code == 200
    into = tmp_path / "into"
    into.mkdir()
    copies.restore_workspace(copies.workspace(with_workspace(here)), into)
    assert not {path.name for path in into.iterdir()} & {*MARKERS}, "what is restored would look cut off for ever"


def test_a_file_that_its_own_user_may_not_read_stops_no_copy(
    here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    projects = tmp_path / "workspace" / "projects"
    (projects / "link").symlink_to("/proc/version")
    (projects / "mine.txt").chmod(0)
    (projects / "closed").mkdir()
    (projects / "closed" / "its.txt").write_text("its")
    (projects / "closed" / "its.txt").chmod(0o040)
    (projects / "closed").chmod(0o200)
    made = copies.workspace(with_workspace(here))
    assert "mine.txt' could not be read: its mode was 000 and is 400 now" in capsys.readouterr().err
    names = ("mine.txt", "closed", "closed/its.txt")
    with tarfile.open(made.path) as listed:
        modes = {name: listed.getmember(f"./projects/{name}").mode for name in names}
    assert modes == {"mine.txt": 0o400, "closed": 0o700, "closed/its.txt": 0o440}


@pytest.mark.parametrize("marked", [True, False], ids=["with the mark", "without it"])
def test_what_is_restored_is_on_the_disk_before_it_counts_as_whole(
    marked: bool, here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, into = tmp_path / "workspace", tmp_path / "into"
    (workspace / "a link").symlink_to("/proc")  # what is behind it cannot be synced
    (workspace / "mine").mkdir()
    if marked:
        (workspace / ".samokoder-workspace").touch()
    made = copies.workspace(with_workspace(here))
    synced: list[set[str]] = []

    def run(command: Sequence[str | Path], *, what: str) -> str:
        assert command == ["sync", "--file-system", into], what
        synced.append({path.name for path in into.iterdir()})
        return process.run(command, what=what)

    monkeypatch.setattr(restore, "run", run)
    restore.restore(with_workspace(here), restore.Plan(source=made, recovery={}), into)
    whole = {"projects", "a link", "mine", ".samokoder-workspace"}
    assert synced == [{*whole, restore.MARKER}], "a power cut would leave half of it, and nothing that says so"
    assert {path.name for path in into.iterdir()} == whole


def test_of_a_program_whose_output_nobody_needs_the_last_lines_of_its_errors_are_kept_alone() -> None:
    tracemalloc.start()
    try:
        noise = "i=0; while [ $i -lt 40 ]; do head -c 1000000 /dev/zero | tr '\\0' 'x'; echo; i=$((i + 1)); done"
        script = f"({noise}); ({noise}) >&2; for n in 1 2 3 4 5 6; do echo line $n >&2; done; exit $1"
        process.run_unread(["sh", "-c", script, "sh", "0"], what="it")
        with pytest.raises(BackupError, match=r"^it: line 2 \| line 3 \| line 4 \| line 5 \| line 6$"):
            process.run_unread(["sh", "-c", script, "sh", "3"], what="it")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000, "an application with many files would kill its backups"
    finally:
        tracemalloc.stop()
    with pytest.raises(UnsureError):
        process.run_unread(["/nowhere"], what="it")
    with pytest.raises(UnsureError, match="No space left"):
        process.run_unread(["sh", "-c", "echo No space left on device >&2; exit 1"], what="it")


@pytest.mark.parametrize("kind", ["dump", "workspace"])
def test_no_list_of_what_is_in_a_backup_is_kept_in_memory(
    kind: Kind, here: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(copies.workspace(with_workspace(here)), kind=kind)
    monkeypatch.setattr(copies, "run", lambda *_, **__: pytest.fail("its whole output is kept"))
    ran: list[str] = []
    monkeypatch.setattr(copies, "run_unread", lambda command, **_: ran.append(command[0]))
    copies.verify(made)
    copies.workspace(with_workspace(here))
    assert ran == [{"dump": "pg_restore", "workspace": "tar"}[kind], "tar"]


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
    assert sizes.files == 3
    assert "workspace_volume_free_bytes" in sizes.text()
    assert httpx.get(f"{url}/health").status_code == 200
    assert (tmp_path / "workspace" / ".samokoder-workspace").exists(), (
        "an empty volume gets the owner that the application's image has there"
    )
    assert shared.MARK == MARK, "a restore would look for a file of another name"
    shutil.rmtree(tmp_path / "workspace")
    assert httpx.get(f"{url}/health").status_code == 503


def test_old_copies_go_when_there_are_enough(here: Workspace) -> None:
    chosen = Settings.model_validate(settings_document(workspace=here.model_dump(), workspace_copies=1))
    first = copies.workspace(chosen)
    first.path.rename(first.path.with_name("workspace-20200101T000000Z.tar"))
    note = first.path.with_suffix(".json")
    said = unsealed(note.read_text()) | {"finished": "2020-01-01T00:00:00+00:00"}
    note.rename(note.with_name("workspace-20200101T000000Z.json")).write_text(sealed(said))
    second = copies.workspace(chosen)
    copies.retire(chosen, "workspace", set())
    assert [each.id for each in copies.copies("workspace")] == [second.id]
