"""Lost data volumes: the message about them, and how they are made again, empty."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from operations.data import backups
from operations.data.restore import server_users
from operations.engine import containers
from operations.engine.volumes import volume_names
from operations.errors import ProjectError
from operations.workspace import pulumi_state
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment

if TYPE_CHECKING:
    import docker


def begin_empty(workspace: Workspace, run: PulumiRun, wanted: Collection[str]) -> None:
    """Make the lost data volumes that may be empty. Raises ProjectError where another data volume was lost.

    Pulumi would make each of them without a message, and would not run postgres-roles and redis-users again, because
    they are done according to its state.
    """
    environment = workspace.settings()
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        lost = refuse_lost(workspace, run, client, wanted)
        off = _switched_off(environment) if lost else set()
        for name, volume in lost.items():
            # The same `up` makes stopped parts again later, in their order, so that roles and users are made again.
            users = set[str]() if name in off else {*server_users.users_of(name)} - {*server_users.BACKUP}
            containers.stop(client, environment, users, workspace.reporter)
            client.volumes.create(volume)
            workspace.reporter.say(f"{name} begins with nothing in it: {volume} was lost")
    finally:
        client.close()


def _switched_off(environment: Environment) -> set[str]:
    """Return the data volumes that no part uses now."""
    from stack.catalogue import specs  # noqa: PLC0415 - the settings: `status` must stay fast
    from stack.spec.volumes import left  # noqa: PLC0415 - as above

    return set(left(environment, specs(environment)))


def refuse_lost(
    workspace: Workspace, run: PulumiRun, client: docker.DockerClient, wanted: Collection[str]
) -> dict[str, str]:
    """Return the data volumes that were lost. Raises ProjectError where one is not among those that may be empty."""
    lost = lost_volumes(run, client)
    if not lost.keys() <= set(wanted):
        backed_up = bool(containers.of_fields(client, workspace.settings(), [backups.PART]))
        raise ProjectError(_lost(workspace, lost, backed_up=backed_up))
    return lost


def lost_volumes(run: PulumiRun, client: docker.DockerClient) -> dict[str, str]:
    """Return the data volumes that the state has and the engine lacks, as `pulumi_state.data_volumes` does."""
    there = volume_names(client)
    return {name: each for name, each in pulumi_state.data_volumes(run.deployment()).items() if each not in there}


def _lost(workspace: Workspace, lost: Mapping[str, str], *, backed_up: bool) -> str:
    """Return what was lost, and what to type. backed_up: whether the backup server has a container."""
    environment, typed = workspace.settings(), workspace.typed
    empty = typed(f"up EMPTY={shlex.quote(' '.join(lost))}")
    gone = ", ".join(lost.values())
    lines = [
        f"Data that was here is gone: {', '.join(lost)}. {environment.settings.docker_host} has no volume {gone}.",
        "A new one would be empty, so nothing was started.",
    ]
    # A restore cannot put back the data of a part that is switched off.
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
