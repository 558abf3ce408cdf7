"""What a preview has Pulumi say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.errors import ProjectError
from operations.lifecycle import preview


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What Pulumi is given."""
    given: list[tuple[str, ...]] = []
    run = SimpleNamespace(
        pulumi=lambda *said, **_: given.append(said), secrets=lambda **_: {}, configuration=dict, variables={}
    )
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


LEAK = "invalid reference mail-pass-word"
DIAGNOSTIC = json.dumps({"steps": [], "diagnostics": [{"severity": "error", "message": LEAK}]})


@pytest.mark.parametrize("printed", [DIAGNOSTIC, LEAK])
@pytest.mark.parametrize("option", ["--json", "--diff"])
def test_no_form_of_a_preview_shows_a_configured_secret(
    words: list[tuple[str, ...]], option: str, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pulumi(*said: str, show: Any = None, **_: object) -> SimpleNamespace:
        words.append(said)
        if show:
            show(printed)
        return SimpleNamespace(stdout=printed, stderr="", returncode=1)

    config = {"samokoder:SMTP_PASSWORD": {"value": "mail-pass-word", "secret": True}}
    run = SimpleNamespace(pulumi=pulumi, secrets=lambda **_: {}, configuration=lambda: config, variables={})
    monkeypatch.setattr(preview, "prepare", lambda *_, **__: run)
    answer = CliRunner().invoke(command.app, ["preview", option])
    said = answer.output + str(answer.exception)
    assert words, "Pulumi is asked"
    assert "mail-pass-word" not in said, "a log of CI is read by many"
    assert "<samokoder:SMTP_PASSWORD>" in said
