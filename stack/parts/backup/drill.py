"""Where a backup is restored for a trial: a PostgreSQL runs there over what may be an intruder's work.

So it has no network, no secret, the backups read-only, and a volume that nobody keeps. The backup server asks it, and
reads its answer in that volume (`backup_image/samokoder_backup/apart.py`).
"""

from __future__ import annotations

from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from stack.spec.service import NotScraped, ServiceSpec

PART = "drill"
# It touches this file each second, also while it is at work.
_ALIVE = 'test -n "$(find /tmp/samokoder-backup/alive -mmin -1)"'


def spec(environment: Environment) -> ServiceSpec:
    """Describe the part."""
    return ServiceSpec(
        part=PART,
        component="samokoder:backup:Drill",
        image=backup.image(environment).name,
        user="999:999",
        settings=environment.settings.drill,
        entrypoint=("samokoder-backup",),
        command=("serve-drill",),
        files={"backup.json": backup.configuration(environment)},
        scratch=backup.SCRATCH,
        reads=(backup.DATA,),
        tmpfs=backup.TMPFS,
        health_command=("sh", "-c", _ALIVE),
        networks=(),
        scrape=NotScraped(reason="has no network: the backup server measures its drills"),
        # It starts a PostgreSQL of its own.
        open_files=16384,
        stop_grace_seconds=5,
    )
