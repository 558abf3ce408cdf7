"""Backups and restores as the `samokoder` command does them, without an engine: each step cut off, and run again."""

from __future__ import annotations

import errno
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from typer.testing import CliRunner

from host.progress import Reporter, Task
from operations import __main__ as command
from operations.cli.data import BackupKind
from operations.data import backups, volume_names
from operations.data.backups import ListedBackup
from operations.data.restore import actions, restore, scripts, unfinished
from operations.data.restore.journal import Journal, journal_path
from operations.data.restore.on_engine import EngineRestore
from operations.data.restore.request import Server, Wanted, moment, wanted
from operations.data.restore.scripts import COPY, RELEASE
from operations.data.restore.steps import Restore, Restored
from operations.engine import one_off
from operations.errors import ProjectError
from operations.workspace import known, lock
from stack.common.names import PART_LABEL
from tests.recording import ROOT
from tests.restoring import (
    ASKED,
    OFFSITE,
    STAMP,
    CutOffError,
    FakeEngine,
    Given,
    environment,
    on_a_fake_engine,
    restoring,
)

if TYPE_CHECKING:
    import docker


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_restore_that_is_cut_off_anywhere_is_finished_by_running_it_again(asked: Wanted, tmp_path: Path) -> None:
    path, cuts = tmp_path / "restore.json", 0
    for cut in range(1, 200):
        engine = FakeEngine(cut=cut)
        everything = set(engine.running)
        if "-before-" in asked.source:
            engine.volumes[asked.source] = "rows of last week"
        before = dict(engine.volumes)
        try:
            restoring(engine, path, asked).run()
        except CutOffError:
            cuts += 1
            if cut % 2:
                engine.running |= everything - {"postgres", "redis"}  # somebody has brought the stack up meanwhile
            restoring(engine, path, asked).run()
        server = asked.server
        assert engine.volumes[f"samokoder-staging-{server}-data"] not in (before[engine.data_of(server)], "half", "")
        assert engine.volumes[f"samokoder-staging-{server}-before-restore-{STAMP}"] == before[engine.data_of(server)]
        others = {name for name in before if name not in {engine.data_of(server), engine.data_of("backup")}}
        assert all(engine.volumes[name] == before[name] for name in others), "a volume that nobody spoke of"
        assert not [name for name in engine.volumes if "-restored-" in name], "what was made on the way is gone"
        assert engine.running == everything, "all that was stopped runs again"
        assert not path.exists(), "a finished restore is not begun again"
        if engine.cut > 0:
            break
    assert cuts > 10, "it was hardly ever cut off"
    assert cuts < 199, "the last round ran through"


@dataclass
class Pruned(FakeEngine):
    """Somebody removes every volume that no container holds, while a volume of backups is copied for hours."""

    def copy(self, source: str, target: str, *, whole: Server | None) -> None:
        super().copy(source, target, whole=whole)
        if whole == "backup":
            self.volumes = {name: text for name, text in self.volumes.items() if "-before-restore-" not in name}


def test_the_only_copy_of_the_data_is_not_replaced_when_what_was_set_aside_is_gone(tmp_path: Path) -> None:
    engine = Pruned()
    restored = restoring(engine, tmp_path / "restore.json", ASKED["off-site"]).run()
    assert engine.volumes["samokoder-staging-postgres-data"] != "old rows"
    assert engine.volumes[restored.set_aside[-1]] == "old rows", "`restore FROM=` that was printed leads nowhere"


def test_a_journal_that_cannot_be_read_is_named_with_what_to_do(given: Given) -> None:
    path = journal_path(cast("Any", given))
    path.parent.mkdir(parents=True, exist_ok=True)
    for damage in ("", "{", "[]", '{"wanted": {}}', '{"wanted": {"to": ""}, "stamp": "x", "later": 1}'):
        path.write_text(damage)
        with pytest.raises(ProjectError, match=r"restore\.staging\.json cannot be read.*remove no volume"):
            given.restore(backup="latest")
        assert path.read_text() == damage, "what may be read by somebody is kept"


@pytest.mark.parametrize("error", [OSError(errno.EIO, "EIO"), FileNotFoundError(errno.ENOENT, "ENOENT")], ids=str)
@pytest.mark.parametrize("times", [1, 99])
def test_a_journal_that_a_disk_does_not_give_for_a_moment_is_not_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, times: int
) -> None:
    path = tmp_path / "restore.staging.json"
    journal = Journal(wanted=ASKED["a moment"], stamp="x", touched=True)
    journal.write(path)
    left, real = [times], Path.read_text

    def read(self: Path, *words: Any, **more: Any) -> str:
        if self == path and left[0]:
            left[0] -= 1
            raise type(error)(error.errno, error.strerror, str(self))
        return real(self, *words, **more)

    monkeypatch.setattr(Path, "read_text", read)
    if times == 1:
        assert Journal.read(path) == journal, "a new restore would begin, over data that is half replaced"
        left[0] = 1
        assert lock._half_done(tmp_path, "staging")
    else:
        with pytest.raises(ProjectError, match="cannot be read"):
            Journal.read(path)
        assert lock._half_done(tmp_path, "staging"), "that is possible"


def test_a_moment_is_restored_while_the_application_serves_and_the_latest_state_after_it_has_stopped(
    tmp_path: Path,
) -> None:
    for asked, stopped_first in ((ASKED["a moment"], False), (ASKED["the latest"], True), (ASKED["off-site"], False)):
        engine = FakeEngine()
        restoring(engine, tmp_path / "restore.json", asked).run()
        restored = next(n for n, what in enumerate(engine.done) if what.startswith("restore"))
        assert ("stop postgres" in engine.done[:restored]) is stopped_first, engine.done
        if stopped_first:
            order = [what for what in engine.done[:restored] if what in ("stop postgres", "stop backup")]
            assert order == ["stop postgres", "stop backup"], (
                "it takes the last of the WAL, then holds no lock any more"
            )
        order = ["postgres", "postgres_roles", "migrations", "api", "backup"]
        started = [what.removeprefix("start ") for what in engine.done if what.startswith("start ")]
        assert [name for name in started if name in order] == order, "each needs those before it"
        assert engine.done[-1] == "a new backup"


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_who_can_hold_the_lock_of_the_backups_from_their_data_is_stopped_with_the_backup_server(
    asked: Wanted, tmp_path: Path
) -> None:
    engine = FakeEngine()
    engine.volumes |= {asked.source: "rows of last week"} if asked.whole else {}
    restoring(engine, tmp_path / "restore.json", asked).run()
    stopped = [what for what in engine.done if what in ("stop backup", "stop drill")]
    assert stopped in ([], ["stop backup", "stop drill"])
    if stopped:
        assert {"backup", "drill"} <= engine.running, "what was stopped is started"
    if asked.backup == "latest" and not asked.source:
        at = next(number for number, what in enumerate(engine.done) if what.startswith("restore"))
        assert "stop drill" in engine.done[:at], "it would wait for the lock without end, the application stopped"


def test_latest_alone_is_held_against_what_postgresql_has_and_not_where_that_was_lost(tmp_path: Path) -> None:
    data = "samokoder-staging-postgres-data"
    for name, asked in ASKED.items():
        engine = FakeEngine()
        engine.volumes |= {asked.source: "rows of last week"} if asked.whole else {}
        restoring(engine, tmp_path / "restore.json", asked).run()
        compared = [("check-restore", data), ("restore", data)] if name == "the latest" else []
        assert engine.compared == compared, f"{name}: before anything is stopped, and after all has ended"
    engine = FakeEngine(refuses="restore")
    del engine.volumes[data]
    engine.running.remove("postgres")
    with pytest.raises(ProjectError):
        restoring(engine, tmp_path / "restore.json", ASKED["the latest"]).run()
    engine.refuses, engine.volumes[data] = "", "empty"  # somebody has brought up an empty one meanwhile
    restoring(engine, tmp_path / "restore.json", ASKED["the latest"]).run()
    assert not engine.compared, "the empty database in the place of a lost one is nothing to keep"


def test_a_fresh_machine_gets_the_backups_of_the_bucket_and_the_database_out_of_them(tmp_path: Path) -> None:
    engine = FakeEngine()
    said = restoring(engine, tmp_path / "restore.json", ASKED["off-site"]).run()
    assert engine.volumes["samokoder-staging-backup-data"] == "backups of elsewhere"
    assert engine.volumes["samokoder-staging-postgres-data"] == "--latest out of backups of elsewhere"
    assert engine.volumes[f"samokoder-staging-backup-before-restore-{STAMP}"] == "backups"
    assert str(said).endswith(f"make restore FROM=samokoder-staging-postgres-before-restore-{STAMP}")
    assert said.as_json() == {
        "restored": {"to": "", "backup": "latest", "from": "offsite"},
        "set_aside": [f"samokoder-staging-{server}-before-restore-{STAMP}" for server in ("backup", "postgres")],
        "undo": said.undo,
    }


def test_what_was_set_aside_can_be_put_back_and_sets_aside_what_was_there(tmp_path: Path) -> None:
    engine = FakeEngine()
    restoring(engine, tmp_path / "restore.json", ASKED["a moment"]).run()
    kept = f"samokoder-staging-postgres-before-restore-{STAMP}"
    journal = Journal(wanted=Wanted(source=kept), stamp="20261123T110000Z")
    journal.write(tmp_path / "restore.json")
    Restore(environment(), engine, journal, tmp_path / "restore.json", lambda _: None).run()
    assert engine.volumes["samokoder-staging-postgres-data"] == "old rows"
    assert engine.volumes[kept] == "old rows", "it stays where it is"
    aside = engine.volumes["samokoder-staging-postgres-before-restore-20261123T110000Z"]
    assert aside.startswith("--to 2026-11-23"), "what was written since the restore is kept too"


@pytest.mark.parametrize("asked", ["a moment", "the latest", "what was set aside"])
def test_a_server_whose_volume_was_lost_is_made_only_once_its_data_is_ready(asked: str, tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.volumes[ASKED["what was set aside"].source] = "rows of last week"
    del engine.volumes["samokoder-staging-postgres-data"]
    engine.running.remove("postgres")
    everything = {"postgres", *engine.running}
    restoring(engine, tmp_path / "restore.json", ASKED[asked]).run()
    made = engine.done.index("up with an empty postgres")
    restored = [number for number, what in enumerate(engine.done) if what.startswith("restore")]
    assert all(number < made for number in restored), "`latest` would be the empty database's"
    assert engine.volumes["samokoder-staging-postgres-data"] not in ("empty", "half"), "nothing was restored"
    assert engine.running == everything, "all that was stopped runs again"


@pytest.mark.parametrize("refused", ["check-restore", "restore", "room"])
def test_what_cannot_be_restored_is_refused_before_anything_is_stopped(refused: str, tmp_path: Path) -> None:
    engine = FakeEngine(refuses=refused, free=10 if refused == "room" else 10**9)
    before, running = dict(engine.volumes), set(engine.running)
    it = restoring(engine, tmp_path / "restore.json", ASKED["a moment"])
    with pytest.raises(ProjectError):
        it.run()
    it.forget()
    assert (engine.volumes, engine.running) == (before, running), "it touched something"


# The command.


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return on_a_fake_engine(tmp_path, monkeypatch)


def test_without_anything_to_go_on_with_it_says_what_to_type(given: Given) -> None:
    with pytest.raises(ProjectError, match=r"No restore was cut off.*make restore TO="):
        given.restore()


def test_the_same_command_without_a_word_goes_on(given: Given) -> None:
    given.engine.cut = 20
    with pytest.raises(CutOffError):
        given.restore(backup="latest")
    assert "Restored: BACKUP='latest'" in str(given.restore())
    assert not list(given.folder.glob("*.json"))


def test_a_refused_restore_leaves_nothing_and_says_so(given: Given) -> None:
    given.engine.refuses = "check-restore"
    before = dict(given.engine.volumes)
    with pytest.raises(ProjectError, match="refused\nNothing was stopped or changed"):
        given.restore(to="2026-11-23 10:05:00+03")
    assert given.engine.volumes == before
    assert not list(given.folder.glob("*.json"))


def test_another_wish_takes_the_place_of_a_restore_that_has_changed_nothing(given: Given) -> None:
    given.engine.refuses = "restore"
    with pytest.raises(ProjectError, match="No data was changed"):
        given.restore(backup="latest")
    given.engine.refuses = ""
    given.restore(to="2026-11-23 10:05:00+03")
    assert given.engine.volumes["samokoder-staging-postgres-data"].startswith("--to 2026-11-23T07:05:00+00:00")


def test_a_restore_that_has_begun_to_replace_the_data_is_finished_first(given: Given) -> None:
    path = given.folder / "restore.staging.json"
    for cut in range(1, 200):
        path.unlink(missing_ok=True)
        given.engine = FakeEngine(cut=cut)
        with pytest.raises(CutOffError):
            given.restore(backup="latest")
        journal = Journal.read(path)
        if journal and journal.touched:
            break
    with pytest.raises(ProjectError, match="make restore"):  # `up` would start half a database
        unfinished.refuse_half_replaced(cast("Any", given))
    with pytest.raises(ProjectError, match=r"BACKUP='latest'.* was cut off while it replaced the data"):
        given.restore(backup="dump-20261123T031500Z")
    given.restore()
    unfinished.refuse_half_replaced(cast("Any", given))
    given.restore(backup="dump-20261123T031500Z")
    assert given.engine.volumes["samokoder-staging-postgres-data"].startswith("--backup dump-20261123T031500Z")


def test_what_does_not_start_after_a_restore_can_be_put_back(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    def sick(_: FakeEngine, fields: Sequence[str]) -> None:
        if "postgres" in fields:
            raise ProjectError("postgres is not healthy")

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "start", sick)
        with pytest.raises(ProjectError, match=r"The data is replaced.*FROM=") as failed:
            given.restore(to="2026-11-23 10:05:00+03")
    given.restore(source=str(failed.value).rpartition("FROM=")[2])
    assert given.engine.volumes["samokoder-staging-postgres-data"] == "old rows"


def test_another_moment_of_the_off_site_copy_is_not_fetched_again(given: Given) -> None:
    given.config = OFFSITE
    given.engine.refuses = "check-restore"
    with pytest.raises(ProjectError, match="No data was changed"):
        given.restore(source="offsite", to="2026-11-23 10:05:00+03")
    given.engine.refuses = ""
    given.restore(source="offsite", to="2026-11-23 10:04:00+03")
    assert given.engine.done.count("offsite pull") == 1
    assert "07:04:00" in given.engine.volumes["samokoder-staging-postgres-data"]


def test_an_off_site_copy_that_is_not_configured_is_not_asked_for(given: Given) -> None:
    with pytest.raises(ProjectError, match=r"samokoder:backup.offsite.*samokoder:backupEncryptionKey"):
        given.restore(source="offsite")


def test_a_volume_that_is_not_there_is_never_put_in_the_place_of_the_data(given: Given) -> None:
    with pytest.raises(ProjectError, match="There are: none"):
        given.restore(source="samokoder-staging-postgres-before-restore-20261101T000000Z")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-11-23 10:05:00+03", "2026-11-23T07:05:00+00:00"),
        ("2026-11-23T07:05:00Z", "2026-11-23T07:05:00+00:00"),
        (" 2026-11-23 07:05:00.25+00:00", "2026-11-23T07:05:00.250000+00:00"),
    ],
)
def test_a_moment_is_read_with_its_zone(typed: str, meant: str) -> None:
    assert moment(typed) == meant


def test_a_moment_without_a_zone_could_mean_two_and_is_refused_with_what_to_write() -> None:
    with pytest.raises(ProjectError, match=r"TO='2026-11-23 10:05:00\+00' if it is UTC"):
        moment("2026-11-23 10:05:00")
    with pytest.raises(ProjectError, match="Write it like this"):
        moment("yesterday")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "2026-11-23 10:05:00+03", "backup": "latest"}, "not both"),
        ({"source": "elsewhere"}, "'offsite' or the name of a volume"),
        ({"source": "samokoder-prod-postgres-before-restore-1"}, "'offsite' or the name of a volume"),
        ({"source": "samokoder-staging-postgres-before-restore-1", "backup": "latest"}, "as it is"),
    ],
)
def test_what_contradicts_itself_is_refused(asked: dict[str, str], said: str) -> None:
    with pytest.raises(ProjectError, match=said):
        wanted(environment(), **asked)


# The copy of a volume: the script that runs on the engine, here on two folders.


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A database that is to come, and the one that is there."""
    source, target = tmp_path / "from", tmp_path / "to"
    for folder, text in ((source, "new"), (target, "old")):
        (folder / "base" / "1").mkdir(parents=True)
        (folder / "global").mkdir()
        for name in ("PG_VERSION", "global/pg_control", "base/1/1259", ".hidden", f"only in {text}"):
            (folder / name).write_text(text)
    source.chmod(0o700)
    return source, target


def copy(source: Path, target: Path, how: str = "postgres", **more: str) -> subprocess.CompletedProcess[str]:
    """Run the scripts as a restore does: what comes in the place of data is released once that it is there is noted."""
    script = COPY + (RELEASE.replace("$1", "$2") if how else "")
    return subprocess.run(
        ["sh", "-c", script, "sh", str(source), str(target), how, "make restore ENV=prod"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **more},
    )


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_has_all_that_the_source_has_and_nothing_else(folders: tuple[Path, Path]) -> None:
    source, target = folders
    for _ in range(2):
        done = copy(source, target)
        assert done.returncode == 0, done.stderr
        assert tree(target) == tree(source)
        assert target.stat().st_mode & 0o777 == 0o700, "PostgreSQL does not start in a folder that others may read"


def test_a_copy_that_is_cut_off_is_never_taken_for_a_database(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = folders
    fake = tmp_path / "bin" / "cp"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    assert copy(source, target, PATH=f"{fake.parent}:/usr/bin:/bin").returncode != 0
    assert not (target / "PG_VERSION").exists(), "PostgreSQL would start in it"
    assert list(target.iterdir()), "in an empty folder it would make a new database"
    again = copy(target, tmp_path / "from", "postgres")
    assert again.returncode == 2, "what is incomplete is never put in the place of data"
    assert "incomplete" in again.stderr
    assert copy(source, target).returncode == 0
    assert tree(target) == tree(source)


@pytest.mark.parametrize(
    ("server", "files"),
    [
        ("postgres", ["PG_VERSION", "global/pg_control"]),
        ("redis", ["appendonlydir/appendonly.aof.manifest"]),
        ("redis", ["dump.rdb"]),
        ("backup", ["barman/server/base"]),
        ("backup", ["dumps/dump-20261123T031500Z.dump"]),
    ],
)
def test_what_is_empty_or_has_not_all_that_a_whole_copy_has_never_comes_into_the_place_of_data(
    server: str, files: list[str], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    target, source = folders[1], tmp_path / "replacement"
    before = tree(target)
    source.mkdir()
    for name in files:
        refused = copy(source, target, server)
        assert refused.returncode == 2, f"an empty {server} would be put in place"
        assert "incomplete" in refused.stderr
        assert tree(target) == before, "the data was emptied all the same"
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("whole")
    assert copy(source, target, server).returncode == 0
    assert tree(target) == tree(source)
    (source / ".samokoder-restore").write_text("{}")
    assert copy(source, target, server).returncode == 2, "half of it was restored"


def test_no_server_starts_on_a_replacement_before_it_is_released(folders: tuple[Path, Path]) -> None:
    source, target = folders
    words = [str(source), str(target), "postgres", "make restore ENV=prod"]
    subprocess.run(["sh", "-c", COPY, "sh", *words], check=True)
    assert not (target / "PG_VERSION").exists(), "cut off here, what is served would be taken for what was there before"
    assert "make restore ENV=prod" in (target / ".samokoder-copying").read_text(), "Redis says it in its log"
    assert copy(target, source).returncode == 2, "a replacement that was not released counts as whole"
    for _ in range(2):
        subprocess.run(["sh", "-c", RELEASE, "sh", str(target)], check=True)
        assert tree(target) == tree(source)


def test_what_is_set_aside_of_an_incomplete_volume_stays_known_as_incomplete(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    source, aside = folders[1], tmp_path / "aside"
    aside.mkdir()
    (source / ".samokoder-copying").write_text("cut off")
    assert copy(source, aside, "").returncode == 0, "it must not hinder the restore that puts it right"
    assert copy(aside, folders[0]).returncode == 2


def test_the_sizes_of_a_volume_are_two_numbers(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    said = subprocess.run(["sh", "-c", scripts.SIZES, "sh", str(tmp_path)], capture_output=True, text=True, check=True)
    size, free = map(int, said.stdout.split())
    assert 100_000 <= size < 200_000
    assert free > 0


# What the engine is asked for.


def test_a_restore_runs_alone_and_can_do_the_backups_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    attrs: dict[str, Any] = {
        "Image": "sha256:1",
        "Config": {"User": "999:999", "Env": ["PATH=/bin"]},
        "HostConfig": {
            "Tmpfs": {"/tmp": "size=64m", actions.INTO: "ro"},  # noqa: S108
            "Memory": 1,
            "NanoCpus": 2,
            "ShmSize": 3,
        },
        "Mounts": [
            {"Type": "volume", "Name": "samokoder-staging-backup-data", "Destination": "/backups"},
            {"Type": "volume", "Name": "files", "Destination": "/etc/samokoder"},
        ],
    }
    container = SimpleNamespace(
        labels={PART_LABEL: "backup"},
        attrs=attrs,
        start=lambda: None,
        wait=lambda: {"StatusCode": 0},
        remove=lambda **_: None,
    )

    def create(image: str, words: list[str], **options: Any) -> SimpleNamespace:
        made.append({"image": image, "words": words, **options})
        return container

    without_keys = {"Type": "volume", "Name": "files-without-keys", "Destination": "/etc/samokoder"}
    drill = SimpleNamespace(labels={PART_LABEL: "drill"}, attrs={"Mounts": [*attrs["Mounts"][:1], without_keys]})
    there = [container, drill]
    data = "samokoder-staging-postgres-data"
    volumes = SimpleNamespace(list=lambda **_: [SimpleNamespace(name=data)])
    client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: there, create=create), volumes=volumes)
    monkeypatch.setattr(one_off, "attached", lambda _: nullcontext(iter([(None, b"half ")])))
    engine = EngineRestore(cast("docker.DockerClient", client), environment(), Reporter(), pytest.fail)
    engine.program("restore", "--latest", store="samokoder-staging-backup-data", into="new")
    engine.program("offsite", "pull", store="fresh", online=True)
    for present in (data, "one that was lost"):
        engine.program("check-restore", "--latest", store="samokoder-staging-backup-data", present=present)
    mounts = [{each["Target"]: (each["Source"], each.get("ReadOnly", False)) for each in one["mounts"]} for one in made]
    assert mounts[0] == {
        "/backups": ("samokoder-staging-backup-data", True),
        actions.INTO: ("new", False),
        "/etc/samokoder": ("files-without-keys", True),
    }, "what is restored runs as a superuser there, and may be an intruder's"
    assert mounts[1] == {"/backups": ("fresh", False), "/etc/samokoder": ("files", True)}
    assert mounts[2][actions.PRESENT] == (data, True), "PostgreSQL may run on it"
    assert actions.PRESENT not in mounts[3], "the engine would make it, and nobody would know any more that it was lost"
    assert [one["network_mode"] for one in made] == ["none", "samokoder-staging-edge", "none", "none"]
    assert made[0]["entrypoint"] == ["samokoder-backup"]
    assert actions.INTO not in made[0]["tmpfs"], "the volume must not be hidden by the image's own tmpfs"
    assert all(one["read_only"] and one["cap_drop"] == ["ALL"] for one in made)


def test_progress_is_shown_line_by_line_and_the_answer_is_kept() -> None:
    task = Task("")
    chunks = [(b'{"a"', b"fetch 1\nfet"), (b": 1}", None), (None, b"ch 2\n"), (None, b"end")]
    out, told = one_off.read(chunks, task)
    assert (json.loads(out), told) == ({"a": 1}, ["fetch 1", "fetch 2", "end"])
    assert task.detail == "fetch 2"


def test_a_refusal_is_its_one_line_and_a_failure_its_last_ones() -> None:
    one_off.check(["now"], 0, ["noise"])
    with pytest.raises(ProjectError, match=r"^no WAL after 10:04$"):
        one_off.check(["check-restore"], 2, ["looking", "no WAL after 10:04"])
    with pytest.raises(ProjectError, match=r"(?s)`samokoder-backup now` failed \(1\).*disk full"):
        one_off.check(["now"], 1, ["disk full"])


ROW = {
    "id": "20261123T021500",
    "kind": "base",
    "finished": "2026-11-23T02:15:09+00:00",
    "bytes": 5 * 2**20,
    "status": "good",
    "from": "2026-11-23T02:15:09+00:00",
    "to": None,
    "without": [],
    "note": "",
}


def test_the_list_shows_age_size_and_the_moments_that_one_can_go_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        ListedBackup.of(ROW),
        ListedBackup.of({**ROW, "id": "dump-20261123T031500Z", "kind": "dump", "from": None}),
    ]
    monkeypatch.setattr(backups, "backups", lambda _: (found, ["samokoder-staging-postgres-before-restore-1"]))
    shown = CliRunner().invoke(command.app, ["backups"]).output
    assert "20261123T021500" in shown
    assert "5.0 MiB" in shown
    assert "from 2026-11-23 02:15:09+00 to now" in shown
    assert "Set aside by a restore: samokoder-staging-postgres-before-restore-1" in shown
    listed = json.loads(CliRunner().invoke(command.app, ["backups", "--json"]).output)
    assert listed["backups"][0] == ROW


@pytest.mark.parametrize("there", [True, False], ids=["stopped", "without a container"])
def test_what_was_set_aside_is_listed_while_the_backup_container_does_not_run(
    monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    kept = f"samokoder-staging-postgres-before-restore-{STAMP}"
    client = SimpleNamespace(
        volumes=SimpleNamespace(list=lambda **_: [SimpleNamespace(name=kept)]), api=None, close=lambda: None
    )
    labels = {PART_LABEL: "backup" if there else "postgres"}
    container = SimpleNamespace(client=client, status="exited", labels=labels, reload=lambda: None)
    client.containers = SimpleNamespace(list=lambda **_: [container])
    there_ = SimpleNamespace(name="staging", prefix="samokoder-staging", client=lambda **_: client)
    monkeypatch.setattr(known, "of", lambda _: there_)
    with pytest.raises(ProjectError, match=f"'backup'(?s:.*)Set aside by a restore: {kept}"):
        backups.backups(cast("Any", None))


def test_a_restore_says_to_a_program_too_what_it_has_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = "samokoder-staging-postgres-before-restore-20261123T100500Z"
    done = Restored(wanted=Wanted(backup="latest"), set_aside=(kept,), undo=f"make restore FROM={kept}")
    monkeypatch.setattr(restore, "restore", lambda *_, **__: done)
    said = json.loads(CliRunner().invoke(command.app, ["restore", "--backup", "latest", "--json"]).output)
    assert (said["environment"], said["set_aside"]) == ("staging", [kept])
    assert said["undo"] == f"make restore FROM={kept}"


def test_a_drill_says_what_would_have_been_lost_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"backup": "20261123T021500", "rpo": 1.25, "rto": 41.0, "rows": {"public.jobs": 7}, "exit": 0}
    monkeypatch.setattr(backups, "drill", lambda _: report)
    shown = CliRunner().invoke(command.app, ["drill"]).output
    assert "(RPO): 1.2 s" in shown
    assert "(RTO): 41.0 s" in shown
    assert "public.jobs: 7 rows" in shown
    assert json.loads(CliRunner().invoke(command.app, ["drill", "--json"]).output) == report


def test_the_newest_volume_that_was_set_aside_is_the_last() -> None:
    names = [
        "samokoder-staging-redis-before-restore-20261124T000000Z",
        "samokoder-staging-postgres-before-restore-20261123T000000Z",
        "samokoder-staging-postgres-data",
    ]
    listed = SimpleNamespace(list=lambda **_: [SimpleNamespace(name=name) for name in names])
    found = volume_names.set_aside(cast("docker.DockerClient", SimpleNamespace(volumes=listed)), environment())
    assert found == [names[1], names[0]]


def test_what_restores_of_another_environment_have_made_is_not_ours() -> None:
    ours = ["samokoder-staging-redis-restored-20261123T000000Z", f"samokoder-staging-backup-before-restore-{STAMP}"]
    theirs = [
        f"samokoder-staging-2-postgres-before-restore-{STAMP}",
        f"my-samokoder-staging-postgres-before-restore-{STAMP}",
        "samokoder-staging-postgres-before-restore-of-mine",
    ]
    listed = SimpleNamespace(list=lambda **_: [SimpleNamespace(name=name) for name in (*theirs, *ours)])
    found = volume_names.made_by_restores(cast("docker.DockerClient", SimpleNamespace(volumes=listed)), environment())
    assert found == ours, "`destroy-data` removes what is in this list"


def test_every_kind_of_the_command_is_one_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    now: Callable[..., None] = lambda _, kind: asked.append(kind)  # noqa: E731
    monkeypatch.setattr(backups, "now", now)
    for kind in BackupKind:
        assert CliRunner().invoke(command.app, ["backup", "--kind", kind]).exit_code == 0
    assert asked == ["all", "base", "dump", "redis", "workspace"]


def test_every_command_that_the_page_for_3_am_names_is_a_target_with_these_variables() -> None:
    page = (ROOT / "docs" / "backup-and-restore.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    typed = re.findall(r"(?<![\w-])make ([a-z-]+)((?: [A-Z]+=)?)", page)
    assert {"restore", "backups", "drill", "up"} <= {target for target, _ in typed}, "the expression finds no commands"
    for target, variable in typed:
        assert f"\n{target}: bootstrap ##" in makefile, target
        name = variable.strip(" =")
        takes = re.search(rf"^TAKES\.{target} := .*\b{name}\b", makefile, re.MULTILINE)
        assert name in {"", "ENV", "ARGS"} or takes, variable
