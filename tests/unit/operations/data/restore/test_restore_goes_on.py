"""A restore that was cut off or refused, and what is typed next: no acknowledged write is ever out of reach."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from operations.data.restore import unfinished
from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from operations.data.restore.steps import Restore
from operations.errors import ProjectError
from operations.workspace import lock
from tests.restoring import ASKED, OFFSITE, UNRELEASED, CutOffError, FakeEngine, Given, environment, on_a_fake_engine

POSTGRES = "samokoder-staging-postgres-data"
DUMP = "dump-20261123T031500Z"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    return on_a_fake_engine(tmp_path, monkeypatch)


def journal(given: Given) -> dict[str, Any]:
    path = given.folder / "restore.staging.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def cut_when(given: Given, reached: Callable[[dict[str, Any]], bool], **asked: str) -> None:
    """End the process at the first call at which the journal says what was reached."""
    for cut in range(1, 100):
        given.engine = FakeEngine(cut=cut)
        for file in given.folder.glob("*.json"):
            file.unlink()
        try:
            given.restore(**asked)
        except CutOffError:
            if reached(journal(given)):
                given.engine.cut = -1
                return
    pytest.fail("it was never cut off there")


def cut_half(given: Given, run: Callable[[], object], **volumes: str) -> None:
    """End the process at the first call at which half of the database is replaced. volumes: what is there besides."""
    for cut in range(1, 100):
        given.engine = FakeEngine(cut=cut)
        given.engine.volumes |= volumes
        for file in given.folder.glob("*.json"):
            file.unlink()
        with pytest.raises(CutOffError):
            run()
        if given.engine.volumes[POSTGRES] == "half":
            given.engine.cut = -1
            return
    pytest.fail("it was never cut off there")


def reachable(given: Given, text: str) -> bool:
    return any(text in content for name, content in given.engine.volumes.items() if "-data" in name or BEFORE in name)


BEFORE = "-before-restore-"


@pytest.mark.parametrize("asked", [{"to": "2026-11-23 10:05:00+03"}, {"backup": "latest"}, {"backup": DUMP}])
@pytest.mark.parametrize("again", ["a bare command", "the same words", "other words"])
def test_what_was_written_between_a_restore_that_was_cut_off_and_the_next_is_set_aside(
    given: Given, asked: dict[str, str], again: str
) -> None:
    cut_when(given, lambda so_far: "keep-postgres" in so_far.get("done", ()), **asked)
    given.engine.up()
    given.engine.write("an acknowledged row")
    words = {"a bare command": {}, "the same words": asked, "other words": {"to": "2026-11-22 10:05:00+03"}}[again]
    done = given.restore(**words)
    aside = given.engine.volumes[done.set_aside[-1]]
    assert "an acknowledged row" in aside, "`What was there before is in …` would not be true"
    assert reachable(given, "an acknowledged row")


def test_up_lets_the_keeper_of_the_roles_in_where_a_restore_was_cut_off_before_it_did(given: Given) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    assert given.engine.key == "of before", "a dump has no password of this stack"
    unfinished.give_own_password(cast("Any", given))
    given.engine.start(["postgres_roles"])  # asserts that it gets in
    given.engine.up()
    given.engine.write("an acknowledged row")
    assert str(given.restore()).startswith("Restored"), "the rest is done"
    assert "an acknowledged row" in given.engine.volumes[POSTGRES]


REDIS = "redis-20261123T030000Z"


@pytest.mark.parametrize("words", ["latest", REDIS])
def test_new_words_that_are_refused_do_not_forget_that_postgresql_lacks_its_password(given: Given, words: str) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    given.engine.refuses = "check-restore"
    with pytest.raises(ProjectError, match="`make up` starts what was stopped"):
        given.restore(backup=words)
    unfinished.give_own_password(cast("Any", given))
    given.engine.start(["postgres_roles"])  # asserts that it gets in


def test_other_words_that_are_cut_off_anywhere_do_not_forget_that_postgresql_lacks_its_password(given: Given) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    left, noted = given.engine, (given.folder / "restore.staging.json").read_text(encoding="utf-8")
    for cut in range(1, 100):
        given.engine = FakeEngine(volumes=dict(left.volumes), running=set(left.running), cut=cut)
        (given.folder / "restore.staging.json").write_text(noted, encoding="utf-8")
        with contextlib.suppress(CutOffError):
            given.restore(backup=REDIS)
        given.engine.cut, done = -1, given.engine.cut > 0
        unfinished.give_own_password(cast("Any", given))
        assert given.engine.key == "of this stack", f"cut off at call {cut}, `make up` would fail at postgres-roles"
        if done:
            return
    pytest.fail("it never ran through")


@pytest.mark.parametrize("reached", ["keep-postgres", "start"])
def test_up_touches_no_password_before_the_data_is_replaced_and_after_all_was_started(
    given: Given, reached: str
) -> None:
    cut_when(given, lambda so_far: reached in so_far.get("done", ()), backup=DUMP)
    given.engine.key = "its own"
    unfinished.give_own_password(cast("Any", given))
    assert given.engine.key == "its own"


def test_a_postgresql_that_does_not_start_does_not_keep_up_from_mending_it(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sick(*_: object) -> None:
        raise ProjectError("postgres is not healthy")

    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    monkeypatch.setattr(FakeEngine, "start", sick)
    unfinished.give_own_password(cast("Any", given))
    assert "postgres is not healthy" in given.said[-1]


def test_up_says_nothing_of_the_password_of_a_postgresql_that_it_is_about_to_make(given: Given) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    given.engine.removed, before = True, len(given.said)
    unfinished.give_own_password(cast("Any", given))
    assert given.said[before:] == [], "`down` has given it: it would be a false alarm"


def test_a_whole_copy_that_was_set_aside_is_never_written_to_again(given: Given) -> None:
    cut_when(given, lambda so_far: "keep-postgres" in so_far.get("done", ()), backup=DUMP)
    before = {name: text for name, text in given.engine.volumes.items() if BEFORE in name}
    assert list(before.values()) == ["old rows"]
    given.engine.volumes[POSTGRES] = "an empty database"  # it was lost meanwhile, and one began with nothing in it
    done = given.restore()
    assert before.items() <= given.engine.volumes.items(), "the only copy of what was lost"
    assert given.engine.volumes[done.set_aside[-1]] == "an empty database"
    assert set(before) <= set(done.set_aside), "all of them are told"


def test_what_an_earlier_version_had_replaced_is_not_called_what_was_there_before(given: Given) -> None:
    cut_when(given, lambda so_far: "postgres" in so_far.get("copied", ()), backup=DUMP)
    given.engine.release(POSTGRES)
    begun = journal(given)
    assert "put-postgres" not in begun["done"], "it was cut off between the copy and the note of it"
    for later in ("copied", "before"):
        del begun[later]
    (given.folder / "restore.staging.json").write_text(json.dumps(begun))
    [before] = begun["aside"]
    given.engine.up()
    given.engine.write("a row that was served since")
    done = given.restore()
    assert done.undo == f"make restore FROM={before}", "an undo would put the replacement back"
    assert given.engine.volumes[before] == "old rows"
    assert reachable(given, "a row that was served since"), "and what was written to the replacement is not lost"


def test_the_same_words_on_another_day_restore_what_there_is_on_that_day(given: Given) -> None:
    given.engine.free = 10**9
    refusing = FakeEngine.sizes
    calls: list[str] = []

    def full(engine: FakeEngine, volume: str) -> tuple[int, int]:
        calls.append(volume)
        return refusing(engine, volume)[0], 1000 if len(calls) == 1 else 0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeEngine, "sizes", full)
        with pytest.raises(ProjectError, match=r"MiB free(?s:.)*`make up` starts what was stopped"):
            given.restore(backup="latest")
    for again in ({"backup": "latest"}, {}):
        given.engine.up()
        given.engine.write(f"a row before {again}")
        given.restore(**again) if again else None
    assert "a row before {'backup': 'latest'}" in given.engine.volumes[POSTGRES], (
        "the copy of the first day was put back"
    )


def test_a_bare_command_makes_the_copy_again_where_the_latest_is_asked_for(given: Given) -> None:
    cut_when(given, lambda so_far: "room" in so_far.get("done", ()), backup="latest")
    given.engine.up()
    given.engine.write("an acknowledged row")
    given.restore()
    assert "an acknowledged row" in given.engine.volumes[POSTGRES], "it is the latest of before it was cut off"


def test_the_copy_of_a_moment_stays_where_it_is_whole(given: Given) -> None:
    cut_when(given, lambda so_far: "room" in so_far.get("done", ()), to="2026-11-23 10:05:00+03")
    given.restore()
    assert len([what for what in given.engine.done if what.startswith("restore")]) == 1, "it took an hour"


def test_the_same_words_after_the_last_step_failed_restore_and_do_not_only_say_so(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: FakeEngine) -> None:
        raise ProjectError("no room for a backup")

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "new_backup", fails)
        with pytest.raises(ProjectError, match="The data is replaced"):
            given.restore(backup=DUMP)
    given.engine.write("a damaged row")
    done = given.restore(backup=DUMP)
    assert "a damaged row" not in given.engine.volumes[POSTGRES], "it says Restored and restored nothing"
    assert "a damaged row" in given.engine.volumes[done.set_aside[-1]]


def test_a_bare_command_after_the_last_step_failed_does_that_step(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "new_backup", lambda _: (_ for _ in ()).throw(ProjectError("no room")))
        with pytest.raises(ProjectError):
            given.restore(backup=DUMP)
    given.engine.write("since it serves again")
    given.restore()
    assert "since it serves again" in given.engine.volumes[POSTGRES], "what was written since was replaced"
    assert given.engine.done[-1] == "a new backup"


@pytest.mark.parametrize("asked", [{"backup": "latest"}, {"to": "2026-11-23 10:05:00+03"}, {"backup": DUMP}])
@pytest.mark.parametrize("half", [False, True], ids=["nothing replaced", "half replaced"])
@pytest.mark.parametrize("left", [None, ""], ids=["gone", "empty"])
def test_a_replacement_that_is_gone_or_empty_is_made_again(
    given: Given, asked: dict[str, str], half: bool, left: str | None
) -> None:
    cut_when(given, lambda so_far: bool(so_far.get("touched")) if half else "keep-postgres" in so_far["done"], **asked)
    if half:
        given.engine.volumes[POSTGRES] = "half"
    for name in [name for name in given.engine.volumes if "-restored-" in name]:
        given.engine.volumes.pop(name)
        if left is not None:
            given.engine.volumes[name] = left
    given.restore()
    assert " out of backups" in given.engine.volumes[POSTGRES], "an empty database was put in place"
    assert reachable(given, "old rows")


def test_a_volume_that_is_gone_is_no_dead_end_for_a_half_replaced_database(given: Given) -> None:
    aside = ASKED["what was set aside"].source
    cut_half(given, lambda: given.restore(source=aside), **{aside: "rows of last week"})
    del given.engine.volumes[aside]
    with pytest.raises(ProjectError, match="FROM=samokoder-staging-postgres-before-restore") as failed:
        given.restore()
    given.restore(source=str(failed.value).rpartition("FROM=")[2])
    assert given.engine.volumes[POSTGRES] == "old rows"


def test_a_replacement_that_was_announced_and_not_begun_sets_aside_what_was_written_since(given: Given) -> None:
    cut_when(given, lambda so_far: bool(so_far.get("touched")), backup=DUMP)
    assert given.engine.volumes[POSTGRES] == "old rows", "it was cut off before it began"
    given.engine.up()  # by Pulumi itself, which knows of no restore
    given.engine.write("an acknowledged row")
    done = given.restore()
    assert "an acknowledged row" in given.engine.volumes[done.set_aside[-1]]


def test_a_replacement_that_was_announced_and_not_begun_is_made_again_for_the_latest(given: Given) -> None:
    cut_when(given, lambda so_far: bool(so_far.get("touched")), backup="latest")
    assert given.engine.volumes[POSTGRES] == "old rows", "it was cut off before it began"
    given.engine.up()  # another clone has restored meanwhile, and serves
    given.engine.write("a row of the days since")
    given.restore()
    assert "a row of the days since" in given.engine.volumes[POSTGRES], "the copy of days ago was put in place"


@pytest.mark.parametrize("served", [False, True], ids=["at once", "after it was served"])
@pytest.mark.parametrize("again", ["a bare command", "the way back"])
def test_a_restore_cut_off_between_the_end_of_its_replacement_and_the_note_names_the_right_way_back(
    given: Given, again: str, *, served: bool
) -> None:
    tried = 0
    for cut in range(1, 100):
        given.engine = FakeEngine(cut=cut)
        for file in given.folder.glob("*.json"):
            file.unlink()
        with contextlib.suppress(CutOffError):
            given.restore(backup=DUMP)
        given.engine.cut = -1
        if given.engine.volumes[POSTGRES] in {"old rows", "half"} or "put-postgres" in journal(given)["done"]:
            if tried:
                break
            continue
        tried, row = tried + 1, False
        (aside,) = journal(given)["aside"]
        if served and not given.engine.volumes[POSTGRES].startswith(UNRELEASED):
            given.engine.up()  # by Pulumi itself, which knows of no restore
            given.engine.write("a row since then")
            row = True
        if again == "a bare command":
            done = given.restore()
            assert done.set_aside == (aside,), "the way back that is named last is a copy of the replacement"
            assert done.undo == f"make restore FROM={aside}"
            assert " out of backups" in given.engine.volumes[POSTGRES]
        else:
            given.restore(source=aside)
            assert given.engine.volumes[POSTGRES] == "old rows", "the replacement was left in place"
        assert reachable(given, "old rows")
        assert not row or reachable(given, "a row since then"), "it was acknowledged"
    assert tried >= 2, "it was never cut off there"


@pytest.mark.parametrize("between", [False, True], ids=["at once", "after an up that is refused"])
@pytest.mark.parametrize("error", [ProjectError, KeyboardInterrupt])
def test_a_restore_that_failed_half_way_keeps_other_clones_out_until_it_is_finished(
    given: Given, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], *, between: bool
) -> None:
    copy = FakeEngine.copy

    def full(engine: FakeEngine, source: str, target: str, *, whole: Any) -> None:
        if not whole:
            return copy(engine, source, target, whole=whole)
        engine.volumes[target] = "half"
        raise error("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "copy", full)
        with pytest.raises(error):
            given.restore(backup=DUMP)
    if between:
        with pytest.raises(ProjectError, match="Finish it first"), lock.held(cast("Any", given), "up"):
            unfinished.refuse_half_replaced(cast("Any", given))
    (elsewhere := given.folder / "elsewhere").mkdir()
    other = replace(given, folder=elsewhere)
    before = dict(given.engine.volumes)
    with pytest.raises(ProjectError, match=r"left half done: `(restore|up)` since.*Finish it there"):
        other.restore(backup=DUMP)
    assert given.engine.volumes == before, "days of rows would be served, and replaced when the first one is finished"
    given.restore()
    assert " out of backups" in given.engine.volumes[POSTGRES]
    assert not given.client().volumes.labelled, "it would be locked for good"
    other.restore(backup="latest")


def test_a_copied_replacement_that_is_lost_before_it_was_noted_is_copied_again(given: Given) -> None:
    cut_when(given, lambda so_far: bool(so_far.get("copied")), backup=DUMP)
    given.engine.volumes[POSTGRES] = "half"
    given.restore()
    assert " out of backups" in given.engine.volumes[POSTGRES]


def test_a_copy_of_damaged_data_that_came_to_its_end_is_never_written_to_again(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_when(given, lambda so_far: "keep-postgres" in so_far.get("done", ()), backup=DUMP)
    (aside,) = (name for name in given.engine.volumes if BEFORE in name)
    whole = FakeEngine.whole
    monkeypatch.setattr(
        FakeEngine,
        "whole",
        lambda engine, volume, server: whole(engine, volume, server) and "damaged" not in engine.volumes[volume],
    )
    given.engine.volumes |= {aside: "damaged rows, of which much can be saved", POSTGRES: "an empty database"}
    done = given.restore()
    assert given.engine.volumes[aside].startswith("damaged rows"), "the only copy of what was there"
    assert given.engine.volumes[done.set_aside[-1]] == "an empty database"


def test_what_an_import_has_begun_goes_on_by_the_import_alone(given: Given) -> None:
    copied = "samokoder-staging-postgres-from-compose-20261122T000000Z"
    cut_half(given, lambda: given.put_by_an_import(source=copied), **{copied: "rows of the compose stack"})
    with pytest.raises(ProjectError, match="import-compose"):
        given.restore()
    assert given.engine.volumes[POSTGRES] == "half", "the import would not know of it, and put its copy in place again"
    given.put_by_an_import()
    assert given.engine.volumes[POSTGRES] == "rows of the compose stack"


def test_a_way_back_that_is_gone_is_refused_and_the_way_forward_stays(given: Given) -> None:
    cut_half(given, lambda: given.restore(backup=DUMP))
    (aside,) = journal(given)["aside"]
    given.engine.volumes[aside] = ""
    with pytest.raises(ProjectError, match=f"{aside} is gone"):
        given.restore(source=aside)
    given.restore()
    assert " out of backups" in given.engine.volumes[POSTGRES], "what was begun could no longer be finished"


def test_a_journal_of_the_version_before_says_where_the_data_is(given: Given) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    of_before = {key: value for key, value in journal(given).items() if key not in {"aside", "kept", "stopped", "lost"}}
    (given.folder / "restore.staging.json").write_text(json.dumps(of_before))
    done = given.restore()
    assert given.engine.volumes[done.set_aside[-1]] == "old rows", "nobody else knows where it is"


def test_the_latest_of_the_off_site_copy_is_fetched_again_and_a_moment_of_it_is_not(given: Given) -> None:
    given.config = OFFSITE
    given.engine.refuses = "check-restore"
    for asked in ({"to": "2026-11-23 10:05:00+03"}, {"to": "2026-11-23 10:04:00+03"}):
        with pytest.raises(
            ProjectError, match=r"No data was changed\. It goes on: make restore\. Or ask for another\.$"
        ):
            given.restore(source="offsite", **asked)
    assert given.engine.done.count("offsite pull") == 1, "it takes an hour"
    given.engine.refuses = ""
    given.restore(source="offsite")
    assert given.engine.done.count("offsite pull") == 2, "the newest of everything is not that of the first day"


def test_a_second_restore_is_refused_with_who_is_at_it_since_when(given: Given) -> None:
    before = dict(given.engine.volumes)
    with lock.held(given, "restore"), pytest.raises(ProjectError, match=r"`restore` since 20\d\d-.*process \d+ of"):  # type: ignore[arg-type]
        given.restore(backup="latest")
    assert given.engine.volumes == before
    given.restore(backup="latest")
    assert not given.client().volumes.labelled, "the lock is given back"


def test_a_half_replaced_database_is_nothing_that_latest_is_compared_with(given: Given) -> None:
    begun = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z")
    asked: list[str] = []
    for journal in (begun, replace(begun, touched=True), replace(begun, lost=True)):
        restoring = Restore(environment(), given.engine, journal, given.folder / "restore.json", lambda _: None)
        asked.append(restoring._present())
    assert asked == [POSTGRES, "", ""], "`make restore` would be refused for ever, and any other words too"


@pytest.mark.parametrize("error", [ProjectError, KeyboardInterrupt])
def test_other_clones_wait_until_a_restored_postgresql_has_this_stacks_password(
    given: Given, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fails(*_: object) -> None:
        raise error("not healthy")

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "own_password", fails)
        with pytest.raises(error):
            given.restore(backup=DUMP)
    (elsewhere := given.folder / "elsewhere").mkdir()
    other = cast("Any", replace(given, folder=elsewhere))
    with pytest.raises(ProjectError, match="left half done: `restore` since"), lock.held(other, "up"):
        pytest.fail("it has no journal, gives no password, and fails at postgres-roles without a reason")
    with lock.held(cast("Any", given), "up"):
        unfinished.give_own_password(cast("Any", given))
    with lock.held(other, "up"):
        given.engine.start(["postgres_roles"])  # asserts that it gets in
    given.restore(backup="latest")
    assert not given.client().volumes.labelled


def test_a_restore_that_fails_after_postgresql_has_its_password_locks_nobody_out(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeEngine.start

    def fails(engine: FakeEngine, fields: Any) -> None:
        if "migrations" in fields:
            raise ProjectError("the code that runs is older than the dump")
        real(engine, fields)

    monkeypatch.setattr(FakeEngine, "start", fails)
    with pytest.raises(ProjectError, match="older than the dump"):
        given.restore(backup=DUMP)
    assert not given.client().volumes.labelled, "CI could not deploy the version that starts"


def test_a_password_that_was_given_before_the_data_was_replaced_is_given_again(given: Given) -> None:
    cut_when(given, lambda so_far: "put-postgres" in so_far.get("done", ()), backup=DUMP)
    given.engine.refuses = "restore"
    with pytest.raises(ProjectError):
        given.restore(to="2026-11-23 10:05:00+03")
    unfinished.give_own_password(cast("Any", given))
    assert lock.PASSWORD in journal(given)["done"]
    given.engine.refuses, given.engine.key = "", "of the backup"
    given.restore()
    assert given.engine.key == "of this stack"


def test_a_half_replaced_volume_of_backups_has_a_way_back_where_the_bucket_is_away(given: Given) -> None:
    given.config = OFFSITE
    everything = set(given.engine.running)
    for cut in range(1, 100):
        given.engine = FakeEngine(cut=cut)
        for file in given.folder.glob("*.json"):
            file.unlink()
        with pytest.raises(CutOffError):
            given.restore(source="offsite")
        if given.engine.volumes["samokoder-staging-backup-data"] == "half":
            break
    given.engine.cut, given.engine.refuses, given.engine.key = -1, "pull", "of this stack"
    for name in [name for name in given.engine.volumes if "-restored-" in name]:
        del given.engine.volumes[name]
    with pytest.raises(ProjectError, match="Or back: make restore FROM=") as failed:
        given.restore()
    given.restore(source=str(failed.value).rpartition("FROM=")[2])
    assert given.engine.volumes["samokoder-staging-backup-data"] == "backups"
    assert given.engine.volumes[POSTGRES] == "old rows"
    assert given.engine.running == everything, "the database was whole all the time, and nobody starts it"


def test_a_half_replaced_database_of_the_bucket_has_a_way_back_too(given: Given) -> None:
    given.config = OFFSITE
    cut_half(given, lambda: given.restore(source="offsite"))
    aside = next(each for each in journal(given)["aside"] if "-postgres-" in each)
    given.restore(source=aside)
    assert given.engine.volumes[POSTGRES] == "old rows"
    assert {"api", "postgres", "backup"} <= given.engine.running


def test_no_way_back_is_named_to_data_that_was_incomplete(given: Given) -> None:
    """Redis with no list of its files, for example, whose repair leaves what was there in a volume."""
    given.engine.volumes["samokoder-staging-redis-data"] = ""
    done = given.restore(backup=REDIS)
    assert done.undo == ""
    assert "FROM=" not in str(done), "it is refused as incomplete"
    assert done.set_aside[-1] in str(done)
