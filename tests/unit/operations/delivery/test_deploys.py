"""Deploys of the team's own images, and the way back, in a repository of its own; no engine is asked."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound
from typer.testing import CliRunner, Result

from operations import __main__ as command
from operations.checks import report
from operations.cli import asking
from operations.delivery import image_deploy
from operations.delivery.image_deploy import Version
from operations.engine import registry
from operations.engine.part_status import PartStatus
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle import up as lifecycle_up
from operations.workspace import lock, stack_file, stack_text
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.names import PART_LABEL
from tests.unit.operations.cli.test_asking import CONFIG

COMMENT = "  # Production. Whoever changes this asks first.\n"


def image(part: str, number: int) -> str:
    return f"registry.example.org/samokoder/{part}:{number}@sha256:{str(number) * 64}"


def both(number: int) -> dict[str, str]:
    return {"api": image("api", number), "worker": image("worker", number)}


@dataclass
class Clone:
    """A repository with a stack file of production."""

    folder: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(environment="prod", stack_files=self.folder, home=self.folder / "home", isolated=True)

    @property
    def file(self) -> Path:
        return self.folder / "Pulumi.prod.yaml"

    @property
    def version(self) -> Version:
        return Version.of(self.workspace.committed())

    def git(self, *words: str) -> str:
        person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main")
        done = subprocess.run(["git", *person, *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def put(self, number: int, *, commit: bool = True) -> str:
        """Write a version's images, and commit them."""
        stack_text.write(self.workspace, Version(images=both(number)).write)
        if commit:
            self.git("commit", "--quiet", "--all", "--message", f"version {number}")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    made = Clone(tmp_path)
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in CONFIG.items()}
    for name in ("api", "worker"):
        config[f"samokoder:{name}"].pop("image")
    config["samokoder:api"]["stableSeconds"] = 20
    text = stack_file.dump({"config": config}, source="a test").partition("\n")[2]
    made.file.write_text(text.replace("config:\n", f"config:\n{COMMENT}"))
    made.git("init", "--quiet")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "begun")
    return made


@dataclass
class Ups:
    """What `up` was asked for."""

    images: list[dict[str, str | None]]
    files: list[str]
    fails: bool = False
    noted: list[str | None] = field(default_factory=list)
    """The API's image, each time that was noted which images the engine lacks."""


@pytest.fixture
def ups(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Ups:
    made = Ups([], [])
    monkeypatch.setattr(
        image_deploy,
        "_note_images",
        lambda each: made.noted.append(each.settings(on_this_machine=False).settings.api.image),
    )

    @contextmanager
    def held(workspace: Workspace, doing: str, **_: str) -> Iterator[Workspace]:
        assert doing == "deploy"
        yield workspace

    def up(workspace: Workspace, *, interactive: bool, agree: lifecycle_up.Agree) -> lifecycle_up.Upped:
        del interactive
        made.files.append(clone.file.read_text())
        agree()
        made.files.append(clone.file.read_text())
        settings = workspace.settings(on_this_machine=False).settings
        made.images.append({name: getattr(settings, name).image for name in image_deploy.FIELDS})
        if made.fails:
            raise PulumiFailedError("`pulumi up` failed: not healthy: api-1")
        well = PartStatus(part="api-1", state="running", health="healthy")
        return lifecycle_up.Upped(parts=[well], secrets=[])

    monkeypatch.setattr(lock, "held", held)
    monkeypatch.setattr(image_deploy, "bring_up", up)
    running(monkeypatch)
    return made


def typed(clone: Clone, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    """Type a command in the clone, in production."""
    monkeypatch.setattr("operations.cli.common.workspace_of", lambda _: clone.workspace)
    return CliRunner().invoke(command.app, [words[0], "--env", "prod", *words[1:]])


def typed_both(clone: Clone, monkeypatch: pytest.MonkeyPatch, option: str) -> Result:
    """Type the deploy of the first version."""
    return typed(clone, monkeypatch, "deploy", "--api", image("api", 1), "--worker", image("worker", 1), option)


def running(monkeypatch: pytest.MonkeyPatch, **images: str) -> None:
    """An engine on which these run, and which is where the environment's is looked for."""
    rows = [
        SimpleNamespace(labels={PART_LABEL: part.replace("_", "-")}, attrs={"Config": {"Image": reference}})
        for part, reference in images.items()
    ]
    client = SimpleNamespace(containers=SimpleNamespace(list=lambda **_: rows), close=lambda: None)
    there = {"unix:///nowhere": client}
    monkeypatch.setattr(Workspace, "engine", lambda _: SimpleNamespace(docker_host="unix:///nowhere"))
    monkeypatch.setattr("host.engine.connect", lambda host: there[host])


def test_the_first_deploy_of_a_production_that_lacks_only_its_images_is_one(clone: Clone, ups: Ups) -> None:
    with pytest.raises(InvalidSettingsError):
        clone.workspace.settings(on_this_machine=False)
    image_deploy.plan(clone.workspace, both(1), migrations=["alembic", "upgrade", "head"]).run(None, interactive=False)
    assert clone.version == Version(images=both(1), migrations=("alembic", "upgrade", "head"))
    assert ups.images == [{**both(1), "frontend": None}]
    text = clone.file.read_text()
    assert COMMENT in text, "what people have written beside it stays"
    assert "stableSeconds: 20" in text


def test_what_is_wrong_besides_is_told_before_anything_is_asked_for(clone: Clone) -> None:
    with pytest.raises(InvalidSettingsError, match=r"samokoder:worker\.image"):
        image_deploy.plan(clone.workspace, {"api": image("api", 1)})


def test_the_stack_file_is_written_after_the_yes_and_before_anything_is_changed(clone: Clone, ups: Ups) -> None:
    before = clone.file.read_text()

    def no() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_deploy.plan(clone.workspace, both(1)).run(no, interactive=False)
    assert clone.file.read_text() == before, "after a no the file says what runs"
    image_deploy.plan(clone.workspace, both(1)).run(lambda: None, interactive=False)
    assert ups.files[-2] == before
    assert image("api", 1) in ups.files[-1], "cut off in between, the file must say what was begun"


def test_a_deploy_that_fails_says_how_to_go_back(clone: Clone, ups: Ups) -> None:
    ups.fails = True
    with pytest.raises(
        PulumiFailedError, match=r"api-1\nPulumi\.prod\.yaml has the new images.*make rollback ENV=prod"
    ):
        image_deploy.plan(clone.workspace, both(1)).run(None, interactive=False)


def test_a_rollback_that_fails_says_how_to_go_on_and_that_another_one_goes_further_back(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = (clone.put(number) for number in (1, 2, 3))
    running(monkeypatch, api_1=image("api", 3), worker=image("worker", 3))
    ups.fails = True
    with pytest.raises(PulumiFailedError) as told:
        image_deploy.back(clone.workspace)[0].run(None, interactive=False)
    assert clone.version.images == both(2)
    assert "`make up ENV=prod` goes on" in str(told.value)
    assert f"`make rollback ENV=prod` goes back to {first[:7]}" in str(told.value), (
        "version 2 is good, and would be left"
    )


def test_a_first_version_that_does_not_come_up_has_only_the_way_on(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_deploy, "_COMMITS", 0)
    ups.fails = True
    with pytest.raises(PulumiFailedError, match=r"`make up ENV=prod` goes on\.$"):
        image_deploy.plan(clone.workspace, both(1)).run(None, interactive=False)


def test_what_is_not_named_stays(clone: Clone, ups: Ups) -> None:
    clone.put(1)
    image_deploy.plan(clone.workspace, {"worker": image("worker", 2)}).run(None, interactive=False)
    assert ups.images == [{"api": image("api", 1), "worker": image("worker", 2), "frontend": None}]


def test_only_writing_asks_neither_engine_nor_registry_where_digests_are_named(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workspace, "engine", lambda _: pytest.fail("a job of the application's has no engine of ours"))
    answer = typed_both(clone, monkeypatch, "--write-only")
    assert answer.exit_code == 0, answer.output
    assert clone.version.images == both(1)
    assert clone.git("status", "--porcelain") == "M Pulumi.prod.yaml", "and nothing else of the clone"


def test_an_image_that_breaks_the_contract_is_not_deployed(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, checked = clone.file.read_text(), list[tuple[str, str]]()

    def check_image(workspace: Workspace, reference: str, kind: Any) -> report.Report:
        assert workspace.settings(on_this_machine=False).settings.api.image == image("api", 1)
        assert ups.noted == [image("api", 1)], "what the check pulls would never be removed again"
        checked.append((reference, kind.value))
        finding = report.Finding(check="stops on SIGTERM", verdict=report.Verdict.FAILED, why="was killed")
        return report.Report(title=reference, about={}, findings=[finding])

    monkeypatch.setattr("operations.checks.image.check_image.check_image", check_image)
    answer = typed_both(clone, monkeypatch, "--yes")
    assert isinstance(answer.exception, ProjectError)
    assert (clone.file.read_text(), ups.images) == (before, [])
    assert checked[0] == (image("api", 1), "api")


def test_an_image_that_looks_at_no_secret_is_deployed_since_the_stack_refuses_wrong_ones_itself(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_image(_: Workspace, reference: str, kind: Any) -> report.Report:
        finding = report.Finding(check="refuses weak secrets", verdict=report.Verdict.FAILED, why="runs all the same")
        return report.Report(title=reference, about={}, findings=[finding])

    monkeypatch.setattr("operations.checks.image.check_image.check_image", check_image)
    answer = typed_both(clone, monkeypatch, "--yes")
    assert len(ups.images) == 1, f"no version of it could ever be deployed: {answer.exception}"
    assert "the stack itself gives no image such a secret: runs all the same" in " ".join(answer.output.split())
    assert clone.version.images == both(1)


@pytest.mark.parametrize("words", ["deploy --api IMAGE --no-check", "deploy --api IMAGE --write-only", "rollback"])
def test_a_file_whose_parts_share_one_value_is_refused_before_anybody_is_asked(
    words: str, clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    clone.file.write_text(f"config:\n  samokoder:api: &own {{image: '{image('api', 2)}'}}\n  samokoder:worker: *own\n")
    clone.git("commit", "--quiet", "--all", "--message", "shared")
    before = clone.file.read_text()
    answer = typed(clone, monkeypatch, *words.replace("IMAGE", image("api", 4)).split(), "--yes")
    assert isinstance(answer.exception, ProjectError), answer.output
    assert "&own" in str(answer.exception), "the worker would get the API's image, which no preview shows"
    assert clone.file.read_text() == before
    assert not ups.files


@pytest.mark.parametrize("name", ["deploy", "rollback"])
def test_production_without_a_terminal_wants_a_yes_before_an_image_is_even_checked(
    name: str, clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    clone.put(2)
    running(monkeypatch, api_1=image("api", 2), worker=image("worker", 2))
    monkeypatch.setattr(asking, "on_terminal", lambda **_: False)
    given = ["--api", image("api", 3), "--no-check"] if name == "deploy" else []
    answer = typed(clone, monkeypatch, name, *given)
    assert isinstance(answer.exception, ProjectError)
    deploy = f"make deploy API={image('api', 3)} ARGS='--yes --no-check' ENV=prod"
    whole = deploy if given else "make rollback ARGS=--yes ENV=prod"
    assert whole in str(answer.exception), "what to type, whole"
    assert not ups.images


def test_a_dry_run_previews_the_images_and_writes_nothing(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    before, looked = clone.file.read_text(), list[str | None]()

    def preview(workspace: Workspace, *, interactive: bool) -> None:
        del interactive
        looked.append(workspace.settings(on_this_machine=False).settings.api.image)

    monkeypatch.setattr("operations.lifecycle.preview.show_preview", preview)
    answer = typed(clone, monkeypatch, "deploy", "--api", image("api", 2), "--dry-run")
    assert answer.exit_code == 0, answer.output
    assert looked == [image("api", 2)]
    assert (clone.file.read_text(), ups.images) == (before, [])


def test_back_is_the_version_before_committed_or_not(clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, api_1=image("api", 2), worker=image("worker", 2))
    clone.put(1)
    clone.put(2, commit=False)
    deploy, earlier = image_deploy.back(clone.workspace)
    assert deploy.wanted.images == both(1), "what was not committed goes back to what is"
    clone.put(2)
    clone.git("commit", "--quiet", "--allow-empty", "--message", "something else")
    deploy, earlier = image_deploy.back(clone.workspace)
    assert deploy.wanted.images == both(1)
    assert "by Ada: version 1" in earlier.told, "a person sees where it is from"
    deploy.run(None, interactive=False)
    assert ups.images == [{**both(1), "frontend": None}]
    assert "stableSeconds: 20" in clone.file.read_text(), "only the images go back"


def test_back_to_a_commit_that_is_named(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, api_1=image("api", 3), worker=image("worker", 3))
    first = clone.put(1)
    clone.put(2)
    clone.put(3)
    assert image_deploy.back(clone.workspace, first[:10])[0].wanted.images == both(1)
    with pytest.raises(ProjectError, match="No commit"):
        image_deploy.back(clone.workspace, "0123456789")


def test_what_was_never_the_head_of_the_branch_is_not_gone_back_to(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch)
    clone.put(1)
    clone.git("checkout", "--quiet", "-b", "branch")
    clone.put(8)
    clone.put(2)
    clone.git("checkout", "--quiet", "main")
    clone.git("merge", "--quiet", "--no-ff", "--message", "merged", "branch")
    assert image_deploy.back(clone.workspace)[0].wanted.images == both(1), "version 8 was approved and run by nobody"


def test_a_clone_that_lacks_what_was_deployed_last_does_not_go_back(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    clone.put(2)
    running(monkeypatch, api_1=image("api", 3), api_2=image("api", 3), worker=image("worker", 3))
    with pytest.raises(ProjectError, match=r"api runs .*api:3@sha256:333333333333, which .* not have.*git pull"):
        image_deploy.back(clone.workspace)
    running(monkeypatch, api_1=image("api", 2), api_2=image("api", 1), worker=image("worker", 1))
    assert image_deploy.back(clone.workspace)[0].wanted.images == both(1), "a deploy that failed half way"


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("came_up", [False, True])
def test_a_second_way_back_goes_further_and_not_forward_again(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch, *, committed: bool, came_up: bool
) -> None:
    for number in (1, 2, 3):
        clone.put(number)
    running(monkeypatch, api_1=image("api", 3), worker=image("worker", 3))
    for number in (2, 1):
        answer = typed(clone, monkeypatch, "rollback", "--yes")
        assert answer.exit_code == 0, answer.exception
        assert clone.version.images == both(number), "version 3 is bad, and so is what one has just left"
        if committed:
            clone.git("commit", "--quiet", "--all", "--message", f"back to {number}")
        if came_up:
            running(monkeypatch, api_1=image("api", number), worker=image("worker", number))
    assert len(ups.images) == 2


def test_the_version_before_is_the_one_that_was_not_left(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3, 2, 4):
        clone.put(number)
    running(monkeypatch, api_1=image("api", 4), worker=image("worker", 4))
    assert image_deploy.back(clone.workspace)[0].wanted.images == both(2), "not version 3, which was gone back from"


def test_a_commit_with_a_broken_stack_file_is_passed_over(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.put(1)
    good = clone.file.read_text()
    for broken in (
        *("config: {\n", "config: all\n", "- config\n", "config:\n  samokoder:api: '{}'\n"),
        *("config:\n  other: 2026-02-30\n", "config:\n  8000: 1\n", "config: &all\n  samokoder:api: *all\n"),
        "config: {}  # производство\n",
    ):
        clone.file.write_text(broken, encoding="cp1251")
        clone.git("commit", "--quiet", "--all", "--message", "broken")
    clone.file.write_text(good)
    clone.put(2)
    running(monkeypatch, api_1=image("api", 2), worker=image("worker", 2))
    assert image_deploy.back(clone.workspace)[0].wanted.images == both(1), "nobody has deployed what cannot be read"


def test_a_version_whose_stack_file_had_a_key_twice_was_deployed_and_is_the_way_back(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    clone.put(2, commit=False)
    good = clone.file.read_text()
    clone.file.write_text(good + "  samokoder:keepImages: 4\n  samokoder:keepImages: 5\n")
    clone.git("commit", "--quiet", "--all", "--message", "version 2")
    clone.file.write_text(good)
    clone.put(3)
    running(monkeypatch, api_1=image("api", 3), worker=image("worker", 3))
    assert image_deploy.back(clone.workspace)[0].wanted.images == both(2), "earlier versions of this program took it"


SIGNS = """#!/bin/sh
case "$*" in
*--verify*) echo "gpg: Good signature from Ada" >&2; echo "[GNUPG:] GOODSIG 0 Ada" ;;
*) cat >/dev/null
    printf '\\n[GNUPG:] SIG_CREATED \\n' >&2
    printf -- '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n' ;;
esac
"""


def test_the_way_back_is_found_where_git_shows_signatures(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    program = clone.folder / "gpg"
    program.write_text(SIGNS)
    program.chmod(0o755)
    for key, value in (("gpg.program", str(program)), ("commit.gpgSign", "true"), ("log.showSignature", "true")):
        clone.git("config", key, value)
    clone.put(1)
    clone.put(2)
    assert "[GNUPG:]" not in clone.git("log", "-1", "--format=%G?")
    running(monkeypatch, api_1=image("api", 2), worker=image("worker", 2))
    deploy, earlier = image_deploy.back(clone.workspace)
    assert deploy.wanted.images == both(1)
    assert "by Ada: version 1" in earlier.told


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\x1e"])
def test_a_subject_with_another_end_of_a_line_than_ours_is_one_line(clone: Clone, odd: str) -> None:
    clone.put(1)
    clone.put(2, commit=False)
    clone.git("commit", "--quiet", "--all", "--message", f"version{odd}2")
    clone.put(3, commit=False)
    _, earlier = image_deploy.back(clone.workspace, ask_engine=False)
    assert earlier.version.images == both(2), "nobody could go back any more"


def test_where_git_refuses_its_own_words_are_shown(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    clone.put(1)
    (clone.folder / ".git/HEAD").write_text("ref: nowhere\n")
    with pytest.raises(ProjectError, match=r"fatal: [\s\S]*make deploy API") as told:
        image_deploy.back(clone.workspace)
    assert "has no history in Git here" not in str(told.value), "there is one, and Git says why it is not read"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ProjectError, match=r"No such file[\s\S]*make deploy API"):
        image_deploy.back(clone.workspace)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ProjectError("the lock is lost"), OSError("disk")])
def test_a_deploy_that_is_cut_off_says_that_the_file_has_the_new_images(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    said: list[str] = []
    monkeypatch.setattr("host.progress.Reporter.say", lambda _, text: said.append(text))

    def up(_: Workspace, *, interactive: bool, agree: lifecycle_up.Agree) -> lifecycle_up.Upped:
        del interactive
        agree()
        raise error

    monkeypatch.setattr(image_deploy, "bring_up", up)
    with pytest.raises(type(error)):
        image_deploy.plan(clone.workspace, both(1)).run(None, interactive=False)
    assert clone.version.images == both(1)
    assert "Pulumi.prod.yaml has the new images. `make up ENV=prod` goes on" in said[-1], "the next `up` deploys them"

    def no() -> None:
        raise error

    said.clear()
    with pytest.raises(type(error)):
        image_deploy.plan(clone.workspace, both(2)).run(no, interactive=False)
    assert not any("has the new images" in each for each in said), "after a no nothing was written"


STRANGERS = {"worker": image("worker", 2), "frontend": image("frontend", 2)}
WAYS = {
    "worker": f"make deploy API={image('api', 3)} WORKER={image('worker', 1)} ENV=prod",
    "frontend": "make up ENV=prod",
}


@pytest.mark.parametrize("part", STRANGERS)
@pytest.mark.parametrize("option", ["--yes", "--dry-run"])
def test_a_deploy_from_a_clone_that_has_not_pulled_does_not_undo_what_a_colleague_has_deployed(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch, part: str, option: str
) -> None:
    clone.put(1)
    before = clone.file.read_text()
    monkeypatch.setattr("operations.lifecycle.preview.show_preview", lambda *_, **__: None)
    running(monkeypatch, api_1=image("api", 1), **{"worker": image("worker", 1), part: STRANGERS[part]})
    answer = typed(clone, monkeypatch, "deploy", "--api", image("api", 3), "--no-check", option)
    said = str(answer.exception)
    assert f"{part} runs registry.example.org/samokoder/{part}:2@sha256:222222222222" in said, "the list has api alone"
    assert "git pull" in said
    assert WAYS[part] in said, "whoever means it, whole"
    assert (clone.file.read_text(), ups.images) == (before, [])


def test_a_part_that_the_file_has_dropped_and_that_still_runs_has_a_way_out(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    running(monkeypatch, api_1=image("api", 1), worker=image("worker", 1), frontend=image("frontend", 2))
    answer = typed(clone, monkeypatch, "deploy", "--api", image("api", 3), "--no-check", "--yes")
    said = str(answer.exception)
    assert "frontend runs" in said
    assert "make up ENV=prod" in said
    assert "make deploy" not in said, "that is what was typed: it would be refused again, for ever"
    assert not ups.images


def test_what_is_named_is_replaced_whatever_runs_and_the_reference_application_is_nobodys_deploy(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    running(monkeypatch, api_1=image("api", 9), worker=image("worker", 1), frontend="samokoder-reference-app:0123")
    answer = typed(clone, monkeypatch, "deploy", "--api", image("api", 3), "--no-check", "--yes")
    assert answer.exit_code == 0, answer.exception
    assert clone.version.images == {"api": image("api", 3), "worker": image("worker", 1)}


def test_what_a_colleague_deploys_while_this_one_waits_for_the_lock_is_not_undone(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.put(1)
    running(monkeypatch, api_1=image("api", 1), worker=image("worker", 1))
    deploy = image_deploy.plan(clone.workspace, {"api": image("api", 3)})
    running(monkeypatch, api_1=image("api", 1), worker=image("worker", 2))
    with pytest.raises(ProjectError, match="worker runs"):
        deploy.run(None, interactive=False)
    assert not ups.images


def test_what_a_merged_pull_request_has_written_is_checked_when_a_person_deploys_it(
    clone: Clone, ups: Ups, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = list[str]()

    def check_image(_: Workspace, reference: str, kind: Any) -> report.Report:
        del kind
        checked.append(reference)
        return report.Report(title=reference, about={}, findings=[])

    monkeypatch.setattr("operations.checks.image.check_image.check_image", check_image)
    clone.put(1)
    running(monkeypatch, api_1=image("api", 9), api_2=image("api", 1), worker=image("worker", 1))
    answer = typed_both(clone, monkeypatch, "--yes")
    assert answer.exit_code == 0, answer.exception
    assert checked == [image("api", 1)], "what one of two replicas runs has not come up"
    running(monkeypatch)
    assert typed_both(clone, monkeypatch, "--yes").exit_code == 0
    assert checked[1:] == [image("api", 1), image("worker", 1)], "the job that wrote them has checked nothing"
    running(monkeypatch, api_1=image("api", 1), api_2=image("api", 1), worker=image("worker", 1))
    assert typed_both(clone, monkeypatch, "--yes").exit_code == 0
    assert len(checked) == 3, "what runs was checked before, and takes a minute each"
    assert len(ups.images) == 3


def test_without_a_version_before_that_is_said(clone: Clone) -> None:
    with pytest.raises(ProjectError, match="had no other images before"):
        image_deploy.back(clone.workspace)
    nowhere = Workspace(environment="prod", stack_files=clone.folder / "copy", isolated=True)
    (clone.folder / "copy").mkdir()
    (clone.folder / "copy/Pulumi.prod.yaml").write_text(clone.file.read_text())
    with pytest.raises(ProjectError, match="make deploy API"):
        image_deploy.back(nowhere)


CONTAINERD = {"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}
GRAPH_DRIVERS = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}


def an_engine(
    *,
    there: dict[str, list[str]] | None = None,
    digest: str = "",
    about: dict[str, Any] | None = None,
    refusal: str = "denied",
) -> Any:
    def get(reference: str) -> Any:
        if reference not in (there or {}):
            raise ImageNotFound(reference)
        return SimpleNamespace(id="sha256:" + "a" * 64, attrs={"RepoDigests": (there or {})[reference]})

    def get_registry_data(_: str, *, auth_config: object) -> Any:
        del auth_config
        if not digest:
            raise APIError(refusal, explanation=refusal)
        return SimpleNamespace(id=digest)

    images = SimpleNamespace(get=get, get_registry_data=get_registry_data)
    return SimpleNamespace(images=images, info=lambda: about or GRAPH_DRIVERS)


def test_a_tag_becomes_the_digest_that_the_registry_has_now() -> None:
    digest = "sha256:" + "b" * 64
    pulled = {"registry.example.org/api:1": ["registry.example.org/api@sha256:old"]}
    asked = registry.pinned(an_engine(there=pulled, digest=digest), "registry.example.org/api:1")
    assert asked == f"registry.example.org/api:1@{digest}", "the engine's copy of a tag may be an old one"
    assert registry.pinned(an_engine(), image("api", 1)) == image("api", 1), "what has a digest is not asked for"


def test_an_image_of_the_engine_alone_is_its_id_and_one_that_nobody_has_is_refused() -> None:
    assert registry.pinned(an_engine(there={"api:1": []}), "api:1") == "sha256:" + "a" * 64
    pulled = {"registry.example.org/api:1": ["registry.example.org/api@sha256:old"]}
    for engine in (an_engine(), an_engine(there=pulled)):
        with pytest.raises(ProjectError, match=r"docker login registry.example.org"):
            registry.pinned(engine, "registry.example.org/api:1")
    away = an_engine(there=pulled, about=CONTAINERD, refusal="no such host")
    with pytest.raises(ProjectError, match="no such host"):
        registry.pinned(away, "registry.example.org/api:1")
    with pytest.raises(ProjectError, match="neither a tag nor a digest"):
        registry.pinned(an_engine(), "registry.example.org/api")


ID = "sha256:" + "a" * 64


@pytest.mark.parametrize("about", [CONTAINERD, GRAPH_DRIVERS], ids=["containerd's store", "graph drivers"])
@pytest.mark.parametrize("name", ["registry.example.org/api:1", "samokoder/api:1", "api:1"])
@pytest.mark.parametrize("refusal", ["unauthorized: authentication required", "manifest unknown", "no such host"])
def test_an_image_whose_registry_does_not_answer_is_named_by_who_deploys_it(
    name: str, refusal: str, about: dict[str, Any]
) -> None:
    there = {name: [f"{name.partition(':')[0]}@{ID}"]}
    with pytest.raises(ProjectError) as error:
        registry.pinned(an_engine(there=there, about=about, refusal=refusal), name)
    said = str(error.value)
    assert ID in said, "what the engine has may be last week's, and may be what was built a minute ago"
    assert f"{name}@sha256:…" in said
    assert refusal in said


@pytest.mark.parametrize("name", ["samokoder/api:1", "api:1"])
def test_what_docker_hub_has_is_taken_only_where_it_cannot_be_a_strangers(name: str) -> None:
    hub, path = "sha256:" + "c" * 64, name.partition(":")[0]
    with pytest.raises(ProjectError, match="Docker Hub has another") as error:
        registry.pinned(an_engine(there={name: [f"{path}@{ID}"]}, digest=hub, about=CONTAINERD), name)
    assert f"{name}@{hub}" in str(error.value), "the tag may have gone to a newer image"
    assert ID in str(error.value), "somebody on Docker Hub may have the name of what was built here"
    for engine in (an_engine(digest=hub), an_engine(there={name: [f"{path}@{hub}"]}, digest=hub, about=CONTAINERD)):
        assert registry.pinned(engine, name) == f"{name}@{hub}"


def test_a_registry_of_ones_own_is_believed_on_containerds_store_too() -> None:
    name, pushed = "registry.example.org/api:1", "sha256:" + "b" * 64
    engine = an_engine(there={name: [f"registry.example.org/api@{ID}"]}, digest=pushed, about=CONTAINERD)
    assert registry.pinned(engine, name) == f"{name}@{pushed}", "the engine's copy may be last week's"
