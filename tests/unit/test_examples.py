"""The workflows for the application's repository: their own lines, run in a clone, with a stand-in for GitHub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from operations.delivery.image_deploy import Version
from operations.workspace import stack_file
from tests.recording import ROOT
from tests.unit.operations.cli.test_asking import CONFIG

EXAMPLES = ROOT / "docs/examples"
NAMES = ("propose-images", "deploy-to-staging")
HANDED_OVER = "a-token-of-the-platforms-repository"


def workflow(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yml").read_text(encoding="utf-8"))
    return document


def steps(name: str) -> list[dict[str, Any]]:
    (job,) = workflow(name)["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_pinned_as_our_own_workflows_are_and_may_nothing(name: str) -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yml")} == set(NAMES)
    own = "".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github/workflows").glob("*.yml"))
    text = (EXAMPLES / f"{name}.yml").read_text(encoding="utf-8")
    for used in re.findall(r"uses: (.*)", text):
        assert f"uses: {used}\n" in own, "one version of an action everywhere"
    (job,) = workflow(name)["jobs"].values()
    assert workflow(name)["permissions"] == job["permissions"] == {}
    assert steps(name)[0]["with"]["persist-credentials"] is False
    assert not re.search(r"run:[^\n]*\$\{\{", text), "what a caller gives would be run as a program"
    page = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
    assert f"examples/{name}.yml" in page


PROGRAM = f'#!/bin/sh\nexec {sys.executable} -m operations "$@"\n'
# The shell alone: Python starts in a second, and what most tests ask is which commit is made on which.
WRITER = """#!/bin/sh
[ "$1 $2 $4 $6 $8" = "deploy --env --api --worker --write-only" ] || exit 2
printf 'config:\\n  samokoder:api: {image: "%s"}\\n  samokoder:worker: {image: "%s"}\\n' "$5" "$7" >"Pulumi.$3.yaml"
"""


@dataclass
class Platform:
    """The platform's repository, and what its stand-in for GitHub was asked."""

    folder: Path
    program: str = WRITER
    """What `.venv/bin/samokoder` is in a clone."""

    @property
    def repository(self) -> Path:
        return self.folder / "platform.git"

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.repository, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def version(self, branch: str, environment: str) -> Version:
        return Version.of(yaml.safe_load(self.git("show", f"{branch}:Pulumi.{environment}.yaml")))

    def asked(self) -> str:
        log = self.folder / "asked"
        return log.read_text() if log.exists() else ""

    def add(self, subject: str, *, amend: bool = False, merge: bool = False) -> str:
        """Have a colleague put a commit on the branch of the open pull request, or change the one there; return it.

        merge: the commit merges what main has got meanwhile, and has an edit of its own.
        """
        clone = self.folder / f"colleague-{len(list(self.folder.glob('colleague-*')))}"
        subprocess.run(["git", "clone", "--quiet", "--branch", "images", self.repository, clone], check=True)
        (clone / "notes.txt").write_text(subject)
        person = ("-c", "user.name=Grace", "-c", "user.email=grace@example.org")
        if merge:
            tree = self.git("rev-parse", "main^{tree}")
            main = self.git(*person, "commit-tree", tree, "-p", "main", "-m", "Something else")
            self.git("update-ref", "refs/heads/main", main)
            subprocess.run(["git", "fetch", "--quiet", "origin"], cwd=clone, check=True)
            words = ("merge", "--quiet", "--no-ff", "--no-commit", "origin/main")
            subprocess.run(["git", *person, *words], cwd=clone, check=True)
        subprocess.run(["git", "add", "notes.txt"], cwd=clone, check=True)
        how = ("--amend", "--no-edit") if amend else ("--message", subject)
        subprocess.run(["git", *person, "commit", "--quiet", *how], cwd=clone, check=True)
        subprocess.run(["git", "push", "--quiet", "--force", "origin", "images"], cwd=clone, check=True)
        return self.git("rev-parse", "images")

    def run(
        self,
        name: str,
        number: int,
        *,
        build: str = "build",
        ref: str = "refs/heads/main",
        fails: bool = False,
        meanwhile: Callable[[], object] | None = None,
    ) -> str:
        """Run an example's steps as a job of GitHub's does; return what it says.

        number: of the run, and in its images. build, ref: the workflow that calls the example, and its branch. fails:
        its last step does. meanwhile: happens after the clone is made.
        """
        clone = self.folder / f"clone-{len(list(self.folder.glob('clone-*')))}"
        subprocess.run(["git", "clone", "--quiet", self.repository, clone], check=True)
        if meanwhile:
            meanwhile()
        program = clone / ".venv/bin/samokoder"
        program.parent.mkdir(parents=True)
        program.write_text(self.program)
        program.chmod(0o755)
        images = {part: f"registry.example.org/{part}:{number}@sha256:{number:064x}" for part in ("api", "worker")}
        said, steps_of = "", steps(name)
        for step in steps_of:
            if "run" not in step or step["run"] == "./bootstrap":
                continue
            variables = {
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "GITHUB_ACTOR": "ada",
                "GITHUB_REPOSITORY": "team/application",
                "GITHUB_SHA": "0123456789abcdef",
                "GITHUB_WORKFLOW_REF": f"team/application/.github/workflows/{build}.yml@{ref}",
                "GITHUB_RUN_NUMBER": str(number),
                **{key: str(value) for key, value in step.get("env", {}).items()},
            }
            variables |= {key: images[key.lower()] for key in ("API", "WORKER") if key in variables}
            variables |= {"GH_TOKEN": HANDED_OVER} if "GH_TOKEN" in variables else {}
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]], cwd=clone, env=variables, capture_output=True, text=True, check=False
            )
            expected = fails and step is steps_of[-1]
            assert (done.returncode != 0) is expected, f"{step.get('name')}:\n{done.stdout}{done.stderr}"
            said += done.stdout + done.stderr
        assert HANDED_OVER not in (clone / ".git/config").read_text() + said, "a token that stays is somebody else's"
        return said


def repository(folder: Path, *, whole: bool) -> Path:
    """Make a platform's repository in an empty folder. whole: with the programs of the command."""
    tree, made = folder / "tree", folder / "platform.git"
    tree.mkdir()
    for name in ("operations", "stack", "offline", "host") if whole else ():
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "go"))
    for file in (".gitignore", "Pulumi.yaml", "Pulumi.staging.yaml"):
        shutil.copy(ROOT / file, tree)
    (tree / "Pulumi.prod.yaml").write_text(stack_file.dump({"config": CONFIG}, source="a test"))
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "begun")):
        subprocess.run(["git", *author, *words], cwd=tree, check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", tree, made], check=True)
    return made


def with_github(platform: Platform) -> Platform:
    """Give a platform its stand-in for GitHub, and a home in which Git waits for no disk."""
    folder = platform.folder
    (folder / ".gitconfig").write_text("[core]\n\tfsync = none\n")
    gh = folder / "bin/gh"
    gh.parent.mkdir()
    # A second pull request of one branch is refused.
    gh.write_text(
        f'#!/bin/sh\ncase "$*" in "pr create"*) grep -q "pr create" {folder}/asked && exit 1 ;; esac\n'
        f'echo "$*" >> {folder}/asked\n'
    )
    gh.chmod(0o755)
    return platform


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform's repository with nothing but its stack files, to be copied."""
    return repository(tmp_path_factory.mktemp("begun"), whole=False)


@pytest.fixture
def platform(begun: Path, tmp_path: Path) -> Platform:
    """A platform whose command only writes images into a stack file."""
    made = Platform(tmp_path)
    shutil.copytree(begun, made.repository)
    return with_github(made)


@pytest.fixture
def whole_platform(tmp_path: Path) -> Platform:
    """A platform with the command itself."""
    repository(tmp_path, whole=True)
    return with_github(Platform(tmp_path, PROGRAM))


def test_a_pull_request_with_the_images_of_both_environments_is_opened_and_then_renewed(
    whole_platform: Platform,
) -> None:
    main = whole_platform.git("rev-parse", "main")
    for number in (1, 2):
        whole_platform.run("propose-images", number)
        for environment in ("staging", "prod"):
            images = whole_platform.version("images", environment).images
            assert set(images) == {"api", "worker"}
            assert images["api"].startswith(f"registry.example.org/api:{number}@sha256:")
    assert whole_platform.git("rev-parse", "main") == main, "nobody has approved it yet"
    assert whole_platform.git("diff", "--name-only", "main", "images").split() == [
        "Pulumi.prod.yaml",
        "Pulumi.staging.yaml",
    ]
    asked = whole_platform.asked()
    assert asked.count("pr create --fill --head images") == 1
    assert "pr edit images --title Deploy the images of team/application@0123456789ab" in asked
    assert HANDED_OVER not in asked


@pytest.mark.parametrize("amend", [False, True], ids=["beside ours", "ours, changed"])
def test_a_commit_of_a_colleague_on_the_branch_is_not_replaced(platform: Platform, *, amend: bool) -> None:
    platform.run("propose-images", 1)
    theirs = platform.add("Raise the memory", amend=amend)
    said = platform.run("propose-images", 2, fails=True)
    assert platform.git("rev-parse", "images") == theirs, "a person's work is gone, and nobody is told"
    assert "::error::Branch images has commits of others" in said
    assert f"{theirs[:7]} {'ada' if amend else 'Grace'}: " in said, "whose, and which"
    assert HANDED_OVER not in platform.asked()


def test_what_a_colleague_has_edited_while_merging_is_not_replaced(platform: Platform) -> None:
    platform.run("propose-images", 1)
    theirs = platform.add("Resolve the conflict", merge=True)
    said = platform.run("propose-images", 2, fails=True)
    assert platform.git("rev-parse", "images") == theirs, "the edits are in the merge commit alone"
    assert "or of an earlier version of this job" in said


def test_a_commit_that_comes_while_the_job_runs_is_not_replaced(platform: Platform) -> None:
    platform.run("propose-images", 1)
    platform.run("propose-images", 2, fails=True, meanwhile=lambda: platform.add("Raise the memory"))
    assert platform.git("log", "-1", "--format=%s", "images") == "Raise the memory"


def test_a_branch_whose_pull_request_was_merged_begins_anew(platform: Platform) -> None:
    platform.run("propose-images", 1)
    platform.add("Raise the memory")
    platform.git("update-ref", "refs/heads/main", "images")
    platform.run("propose-images", 2)
    assert platform.git("log", "--format=%s", "main..images").count("\n") == 0, "one commit, on what is merged"
    assert platform.version("images", "prod").images["api"].startswith("registry.example.org/api:2@")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_how_a_build_calls_an_example(name: str) -> None:
    page = (ROOT / "docs/delivery.md").read_text(encoding="utf-8")
    calls = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    (call,) = (job for each in calls for job in each.get("jobs", {}).values() if "uses" in job)
    assert call["secrets"] == "inherit", "without it a called workflow gets an empty secret of its environment"
    triggers = {str(key): value for key, value in workflow(name).items()}["True"]  # as YAML reads `on`
    assert set(call["with"]) == set(triggers["workflow_call"]["inputs"])


def test_staging_gets_its_images_by_a_commit_to_main_and_production_stays(whole_platform: Platform) -> None:
    before = whole_platform.git("rev-parse", "main")
    whole_platform.run("deploy-to-staging", 1)
    assert whole_platform.git("diff", "--name-only", before, "main").split() == ["Pulumi.staging.yaml"]
    assert set(whole_platform.version("main", "staging").images) == {"api", "worker"}
    after = whole_platform.git("rev-parse", "main")
    assert "already" in whole_platform.run("deploy-to-staging", 1)
    assert whole_platform.git("rev-parse", "main") == after, "an empty commit would deploy again"


def test_an_older_run_that_is_run_again_after_a_newer_one_does_not_deploy_to_staging(platform: Platform) -> None:
    platform.run("deploy-to-staging", 9)
    platform.run("deploy-to-staging", 10)
    newer = platform.git("rev-parse", "main")
    said = platform.run("deploy-to-staging", 9, fails=True)
    assert platform.git("rev-parse", "main") == newer, "deploy.yml takes it for a newer commit, and calls it good"
    assert "::error::Run 10 has deployed newer images than this run, 9." in said


@pytest.mark.parametrize("merged", ["not yet", "with its commit", "squashed"])
def test_an_older_run_that_is_run_again_after_a_newer_one_proposes_nothing(platform: Platform, merged: str) -> None:
    platform.run("propose-images", 10)
    if merged == "with its commit":
        platform.git("update-ref", "refs/heads/main", "images")
    if merged == "squashed":
        message = platform.git("log", "-1", "--format=%B", "images")
        person = ("-c", "user.name=Grace", "-c", "user.email=grace@example.org")
        squashed = platform.git(*person, "commit-tree", "images^{tree}", "-p", "main", "-m", message)
        platform.git("update-ref", "refs/heads/main", squashed)
        platform.git("update-ref", "-d", "refs/heads/images")
    said = platform.run("propose-images", 9, fails=True)
    branch = "main" if merged == "squashed" else "images"
    assert platform.version(branch, "prod").images["api"].startswith("registry.example.org/api:10@")
    assert "::error::Run 10 has proposed newer images than this run, 9." in said


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("{} 10\r", True),
        ("  {} 10", True),
        ("* {} 10  ", True),
        ("{} 12abc", False),
        ("{} 99999999999999999999", False),
        ("We leave {} 10", False),
    ],
)
def test_the_line_of_a_newer_run_is_found_as_a_squash_or_a_person_left_it(
    platform: Platform, name: str, line: str, *, refused: bool
) -> None:
    trailer = line.format("Images-Of: team/application/.github/workflows/build.yml")
    message = f"Deploy the images\n\n{trailer}\n"
    person = ("-c", "user.name=Grace", "-c", "user.email=grace@example.org")
    commit = platform.git(*person, "commit-tree", "main^{tree}", "-p", "main", "-m", message)
    platform.git("update-ref", "refs/heads/main", commit)
    assert ("::error::Run 10 has" in platform.run(name, 9, fails=refused)) is refused, "older images would come back"


@pytest.mark.parametrize("name", NAMES)
def test_an_older_run_of_a_branch_with_an_at_sign_is_refused(platform: Platform, name: str) -> None:
    platform.run(name, 10, ref="refs/heads/release@2")
    assert "::error::Run 10 has" in platform.run(name, 9, ref="refs/heads/main", fails=True), "it is one workflow"


def test_the_runs_of_another_workflow_have_numbers_of_their_own(platform: Platform) -> None:
    platform.run("deploy-to-staging", 10)
    platform.run("deploy-to-staging", 1, build="release")
    assert platform.version("main", "staging").images["api"].startswith("registry.example.org/api:1@")
