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
from operations.lifecycle.prepare import prepare, prepared, refuse_changed
from operations.network import engine_rules, packet_filter
from operations.workspace import generations, kept_secrets, known, lock, origins, pulumi_state, stack_file, state_room
from operations.workspace.known import live_status, note
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.settings.keys import key_of


@dataclass(frozen=True, kw_only=True)
class Upped:
    """An environment after `up`: the status of each part, and the names of its generated secrets."""

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

    interactive: the output is a terminal, where Pulumi shows its own display; else its lines are shown one by one.
    empty: the parts that may begin with an empty data volume where theirs was lost (`postgres`). agree: called after
    the changes are shown and before anything is changed. make_way: does what comes before Pulumi (removes what
    must be made again); called when all checks have passed.
    Raises PulumiFailedError after it has reported each unhealthy container, ProjectError where a half replaced database
    would be started, where a lost data volume would be replaced by an empty one, where a rotation of a secret would be
    undone, or where another run has changed the environment while this one prepared.
    """
    unfinished.refuse_half_replaced(workspace)
    workspace.reporter.say(
        f"Bringing {workspace.name} up: first Docker, images and Pulumi where they are missing, which takes seconds "
        "when they are there; then its parts, about a minute"
    )
    ready = prepared(workspace, note=True)
    run = ready.run
    workspace.reporter.say(f"State: {run.backend}")
    with lock.held(workspace, "up"):
        unfinished.refuse_half_replaced(workspace)
        refuse_changed(workspace, ready)
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
    known.refuse_production_lost(workspace, was=pulumi_state.is_production(run.deployment()))
    if agree:
        _ask(workspace, run, agree, interactive=interactive, empty=empty)
    unfinished.give_own_password(workspace)
    begin_empty(workspace, run, empty)
    run.settle(workspace.client)
    in_the_way.refuse(workspace, run)
    environment = workspace.settings()
    # Without them the engine publishes no port, and nothing that starts reaches anything.
    lost_rules = engine_rules.lost_rules_remark(environment, workspace, environment.settings.docker_host)
    if lost_rules:
        workspace.reporter.say(f"Warning: {lost_rules}")
    origins.note(run)
    if make_way:
        make_way()
    _sick_first(workspace, run)
    words = ["up", "--yes", "--suppress-outputs"]
    if agree or not workspace.settings().settings.production:
        # In production Pulumi previews first, so that an impossible change fails before anything is changed.
        words.append("--skip-preview")
    if gone := _gone(workspace, run):
        workspace.reporter.say(f"Stopped or removed behind Pulumi's back, so made anew: {', '.join(gone)}")
        words.append("--refresh")
    note(workspace)
    try:
        run.pulumi(*words, show=shown_by(workspace, interactive=interactive))
    except PulumiFailedError as failure:
        if why := _why_failed(workspace, run, str(failure), lost_rules):
            raise PulumiFailedError(why) from None
        raise
    finally:
        packet_filter.guard(workspace)
    settled = healthy.settled(lambda: live_status(workspace), workspace.settings, workspace.reporter)
    if any(row.counts_as_failed for row in settled):
        # Pulumi has nothing to change in a container that became unhealthy after an earlier `up`.
        tell_failures(workspace, run)
        if lost_rules:
            workspace.reporter.say(lost_rules)
    return Upped(parts=settled, secrets=pulumi_state.secret_names(run.deployment()))


def _why_failed(workspace: Workspace, run: PulumiRun, failure: str, lost_rules: str) -> str:
    """Return Pulumi's failure with its reasons; empty where nothing beside Pulumi's own message is known."""
    parts: list[str] = []
    # What failed must not be hidden by a second failure, such as an engine that has gone away.
    try:
        known = in_the_way.why(workspace, run)
        parts = tell_failures(workspace, run)
    except (ProjectError, EngineError) as error:
        workspace.reporter.say(f"The containers could not be asked: {error}")
        known = ""
    if parts:
        failure = f"`pulumi up` failed: not healthy: {', '.join(parts)}"
    return "\n".join(filter(None, [failure, known, lost_rules])) if parts or known or lost_rules else ""


def _ask(workspace: Workspace, run: PulumiRun, agree: Agree, *, interactive: bool, empty: Collection[str]) -> None:
    """Refuse what `up` would refuse, then show what `up` would change, and ask."""
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
    """Raise ProjectError where the settings lack a rotation that the state has, or the secret of stored data."""
    deployment = run.deployment()
    generations.refuse_undoing(
        workspace.settings(),
        deployment,
        file=workspace.committed_file.name,
        by_rotate=generations.is_handed_over(workspace),
    )
    kept_secrets.refuse_others(workspace, run, deployment)


def refused_as_up(workspace: Workspace) -> PulumiRun:
    """Return Pulumi for an update that a person types to it, prepared as `up` is: another clone has other images.

    Raises ProjectError where `up` would refuse it because of the data, the images or a rotation.
    """
    run = prepare(workspace)
    refuse_undoing(workspace, run)
    known.refuse_production_lost(workspace, was=pulumi_state.is_production(run.deployment()))
    begin_empty(workspace, run, ())
    note(workspace)
    return run


def _sick_first(workspace: Workspace, run: PulumiRun) -> None:
    """Replace unhealthy API replicas before those that serve: a rollback would else first replace those that serve."""
    replicas = workspace.settings().parts_of("api")
    well = {row.part for row in live_status(workspace) if row.ok}
    sick = [number for number, part in enumerate(replicas, 1) if part not in well]
    if not sick or len(sick) == len(replicas):
        return
    workspace.reporter.say(
        f"Replaced first, because the others serve: {', '.join(replicas[each - 1] for each in sick)}"
    )
    first = {key_of("api"): {"first": sick}}
    # Only the copy of the stack file gets this order, and the next run writes that copy again.
    run.ensure_stack(replace(workspace, extra_config=stack_file.fill(first, workspace.extra_config)).document())


def _gone(workspace: Workspace, run: PulumiRun, *, remove: bool = True) -> list[str]:
    """Return the names of containers and networks in Pulumi's state that are stopped or missing on the engine.

    Pulumi does not notice this, because it trusts its state. Stopped containers are removed here, because the provider
    would start them all at once and wait for none; it makes missing containers in their order, and waits for each.
    remove: False returns the names and removes nothing.
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
