"""Runs commands in a container for a test, each in a process group of its own: far cheaper than a container for each.

Reads one JSON document a line from standard input, answers with one a line. Needs Python's own library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

jobs: set[subprocess.Popen[str]] = set()
servers: dict[str, subprocess.Popen[bytes]] = {}
saying = threading.Lock()


def say(answer: dict[str, Any]) -> None:
    with saying:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def run(ask: dict[str, Any]) -> None:
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
        servers[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0)
    return servers[name].pid


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
    return server.returncode


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
        case "start":
            say({"id": asked["id"], "status": start(asked["name"], asked["command"])})
        case "stop":
            say({"id": asked["id"], "status": stop(asked["name"], asked["signal"])})
        case "alive":
            found = servers.get(asked["name"])
            say({"id": asked["id"], "status": int(found is not None and found.poll() is None)})
