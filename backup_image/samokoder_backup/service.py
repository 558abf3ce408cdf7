"""The service: receives WAL without a break, does each job when it is due, says how it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from apscheduler.triggers.cron import CronTrigger
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

from samokoder_backup import barman, catalogue, copies, database, entries, jobs, metrics, offsite, retention, state, wal
from samokoder_backup import settings as at
from samokoder_backup.process import BackupError, exclusive, say
from samokoder_backup.settings import Kind, Settings

_BEAT_SECONDS = 5.0
_MARK_SECONDS = 60.0
"""Between two marks of PostgreSQL: one that may not be given is an error in its log each time."""
_ARCHIVE_SECONDS = 5.0
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 30.0
"""After a job that failed; twice as long after each further time, up to an hour."""
_SELDOM_SECONDS = 24 * 3600.0
"""Between base backups that are bad from the beginning: whatever the reason is, it lasts, and a person is told."""
_GONE = "has already been removed"
"""PostgreSQL's words, when WAL that is asked for is no longer there."""


class Service:
    """All that runs; `stop` ends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._offsite_wake = threading.Event()
        self._server: Path | None = None
        self._attaching = threading.Lock()
        self._unmarked = ""
        """Why PostgreSQL could be given no new mark; empty: it has one."""
        self._pauses: list[catalogue.Pause] = []
        """What could not be noted yet, as on a full disk: a moment of them would silently be another state.

        Lost with the process only where the disk takes no empty file either (`catalogue.note_pause`).
        """
        self._receiver: subprocess.Popen[str] | None = None
        self._began = time.monotonic()
        self._tried: dict[str, tuple[float, int]] = {}
        self.retained = 0

    @property
    def receiving(self) -> bool:
        """Whether WAL is being received: the receiver runs, and something came lately."""
        return self._receiver is not None and self._receiver.poll() is None and self.lag < 12 * _BEAT_SECONDS

    @property
    def lag(self) -> float:
        """Seconds since WAL last came; there is some for every heartbeat."""
        newest = _received(self._server)
        return metrics.since(newest) if newest else time.monotonic() - self._began

    def run(self) -> int:
        """Run until SIGTERM."""
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda _number, _frame: self._stop.set())
        at.ROOT.mkdir(parents=True, exist_ok=True)
        at.RUN.mkdir(mode=0o700, exist_ok=True)
        # Nobody waits for it any more. First, for what it has opened may hold each of the locks until it is ended.
        at.DRILL_REQUEST.unlink(missing_ok=True)
        with exclusive(at.ROOT / ".service.lock"):  # never two receivers on one volume
            loops: list[Callable[[], None]] = [self._jobs]
            if self._settings.streamed:
                loops += [self._receive, self._archive, self._beat]
            if self._settings.offsite:
                loops.append(self._copy_offsite)
            threads = [threading.Thread(target=_for_good, args=(loop,), daemon=True) for loop in loops]
            web = self._web()
            threads.append(threading.Thread(target=web.serve_forever, daemon=True))
            for thread in threads:
                thread.start()
            self._stop.wait()
            if self._receiver:
                _end(self._receiver)
            web.shutdown()
        return 0

    def _receive(self) -> None:
        """Receive WAL; where that ends, begin again."""
        assert self._settings.streamed is not None  # noqa: S101 - else this is not run
        pause, said = 1.0, ""
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                database.prepare(self._settings.streamed)
                server = self._attach()
                say(f"receiving the WAL of {server.name}")
                if self._follow(server):
                    # Nothing that comes joins on to it: a new beginning, and a new base backup with it.
                    say("WAL has a gap: PostgreSQL no longer has what comes next, so a new base backup follows")
                    barman.set_aside(server)
                said = ""
            except (BackupError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    say(f"WAL is not received: {said}")
            # At once after a long time, slower and slower while nothing works.
            pause = 1.0 if time.monotonic() - began > 60 else min(10.0, pause * 1.5)  # noqa: PLR2004
            self._stop.wait(pause)

    def _attach(self) -> Path:
        with self._attaching:
            self._server, unmarked, pauses = barman.attach(self._settings)
            again = {each[:2] for each in pauses}
            self._pauses = [*(each for each in self._pauses if each[:2] not in again), *pauses]
            if unmarked and unmarked != self._unmarked:
                say(f"PostgreSQL keeps its mark: {unmarked}")
            self._unmarked = unmarked
            return self._server

    def _mark_again(self, connection: Connection) -> None:
        """Give another mark; not while another thread attaches, which gives one itself."""
        if self._server and self._attaching.acquire(blocking=False):
            try:
                self._note_pauses()
                unmarked = barman.mark_again(connection, self._server)
                if unmarked and unmarked != self._unmarked:
                    say(f"PostgreSQL keeps its mark: {unmarked}")
                elif self._unmarked and not unmarked:
                    say("PostgreSQL has a new mark now")
                self._unmarked = unmarked
            finally:
                self._attaching.release()

    def _note_pauses(self) -> None:
        for pause in list(self._pauses):
            with contextlib.suppress(OSError):
                # Its folder may have another name since a gap; without any, retention removed all of the history.
                for server in catalogue.histories():
                    if server == pause.server or server.name.startswith(f"{pause.server.name}-"):
                        catalogue.note_pause(server, pause.start, pause.end)
                        say("a pause is noted now that could not be before")
                self._pauses.remove(pause)

    def _follow(self, server: Path) -> bool:
        """Run the receiver to its end; tell whether PostgreSQL no longer has what it asked for."""
        gone = False
        process = subprocess.Popen(
            barman.command(self._settings, "receive-wal", server.name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        self._receiver = process
        if self._stop.is_set():
            _end(process)
        for line in process.stdout or ():
            gone = gone or _GONE in line
            if "finished segment" not in line:
                say(f"receiver: {line.strip()}")
        process.wait()
        _end(process)  # whatever it has left
        return gone

    def _archive(self) -> None:
        said, noted = "", None
        while not self._stop.wait(_ARCHIVE_SECONDS):
            if server := self._server:
                try:
                    if server.exists():
                        barman.archive(self._settings, server, first=server != noted)
                        said, noted = "", server
                except (BackupError, OSError) as error:
                    if str(error) != said:
                        said = str(error)
                        say(said)

    def _beat(self) -> None:
        """Write the marker, and see how much waits for us."""
        assert self._settings.streamed is not None  # noqa: S101 - else this is not run
        while not self._stop.is_set():
            try:
                with database.connected(self._settings.streamed) as connection:
                    again = time.monotonic()
                    while True:
                        database.beat(connection)
                        if time.monotonic() >= again:
                            self._mark_again(connection)
                            again = time.monotonic() + _MARK_SECONDS
                        slot = database.slot(connection, self._settings.slot)
                        self.retained = slot.retained if slot else 0
                        if self._stop.wait(_BEAT_SECONDS):
                            return
            except (BackupError, OSError):
                self._stop.wait(_BEAT_SECONDS)  # the receiver says it

    def _jobs(self) -> None:
        """Do what is due, one after the other."""
        with exclusive(at.ROOT / "lock"):
            shutil.rmtree(at.SCRATCH, ignore_errors=True)  # of a verification that was killed
        schedules = self._settings.schedules
        while not self._stop.wait(_LOOK_SECONDS):
            done = state.read()
            for kind in self._settings.kinds():
                ready = self._may_succeed if kind == "base" else lambda: True
                newest = self._newest(kind)
                if self._due(kind, getattr(schedules, kind), newest, ready=ready) and jobs.backup(self._settings, kind):
                    self._tried.pop(kind)
                    self._offsite_wake.set()
            started = time.time() - (time.monotonic() - self._began)
            verified = None if state.FORGOTTEN in state.bad() else done.get("verify", {}).get("finished", started)
            if self._due("verify", schedules.verify, verified):
                jobs.verify()
            # The first one comes with the first backup: what was never restored is a hope.
            if self._due("drill", schedules.drill, done.get("drill", {}).get("success"), ready=self._restorable):
                jobs.drill()

    def _restorable(self) -> bool:
        """Tell whether there is something for a drill to restore."""
        kind: Kind = "base" if self._settings.physical else "dump"
        there = catalogue.bases() if self._settings.physical else copies.copies("dump")
        return bool(there) and self._newest(kind) is not None

    def _may_succeed(self) -> bool:
        """Tell whether a base backup is tried now: not where several in a row were bad, and the last is not old."""
        failing = retention.failing(self._server, entries.known_bad()) if self._server else []
        return (
            len(failing) < retention.KEPT_FAILING
            or failing[-1].ahead
            or metrics.since(failing[-1].end.timestamp()) > _SELDOM_SECONDS
        )

    def _newest(self, kind: Kind) -> float | None:
        """Say when the newest backup that counts now was finished; None where one is missing."""
        bad = entries.known_bad()
        if kind != "base":
            good = [copy for copy in copies.copies(kind) if copy.id not in bad and not copy.ahead]
            return good[-1].finished.timestamp() if good else None
        if self._server is None or not _received(self._server):
            return time.time()  # nothing can be done yet, and the receiver says why
        bases = [base for base in catalogue.bases(self._server) if base.id not in bad and not base.ahead]
        # One that WAL no longer leads on from is no use for tomorrow.
        return bases[-1].end.timestamp() if bases and entries.joined(bases[-1]) else None

    def _due(self, name: str, schedule: str, last: float | None, *, ready: Callable[[], bool] = lambda: True) -> bool:
        """Tell whether a time of the schedule has passed since the last time; a run that failed is tried again.

        ready: asked at that time; until it is, nothing is tried.
        """
        now = time.time()
        tried, failures = self._tried.get(name, (0.0, 0))
        failures = 0 if (last or 0.0) >= tried or tried > now else failures  # the clock may have been put back
        if failures and now - tried < min(3600.0, _AGAIN_SECONDS * 2 ** (failures - 1)):
            return False
        trigger = CronTrigger.from_crontab(schedule, timezone=UTC)
        due = last is None or trigger.get_next_fire_time(None, datetime.fromtimestamp(last, UTC)).timestamp() <= now
        if due := due and ready():
            self._tried[name] = (now, failures + 1)
        return due

    def _copy_offsite(self) -> None:
        assert self._settings.offsite is not None  # noqa: S101 - else this is not run

        def report(status: int, said: str) -> None:
            now = time.time()
            state.record(
                "offsite", {"exit": status, "finished": now, "error": said, **({} if status else {"success": now})}
            )
            if said:
                say(f"off-site: {said}")

        offsite.serve(self._settings.offsite, wake=self._offsite_wake, stop=self._stop, report=report)

    def _web(self) -> ThreadingHTTPServer:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(metrics.Metrics(self._settings, self))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer; whether backups work is for the metrics to say, not for a restart to mend."""
                status, body = HTTPStatus.OK, b"ok\n"
                if self.path == "/metrics":
                    body = generate_latest(registry)
                elif self.path != "/health":
                    status, body = HTTPStatus.NOT_FOUND, b"not here\n"
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE_LATEST if self.path == "/metrics" else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                """Say nothing of each request."""

        server = ThreadingHTTPServer(("", at.METRICS_PORT), Handler)
        server.daemon_threads = True
        return server


def _for_good(loop: Callable[[], None]) -> None:
    """Run a loop; one that ends by a fault ends the process, and the engine starts it again: no service half works."""
    try:
        loop()
    except Exception:
        traceback.print_exc()
        os._exit(1)


def _received(server: Path | None) -> float:
    """Say when WAL last came, as a time stamp; 0 for never, and where nobody can see it: the receiver says why."""
    try:
        return wal.newest(server) if server else 0.0
    except OSError:
        return 0.0


def _end(process: subprocess.Popen[str]) -> None:
    """End the receiver with all that it started; what it has received stays."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
