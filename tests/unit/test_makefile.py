"""What is typed behind a target of `make` reaches the command, or is refused: nothing is dropped without a word."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from operations import __main__ as command
from tests.recording import ROOT

TARGETS = sorted(
    set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
)
NEEDED = ("PART=api", "IMAGE=i", "KIND=api", "PROJECT=p", "STATE=s")
RUNS = re.compile(r"\.venv/bin/(samokoder|pytest|python -m (?!offline))|-\d[\d.]*/bin/pytest")


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run."""
    kept = {key: value for key, value in os.environ.items() if key not in {"ENV", "ARGS", "MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_hands_ARGS_on_or_refuses_it(target: str) -> None:  # noqa: N802 - the variable's name
    done = make(target, *NEEDED, "ARGS=--probe")
    if done.returncode:
        assert f"make {target} takes no ARGS" in done.stderr, "`make drift ARGS=--bogus` must not end as a success"
        return
    lines = done.stdout.replace("\\\n", " ").splitlines()
    runs = [line for line in lines if RUNS.search(line)]
    assert runs, f"`make {target}` runs nothing that could take it: it belongs into NO_ARGS\n{done.stdout}"
    for line in runs:
        assert "--probe" in line, f"`make {target} ARGS=…` would drop what was typed: {line}"


@pytest.mark.parametrize("target", ["repair", "lint"])
def test_ARGS_of_the_shell_are_nobodys_words(target: str) -> None:  # noqa: N802 - the variable's name
    done = make(target, *NEEDED, ARGS="--yes")
    assert done.returncode == 0
    assert "--yes" not in done.stdout, "nobody would be asked, and nobody has typed that"


def test_ENV_of_a_shell_is_a_file_and_no_environment() -> None:  # noqa: N802 - the variable's name
    done = make("status", ENV="/root/.shrc")
    assert done.returncode == 0
    assert "/root/.shrc, a file of your shell and no environment" in done.stderr, "who is asked for which has to know"
    shown = subprocess.run(
        ["make", "--no-print-directory", "-f", "Makefile", "--eval=show:; @echo $$ENV", "show"],
        cwd=ROOT,
        env={**os.environ, "ENV": "/root/.shrc"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "staging\n", "the command must not look for Pulumi./root/.shrc.yaml"


@pytest.mark.parametrize("typed", [{"ENV": "prod"}, {}])
def test_ENV_that_names_an_environment_is_meant(typed: dict[str, str]) -> None:  # noqa: N802 - the variable's name
    words = () if typed else ("ENV=prod",)
    done = make("render", *words, **typed)
    assert ".samokoder/render/prod" in done.stdout
    assert not done.stderr


def test_the_command_itself_takes_no_file_for_an_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENV", "/root/.shrc")
    with pytest.raises(SystemExit):
        command.main(["status", "--env", "nowhere"])
    said = capsys.readouterr().err
    assert "ENV is /root/.shrc, a file of your shell" in said
    assert "Pulumi.nowhere.yaml" in said, "what was typed is what is meant"
    assert "ENV" not in os.environ


@pytest.mark.parametrize(
    ("locale", "reaches"), [("C", "C.UTF-8"), ("POSIX", "C.UTF-8"), ("ru_RU.UTF-8", "ru_RU.UTF-8")]
)
def test_a_clone_in_a_folder_with_other_letters_works_in_the_plain_locale(locale: str, reaches: str) -> None:
    shown = make("--eval=shown: ; $(info $(LC_ALL))", "shown", LC_ALL=locale)
    assert shown.stdout.splitlines()[0] == reaches, "Python would read where the program lies as ASCII, and end there"
