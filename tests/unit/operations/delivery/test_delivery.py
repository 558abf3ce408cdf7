"""Deploys as CI runs them: real Git clones and worktrees; `samokoder` is a stand-in that fails where it is told to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from operations.clone import ROOT
from operations.delivery import commit_deploy, history
from operations.delivery.commit_deploy import CommitDeploy, check_machine, untried_images
from operations.delivery.history import MIGRATIONS, commit_of, newer_commit, way_back
from operations.errors import ProjectError, PulumiFailedError
from operations.workspace import lock
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.spec.rotation import IN_USE, PHASES, label, slots_of
from stack.spec.secrets import OPENS_WHAT_IS_KEPT

DIGEST = "sha256:" + "ab" * 32
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"

#: What a commit of the clone is made of: `bootstrap` makes a `samokoder` that notes its calls and its version, and
#: whose smoke test fails where the version says so.
BOOTSTRAP = """#!/bin/sh
mkdir -p .venv/bin
cat >.venv/bin/samokoder <<END
#!/bin/sh
echo "$(cat version) $ENV \\$* \\$PULUMI_BACKEND_URL \\$SAMOKODER_LOCK \\$OTHER_KEY" >>"\\$CALLS"
case "$(cat version) \\$1" in *bad-\\$1*) exit 1 ;; esac
END
chmod +x .venv/bin/samokoder
"""


class Clone:
    """A repository with a history, each commit a version of the product."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / "bootstrap").write_text(BOOTSTRAP)
        (folder / "bootstrap").chmod(0o755)
        (folder / ".gitignore").write_text("/.venv/\n/build/\n/calls\n")
        (folder / "stack").mkdir()

    def git(self, *words: str) -> str:
        author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(["git", *author, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(
        self,
        version: str,
        *,
        config: str = "config: {}\n",
        postgres: str = "15.19",
        migration: str = "",
        others: Sequence[str] = (),
    ) -> str:
        (self.folder / "version").write_text(version)
        (self.folder / "Pulumi.staging.yaml").write_text(config)
        images = [f"postgres:{postgres}@{DIGEST}", "redis:7.4", *others]
        (self.folder / "stack" / "images.py").write_text("".join(f'reference="{image}"\n' for image in images))
        if migration:
            (self.folder / MIGRATIONS).mkdir(parents=True, exist_ok=True)
            (self.folder / MIGRATIONS / migration).write_text("")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", version)
        return self.git("rev-parse", "HEAD")

    def calls(self) -> list[str]:
        """What was run: version, environment, command."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [" ".join(line.split()[:3]) for line in lines]


class Pulumi:
    """What a deploy asks Pulumi for: the tags of the stack, and its state."""

    def __init__(self, good: str = "", last: str = "", **others: str) -> None:
        self.noted = {commit_deploy.GOOD_COMMIT: good, commit_deploy.LAST_COMMIT: last, **others}
        self.moved = self.silent = False
        self.outputs: dict[str, object] = {}
        self.others: list[dict[str, object]] = []

    @property
    def good(self) -> str:
        return self.noted[commit_deploy.GOOD_COMMIT]

    def tags(self) -> dict[str, str]:
        if self.silent:
            raise PulumiFailedError("`pulumi stack tag` failed")
        return dict(self.noted)

    def refuse_moved(self) -> None:
        if self.moved:
            raise ProjectError("The state was moved")

    def deployment(self) -> dict[str, object]:
        return {"resources": [{"type": "pulumi:pulumi:Stack", "outputs": self.outputs}, *self.others]}

    def pulumi(self, *words: str, **_: object) -> subprocess.CompletedProcess[str]:
        assert words[:3] == ("stack", "tag", "set"), words
        self.noted[words[3]] = words[4]
        return subprocess.CompletedProcess(words, 0, "", "")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "a clone")


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the lock was taken for; what is run must know that it is held."""
    taken: list[str] = []

    @contextmanager
    def hold(workspace: Workspace, doing: str, **_: str) -> Iterator[Workspace]:
        taken.append(doing)
        yield replace(workspace, variables={**workspace.variables, lock.VARIABLE: "held"})

    monkeypatch.setattr(lock, "held", hold)
    monkeypatch.setattr(Workspace, "engine", lambda _: SimpleNamespace(docker_host="unix:///engine"))
    return taken


def deploy(clone: Clone, pulumi: Pulumi, said: list[str] | None = None) -> str:
    variables = {**os.environ, "CALLS": str(clone.folder / "calls")}
    workspace = Workspace(environment="staging", root=clone.folder, variables=variables)
    said = [] if said is None else said
    run = CommitDeploy(workspace=workspace, run=cast("PulumiRun", pulumi), say=said.append)
    return run(junit=clone.folder / "build" / "smoke.xml").said


def test_the_version_before_works_with_the_same_state_although_its_pulumi_yaml_names_none(clone: Clone) -> None:
    good = clone.commit("one")
    (clone.folder / "Pulumi.yaml").write_text("backend: {url: s3://of-the-team}\n")
    clone.commit("bad-smoke")
    with pytest.raises(ProjectError, match="again, which is good"):
        deploy(clone, Pulumi(good=good))
    lines = (clone.folder / "calls").read_text().splitlines()
    assert len(lines) == 4
    assert {line.split()[-2] for line in lines} == {"s3://of-the-team"}, "it would begin with an empty state"


def test_a_deploy_holds_the_lock_from_its_beginning_to_its_end(clone: Clone, held: list[str]) -> None:
    clone.commit("one")
    deploy(clone, Pulumi())
    assert held == ["deploy"]
    lines = (clone.folder / "calls").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["held", "held"], "its own `up` would be refused"


def test_a_state_that_moved_while_a_deploy_waited_for_the_lock_is_not_written_to(clone: Clone) -> None:
    clone.commit("one")
    pulumi = Pulumi()
    pulumi.moved = True
    with pytest.raises(ProjectError, match="was moved"):
        deploy(clone, pulumi)
    assert not any(pulumi.noted.values()), "the commit would be noted where nobody looks any more"
    assert not clone.calls()


def test_a_commit_with_another_key_than_the_one_in_use_is_not_even_begun(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = clone.commit("one")
    clone.commit("another key")
    pulumi = Pulumi(good)
    asked: list[object] = []

    def refuse(_workspace: Workspace, _run: object, deployment: object) -> None:
        asked.append(deployment)
        raise ProjectError("Pulumi.staging.yaml changes which secret is in use, so nothing was changed")

    monkeypatch.setattr("operations.workspace.kept_secrets.refuse_others", refuse)
    with pytest.raises(ProjectError, match="nothing was changed"):
        deploy(clone, pulumi)
    assert asked == [pulumi.deployment()]
    assert not clone.calls(), "a refused `up` would have an older program go back, which puts its own key in place"
    assert pulumi.noted[commit_deploy.LAST_COMMIT] == ""


def test_a_merge_that_lacks_a_rotation_deploys_nothing_and_is_no_fault_of_the_version(clone: Clone) -> None:
    good = clone.commit("one")
    clone.commit("two")
    pulumi = Pulumi(good)
    rotated = slots_of("secret_key", 2, "")
    in_use = {IN_USE: {"secret-key": label(rotated.in_use)}, PHASES: {}}
    pulumi.others = [{"type": "samokoder:platform:Secrets", "urn": "u::secret", "outputs": in_use}]
    pulumi.others += [
        {
            "type": "random:index/randomPassword:RandomPassword",
            "urn": f"u::secret-{label(slot)}",
            "inputs": {"keepers": {"generation": str(each)}},
        }
        for slot, each in rotated.generations.items()
    ]
    with pytest.raises(ProjectError, match=r"nothing was changed:\n  secret-key") as refused:
        deploy(clone, pulumi)
    assert "Look at once" not in str(refused.value), "somebody is woken although all runs as before"
    assert clone.calls() == [], "an older program, which the way back runs, may undo the rotation"
    assert pulumi.noted[commit_deploy.LAST_COMMIT] == ""


@pytest.mark.parametrize("older", [False, True])
def test_a_merge_that_drops_the_line_of_production_deploys_nothing(clone: Clone, *, older: bool) -> None:
    good = clone.commit("one")
    clone.commit("two")
    pulumi = Pulumi(good)
    # A version before this output shows it by the volumes, which only production retains.
    pulumi.outputs = {} if older else {"production": True}
    volume = {"type": "docker:index/volume:Volume", "urn": "u::data-postgres", "outputs": {"name": "postgres"}}
    pulumi.others = [{**volume, "retainOnDelete": True}]
    with pytest.raises(ProjectError, match=r"was brought up as production.* Nothing was changed") as refused:
        deploy(clone, pulumi)
    assert clone.calls() == [], "its volumes would lose what keeps them, and no person was asked"
    assert "by hand: NO_PRODUCTION=staging make up" in str(refused.value), "who means it has a way"
    assert pulumi.noted[commit_deploy.LAST_COMMIT] == ""
    pulumi.outputs = {"production": False}
    assert "and good" in deploy(clone, pulumi), "a person has brought it up as no production since"


def test_a_job_of_a_commit_from_before_the_promotion_is_told_that_it_is_old(clone: Clone) -> None:
    old, newer = clone.commit("one"), clone.commit("two", config="config:\n  samokoder:production: true\n")
    pulumi = Pulumi(newer)
    pulumi.outputs = {"production": True}
    clone.git("checkout", "--quiet", "--detach", old)
    with pytest.raises(ProjectError, match=r"newer than .*: nothing was changed") as refused:
        deploy(clone, pulumi)
    assert "make up" not in str(refused.value), "who types that makes production a trial"
    assert clone.calls() == []


def test_a_good_commit_is_deployed_and_noted(clone: Clone) -> None:
    commit, pulumi = clone.commit("one"), Pulumi()
    assert "good" in deploy(clone, pulumi)
    assert clone.calls() == ["one staging up", "one staging smoke"], "what is up is looked at before it is called good"
    assert pulumi.good == commit, "the next deploy goes back to this one"


@pytest.mark.parametrize("fault", ["bad-smoke", "bad-up"])
def test_a_bad_commit_goes_back_to_the_last_good_one_with_that_ones_program(clone: Clone, fault: str) -> None:
    good = clone.commit("one")
    clone.commit("never-deployed")
    clone.commit(fault)
    pulumi = Pulumi(good)
    with pytest.raises(ProjectError, match=r"runs .* again, which is good"):
        deploy(clone, pulumi)
    assert clone.calls()[-2:] == ["one staging up", "one staging smoke"], (
        "back to what was good here, not to the commit before, and looked at as well"
    )
    assert pulumi.good == good, "a bad commit is never noted as good"
    assert clone.git("worktree", "list").count("\n") == 0, "what was checked out for it is removed again"
    assert clone.git("status", "--porcelain") == "", "the clone is as it was"


def test_the_report_of_the_bad_commit_is_kept_beside_that_of_going_back(clone: Clone) -> None:
    good = clone.commit("one")
    clone.commit("bad-smoke")
    with pytest.raises(ProjectError):
        deploy(clone, Pulumi(good))
    lines = [line.split() for line in (clone.folder / "calls").read_text().splitlines() if "junit" in line]
    reports = [word.rpartition("/")[2] for words in lines for word in words if word.endswith(".xml")]
    assert reports == ["smoke.xml", "smoke-after-going-back.xml"], "why it was bad must still be there afterwards"


def test_a_good_commit_that_is_no_longer_good_is_said_to_be_so(clone: Clone) -> None:
    good = clone.commit("bad-smoke of a dependency")
    clone.commit("bad-smoke")
    with pytest.raises(ProjectError, match=r"Neither is .* Look at once"):
        deploy(clone, Pulumi(good))


def test_without_a_good_commit_the_bad_one_stays_and_the_failure_says_why(clone: Clone) -> None:
    clone.commit("bad-smoke")
    with pytest.raises(ProjectError, match="no commit has passed"):
        deploy(clone, Pulumi())
    assert clone.calls() == ["bad-smoke staging up", "bad-smoke staging smoke"], "nothing else is tried"


def test_the_same_commit_is_not_gone_back_to(clone: Clone) -> None:
    commit = clone.commit("one")
    back = way_back(clone.folder, "staging", good=commit, current=commit)
    assert not back.commit, "deploying it again would change nothing"
    assert "not in the program" in back.why


def test_there_is_no_way_back_over_a_rotated_secret(clone: Clone) -> None:
    good = clone.commit("one")
    current = clone.commit("two", config="config:\n  samokoder:rotation:\n    postgresApp: 2\n")
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "the old password would come back, and the servers no longer know it"
    assert "rotated" in back.why


@pytest.mark.parametrize("said", ["true", "'true'"])
def test_there_is_no_way_back_over_a_promotion(clone: Clone, said: str) -> None:
    good = clone.commit("one")
    current = clone.commit("two", config=f"config:\n  samokoder:production: {said}\n")
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "a person made it production; its volumes would lose what keeps them, and nobody is asked"
    assert "became production" in back.why
    also = clone.commit("three", config="config:\n  samokoder:production: true\n  samokoder:domain: a.example\n")
    assert way_back(clone.folder, "staging", good=current, current=also).commit == current


@pytest.mark.parametrize(
    "key", ["secretKey", "appSecretKey", "postgresSuperuserPassword", "backupEncryptionKey", "appSecretKeyForm"]
)
def test_there_is_no_way_back_over_another_configured_key(clone: Clone, key: str) -> None:
    values = ("text", "fernet") if key.endswith("Form") else ("{secure: v1:a}", "{secure: v1:b}")
    good, current = (clone.commit(each, config=f"config:\n  samokoder:{key}: {each}\n") for each in values)
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "what is stored meanwhile could not be opened, or a leaked key would be good again"
    assert f"samokoder:{key}" in back.why
    same = clone.commit("same", config=f"config:\n  samokoder:{key}: {values[1]}\n")
    assert way_back(clone.folder, "staging", good=current, current=same).commit == current


def test_the_key_that_a_deploy_may_change_is_not_one_that_going_back_may(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "secret-key")
    good = clone.commit("one")
    clone.commit("bad-smoke")
    with pytest.raises(ProjectError, match="again, which is good"):
        deploy(clone, Pulumi(good=good))
    lines = (clone.folder / "calls").read_text().splitlines()
    meant = {line.split()[0]: line.endswith(" secret-key") for line in lines if " up " in line}
    assert meant == {"bad-smoke": True, "one": False}, "the older commit's key would be taken without a word"


def test_an_older_commit_than_the_good_one_is_refused_before_anything_changes(clone: Clone) -> None:
    old, newer = clone.commit("one"), clone.commit("two")
    pulumi = Pulumi(newer)
    clone.git("checkout", "--quiet", "--detach", old)
    with pytest.raises(ProjectError, match=r"newer than .*: nothing was changed"):
        deploy(clone, pulumi)
    assert clone.calls() == [], "a failed job that is run again would take what was merged since down, without a word"
    assert pulumi.good == newer, "and would note the old commit as the good one"


def test_where_the_state_cannot_say_what_was_deployed_nothing_is(clone: Clone) -> None:
    old, newer = clone.commit("one"), clone.commit("two")
    pulumi = Pulumi(newer, newer)
    pulumi.silent = True
    clone.git("checkout", "--quiet", "--detach", old)
    with pytest.raises(PulumiFailedError, match="stack tag"):
        deploy(clone, pulumi)
    assert clone.calls() == [], "a bucket that is away for a second would switch off what refuses an older commit"
    assert pulumi.good == newer


def test_an_older_commit_than_one_that_was_begun_and_stayed_is_refused(clone: Clone) -> None:
    good, old = clone.commit("one"), clone.commit("two")
    clone.commit("bad-smoke", postgres="16.4")
    pulumi = Pulumi(good)
    with pytest.raises(ProjectError, match="postgres went from 15 to 16"):
        deploy(clone, pulumi)
    clone.git("checkout", "--quiet", "--detach", old)
    with pytest.raises(ProjectError, match="nothing was changed"):
        deploy(clone, pulumi)
    assert len(clone.calls()) == 2, "PostgreSQL 15 would be started on the data folder of 16"


def test_after_going_back_every_commit_since_the_good_one_may_be_deployed(clone: Clone) -> None:
    good, between = clone.commit("one"), clone.commit("two")
    clone.commit("bad-up")
    pulumi = Pulumi(good)
    with pytest.raises(ProjectError, match="which is good"):
        deploy(clone, pulumi)
    clone.git("checkout", "--quiet", "--detach", between)
    assert "and good" in deploy(clone, pulumi), "what runs is older than it"


def test_a_revert_is_a_new_commit_and_is_deployed(clone: Clone) -> None:
    clone.commit("one")
    newer = clone.commit("two")
    clone.git("revert", "--no-edit", newer)
    pulumi = Pulumi(newer, newer)
    assert "and good" in deploy(clone, pulumi)
    assert clone.calls()[-2:] == ["one staging up", "one staging smoke"], "this is how a bad change is undone"
    assert pulumi.good == clone.git("rev-parse", "HEAD")


def test_the_same_commit_may_be_deployed_again(clone: Clone) -> None:
    commit = clone.commit("one")
    assert "and good" in deploy(clone, Pulumi(commit, commit)), "a job that died half way is run again"


def test_a_clone_that_cannot_tell_whether_a_commit_is_older_deploys_nothing(clone: Clone, tmp_path: Path) -> None:
    commit, newer = clone.commit("one"), clone.commit("two")
    with pytest.raises(ProjectError, match="cannot be told"):
        newer_commit(clone.folder, noted=["f" * 40], current=commit)
    shallow = tmp_path / "shallow"
    clone.git("clone", "--quiet", "--depth=1", clone.folder.as_uri(), str(shallow))
    (shallow / "version").write_text("three")
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--all", "--message=three"],
        cwd=shallow,
        check=True,
    )
    with pytest.raises(ProjectError, match="cannot be told"):
        newer_commit(shallow, noted=[newer], current=commit_of(shallow))


def test_there_is_no_way_back_to_a_commit_that_was_never_the_head_of_the_branch(clone: Clone) -> None:
    clone.commit("one")
    clone.git("checkout", "--quiet", "-b", "somebodys")
    elsewhere = clone.commit("pushed by anybody")
    clone.git("checkout", "--quiet", "main")
    current = clone.commit("bad-smoke")
    pulumi = Pulumi(elsewhere)
    with pytest.raises(ProjectError, match="never the head of this branch"):
        deploy(clone, pulumi)
    assert clone.calls() == ["bad-smoke staging up", "bad-smoke staging smoke"], (
        "whoever may write the state would choose which program runs with all secrets"
    )
    clone.git("merge", "--quiet", "--no-ff", "--strategy=ours", "--message=merge", "somebodys")
    merged = clone.git("rev-parse", "HEAD")
    assert not way_back(clone.folder, "staging", good=elsewhere, current=merged).commit, (
        "a commit in the middle of a merged branch was looked at by nobody"
    )
    assert way_back(clone.folder, "staging", good=current, current=merged).commit == current


def test_a_tag_that_names_no_commit_is_not_given_to_git(clone: Clone, tmp_path: Path) -> None:
    clone.commit("bad-smoke")
    stolen = tmp_path / "written"
    with pytest.raises(ProjectError, match="no commit has passed"):
        deploy(clone, Pulumi(f"--output={stolen}"))
    assert not list(tmp_path.glob("written*")), "Git takes a word that begins with two hyphens for an option"


@pytest.mark.parametrize(
    "newer",
    [
        {"postgres": "16.4"},
        {"config": f"config:\n  samokoder:images:\n    postgres: example.org:5000/db/postgres:16@{DIGEST}\n"},
    ],
)
def test_there_is_no_way_back_over_a_new_major_version_of_the_database(clone: Clone, newer: dict[str, str]) -> None:
    good, current = clone.commit("one"), clone.commit("two", **newer)
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "PostgreSQL 15 does not start on a data folder of 16"
    assert "postgres went from 15 to 16" in back.why


@pytest.mark.parametrize(
    ("part", "image", "major"),
    [("grafana", "grafana/grafana:{}.2.3", (12, 13)), ("prometheus", "prom/prometheus:v{}.13.4", (2, 3))],
)
def test_there_is_no_way_back_over_a_new_major_version_of_what_migrates_its_own_data(
    clone: Clone, part: str, image: str, major: tuple[int, int]
) -> None:
    before, now = major
    lacking = clone.commit("none")
    good = clone.commit("one", others=[image.format(before)])
    back = way_back(clone.folder, "staging", good=lacking, current=good)
    assert back.commit == lacking, "a program without the part never opens its data"
    current = clone.commit("two", others=[image.format(now)])
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "the older one would be started on a database that the newer one has migrated"
    assert f"{part} went from {before} to {now}" in back.why
    minor = clone.commit("three", others=[image.format(now).replace(".2.3", ".3.0")])
    assert way_back(clone.folder, "staging", good=current, current=minor).commit == current


def test_the_real_images_of_what_keeps_data_are_found_in_the_program() -> None:
    for part, version in (("postgres", "15"), ("redis", "7.4"), ("grafana", "13"), ("prometheus", "3")):
        found = history._data_version(ROOT, "HEAD", {}, part)
        assert found == version, "an image that is not found is one whose version never changes"


def test_there_is_no_way_back_over_a_minor_version_of_redis(clone: Clone) -> None:
    def redis(minor: str) -> str:
        return f"config:\n  samokoder:images:\n    redis: example.org/redis:7.{minor}@{DIGEST}\n"

    good, current = clone.commit("one", config=redis("2.5")), clone.commit("two", config=redis("4.1"))
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "Redis 7.2 cannot read the file that 7.4 has written"
    assert "redis went from 7.2 to 7.4" in back.why
    newest = clone.commit("three", config=redis("4.2"))
    assert way_back(clone.folder, "staging", good=current, current=newest).commit == current


def test_there_is_no_way_back_to_a_program_that_would_delete_a_protected_secret(clone: Clone) -> None:
    program = clone.folder / "stack" / "secrets.py"
    offsite = "samokoder:backup: {offsite: {endpoint: 'https://s3.example.org', bucket: backups}}"
    keys = "samokoder:s3AccessKeyId: {secure: v1:x}\n  samokoder:s3SecretAccessKey: {secure: v1:x}"
    with_all = f"config:\n  {offsite}\n  {keys}\n"
    program.write_text(" ".join(f'"{name}"' for name in OPENS_WHAT_IS_KEPT))
    good, also_good = clone.commit("one"), clone.commit("two", config=with_all)
    program.write_text(f"{program.read_text()} opens_what_is_kept")
    current = clone.commit("bad-smoke", config=with_all)
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert not back.commit, "its `up` would end in the middle: Pulumi refuses to delete what the state protects"
    assert "backup-encryption-key" in back.why
    assert "postgres-superuser" not in back.why, "that one it has too"
    assert way_back(clone.folder, "staging", good=also_good, current=current).commit == also_good, "it has them all"
    newest = clone.commit("three")
    assert way_back(clone.folder, "staging", good=current, current=newest).commit == current, "it keeps them too"


def test_a_configured_key_has_a_protected_one_behind_it_that_an_older_program_would_delete(clone: Clone) -> None:
    program = clone.folder / "stack" / "secrets.py"
    config = "config:\n  samokoder:appSecretKey: {secure: v1:x}\n"
    program.write_text(" ".join(f'"{name}"' for name in OPENS_WHAT_IS_KEPT))
    good = clone.commit("one", config=config)
    moved = clone.folder / "stack" / "spec" / "secrets.py"
    moved.parent.mkdir()
    moved.write_text(f"{program.read_text()} opens_what_is_kept")
    program.unlink()
    current = clone.commit("two", config=config)
    assert "app-secret-key" in way_back(clone.folder, "staging", good=good, current=current).why


def test_a_minor_version_and_a_config_without_namespace_are_no_obstacle(clone: Clone) -> None:
    good = clone.commit("one", config="config:\n  rotation:\n    postgresApp: 2\n")
    current = clone.commit("two", config="config:\n  samokoder:rotation:\n    postgresApp: 2\n", postgres="15.20")
    assert way_back(clone.folder, "staging", good=good, current=current).commit == good


def test_migrations_in_between_are_told_and_no_obstacle(clone: Clone) -> None:
    good, current = clone.commit("one"), clone.commit("two", migration="0007_adds_a_column.py")
    back = way_back(clone.folder, "staging", good=good, current=current)
    assert back.commit == good, "a migration only adds; that is the contract"
    assert "0007_adds_a_column.py" in back.why, "who reads the failure must know that the schema stays the newer one"


def test_a_commit_that_the_clone_lacks_is_no_way_back(clone: Clone) -> None:
    back = way_back(clone.folder, "staging", good="f" * 40, current=clone.commit("one"))
    assert "check out the whole history" in back.why, "a shallow clone is the usual reason"


def test_what_is_not_committed_is_not_deployed(clone: Clone) -> None:
    clone.commit("one")
    (clone.folder / "version").write_text("edited")
    with pytest.raises(ProjectError, match="version"):
        commit_of(clone.folder)
    with pytest.raises(ProjectError, match="not a clone"):
        commit_of(clone.folder.parent)


PRODUCTION = f"""config:
  samokoder:production: true
  samokoder:telegramBotToken: {{secure: v1:x}}
  samokoder:s3AccessKeyId: {{secure: v1:x}}
  samokoder:s3SecretAccessKey: {{secure: v1:x}}
  samokoder:alertmanager: {{telegram: {{chatId: -1001}}}}
  samokoder:backup: {{offsite: {{endpoint: 'https://s3.example.org', bucket: backups}}}}
  samokoder:api: {{image: 'example.org/api:2@{DIGEST}'}}
  samokoder:worker: {{image: 'example.org/worker:2@{DIGEST}'}}
"""


def test_production_gets_only_images_that_another_environment_has(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.prod.yaml").write_text(PRODUCTION)
    staging = tmp_path / "Pulumi.staging.yaml"
    staging.write_text(
        f"config:\n  api: {{image: 'example.org/api:2@{DIGEST}'}}\n"
        f"  worker: {{image: 'example.org/worker:1@sha256:{'0' * 64}'}}\n"
    )
    (untried,) = untried_images(tmp_path, "prod")
    assert untried.startswith("samokoder:worker.image: example.org/worker:2"), "another digest is another image"
    staging.write_text(f"config:\n  api: {{image: 'example.org/api:2@{DIGEST}'}}\n")
    assert len(untried_images(tmp_path, "prod")) == 1, "the reference application is not the team's image"
    staging.write_text(
        f"config:\n  api: {{image: 'example.org/api:2@{DIGEST}'}}\n"
        f"  worker: {{image: 'example.org/worker:2@{DIGEST}'}}\n"
    )
    assert untried_images(tmp_path, "prod") == []
    assert untried_images(tmp_path, "staging") == [], "an environment before production is where they are tried"


HOSTED = {"RUNNER_ENVIRONMENT": "github-hosted"}


def machine(tmp_path: Path, config: str = "config: {}\n", **variables: str) -> Workspace:
    (tmp_path / "Pulumi.yaml").write_text("name: samokoder\n")
    (tmp_path / "Pulumi.staging.yaml").write_text(config)
    return Workspace(root=tmp_path, variables={"HOME": str(tmp_path), **variables})


def test_a_machine_without_settings_is_told_all_that_it_lacks(tmp_path: Path) -> None:
    # GitHub gives a secret that nobody has set as an empty text.
    workspace = machine(tmp_path, PULUMI_BACKEND_URL="", PULUMI_CONFIG_PASSPHRASE="", SSH_PRIVATE_KEY=KEY, **HOSTED)
    with pytest.raises(ProjectError) as caught:
        check_machine(workspace, home=tmp_path)
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "samokoder:dockerHost", "SSH_KNOWN_HOSTS"):
        assert f"\n  {name}" in str(caught.value), "one run tells everything that has to be set"
    assert KEY.splitlines()[1] not in str(caught.value)


def test_a_machine_with_all_of_it_is_accepted(tmp_path: Path) -> None:
    given = {"PULUMI_BACKEND_URL": "s3://state", "PULUMI_CONFIG_PASSPHRASE": "x" * 20}
    remote = "config:\n  samokoder:dockerHost: ssh://deploy@example.org\n"
    check_machine(machine(tmp_path, remote, **given, **HOSTED), home=tmp_path)
    check_machine(machine(tmp_path, **given, **HOSTED, DOCKER_HOST="ssh://deploy@example.org"), home=tmp_path)
    check_machine(machine(tmp_path, **given), home=tmp_path)
    cloud = "secretsprovider: awskms://alias/samokoder\nconfig: {}\n"
    check_machine(machine(tmp_path, cloud, PULUMI_ACCESS_TOKEN="pul-x"), home=tmp_path)  # noqa: S106 - a test's
