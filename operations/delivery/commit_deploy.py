"""A deploy as a machine runs it: bring up, look whether it is good, go back to the last good commit when it is not.

Which commit was good is a tag of the Pulumi stack: it lies where the state lies, so it is true for whoever deploys, and
no right to write into the repository is needed for it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from host.engine import connect
from operations.clone import YES_VARIABLE
from operations.delivery import good_metrics, history, runner
from operations.engine import registry
from operations.errors import ProjectError
from operations.workspace import backend, lock, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.monitoring.metrics import Kind
from stack.settings.environment import Environment
from stack.settings.keys import key_of

GOOD_COMMIT = "samokoder:good-commit"
"""Tag of a Pulumi stack: the last commit that was deployed from CI and passed its smoke test."""
LAST_COMMIT = "samokoder:last-commit"
"""Tag of a Pulumi stack: the last commit that CI began to deploy, or went back to."""


def untried_images(root: Path, environment: str) -> list[str]:
    """Return a line for each image that a production environment configures and no other environment has the same of.

    What is not configured comes from stack/images.py and from this clone, and so is the same everywhere.
    """
    if not _settings(root, environment).settings.production:
        return []
    others = [other for other in stack_file.environments(root) if other != environment]
    tried = [_images(_settings(root, other)) for other in others if not _settings(root, other).settings.production]
    return [
        f"{key}: {image} runs in no environment before production; deploy it there first, under the same key"
        for key, image in _images(_settings(root, environment)).items()
        if not any(images.get(key) == image for images in tried)
    ]


@dataclass(frozen=True, kw_only=True)
class CommitDeploy:
    """One deploy of the commit that is checked out."""

    workspace: Workspace
    run: PulumiRun
    say: Callable[[str], None]

    @property
    def _root(self) -> Path:
        return self.workspace.root

    def __call__(self, *, junit: Path) -> str:
        """Deploy, smoke-test, note the commit as good, and return what was done.

        junit: where the smoke test writes its report. Raises ProjectError when the deploy was not good, with what came
        of going back: the environment is then as it was, or the text says why not.
        """
        # Of a clone of CI nothing is noted of its engine yet.
        with lock.held(self.workspace, "deploy", docker_host=self.workspace.engine().docker_host) as locked:
            return replace(self, workspace=locked).deploy(junit)

    def deploy(self, junit: Path) -> str:
        """Do it, for who holds the environment's lock."""
        self.run.refuse_moved()  # while this waited for the lock, or just before
        environment = self.workspace.environment
        current = history.commit_of(self._root)
        if untried := untried_images(self._root, environment):
            raise ProjectError("Production gets the images that were tried before:\n  " + "\n  ".join(untried))
        good, last = self._noted(GOOD_COMMIT), self._noted(LAST_COMMIT)
        if newer := history.newer_commit(self._root, noted=(last, good), current=current):
            raise ProjectError(
                f"{environment} has had {newer[:12]}, which is newer than {current[:12]}: nothing was changed. A job "
                "that is run again deploys its own old commit. To undo what came after it, `git revert` it: that is a "
                "new commit, and passes."
            )
        back = history.way_back(self._root, environment, good=good, current=current)
        if back.commit:
            self.say(
                f"If {current[:12]} is not good, {environment} goes back to {back.commit[:12]}. {back.why}".rstrip()
            )
        else:
            self.say(f"There is no way back: {back.why}.")
        # Before anything changes: what was begun counts, whether or not it comes to its end.
        self._note(LAST_COMMIT, current)
        own = self._own(current)
        noted = {kind: self._tag(good_metrics.TAGS[kind]) for kind in own & self._own(good)}
        before = good_metrics.before(self.workspace, noted, good_runs=last in ("", good))
        if not (fault := self._bring_up(self._root, junit)):
            now = good_metrics.shown(self.workspace, own)
            fault = good_metrics.went_mute(self.workspace, before, now, kinds=own, say=self.say)
        if not fault:
            # First: an end between the two leaves the metrics of a version that was found good.
            for kind, names in now.metrics.items():
                self._note(good_metrics.TAGS[kind], good_metrics.written(names | before.get(kind, frozenset())))
            self._note(GOOD_COMMIT, current)
            return f"{environment} is at {current[:12]}, and good."
        if not back.commit:
            raise ProjectError(f"{current[:12]} is not good in {environment}: {fault}. It stays: {back.why}.")
        self.say(f"{current[:12]} is not good ({fault}): going back to {back.commit[:12]}")
        with history.worktree(self._root, back.commit) as folder:
            if again := self._bring_up(folder, junit.with_stem(f"{junit.stem}-after-going-back")):
                raise ProjectError(
                    f"{current[:12]} is not good in {environment}: {fault}. "
                    f"Neither is {back.commit[:12]} after going back to it: {again}. Look at once."
                )
        self._note(LAST_COMMIT, back.commit)
        raise ProjectError(
            f"{current[:12]} is not good in {environment}: {fault}. It runs {back.commit[:12]} again, which is good. "
            f"{back.why}".rstrip()
        )

    def _note(self, tag: str, value: str) -> None:
        self.run.pulumi("stack", "tag", "set", tag, value, capture=True)

    def _tag(self, tag: str) -> str:
        """Return the value of a tag; empty for none."""
        answer = self.run.pulumi("stack", "tag", "get", tag, check=False, capture=True)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    def _noted(self, tag: str) -> str:
        """Return the commit of a tag; empty for none, and for what is no commit: Git would take it for an option."""
        commit = self._tag(tag)
        return commit if re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", commit) else ""

    def _own(self, commit: str) -> set[Kind]:
        config = history.stack_config(self._root, commit, self.workspace.environment) if commit else {}
        return good_metrics.own(config)

    def _bring_up(self, clone: Path, junit: Path) -> str:
        """Bring the clone's version up and smoke-test it; return what went wrong, empty for nothing."""
        samokoder = str(clone / ".venv" / "bin" / "samokoder")
        # Prometheus has to ask what is new once, and a worker with many jobs has to do one.
        smoke = [samokoder, "smoke", "--wait", "60", "--junit", str(junit.absolute())]
        for words in ([str(clone / "bootstrap")], [samokoder, "up"], smoke):
            name = " ".join([Path(words[0]).name, *words[1:2]])
            self.say(f"{name} of {clone}")
            # Who has approved the job has seen it; nobody is there to ask.
            variables = {**self.workspace.variables, "ENV": self.workspace.environment, YES_VARIABLE: "1"}
            if place := self.workspace.backend().url:
                variables[backend.VARIABLE] = place  # an older commit's Pulumi.yaml may not name it
            status = subprocess.run(words, cwd=clone, env=variables, check=False).returncode
            if status != 0:
                return f"`{name}` ended with {status}"
        return ""


def check_machine(workspace: Workspace, *, home: Path) -> None:
    """Refuse what would be lost with this machine, reach the wrong engine, or leave keys with somebody.

    home: the folder of the user who runs this. Raises ProjectError with all of it.
    """
    variables = workspace.variables
    hosted = variables.get("RUNNER_ENVIRONMENT") == "github-hosted"
    missing = [why] if (why := runner.refuse_machine(variables, home)) else []
    place = workspace.backend()
    if place.folder and place.folder.is_relative_to(workspace.folder.absolute()):
        missing.append(
            "PULUMI_BACKEND_URL or PULUMI_ACCESS_TOKEN: without one the state would lie in a folder of this clone, "
            "and the next job would not find it; write s3://bucket?endpoint=…&s3ForcePathStyle=true, or a token"
        )
    passphrases = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
    if "secretsprovider" not in workspace.committed() and not any(variables.get(name) for name in passphrases):
        missing.append(
            "PULUMI_CONFIG_PASSPHRASE: what the secrets of the state are encrypted with; write the team's passphrase"
        )
    engine = variables.get("DOCKER_HOST") or workspace.settings(on_this_machine=False).settings.docker_host
    if hosted and engine.startswith("unix:"):
        missing.append(
            f"{key_of('docker_host')} in Pulumi.{workspace.environment}.yaml: the engine would be the one of GitHub's "
            "own machine, which is thrown away; write ssh://user@host"
        )
    if variables.get("SSH_PRIVATE_KEY") and not variables.get("SSH_KNOWN_HOSTS"):
        missing.append("SSH_KNOWN_HOSTS: how the engine's host proves itself; write the output of `ssh-keyscan host`")
    missing += runner.missing_of_login(variables)
    if missing:
        raise ProjectError(
            f"{workspace.environment} cannot be worked with from here. Missing:\n  " + "\n  ".join(missing)
        )


def check_registry(workspace: Workspace) -> None:
    """Refuse an image that its registry gives to nobody without another login. Raises ProjectError, EngineError.

    Only images that are configured are asked for: a machine without a registry builds the others.
    """
    references = list(_images(workspace.settings(on_this_machine=False)).values())
    if not references:
        return
    engine = workspace.engine()
    with contextlib.closing(connect(engine.docker_host)) as client:
        lines = registry.refused(client, references)
    if lines:
        server = workspace.variables.get("REGISTRY_SERVER")
        what = f"REGISTRY_USER, REGISTRY_PASSWORD (for {server})" if server else "REGISTRY_SERVER, _USER, _PASSWORD"
        raise ProjectError(
            f"{workspace.environment} has images that a registry does not give from here. Missing or wrong: {what}.\n  "
            + "\n  ".join(lines)
        )


def _settings(root: Path, environment: str) -> Environment:
    return stack_file.read(environment, stack_file.merged(stack_file.committed(root, environment), machine={}))


def _images(environment: Environment) -> dict[str, str]:
    """Return the configured images by key."""
    settings = environment.settings
    parts = {f"{key_of(part)}.image": getattr(settings, part).image for part in ("api", "worker", "frontend")}
    parts |= {f"{key_of('images')}.{name}": image for name, image in settings.images.model_dump(by_alias=True).items()}
    return {key: image for key, image in parts.items() if image}
