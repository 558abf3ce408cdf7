"""What an error tells to type can be pasted as it stands, and is for the environment that was asked for."""

from __future__ import annotations

import io
import json
import re
import shlex

import pytest
from rich.console import Console

from operations import __main__ as command
from operations.checks import report_table
from operations.checks.report import Finding, Report, Verdict
from operations.clone import ROOT
from operations.workspace import pasted
from stack.common.mistakes import InvalidSettingsError, Mistake


@pytest.mark.parametrize(
    ("example", "typed"),
    [
        (
            "pulumi config set --path 'samokoder:alertmanager.telegram.chatId' -- -1001234567890",
            "make pulumi ENV=prod ARGS='config set --path samokoder:alertmanager.telegram.chatId -- -1001234567890'",
        ),
        (
            "pulumi config set --secret samokoder:smtpPassword",
            "make pulumi ENV=prod ARGS='config set --secret samokoder:smtpPassword'",
        ),
        ("samokoder:api.replicas: 2", "make pulumi ENV=prod ARGS='config set --path samokoder:api.replicas 2'"),
        (
            "samokoder:worker.cpus: 0.5",
            "make pulumi ENV=prod ARGS='config set --path --type float samokoder:worker.cpus 0.5'",
        ),
        ("samokoder:offset.hours: -3", "make pulumi ENV=prod ARGS='config set --path samokoder:offset.hours -- -3'"),
        ("samokoder:basicAuth: always", "make pulumi ENV=prod ARGS='config set samokoder:basicAuth always'"),
        (
            "samokoder:api.image: registry.example.org/api:1.4.2@sha256:…",
            "make pulumi ENV=prod ARGS='config set --path samokoder:api.image registry.example.org/api:1.4.2@sha256:…'",
        ),
    ],
)
def test_an_example_is_a_whole_line_for_that_environment(example: str, typed: str) -> None:
    assert pasted.command("prod", example) == typed
    assert len(shlex.split(typed)) == 4, "one word behind ARGS="


@pytest.mark.parametrize(
    "example",
    [
        "samokoder:offsite: {endpoint: https://s3.example.org, bucket: backups}",
        "samokoder:x: a b",
        "samokoder:x: $(reboot)",
        "samokoder:x: <64 digits>",
        "pulumi stack init staging",
        "",
    ],
)
def test_what_is_no_single_value_stays_as_it_is(example: str) -> None:
    assert pasted.command("prod", example) == example


def test_the_mistakes_of_production_come_with_lines_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["preview", "--env", "prod"])
    said = capsys.readouterr().err
    lines = re.findall(r"^  (?:write:|      ) (.*)$", said, re.MULTILINE)
    readme = re.findall(r"^make pulumi ENV=prod .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(lines) == sorted(readme), "what is missing can be copied line by line, and the page says the same"
    assert "`pulumi …`" not in said, "nobody has to put a command together from two lines"
    assert "standard input" in said, "a script and a password manager give a secret too"


def test_a_mistake_says_what_is_and_what_it_needs_and_no_line_where_there_is_none() -> None:
    error = InvalidSettingsError("prod", [Mistake("samokoder:x", "nothing", "something")])
    assert pasted.mistakes_to_fix(error).endswith("samokoder:x\n  is:    nothing\n  needs: something")


def test_doctor_has_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["doctor", "--env", "prod", "--json"])
    (settings, _) = json.loads(capsys.readouterr().out)["checks"]
    assert "make pulumi ENV=prod ARGS='config set --secret samokoder:telegramBotToken'" in settings["why"]


@pytest.mark.parametrize("width", [80, 140])
def test_doctor_breaks_none_of_them_on_a_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.cli.common._WIDTH_IN_A_LOG", width)
    with pytest.raises(SystemExit):
        command.main(["doctor", "--env", "prod"])
    table, _, below = capsys.readouterr().out.partition("2 checks,")
    lines = re.findall(r"^  (?:write:|      ) (.*)$", below, re.MULTILINE)
    readme = re.findall(r"^make pulumi ENV=prod .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(lines) == sorted(readme), "a line that a table has broken is pasted as two"
    assert re.search(r"\d mistakes in the configuration of 'prod',\s+below", table), "and the table says where"
    assert "config set" not in table, "once is enough"


@pytest.mark.parametrize("width", [80, 140])
def test_a_command_that_a_table_of_checks_has_broken_stands_below_it_whole(width: int) -> None:
    typed = pasted.command("prod", "samokoder:network.mtu: 1400")
    as_root = "printf '%s\\n' net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1 > /etc/sysctl.d/samokoder.conf"
    whys = {
        "mtu": f"a large packet is lost: {typed}, then make up ENV=prod, which makes the networks anew, all of them",
        "boot": f"the addresses may come later: as root on the engine's host: `{as_root} && sysctl -p`, or restart it",
        "short": "not as declared: `make up`",
    }
    findings = [Finding(check=name, verdict=Verdict.FAILED, why=why) for name, why in whys.items()]
    said = io.StringIO()
    report_table.show(
        Console(file=said, width=width, highlight=False), Report(title="Doctor", about={}, findings=findings)
    )
    table, _, below = said.getvalue().partition("3 checks,")
    assert typed in table or f"\n  {typed}\n" in below
    assert f"\n  {as_root} && sysctl -p\n" in below
    assert "\n  make up\n" not in below, "that one can be copied from the table"


def test_what_stands_between_two_commands_is_no_command() -> None:
    first, second = (f"make {name} ARGS='{'x' * 90}'" for name in ("restore", "rotate"))
    why = f"the copy is old: `{first}`, and once that has come to its end without a word of a mistake `{second}`"
    said = io.StringIO()
    report_table.show(
        Console(file=said, width=80, highlight=False),
        Report(title="Doctor", about={}, findings=[Finding(check="copy", verdict=Verdict.FAILED, why=why)]),
    )
    assert said.getvalue().partition("To paste")[2].splitlines()[1:] == [f"  {first}", f"  {second}"]
