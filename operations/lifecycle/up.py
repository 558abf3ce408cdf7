"""Bring an environment up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from host.errors import EngineError
from operations.data import backups
from operations.data.restore import unfinished
from operations.engine import containers, healthy
from operations.engine.part_status import PartStatus
from operations.errors import ProjectError, PulumiFailedError
from operations.lifecycle import in_the_way
from operations.lifecycle.display import shown_by
from operations.lifecycle.failures import tell_failures
from operations.lifecycle.lost_data import begin_empty, refuse_lost
from operations.lifecycle.prepare import prepare
from operations.network import packet_filter
from operations.workspace import generations, lock, origins, pulumi_state, stack_file, state_room
from operations.workspace.known import live_status
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.settings.keys import key_of


@dataclass(frozen=True, kw_only=True)
class Upped:
    """An environment after `up`: how each part is, as the engine says it, and the names of its generated secrets."""

    parts: list[PartStatus]
    secrets: list[str]


Agree = Callable[[], object]
"""Asks whether to do what was shown. Raises where the answer is no."""


def bring_up(
    workspace: Workspace,
    *,
    interactive: bool,
    empty: Collection[str] = (),
    agree: Agree | None = None,
    make_way: Callable[[], object] | None = None,
) -> Upped:
    """Bring an environment up.

    interactive: our output is a terminal, so Pulumi shows its own display there; else it is shown line by line.
    empty: what may begin with nothing in it where its data volume was lost (`postgres`). agree: is called once it was
    shown what would change, before anything is. make_way: removes what is to be made anew, when nothing is left that
    would be refused.
    Raises PulumiFailedError after telling of each container that is not healthy, ProjectError where half a database
    would be started, or an empty one in the place of one that was lost, or a rotation of a secret undone.
    """
    unfinished.refuse_half_replaced(workspace)
    workspace.reporter.say(
        f"Bringing {workspace.name} up: first Docker, images and Pulumi where they are missing, which takes seconds "
        "when they are there; then its parts, about a minute"
    )
    run = prepare(workspace, note=True)
    workspace.reporter.say(f"State: {run.backend}")
    with lock.held(workspace, "up"):
        unfinished.refuse_half_replaced(workspace)
        upped = _up(workspace, run, interactive=interactive, empty=empty, agree=agree, make_way=make_way)
        try:
            state_room.thin(run.backend, workspace.name)
        except OSError as error:
            workspace.reporter.say(f"What earlier updates have left of the state could not be thinned: {error}")
        _tidy_images(workspace)
        return upped


def _tidy_images(workspace: Workspace) -> None:
    from operations.engine import old_images  # noqa: PLC0415 - `status` must stay fast

    try:
        with contextlib.closing(workspace.client(timeout=backups.ANSWER_SECONDS)) as client:
            old_images.tidy(client, workspace.settings(), workspace.reporter.say)
    except EngineError as error:
        workspace.reporter.say(f"Old images were left as they are: {error}")


def _up(
    workspace: Workspace,
    run: PulumiRun,
    *,
    interactive: bool,
    empty: Collection[str],
    agree: Agree | None = None,
    make_way: Callable[[], object] | None = None,
) -> Upped:
    refuse_undoing(workspace, run)
    if agree:
        _ask(workspace, run, agree, interactive=interactive, empty=empty)
    unfinished.give_own_password(workspace)
    begin_empty(workspace, run, empty)
    run.settle(workspace.client)
    in_the_way.refuse(workspace, run)
    origins.note(run)
    if make_way:
        make_way()
    _sick_first(workspace, run)
    words = ["up", "--yes", "--suppress-outputs"]
    if agree or not workspace.settings().settings.production:
        # In production a preview comes first: what cannot be done ends there, before anything is changed.
        words.append("--skip-preview")
    if gone := _gone(workspace, run):
        workspace.reporter.say(f"Stopped or removed behind Pulumi's back, so made anew: {', '.join(gone)}")
        words.append("--refresh")
    try:
        run.pulumi(*words, show=shown_by(workspace, interactive=interactive))
    except PulumiFailedError as failure:
        # What failed must not be hidden by a second failure, such as an engine that has gone away.
        parts, why = [], str(failure)
        try:
            known = in_the_way.why(workspace, run)
            parts = tell_failures(workspace, run)
        except (ProjectError, EngineError) as error:
            workspace.reporter.say(f"The containers could not be asked: {error}")
            known = ""
        if parts:
            why = f"`pulumi up` failed: not healthy: {', '.join(parts)}"
        if parts or known:
            raise PulumiFailedError("\n".join(filter(None, [why, known]))) from None
        raise
    finally:
        packet_filter.guard(workspace)
    settled = healthy.settled(lambda: live_status(workspace), workspace.settings, workspace.reporter)
    return Upped(parts=settled, secrets=pulumi_state.secret_names(run.deployment()))


def _ask(workspace: Workspace, run: PulumiRun, agree: Agree, *, interactive: bool, empty: Collection[str]) -> None:
    """Show what an `up` would change, and ask. What it would refuse is refused before that."""
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        refuse_lost(workspace, run, client, empty)
    finally:
        client.close()
    run.settle(workspace.client)
    in_the_way.refuse(workspace, run)
    run.pulumi("preview", show=shown_by(workspace, interactive=interactive))
    if gone := _gone(workspace, run, remove=False):
        workspace.reporter.say(f"Stopped or removed behind Pulumi's back, and made anew as well: {', '.join(gone)}")
    agree()


def refuse_undoing(workspace: Workspace, run: PulumiRun) -> None:
    """Raise ProjectError where the settings lack a rotation that the state has."""
    generations.refuse_undoing(workspace.settings(), run.deployment(), file=workspace.committed_file.name)


def refused_as_up(workspace: Workspace) -> PulumiRun:
    """Return Pulumi for an update that a person types to it, prepared as `up` is: another clone has other images.

    Raises ProjectError where `up` would refuse it because of the data, the images or a rotation.
    """
    run = prepare(workspace)
    refuse_undoing(workspace, run)
    begin_empty(workspace, run, ())
    return run


def _sick_first(workspace: Workspace, run: PulumiRun) -> None:
    """Have sick replicas of the API replaced before those that serve: else going back would take these first."""
    replicas = workspace.settings().parts_of("api")
    well = {row.part for row in live_status(workspace) if row.ok}
    sick = [number for number, part in enumerate(replicas, 1) if part not in well]
    if not sick or len(sick) == len(replicas):
        return
    workspace.reporter.say(
        f"Replaced first, because the others serve: {', '.join(replicas[each - 1] for each in sick)}"
    )
    first = {key_of("api"): {"first": sick}}
    # In the copy of the stack file alone, which the next run writes anew.
    run.ensure_stack(replace(workspace, extra_config=stack_file.fill(first, workspace.extra_config)).document())


def _gone(workspace: Workspace, run: PulumiRun, *, remove: bool = True) -> list[str]:
    """Return the names of containers and networks in Pulumi's state that are not on the engine, or not any more.

    Pulumi itself would not know: it has its state. What was stopped is removed here, because the provider would start
    it, all at once and without waiting for any; what it makes anew comes in its order, and is waited for.
    remove: else it is only told.
    """
    deployment = run.deployment()
    known = pulumi_state.known_names(deployment)
    if not known:
        return []
    client = workspace.client()
    try:
        stopped = containers.stopped(client, workspace.name, pulumi_state.known_ids(deployment))
        for each in stopped if remove else ():
            each.remove()
        return sorted(known - containers.names(client) | {str(each.name) for each in stopped})
    finally:
        client.close()
