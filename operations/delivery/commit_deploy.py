"""A deploy by CI: bring a commit up, smoke-test it, and go back to the last good commit when it is not good.

A tag of the Pulumi stack names the last good commit. The tag is stored with the state, so it is the same for everybody
who deploys, and CI needs no right to write into the repository.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from host.engine import connect
from operations.clone import YES_VARIABLE
from operations.delivery import good_metrics, history, red_checks, runner
from operations.engine import registry
from operations.errors import ProjectError
from operations.lifecycle.up import refuse_undoing
from operations.workspace import backend, kept_secrets, known, lock, pulumi_state, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.monitoring.metrics import Kind
from stack.settings.environment import Environment
from stack.settings.keys import key_of

GOOD_COMMIT = "samokoder:good-commit"
"""Tag of a Pulumi stack: the last commit that was deployed from CI and whose smoke test found no new fault."""
LAST_COMMIT = "samokoder:last-commit"
"""Tag of a Pulumi stack: the last commit that CI began to deploy, or went back to."""


def untried_images(root: Path, environment: str) -> list[str]:
    """Return a line for each image that production configures and no environment before production has.

    Images that are not configured come from stack/images.py and from this clone, so they are the same everywhere.
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
class Deployed:
    """A deploy that was good."""

    said: str
    """What was done."""
    red: Sequence[str] = ()
    """Checks that were red before it, and are still."""


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """The result of a version that was brought up and smoke-tested."""

    fault: str = ""
    """Why it is not good; empty: it is."""
    new: Sequence[str] = ()
    """Red checks that were not red before."""
    old: Sequence[str] = ()
    """Red checks that were red before."""


@dataclass(frozen=True, kw_only=True)
class CommitDeploy:
    """One deploy of the commit that is checked out."""

    workspace: Workspace
    run: PulumiRun
    say: Callable[[str], None]

    @property
    def _root(self) -> Path:
        return self.workspace.root

    def __call__(self, *, junit: Path) -> Deployed:
        """Deploy, smoke-test, note the commit as good, and return what was done.

        junit: where the smoke test writes its report; those of before the deploy and of after going back are put beside
        it. A check that was red before is no reason to go back. Raises ProjectError when the deploy was not good, with
        what came of going back: the environment is then as it was, or the text says why not.
        """
        # CI's new clone has no note of its engine yet, and the lock is on the engine.
        with lock.held(self.workspace, "deploy", docker_host=self.workspace.engine().docker_host) as locked:
            return replace(self, workspace=locked).deploy(junit)

    def deploy(self, junit: Path) -> Deployed:
        """Deploy as a call of this object does; the caller holds the environment's lock."""
        self.run.refuse_moved()  # it may have moved while this waited for the lock
        environment = self.workspace.environment
        current = history.commit_of(self._root)
        if untried := untried_images(self._root, environment):
            raise ProjectError("Production gets the images that were tried before:\n  " + "\n  ".join(untried))
        tags = self.run.tags()
        good, last = (_commit_in(tags.get(tag, "")) for tag in (GOOD_COMMIT, LAST_COMMIT))
        if newer := history.newer_commit(self._root, noted=(last, good), current=current):
            raise ProjectError(
                f"{environment} has had {newer[:12]}, which is newer than {current[:12]}: nothing was changed. A job "
                "that is run again deploys its own old commit. To undo what came after it, `git revert` it: that is a "
                "new commit, and passes."
            )
        self._refuse_no_longer_production()  # not of an older commit, which may be from before the promotion
        back = history.way_back(self._root, environment, good=good, current=current)
        if back.commit:
            self.say(
                f"If {current[:12]} is not good, {environment} goes back to {back.commit[:12]}. {back.why}".rstrip()
            )
        else:
            self.say(f"There is no way back: {back.why}.")
        noted_red = tags.get(red_checks.TAG, "")
        red_before = self._red_before(good=good, last=last, current=current, noted=noted_red, junit=junit)
        # `up` would refuse this. That would count as a fault here, and an older program, which the way back runs, may
        # not refuse it: it would put the key of its own file in the place of the one in use, or undo a rotation.
        refuse_undoing(self.workspace, self.run)
        # Noted before anything changes, because a deploy that was begun counts even if it does not end.
        self._note(LAST_COMMIT, current)
        own = self._own(current)
        noted = {kind: tags.get(good_metrics.TAGS[kind], "") for kind in own & self._own(good)}
        before = good_metrics.before(self.workspace, noted, good_runs=last in ("", good))
        found = self._tried(self._root, junit, red_before)
        if not (fault := found.fault):
            now = good_metrics.shown(self.workspace, own)
            fault = good_metrics.went_mute(self.workspace, before, now, kinds=own, say=self.say)
        if not fault:
            # Noted before the commit: if this process dies in between, the metrics are still those of a good version.
            for kind, names in now.metrics.items():
                self._note(good_metrics.TAGS[kind], good_metrics.written(names | before.get(kind, frozenset())))
            self._note(GOOD_COMMIT, current)
            return Deployed(said=f"{environment} is at {current[:12]}, and good.{_told(found.old)}", red=found.old)
        if not back.commit:
            raise ProjectError(
                f"{current[:12]} is not good in {environment}: {fault}. It stays: {back.why}.{_told(found.old)}"
            )
        self.say(f"{current[:12]} is not good ({fault}): going back to {back.commit[:12]}")
        with history.worktree(self._root, back.commit) as folder:
            again = self._tried(folder, junit.with_stem(f"{junit.stem}-after-going-back"), red_before)
        if again.fault:
            accept = self.workspace.typed(f"pulumi ARGS='stack tag set {LAST_COMMIT} {back.commit}'")
            how = f" If these faults are of neither version, `{accept}` has the next deploy take them for old ones."
            raise ProjectError(
                f"{current[:12]} is not good in {environment}: {fault}. Neither is {back.commit[:12]} after going back "
                f"to it: {again.fault}. Look at once.{how if again.new else ''}{_told(again.old)}"
            )
        self._note(LAST_COMMIT, back.commit)
        raise ProjectError(
            f"{current[:12]} is not good in {environment}: {fault}. It runs {back.commit[:12]} again, which is good."
            f"{_told(again.old)} {back.why}".rstrip()
        )

    def _refuse_no_longer_production(self) -> None:
        """Raise ProjectError where a merge has dropped the line that makes it production: nobody would be asked."""
        was = pulumi_state.is_production(self.run.deployment())
        if lost := known.production_lost(self.workspace, was=was):
            raise ProjectError(
                f"{lost} Nothing was changed. Put the line back; or, to mean it, bring it up by hand: "
                f"{known.no_production(self.workspace)}"
            )

    def _note(self, tag: str, value: str) -> None:
        self.run.pulumi("stack", "tag", "set", tag, value, capture=True)

    def _own(self, commit: str) -> set[Kind]:
        config = history.stack_config(self._root, commit, self.workspace.environment) if commit else {}
        return good_metrics.own(config)

    def _red_before(self, *, good: str, last: str, current: str, noted: str, junit: Path) -> str:
        """Return which checks were red with the last good commit, as `red_checks` notes it; empty where it is unknown.

        Asked by that commit's own program: to the new one each rule that it changes would be red. noted: what the state
        has from the deploy before.
        """
        if not good or history.may_not_run(self._root, good, current=current):
            return ""
        if last != good:
            self.say(
                f"Not asked what was red before: {good[:12]}, the last good commit, is not what CI deployed last. What "
                "was red when a deploy last began from it counts."
            )
            return noted
        fault, report = "", red_checks.SmokeReport()
        try:
            with history.worktree(self._root, good) as folder:
                fault = self._run(folder, "bootstrap")
                if not fault:
                    self._tell_machine(folder)
                    # A check that is late once would excuse a real fault of this deploy.
                    fault, report = self._smoke(folder, junit.with_stem(f"{junit.stem}-before"), "--wait", "20")
        except ProjectError as error:
            fault = str(error)
        if report.red:
            self.say(f"Red before this deploy: {', '.join(sorted(report.red))}. It does not go back for them.")
        elif fault:
            self.say(f"What was red before this deploy is not known ({fault}): it goes back for every red check.")
        noted = red_checks.written(report)
        self._note(red_checks.TAG, noted)
        return noted

    def _tell_machine(self, clone: Path) -> None:
        """Note for the clone's program, which brings nothing up here, what the last `up` has found out."""
        found = pulumi_state.outputs(self.run.deployment())
        names = {"dockerHost": "docker_host", "unavailable": "unavailable"}
        machine = {key_of(name): found[output] for output, name in names.items() if found.get(output)}
        file = replace(self.workspace, root=clone, home=None).machine_file
        stack_file.write(file, stack_file.dump(machine, source="the state"))

    def _tried(self, clone: Path, junit: Path, red_before: str) -> _Verdict:
        """Bring the clone's version up, smoke-test it, and judge it by what was not red before."""
        if fault := self._run(clone, "bootstrap") or self._run(clone, "samokoder", "up"):
            return _Verdict(fault=fault)
        # Prometheus has to scrape each new container once, and a worker with many jobs has to do the smoke test's job.
        fault, report = self._smoke(clone, junit, "--wait", "60")
        new, old = red_checks.split(report.red, red_before)
        if old and not new:
            return _Verdict(old=old)
        return _Verdict(fault=f"{fault}: {', '.join(new)}" if new else fault, new=new, old=old)

    def _smoke(self, clone: Path, junit: Path, *options: str) -> tuple[str, red_checks.SmokeReport]:
        """Smoke-test by the clone's program; return what went wrong, empty for nothing, and its report."""
        file = junit.absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # that of an earlier job would be read for this one's
        fault = self._run(clone, "samokoder", "smoke", *options, "--junit", str(file))
        return fault, red_checks.reported(file)

    def _run(self, clone: Path, program: str, *words: str) -> str:
        """Run a program of the clone; return what went wrong, empty for nothing."""
        name = " ".join([program, *words[:1]])
        self.say(f"{name} of {clone}")
        # The person who approved the job has seen what changes, and CI has no terminal to ask at.
        variables = {**self.workspace.variables, "ENV": self.workspace.environment, YES_VARIABLE: "1"}
        if clone != self._root:
            variables.pop(kept_secrets.VARIABLE, None)  # it is meant for this commit, and an older one has another key
        if place := self.workspace.backend().url:
            variables[backend.VARIABLE] = place  # an older commit's Pulumi.yaml may not name it
        path = clone / "bootstrap" if program == "bootstrap" else clone / ".venv" / "bin" / program
        status = subprocess.run([str(path), *words], cwd=clone, env=variables, check=False).returncode
        return f"`{name}` ended with {status}" if status != 0 else ""


def _told(old: Sequence[str]) -> str:
    """Say which red checks were red before the deploy; nothing for none."""
    return f" Red since before this deploy: {', '.join(old)}." if old else ""


def _commit_in(tag: str) -> str:
    """Return the commit of a tag's value; empty for a value that is no commit: Git might read an option."""
    return tag if re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", tag) else ""


def check_machine(workspace: Workspace, *, home: Path) -> None:
    """Refuse a machine where the state would be lost, the engine would be the wrong one, or keys would stay behind.

    home: the home folder of the user who runs this. Raises ProjectError with everything that is missing.
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
    """Refuse images that their registry does not give to this login. Raises ProjectError, EngineError.

    Only configured images are asked for, because a machine without a registry builds the others.
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
