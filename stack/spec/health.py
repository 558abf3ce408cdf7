"""Health commands that work in the official images."""

from __future__ import annotations

APPLIED = ("test", "-f", "/tmp/applied")  # noqa: S108 - the container's own tmpfs
"""For postgres-roles, redis-users and migrations: each creates this file after it has applied what is declared."""


def wget(port: int, path: str) -> tuple[str, ...]:
    """Ask with BusyBox' wget, which every monitoring image has."""
    return ("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{port}{path}")


READY_ONCE = "/tmp/ready-once"  # noqa: S108 - the container's own tmpfs, empty at each start
"""Made once a container was healthy, where another path is asked from then on."""


def python(port: int, path: str, *, stable_seconds: int = 0, later: str = "") -> tuple[str, ...]:
    """Ask with Python, which an image of the application has: it needs no curl. An error status ends with 1.

    stable_seconds: a container that has run for less is not healthy yet, however well it answers: the next replica is
    replaced once this one is healthy, and what falls ill soon after its start must not take both. later: path that is
    asked once it was healthy.
    """
    address, asked = f"http://127.0.0.1:{port}", f"'http://127.0.0.1:{port}{path}'"
    if later:
        asked = f"'{address}' + ('{later}' if os.path.exists('{READY_ONCE}') else '{path}')"
    ask = f"import {'os, ' if later else ''}urllib.request; urllib.request.urlopen({asked}, timeout=4)"
    # No assert: an image may have PYTHONOPTIMIZE set.
    steady = f"up < {stable_seconds} and sys.exit(f'up for {{up:.0f}} s, healthy from {stable_seconds} s on')"
    note = f"open('{READY_ONCE}', 'w').close()"
    return (
        "python",
        "-c",
        "; ".join([ask, *([_UPTIME, steady] if stable_seconds else []), *([note] if later else [])]),
    )


# Seconds since process 1 started: field 22 of its stat, in ticks since the host's start (proc(5)). Its second field,
# the name, may hold blanks and ends with the last bracket.
_UPTIME = (
    "import os, sys; ticks = int(open('/proc/1/stat').read().rpartition(')')[2].split()[19]); "
    "up = float(open('/proc/uptime').read().split()[0]) - ticks / os.sysconf('SC_CLK_TCK')"
)
