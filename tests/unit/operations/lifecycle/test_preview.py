"""What a preview has Pulumi say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.errors import ProjectError
from operations.lifecycle import preview


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What Pulumi is given."""
    given: list[tuple[str, ...]] = []
    run = SimpleNamespace(pulumi=lambda *said, **_: given.append(said))
    monkeypatch.setattr(preview, "prepare", lambda *_, **__: run)
    monkeypatch.setattr(preview, "refuse_undoing", lambda *_: None)
    monkeypatch.setattr("operations.lifecycle.in_the_way.refuse_missing_networks", lambda _: None)
    monkeypatch.setattr("operations.cli.asking.where_state", lambda *_, **__: None)
    return given


@pytest.mark.parametrize(("option", "given"), [([], ("preview",)), (["--diff"], ("preview", "--diff"))])
def test_each_field_is_shown_where_it_is_asked_for(
    words: list[tuple[str, ...]], option: list[str], given: tuple[str, ...]
) -> None:
    answer = CliRunner().invoke(command.app, ["preview", *option])
    assert answer.exit_code == 0, answer.exception
    assert words == [given]


def test_fields_as_json_are_no_form_that_there_is(words: list[tuple[str, ...]]) -> None:
    assert CliRunner().invoke(command.app, ["preview", "--diff", "--json"]).exit_code == 2, "wrong usage"
    assert not words


@pytest.mark.parametrize("option", [[], ["--json"], ["--diff"]])
def test_what_up_refuses_is_refused_in_each_form(
    words: list[tuple[str, ...]], option: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise ProjectError("the engine has no such network")

    monkeypatch.setattr("operations.lifecycle.in_the_way.refuse_missing_networks", refuse)
    answer = CliRunner().invoke(command.app, ["preview", *option])
    assert isinstance(answer.exception, ProjectError), "CI would merge what cannot be brought up"
    assert not words
