"""Where the state is made: who is asked, what is noted, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from host.progress import Reporter
from operations import __main__ as command
from operations.audit.drift.detect import find_drift
from operations.checks.alert import send
from operations.checks.smoke import smoke
from operations.cli import asking, dry_run
from operations.clone import ROOT
from operations.delivery import image_deploy
from operations.delivery.image_deploy import Earlier, Version
from operations.errors import ProjectError
from operations.lifecycle import down as lifecycle_down
from operations.rotation import rotate
from operations.workspace import backend as places
from operations.workspace import lock, pulumi_cli, pulumi_state, stack_file
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from tests.unit.stack.spec.test_generations import state as state_at

BUCKET = "s3://state?endpoint=s3.example.org&s3ForcePathStyle=true"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose Pulumi is no program: buckets have the stacks that `there` has."""
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "Pulumi.staging.yaml").write_text("config: {}\n")

    def installed(*, variables: dict[str, str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(program="pulumi", variables=variables)

    monkeypatch.setattr(pulumi_cli, "ensure_pulumi", installed)
    return tmp_path


def working(clone: Path, **variables: str) -> Workspace:
    return Workspace(root=clone, variables={"HOME": str(clone / "home"), "PATH": os.environ["PATH"], **variables})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Somebody at a terminal, who answers so; what was asked."""

    def make(*given: object) -> list[str]:
        asked: list[str] = []
        left = list(given)

        def answer(question: str, *, err: bool = False, **_: object) -> object:
            assert err, "the output may be JSON for a program"
            asked.append(question)
            return left.pop(0)

        monkeypatch.setattr(asking, "on_terminal", lambda **_: True)
        monkeypatch.setattr(typer, "confirm", answer)
        monkeypatch.setattr(typer, "prompt", answer)
        return asked

    return make


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A bucket: its stacks, each with its state, and its tags."""
    there: dict[str, Any] = {"stacks": {}, "tags": {}}
    stacks, deployment, tags = PulumiRun.stacks, PulumiRun.deployment, PulumiRun.tags
    monkeypatch.setattr(PulumiRun, "stacks", lambda run: stacks(run) if run.backend.folder else sorted(there["stacks"]))
    monkeypatch.setattr(
        PulumiRun,
        "deployment",
        lambda run, stack="": deployment(run, stack) if run.backend.folder else there["stacks"].get(stack or "staging"),
    )
    monkeypatch.setattr(
        PulumiRun,
        "tags",
        lambda run, stack="": tags(run, stack) if run.backend.folder else there["tags"].get(stack, {}),
    )
    return there


def state(clone: Path, name: str = "staging", salt: str = "", resources: int = 0) -> None:
    latest: dict[str, Any] = {"secrets_providers": {"state": {"salt": salt}}} if salt else {}
    latest["resources"] = [{"urn": str(number)} for number in range(resources)]
    file = clone / f".samokoder/state/.pulumi/stacks/samokoder/{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"checkpoint": {"latest": latest}}))


def test_a_state_below_a_path_with_spaces_and_cyrillic_letters_is_found_by_its_address(tmp_path: Path) -> None:
    folder = tmp_path / "мои проекты" / "клон, два пробела и %20" / ".samokoder"
    place = places.own(folder)
    assert place.url.isascii(), "Pulumi reads it as a URL"
    assert " " not in place.url
    assert place.folder == folder / "state", "`up` would begin with an empty state"


def test_somebody_alone_presses_enter_and_works_in_the_clone(clone: Path, answers: Callable[..., list[str]]) -> None:
    asked = answers(False)
    before = (clone / "Pulumi.yaml").read_text()
    asking.where_state(working(clone))
    assert len(asked) == 1
    assert (clone / "Pulumi.yaml").read_text() == before, "a trial leaves the clone clean"
    state(clone)
    asking.where_state(working(clone))
    assert len(asked) == 1, "where there is a state, the question is over"


BOTH = [f"--{part}=registry.example.org/{part}:1@sha256:{'1' * 64}" for part in ("api", "worker")]
MAKES = {
    "up": [],
    "preview": [],
    "preview --json": [],
    "down": ["--yes"],
    "destroy-data": ["--confirm", "staging"],
    "pulumi": ["--", "stack"],
    "deploy": [*BOTH, "--no-check", "--yes"],
    "deploy --dry-run": BOTH,
    "rollback": ["--yes"],
    "rollback --dry-run": [],
    "restore": ["--backup", "latest"],
    "repair redis": ["--yes"],
    "repair collations": ["--yes"],
    "import-compose old": [],
    "import-compose old --keys": [],
    "doctor": [],
    "doctor --after": [],
}
"""Commands that make the first state of a clone, with what else they need."""
MAKES_NONE = {
    *("drift", "smoke", "test-alert", "password", "rotate"),  # refuse, where there is none
    *("psql", "restart", "exec", "logs", "status", "tunnel", "check-image", "render", "backup", "backups"),
    *("drill", "sbom", "hardening", "engine", "open", "move-state"),
}


class AskedError(Exception):
    """The question was asked."""


@pytest.mark.parametrize("words", MAKES)
def test_every_command_that_makes_a_state_asks_before_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    assert {each.partition(" ")[0] for each in MAKES} | MAKES_NONE == set(command.COMMANDS), "a command is in neither"

    def asked(*_: object, **__: object) -> None:
        raise AskedError

    (clone / "Pulumi.staging.yaml").write_text("config:\n  samokoder:appSecretKey: {secure: 'v1:'}\n")
    deploy = image_deploy.ImageDeploy(workspace=working(clone), before=Version(), wanted=Version())
    earlier = Earlier(version=Version(), commit="", told="")
    monkeypatch.setattr(image_deploy, "back", lambda *_, **__: (deploy, earlier))
    monkeypatch.setattr(image_deploy, "plan", lambda *_, **__: deploy)
    monkeypatch.setattr(asking, "where_state", asked)
    monkeypatch.setattr(Workspace, "connected", lambda *_: pytest.fail("Pulumi was opened before"))
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: working(clone))
    answer = CliRunner().invoke(command.app, [*words.split(), *MAKES[words]])
    assert isinstance(answer.exception, AskedError), answer.output
    assert not (clone / ".samokoder").exists(), "the next `up` asks nobody where there is one"


READS: dict[str, Callable[[Workspace], object]] = {
    "drift": find_drift,
    "smoke": lambda it: smoke._passwords(it)(),
    "test-alert": send.send_test_alert,
    "rotate": lambda it: rotate.rotate(it, "redis-app", interactive=False),
}


@pytest.mark.parametrize("name", READS)
def test_a_command_that_only_reads_makes_no_state(clone: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(lock, "held", lambda workspace, _: nullcontext(workspace))
    monkeypatch.setattr(Workspace, "connected", lambda *_: pytest.fail("Pulumi was opened"))
    tells = {"samokoder:alertWebhookUrl": {"secure": "v1:"}, "samokoder:basicAuth": "always"}
    with pytest.raises(ProjectError, match="staging is not up: make up"):
        READS[name](replace(working(clone), extra_config=tells))
    assert not (clone / ".samokoder").exists(), "the next `up` asks nobody where there is one"


def files(clone: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in clone.rglob("*") if path.is_file()}


READS_BUCKET: dict[str, Callable[[Workspace], object]] = {
    **READS,
    "rotate, listed": lambda it: it.deployment(),
    "rotate --dry-run": lambda it: dry_run.of_rotation(it, "redis-app"),
}


@pytest.mark.parametrize("name", READS_BUCKET)
def test_a_command_that_only_reads_makes_no_stack_in_a_bucket(
    clone: Path, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lock, "held", lambda workspace, _: nullcontext(workspace))
    monkeypatch.setattr(PulumiRun, "pulumi", lambda *words, **_: pytest.fail(f"a bucket without a stack: {words[1:]}"))
    tells = {"samokoder:alertWebhookUrl": {"secure": "v1:"}, "samokoder:basicAuth": "always"}
    workspace = replace(working(clone, **{places.VARIABLE: BUCKET}), extra_config=tells)
    with pytest.raises(ProjectError, match="staging is not up: make up"):
        READS_BUCKET[name](workspace)
    assert not (clone / ".samokoder/passphrase").exists(), "a colleague's first `up` makes another one"
    bucket["stacks"] = {"prod": {}}
    with pytest.raises(ProjectError, match="staging is not up: make up"):
        READS_BUCKET[name](workspace)


def test_a_dry_run_of_a_rotation_reads_the_state_of_a_bucket_and_writes_nothing(
    clone: Path, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket["stacks"] = {"staging": state_at("redis_app", 2, "prepare")}
    monkeypatch.setattr(PulumiRun, "pulumi", lambda *words, **_: pytest.fail(f"Pulumi was asked for {words[1:]}"))
    before = files(clone)
    said = dry_run.of_rotation(working(clone, **{places.VARIABLE: BUCKET}), "redis-app")
    assert said[0] == "redis-app: generation 2. Each step is an `up`:"
    assert len(said) == 5
    assert files(clone) == before, "a dry run writes nothing"
    bucket["stacks"][places.MOVED_STACK], bucket["tags"] = {}, {places.MOVED_STACK: {places.TO: "s3://new"}}
    with pytest.raises(ProjectError, match="was moved from"):
        dry_run.of_rotation(working(clone, **{places.VARIABLE: BUCKET}), "redis-app")


def test_a_team_says_where_and_pulumi_yaml_has_it(
    clone: Path, answers: Callable[..., list[str]], bucket: dict[str, Any]
) -> None:
    assert bucket["stacks"] == {}
    answers(True, BUCKET)
    before = (clone / "Pulumi.yaml").read_text()
    asking.where_state(working(clone))
    assert working(clone).backend() == Backend(url=BUCKET, origin="Pulumi.yaml"), "whoever clones it works there too"
    after = (clone / "Pulumi.yaml").read_text()
    assert after.replace(f'# {places._NOTE}\nbackend:\n  url: "{BUCKET}"\n', "") == before, (
        "all else stays, comments too"
    )
    asking.where_state(working(clone))  # asks nothing: there is no answer left


@pytest.mark.parametrize("how", ["--yes", "no terminal", "a variable", "isolated"])
def test_nobody_is_asked_where_nobody_answers_or_a_place_is_chosen(
    clone: Path, answers: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asked = answers()
    workspace = working(clone, **({places.VARIABLE: BUCKET} if how == "a variable" else {}))
    if how == "no terminal":
        monkeypatch.setattr(asking, "on_terminal", lambda **_: False)
    if how == "isolated":
        workspace = Workspace(root=clone, isolated=True, variables={})
    asking.where_state(workspace, yes=how == "--yes")
    assert not asked, "a script would hang"
    assert "backend" not in stack_file.load(clone / "Pulumi.yaml"), "the default stays: a folder of this clone"


def test_the_option_is_an_answer_and_moves_nothing(clone: Path, bucket: dict[str, Any]) -> None:
    assert bucket["stacks"] == {}
    asking.where_state(working(clone), yes=True, answer=BUCKET)
    assert working(clone).backend().url == BUCKET
    asking.where_state(working(clone), answer=BUCKET)  # typed again
    with pytest.raises(ProjectError, match="make move-state STATE=s3://other"):
        asking.where_state(working(clone), answer="s3://other")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket", "not a valid address"),
        ("https://s3.example.org/bucket", "not a valid address"),
        ("s3://key:secret@bucket", "No password in the address"),
        ("file://folder", "three slashes"),
        ("file://~/folder", "three slashes"),
    ],
)
def test_an_address_that_cannot_be_is_refused_before_anything_is_written(clone: Path, url: str, said: str) -> None:
    with pytest.raises(ProjectError, match=said) as error:
        asking.where_state(working(clone), answer=url)
    assert "key:secret" not in str(error.value), "a secret is not repeated on a screen"
    assert "backend" not in stack_file.load(clone / "Pulumi.yaml")


def test_a_place_is_changed_where_it_stands(clone: Path) -> None:
    places.write(clone, "s3://one")
    once = (clone / "Pulumi.yaml").read_text()
    places.write(clone, "s3://two")
    assert (clone / "Pulumi.yaml").read_text() == once.replace("s3://one", "s3://two")
    (clone / "Pulumi.yaml").write_text("backend:\n  url: s3://by-hand\n  # a comment\nname: samokoder\n")
    places.write(clone, "s3://two")
    assert stack_file.load(clone / "Pulumi.yaml") == {"name": "samokoder", "backend": {"url": "s3://two"}}


def test_a_clone_without_the_teams_passphrase_makes_none(clone: Path, bucket: dict[str, Any]) -> None:
    bucket["stacks"] = {"prod": {"secrets_providers": {"state": {"salt": "v1:team"}}}}
    places.write(clone, BUCKET)
    with pytest.raises(ProjectError, match=r"secrets of prod in s3://.* are encrypted with your team's passphrase"):
        working(clone).connected()
    assert not (clone / ".samokoder/passphrase").exists(), "it would open nothing, and staging would be under it"
    bucket["stacks"] = {}
    assert working(clone).connected().variables["PULUMI_CONFIG_PASSPHRASE_FILE"], "the first one makes it"


def test_a_lost_passphrase_of_another_environment_is_told_too(clone: Path) -> None:
    state(clone, "prod", salt="v1:prod")
    with pytest.raises(ProjectError, match="passphrase of this state is gone"):
        working(clone).connected()
    assert not (clone / ".samokoder/passphrase").exists(), "two passphrases of one state"


def test_what_has_left_is_refused_and_says_where_it_is(clone: Path, bucket: dict[str, Any]) -> None:
    state(clone)
    (clone / ".samokoder/passphrase").write_text("x")
    late = working(clone).connected()
    places.mark(clone / ".samokoder/state", BUCKET)
    for refused in (working(clone).open, lambda: late.pulumi("up", "--yes"), lambda: late.pulumi("destroy")):
        with pytest.raises(ProjectError, match=r"was moved from .* to s3://state.*git pull"):
            refused()
    bucket["stacks"] = {places.MOVED_STACK: {}, "staging": {}}
    old = working(clone, **{places.VARIABLE: "s3://old"})
    old.open()
    bucket["tags"] = {places.MOVED_STACK: {places.TO: BUCKET}}
    with pytest.raises(ProjectError, match="PULUMI_BACKEND_URL names the old place"):
        old.open()


def test_an_unfinished_copy_is_refused_also_by_who_opened_it_before(clone: Path, bucket: dict[str, Any]) -> None:
    state(clone)
    (clone / ".samokoder/passphrase").write_text("x")
    late = working(clone).connected()
    tags = clone / ".samokoder/state/.pulumi/stacks/samokoder/staging.pulumi-tags"
    tags.write_text(json.dumps({"version": 1, "tags": {places.COPY_OF: places.copy_of("s3://from")}}))  # as Pulumi does
    for refused in (working(clone).open, lambda: late.pulumi("up", "--yes")):
        with pytest.raises(ProjectError, match="is an unfinished copy"):
            refused()
    bucket["stacks"], bucket["tags"] = {"staging": {}}, {"": {places.COPY_OF: "host abc"}}
    with pytest.raises(ProjectError, match=r"unfinished copy: host was .*") as error:
        working(clone, **{places.VARIABLE: "s3://new"}).open()
    assert "type again: make move-state STATE=s3://new\n" in str(error.value)
    opens = "make pulumi ARGS='stack tag rm samokoder:copy-of', then make preview, which must make nothing anew"
    assert opens in str(error.value), "where that clone is lost, nobody would know what opens the state"
    assert "Only where the old place is lost, and nobody has changed the environment" in str(error.value), (
        "else there are two states"
    )


def open_copy(clone: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], str]:
    """Type what the message about an unfinished copy says; return what Pulumi is given, and how it ended."""
    given: list[Any] = []

    def pulumi(_run: PulumiRun, *words: str, **_: object) -> SimpleNamespace:
        given.append(words)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(PulumiRun, "pulumi", pulumi)
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: working(clone, **{places.VARIABLE: "s3://new"}))
    answer = CliRunner().invoke(command.app, ["pulumi", "--", *words])
    return given, str(answer.exception or "")


def test_the_command_that_opens_an_unfinished_copy_is_let_through_and_no_other_one(
    clone: Path, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (clone / ".samokoder").mkdir()
    (clone / ".samokoder/passphrase").write_text("x")
    bucket["stacks"] = {"staging": {"resources": [{"urn": "one"}]}}
    bucket["tags"] = {"": {places.COPY_OF: "host abc"}}
    given, _ = open_copy(clone, *places.OPENS_COPY, monkeypatch=monkeypatch)
    assert given == [places.OPENS_COPY], "the message would name a command that is refused itself"
    for other in (("stack", "tag", "rm", "another"), ("up",), (*places.OPENS_COPY, "--stack", "prod")):
        given, why = open_copy(clone, *other, monkeypatch=monkeypatch)
        assert not given
        assert "unfinished copy" in why
    bucket["stacks"] = {"staging": {"resources": []}}
    given, why = open_copy(clone, *places.OPENS_COPY, monkeypatch=monkeypatch)
    assert not given, "an `up` would make everything anew beside what runs"
    assert "copy with nothing in it" in why
    bucket["stacks"] = {"staging": {"resources": [{"urn": "one"}]}, places.MOVED_STACK: {}}
    bucket["tags"][places.MOVED_STACK] = {places.TO: "s3://third"}
    given, why = open_copy(clone, *places.OPENS_COPY, monkeypatch=monkeypatch)
    assert not given
    assert "was moved from" in why


def test_a_token_beside_the_place_of_pulumi_yaml_is_refused_by_every_command(clone: Path) -> None:
    token = {places.TOKEN: "pul-geheim"}
    assert working(clone, **token).backend() == Backend(url="", origin=places.TOKEN)
    places.write(clone, BUCKET)
    for use in (lambda: working(clone, **token).open(), lambda: asking.where_state(working(clone, **token))):
        with pytest.raises(ProjectError, match="Two places of the state are named, and nothing was done") as error:
            use()
        for said in (BUCKET, "unset PULUMI_ACCESS_TOKEN", "export PULUMI_BACKEND_URL=https://api.pulumi.com"):
            assert said in str(error.value), "a state that nobody meant would be used without a word"
        assert "geheim" not in str(error.value)
    named = {**token, places.VARIABLE: "https://api.pulumi.com"}
    assert working(clone, **named).backend().url == "https://api.pulumi.com", "who says which is taken at his word"
    assert working(clone, **{places.TOKEN: ""}).backend().url == BUCKET, "a workflow sets what is not there to nothing"
    places.write(clone, "https://api.pulumi.com")
    assert working(clone, **token).backend().url == "https://api.pulumi.com", "the token is a login there: one place"


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the engine was asked")

    monkeypatch.setattr(lifecycle_down, "ensure_engine", asked)


TAKES_AWAY: dict[str, Callable[[Workspace], object]] = {
    "down": lambda it: lifecycle_down.take_down(it, interactive=False),
    "destroy-data": lambda it: lifecycle_down.destroy_data(it, interactive=False),
    "destroy-data, as it shows the volumes": lifecycle_down.data_volumes,
}


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("name", TAKES_AWAY)
def test_the_teams_environment_is_not_taken_for_the_trial_of_the_clone(clone: Path, name: str) -> None:
    command = TAKES_AWAY[name]
    state(clone, resources=2)
    places.write(clone, BUCKET)  # as `git pull` does
    own = (clone / ".samokoder/state").as_uri()
    with pytest.raises(ProjectError, match="Two states have staging") as error:
        command(working(clone))
    for said in (BUCKET, f"{places.VARIABLE}={own} make {name.partition(',')[0]}"):
        assert said in str(error.value), "whoever types it again would destroy what the team has"
    said_before: list[str] = []
    for usable in ("that very place", "moved", "empty"):
        workspace = working(clone, **({places.VARIABLE: own} if usable == "that very place" else {}))
        if usable == "moved":
            places.mark(clone / ".samokoder/state", BUCKET)
        if usable == "empty":
            (clone / ".samokoder/state/moved-to").unlink()
            state(clone)
        reporter = cast("Reporter", SimpleNamespace(say=said_before.append))
        with pytest.raises(AssertionError, match="the engine was asked"):
            command(replace(workspace, reporter=reporter))
    told = [f"State: {own} ({places.VARIABLE})", f"State: {BUCKET} (Pulumi.yaml)"]
    # `destroy-data` shows the volumes first, and says it there.
    assert said_before[:2] == (told if command is not TAKES_AWAY["destroy-data"] else [])


def test_a_shared_folder_that_is_not_mounted_gets_no_second_state(clone: Path) -> None:
    (clone / ".samokoder").mkdir()
    (clone / ".samokoder/passphrase").write_text("x")
    folder = clone / "mnt/team"
    places.write(clone, folder.as_uri())
    with pytest.raises(ProjectError, match="is not there: is it mounted"):
        working(clone).connected()
    assert not folder.parent.exists()
    for origin in (places.MOVE, places.ANSWER):
        working(clone).connected(Backend(url=folder.as_uri(), origin=origin))
        folder.rmdir()
    working(clone, **{places.VARIABLE: places.own(clone / ".samokoder").url}).connected()


def test_stacks_of_a_folder_are_those_with_a_checkpoint(clone: Path) -> None:
    state(clone, "prod")
    state(clone)
    folder = clone / ".samokoder/state"
    (folder / ".pulumi/stacks/samokoder/staging.json.bak").write_text("{}")
    (folder / ".pulumi/stacks/samokoder/staging.pulumi-tags").write_text("{}")
    assert pulumi_state.stacks(folder) == ["prod", "staging"]
