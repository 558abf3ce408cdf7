"""What other commands need to know of an interrupted restore, and the removal of what restores have left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.data import volume_names
from operations.data.restore import on_engine
from operations.data.restore.journal import Journal, journal_path
from operations.engine.volumes import remove_volumes
from operations.errors import ProjectError
from operations.workspace import lock, stack_file
from operations.workspace.workspace import Workspace

if TYPE_CHECKING:
    import docker


def refuse_half_replaced(workspace: Workspace) -> None:
    """Raise ProjectError where a restore was interrupted while it replaced the content of a data volume."""
    if (journal := Journal.read(journal_path(workspace))) and journal.half:
        raise ProjectError(journal.unfinished(workspace.settings().name))


def refuse_touched(workspace: Workspace) -> None:
    """Raise ProjectError where an unfinished restore has begun to replace data."""
    if (journal := Journal.read(journal_path(workspace))) and journal.touched:
        raise ProjectError(
            f"A restore ({journal.wanted}) was cut off. Finish it first: {journal.again(workspace.name)}"
        )


def replacing(workspace: Workspace) -> str:
    """Return the volume that an unfinished restore has begun to put in place; empty: none."""
    journal = Journal.read(journal_path(workspace))
    return journal.wanted.source if journal and journal.touched else ""


def give_own_password(workspace: Workspace) -> None:
    """Do what an interrupted restore did not reach: start PostgreSQL, and set this stack's superuser password.

    A dump has no superuser password, and a backup may have an older one. Without this stack's password postgres-roles
    cannot log in, and all other parts wait for postgres-roles. The caller holds the environment's lock, and is about to
    start postgres-roles or to remove all containers. A PostgreSQL that does not start is only reported, because the
    caller's next step may repair it. A PostgreSQL without a container got the password before its removal.
    """
    import docker.errors  # noqa: PLC0415 - the SDK takes its time
    import requests  # noqa: PLC0415 - as above

    journal, environment = Journal.read(journal_path(workspace)), workspace.settings()
    if not journal or not journal.owes_password:
        return
    with on_engine.engine_of(environment, workspace) as hands:
        if not hands.there("postgres"):
            return
        try:
            hands.start(["postgres"])
            hands.own_password()
            journal.with_password().write(journal_path(workspace))
        except (ProjectError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
            workspace.reporter.say(f"After the restore PostgreSQL has another superuser's password: {error}")


def forget_all(workspace: Workspace, client: docker.DockerClient) -> list[str]:
    """Remove what the restores of an environment have left, also what they have set aside; return the volumes.

    The caller holds the environment's lock.
    """
    environment = workspace.settings()
    removed = remove_volumes(client, volume_names.made_by_restores(client, environment))
    for path in lock.unfinished(workspace.folder, workspace.name):
        stack_file.remove(path)
    return removed
