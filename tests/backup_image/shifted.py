"""The backup program over any folder, by a clock that is ahead or behind: `shifted.py FOLDER SETTINGS SECONDS WORD…`."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

folder, config, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
if seconds:
    really, passed = time.time, datetime.timedelta(seconds=seconds)

    class Shifted(datetime.datetime):
        """As the program's own clock says."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Shifted:
            return super().now(tz) + passed

    time.time = lambda: really() + seconds
    datetime.datetime = Shifted  # type: ignore[misc]

from samokoder_backup import settings as at
from samokoder_backup.__main__ import main

at.CONFIG, at.ROOT, at.RUN = config, folder, Path("/tmp/samokoder-backup")
at.BARMAN_HOME, at.DUMPS = folder / "barman", folder / "dumps"
at.REDIS_COPIES, at.SCRATCH = folder / "redis", folder / "scratch"
sys.exit(main(sys.argv[4:]))
