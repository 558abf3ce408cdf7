"""Bring an environment up, look at what would change, take it down, remove its data."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from operations import backend as places
from operations import (
    backups,
    containers,
    failures,
    generations,
    healthy,
    in_the_way,
    lock,
    recovery,
    restore,
    stack_file,
    state_room,
)
from operations.engine import EngineError, ensure_engine
from operations.line_filter import LineFilter
from operations.network import packet_filter
from operations.project import PulumiFailedError, PulumiRun, Workspace
from operations.stack_file import ProjectError
from stack.settings import Environment, key_of

if TYPE_CHECKING:
    import docker


@dataclass(frozen=True, kw_only=True)
class Upped:
    """An environment after `up`: how each part is, as the engine says it, and the names of its generated secrets."""

    parts: list[containers.PartStatus]
    secrets: list[str]


Agree = Callable[[], object]
"""Asks whether to do what was shown. Raises where the answer is no."""


def up(
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
    restore.refuse_half_replaced(workspace)
    workspace.reporter.say(
        f"Bringing {workspace.name} up: first Docker, images and Pulumi where they are missing, which takes seconds "
        "when they are there; then its parts, about a minute"
    )
    run = workspace.prepare(note=True)
    workspace.reporter.say(f"State: {run.backend}")
    with lock.held(workspace, "up"):
        restore.refuse_half_replaced(workspace)
        upped = _up(run, interactive=interactive, empty=empty, agree=agree, make_way=make_way)
        try:
            state_room.thin(run.backend, workspace.name)
        except OSError as error:
            workspace.reporter.say(f"What earlier updates have left of the state could not be thinned: {error}")
        _tidy_images(workspace)
        return upped


def _tidy_images(workspace: Workspace) -> None:
    from operations import old_images  # noqa: PLC0415 - `status` must stay fast

    try:
        with contextlib.closing(workspace.client(timeout=backups.ANSWER_SECONDS)) as client:
            old_images.tidy(client, workspace.settings(), workspace.reporter.say)
    except EngineError as error:
        workspace.reporter.say(f"Old images were left as they are: {error}")


def _up(
    run: PulumiRun,
    *,
    interactive: bool,
    empty: Collection[str],
    agree: Agree | None = None,
    make_way: Callable[[], object] | None = None,
) -> Upped:
    workspace = run.workspace
    refuse_undoing(run)
    if agree:
        _ask(run, agree, interactive=interactive, empty=empty)
    restore.give_own_password(workspace)
    _begin_empty(run, empty)
    run.settle()
    in_the_way.refuse(run)
    if make_way:
        make_way()
    _sick_first(run)
    words = ["up", "--yes", "--suppress-outputs"]
    if agree or not workspace.settings().settings.production:
        # In production a preview comes first: what cannot be done ends there, before anything is changed.
        words.append("--skip-preview")
    if gone := _gone(run):
        workspace.reporter.say(f"Stopped or removed behind Pulumi's back, so made anew: {', '.join(gone)}")
        words.append("--refresh")
    try:
        run.pulumi(*words, show=_shown(workspace, interactive=interactive))
    except PulumiFailedError as failure:
        # What failed must not be hidden by a second failure, such as an engine that has gone away.
        parts, why = [], str(failure)
        try:
            known = in_the_way.why(run)
            parts = tell_failures(run)
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
    settled = healthy.settled(lambda: status(workspace), workspace.settings, workspace.reporter)
    return Upped(parts=settled, secrets=recovery.secret_names(run.deployment()))


def _ask(run: PulumiRun, agree: Agree, *, interactive: bool, empty: Collection[str]) -> None:
    """Show what an `up` would change, and ask. What it would refuse is refused before that."""
    workspace = run.workspace
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        _refuse_lost(run, client, empty)
    finally:
        client.close()
    run.settle()
    in_the_way.refuse(run)
    run.pulumi("preview", show=_shown(workspace, interactive=interactive))
    if gone := _gone(run, remove=False):
        workspace.reporter.say(f"Stopped or removed behind Pulumi's back, and made anew as well: {', '.join(gone)}")
    agree()


def refuse_undoing(run: PulumiRun) -> None:
    """Raise ProjectError where the settings lack a rotation that the state has."""
    workspace = run.workspace
    generations.refuse_undoing(workspace.settings(), run.deployment(), file=workspace.committed_file.name)


def _sick_first(run: PulumiRun) -> None:
    """Have sick replicas of the API replaced before those that serve: else going back would take these first."""
    workspace = run.workspace
    replicas = workspace.settings().parts_of("api")
    well = {row.part for row in status(workspace) if row.ok}
    sick = [number for number, part in enumerate(replicas, 1) if part not in well]
    if not sick or len(sick) == len(replicas):
        return
    workspace.reporter.say(
        f"Replaced first, because the others serve: {', '.join(replicas[each - 1] for each in sick)}"
    )
    first = {key_of("api"): {"first": sick}}
    # In the copy of the stack file alone, which the next run writes anew.
    run.ensure_stack(replace(workspace, extra_config=stack_file.fill(first, workspace.extra_config)).document())


def _begin_empty(run: PulumiRun, wanted: Collection[str]) -> None:
    """Make the data volumes that were lost and may be empty. Raises ProjectError where another one was lost.

    Pulumi would make each of them without a word, and its state says of the keepers that they have done their work.
    """
    workspace, environment = run.workspace, run.workspace.settings()
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        lost = _refuse_lost(run, client, wanted)
        off = _switched_off(environment) if lost else set()
        for name, volume in lost.items():
            # What does not run is made anew below, in its order: the keepers have all to do again.
            users = [] if name in off else [each for each in restore.users_of(name) if each != backups.PART]
            containers.stop(client, environment, users, workspace.reporter)
            client.volumes.create(volume)
            workspace.reporter.say(f"{name} begins with nothing in it: {volume} was lost")
    finally:
        client.close()


def _switched_off(environment: Environment) -> set[str]:
    """Return the data volumes that no part uses now."""
    from stack.platform import specs  # noqa: PLC0415 - Pulumi: `status` must stay fast
    from stack.storage import left  # noqa: PLC0415 - as above

    return set(left(environment, specs(environment)))


def _refuse_lost(run: PulumiRun, client: docker.DockerClient, wanted: Collection[str]) -> dict[str, str]:
    """Return the data volumes that were lost. Raises ProjectError where one is not among those that may be empty."""
    lost = _lost_volumes(run, client)
    if not lost.keys() <= set(wanted):
        backed_up = bool(containers.of_fields(client, run.workspace.settings(), [backups.PART]))
        raise ProjectError(_lost(run.workspace, lost, backed_up=backed_up))
    return lost


def _lost_volumes(run: PulumiRun, client: docker.DockerClient) -> dict[str, str]:
    """Return the data volumes that the state has and the engine has not, as `recovery.data_volumes` does."""
    there = containers.volume_names(client)
    return {name: each for name, each in recovery.data_volumes(run.deployment()).items() if each not in there}


def _lost(workspace: Workspace, lost: Mapping[str, str], *, backed_up: bool) -> str:
    """Say what was lost, and what to type. backed_up: whether the backup server is there."""
    environment, typed = workspace.settings(), workspace.typed
    empty = typed(f"up EMPTY={shlex.quote(' '.join(lost))}")
    gone = ", ".join(lost.values())
    lines = [
        f"Data that was here is gone: {', '.join(lost)}. {environment.settings.docker_host} has no volume {gone}.",
        "A new one would be empty, so nothing was started.",
    ]
    # What no part uses now is nothing that a restore could put back.
    unused = _switched_off(environment) & lost.keys()
    lines += [f"No part uses {name} now: it is switched off." for name in sorted(unused)]
    lost = {name: volume for name, volume in lost.items() if name not in unused}
    if "postgres" in lost and environment.settings.backup.enabled:
        if backups.PART in lost:
            offsite = f"The database from the off-site copy: {empty}, then {typed('restore FROM=offsite')}"
            lines.append(offsite if environment.offsite else "The database's backups are gone with it.")
        elif not backed_up:
            moment = f"{typed('backups')} for its last moment, then {typed('restore TO=…')}"
            lines.append(f"The database from its backups: {empty}, then {moment}")
        elif environment.physical_backups:
            lines.append(f"The database, up to its last moment: {typed('restore BACKUP=latest')}")
        else:
            lines.append(f"The database from a dump: {typed('backups')}, then {typed('restore BACKUP=dump-…')}")
    if "redis" in lost and backed_up:
        lines.append(f"Redis from a copy: {typed('backups')}, then {typed('restore BACKUP=redis-…')}")
    if "workspace" in lost and backed_up:
        lines.append(f"The workspace from a copy: {typed('backups')}, then {typed('restore BACKUP=workspace-…')}")
    lines.append(f"To begin with nothing in it: {empty}")
    lines.append("If it was on another engine than this one, name that one: DOCKER_HOST")
    return "\n".join(lines)


def _gone(run: PulumiRun, *, remove: bool = True) -> list[str]:
    """Return the names of containers and networks in Pulumi's state that are not on the engine, or not any more.

    Pulumi itself would not know: it has its state. What was stopped is removed here, because the provider would start
    it, all at once and without waiting for any; what it makes anew comes in its order, and is waited for.
    remove: else it is only told.
    """
    deployment = run.deployment()
    known = recovery.known_names(deployment)
    if not known:
        return []
    client = run.workspace.client()
    try:
        stopped = containers.stopped(client, run.workspace.name, recovery.known_ids(deployment))
        for each in stopped if remove else ():
            each.remove()
        return sorted(known - containers.names(client) | {str(each.name) for each in stopped})
    finally:
        client.close()


def preview(workspace: Workspace, *, interactive: bool, diff: bool = False) -> None:
    """Show what `up` would change. diff: with each field. Raises PulumiFailedError."""
    run = workspace.prepare(images=False)
    refuse_undoing(run)
    in_the_way.refuse_missing_networks(workspace)
    run.pulumi("preview", *(["--diff"] if diff else []), show=_shown(workspace, interactive=interactive))


def down(workspace: Workspace, *, interactive: bool, agree: Agree | None = None) -> list[str]:
    """Remove everything but the data volumes and the secrets that open them; return the volumes.

    One that was lost is told, and stays in the state. agree: as for `up`. Raises ProjectError where a restore has half
    replaced the data: it needs the containers to be finished.
    """
    run = _to_end(workspace, "down")
    with lock.held(workspace, "down"):
        restore.refuse_half_replaced(workspace)
        run.settle()
        if agree:
            looking = ("destroy", "--exclude-protected", "--preview-only", "--suppress-outputs")
            run.pulumi(*looking, show=_shown(workspace, interactive=interactive))
            agree()
        restore.give_own_password(workspace)  # while PostgreSQL is there: the next `up` makes it and the keeper at once
        words = ("destroy", "--exclude-protected", "--yes", "--skip-preview", "--suppress-outputs")
        run.pulumi(*words, show=_shown(workspace, interactive=interactive))
        packet_filter.unguard(workspace)
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        lost = _lost_volumes(run, client)
    finally:
        client.close()
    if lost:
        gone = ", ".join(lost.values())
        workspace.reporter.say(f"Lost before: {gone}. {workspace.typed('up')} says how to get back what was in there")
    return [volume for name, volume in recovery.data_volumes(run.deployment()).items() if name not in lost]


@dataclass(frozen=True, kw_only=True)
class DataVolume:
    """A volume with data of an environment: one that is in use, or one that a restore has made."""

    name: str
    bytes: int | None
    """None where the engine does not say."""
    origin: str = ""
    """Of a restore: what it is, and since when."""


def data_volumes(workspace: Workspace) -> list[DataVolume]:
    """Return every volume with data of the environment, also those that restores have set aside, the newest last."""
    run = _to_end(workspace, "destroy-data")
    environment = workspace.settings()
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        with workspace.reporter.task("Look at the data volumes"):
            origins = _data_there(run, client)
            for name in backups.made_by_restores(client, environment):
                doing = "an import" if backups.IMPORTED in name else "a restore"
                what = "set aside by a restore" if backups.BEFORE in name else f"left by {doing} that was cut off"
                origins[name] = f"{what}, {backups.begun(name):%Y-%m-%d %H:%M} UTC"
            sizes = containers.volume_sizes(client)
    finally:
        client.close()
    return [DataVolume(name=name, bytes=sizes.get(name), origin=origin) for name, origin in origins.items()]


def destroy_data(workspace: Workspace, *, interactive: bool) -> list[str]:
    """Remove everything, the data too, and return the removed volumes. There is no way back.

    The data is also what restores have set aside. In which state was said by `data_volumes`, which is shown first.
    """
    run = _to_end(workspace, "destroy-data", told=True)
    with lock.held(workspace, "destroy-data"):
        return _destroy_data(run, interactive=interactive)


def _destroy_data(run: PulumiRun, *, interactive: bool) -> list[str]:
    from operations import old_images  # noqa: PLC0415 - `status` must stay fast

    workspace = run.workspace
    run.settle()
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        volumes = list(_data_there(run, client))
        run.pulumi("state", "unprotect", "--all", "--yes", capture=True)
        words = ("destroy", "--yes", "--skip-preview", "--suppress-outputs")
        run.pulumi(*words, show=_shown(workspace, interactive=interactive))
        packet_filter.unguard(workspace)
        # Pulumi forgets a volume that is retained on delete (production) without removing it.
        containers.remove_volumes(client, volumes)
        old_images.forget(client, workspace.settings())
        return [*volumes, *restore.forget_all(workspace, client)]
    finally:
        client.close()


def _data_there(run: PulumiRun, client: docker.DockerClient) -> dict[str, str]:
    """Return the data volumes: those in the state, then those that only their names tell, each of which says so.

    In production Pulumi forgets a volume without removing it: an earlier `destroy-data` that failed has left it there.
    """
    known = recovery.data_volumes(run.deployment()).values()
    # One word between, so that `staging` is not given what belongs to `staging-2`.
    ours = re.compile(rf"{re.escape(run.workspace.settings().prefix)}-[a-z]+-data")
    named = filter(ours.fullmatch, containers.volume_names(client))
    return dict.fromkeys(known, "") | dict.fromkeys(sorted(set(named) - set(known)), "Pulumi does not know it")


def status(workspace: Workspace) -> list[containers.PartStatus]:
    """Return how each part is, as the engine says it. Raises EngineError when it does not answer."""
    client = workspace.client()
    try:
        return containers.status(client, workspace.settings())
    finally:
        client.close()


def tell_failures(run: PulumiRun) -> list[str]:
    """Say of each container that is not healthy what a person needs to find out why, without a secret.

    Return their parts.
    """
    workspace = run.workspace
    secrets = run.secrets(every=True)
    client = workspace.client()
    try:
        found = list(
            failures.failures(client, workspace.name, secrets, more=lambda part: workspace.typed(f"logs PART={part}"))
        )
    finally:
        client.close()
    for each in found:
        if each.text:
            workspace.reporter.say(f"\n{each.text}")
    if waiting := [each.part for each in found if not each.text]:
        workspace.reporter.say(f"\nNot yet healthy, without a failed check: {', '.join(waiting)}")
    return [each.part for each in found if each.text] or waiting


def _to_end(workspace: Workspace, words: str, *, told: bool = False) -> PulumiRun:
    """Return Pulumi for a command that takes the environment away, and say in which state.

    words: the command's. told: that was said already.
    """
    backend = workspace.backend()
    if not told:
        workspace.reporter.say(f"State: {backend}")
    places.refuse_forgotten(workspace.folder, backend, workspace.name, workspace.typed(words))
    return _with_engine(workspace)


def _with_engine(workspace: Workspace) -> PulumiRun:
    ensure_engine(workspace.settings().settings.docker_host, report=workspace.reporter.say, cache=workspace.cache)
    return workspace.open()


def _shown(workspace: Workspace, *, interactive: bool) -> Callable[[str], None] | None:
    return None if interactive else LineFilter(workspace.reporter.say)
