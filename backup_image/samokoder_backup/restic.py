"""Runs restic on one repository: its options, its credentials, its progress, and what its errors mean."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from samokoder_backup import clock, notes
from samokoder_backup.process import BackupError, CannotError, exclusive, say, write
from samokoder_backup.settings import Offsite

#: Restic's own: it made a snapshot, but could not read something.
EXIT_UNREADABLE: Final = 3

#: Without a byte read or written for so long, the server hangs; restic 0.14 would wait for ever. The
#: kernel takes up to 4 MiB in advance, which a line of 10 KiB a second has sent in seven minutes.
STALLED_SECONDS = 600.0
_STOP_SECONDS: Final = 10
_SAY_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
#: So little is written by the program itself while it waits: a line about its next try.
_NO_PROGRESS_BYTES: Final = 16 * 1024

#: One name for all of our snapshots: a container's own name is another after each update, and restic compares with
#: the last snapshot of the same host.
HOST: Final = "samokoder"

_REFUSED: Final = re.compile(
    r"Access ?Denied|InvalidAccessKeyId|Access Key Id you provided|SignatureDoesNotMatch|signature we calculated"
)
_LOCK_REMOVED: Final = re.compile(r"Remove\(<lock/|error while unlocking")
#: A HEAD request has no text to tell a missing bucket from a missing object.
NO_REPOSITORY: Final = re.compile(r"unable to open config file: .*(key does not exist|bucket does not exist|NoSuch)")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One state of the backups that the bucket holds."""

    id: str
    time: str

    @property
    def ahead(self) -> bool:
        """Whether it is of a time to come: the clock was ahead."""
        return clock.ahead(datetime.fromisoformat(self.time).timestamp())


def snapshots_in(out: str) -> list[Snapshot]:
    """Read what `restic snapshots --json` prints; the oldest comes first."""
    found = [
        Snapshot(id=one["id"], time=datetime.fromisoformat(one["time"]).astimezone(UTC).isoformat("T", "seconds"))
        for one in json.loads(out) or []
    ]
    return sorted(found, key=lambda one: one.time)


@dataclass(kw_only=True)
class ResticRun:
    """What one run of restic said."""

    code: int = 0
    out: str = ""
    lines: list[str] = field(default_factory=list)
    stalled: bool = False
    refused: bool = False

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return "".join(self.lines)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Its messages in JSON on standard output."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


@dataclass(frozen=True, kw_only=True)
class Restic:
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
        return known(self.root)

    def remember(self, **more: float) -> None:
        """Note that this volume's copies are at the address."""
        known = self.known()
        new = {**known, "location": self.location, **more}
        if new != known:
            write(self._folder / "known.json", json.dumps(new))

    def snapshots(self) -> list[Snapshot]:
        """List what the repository holds; the oldest comes first."""
        return snapshots_in(self.must(["snapshots", "--json", "--no-lock"]).out)

    def must(self, words: Sequence[str]) -> ResticRun:
        """Run it; raise BackupError unless it went well."""
        run = self.run(words)
        if run.code:
            raise self.error(run)
        return run

    def run(self, words: Sequence[str]) -> ResticRun:
        """Run restic to its end, or end it where it would wait in vain."""
        run, out = ResticRun(), list[str]()
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

    def _watch(self, process: subprocess.Popen[str], run: ResticRun, out: list[str], what: str) -> None:
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
        # Restic retries, for a minute and with pauses that grow; not each of its tries ten times more.
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

    def error(self, run: ResticRun) -> BackupError:
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
        elif NO_REPOSITORY.search(run.said):
            what = f"There is no repository at {where}."
        elif run.stalled:
            what, kind = f"{where} has not sent or taken anything for {STALLED_SECONDS:.0f} seconds.", BackupError
        else:
            what, kind = f"restic ended with {run.code} at {where}.", BackupError
        return kind(f"{what}\n{said}".strip())


def known(root: Path) -> dict[str, Any]:
    """Give what was remembered of the copies of the volume at `root`. Raises OSError where it cannot be read."""
    try:
        read: dict[str, Any] = json.loads(notes.text(root / "offsite" / "known.json"))
    except (FileNotFoundError, ValueError):
        return {}
    return read


@contextmanager
def opened(settings: Offsite, root: Path, secrets: Path, stop: threading.Event | None = None) -> Iterator[Restic]:
    """Give restic for that repository; one run at a time on one volume."""
    folder = root / "offsite"
    try:
        for path in (folder, folder / "cache", folder / "tmp"):
            path.mkdir(mode=0o700, exist_ok=True)
        with exclusive(folder / "lock"):
            yield Restic(settings=settings, root=root, secrets=secrets, stop=stop or threading.Event())
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
