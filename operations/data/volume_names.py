"""Names of the volumes that restores and imports make, and a list of those that exist."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from operations.engine import containers

if TYPE_CHECKING:
    import docker


BEFORE = "-before-restore-"
"""In the name of a volume that was set aside: `samokoder-staging-postgres-before-restore-20261123T100500Z`."""
IMPORTED = "-from-compose-"
"""In the name of a volume with an import's copy, before that replaces the data."""

RESTORED = "-restored-"
"""In the name of a volume that a restore fills, and removes when the restore is finished."""
STAMP = "%Y%m%dT%H%M%SZ"
"""Format of the UTC time at the end of each of these names: when the restore or the import began."""


def made_by_restores(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores and imports have made and not removed, the newest last."""
    # The whole name must match, or `staging` would get the volumes of `staging-2`; a server's name is one word.
    ours = re.compile(rf"{re.escape(environment.prefix)}-[a-z]+({BEFORE}|{RESTORED}|{IMPORTED})\d{{8}}T\d{{6}}Z")
    found = (str(volume.name) for volume in client.volumes.list(filters={"name": f"{environment.prefix}-"}))
    return sorted(filter(ours.fullmatch, found), key=begun)


def set_aside(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores have set aside, the newest last."""
    return [name for name in made_by_restores(client, environment) if BEFORE in name]


def begun(volume: str) -> datetime:
    """Return when the restore or the import that made a volume began, from the volume's name."""
    return datetime.strptime(volume.rpartition("-")[2], STAMP).replace(tzinfo=UTC)
