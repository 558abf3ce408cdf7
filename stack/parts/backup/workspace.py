"""The workspace: files that the API and the worker share, in one data volume.

The API and the worker mount it where `samokoder:workspace.path` says. This part owns it, as their user, who alone may
read all that they write: its image makes the new volume that user's, whatever theirs has there. It measures it and
hands copies of it to the backup server, over the network as PostgreSQL and Redis do.
"""

from __future__ import annotations

from stack.common.names import APPLICATION_USER, NetworkName
from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import secret_file
from stack.spec.service import DataVolume, Scrape, ServiceSpec

PART = backup.WORKSPACE
FOLDER = "/workspace"
PORT = backup.WORKSPACE_PORT
MARK = ".samokoder-workspace"
"""The file that the part keeps in the volume (`shared.py` of its image). A copy gets it last: one without it is not
whole."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe it. Only called where there is one."""
    return ServiceSpec(
        part=PART,
        component="samokoder:backup:Workspace",
        image=backup.image(environment).name,
        user=APPLICATION_USER,
        settings=environment.settings.workspace,
        entrypoint=("samokoder-backup",),
        command=("workspace",),
        files={"workspace_password": secret_file("workspace_backup")},
        data=DataVolume(name=PART, path=FOLDER),
        tmpfs=backup.TMPFS,
        health_command=health.python(PORT, "/health"),
        networks=(NetworkName.DATA, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
        stop_grace_seconds=5,
    )
