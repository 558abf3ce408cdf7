"""Health check commands that work in the official images."""

from __future__ import annotations

APPLIED = ("test", "-f", "/tmp/applied")  # noqa: S108 - the container's own tmpfs
"""For postgres-roles, redis-users and migrations: each creates this file after it has applied what is declared."""


def wget(port: int, path: str) -> tuple[str, ...]:
    """Check with BusyBox' wget, which every monitoring image has."""
    return ("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{port}{path}")


READY_ONCE = "/tmp/ready-once"  # noqa: S108 - the container's own tmpfs, empty at each start
"""`python` with `later` creates this file after the first successful check, and then requests the path `later`."""


def python(port: int, path: str, *, stable_seconds: int = 0, later: str = "") -> tuple[str, ...]:
    """Check with Python, which every image of the application has, while it may have no curl. Exits with 1 on an error.

    stable_seconds: a container that has run for less is not healthy, even if it answers. A deploy replaces the next
    replica when this one is healthy, so a version that fails soon after its start must not replace both. later: path
    to request after the first successful check.
    """
    address, asked = f"http://127.0.0.1:{port}", f"'http://127.0.0.1:{port}{path}'"
    if later:
        asked = f"'{address}' + ('{later}' if os.path.exists('{READY_ONCE}') else '{path}')"
    ask = f"import {'os, ' if later else ''}urllib.request; urllib.request.urlopen({asked}, timeout=4)"
    # Not `assert`: an image may set PYTHONOPTIMIZE, which removes assertions.
    steady = f"up < {stable_seconds} and sys.exit(f'up for {{up:.0f}} s, healthy from {stable_seconds} s on')"
    note = f"open('{READY_ONCE}', 'w').close()"
    return (
        "python",
        "-c",
        "; ".join([ask, *([_UPTIME, steady] if stable_seconds else []), *([note] if later else [])]),
    )


# Seconds since process 1 started: field 22 of /proc/1/stat, in ticks since the host's start (proc(5)). The text is cut
# after the last bracket, because the second field, the program's name in brackets, may contain spaces.
_UPTIME = (
    "import os, sys; ticks = int(open('/proc/1/stat').read().rpartition(')')[2].split()[19]); "
    "up = float(open('/proc/uptime').read().split()[0]) - ticks / os.sysconf('SC_CLK_TCK')"
)
