"""The pages that a person opens first: what `up`, `open` and `tunnel` say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from socket import create_server
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from operations import __main__ as command
from operations.cli import environment as environment_commands
from operations.cli import pages
from operations.engine import reach
from operations.engine.part_status import PartStatus, expected_parts
from operations.errors import ProjectError
from operations.workspace import known
from tests.recording import case_environment

GRAFANA = "http://127.0.0.1:3000"
PARTS = {
    "prometheus": "http://127.0.0.1:9090",
    "ingress": "http://127.0.0.1:8000",
    "postgres": "",
    "alertmanager": "http://127.0.0.1:9093",
    "grafana": GRAFANA,
    "cadvisor": "http://127.0.0.1:8080",
}


def test_the_pages_are_those_that_a_person_opens_and_the_overview_comes_first() -> None:
    found = [(page.part, page.address) for page in pages.pages(PARTS)]
    assert found == [
        ("grafana", GRAFANA),
        ("ingress", "http://127.0.0.1:8000"),
        ("prometheus", "http://127.0.0.1:9090/alerts"),
        ("alertmanager", "http://127.0.0.1:9093"),
    ], "whether it is well, then the thing itself, then what wakes people"


def test_where_grafana_cannot_be_had_no_page_is_named_that_answers_404() -> None:
    without = PARTS | {"grafana": ""}
    assert [page.part for page in pages.pages(without)] == ["ingress", "alertmanager"], "Prometheus may have none there"
    assert "alerts, silences  http://127.0.0.1:9093" in pages.list_of_pages("staging", without)


@pytest.mark.parametrize("case", ["staging", "prod"])
def test_every_page_is_of_a_part_that_is_published(case: str) -> None:
    addresses = expected_parts(case_environment(case))
    found = pages.pages(addresses)
    assert [page.part for page in found] == ["grafana", "ingress", "prometheus", "alertmanager", "logs"]
    assert all(page.address.startswith(addresses[page.part]) for page in found)


def test_what_is_told_names_the_command_for_the_password() -> None:
    said = pages.list_of_pages("prod", PARTS)
    assert "make password NAME=grafana-admin ENV=prod" in said, "whoever opens the page is asked for it"
    assert said.index(GRAFANA) < said.index(":8000") < said.index(":9090") < said.index(":9093")
    assert pages.list_of_pages("prod", {"postgres": ""}) == "", "a heading over nothing"


def test_up_ends_with_the_pages_and_with_the_error_where_a_part_is_ill(
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace: Any = SimpleNamespace(
        settings=lambda: SimpleNamespace(settings=SimpleNamespace(docker_host="unix:///x")), typed=lambda words: words
    )
    well = [PartStatus(part=part, state="running", health="healthy", url=url) for part, url in PARTS.items()]
    upped: Any = SimpleNamespace(parts=well, secrets=["grafana-admin"])
    environment_commands.show_upped("staging", workspace, upped)
    last = capsys.readouterr().out.strip().splitlines()[-5:]
    assert last[0] == "Open first:"
    assert last[-1].endswith(":9093"), last

    upped.parts = [PartStatus(part="api-1", state="running", health="unhealthy"), *well]
    with pytest.raises(ProjectError, match="Not healthy: api-1"):
        environment_commands.show_upped("staging", workspace, upped)
    assert "Open first" not in capsys.readouterr().out, "the error is what a person has to read"


@contextmanager
def opening(
    monkeypatch: pytest.MonkeyPatch, rows: Mapping[str, str], docker_host: str = "unix:///x", url: str = GRAFANA
) -> Iterator[list[list[str]]]:
    """Let `open` find these parts in these states, and no browser but a list of what it would open."""
    there: Any = SimpleNamespace(
        parts=PARTS | {"grafana": url},
        unavailable=[],
        docker_host=docker_host,
        workspace=SimpleNamespace(typed=lambda words: f"make {words}"),
    )
    opened: list[list[str]] = []
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: None)
    monkeypatch.setattr(known, "of", lambda _: there)
    states = [PartStatus(part=part, state="running", health=health) for part, health in rows.items()]
    monkeypatch.setattr(known, "status", lambda _: states)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("subprocess.Popen", lambda words, **_: opened.append(words))
    yield opened


def test_open_prints_the_start_page_and_opens_it_only_with_a_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    with create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with opening(monkeypatch, {"grafana": "healthy"}, url=url) as opened:
            result = CliRunner().invoke(command.app, ["open"])
            assert (result.exit_code, result.output.strip()) == (0, url)
            assert not opened, "a server has no desktop"
            monkeypatch.setenv("DISPLAY", ":0")
            assert CliRunner().invoke(command.app, ["open"]).exit_code == 0
            assert opened == [["/usr/bin/xdg-open", url]]


def test_open_says_how_the_page_of_another_host_is_reached_and_opens_nothing_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(reach, "listens", lambda *_: True)
    with opening(monkeypatch, {"grafana": "healthy"}, "ssh://you@host") as opened:
        result = CliRunner().invoke(command.app, ["open"])
    assert GRAFANA in result.output
    assert "make tunnel" in result.output, "the address is none of this machine's"
    assert not opened, "another environment of this machine may listen there"


def test_open_fails_where_the_start_page_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with opening(monkeypatch, {"grafana": "unhealthy"}) as opened:
        result = CliRunner().invoke(command.app, ["open"])
    assert isinstance(result.exception, ProjectError)
    assert "grafana does not run well" in str(result.exception)
    assert not opened, "a page that does not answer"


def test_a_tunnel_says_the_same_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with opening(monkeypatch, {}, "ssh://you@host"):
        monkeypatch.setattr(known, "addresses", lambda _: [url for url in PARTS.values() if url])
        ran: list[list[str]] = []

        def run(words: list[str], **_: object) -> SimpleNamespace:
            ran.append(words)
            return SimpleNamespace(returncode=0)

        monkeypatch.setattr("subprocess.run", run)
        monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: None)
        result = CliRunner().invoke(command.app, ["tunnel"])
    assert result.exit_code == 0, result.output
    assert pages.list_of_pages("staging", PARTS) in result.output, "one list, wherever a person stands"
    assert any("127.0.0.1:3000:127.0.0.1:3000" in word for word in ran[0])
