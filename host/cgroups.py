"""Mount the control groups that an engine needs, where nothing else has."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from host.process import Say


def missing_cgroup_mounts(mountinfo: str, proc_cgroups: str) -> list[tuple[str, ...]]:
    """Return the mount commands for the control groups that an engine lacks; empty: it has all.

    mountinfo, proc_cgroups: text of /proc/self/mountinfo and /proc/cgroups. A host with the unified hierarchy (v2) at
    /sys/fs/cgroup needs nothing. Where nothing is mounted, the command mounts v2; the caller falls back to v1. With v1,
    there is a command for each enabled controller that is mounted nowhere.
    """
    mounted: set[str] = set()
    top = ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        kind, _, options = right.split(" ", 2)
        if point == "/sys/fs/cgroup":
            top = kind
        if kind == "cgroup":
            mounted.update(options.split(","))
    if top == "cgroup2":
        return []
    if not top and not mounted:
        return [("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")]
    rows = [line.split() for line in proc_cgroups.splitlines() if line and not line.startswith("#")]
    wanted = [name for name, _, _, enabled in rows if enabled == "1" and name not in mounted]
    return [("mount", "-t", "cgroup", "-o", name, "none", f"/sys/fs/cgroup/{name}") for name in wanted]


def mount_cgroups(report: Say) -> None:
    """Mount the control groups that are missing."""

    def commands() -> list[tuple[str, ...]]:
        return missing_cgroup_mounts(
            Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
            Path("/proc/cgroups").read_text(encoding="utf-8"),
        )

    def mount(command: Sequence[str]) -> bool:
        Path(command[-1]).mkdir(parents=True, exist_ok=True)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    todo = commands()
    if todo and "cgroup2" in todo[0]:
        report("Mounting the control groups")
        controllers = Path("/sys/fs/cgroup/cgroup.controllers")
        if mount(todo[0]) and "memory" in controllers.read_text(encoding="utf-8").split():
            return
        # v2 has no memory controller here, because the kernel has given the controllers to v1.
        subprocess.run(["umount", "/sys/fs/cgroup"], capture_output=True, check=False)
        mount(("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/sys/fs/cgroup"))
        todo = commands()
    for command in todo:
        if not mount(command):
            report(f"The control group {Path(command[-1]).name} could not be mounted; going on without it")
