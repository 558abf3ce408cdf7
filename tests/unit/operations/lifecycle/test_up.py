"""What `up`, `down` and `destroy-data` hand to Pulumi, and what they look at before."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from typer.testing import CliRunner

from host.progress import Reporter
from operations import __main__ as command
from operations.data.restore import journal, unfinished
from operations.data.restore.journal import Journal
from operations.data.restore.request import Wanted
from operations.engine import healthy
from operations.engine.part_status import PartStatus
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle import down as lifecycle_down
from operations.lifecycle import lost_data
from operations.lifecycle import up as lifecycle_up
from operations.workspace import lock, origins, pulumi_state, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from tests.recording import environment_of


def handed(
    monkeypatch: pytest.MonkeyPatch,
    *,
    production: bool = False,
    gone: tuple[str, ...] = (),
    parts: tuple[PartStatus, ...] = (),
    lost_rules: str = "",
    said: list[str] | None = None,
) -> tuple[str, ...]:
    """Bring up; return the words that Pulumi gets. said: collects what is reported."""
    words: list[tuple[str, ...]] = []
    settings = SimpleNamespace(settings=SimpleNamespace(production=production, docker_host="unix:///nowhere"))
    reporter = SimpleNamespace(say=([] if said is None else said).append)
    workspace = SimpleNamespace(settings=lambda: settings, client=None, reporter=reporter)
    run = SimpleNamespace(
        workspace=workspace,
        settle=lambda _: None,
        pulumi=lambda *said, **_: words.append(said),
        deployment=dict,
    )
    for before in ("refuse_undoing", "begin_empty", "_sick_first"):
        monkeypatch.setattr(lifecycle_up, before, lambda *_: None)
    monkeypatch.setattr("operations.network.packet_filter.guard", lambda _: None)
    monkeypatch.setattr("operations.lifecycle.in_the_way.refuse", lambda *_: None)
    monkeypatch.setattr(unfinished, "give_own_password", lambda _: None)
    monkeypatch.setattr(lifecycle_up, "_gone", lambda *_: list(gone))
    monkeypatch.setattr(lifecycle_up, "live_status", lambda _: list(parts))
    monkeypatch.setattr(lifecycle_up, "note", lambda _: None)
    monkeypatch.setattr("operations.network.engine_rules.lost_rules_remark", lambda *_: lost_rules)
    lifecycle_up._up(cast("Workspace", workspace), cast("PulumiRun", run), interactive=True, empty=())
    (only,) = words
    return only


def test_production_is_previewed_before_anything_is_changed_and_other_environments_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "--skip-preview" in handed(monkeypatch)
    assert "--skip-preview" not in handed(monkeypatch, production=True), "what cannot be done ends half way"


def test_an_up_that_changes_nothing_says_why_a_part_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(lifecycle_up, "tell_failures", lambda *_: told.append("why"))
    row = PartStatus(part="api-1", state="running", health="healthy")
    handed(monkeypatch, parts=(row,))
    assert not told
    handed(monkeypatch, parts=(replace(row, health="unhealthy"),))
    assert told, "`Not healthy: api-1` says neither since when nor what its log says"


def test_a_firewall_that_was_emptied_is_told_before_anything_is_changed_and_beside_what_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(lifecycle_up, "tell_failures", lambda *_: said.append("why"))
    monkeypatch.setattr(origins, "note", lambda _: said.append("changed"))
    sick = PartStatus(part="api-1", state="running", health="unhealthy")
    handed(monkeypatch, parts=(sick,), lost_rules="make repair PART=network", said=said)
    repair = [index for index, line in enumerate(said) if "make repair PART=network" in line]
    assert len(repair) == 2
    assert repair[0] < said.index("changed"), "what is made anew publishes no port, and nobody knows why"
    assert repair[1] == len(said) - 1, "who reads the end of a log looks no further"


def test_up_notes_which_images_run_on_the_data_before_it_may_remove_them(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(origins, "note", lambda _: steps.append("noted"))
    monkeypatch.setattr("operations.lifecycle.up.shown_by", lambda *_, **__: steps.append("pulumi up"))
    handed(monkeypatch)
    assert steps == ["noted", "pulumi up"], "a part that is switched off leaves its data and nothing that says whose"


def test_where_something_is_gone_pulumi_asks_the_engine_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--refresh" not in handed(monkeypatch), "it takes seconds, and an ordinary `up` needs it not"
    assert "--refresh" in handed(monkeypatch, gone=("samokoder-staging-api-1",)), "by its state alone it makes nothing"


@pytest.mark.parametrize(("there", "sick"), [(["api-1"], []), (["api-1"], ["redis"]), ([], ["redis"]), ([], [])])
def test_an_up_that_fails_says_what_is_in_the_way_and_what_is_not_healthy(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, there: list[str], sick: list[str]
) -> None:
    def fails(*_: str, **__: object) -> None:
        raise PulumiFailedError("`pulumi up` failed")

    run = run_on(workspace, [])
    run.pulumi = fails
    for before in ("refuse_undoing", "begin_empty", "_sick_first"):
        monkeypatch.setattr(lifecycle_up, before, lambda *_: None)
    monkeypatch.setattr("operations.network.packet_filter.guard", lambda _: None)
    monkeypatch.setattr("operations.lifecycle.in_the_way.refuse", lambda *_: None)
    monkeypatch.setattr(lifecycle_up, "_gone", lambda *_: [])
    monkeypatch.setattr(lifecycle_up, "tell_failures", lambda *_: sick)
    monkeypatch.setattr("operations.lifecycle.in_the_way.why", lambda *_: f"docker inspect {there}" if there else "")
    monkeypatch.setattr("operations.network.engine_rules.lost_rules_remark", lambda *_: "make repair PART=network")
    with pytest.raises(PulumiFailedError) as failed:
        lifecycle_up._up(workspace, cast("PulumiRun", run), interactive=True, empty=())
    said = str(failed.value)
    assert ("docker inspect" in said) is bool(there), "`name already in use` at each `up`, and no way out"
    assert ("not healthy: redis" in said) is bool(sick)
    assert "`pulumi up` failed" in said
    assert said.endswith("make repair PART=network"), "a container that the engine cannot publish has no other reason"
    assert "redis" in stack_file.load(workspace.parts_file)["parts"], "what should be there, for who reads it later"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Staging, with an engine that nobody asks."""
    made = Workspace(home=tmp_path)
    made.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(Workspace, "client", lambda *_, **__: SimpleNamespace(close=lambda: None))
    return made


def run_on(workspace: Workspace, words: list[tuple[str, ...]]) -> Any:
    return SimpleNamespace(
        workspace=workspace,
        backend=SimpleNamespace(url="file:///state", origin="here", folder=None),
        settle=lambda _: None,
        deployment=dict,
        pulumi=lambda *said, **_: words.append(said),
    )


def test_a_restore_that_was_cut_off_while_up_waited_for_the_lock_is_seen(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def held(*_: object) -> Iterator[Workspace]:
        half = Journal(wanted=Wanted(backup="latest"), stamp="20261124T100500Z", touched=True)
        half.write(journal.journal_path(workspace))
        yield workspace

    words: list[tuple[str, ...]] = []
    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(lifecycle_up, "prepared", lambda *_, **__: SimpleNamespace(run=run_on(workspace, words)))
    monkeypatch.setattr(lifecycle_up, "_up", lambda *_, **__: pytest.fail("half a database would be started"))
    with pytest.raises(ProjectError, match="make restore"):
        lifecycle_up.bring_up(workspace, interactive=False)


def test_up_judges_the_state_again_once_it_has_the_lock(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []

    @contextlib.contextmanager
    def held(*_: object) -> Iterator[Workspace]:
        locked.append(True)
        yield workspace

    def refuse(*_: object) -> None:
        raise ProjectError("changed by another run" if locked else "too early")

    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(lifecycle_up, "prepared", lambda *_, **__: SimpleNamespace(run=run_on(workspace, [])))
    monkeypatch.setattr(lifecycle_up, "refuse_changed", refuse)
    monkeypatch.setattr(lifecycle_up, "_up", lambda *_, **__: pytest.fail("it goes by what was there before"))
    with pytest.raises(ProjectError, match="changed by another run"):
        lifecycle_up.bring_up(workspace, interactive=False)


def with_engine(workspace: Workspace, words: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give it an engine where nothing is lost and the lock is free. words: there goes what Pulumi is asked for."""

    @contextlib.contextmanager
    def held(*_: object) -> Iterator[Workspace]:
        yield workspace

    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: run_on(workspace, words))
    monkeypatch.setattr(lost_data, "lost_volumes", lambda *_: {})
    monkeypatch.setattr(lifecycle_down, "lost_volumes", lambda *_: {})
    monkeypatch.setattr(lifecycle_down, "used_by_others", lambda *_: {})


def test_down_leaves_what_is_protected_and_destroy_data_takes_the_protection_away_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[tuple[str, ...]] = []
    with_engine(workspace, words, monkeypatch)
    monkeypatch.setattr(lifecycle_down, "_data_there", lambda *_: {})
    monkeypatch.setattr(unfinished, "forget_all", lambda *_: [])
    monkeypatch.setattr("operations.engine.old_images.forget", lambda *_: None)
    lifecycle_down.take_down(workspace, interactive=True)
    (down,) = words
    assert down[0] == "destroy"
    assert "--exclude-protected" in down, "`down` would end at the first data volume"
    words.clear()
    lifecycle_down.destroy_data(workspace, interactive=True)
    assert [each[:2] for each in words] == [("state", "unprotect"), ("destroy", "--yes")]
    assert "--exclude-protected" not in words[1], "`destroy-data` would leave the data"


def test_down_gives_postgresql_its_own_password_while_it_is_there(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[tuple[str, ...]] = []
    with_engine(workspace, did, monkeypatch)
    monkeypatch.setattr(unfinished, "give_own_password", lambda _: did.append(("password",)))
    lifecycle_down.take_down(workspace, interactive=True)
    assert [each[0] for each in did] == ["password", "destroy"], "the next `up` does not let the keeper of the roles in"


def test_down_leaves_a_volume_that_a_container_of_another_state_uses(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[tuple[str, ...]] = []
    with_engine(workspace, words, monkeypatch)
    volume = {"urn": "urn:scratch", "type": pulumi_state.VOLUME, "outputs": {"name": "scratch"}}
    left = volume | {"urn": "urn:samokoder::left", "protect": True}
    own = {"urn": "urn:drill", "type": pulumi_state.CONTAINER, "id": "of this state", "inputs": {"name": "drill"}}
    run = run_on(workspace, words)
    run.deployment = lambda: {"resources": [left, volume, own]}
    monkeypatch.setattr(lifecycle_down, "_with_engine", lambda _: run)
    monkeypatch.setattr(
        lifecycle_down, "used_by_others", lambda _, names, known: dict.fromkeys(names, f"all but {', '.join(known)}")
    )
    lifecycle_down.take_down(workspace, interactive=True)
    assert words.pop(0) == ("state", "unprotect", "urn:samokoder::left", "--yes"), (
        "what is free again would stay for ever"
    )
    assert words[0] == ("state", "protect", "urn:scratch", "--yes"), "the engine refuses to remove it: `down` fails"
    assert words[1][0] == "destroy"


def row(part: str, health: str, state: str = "running") -> PartStatus:
    return PartStatus(part=part, state=state, health=health)


def settled(
    monkeypatch: pytest.MonkeyPatch, *answers: list[PartStatus], turn: float = 1.0
) -> tuple[list[PartStatus], list[str]]:
    """Wait with a clock that goes on by `turn` seconds at a time; the last answer stays. With what was said."""
    now, asked, said = [0.0], list(answers), list[str]()
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: now.__setitem__(0, now[0] + turn))
    monkeypatch.setattr(healthy, "time", clock)
    reporter = Reporter(Console(file=io.StringIO()))
    monkeypatch.setattr(reporter, "say", said.append)
    rows = healthy.settled(
        lambda: asked.pop(0) if len(asked) > 1 else asked[0], lambda: environment_of("staging", {}), reporter
    )
    assert len(asked) == 1, "all was asked that there is to see"
    return rows, said


def test_what_is_still_starting_after_a_power_cut_is_waited_for_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    well = [row("postgres", "healthy"), row("api-1", "healthy"), row("worker", "healthy")]
    starting = [row("postgres", "healthy"), row("api-1", "starting"), row("worker", "", "restarting")]
    rows, said = settled(monkeypatch, *[starting] * 50, well)
    assert rows == well, "they were healthy ten seconds after `up` had called them ill"
    assert any("still starting" in line for line in said), "a minute of silence looks like a hang"
    assert settled(monkeypatch, well) == (well, []), "and nothing is said where nothing is starting"


def test_what_its_own_checks_call_ill_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ill = [row("api-1", "unhealthy"), row("redis", "", "exited"), row("grafana", "", "not available")]
    assert settled(monkeypatch, ill)[0] == ill
    ends = [row("api-1", "starting")], [row("api-1", "unhealthy")]
    assert settled(monkeypatch, *ends)[0] == ends[1]


def test_what_starts_for_ever_ends_with_the_time_that_up_gives_a_new_part(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = [row("api-1", "starting", "restarting")]
    for turn in (1.0, 1000.0):
        assert settled(monkeypatch, loops, turn=turn)[0] == loops, "a crash loop must not hold `up` for ever"
    stranger = [row("left-over", "starting")]
    assert settled(monkeypatch, stranger)[0] == stranger, "what is not declared has no time of its own"


@pytest.mark.parametrize("words", [("up", "--yes"), ("update",), ("--non-interactive", "up"), ("watch",)])
@pytest.mark.parametrize("refuses", ["prepare", "refuse_undoing", "begin_empty"])
def test_an_update_that_a_person_types_to_pulumi_is_refused_where_up_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], refuses: str
) -> None:
    given: list[tuple[str, ...]] = []

    def refuse(*_: object) -> None:
        raise ProjectError("images of another origin, lost data or a lost rotation")

    monkeypatch.setattr(Workspace, "open", lambda _: run_on(workspace, given))
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    monkeypatch.setattr("operations.cli.asking.where_state", lambda _: None)
    monkeypatch.setattr(lock, "held", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(lifecycle_up, "prepare", lambda _: run_on(workspace, given))
    for name in ("refuse_undoing", "begin_empty"):
        monkeypatch.setattr(lifecycle_up, name, lambda *_: None)
    monkeypatch.setattr(lifecycle_up, refuses, refuse)
    done = CliRunner().invoke(command.app, ["pulumi", "--", *words])
    assert "another origin" in str(done.exception)
    assert not given, "a second clone would put the registry's Redis under what was built here"


def test_a_destroy_that_a_person_types_to_pulumi_notes_which_images_ran_on_the_data(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str, ...]] = []
    run = run_on(workspace, given)

    def pulumi(*said: str, **_: object) -> SimpleNamespace:
        given.append(said)
        return SimpleNamespace(returncode=0)

    run.pulumi = pulumi
    monkeypatch.setattr(Workspace, "open", lambda _: run)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: workspace)
    monkeypatch.setattr("operations.cli.asking.where_state", lambda _: None)
    monkeypatch.setattr(lock, "held", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(origins, "note", lambda _: given.append(("noted",)))
    assert CliRunner().invoke(command.app, ["pulumi", "--", "destroy", "--yes"]).exit_code == 0
    assert given == [("noted",), ("destroy", "--yes")]
