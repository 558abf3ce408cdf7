"""Take an environment down, or remove it with its data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from host.daemon import ensure_engine
from operations.data import backups
from operations.data.restore import unfinished
from operations.data.volume_names import BEFORE, IMPORTED, begun, made_by_restores
from operations.engine.volumes import remove_volumes, used_by_others, volume_names, volume_sizes
from operations.lifecycle.display import shown_by
from operations.lifecycle.lost_data import lost_volumes
from operations.lifecycle.up import Agree
from operations.network import packet_filter
from operations.workspace import backend as places
from operations.workspace import lock, origins, pulumi_state, stack_file
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace

if TYPE_CHECKING:
    import docker


def take_down(workspace: Workspace, *, interactive: bool, agree: Agree | None = None) -> list[str]:
    """Remove everything except the data volumes and the secrets that open them; return the volumes.

    A lost volume is reported, and stays in the state. agree: as for `up`. Raises ProjectError where a restore has half
    replaced the data, because the restore needs the containers to finish.
    """
    run = _to_end(workspace, "down")
    with lock.held(workspace, "down"):
        unfinished.refuse_half_replaced(workspace)
        run.settle(workspace.client)
        if agree:
            looking = ("destroy", "--exclude-protected", "--preview-only", "--suppress-outputs")
            run.pulumi(*looking, show=shown_by(workspace, interactive=interactive))
            agree()
        # While PostgreSQL has a container: the next `up` makes PostgreSQL and postgres-roles without a step between.
        unfinished.give_own_password(workspace)
        _leave_used(workspace, run)
        origins.note(run)
        words = ("destroy", "--exclude-protected", "--yes", "--skip-preview", "--suppress-outputs")
        run.pulumi(*words, show=shown_by(workspace, interactive=interactive))
        packet_filter.unguard(workspace)
        stack_file.remove(workspace.parts_file)
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        lost = lost_volumes(run, client)
    finally:
        client.close()
    if lost:
        gone = ", ".join(lost.values())
        workspace.reporter.say(f"Lost before: {gone}. {workspace.typed('up')} says how to get back what was in there")
    return [volume for name, volume in pulumi_state.data_volumes(run.deployment()).items() if name not in lost]


def _leave_used(workspace: Workspace, run: PulumiRun) -> None:
    """Make `down` keep the volumes that containers of another state use: the engine would refuse to remove them.

    The state of a clone has such volumes where its first `up` found another clone's volumes and was interrupted: Pulumi
    reports no error when it creates a volume that exists.
    """
    for urn in pulumi_state.left_volume_urns(run.deployment()):
        run.pulumi("state", "unprotect", urn, "--yes", capture=True)  # an earlier `down` protected it
    deployment = run.deployment()
    volumes, known = pulumi_state.volume_urns(deployment), pulumi_state.known_ids(deployment)
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        used = used_by_others(client, volumes, known)
    finally:
        client.close()
    for name, users in used.items():
        run.pulumi("state", "protect", volumes[name], "--yes", capture=True)
        workspace.reporter.say(f"Left, because containers that this state does not know use it: {name} ({users})")


@dataclass(frozen=True, kw_only=True)
class RemovableVolume:
    """A volume with data of an environment: one that is in use, or one that a restore has made."""

    name: str
    bytes: int | None
    """None where the engine does not say."""
    origin: str = ""
    """Of a restore's volume: what it is, and since when. Of one that Pulumi does not know: that this is so."""


def data_volumes(workspace: Workspace) -> list[RemovableVolume]:
    """Return every volume with data of the environment, also those that restores have set aside, the newest last."""
    run = _to_end(workspace, "destroy-data")
    environment = workspace.settings()
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        with workspace.reporter.task("Look at the data volumes"):
            origins = _data_there(workspace, run, client)
            for name in made_by_restores(client, environment):
                doing = "an import" if IMPORTED in name else "a restore"
                what = "set aside by a restore" if BEFORE in name else f"left by {doing} that was cut off"
                origins[name] = f"{what}, {begun(name):%Y-%m-%d %H:%M} UTC"
            sizes = volume_sizes(client)
    finally:
        client.close()
    return [RemovableVolume(name=name, bytes=sizes.get(name), origin=origin) for name, origin in origins.items()]


def destroy_data(workspace: Workspace, *, interactive: bool) -> list[str]:
    """Remove everything, with the data and what restores have set aside; return the volumes. This cannot be undone.

    The place of the state is not reported here, because `data_volumes`, which the command calls first, reports it.
    """
    run = _to_end(workspace, "destroy-data", told=True)
    with lock.held(workspace, "destroy-data"):
        return _destroy_data(workspace, run, interactive=interactive)


def _destroy_data(workspace: Workspace, run: PulumiRun, *, interactive: bool) -> list[str]:
    from operations.engine import old_images  # noqa: PLC0415 - `status` must stay fast

    run.settle(workspace.client)
    client = workspace.client(timeout=backups.ANSWER_SECONDS)
    try:
        volumes = list(_data_there(workspace, run, client))
        run.pulumi("state", "unprotect", "--all", "--yes", capture=True)
        words = ("destroy", "--yes", "--skip-preview", "--suppress-outputs")
        run.pulumi(*words, show=shown_by(workspace, interactive=interactive))
        packet_filter.unguard(workspace)
        stack_file.remove(workspace.parts_file)
        # Pulumi forgets a volume that is retained on delete (production) without removing it.
        remove_volumes(client, volumes)
        old_images.forget(client, workspace.settings())
        return [*volumes, *unfinished.forget_all(workspace, client)]
    finally:
        client.close()


def _data_there(workspace: Workspace, run: PulumiRun, client: docker.DockerClient) -> dict[str, str]:
    """Return volume -> remark: first the data volumes in the state, then those that only have the name of one.

    In production Pulumi forgets a volume without removing it, so an earlier `destroy-data` that failed may leave it.
    """
    known = pulumi_state.data_volumes(run.deployment()).values()
    # A part's data name is one word here, or `staging` would get the volumes of `staging-2`.
    ours = re.compile(rf"{re.escape(workspace.settings().prefix)}-[a-z]+-data")
    named = filter(ours.fullmatch, volume_names(client))
    return dict.fromkeys(known, "") | dict.fromkeys(sorted(set(named) - set(known)), "Pulumi does not know it")


def _to_end(workspace: Workspace, words: str, *, told: bool = False) -> PulumiRun:
    """Return Pulumi for a command that removes the environment, and report the place of the state.

    words: of the command. told: whether the place was already reported.
    """
    backend = workspace.backend()
    if not told:
        workspace.reporter.say(f"State: {backend}")
    places.refuse_forgotten(workspace.folder, backend, workspace.name, workspace.typed(words))
    return _with_engine(workspace)


def _with_engine(workspace: Workspace) -> PulumiRun:
    ensure_engine(workspace.settings().settings.docker_host, report=workspace.reporter.say, cache=workspace.cache)
    return workspace.open()
