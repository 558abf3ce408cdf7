"""A state moves to another place: what is locked, looked at and refused, and in which order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from operations.clone import ROOT
from operations.errors import ProjectError
from operations.lifecycle import move_state
from operations.workspace import backend as places
from operations.workspace import lock, pulumi_cli
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace

OLD, NEW = "s3://old", "s3://new"
ROWS = [{"urn": "one"}, {"urn": "two"}]
Stack = dict[str, Any]


class KilledError(Exception):
    """The process is no more."""


def stack(resources: list[Any] | None = None, *, tags: dict[str, str] | None = None, history: int = 0) -> Stack:
    return {"resources": list(resources or []), "tags": dict(tags or {}), "history": [{}] * history}


class World:
    """The stacks of each place, and what was written, in order."""

    def __init__(self) -> None:
        self.places: dict[str, dict[str, Stack]] = {OLD: {}, NEW: {}}
        self.written: list[str] = []
        self.locked: list[tuple[str, str]] = []
        self.when: dict[str, Any] = {}
        """What happens after something was written, by its text."""

    def at(self, run: PulumiRun) -> dict[str, Stack]:
        return self.places[run.backend.url]

    def pulumi(self, run: PulumiRun, *words: str, given: str | None = None, **_: Any) -> Any:
        name = words[words.index("--stack") + 1] if "--stack" in words else run.stack
        said = ""
        match words[:3]:
            case ("stack", "init", made):
                self.at(run)[made] = stack()
            case ("stack", "tag", "set"):
                self.at(run)[name]["tags"][words[3]] = words[4]
            case ("stack", "tag", "rm"):
                del self.at(run)[name]["tags"][words[3]]
            case ("stack", "export", *_):
                said = json.dumps({"deployment": {"resources": self.at(run)[name]["resources"]}})
            case ("stack", "import", *_):
                self.at(run)[name]["resources"] = json.loads(given or "")["deployment"]["resources"]
            case ("stack", "history", *_):
                said = json.dumps(self.at(run)[name]["history"])
            case ("cancel", *_):
                pass
            case _:
                raise AssertionError(words)
        if not said:
            self.note(f"{run.backend.url} {' '.join(words[1:3] if words[1:2] == ('tag',) else words[1:2])} {name}")
        return subprocess.CompletedProcess(words, 0, said, "")

    def note(self, text: str) -> None:
        self.written.append(text)
        self.when.pop(text, lambda: None)()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    @contextmanager
    def held(workspace: Workspace, _: str, *, docker_host: str = "") -> Iterator[Workspace]:
        made.locked.append((workspace.name, docker_host))
        made.note(f"lock {workspace.name}")
        yield workspace

    def pulumi(run: PulumiRun, *words: str, **options: Any) -> Any:
        return made.pulumi(run, *words, **options)

    def written(*_: object) -> None:
        made.note("Pulumi.yaml")

    monkeypatch.setattr(
        pulumi_cli, "ensure_pulumi", lambda *, variables, **_: SimpleNamespace(program="", variables=variables)
    )
    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(Workspace, "engine", lambda _: SimpleNamespace(docker_host="unix:///engine"))
    monkeypatch.setattr(PulumiRun, "pulumi", pulumi)
    monkeypatch.setattr(PulumiRun, "stacks", lambda run: sorted(made.at(run)))
    monkeypatch.setattr(PulumiRun, "tags", lambda run, name="": dict(made.at(run)[name or run.stack]["tags"]))
    monkeypatch.setattr(PulumiRun, "deployment", lambda run, name="": made.at(run).get(name or run.stack, stack()))
    monkeypatch.setattr(PulumiRun, "in_plain", lambda run: {"resources": made.at(run)[run.stack]["resources"]})
    monkeypatch.setattr(places, "write", written)
    for owner, name in ((PulumiRun, "_write"), (Workspace, "_write_project")):  # for Pulumi alone, and slow
        monkeypatch.setattr(owner, name, lambda *_: None)
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    for name in ("other", "staging"):
        (tmp_path / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    (tmp_path / ".samokoder").mkdir()
    (tmp_path / ".samokoder/passphrase").write_text("x")
    variables = {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], places.VARIABLE: OLD}
    return Workspace(root=tmp_path, variables=variables)


def on(workspace: Workspace, url: str) -> PulumiRun:
    return workspace.connected(Backend(url=url, origin="test"))


def in_target(world: World) -> list[str]:
    return [each for each in world.written if each.startswith(NEW)]


def test_every_environment_is_locked_by_the_engine_that_it_has_before_any_stack_is_read(
    world: World, workspace: Workspace
) -> None:
    world.places[OLD] = {"staging": stack(ROWS), "other": stack()}
    world.when["lock staging"] = lambda: world.places[OLD].update(other=stack(ROWS))  # by who held its lock before
    world.when["lock other"] = lambda: world.places[OLD].update(staging=stack(ROWS[:1]))
    moved = move_state.move(workspace, NEW)
    assert world.locked == [("other", "unix:///engine"), ("staging", "unix:///engine")], "one could come up meanwhile"
    assert moved.resources == {"other": 2, "staging": 1}, "what was read before the locks is old"


def test_an_environment_that_comes_up_while_the_others_are_copied_is_not_left_behind(
    world: World, workspace: Workspace
) -> None:
    world.places[OLD] = {"staging": stack(ROWS)}
    world.when[f"{NEW} import staging"] = lambda: world.places[OLD].update(other=stack(ROWS))
    with pytest.raises(ProjectError, match="other came up meanwhile"):
        move_state.move(workspace, NEW)
    assert places.MOVED_STACK not in world.places[OLD], "its state would be refused, and be nowhere else"
    assert "Pulumi.yaml" not in world.written
    assert move_state.move(workspace, NEW).resources == {"other": 2, "staging": 2}, "the same command goes on"


def test_a_state_that_a_colleague_moves_while_this_waits_for_the_lock_is_not_moved_again(
    world: World, workspace: Workspace
) -> None:
    world.places[OLD] = {"staging": stack(ROWS)}
    mark = stack(tags={places.TO: "s3://theirs"})
    world.when["lock other"] = lambda: world.places[OLD].update({places.MOVED_STACK: mark})
    with pytest.raises(ProjectError, match=r"was moved from .* to s3://theirs"):
        move_state.move(workspace, NEW)
    assert not in_target(world), "two teams' states"


def test_an_environment_that_is_not_configured_yet_does_not_keep_the_others_from_moving(
    world: World, workspace: Workspace
) -> None:
    (workspace.root / "Pulumi.prod.yaml").write_text("config: {samokoder:production: true}\n")
    world.places[OLD] = {"staging": stack(ROWS)}
    assert move_state.move(workspace, NEW).resources == {"staging": 2}, "a trial's production is never complete"


@pytest.mark.parametrize(
    "theirs",
    [
        stack(ROWS[:1]),
        stack(history=1),
        stack(tags={"samokoder:good-commit": "a" * 40}),
        stack(tags={places.COPY_OF: "their-host abc"}),
    ],
    ids=["other resources", "empty, with a history", "empty, with a commit", "a copy that they are at"],
)
@pytest.mark.parametrize("name", ["staging", "prod"])
def test_a_stack_of_another_team_is_seen_before_anything_is_written_there(
    world: World, workspace: Workspace, theirs: Stack, name: str
) -> None:
    """`other` comes first, so a loop that looks and copies would have written it."""
    world.places[OLD] = {"other": stack(ROWS), "staging": stack(ROWS)}
    world.places[NEW] = {name: theirs}
    with pytest.raises(ProjectError, match=f"has another {name} already: nothing was written there"):
        move_state.move(workspace, NEW)
    assert not in_target(world), "the message says that nothing was"


def test_a_stack_that_was_only_made_there_is_no_obstacle(world: World, workspace: Workspace) -> None:
    world.places[OLD] = {"staging": stack(ROWS, tags={"samokoder:good-commit": "a" * 40})}
    world.places[NEW] = {"staging": stack(), "other": stack()}
    move_state.move(workspace, NEW)
    assert world.places[NEW]["staging"] == stack(ROWS, tags={"samokoder:good-commit": "a" * 40})


def test_cut_off_after_any_write_no_copy_is_used_before_it_is_whole_and_nobody_is_locked_out(
    world: World, workspace: Workspace
) -> None:
    def killed() -> None:
        raise KilledError

    world.places[OLD] = {"other": stack(ROWS), "staging": stack(ROWS)}
    move_state.move(workspace, NEW)
    steps = [each for each in world.written if not each.startswith("lock")]
    assert steps[-1] == "Pulumi.yaml", "who reads it there would be refused until the tags are gone"
    for step in steps:
        world.places = {OLD: {"other": stack(ROWS), "staging": stack(ROWS)}, NEW: {}}
        world.when = {step: killed}
        with pytest.raises(KilledError):
            move_state.move(workspace, NEW)
        marked = places.TO in world.places[OLD].get(places.MOVED_STACK, stack())["tags"]
        for name, copy in world.places[NEW].items():
            if copy["resources"] and not marked:
                run = Workspace(environment=name, root=workspace.root, variables=workspace.variables)
                for use in (on(run, NEW).refuse_moved, on(run, NEW)._exists):
                    with pytest.raises(ProjectError, match="is an unfinished copy"):
                        use()
        move_state.move(workspace, NEW)
        assert world.places[NEW] == {"other": stack(ROWS), "staging": stack(ROWS)}, f"killed after {step}"
        on(workspace, NEW).refuse_moved()


def test_the_same_place_in_another_spelling_keeps_no_tag_that_bars_it(world: World, workspace: Workspace) -> None:
    def killed() -> None:
        raise KilledError

    world.places[OLD] = world.places[NEW] = {"staging": stack(ROWS)}
    world.when = {f"{NEW} tag set staging": killed}
    with pytest.raises(KilledError):
        move_state.move(workspace, NEW)
    with pytest.raises(ProjectError, match="spelled in another way"):
        move_state.move(workspace, NEW)
    on(workspace, OLD).refuse_moved()


def test_a_tag_at_the_new_place_does_not_tell_the_password_of_the_old_one(world: World, workspace: Workspace) -> None:
    old = "postgres://user:geheim@db/state?password=geheim"
    world.places[old] = {"staging": stack(ROWS)}
    world.when[f"{NEW} import staging"] = lambda: world.places[old]["staging"].update(resources=ROWS[:1])
    variables = {**workspace.variables, places.VARIABLE: old}
    with pytest.raises(ProjectError, match="has not the same") as error:
        move_state.move(Workspace(root=workspace.root, variables=variables), NEW)
    assert "postgres://db/state" in str(error.value)
    assert "geheim" not in str(error.value) + json.dumps(world.places[NEW]), "whoever reads the bucket has it"
    assert "geheim" not in str(Backend(url=old, origin="x"))


def test_what_is_printed_to_be_typed_runs_nothing_else() -> None:
    error = str(places.moved(Backend(url=OLD, origin="x"), "s3://b';touch x;'"))
    assert "samokoder move-state 's3://b'\"'\"';touch x;'\"'\"''" in error, "the mark is a file that others may write"
    for hidden in ("s3://b$(touch x)", 's3://b";touch x;"', "s3://b`touch x`", "s3://b\nmake x"):
        assert "make" not in str(places.moved(Backend(url=OLD, origin="x"), hidden)).replace(hidden, ""), (
            "in double quotes of a recipe, and by make itself, that is run"
        )


def test_a_token_that_is_refused_beside_pulumi_yaml_is_told(world: World, workspace: Workspace) -> None:
    world.places[OLD] = {"staging": stack(ROWS)}
    variables = {**workspace.variables, places.TOKEN: "x"}
    lines = move_state.move(Workspace(root=workspace.root, variables=variables), NEW).lines()
    assert any("PULUMI_ACCESS_TOKEN is set beside it, and commands are refused" in line for line in lines)
