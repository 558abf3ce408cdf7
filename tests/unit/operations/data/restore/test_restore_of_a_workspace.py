"""A volume of the workspace: what counts as whole, whose markers count, and that nobody is served half of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.data.compose import import_on_engine
from operations.data.restore.journal import Journal
from operations.data.restore.request import DATA, Server, Wanted
from operations.data.restore.scripts import COPY, RELEASE, WHOLE
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.common.names import APPLICATION_USER
from tests.restoring import UNRELEASED, FakeEngine, Given, on_a_fake_engine

MARK, COPYING, RESTORING = ".samokoder-workspace", ".samokoder-copying", ".samokoder-restore"
APPLICATION, ROOT = APPLICATION_USER.partition(":")[0], "0"


@pytest.fixture
def owned_by(tmp_path: Path) -> Any:
    """A PATH on which every file is a user's, also where the tests do not run as root, and gives none away."""

    def path(user: str, **failing: str) -> dict[str, str]:
        folder = tmp_path / f"bin of {user}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, script in {"stat": f"echo {user}", "chown": "exit 0", **failing}.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return {"PATH": f"{folder}:/usr/bin:/bin"}

    return path


def sh(script: str, *words: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script, "sh", *map(str, words)], capture_output=True, text=True, check=False, env=env
    )


def whole(folder: Path, env: dict[str, str], server: str = "workspace") -> bool:
    return sh(WHOLE, folder, server, env=env).returncode == 0


def copy(source: Path, target: Path, how: str, env: dict[str, str]) -> int:
    return sh(COPY, source, target, how, "make restore", APPLICATION_USER, env=env).returncode


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("mine")
    return path


def test_an_empty_volume_is_no_whole_workspace(tmp_path: Path, owned_by: Any) -> None:
    aside, env = folder(tmp_path / "aside"), owned_by(ROOT)
    assert not whole(aside, env), "a restore that died before its copy began has made it, and its files would be lost"
    (aside / "projects").mkdir()
    assert not whole(aside, env), "half of a copy has files too"
    (aside / MARK).touch()
    assert whole(aside, env)


@pytest.mark.parametrize("mark", [COPYING, RESTORING])
def test_of_a_workspace_the_applications_own_file_says_nothing_of_a_copy(
    mark: str, tmp_path: Path, owned_by: Any
) -> None:
    data = folder(tmp_path / "data", MARK, mark, "mine.txt")
    assert not whole(data, owned_by(ROOT)), "half of it was copied"
    assert not whole(data, owned_by("999")), "half of it was restored"
    assert whole(data, owned_by(APPLICATION)), "the application would make its own data worthless to every restore"
    aside = folder(tmp_path / "aside")
    assert copy(data, aside, "", owned_by(APPLICATION)) == 0
    (aside / RESTORING).unlink(missing_ok=True)  # the application's own: here every file is root's from now on
    assert whole(aside, owned_by(ROOT)), "what was set aside could never be put back"
    assert (aside / "mine.txt").exists()
    assert not (aside / COPYING).exists()


def test_of_other_data_a_marker_counts_whoever_has_it(tmp_path: Path, owned_by: Any) -> None:
    data = folder(tmp_path / "data", "dump.rdb")
    assert whole(data, owned_by(APPLICATION), "redis")
    (data / COPYING).touch()
    assert not whole(data, owned_by(APPLICATION), "redis")


def test_what_is_set_aside_of_a_half_replaced_workspace_stays_known_as_half(tmp_path: Path, owned_by: Any) -> None:
    data, aside = folder(tmp_path / "data", MARK, COPYING, "mine.txt"), folder(tmp_path / "aside")
    assert copy(data, aside, "", owned_by(ROOT)) == 0, "it must not hinder the restore that puts it right"
    assert not whole(aside, owned_by(ROOT))


def test_what_served_is_whole_when_it_is_set_aside_also_where_the_application_removed_the_mark(
    tmp_path: Path, owned_by: Any
) -> None:
    data, aside = folder(tmp_path / "data", "mine.txt"), folder(tmp_path / "aside")
    assert copy(data, aside, "", owned_by(ROOT)) == 0
    assert whole(aside, owned_by(ROOT))


def test_a_copy_of_a_workspace_that_is_cut_off_is_not_whole_at_any_step(tmp_path: Path, owned_by: Any) -> None:
    source, target = folder(tmp_path / "from", MARK, "new.txt"), folder(tmp_path / "to", MARK, "old.txt")
    (target / COPYING).symlink_to("/nowhere")  # the application's own
    for failing in ("find", "cp", "chown", "chmod"):
        assert copy(source, target, "workspace", owned_by(ROOT, **{failing: "exit 1"})) != 0
        assert not whole(target, owned_by(ROOT))
        assert not (target / MARK).exists(), f"the mark was there before {failing} had done its work"
        assert not (target / COPYING).is_symlink(), "the application's own took the marker's place"
    assert copy(source, target, "workspace", owned_by(ROOT)) == 0
    assert not whole(target, owned_by(ROOT)), "it was not released"
    assert sh(RELEASE, target, env=owned_by(ROOT)).returncode == 0
    assert whole(target, owned_by(ROOT))
    assert sorted(path.name for path in target.iterdir()) == [MARK, "new.txt"]


def test_the_marker_is_not_given_to_the_application(tmp_path: Path, owned_by: Any) -> None:
    source, target = folder(tmp_path / "from", MARK, "new.txt"), folder(tmp_path / "to", "old.txt")
    said = tmp_path / "chowned"
    assert copy(source, target, "workspace", owned_by(ROOT, chown=f'echo "$@" >> {said}')) == 0
    given = said.read_text().split()
    assert COPYING not in {Path(name).name for name in given}, "cut off after it, half of a copy would count as whole"
    assert "-R" not in given
    assert {".", "./new.txt", str(target / MARK)} <= set(given), "the application could not write to it"


def test_a_release_that_is_made_again_leaves_a_folder_of_the_application(tmp_path: Path, owned_by: Any) -> None:
    data = folder(tmp_path / "data", MARK)
    (data / COPYING).mkdir()
    assert sh(RELEASE, data, env=owned_by(APPLICATION)).returncode == 0, "the restore could never be finished"


def test_an_import_of_a_workspace_that_is_cut_off_is_no_whole_copy(tmp_path: Path, owned_by: Any) -> None:
    source, target = folder(tmp_path / "from", MARK, "mine.txt", ".hidden"), folder(tmp_path / "to", "half")
    words = (source, target, APPLICATION_USER, "workspace")
    assert sh(import_on_engine._COPY, *words, env=owned_by(ROOT, chown="exit 1")).returncode != 0
    assert not whole(target, owned_by(ROOT)), "half of the old files would be put in the place of what is here"
    assert sh(import_on_engine._COPY, *words, env=owned_by(ROOT)).returncode == 0
    assert whole(target, owned_by(ROOT))
    assert sorted(path.name for path in target.iterdir()) == [".hidden", MARK, "mine.txt"]
    assert sh(import_on_engine._COPY, *words, env=owned_by(ROOT, find="exit 1")).returncode != 0
    assert not whole(target, owned_by(ROOT)), "it is made again, and half of the copy before is removed"


FILES: dict[Server, tuple[str, ...]] = {
    "postgres": ("PG_VERSION", "global/pg_control"),
    "redis": ("dump.rdb",),
    "backup": ("lock",),
    "workspace": (MARK,),
}


@pytest.mark.parametrize("server", DATA)
@pytest.mark.parametrize("text", ["", "half", UNRELEASED + "rows", "rows"])
def test_the_engine_of_the_tests_calls_whole_what_the_real_one_does(
    text: str, server: Server, tmp_path: Path, owned_by: Any
) -> None:
    data = folder(tmp_path / "data")
    names = FILES[server] if text not in {"", "half"} else ()
    for name in (*names, *([COPYING] if text in {"half", UNRELEASED + "rows"} else [])):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text("it")
    engine = FakeEngine(volumes={"a volume": text})
    assert whole(data, owned_by(ROOT), server) == engine.whole("a volume", server) == (text == "rows")


# Who may not begin.


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return on_a_fake_engine(tmp_path, monkeypatch)


def test_what_an_import_has_copied_is_put_in_place_by_the_import_alone(given: Given) -> None:
    copied = "samokoder-staging-postgres-from-compose-20261122T000000Z"
    given.engine.volumes[copied] = "rows of the compose stack"
    before = dict(given.engine.volumes)
    with pytest.raises(ProjectError, match="import-compose"):
        given.restore(source=copied)
    assert given.engine.volumes == before, "nobody had looked whether this stack's server can open it"
    given.put_by_an_import(source=copied)
    assert given.engine.volumes["samokoder-staging-postgres-data"] == "rows of the compose stack"


@pytest.mark.parametrize(("words", "refused"), [(["up"], True), (["destroy"], True), (["stack", "export"], False)])
def test_pulumi_itself_changes_nothing_while_data_is_half_replaced(
    words: list[str], refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    class Run:
        workspace = Workspace()

        def deployment(self) -> dict[str, Any]:
            return {}

        def pulumi(self, *words: str, check: bool) -> subprocess.CompletedProcess[str]:
            ran.append(words)
            return subprocess.CompletedProcess(words, 0)

    class Lock:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(Workspace, "open", lambda _: Run())
    monkeypatch.setattr(lock, "held", Lock)
    monkeypatch.setattr(Workspace, "folder", tmp_path)
    half = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", touched=True)
    half.write(tmp_path / "restore.staging.json")
    done = CliRunner().invoke(command.app, ["pulumi", "--", *words])
    assert bool(ran) is not refused, "Pulumi would start who uses the data on half of it"
    assert (done.exit_code != 0) is refused
