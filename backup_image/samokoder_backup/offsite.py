"""Copies of the backups in an S3-compatible bucket, made by restic and encrypted here.

`serve` is the service's thread, the others are single runs. They raise BackupError when something did not work that
may work at the next try, CannotError when somebody must change something first: keys, rights, the address, a folder
that is not empty. Nothing here writes to the folders that are copied, and nothing is deleted in the bucket unless
`keep_days` says so: credentials without s3:DeleteObject are enough, and they are the better ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from samokoder_backup import clock
from samokoder_backup.process import BackupError, CannotError, exclusive, say, write
from samokoder_backup.settings import CONFIG, ROOT, Offsite

#: What is copied, below the folder of all backups. In this order of names restic reads them: Barman's `streaming`
#: before its `wals`, so that a segment that is archived meanwhile is met at one of the two places.
FOLDERS: Final = ("barman", "dumps", "redis", "workspace")
#: Restic's own: it made a snapshot, but could not read something.
_EXIT_UNREADABLE: Final = 3

#: Without a byte read or written for so long, the server hangs; restic 0.14 itself would wait for it for ever. The
#: kernel takes up to 4 MiB in advance, which a line of 10 KiB a second has sent in seven minutes.
STALLED_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 15.0
_PRUNE_SECONDS: Final = 24 * 3600
_STOP_SECONDS: Final = 10
_SAY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
#: So little is written by the program itself while it waits: a line about its next try.
_NO_PROGRESS_BYTES: Final = 16 * 1024

#: One name for all of our snapshots: a container's own name is another after each update, and restic compares with
#: the last snapshot of the same host.
_HOST: Final = "samokoder"

_REFUSED: Final = re.compile(
    r"Access ?Denied|InvalidAccessKeyId|Access Key Id you provided|SignatureDoesNotMatch|signature we calculated"
)
_LOCK_REMOVED: Final = re.compile(r"Remove\(<lock/|error while unlocking")
#: A HEAD request has no text to tell a missing bucket from a missing object.
_NO_REPOSITORY: Final = re.compile(r"unable to open config file: .*(key does not exist|bucket does not exist|NoSuch)")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One state of the backups that the bucket holds."""

    id: str
    time: str

    @property
    def ahead(self) -> bool:
        """Whether it is of a time to come: the clock was ahead."""
        return clock.ahead(datetime.fromisoformat(self.time).timestamp())


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
    it would soon be one of an empty new machine. `adopt` says that this machine goes on with them, or starts anew
    where they are gone.
    """
    with _opened(settings, root, secrets, stop) as restic:
        if adopt or restic.known().get("location") != restic.location:
            _take_over(restic, adopt=adopt)
        folders = [name for name in FOLDERS if (root / name).is_dir()]
        if not folders:
            raise BackupError(f"There is nothing to copy yet: none of {', '.join(FOLDERS)} is in {root}.")
        words = ["backup", "--json", f"--host={_HOST}", "--", *folders]
        run = restic.run(words)
        if "already locked exclusively" in run.said:  # by a clean-up that was killed; restic ends old locks alone
            restic.run(["unlock"])
            run = restic.run(words)
        _judge_backup(restic, run)
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
    with _opened(settings, root, secrets, stop) as restic:
        # Its lock would be an exclusive one, which credentials that cannot delete could never take away again.
        restic.must(["check", "--no-lock", *([f"--read-data-subset={read}"] if read else [])])


def snapshots(settings: Offsite, *, root: Path = ROOT, secrets: Path = CONFIG) -> list[Snapshot]:
    """List what the bucket holds, the oldest first."""
    with _opened(settings, root, secrets) as restic:
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
    with _opened(settings, root, secrets, stop) as restic:
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


def _take_over(restic: _Restic, *, adopt: bool) -> None:
    """Make the repository, or take one that is there; refuse one with somebody's copies."""
    listing = restic.run(["snapshots", "--json", "--no-lock"])
    if _NO_REPOSITORY.search(listing.said):
        restic.must(["init"])
        # A second key is there where an earlier `init` was cut off between its two files.
        restic.must(["cat", "config", "--no-lock"])
    elif listing.code:
        raise restic.error(listing)
    elif (found := _snapshots(listing.out)) and not adopt:
        raise CannotError(
            f"{restic.location} holds the copies of another machine, or of this one before it lost its backups"
            f" (the last is of {found[-1].time}): nothing was sent. Restore from it first (`make restore"
            " FROM=offsite`), or give this machine a prefix of its own, or run `samokoder-backup offsite sync --adopt`"
            " to go on there."
        )
    restic.remember()


def _judge_backup(restic: _Restic, run: _Run) -> None:
    if "summary" in {message.get("message_type") for message in run.messages}:
        items = [str(message.get("item")) for message in run.messages if message.get("message_type") == "error"]
        left = [item for item in items if os.path.lexists(restic.root / item)]
        # What is gone meanwhile was renamed or is an old one: it is in this snapshot by its new name, or in the next.
        if run.code in (0, _EXIT_UNREADABLE) or run.refused:
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
    if _NO_REPOSITORY.search(run.said):
        raise CannotError(
            f"The repository that was at {restic.location} is gone. Find out why; to start a new one run"
            " `samokoder-backup offsite sync --adopt`."
        )
    raise restic.error(run)


def _remove_old(restic: _Restic, *, locks_stay: bool) -> None:
    """Once a day remove what is older than `keep_days`, counted back from the newest, which always stays."""
    days = restic.settings.keep_days
    known = restic.known()
    if 0 <= time.time() - float(known.get("pruned", 0)) < _PRUNE_SECONDS:
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
        restic.must(["forget", f"--host={_HOST}", "--group-by=host", f"--keep-within={days}d", "--prune"])
    except BackupError as error:
        raise type(error)(f"The copy was made, but old ones were not removed. {error}") from None
    restic.remember(pruned=time.time())


def _to_pull(restic: _Restic, snapshot: str) -> str:
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


def _snapshots(out: str) -> list[Snapshot]:
    found = [
        Snapshot(id=one["id"], time=datetime.fromisoformat(one["time"]).astimezone(UTC).isoformat("T", "seconds"))
        for one in json.loads(out) or []
    ]
    return sorted(found, key=lambda one: one.time)


@dataclass(kw_only=True)
class _Run:
    """What one run of restic said."""

    code: int = 0
    out: str = ""
    lines: list[str] = field(default_factory=list)
    stalled: bool = False
    refused: bool = False

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@dataclass(frozen=True, kw_only=True)
class _Restic:
    """Restic with one repository, for as long as this process holds the lock."""

    settings: Offsite
    root: Path
    secrets: Path
    stop: threading.Event

    @property
    def location(self) -> str:
        """The repository's address as restic writes it; there is no secret in it."""
        one = self.settings
        return "/".join(filter(None, (f"s3:{one.endpoint.rstrip('/')}", one.bucket, one.prefix.strip("/"))))

    @property
    def _folder(self) -> Path:
        return self.root / "offsite"

    def known(self) -> dict[str, Any]:
        """Give what was remembered of this volume's copies."""
        try:
            read: dict[str, Any] = json.loads((self._folder / "known.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return read

    def remember(self, **more: float) -> None:
        """Note that this volume's copies are at the address."""
        known = self.known()
        new = {**known, "location": self.location, **more}
        if new != known:
            write(self._folder / "known.json", json.dumps(new))

    def snapshots(self) -> list[Snapshot]:
        return _snapshots(self.must(["snapshots", "--json", "--no-lock"]).out)

    def must(self, words: Sequence[str]) -> _Run:
        """Run it; raise BackupError unless it went well."""
        run = self.run(words)
        if run.code:
            raise self.error(run)
        return run

    def run(self, words: Sequence[str]) -> _Run:
        """Run restic to its end, or end it where it would wait in vain."""
        run, out = _Run(), list[str]()
        with (
            self._credentials() as credentials,
            subprocess.Popen(
                ["restic", *self._options(), *words],
                cwd=self.root,  # relative names are what the snapshot has them by
                env=self._environment(credentials),
                pass_fds=[credentials],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            ) as process,
        ):
            pairs = (process.stdout, out), (process.stderr, run.lines)
            readers = [threading.Thread(target=_read, args=pair) for pair in pairs]
            for reader in readers:
                reader.start()
            try:
                self._watch(process, run, out, words[0])
            finally:
                process.kill()
                for reader in readers:
                    reader.join()
        run.code, run.out = process.returncode, "".join(out)
        run.refused = run.refused or bool(run.code and _REFUSED.search(run.said))
        return run

    def _watch(self, process: subprocess.Popen[str], run: _Run, out: list[str], what: str) -> None:
        """Return when it has ended, or is to be ended."""
        moved = watched = 0
        since = told = time.monotonic()
        while _still_runs(process):
            if self.stop.is_set():
                # It takes its lock away then, though now and then 0.14 crashes over it; either will do.
                process.send_signal(signal.SIGINT)
                _still_runs(process, _STOP_SECONDS)
                raise BackupError("The off-site copy was stopped.")
            # Ten tries with growing pauses, as restic makes them, do not change a refusal.
            if self._refused_for_good(run.lines, saved=any('"summary"' in line for line in out)):
                run.refused = True
                return
            now, watched = time.monotonic(), _bytes_moved(process.pid, watched)
            if watched - moved > _NO_PROGRESS_BYTES:
                moved, since = watched, now
            elif now - since > STALLED_SECONDS:
                run.stalled = True
                return
            if now - told > _SAY_SECONDS:
                told = now
                say(f"{what}: {watched / 2**20:,.0f} MiB read and written so far")

    @staticmethod
    def _refused_for_good(lines: Sequence[str], *, saved: bool) -> bool:
        """Tell a refusal that ends the run. One to remove a lock does not before all is saved."""
        refusals = [line for line in list(lines) if _REFUSED.search(line)]
        return any(saved or not _LOCK_REMOVED.search(line) for line in refusals)

    def _options(self) -> list[str]:
        # Restic tries again by itself, for a minute and with pauses that grow; not each of its tries ten times more.
        options = ["-o", "s3.retries=2", "--cleanup-cache"]
        return [*options, "-o", f"s3.region={self.settings.region}"] if self.settings.region else options

    def _environment(self, credentials: int) -> dict[str, str]:
        """Give restic all that it needs and nothing of ours: no secret is in it, only where they are."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
            "RESTIC_CACHE_DIR": str(self._folder / "cache"),
            "RESTIC_REPOSITORY": self.location,
            "RESTIC_PASSWORD_FILE": str(self.secrets / "encryption_key"),
            "RESTIC_PROGRESS_FPS": "0.01",
            # 150 MiB of memory in place of 250, and no slower, with 640 MiB to send.
            "GOGC": "20",
            # JSON, which has one way to write any character; the other file that it reads is INI.
            "MINIO_SHARED_CREDENTIALS_FILE": f"/proc/self/fd/{credentials}",
        }

    @contextmanager
    def _credentials(self) -> Iterator[int]:
        """Hand the credentials over in memory: nothing that a killed run could leave on a disk."""
        host = {
            "api": "S3v4",  # without it the requests are anonymous
            "accessKey": self._secret("offsite_access_key_id"),
            "secretKey": self._secret("offsite_secret_access_key"),
        }
        descriptor = os.memfd_create("credentials")
        try:
            os.write(descriptor, json.dumps({"version": "8", "hosts": {"s3": host}}).encode())
            yield descriptor
        finally:
            os.close(descriptor)

    def _secret(self, name: str) -> str:
        try:
            return (self.secrets / name).read_text().strip()
        except OSError as error:
            raise CannotError(f"The secret file {error.filename} is missing: {error.strerror}.") from None

    def error(self, run: _Run) -> BackupError:
        """Say in a sentence what went wrong, with restic's own last words and without a secret."""
        said = "".join(line for line in run.lines[-8:] if line.strip())[-1500:]
        for name in ("offsite_secret_access_key", "offsite_access_key_id", "encryption_key"):
            said = said.replace(self._secret(name), f"[{name}]")
        where = self.location
        kind: type[BackupError] = CannotError
        if "wrong password or no key found" in run.said:
            what = f"The encryption key is not the one that {where} was made with."
        elif "is damaged: ciphertext verification failed" in run.said:
            what = f"{where} was left half made, or is damaged: look at keys/ and config, or take another prefix."
        elif run.refused:
            what = f"{where} refused the request: the credentials are wrong, or have not the rights they need."
        elif _NO_REPOSITORY.search(run.said):
            what = f"There is no repository at {where}."
        elif run.stalled:
            what, kind = f"{where} has not sent or taken anything for {STALLED_SECONDS:.0f} seconds.", BackupError
        else:
            what, kind = f"restic ended with {run.code} at {where}.", BackupError
        return kind(f"{what}\n{said}".strip())


@contextmanager
def _opened(settings: Offsite, root: Path, secrets: Path, stop: threading.Event | None = None) -> Iterator[_Restic]:
    """Give restic for that repository; one run at a time on one volume."""
    folder = root / "offsite"
    try:
        for path in (folder, folder / "cache", folder / "tmp"):
            path.mkdir(mode=0o700, exist_ok=True)
        with exclusive(folder / "lock"):
            yield _Restic(settings=settings, root=root, secrets=secrets, stop=stop or threading.Event())
    except OSError as error:
        raise BackupError(f"{error.filename or root}: {error.strerror}") from error


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)  # noqa: PERF402 - each is looked at when it has come


def _still_runs(process: subprocess.Popen[str], seconds: float = _POLL_SECONDS) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _bytes_moved(pid: int, otherwise: int) -> int:
    """All that a process has read and written so far, its connections included: the only sign of a slow transfer."""
    try:
        counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    except OSError:
        return otherwise
    return int(counters["rchar"]) + int(counters["wchar"])
