"""The backup program over any folder, by a clock that is ahead: `shifted.py FOLDER SETTINGS SECONDS WORD…`."""

from __future__ import annotations

import datetime as dt
import sys
import time
from pathlib import Path

folder, config, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
if seconds:
    really, passed = time.time, dt.timedelta(seconds=seconds)

    class Shifted(dt.datetime):
        """As the program's own clock says."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Shifted:
            return super().now(tz) + passed

    time.time = lambda: really() + seconds
    dt.datetime = Shifted  # type: ignore[misc]

# Only now: what they import is the clock that steps.
from samokoder_backup import settings as at  # noqa: E402
from samokoder_backup.__main__ import main  # noqa: E402

at.CONFIG, at.ROOT, at.RUN = config, folder, Path("/tmp/samokoder-backup")  # noqa: S108 - in the container
at.BARMAN_HOME, at.DUMPS = folder / "barman", folder / "dumps"
at.REDIS_COPIES, at.SCRATCH = folder / "redis", folder / "scratch"
at.DRILL_REQUEST, at.DRILL = folder / "drill.json", Path("/tmp/samokoder-drill")  # noqa: S108 - as above
at.DRILL.mkdir(exist_ok=True)
sys.exit(main(sys.argv[4:]))
