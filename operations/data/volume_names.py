"""The volumes that restores and imports make: their names, and which are there."""

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
"""In the name of a volume that an import has made ready to be put in the place of the data."""

RESTORED = "-restored-"
"""In the name of one that a restore fills, and that is gone once that has come to its end."""
STAMP = "%Y%m%dT%H%M%SZ"
"""At the end of both: when the restore was begun."""


def made_by_restores(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores and imports have made and not removed, the newest last."""
    # The whole name, and a server is one word: `staging` must not be given what belongs to `staging-2`.
    ours = re.compile(rf"{re.escape(environment.prefix)}-[a-z]+({BEFORE}|{RESTORED}|{IMPORTED})\d{{8}}T\d{{6}}Z")
    found = (str(volume.name) for volume in client.volumes.list(filters={"name": f"{environment.prefix}-"}))
    return sorted(filter(ours.fullmatch, found), key=begun)


def set_aside(client: docker.DockerClient, environment: containers.Named) -> list[str]:
    """Return the volumes that restores have set aside, the newest last."""
    return [name for name in made_by_restores(client, environment) if BEFORE in name]


def begun(volume: str) -> datetime:
    """Say when the restore was begun that has made a volume."""
    return datetime.strptime(volume.rpartition("-")[2], STAMP).replace(tzinfo=UTC)
