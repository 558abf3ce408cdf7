"""A deploy as a machine runs it: bring up, look whether it is good, go back to the last good commit when it is not.

Which commit was good is a tag of the Pulumi stack: it lies where the state lies, so it is true for whoever deploys, and
no right to write into the repository is needed for it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from host.engine import connect
from operations.clone import YES_VARIABLE
from operations.delivery import good_metrics, runner
from operations.engine import registry
from operations.errors import ProjectError
from operations.workspace import backend, lock, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError
from stack.common.references import ImageReferenceError, parse_reference
from stack.monitoring.metrics import Kind
from stack.settings.environment import Environment
from stack.settings.keys import key_of
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED, OPENS_WHAT_IS_KEPT, secret_names

GOOD_COMMIT = "samokoder:good-commit"
"""Tag of a Pulumi stack: the last commit that was deployed from CI and passed its smoke test."""
LAST_COMMIT = "samokoder:last-commit"
"""Tag of a Pulumi stack: the last commit that CI began to deploy, or went back to."""
MIGRATIONS = "reference_app/samokoder/migrations/versions"
_KEEPS_DATA = ("postgres", "redis")
_KEPT_SINCE = "opens_what_is_kept"
"""In secrets.py since such secrets stay in the state, protected, also where nothing uses them."""


@dataclass(frozen=True, kw_only=True)
class WayBack:
    """The commit to go back to; empty where there is none, and then `why` says so. Else `why` is what to know of it."""

    commit: str
    why: str = ""


def way_back(root: Path, environment: str, *, good: str, current: str) -> WayBack:
    """Decide which commit a bad deploy of `current` goes back to.

    root: the clone, with its whole history. good: the last good commit, empty for none. The state names it, and so
    whoever may write the state: it must have been the head of this branch, for its program runs with all secrets. There
    is no way back over a rotation of a secret (the old value would come back, and nothing else knows it any more), nor
    to a program that would delete a protected secret, nor over a new version of what keeps data that the older one
    cannot read (a major one; of Redis also a minor one). Migrations are no obstacle, as they only add.
    """
    if why := _no_good_commit(root, environment, good=good, current=current):
        return WayBack(commit="", why=why)
    before, now = (_stack_config(root, commit, environment) for commit in (good, current))
    for field in ("rotation", "rotating"):
        if before.get(key_of(field)) != now.get(key_of(field)):
            return WayBack(
                commit="",
                why=f"a secret was rotated since {good[:12]} ({key_of(field)}): its old value would come back",
            )
    if lost := _protected_later(root, environment, good=good, current=current):
        names = ", ".join(label(secret) for secret in lost)
        return WayBack(
            commit="",
            why=f"{good[:12]} would delete secrets that open what is kept ({names}), and Pulumi refuses that: they are "
            "protected since",
        )
    for part in _KEEPS_DATA:
        old, new = (_data_version(root, commit, config, part) for commit, config in ((good, before), (current, now)))
        if old != new:
            return WayBack(commit="", why=f"{part} went from {old} to {new} since {good[:12]}: its data stays {new}'s")
    added = _git(root, "diff", "--name-only", "--diff-filter=A", good, current, "--", MIGRATIONS).stdout.split()
    names = ", ".join(Path(path).name for path in added if path.endswith(".py"))
    return WayBack(
        commit=good,
        why=f"stays migrated by {names}: the older version must work on it (docs/deploying.md)" if names else "",
    )


def _protected_later(root: Path, environment: str, *, good: str, current: str) -> list[str]:
    """Return the secrets that the current commit keeps, used or not, and the program of the good one would delete."""
    before, now = (_table_of_secrets(root, commit) for commit in (good, current))
    if _KEPT_SINCE in before or _KEPT_SINCE not in now:
        return []
    try:
        settings = stack_file.read(environment, {"config": _stack_config(root, good, environment)})
    except InvalidSettingsError:
        return sorted(OPENS_WHAT_IS_KEPT)  # what it used cannot be told
    # That program has those alone that are used, are not configured, and are known to it.
    has = {name for name in secret_names(settings) if name in OPENS_WHAT_IS_KEPT and f'"{name}"' in before}
    has -= {name for name in has if GENERATED[name].configured in settings.configured_secrets}
    return sorted(OPENS_WHAT_IS_KEPT - has)


def _table_of_secrets(root: Path, commit: str) -> str:
    """Return the program's file with the table of the generated secrets in a commit; empty: it has none."""
    # The second is where older commits have it.
    found = (_git(root, "show", f"{commit}:{folder}/secrets.py") for folder in ("stack/spec", "stack"))
    return next((answer.stdout for answer in found if answer.returncode == 0), "")


def _no_good_commit(root: Path, environment: str, *, good: str, current: str) -> str:
    """Return why what the state names as good is nothing to go back to; empty: it is."""
    if not good:
        return f"no commit has passed its smoke test in {environment} yet"
    if good == current:
        return "this very commit was good before: the fault is not in the program"
    if _git(root, "cat-file", "-e", f"{good}^{{commit}}").returncode != 0:
        return f"the last good commit {good[:12]} is not in this clone: check out the whole history"
    # Along the first parents alone: a commit of a merged branch was never the head of this one, and nobody approved it.
    if good not in _git(root, "rev-list", "--first-parent", current).stdout.split():
        return f"{good[:12]}, which the state names as good, was never the head of this branch"
    return ""


def newer_commit(root: Path, *, noted: Iterable[str], current: str) -> str:
    """Return the first noted commit that has `current` in its history; empty: `current` is older than none of them.

    root: the clone. noted: commits that the environment had; an empty text is none. Raises ProjectError where the clone
    has one of them not, or not the whole history, so that this cannot be told.
    """
    for commit in noted:
        if not commit or commit == current:
            continue
        lacks_it = _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0
        if lacks_it or _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() != "false":
            raise ProjectError(
                f"Whether {current[:12]} is older than {commit[:12]}, which was deployed before, cannot be told from "
                "this clone: check out the whole history of all branches (fetch-depth: 0). If the branch was written "
                "anew, docs/delivery.md says how an environment forgets its commits."
            )
        if _git(root, "merge-base", "--is-ancestor", current, commit).returncode == 0:
            return commit
    return ""


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
        current = commit_of(self._root)
        if untried := untried_images(self._root, environment):
            raise ProjectError("Production gets the images that were tried before:\n  " + "\n  ".join(untried))
        tags = self.run.tags()
        good, last = (_commit_in(tags.get(tag, "")) for tag in (GOOD_COMMIT, LAST_COMMIT))
        if newer := newer_commit(self._root, noted=(last, good), current=current):
            raise ProjectError(
                f"{environment} has had {newer[:12]}, which is newer than {current[:12]}: nothing was changed. A job "
                "that is run again deploys its own old commit. To undo what came after it, `git revert` it: that is a "
                "new commit, and passes."
            )
        back = way_back(self._root, environment, good=good, current=current)
        if back.commit:
            self.say(
                f"If {current[:12]} is not good, {environment} goes back to {back.commit[:12]}. {back.why}".rstrip()
            )
        else:
            self.say(f"There is no way back: {back.why}.")
        # Before anything changes: what was begun counts, whether or not it comes to its end.
        self._note(LAST_COMMIT, current)
        own = self._own(current)
        noted = {kind: tags.get(good_metrics.TAGS[kind], "") for kind in own & self._own(good)}
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
        with _worktree(self._root, back.commit) as folder:
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

    def _own(self, commit: str) -> set[Kind]:
        return good_metrics.own(_stack_config(self._root, commit, self.workspace.environment)) if commit else set()

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


def _commit_in(tag: str) -> str:
    """Return the commit of a tag's value; empty for what is no commit: Git would take it for an option."""
    return tag if re.fullmatch(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", tag) else ""


def commit_of(root: Path) -> str:
    """Return the commit that is checked out. Raises ProjectError where that is not all that would be deployed."""
    head = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if head.returncode != 0:
        raise ProjectError(f"{root} is not a clone of a Git repository; a deploy is a commit.")
    if changed := _git(root, "status", "--porcelain").stdout.splitlines():
        raise ProjectError(f"A deploy is a commit, and these files are not committed: {', '.join(changed)}")
    return head.stdout.strip()


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


@contextlib.contextmanager
def _worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out beside this one, with a virtual environment and a working state of its own."""
    outer = Path(tempfile.mkdtemp(prefix="samokoder-"))
    folder = outer / commit[:12]
    made = _git(root, "worktree", "add", "--detach", str(folder), commit)
    try:
        if made.returncode != 0:
            raise ProjectError(f"{commit[:12]} cannot be checked out: {made.stderr.strip()[-500:]}")
        yield folder
    finally:
        _git(root, "worktree", "remove", "--force", str(folder))
        shutil.rmtree(outer, ignore_errors=True)


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)


def _stack_config(root: Path, commit: str, environment: str) -> dict[str, Any]:
    """Return the configuration that a commit has for an environment; empty when it has no such file."""
    text = _git(root, "show", f"{commit}:Pulumi.{environment}.yaml").stdout
    return dict(stack_file.merged(yaml.safe_load(text) or {}, machine={})["config"])


def _data_version(root: Path, commit: str, config: Mapping[str, Any], part: str) -> str:
    """Return the version of a part's image in a commit, as far as data depends on it; without, the reference."""
    reference = (config.get(key_of("images")) or {}).get(part)
    if not reference:
        text = _git(root, "show", f"{commit}:stack/images.py").stdout
        found = re.search(rf'"({part}:[^"]+)"', text)
        reference = found[1] if found else ""
    try:
        tag = parse_reference(str(reference)).tag or ""
    except ImageReferenceError:
        tag = ""
    # A new minor version of Redis may write a file that the one before cannot read (7.2 to 7.4).
    version = re.match(r"v?(\d+\.\d+)" if part == "redis" else r"v?(\d+)", tag)
    return version[1] if version else str(reference)


def _settings(root: Path, environment: str) -> Environment:
    return stack_file.read(environment, stack_file.merged(stack_file.committed(root, environment), machine={}))


def _images(environment: Environment) -> dict[str, str]:
    """Return the configured images by key."""
    settings = environment.settings
    parts = {f"{key_of(part)}.image": getattr(settings, part).image for part in ("api", "worker", "frontend")}
    parts |= {f"{key_of('images')}.{name}": image for name, image in settings.images.model_dump(by_alias=True).items()}
    return {key: image for key, image in parts.items() if image}
