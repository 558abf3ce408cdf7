"""`samokoder drift --repair`: removes what differs, so that `up`, which would not see the difference, makes it again.

A thing that nobody declared stays: it may be an intruder's, or hold data, so a person looks at it first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from operations.audit.drift.difference import Difference, Step
from operations.data import backups
from operations.errors import ProjectError
from operations.lifecycle.up import bring_up
from operations.workspace.known import live_status

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from host.progress import Reporter
    from operations.lifecycle.up import Agree, Upped
    from operations.workspace.workspace import Workspace
    from stack.settings.environment import Environment

_STOP_SECONDS = 30


def repair(
    workspace: Workspace, findings: Sequence[Difference], *, interactive: bool, agree: Agree | None = None
) -> Upped:
    """Remove what differs, and bring the environment up. interactive, agree: as for `lifecycle.up`.

    `up` refuses before anything is removed, above all where a data volume was lost. Replicas of the API are removed one
    at a time, unhealthy ones first; the only one that serves is not removed. If this is interrupted, the same command
    resumes, and so does `up`, which makes again what was removed. Raises as `lifecycle.up`.
    """

    def make_way(of: Sequence[Difference]) -> None:
        _refuse_only_one(workspace, of)
        client = workspace.client(timeout=backups.ANSWER_SECONDS)
        try:
            clear(client, of, workspace.reporter)
        finally:
            client.close()

    first, *others = rounds(findings, workspace.settings(), well=_well(workspace))
    upped = bring_up(workspace, interactive=interactive, agree=agree, make_way=lambda: make_way(first))
    for each in others:
        upped = bring_up(workspace, interactive=interactive, make_way=partial(make_way, each))
    return upped


def _well(workspace: Workspace) -> set[str]:
    return {row.part for row in live_status(workspace) if row.ok}


def rounds(
    findings: Sequence[Difference], environment: Environment, *, well: Collection[str]
) -> list[list[Difference]]:
    """Group findings that are repaired together: each of several replicas of the API alone, after everything else.

    well: the parts that are healthy now. Replicas that are not come first, so that one that serves goes only when
    another one does.
    """
    parts = sorted(environment.api_in_turn(), key=lambda part: part in well)
    replicas = [f"{environment.prefix}-{part}" for part in parts]
    alone = [name for name in replicas if len(replicas) > 1 and any(each.name == name for each in findings)]
    together = [each for each in findings if each.name not in alone]
    by_name = [[each for each in findings if each.name == name] for name in alone]
    return [*([together] if together or not alone else []), *by_name]


def _refuse_only_one(workspace: Workspace, findings: Sequence[Difference]) -> None:
    """Raise ProjectError, before anything is removed, where nobody would serve meanwhile."""
    environment = workspace.settings()
    replicas = environment.parts_of("api")
    removed = {name for each in findings for step in each.steps if step[0] == "rm" for name in step[1:]}
    going = [part for part in replicas if f"{environment.prefix}-{part}" in removed]
    if not going or len(replicas) == 1:
        return
    well = _well(workspace) & set(replicas)
    if well and well <= set(going):
        sick = [part for part in replicas if part not in well]
        raise ProjectError(
            f"{', '.join(well)} was not repaired: it alone serves. Why {', '.join(sick)} does not: "
            f"{workspace.typed(f'logs PART={sick[0]}')}. Restart it: "
            f"{workspace.typed(f'restart PART={sick[0]}')}. Then repair again"
        )


def clear(client: docker.DockerClient, findings: Iterable[Difference], reporter: Reporter) -> None:
    """Do the steps of the findings: disconnect networks, stop and remove containers, remove files and networks."""
    # What nobody declared has no steps.
    steps = list(dict.fromkeys(step for each in findings for step in each.steps))
    going = dict.fromkeys(name for step in steps if step[0] == "rm" for name in step[1:] if name != "--force")
    _refuse_strangers(client, steps, going)
    # A container that is only disconnected keeps running; one that is removed need not be disconnected.
    for network, name in _named(steps, ("network", "disconnect")):
        if name not in going:
            with _unless_gone():
                client.networks.get(network).disconnect(name)
    found = list(_there(client, going))
    if found:
        with reporter.task(f"Stop {', '.join(str(each.name) for each in found)}"), ThreadPoolExecutor() as pool:
            list(pool.map(_stop, found))
    for each in found:
        with _unless_gone():
            each.remove(force=True)
    for (volume,) in _named(steps, ("volume", "rm")):
        with _unless_gone():
            client.volumes.get(volume).remove()
    for (network,) in _named(steps, ("network", "rm")):
        with _unless_gone():
            client.networks.get(network).remove()


def _refuse_strangers(client: docker.DockerClient, steps: Iterable[Step], going: Iterable[str]) -> None:
    """Raise ProjectError, before anything stops, where a container that stays uses a volume or network to remove.

    The engine refuses to remove what a container uses.
    """
    for kind in ("volume", "network"):
        for (name,) in _named(steps, (kind, "rm")):
            users = client.containers.list(all=True, ignore_removed=True, filters={kind: name})
            if others := sorted({str(each.name) for each in users} - set(going)):
                raise ProjectError(
                    f"Nothing was changed: {', '.join(others)} holds the {kind} {name}, and nobody declared it. "
                    f"Look at it first, then: docker rm --force {' '.join(others)}"
                )


def _named(steps: Iterable[Step], words: Step) -> list[Step]:
    """Return the other words of the steps that begin with these two."""
    return [step[2:] for step in steps if step[:2] == words]


def _there(client: docker.DockerClient, names: Iterable[str]) -> Iterator[Container]:
    for name in names:
        with _unless_gone():
            yield client.containers.get(name)


def _stop(container: Container) -> None:
    with _unless_gone():
        container.stop(timeout=container.attrs["Config"].get("StopTimeout") or _STOP_SECONDS)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """Ignore what does not exist any more: somebody has removed it, or an earlier repair was interrupted."""
    import docker.errors  # noqa: PLC0415 - the SDK takes its time

    with contextlib.suppress(docker.errors.NotFound):
        yield
