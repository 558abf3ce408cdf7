"""What is typed behind a target of `make` reaches the command, or is refused: nothing is dropped without a word."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from operations import __main__ as command
from tests.recording import ROOT

TARGETS = sorted(
    set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
)
NEEDED = {
    "restart": ("PART=api",),
    "repair": ("PART=redis",),
    "check-image": ("IMAGE=i", "KIND=api"),
    "import-compose": ("PROJECT=p",),
    "move-state": ("STATE=s",),
}
"""Target -> what it does nothing without."""
RUNS = re.compile(r"\.venv/bin/(samokoder|pytest|python -m (?!offline))|-\d[\d.]*/bin/pytest")


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `make` would run."""
    kept = {key: value for key, value in os.environ.items() if key not in {"ENV", "ARGS", "MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", "-n", *words], cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The Makefile, with programs that print the words that they get."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("bootstrap", ".venv/bin/samokoder"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        said = "" if name == "bootstrap" else "printf '%s\\0' \"$@\"; printf 'SQL=%s' \"$SQL\""
        file.write_text(f"#!/bin/sh\n{said}\n")
        file.chmod(0o755)
    return tmp_path


def words_of(clone: Path, *typed: str, **environment: str) -> list[str]:
    """The words that the command gets for what is typed behind `make`; the last one is SQL."""
    kept = {key: value for key, value in os.environ.items() if key not in {"ENV", "ARGS", "MAKEFLAGS", "MAKELEVEL"}}
    done = subprocess.run(
        ["make", *typed], cwd=clone, env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.split("\0")


EACH = "a $1 $(HOME) ${HOME} `id` \"b c\" 'd' \\ # $$"
"""What a shell or `make` would take apart."""


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("GREP", "logs"),
        ("SEARCH", "logs"),
        ("TO", "restore"),
        ("SECRET", "rotate"),
        ("STATE", "move-state"),
        ("OUT", "render"),
    ],
)
def test_what_is_typed_reaches_the_command_as_it_was_typed(clone: Path, name: str, target: str) -> None:
    assert EACH in words_of(clone, target, f"{name}={EACH}"), "another text would be looked for, or a command would run"


def test_a_statement_is_asked_as_it_was_typed(clone: Path) -> None:
    statement = "UPDATE users SET hash = '$2b$12$abc' WHERE id = $1"
    assert words_of(clone, "psql", "WRITE=1", f"SQL={statement}")[-1] == f"SQL={statement}", (
        "another hash would be written, and nobody could log in"
    )
    assert words_of(clone, "psql", SQL=statement)[-1] == f"SQL={statement}", "as the environment has it too"


def test_the_words_of_ARGS_have_their_own_quotes(clone: Path) -> None:  # noqa: N802 - the variable's name
    words = words_of(clone, "pulumi", "ARGS=config set a '$2b$12$x y' \"b c\"")
    assert words[:-1] == ["pulumi", "--", "config", "set", "a", "$2b$12$x y", "b c"]


@pytest.mark.parametrize(
    ("typed", "refused"),
    [
        ("rotate NAME=postgres-app", "make rotate takes no NAME. It takes: ARGS ENV SECRET."),
        ("backup PART=dump", "make backup takes no PART. It takes: ARGS ENV KIND."),
        ("smoke WAIT=120", "make smoke takes no WAIT. It takes: ARGS ENV."),
        ("deploy API=a MIGRATIONS=m", "make deploy takes no MIGRATIONS. It takes: API ARGS ENV FRONTEND WORKER."),
        ("status backups TO=x", "make status backups takes no TO. It takes: ARGS ENV."),
        ("psql WRITE=yes", "WRITE is 1 or 0."),
    ],
)
def test_what_a_target_does_not_take_is_refused_by_its_name(typed: str, refused: str) -> None:
    done = make(*typed.split())
    assert done.returncode == 2
    assert refused in done.stderr, "dropped without a word, it does something else than was typed"
    assert not done.stdout


OUTER = "all:\n\t@$(MAKE) --no-print-directory -C '{clone}' {typed}\n"


def by_an_outer_make(clone: Path, typed: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a team's own Makefile, which calls this one."""
    file = clone / "outer.mk"
    file.write_text(OUTER.format(clone=clone, typed=typed))
    kept = {key: value for key, value in os.environ.items() if key not in {"ENV", "ARGS", "MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", "-f", str(file), *words], cwd=clone, env=kept, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["RELEASE", "PYTHON", "DATA", "SAMOKODER", "GOALS", "WRONG", "TYPED", "SHORT"])
def test_what_is_typed_to_an_outer_make_hurts_nobody_here(clone: Path, name: str) -> None:
    done = by_an_outer_make(clone, "logs PART=api", f"{name}=/of/theirs", "ENV=prod")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\0")[:-1] == ["logs", "api"], "a team's own Makefile could not call this one"
    for target in ("test-python", "test-unit"):
        assert "/of/theirs" not in by_an_outer_make(clone, f"-n {target}", f"{name}=/of/theirs").stdout


def test_what_an_outer_make_hands_on_and_another_target_takes_is_refused_with_the_way(clone: Path) -> None:
    done = by_an_outer_make(clone, "rotate SECRET=secret-key", "NAME=v1")
    assert done.returncode == 2
    assert "make rotate takes no NAME. It takes: ARGS ENV SECRET." in done.stderr
    assert "to leave it out there: $(MAKE) rotate NAME=" in done.stderr
    assert not by_an_outer_make(clone, "rotate SECRET=secret-key NAME=", "NAME=v1").returncode, "it says what works"


def test_a_typing_error_is_told_to_who_types(clone: Path) -> None:
    done = make("logs", "GERP=x")
    assert done.returncode == 2
    assert "make logs takes no GERP." in done.stderr, "all lines would be shown, as if they had it"
    assert "outer make" not in done.stderr
    assert make("status", "DATA=x").returncode == 2, "a name that this file has for itself is no other"


@pytest.mark.parametrize("typed", ["logs GERP=x", "logs GERP:=x", "logs PART=api GERP='a b'", "status DATA=x"])
def test_a_typing_error_in_the_recipe_of_an_outer_make_is_told_too(clone: Path, typed: str) -> None:
    done = by_an_outer_make(clone, typed, "RELEASE=2")
    assert done.returncode == 2, "`restore BACKUP=latest ARG=--dry-run` would restore"
    name = "DATA" if "DATA" in typed else "GERP"
    assert f"takes no {name}. It takes: " in done.stderr
    assert "outer make" not in done.stderr, "it was typed on this line"


def test_a_line_of_a_text_is_no_variable_that_was_typed(clone: Path) -> None:
    flags = {"MAKELEVEL": "1", "MAKEFLAGS": "w -- RELEASE=2"}
    words = words_of(clone, "--no-print-directory", "psql", "SQL=select 1\nRELEASE=2", **flags)
    assert words[0] == "psql", "what an outer make has for itself would be refused"


@pytest.mark.parametrize(
    ("typed", "outer"),
    [("up", "ARGS=--yes"), ("restore", "BACKUP=x"), ("logs", "PART=api"), ("password NAME=a", "ARGS=--yes")],
)
def test_what_was_typed_to_an_outer_make_is_not_taken_for_an_order_to_this_one(
    clone: Path, typed: str, outer: str
) -> None:
    name = outer.partition("=")[0]
    done = by_an_outer_make(clone, typed, outer)
    assert done.returncode == 2, "production would not be asked, or a dry run would be none"
    assert f"takes {name} from its own line alone." in done.stderr
    assert f"; to hand it on: {name}='$({name})'" in done.stderr
    assert not by_an_outer_make(clone, f"{typed} {name}=", outer).returncode, "it says what works"
    handed = by_an_outer_make(clone, f"{typed} {name}='$({name})'", outer)
    assert outer.partition("=")[2] in handed.stdout, "and this too"


def test_a_rollback_goes_to_the_commit_that_was_typed(clone: Path) -> None:
    assert words_of(clone, "rollback", "TO=abc1234")[:-1] == ["rollback", "--to", "abc1234"]


def test_variables_of_the_programs_may_stand_behind_make(clone: Path) -> None:
    assert words_of(clone, "up", "OFFLINE=1", "DOCKER_HOST=ssh://x", "ENV=prod", "PULUMI_BACKEND_URL=s3://b")[0] == "up"


def test_every_variable_is_taken_by_each_target_that_reads_it() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^TAKES\.([a-z-]+) := (.*)$", text, re.MULTILINE)
    taken = {target: set(names.split()) for target, names in found}
    read = {
        target: set(re.findall(r"\$\$?\(?(?:if |filter 1,|and )*\$?\(?([A-Z]+)\b", recipe)) - {"SAMOKODER"}
        for target, recipe in re.findall(r"^([a-z][a-z-]*):[^\n]*\n((?:\t[^\n]*\n?)+)", text, re.MULTILINE)
    }
    known = set().union(*taken.values())
    for target, names in taken.items():
        read_here = read[target] | ({"SQL"} if target == "psql" else set())
        assert names == read_here & known, f"make {target} drops one of them, or refuses what it reads"
    assert not [target for target in read.keys() - taken.keys() if read[target] & known]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_hands_ARGS_on_or_refuses_it(target: str) -> None:  # noqa: N802 - the variable's name
    done = make(target, *NEEDED.get(target, ()), "ARGS=--probe")
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
    done = make(target, *NEEDED.get(target, ()), ARGS="--yes")
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
    read = {f'"${name}"' for name in found if f'"${name}"' in done.stdout} - {'"$PATH"'}
    assert not read, "the shell of the recipe would read the one of the person's shell"
    on = make(target, **dict.fromkeys(found, "1"))
    assert not {option for _, option in YES.values() if option in on.stdout}


@pytest.mark.parametrize(("name", "target"), TYPED.items())
def test_what_is_typed_for_a_variable_wins_over_the_shell(clone: Path, name: str, target: str) -> None:
    needed = [word for word in NEEDED.get(target, ()) if not word.startswith(f"{name}=")]
    words = words_of(clone, target, *needed, f"{name}=probe", **{name: "other"})
    assert "probe" in words
    assert "other" not in words


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
