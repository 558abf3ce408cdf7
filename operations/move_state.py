"""`samokoder move-state s3://…`: the state of all environments goes to another place of Pulumi's.

What there was stays the truth until it has a mark that says where it went. Before the mark every stack is copied and
compared; killed until then, the command typed again copies again what has changed. After the mark only Pulumi.yaml is
written. So the mark is the journal, and nothing is ever deleted: the old place keeps its files, and is refused.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from operations import backend as places
from operations import recovery
from operations.backend import Backend
from operations.project import ROOT, PulumiRun, Workspace
from operations.stack_file import ProjectError, environments

COPY_OF = "samokoder:copy-of"
"""Tag of a stack that is being copied: from which place, as whose."""
_OURS = "samokoder:"
"""First part of the tags that go along: the commits that CI has deployed."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a move has come to."""

    resources: Mapping[str, int]
    """Stack -> how many resources it has; empty where only the rest of an earlier move was done."""
    old: Backend
    new: str
    variable: bool
    """Whether PULUMI_BACKEND_URL still names the old place here."""

    def lines(self) -> list[str]:
        """Return what a person has to know."""
        same = ", ".join(f"{stack} ({count} resources)" for stack, count in self.resources.items())
        lines = [f"Moved to {self.new}: {same}. Each was compared there, and the passphrase opens it."] if same else []
        lines.append(f"{places.PROJECT_FILE} says so: commit it. The old state stays where it was, and is refused now.")
        if self.variable:
            lines.append(f"{places.VARIABLE} names the old place and comes first: change or unset it, in CI too.")
        return [*lines, "What a colleague needs now: docs/colleagues.md"]


def move(workspace: Workspace, url: str) -> Moved:
    """Move the state of all environments to `url`, or do the rest of a move that was cut off.

    workspace: any environment of the clone. Raises ProjectError where the state is somebody else's there, where an
    environment is being changed, or where the copy is not the same; then nothing has changed here.
    """
    new = places.checked(url)
    old = workspace.backend()
    if new == (places.checked(old.url) if old.folder else old.url):
        raise _there_already(workspace, old)
    source, target = workspace.connected(old), workspace.connected(Backend(url=new, origin="move-state"))
    counts: dict[str, int] = {}
    went = source.went_to()
    if went is None:
        if (left := target.went_to()) is not None:
            raise ProjectError(
                f"The state has left {new} (to {left}), and what is in there is old. Name another folder."
            )
        with contextlib.ExitStack() as locks:
            counts = _copy_all(workspace, source, target, locks)
            _mark(source, new)
    elif went != new:
        raise places.moved(old, went)
    places.write(workspace.root, new)
    _unmark_copies(target)
    return Moved(resources=counts, old=old, new=new, variable=old.origin == places.VARIABLE)


def _there_already(workspace: Workspace, old: Backend) -> ProjectError:
    """Return why there is nothing to do, and do the last of a move that was cut off."""
    run = workspace.connected(old)
    run.refuse_moved()
    own = workspace.folder / "state"
    left = Backend(url=own.absolute().as_uri(), origin=places.OWN)
    if old.folder != own.absolute() and recovery.stacks(own) and not places.moved_to(left):
        return ProjectError(
            f"{old} is where the commands look already, and this clone has a state of its own in {own}. To move that "
            f"one: let {old.origin} name no place, and type the command again."
        )
    _unmark_copies(run)
    return ProjectError(f"The state is there already: {old}.")


def _copy_all(
    workspace: Workspace, source: PulumiRun, target: PulumiRun, locks: contextlib.ExitStack
) -> dict[str, int]:
    """Copy every stack, each under its environment's lock, and compare; return how many resources each has."""
    names = source.stacks()
    known = environments(workspace.stack_files or workspace.root)
    full = {name: bool(source.deployment(name).get("resources")) for name in names}
    if lost := [name for name in names if full[name] and name not in known]:
        files = ", ".join(f"Pulumi.{name}.yaml" for name in lost)
        raise ProjectError(f"The state has {', '.join(lost)}, and there is no {files}: bring that file back first.")
    if not any(full.values()):
        raise ProjectError(f"There is nothing to move: {source.backend} has no environment that is up.")
    pairs = [
        (_of(workspace, name, source.backend), _of(workspace, name, target.backend)) for name in names if full[name]
    ]
    for old, _ in pairs:
        _hold(old, locks)
    for old, new in pairs:
        old.mend()
        old.settle()
        old.ensure_stack(old.workspace.document())
        with workspace.reporter.task(f"Copy the state of {old.workspace.name}"):
            _copy(old, new)
    return {old.workspace.name: _same(old, new) for old, new in pairs}


def _of(workspace: Workspace, name: str, backend: Backend) -> PulumiRun:
    return replace(workspace, environment=name, stack="").connected(backend)


def _hold(run: PulumiRun, locks: contextlib.ExitStack) -> None:
    """Hold the lock of an environment until all is moved. Raises ProjectError where somebody changes it."""
    from operations import lock, restore  # noqa: PLC0415 - the SDK takes its time

    locks.enter_context(lock.held(run.workspace, "move-state"))
    restore.refuse_half_replaced(run.workspace)


def _copy(old: PulumiRun, new: PulumiRun) -> None:
    """Copy one stack, where the other place has not the same already. Raises ProjectError for another one's there."""
    name, mine = old.workspace.name, f"{socket.gethostname()} {old.backend.url}"
    new.mend()
    if name in new.stacks():
        if new.tags().get(COPY_OF) == mine:
            # Of this very move, which was cut off: nobody else is at it.
            new.pulumi("cancel", "--yes", check=False, capture=True)
        elif new.deployment().get("resources") and not _equal(old, new):
            raise ProjectError(
                f"{new.backend.url} has another {name} already: nothing was changed. Look at it, and name another "
                "bucket, or a folder in it (s3://BUCKET/FOLDER?…)."
            )
    new.ensure_stack(old.workspace.document())
    new.pulumi("stack", "tag", "set", COPY_OF, mine, capture=True)
    tags = old.tags()
    if tags.get(COPY_OF) == mine:
        _unmark_copies(new)
        raise ProjectError(f"{new.backend.url} is the place where the state is, spelled in another way.")
    if not _equal(old, new):
        exported = old.pulumi("stack", "export", capture=True).stdout
        new.pulumi("stack", "import", given=exported, capture=True)
    for tag, value in tags.items():
        if tag.startswith(_OURS) and tag != COPY_OF:
            new.pulumi("stack", "tag", "set", tag, value, capture=True)


def _same(old: PulumiRun, new: PulumiRun) -> int:
    """Return how many resources both have. Raises ProjectError where they are not the same."""
    if not _equal(old, new):
        raise ProjectError(
            f"{new.backend.url} has not the same {old.workspace.name} as {old.backend.url} after the copy: nothing was "
            "changed here. Type the command again."
        )
    return len(old.deployment().get("resources") or ())


def _equal(old: PulumiRun, new: PulumiRun) -> bool:
    """Tell whether both have the same resources, secrets opened: so the passphrase opens them there too."""
    there = new.deployment()
    if not there.get("resources") or recovery.salt(there) != recovery.salt(old.deployment()):
        return False
    return bool(old.in_plain()["resources"] == new.in_plain()["resources"])


def _mark(source: PulumiRun, new: str) -> None:
    """Mark the old place: the state went to `new`."""
    if folder := source.backend.folder:
        places.mark(folder, new)
        return
    stack = places.MOVED_STACK
    if stack not in source.stacks():
        source.pulumi("stack", "init", stack, "--no-select", capture=True)
        (source.folder / f"Pulumi.{stack}.yaml").unlink(missing_ok=True)
    source.pulumi("stack", "tag", "set", places.TO, new, "--stack", stack, capture=True)


def _unmark_copies(run: PulumiRun) -> None:
    for stack in run.stacks():
        if COPY_OF in run.tags(stack):
            run.pulumi("stack", "tag", "rm", COPY_OF, "--stack", stack, capture=True)


def command(
    to: Annotated[str, typer.Argument(help="s3://BUCKET?endpoint=…&s3ForcePathStyle=true, or file:///a/folder")],
) -> None:
    """Move the state of all environments to a place that a team reaches; the old one is kept, and refused from then on.

    Pulumi.yaml then names the new place. Cut off at any point, the same command goes on.
    """
    workspace = Workspace(environment=environments(ROOT)[0])
    for line in move(workspace, to).lines():
        typer.echo(line)
