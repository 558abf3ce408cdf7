"""The import of a compose stack's data without an engine: what is found, what is refused, and each step cut off."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest

from host.progress import Reporter
from operations.data.compose import import_compose, import_on_engine
from operations.data.compose.import_compose import Import
from operations.data.compose.old_volumes import look
from operations.data.compose.plan import ImportPlan, planned
from operations.data.compose.source import OldServer, Source
from operations.data.repair import collations
from operations.data.restore.journal import Journal, journal_path
from operations.data.restore.request import Wanted
from operations.data.volume_names import IMPORTED
from operations.engine import containers, one_off
from operations.errors import ProjectError
from operations.workspace import lock
from operations.workspace.workspace import Workspace
from stack.parts.postgres.collations import OUTDATED
from stack.settings.environment import Environment
from tests import fake_redis
from tests.recording import environment_of

OLD: dict[str, dict[str, Any]] = {
    "old_postgres_data": {
        "kind": "postgres",
        "folder": ".",
        "others": [],
        "version": "15",
        "elsewhere": [],
        "standby": False,
    },
    "old_redis_data": {"kind": "redis", "folder": ".", "appendonly": True},
    "old_grafana_data": {"kind": ""},
}
HERE = {"samokoder-staging-postgres-data": "new rows", "samokoder-staging-redis-data": "new keys"}


@cache
def environment(**values: Any) -> Environment:
    return environment_of("staging", values)


class CutOffError(BaseException):
    """What ends us at any moment."""


@dataclass
class FakeEngine:
    """Volumes as texts. `cut`: the call at which we end, before it or in its middle."""

    found: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: dict(each) for name, each in OLD.items()})
    volumes_: dict[str, str] = field(default_factory=lambda: {name: f"content of {name}" for name in OLD} | HERE)
    running: list[str] = field(default_factory=list)
    refuses: str = ""
    free: int = 10**9
    cut: int = -1
    put_: list[str] = field(default_factory=list)
    files: str = ""
    """Where the old stack has its workspace."""
    changed: str = "1"
    newest: int = 1796000000000000000
    starts: str = ""
    """The call after which the old stack runs, writes and is stopped again, or runs on."""
    runs_on: bool = False
    half: str = ""
    """The copy whose restore has begun to replace the data."""
    dies_noted: str = ""
    """The server whose restore ends us when it is noted as done and its journal is still there."""
    complete: bool = False
    """Whether that journal has no step left."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    def replacing(self, target: str) -> bool:
        return self.half == target

    def _now(self) -> None:
        self.cut -= 1
        if self.cut == 0:
            raise CutOffError

    def volumes(self, project: str) -> list[str]:
        return [name for name in self.found if name.startswith(f"{project}_")]

    def projects(self) -> list[str]:
        return ["old"]

    def look(self, volumes: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        each = {"bytes": 100, "changed": self.changed, "newest": self.newest, "free": self.free}
        return {name: each | self.found[name] for name in volumes}

    def there(self, volume: str) -> bool:
        return volume in self.volumes_

    def users(self, volume: str) -> list[str]:
        return self.running

    def shared(self, project: str) -> str:
        return self.files

    def major(self) -> str:
        return "15"

    def copy(self, source: Source, target: str) -> None:
        self._now()
        self.volumes_[target] = "half"
        self._now()
        self.volumes_[target] = self.volumes_[source.volume]
        self._old_stack_starts(f"copy {source.server}")

    def _old_stack_starts(self, call: str) -> None:
        if call == self.starts:
            self.changed, self.starts = "2", ""
            self.running = ["old_api_1"] if self.runs_on else []
            for volume in ("old_postgres_data", "old_redis_data"):
                self.volumes_[volume] += ", and days"

    def open(self, source: Source, target: str) -> str:
        self._now()
        assert self.volumes_[target] != "half", "half a copy was opened"
        if self.refuses == source.server:
            raise ProjectError("it cannot be opened")
        self._old_stack_starts(f"open {source.server}")
        return f"{source.server}: opened"

    def put(self, target: str, noted: Callable[[], None]) -> str:
        self._now()
        server = target.split("-")[2]
        if self.complete and self.half == target:
            noted()
            self.half, self.complete = "", False
            return f"{server}: put"
        assert target in self.volumes_, "the copy that is put in place is gone"
        self.put_.append(server)
        self.half = target
        self._now()
        self.volumes_[f"samokoder-staging-{server}-data"] = self.volumes_[target]
        noted()
        if self.dies_noted == server:
            self.dies_noted, self.complete = "", True
            raise CutOffError
        self.half = ""
        self._now()
        self._old_stack_starts(f"put {server}")
        return f"{server}: put"

    def remove(self, volume: str) -> None:
        self._now()
        assert "-from-compose-" in volume, "nothing but its own copies is ever removed"
        self.volumes_.pop(volume, None)


def plan(
    engine: FakeEngine, given: Mapping[OldServer, str] | None = None, project: str = "old", **values: Any
) -> ImportPlan:
    return planned(environment_of("staging", values), engine, project, given or {}, lambda _: None)


STAMPS = (f"202611{day:02}T{hour:02}0000Z" for day in range(1, 29) for hour in range(24))


def run(engine: FakeEngine, path: Path) -> str:
    """What a command does: plan, and go on with what was begun."""
    planned = replace(plan(engine), stamp=next(STAMPS))
    return import_compose.run_import(Import(environment(), engine, planned, path, lambda _: None))


def test_the_data_comes_into_its_place_and_the_old_volumes_stay(tmp_path: Path) -> None:
    engine = FakeEngine()
    said = run(engine, tmp_path / "import.json")
    assert engine.volumes_ == {
        **{name: f"content of {name}" for name in OLD},
        "samokoder-staging-postgres-data": "content of old_postgres_data",
        "samokoder-staging-redis-data": "content of old_redis_data",
    }, "the old ones changed, or a copy was left behind"
    assert engine.put_ == ["postgres", "redis"], "a queue that is there before its database loses its jobs"
    for words in ("postgres: opened", "redis: put", "The volumes of old are as they were"):
        assert words in said
    assert not list(tmp_path.iterdir()), "a finished import is not gone on with"


def test_an_import_that_is_cut_off_anywhere_is_finished_by_running_it_again(tmp_path: Path) -> None:
    whole = FakeEngine()
    run(whole, tmp_path / "whole.json")
    path, cuts = tmp_path / "import.json", 0
    for cut in range(1, 100):
        engine = FakeEngine(cut=cut)
        try:
            run(engine, path)
        except CutOffError:
            cuts += 1
            data = "samokoder-staging-postgres-data"
            serves = engine.put_ == ["postgres"] and not engine.half
            engine.volumes_[data] += " and what was written since" if serves else ""
            run(engine, path)
            assert not serves or engine.volumes_[data].endswith("since"), "the old data took the place of what serves"
            engine.volumes_[data] = engine.volumes_[data].removesuffix(" and what was written since")
        assert engine.volumes_ == whole.volumes_
        if engine.cut > 0:
            break
    assert 8 < cuts < 99, "it was hardly ever cut off, or never ran through"


@pytest.mark.parametrize("server", ["postgres", "redis"])
def test_an_import_that_is_cut_off_when_a_copy_was_noted_as_put_leaves_no_journal(server: str, tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(dies_noted=server)
    with pytest.raises(CutOffError):
        run(engine, path)
    engine.volumes_[f"samokoder-staging-{server}-data"] += ", and what was served since"
    said = run(engine, path)
    assert not engine.half, "its messages lead to a second import, over data that is in use"
    assert engine.volumes_[f"samokoder-staging-{server}-data"].endswith("served since")
    assert said.count(f"{server}: put") == 1
    assert not path.exists()


def test_what_cannot_be_opened_is_refused_before_anything_here_changes(tmp_path: Path) -> None:
    for server in ("postgres", "redis"):
        engine = FakeEngine(refuses=server)
        with pytest.raises(ProjectError, match="it cannot be opened\nNothing was changed"):
            run(engine, tmp_path / f"{server}.json")
        assert not engine.put_, "the database was replaced although Redis would be refused"
        assert {name: engine.volumes_[name] for name in HERE} == HERE


def test_a_volume_that_came_into_use_meanwhile_is_not_copied(tmp_path: Path) -> None:
    engine = FakeEngine(running=["old_api_1"])
    with pytest.raises(ProjectError, match="In use by old_api_1"):
        run(engine, tmp_path / "import.json")
    assert not [name for name in engine.volumes_ if "from-compose" in name]


def test_a_copy_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=10)
    with pytest.raises(CutOffError):
        run(engine, path)
    for name in [name for name in engine.volumes_ if "from-compose" in name]:
        del engine.volumes_[name]
    run(engine, path)
    assert engine.volumes_["samokoder-staging-redis-data"] == "content of old_redis_data", "nothing was put into place"


@pytest.mark.parametrize("cut", [9, 10, 11])
def test_copies_that_are_gone_do_not_put_a_database_in_place_again_that_is_served(cut: int, tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=cut)
    with pytest.raises(CutOffError):
        run(engine, path)
    assert "put-postgres" in json.loads(path.read_text())["done"]
    for name in [name for name in engine.volumes_ if "from-compose" in name and engine.half != name]:
        del engine.volumes_[name]
    engine.volumes_["samokoder-staging-postgres-data"] += ", and a row that was served since"
    engine.refuses = "redis"
    if not engine.half:
        with pytest.raises(ProjectError, match=r"cannot be opened\nThen this again\.$"):
            run(engine, path)
    engine.refuses = ""
    said = run(engine, path)
    assert engine.volumes_["samokoder-staging-postgres-data"].endswith("served since"), "the old database replaced it"
    assert engine.volumes_["samokoder-staging-redis-data"] == "content of old_redis_data"
    assert said.count("redis: opened") == 1, "the copy was opened twice"


def test_what_was_written_to_the_old_stack_between_two_tries_comes_over_too(tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(refuses="redis")
    with pytest.raises(ProjectError, match="it cannot be opened"):
        run(engine, path)
    for volume in ("old_postgres_data", "old_redis_data"):  # the owner goes on with the old stack for days
        engine.volumes_[volume] += ", and days"
    engine.refuses, engine.changed = "", "2"
    run(engine, path)
    for server in ("postgres", "redis"):
        assert engine.volumes_[f"samokoder-staging-{server}-data"].endswith("and days"), (
            f"{server}: the days are missing"
        )
    assert not [name for name in engine.volumes_ if "from-compose" in name], "the copy of before stayed"


@pytest.mark.parametrize("runs_on", [False, True], ids=["for a while", "and runs on"])
@pytest.mark.parametrize("starts", ["copy postgres", "copy redis", "open postgres", "open redis", "put postgres"])
def test_an_old_stack_that_is_started_while_it_is_imported_loses_nothing(
    starts: str, tmp_path: Path, *, runs_on: bool
) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(starts=starts, runs_on=runs_on)
    with pytest.raises(ProjectError, match=r"In use by old_api_1|Written to since this import began: old_postgres"):
        run(engine, path)
    assert engine.put_ == (["postgres"] if starts == "put postgres" else []), "what was copied before is put in place"
    if runs_on:
        with pytest.raises(ProjectError, match="In use by old_api_1"):
            run(engine, path)
    engine.running = []
    run(engine, path)
    for server in ("postgres", "redis"):
        assert engine.volumes_[f"samokoder-staging-{server}-data"].endswith("and days"), (
            "it is missing, and nobody says so"
        )


@pytest.mark.parametrize("cut", [7, 8, 9, 10, 11, 12, 13])
def test_an_old_stack_that_went_on_after_the_first_copy_was_in_place_is_imported_anew(cut: int, tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=cut)
    with pytest.raises(CutOffError):
        run(engine, path)
    for volume in ("old_postgres_data", "old_redis_data"):
        engine.volumes_[volume] += ", and days"
    engine.changed = "2"
    run(engine, path)
    for server in ("postgres", "redis"):
        assert engine.volumes_[f"samokoder-staging-{server}-data"].endswith("and days"), (
            f"{server}: the days are missing"
        )
    assert not [name for name in engine.volumes_ if "from-compose" in name]


@pytest.mark.parametrize("went_on", [False, True], ids=["as it was", "old stack went on"])
def test_an_import_that_an_earlier_version_has_begun_goes_on_where_no_old_volume_was_written_to(
    tmp_path: Path, *, went_on: bool
) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=10)
    with pytest.raises(CutOffError):
        run(engine, path)
    begun = json.loads(path.read_text())
    assert "put-postgres" in begun["done"]
    for source in begun["sources"]:
        source["changed"] = engine.newest  # the newest time in it is what that version noted
    path.write_text(json.dumps(begun))
    engine.volumes_["samokoder-staging-postgres-data"] += ", and a row that was served since"
    if went_on:
        engine.newest += 1
    run(engine, path)
    assert engine.volumes_["samokoder-staging-postgres-data"].endswith("served since") is not went_on, (
        "it began anew over a database that was in use"
    )
    assert engine.volumes_["samokoder-staging-redis-data"] == "content of old_redis_data"


def test_a_copy_of_which_half_is_in_place_is_put_there_before_another_import_begins(tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=8)
    with pytest.raises(CutOffError):
        run(engine, path)
    assert engine.half, "it was not cut off in the middle of a replacement"
    other = replace(plan(FakeEngine(), {"redis": "old_redis_data"}, project="none"), stamp=next(STAMPS))
    import_compose.run_import(Import(environment(), engine, other, path, lambda _: None))
    assert engine.volumes_["samokoder-staging-postgres-data"] == "content of old_postgres_data", "half of it stayed"
    assert not [name for name in engine.volumes_ if "from-compose" in name]


def test_another_import_takes_the_place_of_one_that_was_cut_off(tmp_path: Path) -> None:
    path, engine = tmp_path / "import.json", FakeEngine(cut=6)
    with pytest.raises(CutOffError):
        run(engine, path)
    left = [name for name in engine.volumes_ if "from-compose" in name]
    assert left, "it was cut off before there was anything"
    other = plan(FakeEngine(), {"redis": "old_redis_data"}, project="none")
    import_compose.run_import(
        Import(environment(), engine, replace(other, stamp="20261124T000000Z"), path, lambda _: None)
    )
    assert not [name for name in engine.volumes_ if "from-compose" in name], "the copies of the first one stayed"


def test_an_import_goes_on_while_the_server_is_stopped_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while half of the data was in place: `make up` says to import again, and that must not say `make up`."""
    stopped = SimpleNamespace(status="exited", labels={"samokoder.part": "postgres"}, attrs={"Image": "sha256:1"})
    monkeypatch.setattr(containers, "of_environment", lambda *_: [stopped])
    asked: list[object] = []

    def run_once(_client: object, image: str, command: Sequence[str], **_: object) -> str:
        asked.append((image, *command))
        return "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"

    monkeypatch.setattr(one_off, "run_once", run_once)
    workspace: Any = SimpleNamespace(reporter=Reporter())
    hands = import_on_engine.EngineImport(cast("Any", None), environment(), workspace)
    assert hands.major() == "15"
    assert asked == [("sha256:1", "postgres", "--version")]


# What an import would do, and what it refuses.


def test_the_plan_finds_the_data_by_what_is_in_the_volumes() -> None:
    engine = FakeEngine()
    engine.found = {"old_a": OLD["old_redis_data"], "old_b": OLD["old_postgres_data"], "old_c": OLD["old_grafana_data"]}
    assert [(s.server, s.volume) for s in plan(engine).sources] == [("postgres", "old_b"), ("redis", "old_a")]


def test_a_volume_can_be_named_by_itself() -> None:
    engine = FakeEngine()
    engine.found["other"] = OLD["old_redis_data"]
    found = plan(engine, {"redis": "other"})
    assert [source.volume for source in found.sources] == ["old_postgres_data", "other"]
    with pytest.raises(ProjectError, match="no data of PostgreSQL in the volume other"):
        plan(engine, {"postgres": "other"})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": "13"}, r"written by PostgreSQL 13, and this stack's is 15.*migrating-from-compose"),
        ({"others": ["14"]}, "more than one PostgreSQL"),
        ({"elsewhere": ["pg_tblspc/16385"]}, "outside of old_postgres_data: pg_tblspc/16385"),
        ({"standby": True}, "a standby's"),
    ],
)
def test_a_database_that_would_not_start_here_is_refused_with_the_way_out(changed: dict[str, Any], said: str) -> None:
    engine = FakeEngine()
    engine.found["old_postgres_data"] |= changed
    with pytest.raises(ProjectError, match=said):
        plan(engine)


def test_what_else_cannot_be_is_refused_with_what_to_do() -> None:
    with pytest.raises(ProjectError, match=r"no volume here for a project 'odl'. There are: old"):
        plan(FakeEngine(), project="odl")
    with pytest.raises(ProjectError, match=r"In use by old_db_1: .*docker compose --project-name old stop"):
        plan(FakeEngine(running=["old_db_1"]))
    with pytest.raises(ProjectError, match="needs 0"):
        plan(FakeEngine(free=10))
    with pytest.raises(ProjectError, match=r"samokoder:backup.enabled: true"):
        plan(FakeEngine(), backup={"enabled": False})
    two = FakeEngine()
    two.found["old_more"] = OLD["old_redis_data"]
    with pytest.raises(ProjectError, match=r"More than one volume.*--redis-volume old_more"):
        plan(two)
    empty = FakeEngine(found={"old_grafana_data": OLD["old_grafana_data"]})
    with pytest.raises(ProjectError, match="Nothing in the volumes of old can be imported"):
        plan(empty)


# The script that opens a copy; what it runs is a stand-in.


def opened(folder: Path, failing: str) -> subprocess.CompletedProcess[str]:
    """Run it with programs that do nothing; a question with `failing` among its words fails as psql does."""
    programs = {
        "psql": f'case "$*" in *"{failing}"*) exit 3 ;; *datname*) echo samokoder ;; esac',
        "pg_controldata": f"[ '{failing}' != pg_controldata ] && echo 'Data page checksum version:           0'",
        "pg_checksums": f"touch {folder}/checksums",
    }
    for name in ("postgres", "pg_ctl", "psql", "pg_controldata", "pg_checksums"):
        (folder / name).write_text(f"#!/bin/sh\n{programs.get(name, '')}\n")
        (folder / name).chmod(0o755)
    script = collations.script(
        Path(import_on_engine.__file__).with_name("import_postgres.sh").read_text(encoding="utf-8")
    )
    return subprocess.run(
        ["sh", "-c", script.replace("/tmp", str(folder)), "sh", str(folder), "postgres", "samokoder", "", OUTDATED],  # noqa: S108
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_question_that_fails_is_neither_a_no_nor_a_refusal(tmp_path: Path) -> None:
    done = opened(tmp_path, "none")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checksums").exists(), "a page that the disk changes would be served"
    for question in ("pg_database", "pg_extension", "AS each", "pg_size_pretty", "pg_controldata"):
        done = opened(tmp_path, question)
        assert done.returncode == 1, f"{question}: the copy would be put in place, its indexes in a wrong order"


def test_a_redis_that_does_not_answer_is_not_taken_for_a_small_one(tmp_path: Path) -> None:
    script = Path(import_on_engine.__file__).with_name("import_redis.sh").read_text(encoding="utf-8")
    file(tmp_path / "appendonly.aof")
    done = fake_redis.run_script(script, tmp_path, str(tmp_path), "yes", "1000000", failing="none")
    assert done.stdout == "Redis: 3 keys in database 0, 1 databases with keys\n", done.stderr
    assert fake_redis.run_script(script, tmp_path, str(tmp_path), "yes", "10", failing="none").returncode == 3
    for question in ("info memory", "dbsize", "info keyspace"):
        done = fake_redis.run_script(script, tmp_path, str(tmp_path), "yes", "10", failing=question)
        assert done.returncode in ({1} if question == "info memory" else {3}), f"{question}: {done.stderr}"
        done = fake_redis.run_script(script, tmp_path, str(tmp_path), "yes", "1000000", failing=question)
        assert done.returncode == 1, f"{question}: nobody knows whether all of it was read"


@pytest.mark.parametrize(
    ("files", "appendonly", "why"),
    [
        (["appendonlydir/appendonly.aof.1.incr.aof"], "yes", "has no list"),
        (["appendonly.aof", "appendonlydir/appendonly.aof.1.incr.aof"], "yes", "would read appendonly.aof"),
        (["appendonlydir/jobs.aof.manifest", "appendonlydir/jobs.aof.1.incr.aof"], "yes", "has no list"),
        (["dump.rdb"], "yes", "no append-only file any more"),
        ([], "no", "no snapshot"),
        (["appendonlydir/appendonly.aof.manifest", "appendonlydir/appendonly.aof.1.incr.aof"], "yes", ""),
        (["dump.rdb"], "no", ""),
    ],
)
def test_a_redis_that_would_begin_empty_is_refused(files: list[str], appendonly: str, why: str, tmp_path: Path) -> None:
    script = Path(import_on_engine.__file__).with_name("import_redis.sh").read_text(encoding="utf-8")
    for name in files:
        file(tmp_path / "data" / name)
    (tmp_path / "data").mkdir(exist_ok=True)
    words = (str(tmp_path / "data"), appendonly, "1000000")
    done = fake_redis.run_script(script, tmp_path, *words, failing="none")
    assert done.returncode == (3 if why else 0), f"`Redis: 0 keys`: every job is left behind {done.stderr}"
    assert why in done.stderr


# Looking into volumes.


def file(path: Path, text: str = "", *, hours_ago: float = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    at = time.time() - 3600 * hours_ago
    os.utime(path, (at, at))


def test_a_database_is_found_at_the_top_or_in_a_folder(tmp_path: Path) -> None:
    file(tmp_path / "one" / "PG_VERSION", "15\n")
    file(tmp_path / "one" / "base" / "1" / "PG_VERSION", "15\n")
    found = look(tmp_path / "one")
    (tmp_path / "one" / "base" / "1" / "2600").write_text("written")
    assert look(tmp_path / "one")["changed"] != found["changed"], "who went on with it is to lose nothing"
    newest = max(each.lstat().st_mtime_ns for each in [tmp_path / "one", *(tmp_path / "one").rglob("*")])
    assert look(tmp_path / "one")["newest"] == newest, "an import that an earlier version has begun would begin anew"
    before = look(tmp_path / "one")["changed"]
    assert look(tmp_path / "one")["changed"] == before, "every import would begin anew"
    file(tmp_path / "one" / "base" / "1" / "2600", "another", hours_ago=48)
    assert look(tmp_path / "one")["changed"] != before, "the clock went back while it was written"
    assert (found["kind"], found["folder"], found["version"], found["others"]) == ("postgres", ".", "15", [])
    assert found["bytes"] > 0
    file(tmp_path / "two" / "pgdata" / "PG_VERSION", "13\n")
    file(tmp_path / "two" / "pgdata" / "standby.signal")
    (tmp_path / "two" / "pgdata" / "pg_tblspc").mkdir()
    (tmp_path / "two" / "pgdata" / "pg_tblspc" / "16385").symlink_to("/mnt/fast")
    (tmp_path / "two" / "pgdata" / "pg_wal").symlink_to("/mnt/wal")
    found = look(tmp_path / "two")
    assert (found["folder"], found["version"], found["standby"]) == ("pgdata", "13", True)
    assert found["elsewhere"] == ["pg_wal", "pg_tblspc/16385"]


@pytest.mark.parametrize(
    ("files", "appendonly"),
    [
        ({"dump.rdb": 0}, False),
        ({"appendonly.aof": 0}, True),
        ({"appendonlydir/appendonly.aof.1.incr.aof": 5, "dump.rdb": 4.5}, True),
        ({"appendonlydir/appendonly.aof.1.incr.aof": 50, "dump.rdb": 1}, False),
        ({"appendonlydir/appendonly.aof.1.incr.aof": 1, "dump.rdb": 50}, True),
    ],
    ids=["a snapshot", "of Redis 6", "both", "given up long ago", "a snapshot of long ago"],
)
def test_redis_is_read_from_what_has_everything(files: dict[str, float], appendonly: bool, tmp_path: Path) -> None:
    for name, hours in files.items():
        file(tmp_path / name, "x", hours_ago=hours)
    found = look(tmp_path)
    assert (found["kind"], found["appendonly"]) == ("redis", appendonly), "the other one lacks what was written last"


def test_what_is_neither_is_left_alone(tmp_path: Path) -> None:
    file(tmp_path / "grafana.db")
    assert look(tmp_path)["kind"] == ""


@pytest.mark.parametrize(("source", "refused"), [("", True), (f"samokoder-staging-postgres{IMPORTED}1", False)])
def test_an_import_is_refused_before_it_copies_anything_while_a_restore_is_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, refused: bool
) -> None:
    workspace = Workspace(home=tmp_path)
    wanted = Wanted(source=source) if source else Wanted(backup="latest")
    Journal(wanted=wanted, stamp="20261124T100500Z", touched=True).write(journal_path(workspace))
    monkeypatch.setattr(lock, "held", lambda *_: nullcontext(workspace))
    hands = import_on_engine.EngineImport(cast("docker.DockerClient", None), workspace.settings(), workspace)
    with (
        pytest.raises(ProjectError, match="Finish it first: make restore") if refused else nullcontext(),
        hands.alone(),
    ):
        assert not refused, "it would be told after hours of copying"
