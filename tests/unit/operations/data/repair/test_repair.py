"""`samokoder repair`: what it says is lost, which way it takes, when it refuses, and where it can be cut off."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from operations.data import backups
from operations.data.backups import ListedBackup
from operations.data.repair import redis, repair
from operations.data.restore.actions import never
from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from operations.engine import containers, healthy
from operations.errors import ProjectError
from tests.restoring import STAMP, Given, on_a_fake_engine

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def given(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Given:
    made = on_a_fake_engine(tmp_path, monkeypatch)
    monkeypatch.setattr(containers, "find", lambda *_: None)
    monkeypatch.setattr(healthy, "health", lambda _: "stopped")
    monkeypatch.setattr(redis, "redis_log", SimpleNamespace(read=lambda _: "Redis read all of it"))
    return made


def copies(monkeypatch: pytest.MonkeyPatch, *finished: datetime, status: str = "good") -> None:
    rows = [
        ListedBackup(id=f"redis-{at:%H%M}", kind="redis", finished=at, bytes=1, status=status, since=None, until=None)
        for at in finished
    ]
    monkeypatch.setattr(backups, "backups", lambda _: (rows, []))


def says(given: Given, **ways: dict[str, str] | str) -> None:
    """What a look at each way finds: what there is to say, or why it leads nowhere."""

    def mend(way: str, into: str = "") -> dict[str, str]:
        if into:
            return type(given.engine).mend(given.engine, way, into)
        said = ways[way]
        if isinstance(said, str):
            raise ProjectError(said)
        return said

    given.engine.mend = mend  # type: ignore[method-assign]


def cut(kept: datetime | None, *, size: int = 90, commands: int = 3, written: datetime = NOON) -> dict[str, str]:
    at = f"{kept.timestamp():.0f}" if kept else ""
    moments = {"kept": at, "written": f"{written.timestamp():.0f}"}
    return {"keys": "7", "refused": "0", "bytes": str(size), "commands": str(commands)} | moments


def looked(given: Given) -> redis.DamagedRedis:
    with repair.opened(cast("Any", given), "redis", up=never) as found:
        return cast("redis.DamagedRedis", found)


def test_what_is_lost_is_said_in_commands_and_seconds(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    copies(monkeypatch, NOON.replace(hour=11))
    says(given, read="Bad file format", cut=cut(NOON.replace(hour=11, minute=59)), snapshot="There is no snapshot")
    said = "\n".join(looked(given).lines())
    assert "Bad file format" in said
    assert "90 bytes with the beginnings of 3 commands, written in the 60 s after 2026-11-29 11:59:00 UTC" in said
    assert "This is done: cut off" in said
    assert "Not taken: restore the copy redis-1100" in said
    assert "There is no snapshot" in said


@pytest.mark.parametrize(
    ("kept", "snapshot", "copy", "taken"),
    [
        (11, 10, 9, "cut"),
        (9, 11, 10, "snapshot"),
        (9, 10, 11, "redis-1100"),
        (None, 10, 11, "cut"),
        (0, 0, 11, "redis-1100"),
    ],
)
def test_the_way_that_loses_least_is_taken(
    given: Given, monkeypatch: pytest.MonkeyPatch, kept: int | None, snapshot: int, copy: int, taken: str
) -> None:
    copies(monkeypatch, NOON.replace(hour=copy))
    says(
        given,
        read="broken",
        cut="no" if kept == 0 else cut(NOON.replace(hour=kept) if kept else None),
        snapshot=cut(NOON.replace(hour=snapshot)) if snapshot else "none",
    )
    way = looked(given).ways[0]
    assert (way.mend or way.backup) == taken


def test_a_bad_copy_is_not_offered(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    copies(monkeypatch, NOON, status="bad")
    says(given, read="broken", cut="no", snapshot="none")
    with pytest.raises(ProjectError, match="There is no good copy of Redis in the backups"):
        looked(given)


def test_backups_that_cannot_be_listed_do_not_keep_anybody_from_a_cut(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ProjectError("the part 'backup' does not run")

    monkeypatch.setattr(backups, "backups", refuse)
    says(given, read="broken", cut=cut(NOON), snapshot="none")
    found = looked(given)
    assert found.ways[0].mend == "cut"
    assert "does not run" in "\n".join(found.lines())


def test_nothing_is_done_where_nothing_is_damaged(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    says(given, read={"keys": "7"}, cut="must not be asked", snapshot="must not be asked")
    with pytest.raises(ProjectError, match="nothing is damaged"):
        looked(given)
    monkeypatch.setattr(healthy, "health", lambda _: "healthy")
    says(given)
    with pytest.raises(ProjectError, match="there is nothing to repair"):
        looked(given)


def test_another_part_is_refused(given: Given) -> None:
    with pytest.raises(ProjectError, match="Only redis"), repair.opened(cast("Any", given), "postgres", up=never):
        pass


def test_a_look_stops_and_changes_nothing_and_what_was_there_is_set_aside(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies(monkeypatch)
    says(given, read="broken", cut=cut(NOON), snapshot="none")
    before, running = dict(given.engine.volumes), set(given.engine.running)
    with repair.opened(cast("Any", given), "redis", up=never) as found:
        assert (given.engine.volumes, given.engine.running) == (before, running)
        assert not list(given.folder.glob("restore*")), "a person who says no leaves nothing half done"
        done = found.run()
    assert given.engine.volumes["samokoder-staging-redis-data"] == "old keys mended by cut"
    assert given.engine.volumes[f"samokoder-staging-redis-before-restore-{STAMP}"] == "old keys"
    assert f"make restore FROM=samokoder-staging-redis-before-restore-{STAMP}" in done
    assert given.engine.running == running


def test_a_repair_that_has_begun_to_replace_the_data_is_finished_first(given: Given) -> None:
    journal = Journal(wanted=Wanted(mend="cut"), stamp=STAMP, touched=True)
    journal.write(given.folder / "restore.staging.json")
    says(given, read="broken")
    with pytest.raises(ProjectError, match=r"a repair of Redis.*Finish it first: make restore"):
        looked(given)


def test_what_was_written_between_a_repair_that_was_cut_off_and_the_next_is_mended_too(given: Given) -> None:
    journal = Journal(wanted=Wanted(mend="cut"), stamp=STAMP, done=("check", "restore", "server"), stopped=True)
    journal.write(given.folder / "restore.staging.json")
    given.engine.volumes[f"samokoder-staging-redis-restored-{STAMP}"] = "old keys mended by cut"
    given.engine.volumes["samokoder-staging-redis-data"] = "old keys, a new key"
    given.restore()
    assert given.engine.volumes["samokoder-staging-redis-data"] == "old keys, a new key mended by cut"


def test_a_managed_redis_is_repaired_where_it_is_managed(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Given, "settings", lambda _: SimpleNamespace(absent={"redis"}))
    with pytest.raises(ProjectError, match="repaired where it is managed"):
        looked(given)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (cut(NOON, size=4096, commands=0), "Lost are 4096 bytes, in which no command begins."),
        (cut(NOON, size=0, commands=0) | {"list": "anew"}, "is made anew. No command is lost that is in a file."),
        (cut(NOON, size=0, commands=0) | {"refused": "4"}, "Redis refuses 4 of the commands"),
        (cut(None), "3 commands, the file was last written to at 2026-11-29 12:00:00 UTC"),
    ],
)
def test_a_cut_says_no_more_than_is_known(
    given: Given, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], told: str
) -> None:
    copies(monkeypatch)
    says(given, read="broken", cut=said, snapshot="none")
    assert told in "\n".join(looked(given).lines())
