"""Tell a live process from a later one with the same id."""

from __future__ import annotations

from pathlib import Path

_STAT_START_TIME = 19  # field 22 of /proc/PID/stat, counted from the state that follows the name


def live_process(pid_file: Path, name: str) -> int | None:
    """Return the id in the pid file when a live process of that name really has it."""
    try:
        pid = int(pid_file.read_text(encoding="utf-8").strip() or "0")
        found = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return pid if found == name and start_time(pid) is not None else None


def start_time(pid: int) -> str | None:
    """Return the kernel's start time of a live process, which with the id is its identity; None for a dead one."""
    try:
        # The process's name is in brackets and may have any characters, so the fields are counted from its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else fields[_STAT_START_TIME]


def is_that_process(pid: int, started: str | None) -> bool:
    """Tell whether a process is the one that was started then. started: what `start_time` returned for it."""
    return started is not None and start_time(pid) == started
