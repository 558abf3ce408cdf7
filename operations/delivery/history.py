"""What Git's history says of the commits that an environment had, and of the way back to one of them."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operations.errors import ProjectError
from operations.workspace import stack_file
from stack.common.mistakes import InvalidSettingsError
from stack.common.references import ImageReferenceError, parse_reference
from stack.settings.keys import key_of
from stack.spec.rotation import label
from stack.spec.secrets import GENERATED, OPENS_WHAT_IS_KEPT, secret_names

MIGRATIONS = "reference_app/samokoder/migrations/versions"
# Grafana's and Prometheus' documents promise no way back over a major version: each changes its data as it starts.
_KEEPS_DATA = ("postgres", "redis", "grafana", "prometheus")
_KEPT_SINCE = "opens_what_is_kept"
"""Word in secrets.py of each version that keeps such secrets in the state, protected, also where nothing uses them."""


@dataclass(frozen=True, kw_only=True)
class WayBack:
    """The commit to go back to; empty: there is none, and `why` says the reason. Else `why` is a remark, or empty."""

    commit: str
    why: str = ""


def way_back(root: Path, environment: str, *, good: str, current: str) -> WayBack:
    """Decide which commit a bad deploy of `current` goes back to.

    root: the clone, with its whole history. good: the last good commit, empty for none. Everybody who may write the
    state can name a good commit, and its program runs with all secrets, so it must have been the head of this branch.
    There is no way back past a rotation of a secret (the old value would come back, and nothing accepts it any more),
    nor past another configured one, nor past the promotion to production, nor to a program that would delete a
    protected secret, nor past a new version of a part that keeps data, if the older one cannot read it (a major one; of
    Redis also a minor one). Migrations are no obstacle, as they only add.
    """
    if why := _no_good_commit(root, environment, good=good, current=current):
        return WayBack(commit="", why=why)
    before, now = (stack_config(root, commit, environment) for commit in (good, current))
    if why := _configured_since(good, before, now):
        return WayBack(commit="", why=why)
    if lost := _protected_later(root, environment, good=good, current=current):
        names = ", ".join(label(secret) for secret in lost)
        return WayBack(
            commit="",
            why=f"{good[:12]} would delete secrets that open what is kept ({names}), and Pulumi refuses that: they are "
            "protected since",
        )
    for part in _KEEPS_DATA:
        old, new = (_data_version(root, commit, config, part) for commit, config in ((good, before), (current, now)))
        # A program without that part does not read its data.
        if old and old != new:
            return WayBack(commit="", why=f"{part} went from {old} to {new} since {good[:12]}: its data stays {new}'s")
    added = _git(root, "diff", "--name-only", "--diff-filter=A", good, current, "--", MIGRATIONS).stdout.split()
    names = ", ".join(Path(path).name for path in added if path.endswith(".py"))
    return WayBack(
        commit=good,
        why=f"stays migrated by {names}: the older version must work on it (docs/deploying.md)" if names else "",
    )


def _configured_since(good: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return which setting has changed since the good commit that its program would undo; empty: none."""
    # Values are compared encrypted, so one that was only encrypted anew counts as another.
    configured = (generated.configured for generated in GENERATED.values() if generated.configured)
    for field in (*configured, "app_secret_key_form"):
        if before.get(key_of(field)) != now.get(key_of(field)):
            return f"{key_of(field)} is another one since {good[:12]}: going back would take the one in use away"
    for field in ("rotation", "rotating"):
        if before.get(key_of(field)) != now.get(key_of(field)):
            return f"a secret was rotated since {good[:12]} ({key_of(field)}): its old value would come back"
    # The older program would take it for a trial: no question, and volumes that Pulumi may delete.
    if _is_production(now) and not _is_production(before):
        return f"it became production after {good[:12]}: going back would make it a trial"
    return ""


def _is_production(config: Mapping[str, Any]) -> bool:
    return str(config.get(key_of("production"))).lower() == "true"


def _protected_later(root: Path, environment: str, *, good: str, current: str) -> list[str]:
    """Return the secrets that the current commit keeps, used or not, and the good commit's program would delete."""
    before, now = (_table_of_secrets(root, commit) for commit in (good, current))
    if _KEPT_SINCE in before or _KEPT_SINCE not in now:
        return []
    try:
        settings = stack_file.read(environment, {"config": stack_config(root, good, environment)})
    except InvalidSettingsError:
        return sorted(OPENS_WHAT_IS_KEPT)  # its settings cannot be read, so all may be lost
    # The good commit's program has only secrets that it knows, that are used, and that are not configured.
    has = {name for name in secret_names(settings) if name in OPENS_WHAT_IS_KEPT and f'"{name}"' in before}
    has -= {name for name in has if GENERATED[name].configured in settings.configured_secrets}
    return sorted(OPENS_WHAT_IS_KEPT - has)


def _table_of_secrets(root: Path, commit: str) -> str:
    """Return the program's file with the table of the generated secrets in a commit; empty: it has none."""
    # Older commits have the file in `stack`.
    found = (_git(root, "show", f"{commit}:{folder}/secrets.py") for folder in ("stack/spec", "stack"))
    return next((answer.stdout for answer in found if answer.returncode == 0), "")


def _no_good_commit(root: Path, environment: str, *, good: str, current: str) -> str:
    """Return why the deploy cannot go back to the commit that the state names as good; empty: it can."""
    if not good:
        return f"no commit has passed its smoke test in {environment} yet"
    if good == current:
        return "this very commit was good before: the fault is not in the program"
    return may_not_run(root, good, current=current)


def may_not_run(root: Path, good: str, *, current: str) -> str:
    """Return why the program of the good commit must not run with all secrets; empty: it may."""
    if _git(root, "cat-file", "-e", f"{good}^{{commit}}").returncode != 0:
        return f"the last good commit {good[:12]} is not in this clone: check out the whole history"
    # First parents only: a commit of a merged branch was never the head of this branch, and nobody approved it.
    if good not in _git(root, "rev-list", "--first-parent", current).stdout.split():
        return f"{good[:12]}, which the state names as good, was never the head of this branch"
    return ""


def newer_commit(root: Path, *, noted: Iterable[str], current: str) -> str:
    """Return the first noted commit that has `current` in its history; empty: no noted commit has.

    root: the clone. noted: commits that the environment had; an empty text is none. Raises ProjectError where the clone
    lacks one of them, or has not the whole history, so that the answer is not known.
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


def commit_of(root: Path) -> str:
    """Return the commit that is checked out. Raises ProjectError where there is none, or a file differs from it."""
    head = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if head.returncode != 0:
        raise ProjectError(f"{root} is not a clone of a Git repository; a deploy is a commit.")
    if changed := _git(root, "status", "--porcelain").stdout.splitlines():
        raise ProjectError(f"A deploy is a commit, and these files are not committed: {', '.join(changed)}")
    return head.stdout.strip()


@contextlib.contextmanager
def worktree(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder, so that it gets its own virtual environment; remove it at the end."""
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
    # A file of a commit, or a path, may have another encoding.
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, errors="replace", check=False)


def stack_config(root: Path, commit: str, environment: str) -> dict[str, Any]:
    """Return the configuration that a commit has for an environment; empty when it has no such file.

    Raises ProjectError where it cannot be read.
    """
    name = f"Pulumi.{environment}.yaml"
    text = _git(root, "show", f"{commit}:{name}").stdout
    document = stack_file.checked(stack_file.load_text(text, name, of_history=True), name)
    return dict(stack_file.merged(document, machine={})["config"])


def _data_version(root: Path, commit: str, config: Mapping[str, Any], part: str) -> str:
    """Return the part of an image's version that data depends on (`17`, `7.4`); without a version, the reference.

    Empty where the commit has no such part.
    """
    reference = stack_file.section(config, "images").get(part)
    if not reference:
        text = _git(root, "show", f"{commit}:stack/images.py").stdout
        found = re.search(rf'"((?:[^"\s]+/)?{part}:[^"]+)"', text)
        reference = found[1] if found else ""
    try:
        tag = parse_reference(str(reference)).tag or ""
    except ImageReferenceError:
        tag = ""
    # A new minor version of Redis may write a file that the one before cannot read (7.2 to 7.4).
    version = re.match(r"v?(\d+\.\d+)" if part == "redis" else r"v?(\d+)", tag)
    return version[1] if version else str(reference)
