"""A restore that was refused or cut off, days later, on a live stack: no acknowledged row is out of reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest

from operations.data import backups
from operations.data.restore import on_engine, restore, steps
from operations.data.restore.journal import Journal
from operations.errors import ProjectError
from operations.lifecycle.down import destroy_data, take_down
from operations.lifecycle.up import bring_up
from operations.workspace.workspace import Workspace
from tests.live.conftest import no_limits, with_config
from tests.live.test_backup import KILL, killed_while_it_restores_a_dump, names, newest, wait_for_backups, write


@pytest.fixture(scope="module")
def backed(new_workspace: Callable[[], Workspace]) -> Iterator[Workspace]:
    """A stack with its first backups; gone at the end, with all that restores have set aside."""
    workspace = with_config(new_workspace(), {"samokoder:api": {"environment": no_limits()}})
    bring_up(workspace, interactive=False)
    wait_for_backups(workspace)
    yield workspace
    destroy_data(workspace, interactive=False)


def test_a_restore_killed_between_the_end_of_its_replacement_and_the_note_names_the_right_way_back(
    backed: Workspace, engine: docker.DockerClient
) -> None:
    dies = (
        f"(lambda real: setattr(on_engine.EngineRestore, 'release', lambda *a: (real(*a), {KILL})))"
        "(on_engine.EngineRestore.release)"
    )
    killed_while_it_restores_a_dump(backed, f"{dies} or ", has="in the dump", lacks="after the dump")
    journal = Journal.read(backed.folder / f"restore.{backed.name}.json")
    assert journal is not None
    assert "put-postgres" not in journal.done
    done = restore.restore(backed, up=bring_up)
    assert done.set_aside == journal.aside, "what is named last is a copy of the replacement"
    assert {"in the dump", "after the dump"} & names(engine, backed) == {"in the dump"}
    restore.restore(backed, up=bring_up, source=done.set_aside[-1])
    assert {"in the dump", "after the dump"} <= names(engine, backed), "the way back leads to the replacement"


@pytest.mark.parametrize("after", ["the kill", "down"])
def test_up_serves_a_dump_whose_restore_was_killed_before_postgresql_had_this_stacks_password(
    backed: Workspace, engine: docker.DockerClient, after: str
) -> None:
    dies = f"setattr(on_engine.EngineRestore, 'own_password', lambda _: {KILL}) or "
    dumped, not_dumped, since = (f"{what}, {after}" for what in ("without passwords", "not dumped", "acknowledged"))
    killed_while_it_restores_a_dump(backed, dies, has=dumped, lacks=not_dumped)
    if after == "down":
        take_down(backed, interactive=False)
    bring_up(backed, interactive=False)  # raises where the keeper of the roles is not let in
    assert {dumped, not_dumped} & names(engine, backed) == {dumped}
    write(backed, since)
    done = restore.restore(backed, up=bring_up)
    assert {dumped, since} <= names(engine, backed), "it only does the rest"
    restore.restore(backed, up=bring_up, source=done.set_aside[-1])
    assert not_dumped in names(engine, backed), "the way back leads to what was there before"


def test_the_same_words_days_after_a_refusal_restore_what_there_is_on_that_day(
    backed: Workspace, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough, asked = steps._enough, list[int]()

    def full(free: int, needed: int, environment: str) -> None:
        asked.append(needed)
        enough(free if len(asked) == 1 else 0, needed, environment)

    write(backed, "of Monday")
    with monkeypatch.context() as patched:
        patched.setattr(steps, "_enough", full)
        with pytest.raises(ProjectError, match=r"MiB free(?s:.)*make up.*starts what was stopped"):
            restore.restore(backed, up=bring_up, backup="latest")
    bring_up(backed, interactive=False)
    write(backed, "of Tuesday")
    restore.restore(backed, up=bring_up, backup="latest")
    assert {"of Monday", "of Tuesday"} <= names(engine, backed), "Monday's copy was put in place"


def test_the_same_words_after_the_last_step_failed_restore_and_do_not_only_say_so(
    backed: Workspace, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: on_engine.EngineRestore) -> None:
        raise ProjectError("no room for a backup")

    backups.now(backed, "dump")
    taken = newest(backed, "dump").id
    with monkeypatch.context() as patched:
        patched.setattr(on_engine.EngineRestore, "new_backup", fails)
        with pytest.raises(ProjectError, match="The data is replaced"):
            restore.restore(backed, up=bring_up, backup=taken)
    write(backed, "a damaged row")
    done = restore.restore(backed, up=bring_up, backup=taken)
    assert "a damaged row" not in names(engine, backed), "it says Restored and restored nothing"
    restore.restore(backed, up=bring_up, source=done.set_aside[-1])
    assert "a damaged row" in names(engine, backed), "what was acknowledged is out of reach"
