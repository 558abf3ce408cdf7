"""`samokoder move-state s3://…`: move the state of all environments to another backend of Pulumi.

The old place is valid until it gets a mark that says where the state went. Before the mark every stack is copied and
compared; if the command is killed until then, it copies again what has changed when it is typed again. After the mark
the tag that forbids the use of the copies is removed, and Pulumi.yaml is written. So the mark is the journal. Nothing
is ever deleted: the old place keeps its files, and commands refuse to use it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from operations.errors import ProjectError
from operations.workspace import backend as places
from operations.workspace import pulumi_state
from operations.workspace.backend import Backend
from operations.workspace.pulumi import PulumiRun
from operations.workspace.stack_file import environments
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError

_OURS = "samokoder:"
"""Prefix of the tags that are copied too: the commits that CI has deployed."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """The result of a move."""

    resources: Mapping[str, int]
    """Stack -> how many resources it has; empty where only the rest of an earlier move was done."""
    old: Backend
    new: str
    variable: bool
    """Whether PULUMI_BACKEND_URL still names the old place here."""
    token: bool
    """Whether PULUMI_ACCESS_TOKEN is set here, which is refused beside Pulumi.yaml's place."""

    def lines(self) -> list[str]:
        """Return what a person has to know."""
        same = ", ".join(f"{stack} ({count} resources)" for stack, count in self.resources.items())
        lines = [f"Moved to {self.new}: {same}. Each was compared there, and the passphrase opens it."] if same else []
        lines.append(f"{places.PROJECT_FILE} says so: commit it. The old state stays where it was, and is refused now.")
        if self.variable:
            lines.append(f"{places.VARIABLE} names the old place and comes first: change or unset it, in CI too.")
        if self.token:
            lines.append(f"{places.TOKEN} is set beside it, and commands are refused until it is unset, in CI too.")
        return [*lines, "What a colleague needs now: docs/colleagues.md"]


def move(workspace: Workspace, url: str) -> Moved:
    """Move the state of all environments to `url`, or finish an interrupted move.

    workspace: any environment of the clone. Raises ProjectError where `url` has a state that is not ours, where another
    command changes an environment, or where a copy is not the same; then nothing has changed here.
    """
    new = places.checked(url)
    old = workspace.backend()
    if new == (places.checked(old.url) if old.folder else old.url):
        raise _there_already(workspace, old)
    counts: dict[str, int] = {}
    with contextlib.ExitStack() as locks:
        barred = _hold_all(workspace, locks)
        source, target = workspace.connected(old), workspace.connected(Backend(url=new, origin=places.MOVE))
        went = source.went_to()
        if went is None:
            if (left := target.went_to()) is not None:
                raise ProjectError(
                    f"The state has left {new} (to {left}), and what is in there is old. Name another folder."
                )
            counts = _copy_all(workspace, source, target, barred)
            _mark(source, new)
        elif went != new:
            raise places.moved(old, went)
        # The copies come before Pulumi.yaml, so that no command finds the new place and is refused there.
        _unmark_copies(target, _full(source))
        places.write(workspace.root, new)
    variables = workspace.variables
    return Moved(
        resources=counts,
        old=old,
        new=new,
        variable=old.origin == places.VARIABLE,
        token=bool(variables.get(places.TOKEN)),
    )


def _there_already(workspace: Workspace, old: Backend) -> ProjectError:
    """Return why there is nothing to do."""
    workspace.connected(old).refuse_moved()
    if places.forgotten(workspace.folder, old):
        return ProjectError(
            f"{old} is where the commands look already, and this clone has a state of its own in "
            f"{workspace.folder / 'state'}. To move that one: let {old.origin} name no place, and type this again."
        )
    return ProjectError(f"The state is there already: {old}.")


def _hold_all(workspace: Workspace, locks: contextlib.ExitStack) -> dict[str, InvalidSettingsError]:
    """Hold the locks of all environments, also of those without resources, so that no command brings one up meanwhile.

    Return name -> error of the environments with invalid settings, which no command can bring up. Raises ProjectError
    where another command changes an environment.
    """
    from operations.data.restore import unfinished  # noqa: PLC0415 - the SDK takes its time
    from operations.workspace import lock  # noqa: PLC0415 - the SDK takes its time

    barred: dict[str, InvalidSettingsError] = {}
    for name in environments(workspace.committed_folder):
        each = _environment(workspace, name)
        try:
            each.settings(on_this_machine=False)
        except InvalidSettingsError as error:
            barred[name] = error
            continue
        # The engine is looked up here, because a new clone has not noted its engine yet.
        locks.enter_context(lock.held(each, "move-state", docker_host=each.engine().docker_host))
        unfinished.refuse_half_replaced(each)
    return barred


def _full(run: PulumiRun) -> list[str]:
    """Return the stacks of a place that have resources."""
    return [name for name in run.stacks() if run.deployment(name).get("resources")]


def _copy_all(
    workspace: Workspace, source: PulumiRun, target: PulumiRun, barred: Mapping[str, InvalidSettingsError]
) -> dict[str, int]:
    """Copy every stack and compare; return stack -> number of resources. The caller holds all locks.

    All stacks in the target are checked before anything is written there.
    """
    names = _full(source)
    known = environments(workspace.committed_folder)
    if lost := [name for name in names if name not in known]:
        files = ", ".join(f"Pulumi.{name}.yaml" for name in lost)
        raise ProjectError(f"The state has {', '.join(lost)}, and there is no {files}: bring that file back first.")
    if not names:
        raise ProjectError(f"There is nothing to move: {source.backend} has no environment that is up.")
    for name in names:
        if name in barred:
            raise barred[name]
    each_of = [_environment(workspace, name) for name in names]
    pairs = [(each, each.connected(source.backend), each.connected(target.backend)) for each in each_of]
    for each, old, new in pairs:
        _look(each, old, new)
    _refuse_strangers(target, names)
    for each, old, new in pairs:
        with workspace.reporter.task(f"Copy the state of {old.stack}"):
            _copy(each, old, new)
    counts = {old.stack: _same(old, new) for _, old, new in pairs}
    if late := sorted(set(_full(source)) - set(names)):
        raise ProjectError(f"{', '.join(late)} came up meanwhile: nothing was changed here. Type the command again.")
    return counts


def _environment(workspace: Workspace, name: str) -> Workspace:
    return replace(workspace, environment=name, stack="")


def _look(workspace: Workspace, old: PulumiRun, new: PulumiRun) -> None:
    """Put the old stack in order, and check that it may be copied.

    Raises ProjectError where the target has another stack of this name.
    """
    name, mine = old.stack, places.copy_of(old.backend.url)
    old.mend()
    _refuse_itself(old, new)
    old.settle(workspace.client)
    old.ensure_stack(workspace.document())
    new.mend()
    if name in new.stacks() and new.tags().get(places.COPY_OF) != mine and not (_blank(new, name) or _equal(old, new)):
        raise _another(new, name)


def _refuse_strangers(target: PulumiRun, names: list[str]) -> None:
    """Raise ProjectError where the target has a foreign stack, because one place has the state of all environments."""
    for name in target.stacks():
        if name not in {*names, places.MOVED_STACK} and not _blank(target, name):
            raise _another(target, name)


def _another(run: PulumiRun, name: str) -> ProjectError:
    return ProjectError(
        f"{run.backend.url} has another {name} already: nothing was written there. Look at it, and name another "
        "bucket, or a folder in it (s3://BUCKET/FOLDER?…)."
    )


def _blank(run: PulumiRun, name: str) -> bool:
    """Tell whether a stack was made but never used: it has no resources, no history, and no tag of ours."""
    if run.deployment(name).get("resources") or any(tag.startswith(_OURS) for tag in run.tags(name)):
        return False
    history = run.pulumi("stack", "history", "--json", "--stack", name, capture=True).stdout
    return not json.loads(history or "[]")


def _refuse_itself(old: PulumiRun, new: PulumiRun) -> None:
    """Raise ProjectError where both URLs are one place: then the old stack has the tag of a copy, which is removed."""
    name = old.stack
    if name in old.stacks() and old.tags().get(places.COPY_OF) == places.copy_of(old.backend.url):
        _unmark_copies(old, [name])
        raise ProjectError(f"{new.backend.url} is the place where the state is, spelled in another way.")


def _copy(workspace: Workspace, old: PulumiRun, new: PulumiRun) -> None:
    """Copy one stack, unless the new place already has the same."""
    mine = places.copy_of(old.backend.url)
    if old.stack in new.stacks() and new.tags().get(places.COPY_OF) == mine:
        # This move itself was interrupted and left Pulumi's lock: no other process uses the copy.
        new.pulumi("cancel", "--yes", check=False, capture=True)
    new.ensure_stack(workspace.document())
    new.pulumi("stack", "tag", "set", places.COPY_OF, mine, capture=True)
    _refuse_itself(old, new)
    if not _equal(old, new):
        exported = old.pulumi("stack", "export", capture=True).stdout
        new.pulumi("stack", "import", given=exported, capture=True)
    for tag, value in old.tags().items():
        if tag.startswith(_OURS):
            new.pulumi("stack", "tag", "set", tag, value, capture=True)


def _same(old: PulumiRun, new: PulumiRun) -> int:
    """Return how many resources both have. Raises ProjectError where they are not the same."""
    if not _equal(old, new):
        raise ProjectError(
            f"{new.backend.url} has not the same {old.stack} as {old.backend} after the copy: nothing was "
            "changed here. Type the command again."
        )
    return len(old.deployment().get("resources") or ())


def _equal(old: PulumiRun, new: PulumiRun) -> bool:
    """Tell whether both have the same resources with decrypted secrets, so that the passphrase opens the copy too."""
    there = new.deployment()
    if not there.get("resources") or pulumi_state.salt(there) != pulumi_state.salt(old.deployment()):
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


def _unmark_copies(run: PulumiRun, names: list[str]) -> None:
    """Remove the tag that forbids the use of the copies, because each copy is complete."""
    for name in run.stacks():
        if name in names and places.COPY_OF in run.tags(name):
            run.pulumi("stack", "tag", "rm", places.COPY_OF, "--stack", name, capture=True)
