"""docs/json.md has the keys that the commands print with --json, no more and no fewer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.audit import gate
from operations.audit.drift import detect
from operations.audit.drift.difference import Difference
from operations.audit.rules import Broken
from operations.checks import report
from operations.checks.doctor import doctor
from operations.checks.smoke import smoke
from operations.data import backups
from operations.engine.part_status import PartStatus
from operations.lifecycle import preview

NOW = datetime(2026, 11, 29, tzinfo=UTC)
REPORT = report.Report(
    title="t",
    about={"environment": "staging"},
    findings=[report.Finding(check="c", verdict=report.Verdict.PASSED, why="w", seconds=1)],
)
BROKEN = Broken(part="p", rule="5.1", what="w", says="s")
PREVIEW = {
    "steps": [
        {"op": "same", "urn": "urn:pulumi:staging::samokoder::docker:index/network:Network::network-app"},
        {
            "op": "update",
            "urn": "urn:pulumi:staging::samokoder::samokoder:app:Api$docker:index/container:Container::api-1",
            "detailedDiff": {"image": {"kind": "update"}},
            "newState": {"inputs": {"envs": ["PASSWORD=secret"]}},
        },
    ],
    "diagnostics": [
        {"severity": "warning", "message": "w"},
        {"severity": "error", "message": "<{%reset%}>it cannot be<{%reset%}>\n"},
    ],
}
BACKUP = backups.ListedBackup(
    id="b", kind="base", finished=NOW, bytes=1, status="good", since=NOW, until=None, without=((NOW, NOW),)
)
FOUND: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "backups": (backups, "backups", lambda _: ([BACKUP], ["a-volume"])),
    "smoke": (smoke, "smoke", lambda *_, **__: REPORT),
    "doctor": (doctor, "doctor", lambda *_, **__: REPORT),
    "drift": (detect, "find_drift", lambda _: [Difference(name="n", field="f", declared="d", found="x", repair="r")]),
    "hardening": (gate, "gate", lambda _: gate.GateResult(parts=1, findings=[BROKEN], listed=[BROKEN])),
    "preview": (preview, "planned_changes", lambda _: preview.form("staging", PREVIEW, ok=True)),
}


def keys(value: Any, before: str = "") -> Iterator[str]:
    """Every key down to the last, as the page writes it: `parts[].part`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys(inner, f"{before}.{key}" if before else key)
    elif isinstance(value, list):
        assert value, f"{before}: of an empty list nothing is seen"
        for inner in value:
            yield from keys(inner, f"{before}[]")
    else:
        yield before


def documented(name: str, page: str) -> set[str]:
    section = page.partition(f"## samokoder {name}\n")[2].partition("\n## ")[0]
    if name == "doctor":
        assert "same keys as of `samokoder smoke`" in section
        return documented("smoke", page)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {key.removesuffix("?") for row in rows for key in re.findall(r"`([^`]+)`", row)}


@pytest.fixture
def page(pytestconfig: pytest.Config) -> str:
    return (pytestconfig.rootpath / "docs/json.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FOUND)
def test_a_command_prints_the_keys_that_its_page_names_and_nothing_beside_them(
    name: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, function, answer = FOUND[name]
    monkeypatch.setattr(module, function, answer)
    printed = CliRunner().invoke(command.app, [name, "--json"]).stdout
    assert set(keys(json.loads(printed))) == documented(name, page), "a program of the team reads what the page says"


def test_the_status_of_a_part_has_the_keys_that_the_page_names(page: str) -> None:
    row = PartStatus(part="api-1", state="running", uptime_seconds=1)
    assert set(keys({"environment": "staging", "parts": [row.as_json()]})) == documented("status", page)


def test_a_preview_tells_what_changes_and_no_value_of_it() -> None:
    form = preview.form("staging", PREVIEW, ok=False)
    assert form["changes"] == [
        {"name": "api-1", "type": "docker:index/container:Container", "change": "update", "fields": ["image"]}
    ], "what stays as it is is no change"
    assert form["counts"] == {"create": 0, "update": 1, "replace": 0, "delete": 0}
    assert form["errors"] == ["it cannot be"]
    assert "secret" not in json.dumps(form), "a value may be one"
    assert not form["ok"]
