"""Stand-ins for Redis' programs, for scripts that ask it: one question can fail."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

_CLIENT = """\
case "$*" in *"{failing}"*)
    echo 'LOADING Redis is loading the dataset in memory'
    case "$*" in *-e\\ *) exit 1 ;; *) exit 0 ;; esac
esac
case "$*" in
    *ping) if [ -s {folder}/server ]; then echo PONG; fi ;;
    *memory) printf 'used_memory_dataset:5000\\r\\n' ;;
    *dbsize) echo 3 ;;
    *keyspace) printf 'db0:keys=3,expires=0\\r\\n' ;;
    *stats) printf 'unexpected_error_replies:0\\r\\n' ;;
    *shutdown*) kill "$(cat {folder}/server)" ;;
esac
"""


def run_script(script: str, folder: Path, *words: str, failing: str, rdb: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script that starts a Redis and asks it.

    failing: words of the question that is refused. rdb: what `redis-check-rdb` prints of a snapshot.
    """
    programs = {
        "redis-server": f"echo $$ > {folder}/server\nexec sleep 60\n",
        "redis-cli": _CLIENT.format(failing=failing, folder=folder),
        "redis-check-rdb": f"cat << 'END'\n{rdb}\nEND\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    (folder / "server").unlink(missing_ok=True)
    done = subprocess.run(
        ["sh", "-c", script.replace("/tmp", str(folder)), "sh", *words],  # noqa: S108 - what is replaced
        env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and (folder / "server").exists():
        os.kill(int((folder / "server").read_text()), signal.SIGKILL)
    return done
