"""The backup program over any folder, by a clock that is ahead: `shifted.py FOLDER SETTINGS SECONDS WORD…`.

Two files beside the folder of all volumes say what else is so: `no-base`, PostgreSQL gives no base backup; `bad-disk`,
what a base backup has written is not what is read. A folder `bucket` there takes the copies off-site. `/world/fault`
names a fault that there was, which is put back.
`PRESENT` of the environment is the data that PostgreSQL has now, for a restore that is to lose nothing of it.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def shift(seconds: float) -> None:
    """Let the clock be ahead, for what is imported from here on."""
    really, passed = time.time, dt.timedelta(seconds=seconds)

    class Shifted(dt.datetime):
        """As the program's own clock says."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Shifted:
            return super().now(tz) + passed

    time.time = lambda: really() + seconds
    dt.datetime = Shifted  # type: ignore[misc]


def run(folder: Path, config: Path, words: Sequence[str]) -> int:
    """Run the program; return its status."""
    # Only now: what they import is the clock that steps.
    from samokoder_backup import barman, offsite, process, restic  # noqa: PLC0415
    from samokoder_backup import settings as at  # noqa: PLC0415
    from samokoder_backup.__main__ import main  # noqa: PLC0415

    take = barman.take

    def take_today(*asked: Any) -> Any:
        if (folder.parents[1] / "no-base").exists():
            raise process.BackupError("PostgreSQL gives no base backup today")
        base = take(*asked)
        if (folder.parents[1] / "bad-disk").exists():
            archive = base.folder / "data" / "base.tar.gz"
            with archive.open("r+b") as file:
                file.seek(archive.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, 1)
                file.write(bytes([byte ^ 0x40]))
        return base

    setattr(barman, "take", take_today)  # noqa: B010 - of another type
    if (fault := Path("/world/fault")).exists():
        import program_faults  # type: ignore[import-not-found]  # noqa: PLC0415 - beside this file

        program_faults.put_back(fault.read_text(encoding="utf-8"))
    if (bucket := folder.parents[1] / "bucket").exists():
        # In the place of an S3 server; restic itself is the real one.
        setattr(restic.Restic, "location", property(lambda _: str(bucket)))  # noqa: B010 - of another type
        for call in (offsite.sync, offsite.pull):
            setattr(call, "__kwdefaults__", {**(call.__kwdefaults__ or {}), "root": folder, "secrets": config})  # noqa: B010
    at.CONFIG, at.ROOT, at.RUN = config, folder, Path("/tmp/samokoder-backup")  # noqa: S108 - in the container
    at.BARMAN_HOME, at.DUMPS = folder / "barman", folder / "dumps"
    at.REDIS_COPIES, at.SCRATCH = folder / "redis", folder / "scratch"
    at.DRILL_REQUEST, at.DRILL = folder / "drill.json", Path("/tmp/samokoder-drill")  # noqa: S108 - as above
    at.PRESENT = Path(os.environ.get("PRESENT", "/nothing"))
    at.DRILL.mkdir(exist_ok=True)
    return main(words)


if __name__ == "__main__":
    if float(sys.argv[3]):
        shift(float(sys.argv[3]))
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4:]))
