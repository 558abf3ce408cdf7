"""What other commands ask about a restore that was cut off, and what is left of restores."""

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
    """Raise ProjectError where a restore was cut off while a data volume's content was replaced."""
    if (journal := Journal.read(journal_path(workspace))) and journal.half:
        raise ProjectError(journal.unfinished(workspace.settings().name))


def refuse_touched(workspace: Workspace) -> None:
    """Raise ProjectError where a restore has begun to replace data, and has not come to its end."""
    if (journal := Journal.read(journal_path(workspace))) and journal.touched:
        raise ProjectError(
            f"A restore ({journal.wanted}) was cut off. Finish it first: {journal.again(workspace.name)}"
        )


def replacing(workspace: Workspace) -> str:
    """Return the volume whose content a restore has begun to put in place, and has not come to its end; empty: none."""
    journal = Journal.read(journal_path(workspace))
    return journal.wanted.source if journal and journal.touched else ""


def give_own_password(workspace: Workspace) -> None:
    """Do what a restore was cut off before: start PostgreSQL on what was restored, with this stack's own password.

    A dump has no superuser's password and a backup may have an older one; without this one the keeper of the roles does
    not come in, and all others wait for it. For who holds the environment's lock and is about to start the keeper, or
    to remove all containers. A PostgreSQL that does not start is told: what comes next may be what mends it. One that
    is not there got the password before it was removed.
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
        except (ProjectError, docker.errors.DockerException, requests.exceptions.RequestException) as error:
            workspace.reporter.say(f"After the restore PostgreSQL has another superuser's password: {error}")


def forget_all(workspace: Workspace, client: docker.DockerClient) -> list[str]:
    """Remove all that restores of an environment have left, also what they have set aside; return the volumes.

    For who holds the environment's lock.
    """
    environment = workspace.settings()
    removed = remove_volumes(client, volume_names.made_by_restores(client, environment))
    for path in lock.unfinished(workspace.folder, workspace.name):
        stack_file.remove(path)
    return removed
