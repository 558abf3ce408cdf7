"""Runs commands in a container for a test, each in a process group of its own: far cheaper than a container for each.

Reads one JSON document a line from standard input, answers with one a line. The backup program is loaded here once, and
each of its runs is a fork: to load it takes most of the time of a short one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

import shifted  # type: ignore[import-not-found]

import samokoder_backup.__main__
import samokoder_backup.service  # noqa: F401 - loaded here

PROGRAM = ["python3", "/test/shifted.py"]
saying = threading.Lock()


class Forked:
    """A run of the backup program, as a process of `subprocess`."""

    def __init__(self, words: list[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> None:
        self.returncode: int | None = None
        self._ended = threading.Event()
        with saying:
            self.pid = os.fork()
        if not self.pid:
            self._be(words, environment, out, err)
        threading.Thread(target=self._reap, daemon=True).start()

    def _be(self, words: list[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out.fileno(), err.fileno())):
                os.dup2(file, number)
            # The pipes of runs beside this one: they would not end before this one does.
            os.closerange(3, max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 1)
            # Those of before may be locked by a thread that is not in this process.
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            os.environ.update(environment)
            status = shifted.run(Path(words[0]), Path(words[1]), words[3:])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("a run of the program", timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


jobs: set[subprocess.Popen[str] | Forked] = set()
servers: dict[str, subprocess.Popen[bytes] | Forked] = {}


def is_forked(command: list[str]) -> bool:
    """Tell whether it is the program by the right clock; another clock is to be there before it is loaded."""
    return command[:2] == PROGRAM and not float(command[4])


def run_forked(ask: dict[str, Any]) -> None:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        job = Forked(ask["command"][2:], ask["environment"], out, err)
        jobs.add(job)
        job.wait()
        jobs.discard(job)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
        say({"id": ask["id"], "status": job.returncode, "out": said[0], "err": said[1]})


def say(answer: dict[str, Any]) -> None:
    with saying:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def run(ask: dict[str, Any]) -> None:
    if is_forked(ask["command"]):
        run_forked(ask)
        return
    pipe = subprocess.PIPE
    environment = {**os.environ, **ask["environment"]}
    job = subprocess.Popen(
        ask["command"],
        text=True,
        errors="replace",
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=environment,
        process_group=0,
    )
    jobs.add(job)
    out, err = job.communicate(ask["stdin"])
    jobs.discard(job)
    say({"id": ask["id"], "status": job.returncode, "out": out, "err": err})


def parents() -> dict[int, int]:
    """Each process that runs, and its parent."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found[int(folder.name)] = int(parent)
    return found


def others() -> list[int]:
    """What is neither a server nor of one: what a job has started may be in a session of its own, as `pg_ctl start`."""
    family = parents()
    ours = {each.pid for each in servers.values()}

    def stays(process: int) -> bool:
        while process not in {0, 1, os.getpid()} | ours:
            process = family.get(process, 1)
        return process in ours

    return [each for each, parent in family.items() if parent and each != os.getpid() and not stays(each)]


def kill_jobs() -> int:
    """End all jobs with all that they have started, as the end of a container does."""
    running = list(jobs)
    while left := others():
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.01)
    for job in running:
        job.wait()
    return len(running)


def start(name: str, command: list[str]) -> int:
    with open(f"/world/{name}.log", "ab") as log:  # noqa: PTH123 - in the container
        servers[name] = (
            Forked(command[2:], {}, log, log)
            if is_forked(command)
            else subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0)
        )
    return servers[name].pid


def answers(port: int) -> bool:
    """Tell whether a web server here says that it is well."""
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        asked.request("GET", "/health")
        return asked.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        asked.close()


def stop(name: str, number: int) -> int:
    server = servers.pop(name, None)
    if server is None:
        return 0
    server.send_signal(number)
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # what it has left
    return server.returncode or 0


for line in sys.stdin:
    asked = json.loads(line)
    match asked["do"]:
        case "run":
            threading.Thread(target=run, args=(asked,), daemon=True).start()
        case "kill":
            say({"id": asked["id"], "status": kill_jobs()})
        case "wait":
            for each in list(jobs):
                each.wait()
            kill_jobs()  # what they have left ends with their containers
            say({"id": asked["id"], "status": 0})
        case "answers":
            say({"id": asked["id"], "status": int(answers(asked["port"]))})
        case "start":
            say({"id": asked["id"], "status": start(asked["name"], asked["command"])})
        case "stop":
            say({"id": asked["id"], "status": stop(asked["name"], asked["signal"])})
        case "alive":
            found = servers.get(asked["name"])
            say({"id": asked["id"], "status": int(found is not None and found.poll() is None)})
