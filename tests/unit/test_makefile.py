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


TYPED = {
    "PART": "logs",
    "NAME": "password",
    "SECRET": "rotate",
    "OUT": "render",
    "TAIL": "logs",
    "SINCE": "logs",
    "GREP": "logs",
    "SEARCH": "logs",
    "IMAGE": "check-image",
    "KIND": "backup",
    "PROJECT": "import-compose",
    "API": "deploy",
    "WORKER": "deploy",
    "FRONTEND": "deploy",
    "TO": "restore",
    "BACKUP": "restore",
    "FROM": "restore",
    "EMPTY": "up",
    "STATE": "move-state",
}
"""Variable -> a target that hands on what is typed for it."""
YES = {"FOLLOW": ("logs", "--follow"), "MONITORING": ("psql", "--monitoring"), "WRITE": ("psql", "--write")}
"""Variable -> a target, and the option that it has for 1."""
OF_THE_SHELL = {"ENV", "SQL", "HOME", "XDG_CACHE_HOME", "SAMOKODER_CACHE", "LC_ALL"}
OF_MAKE = {"MAKECMDGOALS", "MAKEFILE_LIST", "MAKEFLAGS"}


def variables() -> set[str]:
    """Every variable that the Makefile reads."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"(?<!\$)\$\((?:if |strip |or |and )*\$?\(?([A-Z_]+)\b", text)) | set(
        re.findall(r"\$\(([A-Z_]+)\)", text)
    )


@pytest.mark.parametrize("target", TARGETS)
def test_other_variables_of_the_shell_are_not_taken_for_what_was_typed(target: str) -> None:
    found = variables() - OF_THE_SHELL - OF_MAKE
    assert found >= {*TYPED, *YES, "ARGS", "SHORT"}, "this test has to see them"
    done = make(target, **dict.fromkeys(found, "probe"))
    assert "probe" not in done.stdout, "`SECRET=… make rotate` would rotate what nobody has named"
    on = make(target, **dict.fromkeys(found, "1"))
    assert not {option for _, option in YES.values() if option in on.stdout}


@pytest.mark.parametrize(("name", "target"), TYPED.items())
def test_what_is_typed_for_a_variable_wins_over_the_shell(name: str, target: str) -> None:
    done = make(target, *NEEDED, f"{name}=probe", **{name: "other"})
    assert "probe" in done.stdout
    assert "other" not in done.stdout


@pytest.mark.parametrize(("name", "target", "option"), [(name, *where) for name, where in YES.items()])
def test_only_1_means_yes(name: str, target: str, option: str) -> None:
    assert option in make(target, f"{name}=1").stdout
    for no in ("0", "", "no"):
        assert option not in make(target, f"{name}={no}").stdout, f"{name}={no} is no yes"


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
