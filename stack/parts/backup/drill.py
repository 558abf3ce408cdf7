"""The part in which a backup is restored as a test: its PostgreSQL runs on data that an intruder may have written.

So it has no network, no secrets, a read-only mount of the backups, and a volume that is not kept. The backup server
writes requests and reads the results in that volume (`backup_image/samokoder_backup/apart.py`).
"""

from __future__ import annotations

from stack.parts.backup import spec as backup
from stack.settings.environment import Environment
from stack.spec.service import NotScraped, ServiceSpec

PART = "drill"
# The drill's program touches this file every second, also during a drill.
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
        # The drill starts a PostgreSQL, which opens many files.
        open_files=16384,
        stop_grace_seconds=5,
    )
