"""What a page tells to type exists and takes those words; what it names as code, setting or test is there."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from operations.__main__ import app
from operations.data.repair import repair
from operations.data.volume_names import BEFORE
from operations.network import ipv6
from operations.rotation.plan import rows
from operations.workspace import known
from operations.workspace.stack_file import environments
from stack.common.mistakes import InvalidSettingsError
from stack.common.names import PROJECT, VARIABLE, NetworkName
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.settings.keys import key_of
from stack.settings.reading import read_environment
from stack.settings.tree import Settings
from stack.settings.types import Model
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.facts import facts
from tests.recording import ROOT, case_config, case_environment, wire_config

PAGES = [
    *(ROOT / name for name in ("README.md", "README.ru.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
if not (ROOT / "stack/parts/pushgateway").exists():
    # Its part is in the copy alone in which test_adding_a_part.py follows it, and there it is held to this.
    PAGES.remove(ROOT / "docs/adding-a-part.md")
ENVIRONMENT_WORDS = {"OFFLINE", "DOCKER_HOST", "OTHER_KEY", known.NO_PRODUCTION, ipv6.KEPT}
"""Variables of the command itself, typed before `make` or after it."""
PULUMI_WORDS = {"cancel", "config", "preview", "refresh", "stack", "state"}


@cache
def everything() -> tuple[ServiceSpec, ...]:
    """Every part that some environment of the two committed files runs, a frontend among them."""
    frontend = wire_config({f"{PROJECT}:frontend": {"enabled": True}})
    return tuple(specs(read_environment("staging", frontend)))


IN_PART: dict[str, Callable[[], set[str]]] = {
    "PART": lambda: {spec.part for spec in everything()} | {"api"},
    "NAME": lambda: {label(name) for name in GENERATED},
    "SECRET": lambda: {row.secret for row in rows(case_environment("prod")) if row.rotates},
    "EMPTY": lambda: {spec.data.name for spec in everything() if spec.data},
    "ENV": lambda: set(environments(ROOT)),
    "KIND": lambda: {"api", "worker", "base", "dump", "redis"},
}
"""Variable of a target -> what it may be."""


def blocks(text: str) -> Iterator[str]:
    """Yield the blocks of code that are no picture and no data."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        if language in {"", "sh"}:
            yield block


def prose(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def typed(page: Path) -> list[str]:
    """Return every `make` and `samokoder` command of a page, of its blocks and of its sentences."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for block in blocks(text) for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`([^`\n]+)`", prose(text))
    return [each for each in (*lines, *inline) if re.match(r"([A-Z_]+=\S* )*(make|(\.venv/bin/)?samokoder) \S", each)]


ALL_TYPED = [(page, command) for page in PAGES for command in dict.fromkeys(typed(page))]


@cache
def makefile() -> tuple[set[str], dict[str, set[str]]]:
    """Return the Makefile's targets, and target -> the variables that it takes beside ENV and ARGS."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    taken = re.findall(r"^TAKES\.([a-z-]+) := (.*)$", text, re.MULTILINE)
    return (
        set(re.findall(r"^([a-z][a-z-]*):(?!=)", text, re.MULTILINE)),
        {target: set(names.split()) for target, names in taken},
    )


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the subcommand that the words name, and the words after it."""
    found: Any = typer.main.get_command(app)
    while (commands := getattr(found, "commands", None)) and words and not words[0].startswith("-"):
        assert words[0] in commands, f"there is no `samokoder {words[0]}`"
        found, words = commands[words[0]], words[1:]
    return found, words


def check_options(words: list[str]) -> None:
    """Every option is one of the command's."""
    command, rest = command_of(words)
    rest = rest[: rest.index("--")] if "--" in rest else rest  # what follows is another program's
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help"}
    wrong = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    assert not wrong, f"`samokoder {words[0]}` has no option {', '.join(wrong)}"


def is_open(value: str) -> bool:
    """Whether a value is left to the reader: `…`, `<part>`, `NAME`."""
    return not value or any(mark in value for mark in "…<") or re.fullmatch(r"[A-Z]+", value) is not None


SET_BESIDE = {"samokoder:drill.memoryMib": {"redis": {"maxmemoryMib": 128}}}
"""What a page sets together with a setting that must fit to it."""


def mistakes(key: str, value: Any) -> list[str]:
    """What is wrong with a setting of production when it has this value, and nothing else of it."""
    name, *path = key.removeprefix(f"{PROJECT}:").split(".")
    _, config = case_config("prod")
    config = json.loads(json.dumps(config)) | SET_BESIDE.get(key, {})
    node: Any = config
    for step, after in zip([name, *path], [*path, None], strict=True):
        step, _, index = step.partition("[")  # noqa: PLW2901 - `command[0]` is the list's own key
        if after is None:
            node[step] = [value] if index else value
        else:
            node = node.setdefault(step, {})
    try:
        read_environment("prod", wire_config({f"{PROJECT}:{each}": v for each, v in config.items()}))
    except InvalidSettingsError as error:
        mine = re.sub(r"\[\d+\]", "", key)
        return [m.key + ": " + m.allowed for m in error.mistakes if m.key == mine or m.key.startswith(f"{mine}.")]
    return []


def check_pulumi(words: list[str]) -> None:
    """A setting that is set is one, and takes that value."""
    assert words[0] in PULUMI_WORDS, f"`pulumi {words[0]}` is no command that a page needs"
    if words[:2] not in (["config", "set"], ["config", "rm"]):
        return
    names = [word for word in words[2:] if word not in {"--secret", "--path", "--"}]
    if is_open(names[0].partition(":")[2]):
        return
    key = names[0]
    assert known_setting(key), f"there is no setting {key}"
    if "--secret" in words:
        name = key.removeprefix(f"{PROJECT}:")
        assert name in CONFIGURED_SECRETS or re.fullmatch(VARIABLE, name), f"{key} is no secret"
        assert len(names) == 1, "a secret's value is asked for, and never typed where a history keeps it"
    elif words[1] == "set":
        assert len(names) == 2, f"{key} is set to nothing"
        if not is_open(re.sub(r"@sha256:…$", "", names[1])):
            value = names[1].replace("sha256:…", "sha256:" + "0" * 64)
            parsed = json.loads(value) if re.fullmatch(r"-?\d+|true|false", value) else value
            assert not mistakes(key, parsed)


def test_a_command_that_a_page_tells_exists_and_takes_its_words() -> None:
    with facts() as fact:
        for page, command in ALL_TYPED:
            with fact(f"{page.relative_to(ROOT)}: {command}"):
                check_command(command)


def check_command(command: str) -> None:
    words = shlex.split(re.sub(r"<[^>]*>", "…", command), comments=True)
    words = words[: words.index("|")] if "|" in words else words
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    program, *rest = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    if program != "make":
        if rest[:1] == ["pulumi"]:
            check_pulumi(rest[rest.index("--") + 1 :])
        else:
            check_options([word for word in rest if not is_open(word)])
        return
    targets, taken = makefile()
    rest = [word for word in rest if word != "-s"]
    assert len(rest) == 1, f"{command}: one target, and what is meant for it behind a name"
    assert rest[0] in targets, f"there is no `make {rest[0]}`"
    variables = taken.get(rest[0], set()) | {"ENV", "ARGS"} | ENVIRONMENT_WORDS
    assert given.keys() <= variables, f"make {rest[0]} does not take {sorted(given.keys() - variables)}"
    for name, value in given.items():
        if rest[0] == "repair" and name == "PART":
            assert value in repair.WHAT, f"nobody repairs {value}"
        elif name in IN_PART and not is_open(value):
            assert value in IN_PART[name](), f"{name} is never {value}"
    arguments = shlex.split(given.get("ARGS", ""))
    if rest[0] == "pulumi" and arguments and not is_open(arguments[0]):
        check_pulumi(arguments)
    elif arguments and rest[0] != "pulumi":
        check_options([rest[0], *arguments])


def test_the_commands_are_found_and_a_wrong_one_is_seen() -> None:
    assert len(ALL_TYPED) > 150, "the expression no longer finds the commands"
    wrong = (
        "make nothing",
        "make logs PART=mysql",
        "make logs PARTS=api",
        "make smoke ARGS='--quick'",
        "make rotate SECRET=app-secret-key",
        "make pulumi ARGS='config set --path samokoder:api.replicas many'",
        "make pulumi ARGS='config set samokoder:telegram 5'",
        "make pulumi ARGS='config set --secret samokoder:smtpPassword typed-into-a-history'",
        "samokoder nothing",
    )
    for command in wrong:
        with pytest.raises(AssertionError):
            check_command(command)


def test_the_memory_that_the_questions_name_is_what_the_limits_come_to() -> None:
    section = re.search(r"### How much memory.*?(?=^#)", (ROOT / "docs/faq.md").read_text(), re.DOTALL | re.MULTILINE)
    assert section

    def limits(**values: Any) -> int:
        environment = read_environment("staging", wire_config({f"{PROJECT}:{name}": v for name, v in values.items()}))
        return sum(spec.settings.memory_mib for spec in specs(environment))

    small: dict[str, dict[str, int]] = {}
    for part, name, number in re.findall(r"config set --path samokoder:(\w+)\.(\w+) (\d+|false)", section[0]):
        small.setdefault(part, {})[name] = json.loads(number)
    assert f"add up to {limits()} MiB" in section[0], "who rents a server by this number rents the wrong one"
    assert f"come to {limits(**small)}," in section[0]
    assert limits(**small) < 3800, "it would be refused on the server that it is meant for"


def test_what_a_page_calls_by_its_name_on_the_engine_is_called_so() -> None:
    with facts() as fact:
        for page in PAGES:
            with fact(page.relative_to(ROOT)):
                named = re.findall(rf"\b{PROJECT}-(?:staging|prod)-([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8"))
                known = {spec.part for spec in everything()} | set(NetworkName)
                known |= {f"{spec.data.name}{end}" for spec in everything() if spec.data for end in ("-data", BEFORE)}
                # `…-api-*`: whatever begins so.
                wrong = [
                    name for name in named if name not in known and not any(each.startswith(name) for each in known)
                ]
                assert not wrong, "a container, a network or a volume that nobody finds at 3 a.m."


@cache
def functions_of(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


FOLDERS = "backup_image|bench|docs|host|offline|operations|policy|reference_app|stack|tests"


def test_a_file_and_a_test_that_a_page_names_are_there() -> None:
    with facts() as fact:
        for page in PAGES:
            with fact(page.relative_to(ROOT)):
                text = re.sub(
                    r"[\w.-]+/[\w.-]+: `[^`]*`", "", page.read_text(encoding="utf-8")
                )  # of another repository
                for word in re.findall(rf"`((?:{FOLDERS})/[\w./-]*(?:::\w+)?)`", text):
                    path, _, name = word.partition("::")
                    assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"
                    assert not name or name in functions_of(ROOT / path), f"{path} has no test {name}"


def known_setting(key: str) -> bool:
    """Whether a key is one of the settings or of the secrets; `.*` at its end is any of a section."""
    model: type[Model] | None = Settings
    steps = re.sub(r"\[\d+\]", "", key).removeprefix(f"{PROJECT}:").removesuffix(".*").split(".")
    if len(steps) == 1 and (steps[0] in CONFIGURED_SECRETS or re.fullmatch(VARIABLE, steps[0])):
        return True
    for step in steps:
        if model is None:
            return False
        field = next((f for n, f in model.model_fields.items() if key_of(n) == f"{PROJECT}:{step}"), None)
        if field is None:
            return False
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((each for each in inner if isinstance(each, type) and issubclass(each, Model)), None)
        if model is None and field.annotation is not None and "dict" in str(field.annotation):
            return True
    return True


def test_a_setting_that_a_page_names_is_one() -> None:
    with facts() as fact:
        for page in PAGES:
            with fact(page.relative_to(ROOT)):
                text = page.read_text(encoding="utf-8")
                keys = re.findall(rf"(?<![\w-]){PROJECT}:([a-zA-Z](?:[\w.\[\]]*[\w\]*])?)(?!\w*:)", text)
                wrong = {key for key in keys if not known_setting(f"{PROJECT}:{key.rstrip('.')}")} - OTHERS
                assert not wrong, "a key that `make preview` would refuse"


OTHERS = {"good", "last", "copy", "red"}
"""What begins like a setting and is none: tags of a stack.

`samokoder:good-commit`, `…:last-commit`, `…:copy-of`, `…:red-checks`.
"""


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def test_a_link_to_a_heading_finds_it() -> None:
    with facts() as fact:
        for page in PAGES:
            with fact(page.relative_to(ROOT)):
                for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
                    path, _, wanted = target.partition("#")
                    if "://" in target or not wanted:
                        continue
                    there = (page.parent / path if path else page).read_text(encoding="utf-8")
                    headings = {anchor(line) for line in re.findall(r"^#+ (.*)$", prose(there), re.MULTILINE)}
                    assert wanted in headings, (
                        f"{page.name}: {target} leads to the top of that page and not to what is meant"
                    )


def test_every_step_of_the_first_deployment_says_which_test_goes_it_or_why_none_can() -> None:
    text = (ROOT / "docs/first-deployment.md").read_text(encoding="utf-8")
    steps = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]
    assert [step.partition(".")[0] for step in steps] == [str(number) for number in range(1, len(steps) + 1)]
    for step in steps:
        title = step.partition("\n")[0]
        tried = re.search(r"^\*\*Tried by\*\* (.*?)(?=\*\*Not tried|\Z)", step, re.DOTALL | re.MULTILINE)
        said = re.search(r"\*\*Not tried here:\*\* \S", step)
        assert tried or said, f"{title}: nobody knows whether it works"
        assert not tried or re.search(r"`tests/[\w./]+::test_\w+`", tried[1]), f"{title}: by which test?"


def test_every_block_of_readme_is_typed_by_a_test() -> None:
    """The tests of tests/live/test_readme.py find them by these marks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        lines = block.splitlines()
        assert (
            language in {"sh", "mermaid"}
            or all(line.startswith("make pulumi ENV=prod ") for line in lines)
            or all(line.startswith("pulumi ") for line in lines)
        ), f"no test types this:\n{block}"


def threats() -> list[list[str]]:
    """Return the rows of the threat model: who, what they reach, what holds them, test."""
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    table = text.partition("| Who | What they reach | What holds them | Test |\n|---|---|---|---|\n")[2]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.partition("\n\n")[0].splitlines()]


def test_each_part_that_keeps_data_has_a_row_that_says_what_survives() -> None:
    text = (ROOT / "docs" / "backup-and-restore.md").read_text(encoding="utf-8")
    _, found, rest = text.partition("### What survives what\n")
    assert found
    first = "\n".join(
        line.split("|")[1].lower() for line in rest.partition("\n**Not backed up:**")[0].splitlines() if "|" in line
    )
    with_files = read_environment("staging", wire_config({f"{PROJECT}:workspace": {"path": "/app/workspace"}}))
    keep = {spec.part for spec in specs(with_files) if spec.data and spec.part not in {"api-1", "api-2", "worker"}}
    assert {"postgres", "redis", "workspace"} <= keep
    assert not [part for part in keep - {"backup", "migrations"} if part not in first], "nobody knows what is lost"
    for option in ("--xattrs", "--acls"):
        assert option not in Path(ROOT / "backup_image/samokoder_backup/shared.py").read_text(encoding="utf-8"), (
            "the copy of the workspace has them now: the row says that it leaves them out"
        )


def test_each_row_of_the_threat_model_names_tests_that_exist_or_says_why_it_is_not_held() -> None:
    rows = threats()
    assert len(rows) > 20, "the table is not found"
    for row in rows:
        who, reached, _, proof = row
        tests = re.findall(r"`(tests/[\w./]+)::(test_\w+)`", proof)
        assert tests or re.search(r"\*\*Not held, because\*\* \w+ \w+ \w+", proof), (
            f"{who}: {reached}: nobody has tried it"
        )
        for file, name in tests:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), (
                f"{who}: {file}::{name} is a test no more"
            )


def test_the_threat_model_has_everybody_who_was_thought_of() -> None:
    said = " ".join(row[0] for row in threats())
    for who in (
        *("A user", "The application, taken over", "A neighbour container", "A neighbour machine", "A contributor"),
        *("A dependency", "the state", "the bucket"),
    ):
        assert who in said, f"{who}: nothing says what they reach"


@pytest.mark.parametrize(("page", "heading"), [("README.md", "Two commands"), ("README.ru.md", "Две команды")])
def test_hosts_that_do_not_work_are_named_where_a_newcomer_begins(page: str, heading: str) -> None:
    section = (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    before = " ".join(section.partition("`make test`")[0].split())
    for host in ("Docker Desktop", "rootless Docker", "Podman", "docs/remote-engine.md"):
        assert host in before, "somebody with a Mac finds out after an hour"


def test_the_stack_file_of_production_has_lines_to_paste_for_production() -> None:
    text = (ROOT / "Pulumi.prod.yaml").read_text(encoding="utf-8")
    lines = re.findall(r"^ *#   (\S.*)$", text, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        assert re.match(r"make pulumi ENV=prod ARGS='config (set|rm) ", line), (
            f"pasted, this is no command here: {line}"
        )
        check_command(line)


TERMS = {
    "Makefile": ("against the CIS Docker Benchmark", "resume an interrupted restore", "Forward the ports"),
    "README.md": ("against the CIS Docker Benchmark", "resume an interrupted restore", "Forwards the ports"),
    "README.ru.md": ("по CIS Docker Benchmark", "прерванное восстановление"),
    "docs/first-deployment.md": ("which test covers it",),
    "docs/security.md": ("Its health is checked",),
}
"""File -> terms that a person who looks for them knows, in place of words of our own."""


def test_a_person_reads_the_terms_of_the_field() -> None:
    for file, terms in TERMS.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not [term for term in terms if term not in text], file


def test_what_can_be_looked_at_first_is_told_on_the_page_of_each_command() -> None:
    for page, command in (("deploying.md", "deploy"), ("deploying.md", "rotate"), ("backup-and-restore.md", "restore")):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert "ARGS=--dry-run" in text[text.index(f"make {command}") :], f"nobody knows that {command} can be tried"


def test_every_secret_that_can_be_changed_is_changed_when_a_colleague_leaves() -> None:
    page = (ROOT / "docs" / "colleagues.md").read_text(encoding="utf-8").partition("## A colleague leaves")[2]
    named = re.findall(r"^ *make rotate SECRET=(\S+) ENV=prod$", page, re.MULTILINE)
    shown = [row.secret for row in rows(case_environment("prod")) if row.rotates]
    assert sorted(named) == sorted(shown), "`make password` has shown all of them to that person"
    assert "samokoder:applicationSecrets" in page, "their values are in the stack file, which that person could read"


STATELESS = ("ingress", "prometheus", "alertmanager", "grafana")
"""Parts that a restore stops never, so that starting one by hand does no harm."""


def test_no_runbook_starts_by_hand_what_a_restore_may_have_stopped() -> None:
    for page in sorted((ROOT / "docs" / "runbooks").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"`docker (?:re)?start samokoder-\w+-([\w-]+)", text):
            told = "Is that a restore" in text[: found.start()]
            assert found[1].startswith(STATELESS) or told, (
                f"{page.name}: {found[0]}` during a restore loses what that part writes; `make restart` is refused"
            )
        for part in re.findall(r"`docker (?:re)?start`[^.]*", text):
            assert not re.search(r"\b(postgres|redis|api|worker|one|what)\b", part), f"{page.name}: {part}"
