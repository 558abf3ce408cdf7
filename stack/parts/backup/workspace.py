"""The workspace: files that the API and the worker share, in one data volume.

The API and the worker mount the volume at `samokoder:workspace.path`. This part runs as their user, because only that
user can read all files that they write. Its image makes a new volume belong to that user, whatever folder the team's
image has at that path. The part measures the workspace and serves copies of it to the backup server over the network.
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
"""A file that the part keeps in the volume (`shared.py` of its image). It is the last file of a copy, so a copy without
it is incomplete."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe the part. Only called if `samokoder:workspace.path` is set."""
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
