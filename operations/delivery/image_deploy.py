"""`samokoder deploy` and `samokoder rollback`: write images into the stack file, and bring them up.

Only the stack file says which images run, so a deploy is a commit, and Git's history of the file has the version
before. The file is written after all checks and the agreement: if the command is interrupted before that, nothing has
changed; after that, the same `deploy` or an `up` continues. A `rollback` that is typed again goes one version further.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle.up import Agree, Upped, bring_up
from operations.workspace import lock, stack_file, stack_text
from operations.workspace.workspace import Workspace
from stack.common.references import ImageReferenceError, parse_reference, short_name
from stack.monitoring.metrics import Kind
from stack.settings.keys import key_of

if TYPE_CHECKING:
    from operations.checks.report import Report

FIELDS = ("api", "worker", "frontend")
_COMMITS = 200
"""So many commits of the stack file are read for a way back: each is a question to Git."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a stack file says of the team's own images."""

    images: Mapping[str, str] = field(default_factory=dict)
    """Part -> reference; a part that is not there has the reference application's, or does not run."""
    migrations: tuple[str, ...] = ()
    """The command that migrates the database; empty: the default."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Version:
        """Read the version from a stack file."""
        config = stack_file.merged(document, machine={})["config"]
        parts = {name: stack_file.section(config, name) for name in (*FIELDS, "migrations")}
        images = {name: str(parts[name]["image"]) for name in FIELDS if parts[name].get("image")}
        return cls(images=images, migrations=tuple(parts["migrations"].get("command") or ()))

    def write(self, config: Any) -> None:
        """Write the version into the configuration of a stack file, and change nothing else there."""
        wanted: dict[str, tuple[str, Any]] = {name: ("image", self.images.get(name)) for name in FIELDS}
        wanted["migrations"] = ("command", list(self.migrations))
        for name, (key, value) in wanted.items():
            if value or name in config or key_of(name) in config:
                section = stack_text.section(config, name)
                if not value:
                    section.pop(key, None)
                elif section.get(key) != value:  # assigned in place, so the comment beside it stays
                    section[key] = value
                stack_text.drop_empty(config, name)

    def differs(self, other: Version) -> list[str]:
        """Return a line for each part in which the other version differs."""
        lines = [
            f"{name}: {_short(self.images.get(name))} -> {_short(other.images.get(name))}"
            for name in FIELDS
            if self.images.get(name) != other.images.get(name)
        ]
        if self.migrations != other.migrations:
            lines.append(f"migrations: {' '.join(self.migrations) or '-'} -> {' '.join(other.migrations) or '-'}")
        return lines


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier version, and the commit that has it."""

    version: Version
    commit: str
    told: str
    """The commit, its day, who made it and its subject."""


@dataclass(frozen=True, kw_only=True)
class ImageDeploy:
    """A change of the version that an environment runs."""

    workspace: Workspace
    before: Version
    """What the stack file says now."""
    wanted: Version
    named: Collection[str] = ()
    """Parts whose image somebody has named for this deploy: what they run now is replaced on purpose."""
    left: Sequence[Version] = ()
    """Versions that the stack file's history has gone back from."""
    runs: Mapping[str, set[str]] = field(default_factory=dict)
    """Part -> the images that its containers had when this was planned."""

    @property
    def candidate(self) -> Workspace:
        """The same environment as if its stack file had the wanted version already."""
        config: dict[str, Any] = {name: {"image": image} for name, image in self.wanted.images.items()}
        config |= {name: {"image": None} for name in self.before.images.keys() - self.wanted.images.keys()}
        if self.before.migrations != self.wanted.migrations:
            config["migrations"] = {"command": list(self.wanted.migrations)}
        qualified = {key_of(name): value for name, value in config.items()}
        return replace(self.workspace, extra_config=stack_file.fill(qualified, self.workspace.extra_config))

    def check(self) -> list[Report]:
        """Check each image of API and worker that the engine does not run yet against the contract.

        An image that is in the stack file may be unchecked: a pull request brings such images. An image that accepts a
        wrong secret is reported, and does not fail: the stack refuses such a secret before any image gets it, and no
        version of an image that checks no secrets could be deployed. Raises ProjectError where an image cannot be
        pulled.
        """
        # They are slow to import, and a rollback does not need them.
        from operations.checks.image import check_image, contract  # noqa: PLC0415

        def lenient(report: Report) -> Report:
            return report.without_failure(contract.REFUSALS, "the stack itself gives no image such a secret")

        _note_images(self.candidate)
        return [
            lenient(check_image.check_image(self.candidate, image, kind))
            for kind in Kind
            if (image := self.wanted.images.get(kind.value)) and self.runs.get(kind.value) != {image}
        ]

    def asked(self) -> ImageDeploy:
        """Return it with what the engine runs. Raises ProjectError where it would undo a deploy from another clone.

        That is where a part runs what neither the stack file has, before or after, nor somebody has named here.
        """
        found = replace(self, runs=_running(self.candidate))
        for name in FIELDS:
            # The reference application's image has a tag alone, and no version names it.
            there = {image for image in found.runs[name] if "sha256:" in image}
            known = {version.images.get(name) for version in (self.before, self.wanted, *self.left)}
            if name in self.named or self.before.images.get(name) in there or there <= known:
                continue
            # `up` does what the file says of a part without an image there; the same deploy would be refused again.
            workspace, words = self.workspace, "up"
            if name in self.wanted.images:
                images = (f"{each.upper()}={shlex.quote(image)}" for each, image in self.wanted.images.items())
                words = f"deploy {' '.join(images)}"
            raise ProjectError(
                f"{name} runs {', '.join(map(_short, sorted(there)))}, which {workspace.committed_file.name} does not "
                "have: somebody has deployed it elsewhere, or what the file has never came up. Nothing was changed. "
                f"Get that commit: git pull. To replace it all the same: {workspace.typed(words)}"
            )
        return found

    def refuse_unwritable(self) -> None:
        """Raise ProjectError where the stack file cannot say the wanted version: before anybody is asked."""
        if self.wanted != self.before:
            file = self.workspace.committed_file
            stack_text.edited(file.read_text(encoding="utf-8"), self.wanted.write, name=file.name)

    def write(self) -> None:
        """Write the wanted version into the stack file."""
        stack_text.write(self.workspace, self.wanted.write)

    def run(self, agree: Agree | None, *, interactive: bool) -> Upped:
        """Show the preview, ask, write the stack file, and bring it up. agree, interactive: as for `lifecycle.up`.

        Raises PulumiFailedError where a part is not healthy: the stack file has the wanted version then. Whatever else
        ends it after the file was written is raised once that is said.
        """
        written = False

        def agreed() -> None:
            nonlocal written
            if agree:
                agree()
            if self.wanted != self.before:
                self.write()
            written = True

        # A new clone has no note of its engine yet, and the lock is on the engine.
        host = self.candidate.engine().docker_host
        with lock.held(self.candidate, "deploy", docker_host=host) as locked:
            self.asked()  # another run, which held the lock until now, may have deployed
            try:
                return bring_up(locked, interactive=interactive, agree=agreed)
            except BaseException as error:
                if not written:
                    raise
                file, on = self.workspace.committed_file.name, self.workspace.typed("up")
                said = f"{file} has the new images. `{on}` goes on{self._further()}."
                if isinstance(error, PulumiFailedError):
                    raise PulumiFailedError(f"{error}\n{said}") from None
                self.workspace.reporter.say(said)
                raise

    def _further(self) -> str:
        """Say where a rollback goes once the wanted version is written; nothing where there is none before it."""
        try:
            earlier, _ = _before(self.workspace, self.wanted)
        except ProjectError:
            return ""
        return f"; `{self.workspace.typed('rollback')}` goes back to {earlier.told}"


def plan(
    workspace: Workspace, images: Mapping[str, str], *, migrations: Sequence[str] = (), ask_engine: bool = True
) -> ImageDeploy:
    """Return the deploy of these images, each with its digest. images: part -> reference, of what changes.

    ask_engine: which images run; without it the engine is asked only where one has no digest. Raises ProjectError where
    the engine cannot pull it, or runs an image of a part that is not named and that the stack file does not have;
    InvalidSettingsError where the environment cannot be brought up like this.
    """
    before = Version.of(workspace.committed())
    new = dict(images)
    try:
        unpinned = [name for name, image in new.items() if not parse_reference(image).is_pinned]
    except ImageReferenceError as error:
        raise ProjectError(f"This cannot be deployed: {error}.") from None
    if unpinned:
        from host.engine import connect  # noqa: PLC0415 - as above
        from operations.engine import registry  # noqa: PLC0415 - the SDK takes its time

        # A made-up digest makes the settings valid, so that other mistakes show first and the engine is known.
        some = {name: f"{new[name]}@sha256:{'0' * 64}" for name in unpinned}
        guess = Version(images={**before.images, **new, **some}, migrations=before.migrations)
        candidate = ImageDeploy(workspace=workspace, before=before, wanted=guess).candidate
        with contextlib.closing(connect(candidate.engine().docker_host)) as client:
            new |= {name: registry.pinned(client, new[name]) for name in unpinned}
    wanted = Version(images={**before.images, **new}, migrations=tuple(migrations) or before.migrations)
    deploy = ImageDeploy(workspace=workspace, before=before, wanted=wanted, named=images.keys())
    deploy.refuse_unwritable()
    deploy.candidate.settings(on_this_machine=False)
    return deploy.asked() if ask_engine else deploy


def back(workspace: Workspace, to: str = "", *, ask_engine: bool = True) -> tuple[ImageDeploy, Earlier]:
    """Return the deploy that goes back to an earlier version, and that version with its commit.

    to: a commit; empty: the version that the stack file had before the one that it has now. ask_engine: whether to
    compare with the images that run. Only commits that were the head of this branch count, as no others were deployed.
    Raises ProjectError where there is none, and where the engine runs an image that neither version has: another clone
    has deployed it.
    """
    now = Version.of(workspace.committed())
    earlier, left = _named(workspace, to) if to else _before(workspace, now)
    deploy = ImageDeploy(workspace=workspace, before=now, wanted=earlier.version, left=left)
    deploy.refuse_unwritable()
    deploy.candidate.settings(on_this_machine=False)
    return deploy.asked() if ask_engine else deploy, earlier


def _named(workspace: Workspace, to: str) -> tuple[Earlier, list[Version]]:
    for each in _history(workspace, to):
        return each, []
    file = workspace.committed_file.name
    raise ProjectError(f"No commit {to} of this branch has changed {file}: git log --first-parent {file}")


def _before(workspace: Workspace, now: Version) -> tuple[Earlier, list[Version]]:
    """Return the version before this one, and those that were gone back from.

    A version that comes again takes away what came after it: a second way back must not lead forward again.
    """
    standing: list[Earlier] = []
    left: list[Version] = []
    history = [*itertools.islice(_history(workspace), _COMMITS)][::-1]
    for each in [*history, Earlier(version=now, commit="", told="")]:
        versions = [one.version for one in standing]
        if each.version in versions:
            at = versions.index(each.version)
            left += versions[at + 1 :]
            del standing[at:]
        standing.append(each)
    if len(standing) > 1:
        return standing[-2], left
    raise ProjectError(
        f"{workspace.committed_file.name} had no other images before these in the history of this branch. Name what to "
        f"deploy: {workspace.typed('deploy API=… WORKER=…')}"
    )


def _history(workspace: Workspace, to: str = "") -> Iterator[Earlier]:
    """Yield the stack file's versions, the newest commit first. to: the beginning of the one commit that is wanted."""
    file = workspace.committed_file
    words = ["log", "--first-parent", "--format=%H%x00%h of %cs by %an: %s", "HEAD", "--", file.name]
    log = _git(workspace, *words)
    if log.returncode != 0:
        raise ProjectError(
            f"The history of {file.name} in Git is not known here, so nothing says what ran before:\n"
            f"{log.stderr.strip()}\nName what to deploy: {workspace.typed('deploy API=… WORKER=…')}"
        )
    # A subject may have characters that `splitlines` takes for the end of a line.
    for line in filter(None, log.stdout.split("\n")):
        commit, told = line.split("\0")
        if to and not (len(to) >= 4 and commit.startswith(to)):  # noqa: PLR2004 - as few digits as Git takes
            continue
        text = _git(workspace, "show", f"{commit}:./{file.name}").stdout
        # A commit may have removed the file, or broken it: nobody has deployed that one.
        with contextlib.suppress(ProjectError):
            if text:
                version = Version.of(
                    stack_file.checked(stack_file.load_text(text, file.name, of_history=True), file.name)
                )
                # The author of the commit chose these words, so control characters for the terminal are removed.
                yield Earlier(version=version, commit=commit, told="".join(filter(str.isprintable, told)))


def _running(candidate: Workspace) -> dict[str, set[str]]:
    """Return the images that the containers of each part have."""
    from host.engine import connect  # noqa: PLC0415 - as above
    from operations.engine import containers  # noqa: PLC0415 - as above

    environment = candidate.settings(on_this_machine=False)
    # Not the engine that an earlier run has noted: a new clone has noted none yet.
    with contextlib.closing(connect(candidate.engine().docker_host)) as client:
        found = containers.by_part(client, environment.name)
    return {
        name: {str(found[part].attrs["Config"]["Image"]) for part in environment.parts_of(name) if part in found}
        for name in FIELDS
    }


def _git(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    """Return Git's answer about the stack file's folder; where there is no Git, the status is not 0 either."""
    # With the user's log.showSignature Git writes what gpg says between the lines of a log.
    command = ["git", "-c", "log.showSignature=false", *words]
    folder = workspace.committed_file.parent
    try:
        # PyYAML refuses what `surrogateescape` makes of bytes that are not UTF-8, so such a file counts as broken.
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="surrogateescape", check=False
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, stdout="", stderr=str(error))


def _short(image: str | None) -> str:
    """Return an image with the beginning of its digest, because a tag may have been pushed again."""
    if not image:
        return "the reference application's"
    digest = image.partition("@sha256:")[2]
    return short_name(image) + (f"@sha256:{digest[:12]}" if digest else "")


def _note_images(candidate: Workspace) -> None:
    """Note which images the engine lacks, so that images which a check pulls are removed later like those of `up`."""
    from host.engine import connect  # noqa: PLC0415 - as above
    from operations.engine import old_images  # noqa: PLC0415 - `status` must stay fast

    with contextlib.closing(connect(candidate.engine().docker_host)) as client:
        old_images.note(client, candidate.settings(), candidate.reporter.say)
