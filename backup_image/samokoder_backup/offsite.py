"""Copies of the backups in an S3-compatible bucket, made by restic and encrypted here.

`serve` is the service's thread, the others are single runs. They raise BackupError when something did not work that
may work at the next try, CannotError when somebody must change something first: keys, rights, the address, a folder
that is not empty. Nothing here writes to the folders that are copied, and nothing is deleted in the bucket unless
`keep_days` says so: credentials without s3:DeleteObject are enough, and they are the better ones.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from samokoder_backup.process import BackupError, CannotError, say
from samokoder_backup.restic import (
    EXIT_UNREADABLE,
    HOST,
    NO_REPOSITORY,
    Restic,
    ResticRun,
    Snapshot,
    opened,
    snapshots_in,
)
from samokoder_backup.settings import CONFIG, ROOT, Offsite

#: What is copied, below the folder of all backups. In this order of names restic reads them: Barman's `streaming`
#: before its `wals`, so that a segment that is archived meanwhile is met at one of the two places.
FOLDERS: Final = ("barman", "dumps", "redis", "workspace")
FIRST_PAUSE_SECONDS = 15.0
_DAY_SECONDS: Final = 24 * 3600


def serve(
    settings: Offsite,
    *,
    wake: threading.Event,
    stop: threading.Event,
    report: Callable[[int, str], None],
    root: Path = ROOT,
    secrets: Path = CONFIG,
) -> None:
    """Copy at once, every `sync_minutes` and whenever `wake` is set, until `stop` is; tell how each run went."""
    failures = 0
    while not stop.is_set():
        wake.clear()
        try:
            sync(settings, root=root, secrets=secrets, stop=stop)
        except BackupError as error:
            if stop.is_set():
                return
            failures += 1
            report(error.status, str(error))
        else:
            failures = 0
            report(0, "")
        end = time.monotonic() + pause(settings, failures)
        while not stop.is_set() and not wake.is_set() and time.monotonic() < end:
            stop.wait(min(1.0, end - time.monotonic()))


def pause(settings: Offsite, failures: int) -> float:
    """Seconds until the next run: sooner than usual after a failure, twice as long after each further one."""
    usual = settings.sync_minutes * 60.0
    return min(usual, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 20)) if failures else usual


def sync(
    settings: Offsite,
    *,
    root: Path = ROOT,
    secrets: Path = CONFIG,
    adopt: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Copy what is new to the bucket, as one more snapshot.

    A bucket with the copies of another machine is not written to: the newest snapshot there is what `pull` gives, and
    it would soon be one of an empty new machine. `adopt` says that this machine continues with them, or starts again
    where they are gone.
    """
    with opened(settings, root, secrets, stop) as restic:
        if adopt or restic.known().get("location") != restic.location:
            _take_over(restic, adopt=adopt)
        folders = [name for name in FOLDERS if (root / name).is_dir()]
        if not folders:
            raise BackupError(f"There is nothing to copy yet: none of {', '.join(FOLDERS)} is in {root}.")
        words = ["backup", "--json", f"--host={HOST}", "--", *folders]
        run = restic.run(words)
        if "already locked exclusively" in run.said:  # by a clean-up that was killed; restic ends old locks alone
            restic.run(["unlock"])
            run = restic.run(words)
        _judge_backup(restic, run)
        _count(restic)
        if settings.keep_days:
            _remove_old(restic, locks_stay=run.refused)


def check(
    settings: Offsite,
    *,
    root: Path = ROOT,
    secrets: Path = CONFIG,
    read: str = "",
    stop: threading.Event | None = None,
) -> None:
    """Check that the bucket's repository is whole; `read` is how much of the data is read too, e.g. "5%" or "100%"."""
    with opened(settings, root, secrets, stop) as restic:
        # Its lock would be an exclusive one, which credentials that cannot delete could never take away again.
        restic.must(["check", "--no-lock", *([f"--read-data-subset={read}"] if read else [])])


def snapshots(settings: Offsite, *, root: Path = ROOT, secrets: Path = CONFIG) -> list[Snapshot]:
    """List what the bucket holds, the oldest first."""
    with opened(settings, root, secrets) as restic:
        return restic.snapshots()


def pull(
    settings: Offsite,
    *,
    root: Path = ROOT,
    secrets: Path = CONFIG,
    snapshot: str = "latest",
    stop: threading.Event | None = None,
) -> None:
    """Fetch a snapshot into `backups`, which must hold no backups of its own.

    All is fetched and verified beside its place, then renamed: a run that was interrupted has left nothing that looks
    like backups, or, at the very end, all of them, and can be started again.
    """
    coming = root / "offsite" / "pulled"
    data, whole = coming / "data", coming / "whole"
    with opened(settings, root, secrets, stop) as restic:
        if not whole.exists():
            shutil.rmtree(coming, ignore_errors=True)
            snapshot = _to_pull(restic, snapshot)
            try:
                restic.must(["restore", "--no-lock", "--verify", f"--target={data}", "--", snapshot])
            except BackupError:
                shutil.rmtree(coming, ignore_errors=True)
                raise
            os.sync()
            whole.touch()
        for folder in sorted(data.iterdir()):
            folder.rename(root / folder.name)
        restic.remember()
        shutil.rmtree(coming)


def _take_over(restic: Restic, *, adopt: bool) -> None:
    """Make the repository, or take one that is there; refuse one with somebody's copies."""
    listing = restic.run(["snapshots", "--json", "--no-lock"])
    if NO_REPOSITORY.search(listing.said):
        restic.must(["init"])
        # A second key is there where an earlier `init` was interrupted between its two files.
        restic.must(["cat", "config", "--no-lock"])
    elif listing.code:
        raise restic.error(listing)
    elif (found := snapshots_in(listing.out)) and not adopt:
        raise CannotError(
            f"{restic.location} holds the copies of another machine, or of this one before it lost its backups"
            f" (the last is of {found[-1].time}): nothing was sent. Restore from it first"
            " (`make restore FROM=offsite ENV=…`), or give this machine a prefix of its own, or run"
            " `samokoder-backup offsite sync --adopt` to go on there."
        )
    restic.remember()


def _judge_backup(restic: Restic, run: ResticRun) -> None:
    if "summary" in {message.get("message_type") for message in run.messages}:
        items = [str(message.get("item")) for message in run.messages if message.get("message_type") == "error"]
        left = [item for item in items if os.path.lexists(restic.root / item)]
        # What is gone meanwhile was renamed or is an old one: it is in this snapshot by its new name, or in the next.
        if run.code in (0, EXIT_UNREADABLE) or run.refused:
            if left:
                raise BackupError(f"The copy was made without what could not be read: {', '.join(left[:10])}.")
            if run.refused and not restic.known().get("locks_stay"):
                say(
                    "Off-site: the credentials may not delete, so each copy leaves a lock file in the bucket. They do"
                    " no harm, but each is read at the next copy: let the bucket expire locks/ after"
                    " a day, that prefix alone."
                )
            restic.remember(locks_stay=run.refused)
            return
    if NO_REPOSITORY.search(run.said):
        raise CannotError(
            f"The repository that was at {restic.location} is gone. Find out why; to start a new one run"
            " `samokoder-backup offsite sync --adopt`."
        )
    raise restic.error(run)


def _remove_old(restic: Restic, *, locks_stay: bool) -> None:
    """Once a day remove what is older than `keep_days`, counted back from the newest, which always stays."""
    days = restic.settings.keep_days
    if _is_recent(restic.known().get("pruned", 0)):
        return
    if locks_stay:  # and an exclusive lock that stays would end all further copies
        raise CannotError(
            f"The copy was made, but those of more than {days} days were not removed: the credentials may not delete."
            " Allow it, or set keepDays to 0."
        )
    if coming := [one for one in restic.snapshots() if one.ahead]:
        # Restic counts back from the newest: with one of next year, each of this year would be too old.
        raise CannotError(
            f"The copy was made, but those of more than {days} days were not removed: the clock was ahead when"
            f" {coming[-1].id[:8]} was made, of {coming[-1].time}. Remove it with restic, or wait until then."
        )
    try:
        restic.must(["unlock"])
        restic.must(["forget", f"--host={HOST}", "--group-by=host", f"--keep-within={days}d", "--prune"])
    except BackupError as error:
        raise type(error)(f"The copy was made, but old ones were not removed. {error}") from None
    restic.remember(pruned=time.time())


def _count(restic: Restic) -> None:
    """Once a day note how many copies the bucket holds: each further copy reads the list of all."""
    if _is_recent(restic.known().get("counted", 0)):
        return
    # The names alone: what is in the copies would be fetched from the bucket, each by a request of its own.
    listing = restic.run(["list", "snapshots", "--no-lock"])
    if not listing.code:
        restic.remember(counted=time.time(), snapshots=float(len(listing.out.split())))


def _is_recent(stamp: float) -> bool:
    """Tell whether a time stamp is of the last day; one of a time to come is not."""
    return 0 <= time.time() - stamp < _DAY_SECONDS


def _to_pull(restic: Restic, snapshot: str) -> str:
    """Say which snapshot to fetch; raises CannotError when it cannot be put there. Nothing has been touched yet."""
    full = [name for name in FOLDERS if (restic.root / name).is_dir() and any((restic.root / name).iterdir())]
    if full:
        raise CannotError(f"{restic.root} has backups in it already ({', '.join(full)}).")
    known = restic.snapshots()
    if not known:
        raise CannotError(f"{restic.location} holds no copy yet.")
    if snapshot != "latest" and not any(one.id.startswith(snapshot) for one in known):
        raise CannotError(f"{restic.location} has no copy {snapshot}.")
    if snapshot == "latest":
        coming = [one for one in known if one.ahead]
        # Restic's own `latest` would be one that was made while the clock was ahead, and everything since would lack.
        snapshot = next((one for one in reversed(known) if not one.ahead), known[-1]).id
        if coming:
            say(f"Off-site: {len(coming)} copies are of a time to come, up to {coming[-1].time}: none is the last.")
    told = restic.must(["stats", "--json", "--no-lock", "--mode=restore-size", "--", snapshot])
    needed = int(told.messages[-1]["total_size"])
    if needed > (free := shutil.disk_usage(restic.root).free):
        raise CannotError(f"The copy needs {needed:,} bytes and {restic.root} has {free:,} free: nothing was fetched.")
    return snapshot
